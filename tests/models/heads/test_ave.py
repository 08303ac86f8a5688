"""The AVE heads: which second counts for what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import expit

from dgsct_jax.models.dual import DualEncoder, Encoded
from dgsct_jax.models.heads import ave
from dgsct_jax.models.temporal import TemporalAttention
from tests.models import filled, tiny


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


VISUAL, AUDIO = normal(2, 10, 6), normal(2, 10, 6, seed=1)


def run(
  model: nn.Module, values: dict, visual: jax.Array = VISUAL, audio: jax.Array = AUDIO
) -> dict[str, np.ndarray]:
  return jax.tree.map(np.asarray, jax.jit(model.apply)(values, visual, audio))


@pytest.mark.parametrize('count', [1, 4, 10, 20])
def test_the_strongest_seconds_are_averaged_per_class(count):
  x = normal(2, 10, 3)
  expected = np.sort(x, 1)[:, ::-1][:, :count].mean(1)
  np.testing.assert_allclose(ave.strongest(x, count), expected, atol=1e-6)


def test_the_gradient_of_a_maximum_goes_to_one_second_also_among_equals():
  x = jnp.zeros((1, 5, 2)).at[0, 1:3, 0].set(1)
  gradient = jax.grad(lambda x: ave.strongest(x, 1).sum())(x)
  np.testing.assert_array_equal(gradient.sum(1), 1)
  assert set(np.unique(gradient)) == {0, 1} and gradient[0, 1:3, 0].sum() == 1


def test_the_localizer_computes_the_released_formulas():
  model = ave.Localizer(classes=3)
  values = filled.variables(model, VISUAL, AUDIO)
  found = run(model, values)

  def linear(name, x):
    return np.asarray(x) @ values['params'][name]['kernel'] + values['params'][name]['bias']

  top = lambda x: np.sort(x, 1)[:, -4:].mean(1)
  activation = (top(linear('visual_cas', VISUAL)) + top(linear('audio_cas', AUDIO))) / 2
  fused = (VISUAL + AUDIO) / 2
  assert {name: x.shape for name, x in found.items()} == {
    'event_logits': (2, 10),
    'logits': (2, 3),
    'activation_logits': (2, 3),
  }
  np.testing.assert_allclose(found['activation_logits'], activation, atol=1e-5)
  np.testing.assert_allclose(found['event_logits'], linear('is_event', fused)[..., 0], atol=1e-5)
  logits = linear('event', fused.max(1)) + 0.3 * activation
  np.testing.assert_allclose(found['logits'], logits, atol=1e-5)


def test_the_weak_localizer_scores_seconds_by_event_and_class():
  model = ave.WeakLocalizer(classes=3)
  values = filled.variables(model, VISUAL, AUDIO)
  found = run(model, values)
  assert {name: x.shape for name, x in found.items()} == {
    'event_logits': (2, 10),
    'logits': (2, 4),
    'clip_logits': (2, 4),
  }
  event = expit(found['event_logits'])
  scores = event[:, :, None] * found['logits'][:, None]
  np.testing.assert_allclose(found['clip_logits'], scores.max(1), atol=1e-5)


@pytest.mark.parametrize('model', [ave.Localizer(3), ave.WeakLocalizer(3)])
def test_seconds_in_another_order_are_the_same_event_in_another_order(model):
  values = filled.variables(model, VISUAL, AUDIO)
  found, shuffled = run(model, values), run(model, values, VISUAL[:, ::-1], AUDIO[:, ::-1])
  for name, x in found.items():
    expected = x[:, ::-1] if name == 'event_logits' else x
    np.testing.assert_allclose(shuffled[name], expected, atol=1e-6)


class Echo(DualEncoder):
  """Tokens that are the pixels and samples of the segment; the maps take the first of them."""

  def setup(self):
    pass

  def __call__(self, video, wave, train=False):
    v, a = video.reshape(len(video), -1, 3), wave[:, :, None]
    first = lambda x: jnp.zeros((len(x), 1, x.shape[1])).at[:, 0, 0].set(1)
    return Encoded(v, a, first(v), 2 * first(a), (v,), (a,))


class Sum(TemporalAttention):
  """Every segment gets the sum of its clip."""

  def setup(self):
    pass

  def __call__(self, visual, audio, train):
    over_time = lambda x: jnp.broadcast_to(x.sum(1, keepdims=True), x.shape)
    return over_time(visual), over_time(audio), visual[..., 0]


class Show(nn.Module):
  def __call__(self, visual, audio):
    return {'visual': visual, 'audio': audio}


def test_segments_are_pooled_by_their_maps_and_return_to_their_clips():
  model = ave.AVE(Echo(tiny.swin(), tiny.htsat()), Sum(), Show())
  video, wave = normal(2, 5, 1, 2, 3), normal(2, 5, 4)
  found = model.apply({}, {'video': video, 'wave': wave})
  np.testing.assert_allclose(found['visual'][:, 0], video[:, :, 0, 0].sum(1), atol=1e-5)
  np.testing.assert_allclose(found['audio'][:, 0], 2 * wave[:, :, :1].sum(1), atol=1e-5)
  np.testing.assert_array_equal(found['gate'], video[:, :, 0, 0, 0])
  assert found['visual_map'].shape == (2, 5, 2) and found['audio_map'].shape == (2, 5, 4)
