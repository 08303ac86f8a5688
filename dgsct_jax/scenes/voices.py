"""Twelve synthetic voices, each of a timbre of its own; pitch, tempo and phase are random."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

Wave = Float[np.ndarray, 's']
Voice = Callable[[np.random.Generator, int, int], Wave]  # (rng, samples, samples per second)

_TABLE = 2048


def _phase(frequency: float | Wave, n: int, rate: int, rng: np.random.Generator) -> Wave:
  """Cycles since the start, from the frequency in Hz, with a random initial phase."""
  return np.cumsum(np.broadcast_to(np.float64(frequency) / rate, n)) + rng.random()


def _tone(amplitudes: Sequence[float], phase: Wave, top: float) -> Wave:
  """A sum of harmonics read from one cycle; `top` bounds their number, against aliasing."""
  orders = np.arange(1, min(len(amplitudes), max(1, int(top))) + 1)
  angles = 2 * np.pi * np.arange(_TABLE) / _TABLE
  cycle = np.array(amplitudes[: len(orders)]) @ np.sin(np.outer(orders, angles))
  return cycle.astype(np.float32)[(phase * _TABLE).astype(np.int64) % _TABLE]


def _strokes(
  rng: np.random.Generator, n: int, rate: int, low: float, high: float
) -> tuple[Wave, np.ndarray]:
  """Seconds since the last stroke, and its number; `low` to `high` strokes a second."""
  beat = _phase(rng.uniform(low, high), n, rate, rng)
  number = beat.astype(np.int64)
  return (beat - number) / (beat[-1] - beat[0]) * (n / rate), number


def _slow_noise(rng: np.random.Generator, n: int, rate: int, cutoff: float) -> Wave:
  """Noise below `cutoff` Hz: random values joined by lines."""
  values = rng.standard_normal(int(n * 2 * cutoff / rate) + 2)
  return np.interp(np.arange(n) * (2 * cutoff / rate), np.arange(values.size), values)


def _noise(rng: np.random.Generator, n: int) -> Wave:
  return rng.standard_normal(n, dtype=np.float32)


def organ(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """All harmonics, steady but for a light vibrato."""
  f = rng.uniform(150, 420)
  vibrato = 1 + 0.012 * np.sin(2 * np.pi * _phase(rng.uniform(4, 6), n, rate, rng))
  return _tone([1 / k for k in range(1, 11)], _phase(f * vibrato, n, rate, rng), 0.45 * rate / f)


def hiss(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """A narrow band of noise around one to three kilohertz."""
  centre = min(rng.uniform(1000, 3000), 0.4 * rate)
  carrier = np.sin(2 * np.pi * _phase(centre, n, rate, rng))
  return _slow_noise(rng, n, rate, rng.uniform(80, 200)) * carrier


def bell(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Frequency-modulated strokes with inharmonic partials that decay."""
  since, _ = _strokes(rng, n, rate, 2.0, 3.5)
  f = rng.uniform(350, 700)
  index = 3 * np.exp(-since * 6)
  modulator = np.sin(2 * np.pi * _phase(1.41 * f, n, rate, rng))
  return np.exp(-since * 5) * np.sin(2 * np.pi * _phase(f, n, rate, rng) + index * modulator)


def clicks(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Dry clicks, a dozen a second."""
  since, _ = _strokes(rng, n, rate, 9.0, 15.0)
  return _noise(rng, n) * np.exp(-since * rng.uniform(60, 110))


def siren(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Whistles that sweep upwards two to four times a second."""
  sweep = _phase(rng.uniform(2, 4), n, rate, rng) % 1
  f = rng.uniform(250, 500)
  return _tone([1.0, 0.3], _phase(f * 4**sweep, n, rate, rng), 0.45 * rate / (4 * f))


def engine(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """A low rumble with a pulsating level."""
  throb = 0.5 + 0.5 * np.sin(2 * np.pi * _phase(rng.uniform(10, 18), n, rate, rng))
  buzz = _tone([1 / k for k in range(1, 7)], _phase(rng.uniform(45, 80), n, rate, rng), 6.0)
  return (buzz + 0.5 * _slow_noise(rng, n, rate, 200.0)) * throb


def trill(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Two tones a fifth apart in fast alternation."""
  upper = _phase(rng.uniform(6, 10), n, rate, rng) % 1 < 0.5
  f = rng.uniform(500, 900)
  pitch = np.where(upper, 1.5, 1.0) * f
  return _tone([1.0, 0.4, 0.2], _phase(pitch, n, rate, rng), 0.45 * rate / (1.5 * f))


def shaker(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Bursts of bright noise, four to six a second."""
  since, _ = _strokes(rng, n, rate, 4.0, 6.0)
  return np.diff(_noise(rng, n + 1)) * np.exp(-since * rng.uniform(18, 30))


def reed(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Odd harmonics only, with tremolo."""
  f = rng.uniform(150, 420)
  tremolo = 1 + 0.6 * np.sin(2 * np.pi * _phase(rng.uniform(5, 8), n, rate, rng))
  odd = [k % 2 / k**0.7 for k in range(1, 12)]
  return tremolo * _tone(odd, _phase(f, n, rate, rng), 0.45 * rate / f)


def drop(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Whistles that fall, two to four times a second, each starting loud."""
  fall = _phase(rng.uniform(2, 4), n, rate, rng) % 1
  f = rng.uniform(250, 500)
  pitch = f * 4 ** (1 - fall)
  return (1 - 0.8 * fall) * _tone([1.0, 0.3], _phase(pitch, n, rate, rng), 0.45 * rate / (4 * f))


def string(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """Plucked notes of changing pitch, three to five a second."""
  since, number = _strokes(rng, n, rate, 3.0, 5.0)
  scale = np.array([1, 9 / 8, 5 / 4, 3 / 2, 5 / 3])
  notes = rng.uniform(160, 320) * scale[rng.integers(0, 5, number[-1] + 1)]
  phase = _phase(notes[number], n, rate, rng)
  tone = _tone([1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1], phase, 0.45 * rate / notes.max())
  return np.exp(-since * 7) * tone


def warble(rng: np.random.Generator, n: int, rate: int) -> Wave:
  """A pure tone that wanders slowly up and down by a third."""
  swing = 1 + 0.3 * np.sin(2 * np.pi * _phase(rng.uniform(1, 2), n, rate, rng))
  return np.sin(2 * np.pi * _phase(rng.uniform(500, 1100) * swing, n, rate, rng))


VOICES: dict[str, Voice] = {
  voice.__name__: voice
  for voice in (organ, hiss, bell, clicks, siren, engine, trill, shaker, reed, drop, string, warble)
}
