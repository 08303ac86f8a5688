"""What can be shown of a clip: rows on one axis of time, as plain values.

Tasks make them, figures.py draws them under each other, film.py draws one over a video. The
letters: `t` seconds, `h w` pixels, `s` samples of a second, `y x` a grid of tokens.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8


class Frames(NamedTuple):
  """One picture for each second."""

  name: str
  frames: UInt8[np.ndarray, 't h w 3']


class Spectrum(NamedTuple):
  """The sound as levels over frequency and time."""

  name: str
  wave: Float[np.ndarray, 't s']


class Heat(NamedTuple):
  """Weights over what they look at or listen to. `y` runs downwards in pictures, upwards in pitch.

  Moments that the model does not hear are nan.
  """

  name: str
  weights: Float[np.ndarray, 't y x']
  over: Frames | Spectrum


class Mask(NamedTuple):
  """How probably each pixel belongs to what is looked for."""

  name: str
  probability: Float[np.ndarray, 't h w']
  over: Frames


class Bars(NamedTuple):
  """One class for each second; `len(names)` is none of them."""

  name: str
  labels: Int[np.ndarray, 't']
  names: tuple[str, ...]


class Steps(NamedTuple):
  """A share in 0..1 for each second, and the line that it is compared with."""

  name: str
  values: Float[np.ndarray, 't']
  line: float


Track = Frames | Spectrum | Heat | Mask | Bars | Steps
