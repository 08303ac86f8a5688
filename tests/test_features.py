"""Features of segments with and without adapters."""

import dataclasses

import jax
import numpy as np
import pytest

from dgsct_jax import features, sharding, tree
from dgsct_jax import state as states
from dgsct_jax.trained import Trained
from tests import tiny


@pytest.fixture(scope='module', params=['tiny', 'tiny,side'])
def model(request) -> Trained:
  task, config = tiny.ave(request.param)
  mesh = sharding.make_mesh((-1, 1))
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh))
  return Trained(config, task, mesh, 1, {}, variables, lambda *_: {})


def opened(model: Trained) -> Trained:
  """With gates that let the adapters speak."""
  leaves = {
    path: jax.numpy.ones_like(x) if path.endswith('gate') else x
    for path, x in tree.flatten(model.variables.params).items()
  }
  variables = model.variables._replace(params=tree.unflatten(leaves))
  return dataclasses.replace(model, variables=variables)


def test_adapters_are_what_makes_the_difference(model):
  """Behind closed gates, as they start, there is none."""
  found, label = features.pooled(model)
  closed, without = found.values()
  np.testing.assert_allclose(closed, without, atol=1e-5)
  assert len(label) == len(closed) == 160 and closed.shape[1] == 2 * 16
  found, again = features.pooled(opened(model))
  np.testing.assert_array_equal(label, again)
  speaking, silent = found.values()
  np.testing.assert_allclose(silent, without, atol=1e-5)
  assert np.abs(speaking - silent).max() > 1e-2


def test_clips_without_classes_of_segments_are_refused(model):
  task = model.task
  source = task.data('test').source

  class Labelled:
    def __len__(self):
      return len(source)

    def __getitem__(self, i):
      return source[i] | {'label': np.zeros(3, np.float32)}

  other = dataclasses.replace(task, data=lambda split: task.data(split)._replace(source=Labelled()))
  with pytest.raises(ValueError, match='colours segments by their class; the clips of ave have'):
    features.pooled(dataclasses.replace(model, task=other))
