"""Swin V2 layouts: the same weights under every name, and transformers' model as an oracle."""

import re
import time

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import swin_v2, table
from dgsct_jax.models import windows
from dgsct_jax.models.swin_v2 import SwinV2
from tests import field
from tests.parity import golden

FIELDS = dict(image=32, width=8, depths=(2, 2), heads=(2, 4), window=4)


def timm_0612(seed=0):
  """Random weights under the names of timm 0.6.12."""
  shapes = {name: x.shape for name, x in table.export(empty(), swin_v2.TABLE).items()}
  extra = {
    'layers.0.blocks.1.attn_mask': windows.shift_mask((8, 8), (4, 4), (2, 2)),
    'head.weight': np.zeros((5, 16), np.float32),
  }
  return golden.weights(shapes, seed) | extra


def empty():
  shapes = table.targets(SwinV2(**FIELDS), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
  return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def timm_09(state):
  """Patch merging begins the next stage, the classifier lies deeper, buffers are not stored."""
  moved = {
    re.sub(r'layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) + 1}.downsample', name): x
    for name, x in state.items()
    if not name.endswith('attn_mask') and not name.startswith('head')
  }
  return moved | {'head.fc.weight': state['head.weight']}


def microsoft(state):
  buffers = {
    f'layers.{i}.blocks.{j}.attn.{name}': x
    for i in range(2)
    for j in range(2)
    for name, x in (
      ('relative_coords_table', np.zeros((1, 7, 7, 2), np.float32)),
      ('relative_position_index', windows.relative_index((4, 4))),
    )
  }
  return state | buffers


def converted(state, hint=''):
  plan = swin_v2.plan(state, hint)
  return plan, table.convert(plan.state, plan.table, plan.targets)


@pytest.mark.parametrize('rename, layout', [(timm_09, 'timm >= 0.9'), (microsoft, 'microsoft')])
def test_every_layout_gives_the_same_weights(rename, layout):
  plan, want = converted(timm_0612())
  assert plan.layout == 'timm 0.6.12' and plan.variant == 'custom'
  plan, got = converted(rename(timm_0612()))
  assert plan.layout == layout and got.keys() == want.keys()
  assert all((got[name] == x).all() for name, x in want.items())


def features_only(state):
  return {name.replace('layers.', 'layers_'): x for name, x in state.items()}


@pytest.mark.parametrize('rename', [lambda state: state, timm_09])
@pytest.mark.parametrize(
  'wrap, layout',
  [
    (features_only, ', features_only'),
    (lambda state: {f'module.{name}': x for name, x in state.items()}, ''),
    (lambda state: {f'_orig_mod.module.{name}': x for name, x in state.items()}, ''),
    (lambda state: {f'model.{name}': x for name, x in features_only(state).items()}, ', features'),
  ],
)
def test_names_in_a_wrapper_give_the_same_weights(rename, wrap, layout):
  plan, want = converted(rename(timm_0612()))
  wrapped, got = converted(wrap(rename(timm_0612())))
  assert wrapped.layout.startswith(plan.layout + layout) and got.keys() == want.keys()
  assert all((got[name] == x).all() for name, x in want.items())


def test_features_only_without_the_last_norm_says_so():
  state = {n: x for n, x in features_only(timm_09(timm_0612())).items() if not n.startswith('norm')}
  with pytest.raises(ValueError, match='2 faults') as error:
    converted(state)
  assert 'norm.weight: missing' in str(error.value) and 'norm.bias: missing' in str(error.value)


@pytest.mark.parametrize('index', ['5000', '9' * 5000, '12'])
@pytest.mark.parametrize('place', ['layers.0.blocks.{}', 'layers.{}.blocks.0'])
def test_a_number_far_beyond_the_others_is_told_at_once(index, place):
  name = place.format(index) + '.attn.logit_scale'
  start = time.process_time()
  with pytest.raises(ValueError) as error:
    converted(timm_0612() | {name: np.ones((2, 1, 1), np.float32)})
  assert f'{name}'[:200] in str(error.value) and time.process_time() - start < 10
  assert len(str(error.value)) < 20_000


def test_a_block_that_is_left_out_is_what_is_missing():
  state = {n: x for n, x in timm_0612().items() if not n.startswith('layers.0.blocks.0.')}
  with pytest.raises(ValueError) as error:
    converted(state)
  assert all('layers.0.blocks.0.' in line for line in str(error.value).splitlines()[1:])


SHAPES_READ = (
  'patch_embed.proj.weight',
  'layers.0.blocks.0.attn.logit_scale',
  'layers.0.blocks.0.mlp.fc1.bias',
  'layers.0.blocks.1.attn_mask',
)


@pytest.mark.parametrize('name', SHAPES_READ)
@pytest.mark.parametrize('shape', [(), (7,), None])
def test_what_tells_sizes_may_be_missing_or_misshapen(name, shape):
  state = timm_0612()
  del state[name]
  if shape is not None:
    state[name] = np.zeros(shape, np.float32)
  if name.endswith('attn_mask'):  # nothing depends on it
    converted(state)
  else:
    with pytest.raises(ValueError, match=f'{name}: (missing|.*in the file)'):
      converted(state)


@pytest.mark.parametrize(
  'known, hint, variant',
  [
    (12, '', 'large_window12_192'),
    (24, '', 'large_window12to24_192to384'),
    (0, '', 'large'),
    (
      0,
      'hf://timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k',
      'large_window12to16_192to256',
    ),
    (12, 'swinv2_large_window12to16_192to256', 'large_window12_192'),
  ],
)
def test_variants_are_named_by_sizes_and_by_the_window_where_it_shows(known, hint, variant):
  fields = dict(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48))
  assert swin_v2.variant(fields, known, hint) == variant


