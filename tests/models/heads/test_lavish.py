"""The head of LAVISH on AVE."""

import jax
import jax.numpy as jnp
import numpy as np

from dgsct_jax import tree
from dgsct_jax.models.heads.lavish import Classifier
from tests.models import filled


def test_it_has_the_published_number_of_parameters():
  x = jnp.zeros((1, 1536))
  shapes = jax.eval_shape(Classifier().init, jax.random.key(0), x, x)
  assert tree.count(shapes['params']) == 1_588_253


def test_it_is_linear_as_released():
  rng = np.random.default_rng(0)
  visual, audio = jnp.asarray(rng.normal(size=(2, 2, 3, 4)), jnp.float32)
  model = Classifier(5, 6)
  values = filled.variables(model, visual, audio)
  run = lambda v, a: np.asarray(model.apply(values, v, a))
  middle = run((visual + audio) / 2, (visual + audio) / 2)
  np.testing.assert_allclose(middle, (run(visual, audio) + run(audio, visual)) / 2, atol=1e-5)
  assert middle.shape == (2, 3, 5)
