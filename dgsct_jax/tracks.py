"""Tracks: what can be shown of a clip on a time axis, as plain values.

Tasks make tracks, figures.py draws them below each other, film.py draws one over a video.
Dimension letters: `t` seconds, `h w` pixels, `s` samples of a second, `y x` a grid of tokens.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8


class Frames(NamedTuple):
  """One picture for each second."""

  name: str
  frames: UInt8[np.ndarray, 't h w 3']


class Spectrum(NamedTuple):
  """A sound, drawn as a spectrogram."""

  name: str
  wave: Float[np.ndarray, 't s']


class Heat(NamedTuple):
  """Attention weights over frames or a sound; `y` is a row of a picture, or the frequency, upwards.

  Moments that the model does not get are nan.
  """

  name: str
  weights: Float[np.ndarray, 't y x']
  over: Frames | Spectrum


class Mask(NamedTuple):
  """The probability that a pixel belongs to the object that is segmented."""

  name: str
  probability: Float[np.ndarray, 't h w']
  over: Frames


class Bars(NamedTuple):
  """One class for each second; the label `len(names)` stands for no class."""

  name: str
  labels: Int[np.ndarray, 't']
  names: tuple[str, ...]


class Steps(NamedTuple):
  """A value in 0..1 for each second, and a threshold that is drawn as a line."""

  name: str
  values: Float[np.ndarray, 't']
  line: float


Track = Frames | Spectrum | Heat | Mask | Bars | Steps


def clock(second: int) -> str:
  """Minutes and seconds, as '1:07'."""
  minutes, rest = divmod(second, 60)
  return f'{minutes}:{rest:02}'
