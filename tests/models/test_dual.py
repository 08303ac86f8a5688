"""The dual encoder: order of operations, silence of zero gates, sharing, gradients."""

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax import compiler, tree
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange, NoExchange
from dgsct_jax.models.dual import DualEncoder, Encoded, pair
from dgsct_jax.models.layers import Dense
from dgsct_jax.models.remat import Remat
from tests.models import filled, tiny
from tests.models.tiny import apart


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


# Pairs of blocks.


def test_every_third_of_18_visual_blocks_meets_one_of_6_audio_blocks():
  pairs = list(pair(range(18), 'abcdef'))
  assert [block for blocks, _ in pairs for block in blocks] == list(range(18))
  assert [(blocks[-1], a) for blocks, a in pairs] == list(zip((2, 5, 8, 11, 14, 17), 'abcdef'))


def test_equally_many_blocks_all_meet():
  assert list(pair('ab', 'xy')) == [(('a',), 'x'), (('b',), 'y')]


@pytest.mark.parametrize('visual, audio', [(3, 2), (1, 2), (18, 4)])
def test_blocks_that_do_not_pair_are_refused(visual, audio):
  with pytest.raises(ValueError, match=f'{visual} visual blocks do not .* over {audio} audio'):
    list(pair(range(visual), range(audio)))


# The order of operations, with blocks that are little functions of scalars.

ONES, SOUND = jax.device_put((np.ones((1, 1, 1, 3), np.float32), np.float32([[0.7]])))


class Scalars(nn.Module):
  """A backbone of one number per clip; its parts are functions that do not commute."""

  depths: tuple[int, ...]
  seed: float

  def part(self, name: str) -> Callable[..., jax.Array]:
    shift = self.seed + sum(map(ord, name)) % 7
    return lambda x, train=False: 1.1 * x + shift

  @property
  def stages(self) -> list[SimpleNamespace]:

    def block(i, j):
      attend, feed_forward = self.part(f'attend{i}{j}'), self.part(f'feed{j}{i}')
      whole = lambda x, train: feed_forward(attend(x, train), train)
      return Block(whole, attend, feed_forward)

    blocks = [[block(i, j) for j in range(depth)] for i, depth in enumerate(self.depths)]
    return [
      SimpleNamespace(blocks=stage, downsample=self.part(f'down{i}'))
      for i, stage in enumerate(blocks)
    ]

  def stem(self, x: jax.Array, train: bool) -> jax.Array:
    return self.part('stem')(jnp.sum(x).reshape(1, 1, 1))

  def norm(self, x: jax.Array) -> jax.Array:
    return self.part('norm')(x)


@dataclasses.dataclass
class Block:
  whole: Callable[..., jax.Array]
  attend: Callable[..., jax.Array]
  feed_forward: Callable[..., jax.Array]

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    return self.whole(x, train)


class Listen(nn.Module):
  """Residuals that tell what was read, by whom; the maps tell it, too."""

  def __call__(self, v, a, train):
    at = len(self.name) + int(self.name[-1])
    return (0.01 * a + 0.1 * at, 0.02 * v - 0.1 * at), (v + at, a - at)


