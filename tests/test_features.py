"""Features of segments with and without adapters."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

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


def test_both_sets_are_drawn_with_a_colour_for_each_class(model, tmp_path, monkeypatch):
  monkeypatch.setattr(features.trained, 'read_config', lambda workdir: model.config)
  monkeypatch.setattr(features.trained, 'load', lambda workdir, config: opened(model))
  path = features.draw(tmp_path)
  assert path == tmp_path / 'figures' / 'features.png'
  picture = np.asarray(Image.open(path).convert('RGB'))
  assert picture.shape == (540, 1100, 3)
  for half in (picture[:, :480], picture[:, 480:960]):
    assert len(np.unique(half.reshape(-1, 3), axis=0)) > 20
  monkeypatch.setattr(model.config.model.adapter, 'name', 'none')
  with pytest.raises(ValueError, match='has no adapters to be compared'):
    features.draw(tmp_path)


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
