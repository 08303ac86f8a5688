"""Swin V2: windows, halves of blocks, constants and options."""

import functools
import math

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import swin_v2
from dgsct_jax.models.swin_v2 import SwinV2
from tests.models import filled, tiny


def normal(*shape: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def images(b: int = 2) -> jax.Array:
  return normal(b, 32, 32, 3)


@pytest.fixture(scope='session')
def variables() -> dict:
  return filled.variables(tiny.swin(), images())


@functools.partial(jax.jit, static_argnums=(0, 3))
def steps(model: SwinV2, variables: dict, x: jax.Array, train: bool = False, key: int = 0) -> dict:
  rngs = {'drop_path': jax.random.key(key)}
  return model.apply(variables, x, train, rngs=rngs, method=tiny.steps)


@pytest.fixture(scope='session')
def seen(variables) -> dict:
  """Two images that differ in their first patch."""
  x = jnp.repeat(images(1), 2, 0).at[1, :4, :4].add(1)
  return {name: np.asarray(x) for name, x in steps(tiny.swin(), variables, x).items()}


def touched(seen: dict, name: str) -> set[tuple[int, int]]:
  """Tokens (row, column) of the 8×8 grid that the changed patch has reached."""
  changed = np.any(seen[name][0] != seen[name][1], -1).reshape(8, 8)
  return {(int(i), int(j)) for i, j in np.argwhere(changed)}


def square(start: int, stop: int) -> set[tuple[int, int]]:
  return {(i, j) for i in range(start, stop) for j in range(start, stop)}


def test_attention_stays_within_its_window(seen):
  assert touched(seen, 'stem') == {(0, 0)}
  assert touched(seen, 'attend_0_0') == square(0, 4)
  assert touched(seen, 'feed_forward_0_0') == square(0, 4)


def test_shifted_attention_reaches_the_neighbours_but_not_around_the_border(seen):
  # Windows start at 2 and 6; the one that holds tokens 2 and 3 ends with 5.
  assert touched(seen, 'attend_0_1') == square(0, 6)


def test_a_stage_of_one_window_mixes_all_tokens(seen):
  assert (seen['attend_1_0'][0] != seen['attend_1_0'][1]).any(-1).all()


def test_shapes_halve_and_widths_double(seen):
  shapes = {name: x.shape[1:] for name, x in seen.items()}
  assert shapes['stem'] == shapes['feed_forward_0_1'] == (64, 8)
  assert shapes['downsample_0'] == shapes['downsample_1'] == shapes['norm'] == (16, 16)


def test_the_halves_in_order_are_the_whole_model(seen, variables):
  whole = jax.jit(tiny.swin().apply)(variables, images(1))
  np.testing.assert_allclose(whole, seen['norm'][:1], atol=1e-5)


def test_rows_do_not_depend_on_one_another(seen, variables):
  again = steps(tiny.swin(), variables, images()[::-1])
  np.testing.assert_allclose(again['norm'][1], seen['norm'][0], atol=1e-5)


def test_zero_scales_of_the_norms_switch_a_block_off():
  model = tiny.swin(depths=(1,), heads=(2,))
  off = filled.variables(model, images())
  block = off['params']['stages_0']['blocks_0']
  for norm in ('norm1', 'norm2'):
    block[norm] = jax.tree.map(np.zeros_like, block[norm])
  seen = steps(model, off, images())
  np.testing.assert_allclose(seen['stem'], seen['feed_forward_0_0'], rtol=1e-6, atol=1e-6)


def attention(logit_scale: float, x: jax.Array) -> np.ndarray:
  model = swin_v2.CosineAttention(heads=2, window=(2, 3))
  values = filled.variables(model, x, None)
  values['params']['logit_scale'] = np.full(2, logit_scale, np.float32)
  return np.asarray(jax.jit(model.apply)(values, x, None))


def test_the_sharpness_of_attention_is_at_most_100():
  x = normal(1, 1, 6, 8)
  at_limit = attention(math.log(100), x)
  np.testing.assert_allclose(attention(9.0, x), at_limit, rtol=1e-5)
  assert not np.allclose(attention(3.0, x), at_limit, rtol=1e-2)


def test_attention_equals_its_formula_token_by_token():
  x = normal(1, 2, 6, 8)
  mask = jnp.where(normal(2, 6, 6) < -0.5, -100.0, 0.0)
  model = swin_v2.CosineAttention(heads=2, window=(2, 3))
  values = filled.variables(model, x, mask)
  ours = jax.jit(model.apply)(values, x, mask)

  p, cpb = values['params'], values['params']['cpb_mlp']
  offset = lambda d, size: np.sign(d) * np.log2(8 * abs(d) / (size - 1) + 1) / 3
  softmax = lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum()
  place = [(i, j) for i in range(2) for j in range(3)]
  out = np.zeros((2, 6, 8))
  for w in range(2):
    q, k, v = np.split(x[0, w] @ p['qkv']['kernel'], 3, -1)
    q, v = q + p['q_bias'], v + p['v_bias']
    for head in range(2):
      at = slice(4 * head, 4 * head + 4)
      for i in range(6):
        logits = np.zeros(6)
        for j in range(6):
          unit = lambda z: z[at] / np.linalg.norm(z[at])
          logits[j] = unit(q[i]) @ unit(k[j]) * np.exp(p['logit_scale'][head]) + mask[w, i, j]
          (row, column), (other_row, other_column) = place[i], place[j]
          at_offset = np.array([offset(row - other_row, 2), offset(column - other_column, 3)])
          hidden = np.maximum(at_offset @ cpb['fc1']['kernel'] + cpb['fc1']['bias'], 0)
          logits[j] += 16 / (1 + np.exp(-hidden @ cpb['fc2']['kernel'][:, head]))
        out[w, i, at] = softmax(logits) @ v[:, at]
  np.testing.assert_allclose(ours[0], out @ p['proj']['kernel'] + p['proj']['bias'], atol=1e-4)


def test_zero_vectors_have_finite_directions_and_gradients():
  assert (swin_v2.unit(jnp.zeros(3)) == 0).all()
  assert jnp.isfinite(jax.grad(lambda x: swin_v2.unit(x).sum())(jnp.zeros(3))).all()


def test_training_without_drop_path_is_evaluation(variables):
  apply = jax.jit(tiny.swin().apply, static_argnums=2)
  evaluated, trained = (apply(variables, images(), train) for train in (False, True))
  np.testing.assert_array_equal(trained, evaluated)


def test_drop_path_acts_in_training_only_and_grows_with_depth(variables, seen):
  model = tiny.swin(drop_path=0.5)
  x = jnp.repeat(images(1), 40, 0)
  trained = steps(model, variables, x, True)
  # Not bit for bit: XLA splits a batch over threads, and rows of a part may be summed otherwise.
  np.testing.assert_allclose(trained['stem'], jnp.repeat(trained['stem'][:1], 40, 0), atol=1e-6)
  last = np.asarray(trained['feed_forward_1_0'] - trained['attend_1_0'])
  assert 5 < (last == 0).all((1, 2)).sum() < 35
  first = np.asarray(trained['feed_forward_0_0'] - trained['attend_0_0'])
  assert not (first == 0).all((1, 2)).any()


def blocks(model: SwinV2) -> list[list[swin_v2.SwinBlock]]:
  return [stage.blocks for stage in model.bind({}).stages]


def test_drop_path_rates_of_the_large_model_are_the_released_ones():
  rates = [block.drop_path for stage in blocks(swin_v2.build()) for block in stage]
  np.testing.assert_allclose(rates, np.arange(24) / 230, atol=1e-9)


def test_windows_of_the_large_model_are_the_released_ones():
  found = [
    [(block.grid[0], block.windows[0][0], block.windows[1][0]) for block in stage]
    for stage in blocks(swin_v2.build('large_window12_192'))
  ]
  assert found[:2] == [[(48, 12, 0), (48, 12, 6)], [(24, 12, 0), (24, 12, 6)]]
  assert found[2:] == [[(12, 12, 0)] * 18, [(6, 6, 0)] * 2]


def test_fine_tuned_models_scale_offsets_by_their_first_window():
  model = swin_v2.build('base_window12to24_192to384')
  pretrained = [stage[0].pretrained_window for stage in blocks(model)]
  assert pretrained == [12, 12, 12, 6]


@pytest.mark.parametrize('variant', swin_v2.VARIANTS)
def test_windows_tile_every_stage_of_every_variant(variant):
  for stage in blocks(swin_v2.build(variant)):
    for block in stage:
      (window, _), grid = block.windows[0], block.grid[0]
      assert grid % window == 0 and block.grid[0] == block.grid[1]


def test_images_need_not_be_square():
  model = tiny.swin(image=(16, 32))
  x = normal(1, 16, 32, 3)
  values = filled.variables(model, x)
  assert jax.eval_shape(model.apply, values, x).shape == (1, 8, 16)


def test_images_that_stages_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='2 stages needs .* multiples of 8; got 36×32'):
    jax.eval_shape(tiny.swin(image=(36, 32)).init, jax.random.key(0), normal(1, 36, 32, 3))


