"""Audio-visual segmentation: which pixels sound, in every second."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads.avs_decoder import Decoder
from dgsct_jax.models.layers import BatchNorm, Dense, LayerNorm, fan_in_uniform
from dgsct_jax.models.resize import average, bicubic
from dgsct_jax.models.temporal import BiLSTM, TemporalEncoder

Outputs = dict[str, Float[Array, '...']]


class StageGate(nn.Module):
  """Gates over the seconds for one stage of the pyramid (released `TemporalAttention` of AVS)."""

  dropout: float = 0.2

  @nn.compact
  def __call__(
    self, visual: Float[Array, 'b t d'], audio: Float[Array, 'b t e'], train: bool
  ) -> tuple[Float[Array, 'b t 1'], Float[Array, 'b t 1']]:
    """The gate of the picture, by which the sound is weighted, and that of the sound."""
    d, e = visual.shape[-1], audio.shape[-1]
    # As released: only the picture has a layer before its LSTM.
    visual = nn.relu(Dense(d, name='visual_fc')(visual))
    visual = Dropout(self.dropout)(visual, train)
    visual, audio = BiLSTM(d, name='visual_rnn')(visual), BiLSTM(e, name='audio_rnn')(audio)
    visual = TemporalEncoder(d, name='visual_encoder')(visual, train)
    audio = TemporalEncoder(d, name='audio_encoder')(audio, train)
    return (
      nn.sigmoid(Dense(1, name='visual_gate')(visual)),
      nn.sigmoid(Dense(1, name='audio_gate')(audio)),
    )


class TPAVI(nn.Module):
  """Every pixel of a clip reads from all others what fits the sound of their second.

  (Zhou et al. 2022, "Audio-Visual Segmentation"; released `TPAVIModule`, mode 'dot'.)

  The weights θφᵀ/n of the n = t·h·w pixels have no softmax, so y = (θφᵀ/n) g = θ (φᵀg/n): a matrix
  of (d/2)² numbers serves for one of n², which is 15680² at the first released stage.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t h w d'], audio: Float[Array, 'b t e'] | None, train: bool
  ) -> tuple[Float[Array, 'b t h w d'], Float[Array, 'b t d'] | None]:
    """The new map, and the sound at its width; without a sound the picture takes its place."""
    d, n = x.shape[-1], x.shape[1] * x.shape[2] * x.shape[3]
    project = lambda name, x: Dense(d // 2, dtype=self.dtype, name=name)(x)
    g, theta = project('g', x), project('theta', x)
    if audio is None:
      heard, fitting = None, jnp.einsum('bthwc,bthwk->bck', project('phi', x), g)
    else:
      heard = Dense(d, name='align')(audio)
      fitting = jnp.einsum('btc,btk->bck', project('phi', heard), g.sum((2, 3)))
    read = jnp.einsum('bthwc,bck->bthwk', theta, fitting / n)
    read = Dense(d, dtype=self.dtype, name='out')(read)
    # From 0: at first the map stays as it is.
    norm = BatchNorm(scale_init=nn.initializers.zeros, dtype=self.dtype, name='bn')
    return LayerNorm(dtype=self.dtype, name='norm')(norm(read, train) + x), heard


class Dilated(nn.Module):
  """Four convolutions side by side, from near to far, and their sum (AVSBench's `Classifier`)."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w d']) -> Float[Array, 'b t h w e']:
    """A map of `width` channels."""
    near_to_far = [
      nn.Conv(
        self.width,
        (3, 3),
        kernel_dilation=steps,
        dtype=self.dtype,
        kernel_init=nn.initializers.normal(0.01),
        bias_init=fan_in_uniform(9 * x.shape[-1]),
        name=f'conv_{i}',
      )(x)
      for i, steps in enumerate((3, 6, 12, 18))
    ]
    return sum(near_to_far, jnp.zeros((), self.dtype))


class Segmenter(nn.Module):
  """Gates of the seconds, TPAVI in each stage, decoder: all that comes after the encoder.

  gamma: weight of the gates. width: channels of the maps; the sound gets half of them.
  gates, tpavi: whether there are any; without both, sound counts in the encoder alone (LAVISH).
  widths: of the maps of the stages before `Dilated` convolutions; empty: there are none.
  """

  gamma: float = 0.1
  width: int = 256
  dropout: float = 0.2
  dtype: Any = jnp.float32
  gates: bool = True
  tpavi: bool = True
  widths: tuple[int, ...] = ()

  @nn.compact
  def __call__(
    self,
    pyramid: Sequence[Float[Array, 'b t _ _ _']],
    audio: Float[Array, 'b t e'],
    size: tuple[int, int],
    train: bool,
  ) -> Outputs:
    """Masks of the size of the frames, and what pictures and sounds are compared by.

    Args:
      pyramid: tokens of the l stages as maps, from fine to coarse. Stage i is brought to 1/2^(i+2)
        of `size`, whatever it was.
      audio: of each second.
      size: of the frames.
      train: drop, and use the statistics of the batch.

    Returns:
      `mask_logits` [b t y x]; with TPAVI `seen` [b t l d], the mean of each map under the mask, and
      `heard` [b t l d].
    """
    if self.gates or self.tpavi:
      audio = Dense(self.width // 2, name='audio')(audio.astype(jnp.float32))
    maps, gates = [], []
    for i, x in enumerate(pyramid):
      width = self.widths[i] if self.widths else self.width
      x = Dense(width, dtype=self.dtype, name=f'project_{i}')(x)
      x = bicubic(x, tuple(-(-side // 2 ** (i + 2)) for side in size))
      if self.widths:
        x = Dilated(self.width, self.dtype, name=f'dilated_{i}')(x)
      if not self.gates:
        maps.append(x)
        continue
      pooled = x.astype(jnp.float32).mean((2, 3))
      visual_gate, audio_gate = StageGate(self.dropout, name=f'gate_{i}')(pooled, audio, train)
      gates.append(visual_gate)
      maps.append(x * (1 + self.gamma * audio_gate[:, :, None, None]).astype(self.dtype))
    decode = Decoder(self.dtype, name='decode')
    if not self.tpavi:
      return {'mask_logits': decode(maps, size).astype(jnp.float32)}
    if gates:
      audio = audio * (1 + self.gamma * sum(gates) / len(gates))
    found = [TPAVI(self.dtype, name=f'tpavi_{i}')(x, audio, train) for i, x in enumerate(maps)]
    logits = decode([x for x, _ in found], size).astype(jnp.float32)
    # As released: the decoder rectifies the maps in place, and so they come to the loss.
    seen = [under(nn.relu(x).astype(jnp.float32), logits) for x, _ in found]
    return {
      'mask_logits': logits,
      'seen': jnp.stack(seen, 2),
      'heard': jnp.stack([heard for _, heard in found if heard is not None], 2),
    }


def under(x: Float[Array, 'b t h w d'], logits: Float[Array, 'b t y x']) -> Float[Array, 'b t d']:
  """The mean of a map times the mask, which is averaged to its size as logits.

  As released, it is the mean over the frame: what is small weighs little.
  """
  mask = nn.sigmoid(average(logits[..., None], (x.shape[2], x.shape[3])))
  return (x * mask).mean((2, 3))


class AVS(nn.Module):
  """Dual encoder and segmenter."""

  encoder: DualEncoder
  segment: Segmenter

  def __call__(self, batch: dict[str, Any], train: bool = False) -> Outputs:
    """Takes `video` [b t h w 3] and `wave` [b t s]; the backbone gets the frames at its own size.

    Returns the segmenter's outputs, masks of the size of the frames, and the spatial attention of
    the last exchange, `visual_map` [b t n] and `audio_map` [b t m].
    """
    video, wave = batch['video'], batch['wave']
    t, size = video.shape[1], video.shape[2:4]
    backbone = self.encoder.visual
    image = tuple(np.broadcast_to(backbone.image, 2).tolist())
    encoded = self.encoder(
      bicubic(rearrange(video, 'b t h w c -> (b t) h w c'), image),
      rearrange(wave, 'b t s -> (b t) s'),
      train,
    )
    unfold = lambda x: rearrange(x, '(b t) n d -> b t n d', t=t)
    pyramid = [
      rearrange(unfold(x), 'b t (h w) d -> b t h w d', h=image[0] // backbone.patch // 2**i)
      for i, x in enumerate(encoded.visual_pyramid)
    ]
    maps = {'visual_map': unfold(encoded.visual_map), 'audio_map': unfold(encoded.audio_map)}
    audio = (maps['audio_map'] @ unfold(encoded.audio))[:, :, 0]
    outputs = self.segment(pyramid, audio, size, train)
    return outputs | {name: x[:, :, 0] for name, x in maps.items()}