def scripted(
  visual: Scalars, audio: Scalars, read: str, split: bool, first: int = 0
) -> list[jax.Array]:
  """The orders of the specifications: of AVE (3.5), of few-shot (2.5), and of LAVISH.

  Stages before the `first` have no exchange.
  """
  v, a = visual.stem(ONES, False), audio.stem(SOUND, False)
  k, maps, pyramids = 0, None, ([], [])
  for i, (v_stage, a_stage) in enumerate(zip(visual.stages, audio.stages)):
    every = visual.depths[i] // audio.depths[i]
    for j, v_block in enumerate(v_stage.blocks):
      if (j + 1) % every:
        v = v_block.feed_forward(v_block.attend(v))
        continue
      a_block = a_stage.blocks[j // every]
      for half in ('attn', 'mlp'):
        at = len(f'exchange_{half}_{k}') + k
        v_run = v_block.attend if half == 'attn' else v_block.feed_forward
        if split:
          a_run = a_block.attend if half == 'attn' else a_block.feed_forward
        else:
          whole = lambda x: a_block.feed_forward(a_block.attend(x))
          a_run = whole if half == 'attn' else lambda x: x
        if (read, half) == ('between', 'attn'):
          v, a = v_run(v), a_run(a)
          v_run = a_run = lambda x: x
        read_v, read_a = v, a
        maps = read_v + at, read_a - at
        v, a = v_run(v), a_run(a)
        if i >= first:
          v, a = v + 0.01 * read_a + 0.1 * at, a + 0.02 * read_v - 0.1 * at
      k += 1
    pyramids[0].append(v)
    pyramids[1].append(a)
    v, a = v_stage.downsample(v), a_stage.downsample(a)
  pyramids[0][-1] = v = visual.norm(v)
  return [v, a, *maps, *pyramids[0], *pyramids[1]]


@pytest.mark.parametrize('read', ['before', 'between'])
@pytest.mark.parametrize('split', [False, True])
def test_halves_exchanges_and_merges_come_in_the_released_order(read, split):
  visual, audio = Scalars((2, 4), 0.5), Scalars((2, 2), 0.25)
  model = DualEncoder(visual, audio, Listen, read=read, split_audio=split)
  found, expected = model.apply({}, ONES, SOUND), scripted(visual, audio, read, split)
  np.testing.assert_allclose(jax.tree.leaves(found), expected, rtol=1e-5)


@pytest.mark.parametrize('read', ['before', 'between'])
def test_only_the_last_stages_may_exchange(read):
  visual, audio = Scalars((2, 4), 0.5), Scalars((2, 2), 0.25)
  for stages, first in ((1, 1), (2, 0), (None, 0)):
    found = DualEncoder(visual, audio, Listen, stages, read).apply({}, ONES, SOUND)
    expected = scripted(visual, audio, read, False, first)
    np.testing.assert_allclose(jax.tree.leaves(found), expected, rtol=1e-5)


@pytest.mark.parametrize('stages', [0, 3, -1])
def test_as_many_stages_as_there_are_may_exchange(stages):
  with pytest.raises(ValueError, match=f'adapter.stages={stages}, and .* have 2 .* from 1 to 2'):
    DualEncoder(Scalars((1, 1), 0.0), Scalars((1, 1), 0.0), stages=stages).apply({}, ONES, SOUND)


def test_streams_without_an_exchange_are_the_backbones():
  visual, audio = Scalars((2, 4), 0.5), Scalars((2, 2), 0.25)
  found = DualEncoder(visual, audio).apply({}, ONES, SOUND)
  for backbone, sight, x in ((visual, ONES, found.visual), (audio, SOUND, found.audio)):
    expected = backbone.stem(sight, False)
    for stage in backbone.stages:
      for block in stage.blocks:
        expected = block(expected, False)
      expected = stage.downsample(expected)
    expected = backbone.norm(expected) if backbone is visual else expected
    np.testing.assert_allclose(x, expected, rtol=1e-6)
  assert found.visual_map == found.audio_map == 1


def test_backbones_with_different_stages_are_refused():
  with pytest.raises(ValueError, match=r'\(1, 1\) \(visual\) and \(1,\) \(audio\).*as many stages'):
    DualEncoder(Scalars((1, 1), 0.0), Scalars((1,), 0.0)).apply({}, ONES, SOUND)


# Real backbones of one block.

ONE = dict(depths=(1,), heads=(2,))
VIDEO, WAVE = normal(2, 16, 16, 3), normal(2, 32 * 31)


def adapter(**fields: Any) -> functools.partial[DGSCTAdapter]:
  return functools.partial(DGSCTAdapter, reduction=2, tokens=3, **fields)


@functools.cache
def encoder(remat: Remat = None, **fields: Any) -> DualEncoder:
  """Swin V2 and HTS-AT with 16 tokens of width 8 each, so that the adapters of both are alike."""
  shared = ONE | dict(remat=remat, dtype=fields.pop('dtype', jnp.float32))
  exchange = functools.partial(
    Exchange, adapter(dtype=shared['dtype'], batch_norm=False), remat=remat
  )
  return DualEncoder(
    tiny.swin(image=16, **shared),
    tiny.htsat(size=16, mel_bins=8, **shared),
    **dict(exchange=exchange) | fields,
  )


@functools.partial(jax.jit, static_argnums=0)
def run(model: DualEncoder, values: tree.Tree) -> Encoded:
  return model.apply(values, VIDEO, WAVE)


@pytest.fixture(scope='session')
def quiet() -> tree.Tree:
  """Variables with the gates of the beginning."""
  return filled.variables(encoder(), VIDEO, WAVE, gates=0.0)


def side(name: str, values: tree.Tree) -> tree.Tree:
  return {kind: values[kind][name] for kind in values if name in values[kind]}


def test_zero_gates_leave_backbones_unchanged_bit_for_bit():
  swin = tiny.swin(image=16, **ONE)
  model = DualEncoder(swin, swin.copy(), functools.partial(Exchange, adapter(batch_norm=False)))
  # Not compiled: of two programs XLA may round each in its own way.
  quiet = filled.variables(model, VIDEO, VIDEO, gates=0.0)
  found = model.apply(quiet, VIDEO, VIDEO)
  tokens = lambda swin, video: swin.stages[0].blocks[0](swin.stem(video), False)
  np.testing.assert_array_equal(found.visual, swin.apply(side('visual', quiet), VIDEO))
  np.testing.assert_array_equal(found.audio, swin.apply(side('audio', quiet), VIDEO, method=tokens))


def test_zero_gates_leave_compiled_backbones_unchanged_but_for_rounding(quiet):
  def audio_tokens(audio, wave):
    return audio.body(audio.stem(wave))

  found, model = run(encoder(), quiet), encoder()
  visual = jax.jit(model.visual.apply)(side('visual', quiet), VIDEO)
  hear = jax.jit(functools.partial(model.audio.apply, method=audio_tokens))
  assert apart(found.visual, visual) < 1e-6
  assert apart(found.audio, hear(side('audio', quiet), WAVE)) < 1e-6


def test_open_gates_change_both_streams(quiet):
  loud = filled.variables(encoder(), VIDEO, WAVE)
  found, still = run(encoder(), loud), run(encoder(), quiet)
  for stream in ('visual', 'audio'):
    assert np.abs(getattr(found, stream) - getattr(still, stream)).max() > 0.1


def test_the_pyramid_ends_with_the_visual_norm(quiet):
  found = jax.eval_shape(encoder().apply, quiet, VIDEO, WAVE)
  assert [x.shape for x in found.visual_pyramid] == [found.visual.shape]
  deep = DualEncoder(tiny.swin(), tiny.htsat())
  video, wave = normal(1, 32, 32, 3), normal(1, 32 * 63)
  found = jax.eval_shape(lambda *x: deep.init_with_output(jax.random.key(0), *x)[0], video, wave)
  assert [x.shape for x in found.visual_pyramid] == [(1, 64, 8), (1, 16, 16)]
  assert [x.shape for x in found.audio_pyramid] == [(1, 64, 8), (1, 16, 16)]


@functools.cache
def encoder_paths(**fields: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
  return paths(encoder(**fields), VIDEO, WAVE)


def paths(model: DualEncoder, *inputs: jax.Array) -> dict[str, tuple[tuple[int, ...], Any]]:
  leaves = tree.flatten(jax.eval_shape(model.init, jax.random.key(0), *inputs))
  return {path: (leaf.shape, leaf.dtype) for path, leaf in leaves.items()}


def test_parameters_are_named_by_stream_block_and_half():
  names = {tuple(path.split('/')[1:3]) for path in encoder_paths()}
  assert names >= {
    ('visual', 'stages_0'),
    ('audio', 'stages_0'),
    ('audio', 'mel'),
    ('exchange_attn_0', 'visual'),
    ('exchange_attn_0', 'audio'),
    ('exchange_mlp_0', 'visual'),
    ('exchange_mlp_0', 'audio'),
  }
  assert {first for first, _ in names} == {'visual', 'audio', 'exchange_attn_0', 'exchange_mlp_0'}


@pytest.mark.parametrize(
  'fields',
  [dict(remat='blocks'), dict(dtype=jnp.bfloat16), dict(read='between'), dict(split_audio=True)],
)
def test_options_change_no_parameter(fields):
  assert encoder_paths(**fields) == encoder_paths()


@pytest.mark.parametrize('read', ['before', 'between'])
@pytest.mark.parametrize('split', [False, True])
def test_every_order_of_halves_traces(read, split, quiet):
  found = jax.eval_shape(encoder(read=read, split_audio=split).apply, quiet, VIDEO, WAVE)
  assert isinstance(found, Encoded)
  assert found.visual.shape == found.audio.shape == (2, 16, 8)
  assert found.visual_map.shape == found.audio_map.shape == (2, 1, 16)


def test_one_backbone_in_both_fields_shares_its_parameters():
  shared = tiny.swin(image=16, **ONE)
  two = paths(DualEncoder(shared, tiny.swin(image=16, **ONE)), VIDEO, VIDEO)
  one = paths(DualEncoder(shared, shared, split_audio=True), VIDEO, VIDEO)
  assert {path.split('/')[1] for path in two} == {'visual', 'audio'}
  assert one == {path: shape for path, shape in two.items() if '/visual/' in path}


def test_a_shared_backbone_computes_the_same_for_both_streams():
  shared = tiny.swin(image=16, **ONE)
  model = DualEncoder(shared, shared, split_audio=True)
  values = filled.variables(model, VIDEO, VIDEO)
  found = jax.jit(model.apply)(values, VIDEO, VIDEO)
  normed = lambda shared, x: shared.norm(x)
  backbone = {'params': values['params']['visual']}
  audio = jax.jit(functools.partial(shared.apply, method=normed))(backbone, found.audio)
  np.testing.assert_allclose(audio, found.visual, atol=1e-5)


def test_bfloat16_is_near_float32():
  model = encoder()
  # Small gates: the norms of so narrow adapters amplify the rounding of a nearly silent token.
  values = filled.variables(model, VIDEO, WAVE, gates=0.1)
  found, expected = run(encoder(dtype=jnp.bfloat16), values), run(model, values)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert x.dtype == jnp.bfloat16
    assert apart(x, y) < 0.05


# Gradients.


class Toy(nn.Module):
  """A backbone of Dense layers: what the adapters' gradients go through."""

  tokens: int
  depths: tuple[int, ...] = (1,)

  def setup(self):
    self.stages = [ToyStage(depth) for depth in self.depths]
    self.embed, self.norm = Dense(8), nn.LayerNorm()

  def stem(self, x, train):
    return self.embed(x.reshape(x.shape[0], self.tokens, -1))


class ToyStage(nn.Module):
  depth: int

  def setup(self):
    self.blocks = [ToyBlock() for _ in range(self.depth)]

  def downsample(self, x):
    return x


class ToyBlock(nn.Module):
  def setup(self):
    self.first, self.second = Dense(8), Dense(8)

  def attend(self, x, train):
    return x + jnp.tanh(self.first(x))

  def feed_forward(self, x, train):
    return x + jnp.tanh(self.second(x))

  def __call__(self, x, train):
    return self.feed_forward(self.attend(x, train), train)


def gradients(
  model: DualEncoder, values: tree.Tree, video: jax.Array, wave: jax.Array
) -> dict[str, jax.Array]:
  """Of something that is read from the pooled tokens, with respect to the exchanges."""
  trainable, frozen = tree.split(values['params'], ('exchange_.*',))

  def loss(trainable):
    found = model.apply(values | {'params': tree.merge(trainable, frozen)}, video, wave)
    visual, audio = found.visual_map @ found.visual, found.audio_map @ found.audio
    return jnp.sum(visual * normal(*visual.shape)) + jnp.sum(audio * normal(*audio.shape, seed=1))

  return tree.flatten(jax.jit(jax.grad(loss))(trainable))


def test_at_the_beginning_gates_learn_and_the_attention_of_the_last_exchange():
  """Section 3.7 of the specification: all else is hidden behind the zero gates."""
  model = DualEncoder(Toy(9), Toy(4), functools.partial(Exchange, adapter()))
  inputs = normal(2, 3, 3, 3), normal(2, 24, seed=1)
  found = gradients(model, filled.variables(model, *inputs, gates=0.0), *inputs)
  learns = {path for path, gradient in found.items() if np.abs(gradient).max() > 0}
  attention = (
    'token_map',
    'channel_map',
    'tokens_gate',
    'channel_own',
    'channel_guide',
    'channel_bottleneck',
    'channel_out',
    'spatial_own',
    'spatial_guide',
    'spatial_out',
  )
  last = lambda path: path.startswith('exchange_mlp_0/') and path.split('/')[2] in attention
  assert learns == {path for path in found if path.endswith('/gate') or last(path)}
  assert len([path for path in learns if path.endswith('/gate')]) == 4


def test_rematerialised_blocks_and_exchanges_have_the_same_gradients_and_statistics():

  def step(remat=None):
    swin = tiny.swin(image=16, remat=remat, **ONE)
    model = DualEncoder(
      swin, swin, functools.partial(Exchange, tiny.Small, remat=remat), split_audio=True
    )
    values = filled.variables(model, VIDEO, VIDEO)

    def loss(params):
      inputs = values | {'params': params}, VIDEO, VIDEO[::-1], True
      found, moved = model.apply(*inputs, mutable='batch_stats')
      return jnp.sum(found.visual * normal(*found.visual.shape)) + jnp.sum(found.audio), moved

    gradients, moved = jax.jit(jax.grad(loss, has_aux=True))(values['params'])
    return tree.flatten({'gradients': gradients} | moved)

  expected = step()
  for remat in ('cheap', 'blocks'):
    found = step(remat)
    assert found.keys() == expected.keys() and any('batch_stats/exchange' in path for path in found)
    for path, gradient in found.items():
      np.testing.assert_allclose(gradient, expected[path], rtol=1e-3, atol=1e-4, err_msg=path)


def test_rematerialised_exchanges_give_their_memory_back_before_the_next():

  class Chain(nn.Module):
    remat: Remat

    @nn.compact
    def __call__(self, v, a):
      for _ in range(12):
        (dv, da), _ = Exchange(tiny.Small, remat=self.remat)(v, a, True)
        v, a = v + dv, a + da
      return jnp.sum(v) + jnp.sum(a)

  def held(remat):
    inputs = normal(8, 64, 32), normal(8, 64, 32, seed=1)
    values = jax.eval_shape(Chain(remat).init, jax.random.key(0), *inputs)

    def loss(params):
      return Chain(remat).apply(values_but(params), *inputs, mutable='batch_stats')[0]

    values_but = lambda params: {
      'params': params,
      'batch_stats': jax.tree.map(lambda x: jnp.zeros(x.shape), values['batch_stats']),
    }
    step = jax.jit(jax.grad(loss)).lower(values['params']).compile(compiler.CPU)
    return step.memory_analysis().temp_size_in_bytes

  assert held('blocks') < 0.5 * held(None)


def test_without_an_exchange_nothing_is_added_to_the_parameters():
  names = {path.split('/')[1] for path in encoder_paths(exchange=NoExchange)}
  assert names == {'visual', 'audio'}
