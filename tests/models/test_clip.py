"""CLIP's towers: the image tower as a backbone, the text tower's causality, sizes by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import clip
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.dual import DualEncoder
from tests.models import filled, tiny

PICTURES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


def vision(**fields):
  small = dict(image=16, patch=8, width=8, depths=(2, 1), heads=2, mlp_ratio=2.0, features=4)
  return clip.build_vision('custom', **small | fields)


def text():
  return clip.CLIPText(20, 9, 8, 2, 2, 2.0, 4)


@pytest.fixture(scope='module')
def read():
  """The text tower as a function of ids."""
  ids = np.ones((1, 9), int)
  return jax.jit(functools.partial(text().apply, filled.variables(text(), ids)))


def test_the_image_tower_is_its_stem_blocks_and_norm():
  model = vision()
  variables = filled.variables(model, PICTURES)
  seen = model.apply(variables, PICTURES, method=tiny.steps)
  np.testing.assert_allclose(seen['norm'], model.apply(variables, PICTURES), rtol=1e-5, atol=1e-6)
  assert seen['stem'].shape == (2, 5, 8) and 'attend_1_0' in seen


def test_weights_of_patches_lie_in_the_picture_and_that_of_the_class_token_does_not():
  weights = np.arange(10.0).reshape(2, 5)
  np.testing.assert_array_equal(vision().place(weights)[1], [[6, 7], [8, 9]])


def test_the_class_token_hears_and_zero_gates_are_silent():
  adapter = functools.partial(
    DGSCTAdapter, alpha=0.2, beta=0.05, gamma=0.01, reduction=2, groups=2, tokens=2
  )
  one = vision(depths=(1, 1))
  model = DualEncoder(
    one, tiny.htsat(depths=(1, 1)), functools.partial(Exchange, adapter), read='between'
  )
  wave = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 512)), jnp.float32)
  run = jax.jit(lambda variables, wave: model.apply(variables, PICTURES, wave).visual[:, 0])
  silent, open_ = (filled.variables(model, PICTURES, wave, gates=gate) for gate in (0.0, 0.5))
  alone = one.apply({'params': silent['params']['visual']}, PICTURES)[:, 0]
  np.testing.assert_allclose(run(silent, wave), alone, rtol=1e-4, atol=1e-5)
  assert abs(run(open_, wave) - run(open_, wave[::-1])).max() > 1e-3


def test_what_follows_the_end_of_a_text_changes_nothing(read):
  ids = np.array([[3, 4, 19, 0, 0, 0, 0, 0, 0], [3, 4, 19, 7, 8, 2, 1, 5, 6]])
  first, second = read(ids)
  np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(read(ids[:1, :3])[0], first, rtol=1e-5, atol=1e-6)
  assert abs(read(np.array([[4, 3, 19]]))[0] - first).max() > 1e-3


def test_a_text_longer_than_the_tower_holds_is_refused():
  model = text()
  with pytest.raises(ValueError, match='Texts of 10 tokens; the text tower holds 9'):
    jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 10), int))


def test_released_towers_are_known_by_name():
  model = clip.build('L/14', text={'depth': 1})
  assert (model.visual.depths, model.text.heads, model.text.depth) == ((4, 4, 12, 4), 12, 1)
  with pytest.raises(ValueError, match='CLIP.* has no variant'):
    clip.build_vision('RN50')
  with pytest.raises(ValueError, match='no field window'):
    clip.build_vision('B/32', window=3)
