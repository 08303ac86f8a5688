import functools
import re

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange, NoExchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads.avqa import AVQA, Answerer, Grounding, Matching, QuestionEncoder
from tests.models import filled, tiny

B, Q, T, WORDS = 2, 2, 3, 7
RNGS = {name: jax.random.key(i) for i, name in enumerate(('dropout', 'drop_path', 'augment'))}


def encoder(exchange=NoExchange):
  one = dict(depths=(1,), heads=(2,))
  return DualEncoder(tiny.swin(**one), tiny.htsat(**one), exchange)


def model(**fields):
  adapter = functools.partial(DGSCTAdapter, reduction=2, groups=2, tokens=2, batch_norm=False)
  exchange = functools.partial(Exchange, adapter, functools.partial(adapter, gate=False))
  return AVQA(encoder(exchange), Matching((8, 4)), QuestionEncoder(WORDS), Answerer(5), **fields)


def batch():
  rng = np.random.default_rng(0)
  frames = rng.normal(size=(2, B, T, 32, 32, 3)).astype(np.float32)
  wave = rng.uniform(-1, 1, (B, T, 512)).astype(np.float32)
  question = rng.integers(1, WORDS, (B, Q, 6)).astype(np.int32)
  return {'video': frames[0], 'negative': frames[1], 'wave': wave, 'question': question}


@pytest.fixture(scope='module')
def variables():
  return filled.variables(model(), batch(), train=False)


@functools.partial(jax.jit, static_argnames=('train', 'adapt'))
def compiled(variables, batch, train=False, adapt=False):
  return model(adapt_negatives=adapt).apply(variables, batch, train, rngs=RNGS)


def run(*args):
  return jax.device_get(compiled(*args))


def test_evaluation_neither_needs_nor_sees_frames_of_other_clips(variables):
  clips = batch()
  with_negatives = run(variables, clips)
  del clips['negative']
  assert jax.tree.map(np.shape, run(variables, clips)) == jax.tree.map(np.shape, with_negatives)
  assert with_negatives['match_logits'].shape == (B, 1, T, 2)
  products = lambda batch, train: str(
    jax.make_jaxpr(functools.partial(model().apply, train=train, rngs=RNGS))(variables, batch)
  ).count('dot_general')
  assert products(batch(), False) == products(clips, False) < products(batch(), True)


def test_answers_do_not_depend_on_the_frames_of_other_clips(variables):
  clips, other = batch(), batch()
  other['negative'] = other['negative'][::-1]
  for adapt in (False, True):
    a, b = run(variables, clips, True, adapt), run(variables, other, True, adapt)
    np.testing.assert_allclose(a['logits'], b['logits'], atol=1e-6)
    assert not np.allclose(a['match_logits'][:, 1], b['match_logits'][:, 1], atol=1e-4)


def test_adapters_tell_the_same_frame_apart_unless_they_act_on_both(variables):
  clips = batch()
  clips['negative'] = clips['video']
  own, other = np.moveaxis(run(variables, clips, True, False)['match_logits'], 1, 0)
  assert not np.allclose(own, other, atol=1e-4)
  own, other = np.moveaxis(run(variables, clips, True, True)['match_logits'], 1, 0)
  np.testing.assert_allclose(own, other, atol=1e-6)


def test_adapting_negatives_leaves_the_rest_as_it_is(variables):
  plain, adapted = (run(variables, batch(), True, adapt) for adapt in (False, True))
  np.testing.assert_allclose(plain['match_logits'][:, 0], adapted['match_logits'][:, 0], atol=1e-5)
  np.testing.assert_allclose(plain['looks'], adapted['looks'], atol=1e-5)
  np.testing.assert_allclose(plain['audio_map'], adapted['audio_map'], atol=1e-5)


def test_one_encoding_answers_many_questions(variables):
  clips, net = batch(), model()
  perceive = jax.jit(functools.partial(net.apply, method='perceive'))
  reply_to = jax.jit(functools.partial(net.apply, method='reply'))
  clip = perceive(variables, clips['video'], clips['wave'])
  whole = run(variables, clips)
  for q in range(Q):
    reply = reply_to(variables, clip, clips['question'][:, q : q + 1])
    for name in reply:
      np.testing.assert_allclose(reply[name], whole[name][:, q : q + 1], atol=1e-5)


