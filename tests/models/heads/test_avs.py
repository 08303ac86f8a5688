"""The segmenter: formulas of the release, any number of seconds and stages, frames of any size."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from dgsct_jax import tree
from dgsct_jax.convert import avs as source
from dgsct_jax.convert import table
from dgsct_jax.models import lazy
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import avs, avs_decoder
from tests.models import filled, tiny


@pytest.fixture(autouse=True)
def exact():
  with jax.default_matmul_precision('highest'):
    yield


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def waves(shape: tuple[int, ...], a: float = 0.11, b: float = 0.5) -> np.ndarray:
  """X of the specification."""
  return np.sin(a * np.arange(np.prod(shape)) + b).reshape(shape).astype(np.float32)


def fill(shapes: dict[str, tuple[int, ...]], scale: float) -> table.State:
  """FILL of the specification: values by the rank of a parameter's name."""
  return {
    name: (scale * np.sin(0.3 + 0.7 * np.arange(np.prod(shapes[name])) + 1.3 * k))
    .reshape(shapes[name])
    .astype(np.float32)
    for k, name in enumerate(sorted(shapes))
  }


def apply(model: nn.Module, state: table.State, rows: table.Table, *args, **kwargs):
  targets = table.targets(model, *args, **kwargs)
  variables = tree.unflatten(table.convert(state, rows, targets))
  return jax.jit(functools.partial(model.apply, **kwargs))(variables, *args)


# TPAVI.

D, INNER = 8, 4
TPAVI_SHAPES = {
  'align_channel.weight': (D, 128),
  'align_channel.bias': (D,),
  'norm_layer.weight': (D,),
  'norm_layer.bias': (D,),
  **{f'{name}.weight': (INNER, D, 1, 1, 1) for name in ('g', 'theta', 'phi')},
  **{f'{name}.bias': (INNER,) for name in ('g', 'theta', 'phi')},
  'W_z.0.weight': (D, INNER, 1, 1, 1),
  'W_z.0.bias': (D,),
  'W_z.1.weight': (D,),
  'W_z.1.bias': (D,),
}


@pytest.mark.parametrize(
  'train, total, squares', [(False, -10.17510689, 26.97075965), (True, -10.22828922, 26.09406043)]
)
def test_tpavi_gives_the_stated_numbers(train, total, squares):  # F7
  x = np.moveaxis(waves((2, 8, 5, 3, 3)), 1, -1)
  audio = waves((2, 5, 128), 0.031, 0.3)
  statistics = {
    'W_z.1.running_mean': np.zeros(D, np.float32),
    'W_z.1.running_var': np.ones(D, np.float32),
  }
  state = fill(TPAVI_SHAPES, 0.2) | statistics
  variables = tree.unflatten(
    table.convert(state, source.TPAVI, table.targets(avs.TPAVI(), x, audio, train=train))
  )
  run = functools.partial(avs.TPAVI().apply, train=train, mutable=['batch_stats'])
  (z, heard), _ = jax.device_get(jax.jit(run)(variables, x, audio))
  np.testing.assert_allclose([z.sum(), (z**2).sum()], [total, squares], rtol=2e-5)
  np.testing.assert_allclose([heard.sum(), (heard**2).sum()], [1.889581213, 5.233110615], rtol=2e-5)


