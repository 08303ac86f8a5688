"""EfficientNet-Lite0 and YAMNet: their names, and oracles that are not ours."""

import sys

import jax
import numpy as np
import pytest

from configs import tags
from dgsct_jax import hub, tree
from dgsct_jax.convert import efficientnet_lite, read, table, yamnet
from dgsct_jax.models import efficientnet_lite as efficientnet_model
from dgsct_jax.models import yamnet as yamnet_model
from tests import media
from tests.parity import golden


def named(rows, shapes):
  """Random weights under their names, for all that ours has."""
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  names = {name: x.shape for name, x in table.export(empty, rows).items()}
  return golden.weights(names, seed=0)


def targets_of(model, *shape):
  return table.targets(model, jax.ShapeDtypeStruct(shape, np.float32), method=table.logits)


SHAPES = {
  efficientnet_lite: targets_of(efficientnet_model.build(), 1, 224, 224, 3),
  yamnet: targets_of(yamnet_model.build(), 1, 16000),
}


def released(source):
  state = named(source.TABLE, SHAPES[source])
  if source is yamnet:
    return {f'{yamnet.NAMES}{name}': x for name, x in state.items() if '/gamma' not in name}
  return state | {'_bn0.num_batches_tracked': np.zeros((), np.int64)}


@pytest.mark.parametrize('source', SHAPES)
def test_every_variable_comes_from_a_tensor_of_its_own(source):
  plan = source.plan(released(source))
  found = table.convert(plan.state, plan.table, plan.targets)
  assert {name: x.shape for name, x in found.items()} == dict(SHAPES[source])
  back = table.export(found, plan.table)
  assert all(np.array_equal(back[name], plan.state[name]) for name in back)


@pytest.mark.parametrize('source', SHAPES)
def test_an_encoder_has_no_classifier(source):
  plan = source.plan_features(released(source))
  found = table.convert(plan.state, plan.table, plan.targets)
  assert SHAPES[source].keys() - found.keys() == {
    'params/classifier/kernel',
    'params/classifier/bias',
  }


@pytest.mark.parametrize('source', SHAPES)
def test_what_is_missing_or_strange_is_named(source):
  state = released(source)
  with pytest.raises(ValueError, match='in this file'):
    source.plan({'a': np.zeros(3)})
  gone = next(name for name in state if 'depthwise' in name)
  plan = source.plan({name: x for name, x in state.items() if name != gone})
  with pytest.raises(ValueError, match='missing in the file') as error:
    table.convert(plan.state, plan.table, plan.targets)
  assert gone.removeprefix(yamnet.NAMES) in str(error.value)


def test_efficientnet_is_that_of_another_library():
  torch = pytest.importorskip('torch')
  package = media.pypi('efficientnet-lite-pytorch', '0.1.0', 'efficientnet_lite_pytorch').parent
  sys.path.insert(0, str(package))
  try:
    from efficientnet_lite_pytorch import EfficientNet
  finally:
    sys.path.remove(str(package))
  oracle = EfficientNet.from_name('efficientnet-lite0').eval()
  state = {
    name: golden.fill().tensor(name, tuple(x.shape), 0) if x.is_floating_point() else x.numpy()
    for name, x in oracle.state_dict().items()
  }
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
  plan = efficientnet_lite.plan(state)
  ours = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  picture = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
  with jax.default_matmul_precision('highest'):
    run = jax.jit(lambda v, x: efficientnet_model.build().apply(v, x, method=table.logits))
    found = np.asarray(run(ours, picture))
  with torch.no_grad():
    wanted = oracle(torch.from_numpy(np.moveaxis(picture, -1, 1).copy())).numpy()
  assert golden.rms(found - wanted) < 2e-5 * golden.rms(wanted)


def sound():
  """A trembling tone and a rising one, of 15600 samples, and silence up to a second."""
  n = np.arange(15600)
  tone = 0.3 * np.sin(2 * np.pi * 440 * n / 16000) * (1 + np.sin(2 * np.pi * 3 * n / 16000)) / 2
  return np.pad((tone + 0.05 * np.sin(0.001 * n * n % 6.283)).astype(np.float32), (0, 400))[None]


# Logits of `sound` by the public weights: tf.signal and tf.nn of TensorFlow, as the file says.
WANTED = {153: 2.1791832, 147: 1.0924201, 132: 0.28176537, 0: -8.7335415, 4: -37.229069}
MEAN, DEVIATION = -31.78886, 15.453499


def test_yamnet_says_what_tensorflow_computes():
  try:
    path = hub.fetch(tags.YAMNET)
  except ValueError as error:
    pytest.skip(f'the weights of YAMNet cannot be fetched: {error}')
  plan = yamnet.plan(read.read(path))
  ours = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))
  with jax.default_matmul_precision('highest'):
    run = jax.jit(lambda v, x: yamnet_model.build().apply(v, x, method=table.logits))
    found = np.asarray(run(ours, sound()))[0]
  np.testing.assert_allclose(found[list(WANTED)], list(WANTED.values()), atol=2e-3)
  np.testing.assert_allclose([found.mean(), found.std()], [MEAN, DEVIATION], rtol=1e-5)