def test_unknown_variants_and_fields_are_refused():
  with pytest.raises(ValueError, match="'huge'; choose one of .*large_window12_192.*, custom"):
    swin_v2.build('huge')
  with pytest.raises(ValueError, match='no field windows; it has .*window'):
    swin_v2.build('custom', windows=3)


def test_fields_replace_those_of_the_variant():
  model = swin_v2.build('large_window12_192', image=384, drop_path=0.0)
  assert (model.image, model.width, model.drop_path) == (384, 192, 0.0)


def test_rematerialised_blocks_change_neither_names_nor_values(variables):
  model = tiny.swin(remat='blocks')
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(filled.variables(model, images())) == shapes(variables)
  np.testing.assert_allclose(
    jax.jit(model.apply)(variables, images()),
    jax.jit(tiny.swin().apply)(variables, images()),
    atol=1e-6,
  )


def test_bfloat16_is_near_float32_and_keeps_float32_parameters(variables, seen):
  model = tiny.swin(dtype=jnp.bfloat16)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images())
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
  low, high = jax.jit(model.apply)(variables, images(1)), seen['norm'][:1]
  assert low.dtype == jnp.bfloat16
  error = np.asarray(low, np.float32) - high
  assert np.square(error).mean() ** 0.5 < 0.05 * np.square(high).mean() ** 0.5


def test_weights_are_placed_where_the_tokens_lie_in_the_picture():
  square = tiny.swin().place(np.arange(2 * 16.0).reshape(2, 16))
  assert square.shape == (2, 4, 4) and square[1, 2, 3] == 16 + 2 * 4 + 3
  wide = tiny.swin(image=(16, 32)).place(np.arange(8.0)[None])
  np.testing.assert_array_equal(wide[0], [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_weights_that_are_no_grid_of_tokens_are_refused():
  with pytest.raises(einops.EinopsError, match='12'):
    tiny.swin().place(np.ones((1, 12)))
