"""What the views of several tasks share."""

from typing import Any

import numpy as np
from jaxtyping import Float

from dgsct_jax.data.clips import Clip
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tracks import Frames, Heat, Spectrum


def perception(
  clip: Clip,
  encoder: DualEncoder,
  visual_map: Float[np.ndarray, 't n'],
  audio_map: Float[np.ndarray, 't m'],
) -> tuple[Frames, Heat, Spectrum, Heat]:
  """Frames and sound of a clip that has both, each followed by the attention over it."""
  assert clip.frames is not None and clip.wave is not None
  frames, sound = Frames('frames', clip.frames), Spectrum('sound', clip.wave)
  return (
    frames,
    Heat('looks at', encoder.visual.place(visual_map), frames),
    sound,
    Heat('listens to', encoder.audio.place(audio_map), sound),
  )


def softmax(logits: Float[Any, '*b c']) -> Float[np.ndarray, '*b c']:
  """Over the last axis, in double precision."""
  logits = np.asarray(logits, np.float64)
  share = np.exp(logits - logits.max(-1, keepdims=True))
  return share / share.sum(-1, keepdims=True)


def sigmoid(logits: Float[Any, '*b']) -> Float[np.ndarray, '*b']:
  """In double precision."""
  return np.asarray(1 / (1 + np.exp(-np.asarray(logits, np.float64))))


def clock(second: int) -> str:
  """Minutes and seconds, as '1:07'."""
  minutes, rest = divmod(second, 60)
  return f'{minutes}:{rest:02}'
