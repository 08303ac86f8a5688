"""Odd settings: each builds a model, or is refused in one error before any work is done.

A failing input is made again by its seed and number; the message tells the field and its value.
"""

import math

import numpy as np
import pytest

from configs import ave, avqa, avs_ms3, avs_s4, avvp, ma_avt
from dgsct_jax import optim, settings, sharding
from dgsct_jax import state as states
from dgsct_jax.tasks import registry
from tests.fuzz import damage

pytestmark = pytest.mark.fuzz

INPUTS = 150
CONFIGS = (ave, avqa, avs_s4, avs_ms3, avvp, ma_avt)
NUMBERS = (-7, -1, 0, 1, 2, 3, 5, 7, 12, 1000, 10**5, 10**12, -1.5, 0.0, 0.5, 1e9, 1e-30)
ODD = (math.nan, math.inf, True, '', 'nothing', '9', None)


def odd_value(rng, value):
  """In place of a value: of its type or not, alone or as a tuple, of the same length or not."""
  draw = lambda: (NUMBERS + ODD)[rng.integers(len(NUMBERS + ODD))]
  if isinstance(value, tuple) and rng.random() < 0.8:
    return tuple(draw() for _ in range(rng.integers(4)))
  return draw()


def changed(rng):
  """A config with one odd field: its name, the value, and the config, or None if it has a type."""
  config = CONFIGS[rng.integers(len(CONFIGS))].get_config('tiny')
  fields = settings.fields(config)
  name = list(fields)[rng.integers(len(fields))]
  value = odd_value(rng, fields[name])
  try:
    config.update_from_flattened_dict({name: value})
  except (TypeError, ValueError):  # ml_collections keeps the types of single values
    return name, value, None
  return name, value, config


def test_settings_build_a_model_or_are_refused_in_one_error(seed, number):
  name, value, config = changed(np.random.default_rng((seed, number)))
  if config is None:
    return
  input_, cost = f'seed {seed}, number {number}: {name}={value!r}', damage.Cost()
  try:
    task = registry.build(config)
    optim.build(config.optim, 3)
    states.layout(task.model, task.inputs.spec, config, sharding.make_mesh((-1, 1)))
  except ValueError as error:
    assert len(str(error)) > 20, input_
  except Exception as error:
    raise AssertionError(input_) from error
  cost.check(input_)
