"""The ViT: halves of blocks, split into stages, positions, places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import vit
from dgsct_jax.models.adapters import Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.lavish import LavishAdapter
from dgsct_jax.models.vit import ViT
from tests.models import filled, tiny


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def model(**fields) -> ViT:
  return ViT(**dict(image=32, patch=8, width=8, depths=(2, 1), heads=2, mlp_ratio=2.0) | fields)


@pytest.fixture(scope='module')
def values() -> dict:
  return filled.variables(model(), normal(2, 32, 32, 3))


def test_halves_of_blocks_make_the_whole(values):
  x = normal(2, 32, 32, 3)

  @jax.jit
  def run(values, x):
    return model().apply(values, x), model().apply(values, x, method=tiny.steps)

  whole, steps = run(values, x)
  np.testing.assert_allclose(whole, steps['norm'], atol=1e-6)
  assert whole.shape == (2, 17, 8)
  np.testing.assert_array_equal(steps['downsample_0'], steps['feed_forward_0_1'])


def test_the_split_into_stages_changes_no_parameter_and_no_value(values):
  x = normal(1, 32, 32, 3)
  split = model(depths=(1, 1, 1))
  assert {p: v.shape for p, v in tree.flatten(filled.variables(split, x)).items()} == {
    p: v.shape for p, v in tree.flatten(values).items()
  }
  run = jax.jit(lambda values, x: [m.apply(values, x) for m in (model(), split)])
  np.testing.assert_array_equal(*run(values, x))


@pytest.mark.parametrize('depths', [(2, 1), (1, 1, 1)])
def test_stages_are_the_blocks_in_order(depths, values):
  blocks = lambda m: [[block.name for block in stage.blocks] for stage in m.stages]
  found = nn_apply(model(depths=depths), values, blocks)
  assert [len(stage) for stage in found] == list(depths)
  assert sum(found, []) == ['blocks_0', 'blocks_1', 'blocks_2']


def nn_apply(m, values, method):
  return m.apply(values, method=method)


def position(values: dict, grid: tuple[int, int], **fields) -> np.ndarray:
  return np.asarray(model(**fields).apply(values, grid, method=ViT.position))


def test_pictures_of_its_own_size_have_the_stored_positions(values):
  table = values['params']['pos_embed']
  for positions in ('grid', 'flat'):
    np.testing.assert_array_equal(position(values, (4, 4), positions=positions), table)


@pytest.mark.parametrize('grid', [(6, 8), (2, 4), (5, 5)])
def test_positions_of_another_grid_are_resized_as_torch_does(values, grid):
  torch = pytest.importorskip('torch')
  table = np.asarray(values['params']['pos_embed'])
  picture = torch.tensor(table[1:]).reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
  wanted = torch.nn.functional.interpolate(picture, size=grid, mode='bicubic')
  found = position(values, grid)
  np.testing.assert_array_equal(found[0], table[0])
  np.testing.assert_allclose(found[1:], wanted[0].permute(1, 2, 0).reshape(-1, 8), atol=1e-5)
  row = torch.tensor(table.T)[None]
  wanted = torch.nn.functional.interpolate(row, size=1 + grid[0] * grid[1], mode='linear')[0].T
  np.testing.assert_allclose(position(values, grid, positions='flat'), wanted, atol=1e-5)


def test_one_more_token_blends_each_patch_with_the_one_before():
  """The closed form for 197 positions stretched to 198."""
  table = normal(197, 3)
  share = ((np.arange(1, 197) + 0.5) / 198)[:, None]
  blend = (1 - share) * table[1:] + share * table[:-1]
  wanted = np.concatenate([table[:1], blend, table[196:]])
  np.testing.assert_allclose(vit.stretch(table, 198), wanted, atol=1e-4)


def test_weights_lie_where_their_patches_are():
  weights = np.arange(17.0)[None]
  np.testing.assert_array_equal(model().place(weights)[0], np.arange(1, 17.0).reshape(4, 4))
  with pytest.raises(ValueError, match='of 32 pixels has 17 tokens, 50 were to be placed'):
    model().place(np.zeros((1, 50)))


def test_it_pairs_with_a_backbone_of_stages():
  swin = tiny.swin(depths=(2, 1))
  encoder = DualEncoder(
    swin, model(), functools.partial(Exchange, functools.partial(LavishAdapter, reduction=2))
  )
  shapes = jax.eval_shape(
    lambda: encoder.init_with_output(jax.random.key(0), normal(2, 32, 32, 3), normal(2, 32, 32, 3))
  )[0]
  assert shapes.visual.shape == (2, 16, 16) and shapes.audio.shape == (2, 17, 8)


@pytest.mark.parametrize(
  'variant, count', [('tiny_patch16_224', 5_524_416), ('base_patch16_224', 85_798_656)]
)
def test_variants_have_the_sizes_of_timm(variant, count):
  picture = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(vit.build(variant).init, jax.random.key(0), picture)
  assert tree.count(shapes['params']) == count


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(variant='big'), "ViT has no variant 'big'; choose one of tiny_patch16_224"),
    (dict(window=3), 'ViT has no field window; it has depths'),
  ],
)
def test_settings_that_mean_nothing_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    vit.build(**arguments)
