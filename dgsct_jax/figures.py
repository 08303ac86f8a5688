"""Draws the tracks of a clip as a figure with a common time axis."""

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from matplotlib import cm, colormaps, colors, patches, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dgsct_jax.models import mel
from dgsct_jax.tracks import Bars, Frames, Heat, Mask, Spectrum, Steps, Track

STRIP = 10  # frames side by side; a longer clip continues in the next strip
STRIPS = 12  # at most; for a longer clip only every n-th second gets a frame
SECOND = 1.34  # inches
TALLEST = 4.0  # inches, of a frame
HEAT = colormaps['inferno']
INK, FAINT = '#222222', '#e9e9e9'
SOUNDING = np.array([255, 64, 32], np.float32)  # the colour of masks

# Dollar signs in names and questions enclose no formula. Around a function that draws.
as_written = rc_context({'text.parse_math': False})

Picture = UInt8[np.ndarray, 'h w 3']


class _Row(NamedTuple):
  """One track in every strip: `draw` draws a range of seconds; x is the time, y is in 0..1."""

  name: str
  height: float  # inches
  draw: Callable[[Axes, range], None]
  scale: colors.Normalize | None = None


def draw(tracks: Sequence[Track], title: str = '') -> Figure:
  """The figure of tracks of the same seconds, one above the other."""
  seconds = _seconds(tracks[0])
  every = math.ceil(seconds / (STRIP * STRIPS))  # seconds from one frame to the next
  long = min(seconds, STRIP * every)
  strips = [range(i, min(i + long, seconds)) for i in range(0, seconds, long)]
  rows = [_row(track, strips, every) for track in tracks]
  bars = [track for track in tracks if isinstance(track, Bars)]
  present = {(int(c), t.names[c]) for t in bars for c in t.labels if c < len(t.names)}
  legend = {name: colour(c) for c, name in sorted(present)} if every > 1 else {}
  return _assemble(rows, strips, SECOND * long / every, title, legend)


def _seconds(track: Track) -> int:
  return len(track[1])  # of every kind of track the second field has a value for each second


def _row(track: Track, strips: Sequence[range], every: int) -> _Row:
  match track:
    case Frames(name, frames):
      return _Row(
        name, _height(frames), lambda axes, span: _film(axes, frames.__getitem__, span, every)
      )
    case Heat(name, _, Frames(_, frames)) | Mask(name, _, Frames(_, frames)):
      picture = lambda i: over(track, i, frames.shape[1:3])(frames[i])
      scale = attention_scale(track.weights) if isinstance(track, Heat) else None
      return _Row(
        name, _height(frames), lambda axes, span: _film(axes, picture, span, every), scale
      )
    case Spectrum(name, wave):
      sounds = _spectra(wave, strips)
      return _Row(name, 0.9, lambda axes, span: _image(axes, _shade(sounds[span]), span))
    case Heat(name, weights, Spectrum(_, wave)):
      sounds, scale = _spectra(wave, strips), attention_scale(weights)

      def listen(axes: Axes, span: range) -> None:
        parts = rearrange(_relative(weights[span.start : span.stop]), 't y x -> y (t x)')
        sound = _shade(sounds[span])
        _image(axes, blend(sound, *tint(parts[::-1], scale, sound.shape[:2])), span)

      return _Row(name, 0.9, listen, scale)
    case Steps(name, values, line):
      return _Row(name, 0.4, lambda axes, span: _steps(axes, values, span, line))
    case Bars(name, labels, names):
      inches = SECOND / every
      return _Row(name, 0.27, lambda axes, span: _bars(axes, labels, names, span, inches))
  raise TypeError(f'{track!r} is no track.')


def over(track: Heat | Mask, second: int, shape: tuple[int, int]) -> Callable[[Picture], Picture]:
  """A function that draws one second of a track over a picture of `shape` (height, width).

  The picture becomes grey under attention, which is drawn as light; a mask is coloured and has an
  outline.
  """
  if isinstance(track, Heat):
    weights = _relative(track.weights[second : second + 1])[0]
    light, through = tint(weights, attention_scale(track.weights), shape)
    return lambda picture: blend(picture, light, through)
  probability = np.clip(_enlarge(track.probability[second], shape), 0, 1)
  inside = np.pad(probability > 0.5, 1)
  edge = inside[1:-1, 1:-1] & ~(
    inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
  )
  strength = np.where(edge, 1, 0.5 * np.where(probability > 0.5, probability, 0))[..., None]
  return lambda picture: (picture * (1 - strength) + SOUNDING * strength).astype(np.uint8)


