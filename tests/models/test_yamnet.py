"""YAMNet: its front end, its grids, and what it cannot hear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.models import yamnet


def test_a_tone_lies_in_the_band_of_its_frequency():
  centres = 700 * np.expm1(
    np.linspace(*(1127 * np.log1p(np.array([125, 7500]) / 700)), 66)[1:-1] / 1127
  )
  time = np.arange(16000) / 16000
  for hz in (300, 1000, 4000):
    wave = np.sin(2 * np.pi * hz * time).astype(np.float32)[None]
    loudest = np.asarray(yamnet.log_mel(jnp.asarray(wave)))[0].mean(0).argmax()
    assert abs(loudest - np.abs(centres - hz).argmin()) <= 1


def test_silence_is_the_logarithm_of_the_offset():
  found = yamnet.log_mel(jnp.zeros((1, 16000)))
  assert found.shape == (1, 96, 64)
  np.testing.assert_allclose(found, np.log(0.001), rtol=1e-6)


def test_only_the_first_samples_of_a_second_are_heard():
  wave = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 16000)), jnp.float32)
  other = wave.at[:, yamnet.LONG :].set(0)
  np.testing.assert_array_equal(yamnet.log_mel(wave), yamnet.log_mel(other))
  other = other.at[:, yamnet.LONG - 200].set(5)
  assert np.abs(yamnet.log_mel(wave) - yamnet.log_mel(other)).max() > 0.1


def test_every_band_is_heard_and_the_constant_is_not():
  filters = yamnet.mel_filters()
  assert filters.shape == (257, 64) and not filters[0].any() and (filters.sum(0) > 0).all()


def test_the_grids_are_those_of_the_network():
  def each(net, x):
    x, found = net.stem(x), []
    for stage in net.stages:
      for block in stage.blocks:
        x = block(x, False)
      found.append(x)
      x = stage.downsample(x)
    return found, net.classify(net.norm(x))

  model = yamnet.build()
  (stages, logits), variables = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, method=each),
    jax.ShapeDtypeStruct((2, 16000), jnp.float32),
  )
  grids = [(24 * 16, 128), (12 * 8, 256), (6 * 4, 512), (3 * 2, 1024)]
  assert [x.shape[1:] for x in stages] == grids and logits.shape == (2, 521)
  assert variables['params']['entry']['conv']['kernel'].shape == (3, 3, 1, 32)


def test_weights_of_tokens_lie_over_frequency_and_time():
  weights = np.arange(6.0)[None]  # three moments of two bands
  np.testing.assert_array_equal(yamnet.build().place(weights)[0], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(
  'fields, told',
  [
    ({'sample_rate': 32000}, "the rate 16000; the config asks for 'audioset' and 32000"),
    ({'variant': 'esc50'}, "asks for 'esc50'"),
    ({'batch_stats': True}, 'has no training mode'),
    ({'spec_augment': True}, 'has no training mode'),
  ],
)
def test_what_it_cannot_do_is_told(fields, told):
  with pytest.raises(ValueError, match=told):
    yamnet.build(**fields)


def test_a_second_of_another_rate_is_refused():
  with pytest.raises(ValueError, match='16000 samples, not of 8000.*--rate=16000'):
    yamnet.log_mel(jnp.zeros((1, 8000)))