@pytest.mark.parametrize('sounding', [True, False])
def test_tpavi_is_the_attention_of_all_pixels_to_all_others(sounding):
  x, audio = normal(2, 3, 4, 5, D), normal(2, 3, 6, seed=1) if sounding else None
  model = avs.TPAVI()
  variables = filled.variables(model, x, audio, train=False)
  z, heard = jax.jit(functools.partial(model.apply, train=False))(variables, x, audio)

  variables = jax.device_get(variables)
  params = variables['params']
  dense = lambda name, x: x @ params[name]['kernel'] + params[name]['bias']
  if sounding:
    np.testing.assert_allclose(heard, dense('align', audio), atol=1e-5)
    other = np.broadcast_to(dense('align', audio)[:, :, None, None], x.shape)
  else:
    other = x
  flat = lambda x: np.reshape(x, (2, -1, x.shape[-1]))
  theta, phi, g = flat(dense('theta', x)), flat(dense('phi', other)), flat(dense('g', x))
  pixels = theta.shape[1]
  attention = theta @ phi.swapaxes(1, 2) / pixels  # [b n n]
  y = dense('out', attention @ g).reshape(x.shape)
  stats = variables['batch_stats']['bn']
  y = (y - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['bn']['scale'] + params['bn'][
    'bias'
  ]
  y = y + x
  y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(z, y * params['norm']['scale'] + params['norm']['bias'], atol=1e-5)


def test_at_first_tpavi_only_normalises():
  x, audio = normal(1, 2, 3, 3, D), normal(1, 2, 6)
  model = avs.TPAVI()
  variables = lazy.init(model, jax.random.key(0), x, audio, train=False)
  z, _ = jax.jit(functools.partial(model.apply, train=False))(variables, x, audio)
  expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(z, expected, atol=1e-5)


# The decoder.


def fusion_state(width: int, scale: float) -> table.State:
  return fill(
    {
      f'resConfUnit{j}.conv{k}.{name}': shape
      for j in (1, 2)
      for k in (1, 2)
      for name, shape in (('weight', (width, width, 3, 3)), ('bias', (width,)))
    },
    scale,
  )


@pytest.mark.parametrize(
  'alone, total, squares, first',
  [
    (False, 176.9771633, 391.4012967, [1.9148672612, 2.1567236, 2.3985799387]),
    (True, 122.3703967, 166.4163725, [0.8722246103]),
  ],
)
def test_a_fusion_gives_the_stated_numbers(alone, total, squares, first):  # F8
  image = lambda x: np.moveaxis(x, 1, -1)[None]  # one clip
  a, b = image(waves((1, 4, 3, 3))), image(waves((1, 4, 3, 3), 0.2, 0.7))
  state, rows = fusion_state(4, 0.2), source.FUSION
  if alone:
    rows = tuple(row for row in rows if row[1].startswith('both'))
    state = {name: x for name, x in state.items() if name.startswith('resConfUnit2')}
    found = apply(avs_decoder.Fusion(), state, rows, a, None, size=(6, 6))
  else:
    found = apply(avs_decoder.Fusion(), state, rows, b, a, size=(6, 6))
  found = np.moveaxis(np.asarray(found, np.float64)[0], -1, 1)
  np.testing.assert_allclose([found.sum(), (found**2).sum()], [total, squares], rtol=1e-5)
  np.testing.assert_allclose(found.ravel()[: len(first)], first, atol=1e-5)


@pytest.mark.parametrize('sizes, size', [([(8, 8), (4, 4)], (32, 32)), ([(5, 7)], (19, 27))])
def test_the_decoder_is_that_of_the_formulas_in_torch(sizes, size):
  torch = pytest.importorskip('torch')
  F = torch.nn.functional
  maps = [normal(1, 2, *side, 8, seed=i) for i, side in enumerate(sizes)]
  model = avs_decoder.Decoder()
  params = filled.variables(model, maps, size=size)['params']
  found = jax.jit(functools.partial(model.apply, size=size))({'params': params}, maps)

  def conv(name, x):
    leaf = functools.reduce(dict.get, name.split('/'), params)
    kernel, bias = (torch.tensor(np.asarray(leaf[part])) for part in ('kernel', 'bias'))
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=kernel.shape[0] // 2)

  def residual(name, x):
    return F.relu(x) + conv(f'{name}/conv2', F.relu(conv(f'{name}/conv1', F.relu(x))))

  images = [torch.tensor(np.asarray(x[0])).permute(0, 3, 1, 2) for x in maps]
  half = tuple(-(-side // 2) for side in size)
  x = None
  for i in reversed(range(len(images))):
    own = images[i]
    x = own if x is None else x + residual(f'fuse_{i}/own', own)
    target = images[i - 1].shape[2:] if i else half
    x = F.interpolate(residual(f'fuse_{i}/both', x), target, mode='bilinear', align_corners=True)
  x = F.interpolate(conv('out_0', x), size, mode='bilinear')
  x = conv('out_2', F.relu(conv('out_1', x)))
  np.testing.assert_allclose(found[0], x[:, 0].numpy(), atol=1e-5)


# The whole.


@functools.cache
def segment(seconds: int, stages: int, size: tuple[int, int], gamma: float = 0.1):
  """A function of (pyramid, audio) with the same weights whatever the number of seconds."""
  model = avs.Segmenter(gamma=gamma, width=8)
  variables = filled.variables(model, *stream(seconds, stages), size=size, train=False)
  return jax.jit(lambda pyramid, audio: model.apply(variables, pyramid, audio, size, False))


def stream(seconds: int, stages: int) -> tuple[list[np.ndarray], np.ndarray]:
  pyramid = [normal(1, seconds, 4 // 2**i, 6 // 2**i, 3 + i, seed=i) for i in range(stages)]
  return pyramid, normal(1, seconds, 5, seed=9)


@pytest.mark.parametrize('seconds, stages, size', [(3, 2, (32, 48)), (1, 1, (21, 30))])
def test_any_number_of_seconds_and_stages_and_frames_of_any_size(seconds, stages, size):
  found = segment(seconds, stages, size)(*stream(seconds, stages))
  assert {name: x.shape for name, x in found.items()} == {
    'mask_logits': (1, seconds, *size),
    'seen': (1, seconds, stages, 8),
    'heard': (1, seconds, stages, 8),
  }
  assert all(np.isfinite(x).all() for x in found.values())


def test_what_is_heard_in_one_second_moves_the_masks_of_all():
  pyramid, audio = stream(3, 2)
  run = lambda *inputs: np.asarray(segment(3, 2, (32, 48))(*inputs)['mask_logits'])
  other = audio.copy()
  other[:, 0] += 1
  moved = np.abs(run(pyramid, audio) - run(pyramid, other))
  assert (moved.max((2, 3)) > 1e-4).all()


def test_features_under_the_mask_are_a_mean_over_the_frame():
  x, logits = normal(1, 2, 2, 3, 4), np.full((1, 2, 8, 12), -50, np.float32)
  under = jax.jit(avs.under)
  np.testing.assert_allclose(under(x, logits), 0, atol=1e-6)
  np.testing.assert_allclose(under(x, -logits), x.mean((2, 3)), atol=1e-6)
  logits[:, :, :4, :4] = 50  # one of six blocks
  np.testing.assert_allclose(under(x, logits), x[:, :, 0, 0] / 6, atol=1e-6)


def test_frames_are_brought_to_the_size_of_the_backbone_and_masks_to_that_of_the_frames():
  model = avs.AVS(DualEncoder(tiny.swin(), tiny.htsat()), avs.Segmenter(width=8))
  batch = {'video': normal(1, 2, 40, 48, 3), 'wave': np.float32(0.1) * normal(1, 2, 512)}
  shapes = jax.eval_shape(lambda b: model.init_with_output(jax.random.key(0), b), batch)[0]
  assert {name: x.shape for name, x in shapes.items()} == {
    'mask_logits': (1, 2, 40, 48),
    'seen': (1, 2, 2, 8),
    'heard': (1, 2, 2, 8),
    'visual_map': (1, 2, 16),
    'audio_map': (1, 2, 16),
  }
