"""EfficientNet-Lite0 as a backbone, alone and beside YAMNet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import efficientnet_lite, yamnet
from dgsct_jax.models.adapters import DGSCTAdapter, Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.lavish import LavishAdapter

PICTURE = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
WAVE = jax.ShapeDtypeStruct((2, 16000), jnp.float32)


def shapes(model, *inputs, method=None):
  return jax.eval_shape(
    lambda *x: model.init_with_output(jax.random.key(0), *x, method=method), *inputs
  )


def test_the_grids_are_those_of_the_network():
  model = efficientnet_lite.build()

  def each(net, x):
    x, found = net.stem(x), []
    for stage in net.stages:
      for block in stage.blocks:
        x = block(x, False)
      found.append(x)
    return found, net.norm(x), net.classify(net.norm(x))

  (stages, last, logits), _ = shapes(model, PICTURE, method=each)
  assert [x.shape[1:] for x in stages] == [(56**2, 24), (28**2, 40), (14**2, 112), (7**2, 192)]
  assert last.shape == (2, 49, 1280) and logits.shape == (2, 1000)


def test_it_has_as_many_values_as_was_published():
  _, variables = shapes(efficientnet_lite.build(), PICTURE, method=lambda m, x: m.classify(m(x)))
  assert sum(x.size for x in tree.flatten(variables).values()) == 4_694_024


def test_pictures_must_divide():
  with pytest.raises(ValueError, match='200 pixels do not divide by 32'):
    shapes(efficientnet_lite.build(image=200), jax.ShapeDtypeStruct((1, 200, 200, 3), jnp.float32))
  with pytest.raises(ValueError, match="Unknown EfficientNet 'b0'; there is 'lite0'"):
    efficientnet_lite.build('b0')


def test_weights_of_tokens_lie_where_the_tokens_do():
  weights = np.arange(49.0)[None]
  np.testing.assert_array_equal(efficientnet_lite.build().place(weights)[0], weights.reshape(7, 7))


ADAPTERS = {
  'dgsct': functools.partial(DGSCTAdapter, tokens=2, reduction=8, groups=2),
  'lavish': functools.partial(LavishAdapter, tokens=2, reduction=8, groups=2),
}


@pytest.mark.parametrize('name', ADAPTERS)
def test_any_adapter_fits_between_it_and_yamnet(name):
  model = DualEncoder(
    efficientnet_lite.build(), yamnet.build(), functools.partial(Exchange, ADAPTERS[name])
  )
  found, variables = shapes(model, PICTURE, WAVE)
  assert found.visual.shape == (2, 49, 1280) and found.audio.shape == (2, 6, 1024)
  assert found.visual_map.shape == (2, 1, 49) and found.audio_map.shape == (2, 1, 6)
  exchanges = {path.split('/')[1] for path in tree.flatten(variables) if '/exchange_' in path}
  assert len(exchanges) == 2 * 5, 'two for each audio block'