def test_the_window_is_read_off_buffers():
  assert swin_v2.window(timm_0612()) == swin_v2.window(microsoft(timm_0612())) == 4
  assert swin_v2.window(timm_09(timm_0612())) == 0


def test_another_model_is_refused():
  with pytest.raises(ValueError, match='No Swin V2 in this file'):
    swin_v2.plan({'conv1.weight': np.zeros(3)})


@pytest.mark.parametrize('image, window, depths', [(64, 4, (2, 2, 2, 2)), (96, 6, (2, 2))])
def test_our_swin_v2_is_that_of_transformers(image, window, depths):
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  heads = tuple(2 * 2**i for i in range(len(depths)))
  torch.manual_seed(0)
  oracle = transformers.Swinv2Model(
    transformers.Swinv2Config(
      image_size=image,
      patch_size=4,
      embed_dim=16,
      depths=list(depths),
      num_heads=list(heads),
      window_size=window,
      layer_norm_eps=1e-5,
    ),
    add_pooling_layer=False,
  ).eval()
  state = {name: x.numpy() for name, x in oracle.state_dict().items()}
  random = golden.weights(
    {name: x.shape for name, x in state.items() if x.dtype == np.float32}, seed=1
  )
  state |= {name: x for name, x in random.items() if 'relative' not in name}
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})

  plan, ours = converted(state)
  assert plan.layout == 'transformers'
  x = np.random.default_rng(0).standard_normal((2, image, image, 3)).astype(np.float32)
  model = SwinV2(image=image, width=16, depths=depths, heads=heads, window=window)
  with jax.default_matmul_precision('highest'):
    got = jax.jit(model.apply)(tree.unflatten(ours), x)
  with torch.no_grad():
    want = oracle(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).last_hidden_state.numpy()
  assert golden.rms(got - want) < 3e-5 * golden.rms(want)


def test_a_file_that_a_user_brought_is_converted(tmp_path, capsys):
  given = field.unpacked('swin_features_only_names.pt.gz', tmp_path)
  assert convert.main(['swin_v2', str(given), str(tmp_path / 'out.safetensors')]) == 0
  assert 'features_only' in capsys.readouterr().out
