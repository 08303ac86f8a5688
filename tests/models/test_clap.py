"""CLAP's text tower: padding and length; oracles are in tests/convert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import clap
from tests.models import filled

TOWER = clap.Roberta(20, 9, 8, 1, 2, 2.0)


def test_padding_changes_nothing():
  ids = np.array([[0, 5, 6, 2, 1, 1, 1]])
  variables = filled.variables(TOWER, ids)
  run = jax.jit(lambda ids: TOWER.apply(variables, ids))
  np.testing.assert_allclose(run(ids), run(ids[:, :4]), rtol=1e-5, atol=1e-6)
  assert abs(run(ids) - run(np.array([[0, 6, 5, 2, 1, 1, 1]]))).max() > 1e-3


def test_a_text_longer_than_the_tower_holds_is_refused():
  with pytest.raises(ValueError, match='Texts of 8 tokens; the text tower holds 7'):
    jax.eval_shape(TOWER.init, jax.random.key(0), jnp.ones((1, 8), int))
