"""Matching with words: prompts, merged scores, and what in the model depends on what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import clap, clip
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange, NoExchange
from dgsct_jax.models.heads.matching import Classes, FeatureAdapter, Matching, Prompts, merge
from dgsct_jax.models.maple import DeepPrompts
from tests.models import filled, tiny

B, T = 2, 3
CLASSES = Classes(
  clip=((17, 1, 1, 5, 6, 3, 18, 0, 0, 0), (17, 1, 1, 7, 3, 18, 0, 0, 0, 0)),
  lengths=(2, 1),
  clap=((0, 5, 6, 2, 1, 1), (0, 7, 2, 1, 1, 1)),
)


def model(exchange=NoExchange, classes=CLASSES, **fields):
  visual = dict(image=16, patch=8, width=8, depths=(1, 1), heads=2, mlp_ratio=2.0, features=6)
  text = dict(vocabulary=19, context=10, width=8, depth=1, heads=2, mlp_ratio=2.0, features=6)
  return Matching(
    None,
    clip.build('custom', visual, text),
    clap.CLAP(tiny.htsat(depths=(1, 1)), clap.Roberta(20, 9, 8, 1, 2, 2.0), 6),
    classes,
    exchange,
    **dict(prompts=functools.partial(Prompts, 2)) | fields,
  )


def dgsct():
  adapter = functools.partial(
    DGSCTAdapter, alpha=0.2, beta=0.05, gamma=0.01, reduction=2, groups=2, tokens=2
  )
  return functools.partial(Exchange, adapter)


def batch():
  rng = np.random.default_rng(0)
  video = rng.normal(size=(B, T, 16, 16, 3)).astype(np.float32)
  return {'video': video, 'wave': rng.uniform(-1, 1, (B, T, 512)).astype(np.float32)}


@pytest.fixture(scope='module')
def variables():
  return filled.variables(model(dgsct()), batch(), train=False)


@pytest.fixture(scope='module')
def outputs(variables):
  return jax.device_get(jax.jit(model(dgsct()).apply)(variables, batch()))


def test_towers_lie_below_clip_and_clap_and_adapters_below_the_encoder(variables):
  tops = {'/'.join(path.split('/')[:2]) for path in tree.flatten(variables['params'])}
  assert tops == {
    'clip/visual',
    'clip/text',
    'clip/logit_scale',
    'clap/audio',
    'clap/text',
    'clap/audio_projection',
    'clap/text_projection',
    'clap/logit_scale_a',
    'clap/logit_scale_t',
    'encoder/exchange_attn_0',
    'encoder/exchange_attn_1',
    'encoder/exchange_mlp_0',
    'encoder/exchange_mlp_1',
    'prompt/context',
    'visual_adapter/down',
    'visual_adapter/up',
    'text_adapter/down',
    'text_adapter/up',
    'contrast/kernel',
    'contrast/bias',
  }


def test_every_output_leads_with_clips(outputs):
  shapes = {name: x.shape for name, x in outputs.items()}
  assert shapes == {
    'logits': (B, T, 2),
    'visual_logits': (B, T, 2),
    'audio_logits': (B, T, 2),
    'contrast': (B, B),
    'visual_map': (B, T, 5),
    'audio_map': (B, T, 16),
  }
  np.testing.assert_allclose(
    outputs['logits'], 2 * outputs['visual_logits'] + 2 * outputs['audio_logits'], rtol=1e-5
  )


def test_a_plain_model_is_clip_beside_clap(variables):
  plain = model(prompts=None, share=0.0)
  given = batch()

  @jax.jit
  def run(params, given):
    got = plain.apply({'params': params, 'batch_stats': variables['batch_stats']}, given)
    seen = plain.clip.apply(
      {'params': params['clip']}, given['video'].reshape(-1, 16, 16, 3), jnp.array(CLASSES.clip)
    )
    heard = plain.clap.apply(
      {'params': params['clap'], 'batch_stats': variables['batch_stats']['clap']},
      given['wave'].reshape(-1, 512),
      jnp.array(CLASSES.clap),
    )
    return got, seen, heard

  params = variables['params']
  params, got, seen, heard = jax.device_get((params, *run(params, given)))
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  scales = np.exp(params['clip']['logit_scale']), params['clap']['logit_scale_a']
  for name, pair, scale in zip(('visual_logits', 'audio_logits'), (seen, heard), scales):
    want = scale * unit(pair[0]) @ unit(pair[1]).T
    np.testing.assert_allclose(got[name].reshape(B * T, 2), want, rtol=1e-4, atol=1e-5)


def test_deep_prompts_lie_beside_the_towers_and_both_read_them():
  deep = DeepPrompts(depth=2, width=8, seen_width=8)
  plain = model(prompts=None, share=0.0, contrastive=False)
  clip_ = plain.clip.clone(visual=plain.clip.visual.clone(prompts=deep))
  prompted = plain.clone(clip=clip_, deep=deep)
  variables = filled.variables(prompted, batch(), train=False)
  tops = {'/'.join(path.split('/')[:2]) for path in tree.flatten(variables['params'])}
  named = {f'deep/{name}_{i}' for name in ('written', 'couple') for i in (0, 1)}
  assert {top for top in tops if 'prompt' in top or 'deep' in top} == named

  @jax.jit
  @jax.grad
  def moved(params, given):
    outputs = prompted.apply(variables | {'params': params}, given)
    return jnp.square(outputs['visual_logits']).sum()

  deep_ones = tree.flatten(moved(variables['params'], batch())['deep'])
  assert all(np.abs(x).max() > 0 for x in deep_ones.values())


# Prompts.


def embedded(rows=2, length=9):
  return np.random.default_rng(1).normal(size=(rows, length, 3)).astype(np.float32)


def prompts(x, lengths, **fields):
  module = Prompts(**fields)
  params = {'context': np.arange(100, 112, dtype=np.float32).reshape(4, 3)}
  out = jax.jit(module.apply, static_argnums=2)({'params': params}, x, lengths)
  return np.asarray(out), params['context']


def test_learned_words_take_the_place_of_the_written_ones_or_are_added_to_them():
  x = embedded()
  out, context = prompts(x, (2, 1))
  np.testing.assert_array_equal(out[:, 1:5], np.broadcast_to(context, (2, 4, 3)))
  np.testing.assert_array_equal(out[:, [0, 5, 6, 7, 8]], x[:, [0, 5, 6, 7, 8]])
  added, _ = prompts(x, (2, 1), start='words')
  np.testing.assert_allclose(added[:, 1:5], x[:, 1:5] + context)


def test_prompts_that_start_from_words_change_nothing_at_first():
  x, module = embedded(), Prompts(start='words')
  out, _ = jax.jit(module.init_with_output, static_argnums=2)(jax.random.key(0), x, (2, 1))
  np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize(
  'name_at, want', [('middle', [0, 1, 2, 5, 6, 3, 4, 7, 8]), ('front', [0, 5, 6, 1, 2, 3, 4, 7, 8])]
)
def test_a_name_may_stand_within_or_before_the_learned_words(name_at, want):
  x = embedded()
  end, _ = prompts(x, (2, 1))
  out, _ = prompts(x, (2, 1), name_at=name_at)
  np.testing.assert_array_equal(out[0], end[0][want])


# Scores.

V, A = np.float32([30.0, 20.0, -3.0]), np.float32([4.0, -4.0, 5.0])
merged = jax.jit(merge, static_argnums=2)


def test_the_released_merge_weighs_each_score_by_itself():
  np.testing.assert_allclose(merged(V, A, 'released'), V * V / (V + A) + A * A / (V + A), rtol=1e-6)
  assert not np.isfinite(merged(V[:1], -V[:1], 'released')).any()


def test_a_better_sound_lowers_the_released_score_and_raises_the_fixed_one():
  slope = lambda how: jax.jit(jax.vmap(jax.grad(lambda a, v: merge(v, a, how))))(A[:2], V[:2])
  released, fixed = np.asarray(slope('released')), np.asarray(slope('fixed'))
  assert (released < 0).all() and (fixed == 0.5).all()


def test_the_fixed_merge_lies_between_both():
  fixed = np.asarray(merged(V, A, 'fixed'))
  assert ((np.minimum(V, A) <= fixed) & (fixed <= np.maximum(V, A))).all()
  with pytest.raises(ValueError, match="merged by 'other'; choose"):
    merged(V, A, 'other')


def test_prompts_that_follow_a_picture_are_those_of_its_own_words():
  """CoCoOp: what a picture reads is what fixed prompts with the moved words read."""
  follows = model(prompts=functools.partial(Prompts, 2, name_at='middle', follows=True), share=0.0)
  fixed = model(prompts=functools.partial(Prompts, 2, 'middle'))
  values = filled.variables(follows, batch(), train=False)
  assert 'visual' not in jax.eval_shape(functools.partial(follows.apply, method='read'), values)
  seen = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)

  @jax.jit
  def run(values, seen):
    net = values['params']['prompt']
    hidden = jax.nn.relu(seen[1, 2] @ net['down']['kernel'] + net['down']['bias'])
    moved = net['context'] + hidden @ net['up']['kernel'] + net['up']['bias']
    params = values['params'] | {'prompt': {'context': moved}}
    found = follows.apply(values, seen, method='prompted')
    return found, fixed.apply(values | {'params': params}, method='prompted')

  found, alone = run(values, seen)
  assert found.shape == (2, 3, 2, 6)
  np.testing.assert_allclose(found[1, 2], alone, rtol=1e-4, atol=1e-5)


def test_scores_of_prompts_that_follow_are_cosines_with_what_each_second_reads():
  follows = model(prompts=functools.partial(Prompts, 2, follows=True), share=0.0)
  values = filled.variables(follows, batch(), train=False)

  @jax.jit
  def run(values, batch):
    seen = follows.apply(values, **batch, method='perceive')['visual']
    read = follows.apply(values, unit(seen), method='prompted')
    cosines = jnp.sum(unit(seen)[:, :, None] * unit(read), -1)
    scale = jnp.exp(values['params']['clip']['logit_scale'])
    return follows.apply(values, batch)['visual_logits'], scale * cosines

  got, want = run(values, batch())
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def unit(x):
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def test_a_feature_adapter_blends():
  x = embedded()
  module = FeatureAdapter(0.25, 3)
  variables = filled.variables(module, x)
  params = jax.device_get(variables['params'])
  made = np.maximum(np.maximum(x @ params['down']['kernel'], 0) @ params['up']['kernel'], 0)
  np.testing.assert_allclose(
    jax.jit(module.apply)(variables, x), 0.25 * made + 0.75 * x, rtol=1e-5, atol=1e-6
  )


def test_the_factor_of_the_contrast_does_not_learn_and_that_of_the_scores_would(variables):
  rng, maps = np.random.default_rng(2), {'visual_map': 0, 'audio_map': 0}
  clip_, text = (
    {k: rng.normal(size=(2, *n, 6)).astype(np.float32) for k in ('visual', 'audio')}
    for n in ((T,), ())
  )

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def slope(params, of, clip_, text):
    run = functools.partial(model(dgsct()).apply, {'params': params}, method='compare')
    out = run(clip_ | maps, text)
    return sum(jnp.sum(jnp.square(out[name])) * of[name] for name in of), out

  of = lambda **given: {name: given.get(name, 0.0) for name in ('contrast', 'visual_logits')}
  slopes = lambda **given: jax.device_get(slope(variables['params'], of(**given), clip_, text))[0]
  contrast, scores = slopes(contrast=1.0), slopes(visual_logits=1.0)
  assert contrast['clip']['logit_scale'] == 0 and contrast['contrast']['kernel'].any()
  assert scores['clip']['logit_scale'] != 0 and not scores['contrast']['kernel'].any()


def test_one_class_alone_can_be_asked_for(variables):
  one = Classes(*(rows[:1] for rows in CLASSES))
  read = jax.jit(
    lambda classes, v: model(dgsct(), classes).apply(v, method='read'), static_argnums=0
  )
  alone, both = jax.device_get((read(one, variables), read(CLASSES, variables)))
  for name in ('visual', 'audio'):
    np.testing.assert_allclose(alone[name][0], both[name][0], rtol=1e-4, atol=1e-5)