def colour(label: int) -> str:
  """The colour of a class, the same in every figure; consecutive classes differ most in hue."""
  hue = (0.58 + label * 0.618034) % 1
  red, green, blue = colors.hsv_to_rgb((hue, 0.62, 0.72 - 0.16 * (label % 2)))
  return colors.to_hex((red, green, blue))


def attention_scale(weights: Float[np.ndarray, 't y x']) -> colors.Normalize:
  """From the least to the most attention in a clip, relative to the mean of each second.

  The range is at least 0.02, so that rounding errors of uniform attention are not visible.
  """
  weights = _relative(weights)
  low, high = float(np.nanmin(weights)), float(np.nanmax(weights))
  return colors.Normalize(low, max(high, low + 0.02))


def tint(
  weights: Float[np.ndarray, 'y x'], scale: colors.Normalize, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, 'h w 3'], Float[np.ndarray, 'h w 1']]:
  """(light, transparency) of weights, enlarged smoothly to `shape` (height, width).

  Weights that are nan give no light.
  """
  assert scale.vmin is not None  # `attention_scale` sets it
  known = np.isfinite(weights)
  value = np.clip(scale(_enlarge(np.where(known, weights, scale.vmin), shape)), 0, 1)
  strength = (0.75 * value * np.clip(_enlarge(known, shape), 0, 1))[..., None]
  return 255 * strength * HEAT(value)[..., :3], 1 - strength


def blend(
  picture: Picture, light: Float[np.ndarray, 'h w 3'], through: Float[np.ndarray, 'h w 1']
) -> Picture:
  """A picture in grey, under a tint."""
  grey = picture @ np.array([[0.27], [0.53], [0.1]], np.float32)  # nine tenths of the luminance
  return (through * grey + light).astype(np.uint8)


def _enlarge(x: np.ndarray, shape: tuple[int, int]) -> Float32[np.ndarray, 'h w']:
  image = Image.fromarray(np.asarray(x, np.float32))
  return np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC))


def _height(frames: UInt8[np.ndarray, 't h w 3']) -> float:
  return min(TALLEST, SECOND * frames.shape[1] / frames.shape[2])


def _relative(weights: Float[np.ndarray, 't ...']) -> Float32[np.ndarray, 't ...']:
  """Attention relative to the mean of each second."""
  weights = np.asarray(weights, np.float32)
  return weights / np.nanmean(weights, tuple(range(1, weights.ndim)), keepdims=True)


def _shade(sound: Float[np.ndarray, 'f x']) -> UInt8[np.ndarray, 'f x 3']:
  return (255 * colormaps['bone'](sound)[..., :3]).astype(np.uint8)


def _spectra(
  wave: Float[np.ndarray, 't s'], strips: Sequence[range]
) -> dict[range, Float[np.ndarray, 'f x']]:
  """Log-mel spectrograms of strips, high frequencies first: 1 is the loudest, 0 70 dB below it."""
  rate = wave.shape[1]
  n_fft = 2 ** round(math.log2(rate * 0.032))
  filters = mel.mel_filters(rate, n_fft, 64, min(50.0, rate / 8), min(14000.0, rate / 2))
  real, imag = mel.stft_kernels(n_fft)
  spectra = []
  for span in strips:
    samples = np.asarray(wave[span.start : span.stop], np.float32).reshape(-1)
    hop = max(n_fft // 4, samples.size // 1400)  # more columns would not be visible
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)[::hop]
    power = np.square(windows @ real) + np.square(windows @ imag)
    spectra.append(10 * np.log10(np.maximum(power @ filters, 1e-10)).T[::-1])
  loudest = max(-20.0, *(spectrum.max() for spectrum in spectra))  # so that silence stays dark
  shown = [np.clip(1 + (spectrum - loudest) / 70, 0, 1) for spectrum in spectra]
  return dict(zip(strips, shown))