def test_attention_over_seconds_and_regions_is_shares_of_one(variables):
  outputs = run(variables, batch())
  assert outputs['logits'].shape == (B, Q, 5)
  for name, shape in (
    ('looks', (B, T, 64)),
    ('audio_map', (B, T, 64)),
    ('audio_seconds', (B, Q, T)),
    ('visual_seconds', (B, Q, T)),
  ):
    assert outputs[name].shape == shape
    np.testing.assert_allclose(outputs[name].sum(-1), 1, atol=1e-5)


def test_the_order_of_seconds_is_seen_in_the_attention_alone(variables):
  clips, order = batch(), np.array([2, 0, 1])
  turned = clips | {name: clips[name][:, order] for name in ('video', 'wave')}
  a, b = run(variables, clips), run(variables, turned)
  np.testing.assert_allclose(a['logits'], b['logits'], atol=1e-5)
  for name in ('looks', 'audio_seconds', 'visual_seconds'):
    along = a[name][:, order] if name == 'looks' else a[name][..., order]
    np.testing.assert_allclose(along, b[name], atol=1e-5)


def test_padding_is_read_like_a_word():
  net, question = QuestionEncoder(WORDS), np.int32([[[1, 2, 0, 0], [1, 2, 0, 0]]])
  variables = filled.variables(net, question, width=8)
  read = jax.jit(functools.partial(net.apply, width=8))
  short, long = jax.device_get([read(variables, x) for x in (question[..., :2], question)])
  assert not np.allclose(short, long, atol=1e-4)
  np.testing.assert_allclose(long[0, 0], long[0, 1], rtol=1e-5, atol=1e-6)


def test_where_a_sound_is_looked_for_depends_on_the_direction_of_features_alone():
  rng = np.random.default_rng(1)
  audio = rng.normal(size=(1, 2, 4)).astype(np.float32)
  pictures = rng.normal(size=(1, 1, 2, 5, 6)).astype(np.float32)
  net = Matching((8,))
  variables = filled.variables(net, audio, pictures)
  scale = rng.uniform(0.5, 2, (1, 1, 2, 5, 1)).astype(np.float32)
  look = jax.jit(net.apply)
  a, b = look(variables, audio, pictures), look(variables, audio, scale * pictures)
  np.testing.assert_allclose(a['looks'], b['looks'], atol=1e-6)
  assert not np.allclose(a['match_logits'], b['match_logits'], atol=1e-4)


def test_pictures_without_any_feature_have_finite_gradients():
  net = Matching((8,))
  zeros = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 1, 5, 6), np.float32)
  variables = jax.tree.map(np.zeros_like, filled.variables(net, *zeros))
  slope = jax.jit(jax.grad(lambda *args: net.apply(*args)['match_logits'].sum()))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope(variables, *zeros)))


def test_the_pre_stage_has_the_encoders_and_the_matching_of_the_main_model(variables):
  net = Grounding(encoder(), Matching((8, 4)))
  clips = {'video': batch()['video'][:, :2], 'wave': batch()['wave'][:, :1]}
  shapes = tree.flatten(jax.eval_shape(net.init, jax.random.key(0), clips))
  whole = tree.flatten(variables)
  assert {name: x.shape for name, x in shapes.items()} == {
    name: x.shape
    for name, x in whole.items()
    if re.match('[a-z_]+/(matching|encoder/visual|encoder/audio)/', name)
  }


def test_without_adapters_the_pre_stage_judges_like_the_main_model(variables):
  clips = batch()
  main = AVQA(encoder(), Matching((8, 4)), QuestionEncoder(WORDS), Answerer(5))
  pre = Grounding(encoder(), Matching((8, 4)))
  video, negative, wave = (clips[name][:, :1] for name in ('video', 'negative', 'wave'))
  whole = jax.jit(functools.partial(main.apply, method='perceive'))(
    variables, video, wave, negative
  )
  pairs = {'video': np.concatenate([video, negative], 1), 'wave': wave}
  found = jax.jit(pre.apply)(variables, pairs)
  assert found['match_logits'].shape == (B, 2, 1, 2)
  np.testing.assert_allclose(found['match_logits'], whole['match_logits'], atol=1e-5)
