"""A visual backbone that hears: sharing, order of halves, places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ave
from dgsct_jax import models, tree
from dgsct_jax.models.adapters import Exchange, NoExchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.kaldi import Fbank
from dgsct_jax.models.lavish import LavishAdapter
from dgsct_jax.models.listener import Listener
from tests.models import filled, tiny

HEAR = Fbank(sample_rate=4000, mel_bins=16, frames=16, shift=40.0)
SIZES = dict(image=16, depths=(1,), heads=(2,))


def noise(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


VIDEO, WAVE = noise(2, 16, 16, 3), noise(2, 2800)


def encoder(shared: bool = True, **fields) -> DualEncoder:
  swin = tiny.swin(**SIZES)
  audio = Listener(swin if shared else tiny.swin(**SIZES), HEAR)
  return DualEncoder(swin, audio, split_audio=True, norm_audio=True, **fields)


def names(model: DualEncoder) -> set[str]:
  shapes = jax.eval_shape(model.init, jax.random.key(0), VIDEO, WAVE)
  return {'/'.join(path.split('/')[1:3]) for path in tree.flatten(shapes)}


def test_one_instance_in_both_streams_has_one_set_of_weights_and_two_have_two():
  own = {'visual/patch_embed', 'visual/stages_0', 'visual/norm'}
  assert names(encoder()) == own
  assert names(encoder(shared=False)) == own | {'audio/backbone'}


def test_without_adapters_each_stream_is_the_backbone_on_its_own_picture():
  model = encoder()
  values = filled.variables(model, VIDEO, WAVE)
  found = jax.jit(model.apply)(values, VIDEO, WAVE)
  picture = jnp.repeat(HEAR.apply({}, WAVE)[..., None], 3, -1)
  alone = jax.jit(tiny.swin(**SIZES).apply)({'params': values['params']['visual']}, picture)
  np.testing.assert_allclose(found.audio, alone, atol=1e-5)


def test_zero_gates_leave_both_streams_unchanged():
  adapted = encoder(
    exchange=functools.partial(Exchange, functools.partial(LavishAdapter, reduction=2))
  )
  values = filled.variables(adapted, VIDEO, WAVE, gates=0.0)
  found = jax.jit(adapted.apply)(values, VIDEO, WAVE)
  values['params'] = {'visual': values['params']['visual']}
  alone = jax.jit(encoder(exchange=NoExchange).apply)({'params': values['params']}, VIDEO, WAVE)
  np.testing.assert_allclose(found.visual, alone.visual, atol=1e-5)
  np.testing.assert_allclose(found.audio, alone.audio, atol=1e-5)


def test_sound_lies_over_frequency_and_time_without_the_padding():
  """17 frames of 160 samples in 2 720: of a picture of 34 rows the first half is sound."""
  hear = Fbank(sample_rate=4000, mel_bins=16, frames=32, shift=40.0, seconds=0.64)
  listener = Listener(tiny.swin(image=32, depths=(1,), heads=(2,)), hear)
  weights = np.arange(64.0)[None]  # 8 moments of 8 frequencies
  placed = listener.place(weights)
  assert placed.shape == (1, 8, 8)
  np.testing.assert_array_equal(placed[0, 0], [0, 0, 8, 8, 16, 16, 24, 24])
  np.testing.assert_array_equal(placed[0, :, 0], np.arange(8))


def test_moments_after_the_last_frame_are_not_known():
  hear = Fbank(sample_rate=4000, mel_bins=16, frames=16, shift=40.0, seconds=1.28)
  placed = hear.place(np.ones((1, 4, 4)))
  np.testing.assert_array_equal(np.isnan(placed[0]).all(0), [False, False, True, True])


def test_a_config_may_share_the_visual_backbone():
  config = ave.get_config('tiny').model
  fields = dict(variant='lavish_ave', frames=32, mel_bins=32)
  config.audio = dict(kind='shared', front_end='fbank') | fields
  config.adapter = dict(name='lavish', reduction=2, audio_gate=False)
  model = models.build(config)
  assert model.audio.backbone is model.visual and model.split_audio and model.norm_audio
  assert model.audio.front_end.frames == 32
  adapters = model.exchange()
  assert adapters.adapter().gate and not adapters.audio_adapter().gate
  config.audio.variant = 'ears'
  with pytest.raises(ValueError, match="Fbank has no variant 'ears'; choose one of lavish_ave"):
    models.build(config)
  config.audio.front_end = 'ears'
  with pytest.raises(ValueError, match="front_end is 'ears'; choose one of fbank, log_magnitude"):
    models.build(config)
