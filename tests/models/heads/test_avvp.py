"""The AVVP head: groups that gather seconds, class tokens, seconds and their probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from dgsct_jax import tree
from dgsct_jax.convert import avvp as names
from dgsct_jax.convert import table
from dgsct_jax.models.dual import DualEncoder, Encoded
from dgsct_jax.models.heads import avvp
from tests.models import filled, tiny

B, T, C, D = 2, 4, 3, 8
KEYS = {name: jax.random.key(i) for i, name in enumerate(('dropout', 'drop_path', 'augment'))}


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


VISUAL, AUDIO, MOTION = normal(B, T, 6), normal(B, T, 5, seed=1), normal(B, T, 512, seed=2)


def parser(**fields):
  small = dict(
    classes=C, width=D, audio_depth=1, visual_depth=1, joint_depth=1, heads=2, gate_width=4
  )
  return avvp.Parser(**small | fields)


@functools.cache
def run(**fields):
  """Outputs of a parser on the same clips."""
  model = parser(**fields)
  values = filled.variables(model, VISUAL, AUDIO, MOTION, train=False)
  outputs = jax.jit(functools.partial(model.apply, train=False))(values, VISUAL, AUDIO, MOTION)
  return jax.tree.map(np.asarray, outputs)


# Check values of the specs: parameters s·sin(0.3 + 0.7 i + 1.3 k), k-th name; inputs sin(a i + b).


def wave(*shape, a=0.11, b=0.5):
  return np.sin(a * np.arange(np.prod(shape)) + b).reshape(shape).astype(np.float32)


def fill(state, scale, more=()):
  """The parameters of a released module; `more` are names that ours does not have."""
  order = sorted([*state, *more])
  return {
    name: (scale * np.sin(0.3 + 0.7 * np.arange(x.size) + 1.3 * order.index(name)))
    .reshape(x.shape)
    .astype(np.float32)
    for name, x in state.items()
  }


def close(x, total, squares, first, last=None):
  x = np.asarray(x, np.float64).ravel()
  assert x.sum() == pytest.approx(total, rel=1e-4)
  assert np.square(x).sum() == pytest.approx(squares, rel=1e-4)
  np.testing.assert_allclose(x[: len(first)], first, rtol=1e-3, atol=1e-5)
  if last is not None:
    assert x[-1] == pytest.approx(last, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
  'other, assign, found',
  [
    (
      'hard',
      'soft',
      (81.77328263, 205.901094, (-0.4914210099, 0.3228360651, 0.8714445508), -0.3869851291),
    ),
    (
      'none',
      'soft',
      (82.80155092, 206.9734792, (-0.4854665373, 0.337696992, 0.8713056519), -0.3848605472),
    ),
    (
      'none',
      'hard',
      (81.48976001, 203.0232936, (-0.4543509714, 0.26672546, 0.7926720902), -0.4715779605),
    ),
  ],
)
def test_class_groups_give_the_check_values(other, assign, found):
  model = avvp.ClassGroups(2, assign, other)
  x, tokens, seconds = wave(2, 10, 16), wave(25, 16, a=0.05, b=0.2), wave(2, 10, 16, a=0.13, b=0.9)
  inputs = x, np.stack([tokens] * 2), seconds
  empty = table.targets(model, *inputs, train=False)
  state = table.export(
    {name: np.zeros(shape, np.float32) for name, shape in empty.items()}, names.GROUPS
  )
  assert len(state) == (104 if other != 'none' else 64)
  values = table.convert(fill(state, 0.2), names.GROUPS, empty)

  @jax.jit
  def run(values, *inputs):
    groups, _ = model.apply(values, *inputs, False)
    return groups, avvp.second_factor(groups, 'soft')

  with jax.default_matmul_precision('highest'):
    groups, factor = run(tree.unflatten(values), *inputs)
  close(groups.features, *found)
  if other != 'none':
    np.testing.assert_allclose(
      np.ravel(factor)[:3], (1.1000004517, 1.1000003568, 1.0999992879), rtol=1e-6
    )
    np.testing.assert_allclose(
      np.ravel(groups.weights)[:3], (0.0394448358, 0.0394438872, 0.0394331978), rtol=1e-4
    )


def test_the_temporal_gate_gives_the_check_values():
  model, rows = avvp.TemporalGate(), names.gate('audio')
  visual, audio = wave(2, 10, 128), wave(2, 10, 128, a=0.031, b=0.3)
  empty = table.targets(model, visual, audio, train=False)
  state = table.export({name: np.zeros(s, np.float32) for name, s in empty.items()}, rows)
  # The released module has the other half, too, and a template of the layers of each.
  mirrored = [
    name.replace('audio_rnn', 'visual_rnn')
    if 'rnn_layer' in name
    else name.replace('audio_', 'video_')
    for name in state
  ]
  first = 'audio_encoder.encoder.layers.0.'
  templates = [
    name.replace(first, f'{stream}_encoder.encoder_layer.')
    for name in state
    for stream in ('audio', 'video')
    if name.startswith(first)
  ]
  values = table.convert(fill(state, 0.05, [*mirrored, *templates]), rows, empty)
  with jax.default_matmul_precision('highest'):
    out = jax.jit(functools.partial(model.apply, train=False))(
      tree.unflatten(values), visual, audio
    )
  close(out, 1.275144934, 1350.525278, (0.4916860536, 0.5875175977, 0.6762473441), -0.701572104)


# Assignment.


def test_each_second_is_shared_among_the_groups():
  soft, hard = jax.jit(
    lambda logits: [avvp.Grouping(assign).choose(logits, False) for assign in ('soft', 'hard')]
  )(normal(B, C, T))
  np.testing.assert_allclose(soft.sum(1), 1, atol=1e-6)
  np.testing.assert_array_equal(hard, np.asarray(soft).argmax(1)[:, None] == np.arange(C)[:, None])


def test_a_hard_choice_has_the_gradient_of_the_soft_one():
  logits, weight = normal(B, C, T), normal(B, C, T, seed=1)

  @jax.jit
  def slopes(logits):
    loss = lambda assign: lambda x: jnp.sum(weight * avvp.Grouping(assign).choose(x, False))
    return [jax.grad(loss(assign))(logits) for assign in ('hard', 'soft')]

  hard, soft = slopes(logits)
  np.testing.assert_allclose(hard, soft, atol=1e-6)


def test_a_hard_choice_is_drawn_in_training_with_the_probabilities_of_the_soft_one():
  logits = np.broadcast_to(np.log(np.float32([0.5, 0.3, 0.2]))[:, None], (1, 3, 4000))
  choose = functools.partial(avvp.Grouping('hard').apply, train=True, method='choose', rngs=KEYS)
  drawn = np.asarray(jax.jit(choose)({}, logits))
  assert set(np.unique(drawn)) == {0, 1}
  np.testing.assert_allclose(drawn.mean((0, 2)), [0.5, 0.3, 0.2], atol=0.03)


# The parser.


def test_outputs_of_clips_and_seconds_lead_with_the_clip():
  found = run()
  assert {name: x.shape for name, x in found.items()} == {
    'logits': (B, C),
    'audio_logits': (B, C),
    'visual_logits': (B, C),
    'audio_probability': (B, T, C),
    'visual_probability': (B, T, C),
    'audio_attention': (B, T, C),
    'visual_attention': (B, T, C),
    'audio_token_logits': (B, C, C),
    'visual_token_logits': (B, C, C),
  }
  for name in ('audio_token_logits', 'visual_token_logits'):
    np.testing.assert_allclose(found[name][0], found[name][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('stream', ['audio', 'visual'])
def test_released_seconds_stay_within_a_narrow_factor_of_their_clip(stream):
  found = run()
  clip = expit(found[f'{stream}_logits'])
  factor = found[f'{stream}_probability'] / clip[:, None]
  low, high = 1 + 1 / (1 + (T - 1) * np.e), 1 + np.e / (np.e + T - 1)
  assert low <= factor.min() and factor.max() <= high
  np.testing.assert_allclose(factor.sum(1), T + 1, rtol=1e-5)


def test_in_hard_assignment_a_second_has_the_probability_of_its_clip_or_none():
  found = run(assign='hard', other_assign='soft')
  clip = expit(found['audio_logits'][:, None])
  share = found['audio_probability'] / clip
  np.testing.assert_allclose(share, share.round(), atol=1e-5)
  np.testing.assert_allclose(share.sum(-1), 1, atol=1e-5)


def test_own_seconds_are_probabilities_and_their_clip_lies_between_them():
  found = run(seconds='own')
  for stream in ('audio', 'visual'):
    probability, pooled = found[f'{stream}_probability'], found[f'{stream}_pooled']
    np.testing.assert_allclose(probability, expit(found[f'{stream}_second_logits']), atol=1e-6)
    assert (probability.min(1) <= pooled).all() and (pooled <= probability.max(1)).all()


def test_training_leaves_out_branches_and_evaluation_does_not():
  block = avvp.Block(2, drop_path=0.9)
  x = normal(8, T, D)
  values = filled.variables(block, x, train=False)
  run = jax.jit(functools.partial(block.apply, rngs=KEYS), static_argnums=2)
  out, trained = (np.asarray(run(values, x, train)) for train in (False, True))
  same = (trained == x).all((1, 2))
  assert same.any() and not (out == x).all((1, 2)).any()


def test_the_gate_leaves_a_stream_as_it_is_where_gamma_is_zero():
  gate = avvp.TemporalGate(0.0, 4)
  values = filled.variables(gate, VISUAL, AUDIO, train=False)
  out = jax.jit(functools.partial(gate.apply, train=False))(values, VISUAL, AUDIO)
  np.testing.assert_array_equal(out, VISUAL)


# The model.


class Echo(DualEncoder):
  """Tokens that are the pixels and samples of the segment; the maps take the first of them."""

  def setup(self):
    pass

  def __call__(self, video, wave, train=False):
    v, a = video.reshape(len(video), -1, 3), wave[:, :, None]
    first = lambda x: jnp.zeros((len(x), 1, x.shape[1])).at[:, 0, 0].set(1)
    return Encoded(v, a, first(v), 2 * first(a), (v,), (a,))


class Show(avvp.Parser):
  """What a parser gets."""

  def __call__(self, visual, audio, motion, train):
    return {'visual': visual, 'audio': audio, 'motion': motion}


def clips():
  return {'video': normal(2, 5, 1, 2, 3), 'wave': normal(2, 5, 4), 'motion': normal(2, 5, 512)}


def test_segments_are_pooled_by_their_maps_and_return_to_their_clips():
  batch = clips()
  found = jax.jit(avvp.AVVP(Echo(tiny.swin(), tiny.htsat()), Show()).apply)({}, batch)
  np.testing.assert_array_equal(found['visual'], batch['video'][:, :, 0, 0])
  np.testing.assert_allclose(found['audio'], 2 * batch['wave'][:, :, :1])
  np.testing.assert_array_equal(found['motion'], batch['motion'])
  assert found['visual_map'].shape == (2, 5, 2) and found['audio_map'].shape == (2, 5, 4)


def test_motion_is_needed_unless_the_model_goes_without():
  batch = clips()
  del batch['motion']
  model = lambda motion: avvp.AVVP(Echo(tiny.swin(), tiny.htsat()), Show(motion=motion))
  assert jax.jit(model('none').apply)({}, batch)['motion'] is None
  with pytest.raises(ValueError, match="no 'motion'.*config.model.head.motion='none'"):
    jax.eval_shape(model('r2plus1d_18').apply, {}, batch)


def test_a_parser_without_motion_has_no_layers_for_it():
  shapes = table.targets(parser(motion='none'), VISUAL, AUDIO, None, train=False)
  whole = table.targets(parser(), VISUAL, AUDIO, MOTION, train=False)
  assert {name.split('/')[1] for name in whole.keys() - shapes.keys()} == {'motion_fc', 'fusion'}