@as_written
def _assemble(
  rows: Sequence[_Row], strips: Sequence[range], width: float, title: str, legend: Mapping[str, str]
) -> Figure:
  """All rows in every strip; scales beside the first strip, the legend below the last."""
  lines = textwrap.wrap(title, int(11 * max(width, 4)))  # letters to an inch
  left, right, top, gap, ticks = 0.95, 0.75, 0.25 + 0.2 * max(len(lines), 1), 0.06, 0.36  # inches
  strip = sum(row.height + gap for row in rows) + ticks
  columns = max(1, int(width / 2.2))
  below = 0.24 * math.ceil(len(legend) / columns) + 0.06
  size = left + max(width, 4) + right, top + len(strips) * strip + below
  figure = Figure(size, dpi=100, facecolor='white')
  place = lambda x, y, w, h: figure.add_axes((x / size[0], y / size[1], w / size[0], h / size[1]))
  write = lambda x, y, text, **style: figure.text(
    x / size[0], y / size[1], text, color=INK, va='center', **style
  )

  write(left, size[1] - top / 2 - 0.02, '\n'.join(lines), fontsize=11, weight='bold')
  for k, span in enumerate(strips):
    y = size[1] - top - k * strip
    for row in rows:
      y -= row.height
      axes = place(left, y, width * len(span) / len(strips[0]), row.height)
      axes.set(xlim=(span.start, span.stop), ylim=(0, 1), xticks=[], yticks=[])
      axes.spines[:].set_visible(False)
      axes.set_ylabel(row.name, rotation=0, ha='right', va='center', fontsize=9, color=INK)
      row.draw(axes, span)
      if row.scale and not k:
        _scale(place(left + width + 0.1, y + 0.05, 0.09, row.height - 0.1), row.scale)
      y -= gap
    axes.set_xticks(range(span.start, span.stop + 1, math.ceil(len(strips[0]) / STRIP)))
    axes.tick_params(length=2, labelsize=8, colors=INK)
  write(left + width * len(span) / len(strips[0]) + 0.12, y - 0.11, 'seconds', fontsize=8)
  if legend:
    handles = [patches.Patch(color=shade, label=name) for name, shade in legend.items()]
    figure.legend(
      handles=handles,
      ncols=columns,
      loc='lower left',
      bbox_to_anchor=(left / size[0], 0),
      fontsize=8,
      frameon=False,
      borderaxespad=0.2,
      handlelength=1,
      labelcolor=INK,
    )
  return figure


def _film(axes: Axes, picture: Callable[[int], Picture], span: range, every: int) -> None:
  for i in span[::every]:
    axes.imshow(picture(i), extent=(i + 0.015 * every, i + 0.985 * every, 0, 1), aspect='auto')


def _image(axes: Axes, image: np.ndarray, span: range) -> None:
  axes.imshow(image, extent=(span.start, span.stop, 0, 1), aspect='auto', interpolation='bilinear')


def _steps(axes: Axes, event: np.ndarray, span: range, line: float) -> None:
  axes.axhspan(0, 1, color=FAINT, lw=0)
  axes.stairs(
    event[span.start : span.stop],
    range(span.start, span.stop + 1),
    fill=True,
    color='#6b92b8',
    lw=0,
  )
  axes.axhline(line, color=INK, lw=0.6, ls=(0, (4, 3)))


def _bars(axes: Axes, line: np.ndarray, names: Sequence[str], span: range, inches: float) -> None:
  """Consecutive seconds of one class are one bar, with the class's name if there is room."""
  start = span.start
  for label, group in itertools.groupby(int(line[i]) for i in span):
    length = len(list(group))
    none = label >= len(names)
    axes.add_patch(
      patches.Rectangle(
        (start + 0.01, 0.04), length - 0.02, 0.92, lw=0, color=FAINT if none else colour(label)
      )
    )
    name = '–' if none else names[label]
    room = int(length * inches / 0.068)  # letters
    if len(name) > room:
      name = f'{name[: room - 1].rstrip(" ,")}…' if room > 3 else ''
    axes.text(
      start + length / 2,
      0.47,
      name,
      ha='center',
      va='center',
      fontsize=8,
      color='#888888' if none else 'white',
    )
    start += length


def _scale(axes: Axes, scale: colors.Normalize) -> None:
  """The colour bar of a row: attention relative to its mean."""
  axes.figure.colorbar(cm.ScalarMappable(scale, HEAT), cax=axes, ticks=[scale.vmin, scale.vmax])
  axes.set_yticklabels([f'{scale.vmin:.2f}×', f'{scale.vmax:.2f}×'])
  axes.tick_params(length=0, labelsize=7, colors=INK, pad=2)
