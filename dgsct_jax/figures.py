"""A clip as a figure: frames, sound, attention over both, and what was predicted when."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Int, UInt8
from matplotlib import cm, colormaps, colors, patches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dgsct_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dgsct_jax.models import mel

STRIP = 10  # frames side by side; a longer clip goes on in the next strip
STRIPS = 12  # where a clip is too long for so many, not every second has its frame
SECOND = 1.34  # inches
HEAT = colormaps['inferno']
INK, FAINT = '#222222', '#e9e9e9'


@dataclasses.dataclass(frozen=True)
class _Row:
  """One kind of picture in every strip: `draw` draws some seconds; x is time, y is 0..1."""

  name: str
  height: float  # inches
  draw: Callable[[Axes, range], None]
  scale: colors.Normalize | None = None


def clip(
  frames: UInt8[np.ndarray, 't h w 3'],
  wave: Float[np.ndarray, 't s'],
  timelines: Mapping[str, Int[np.ndarray, 't']],
  names: Sequence[str],
  *,
  visual_map: Float[np.ndarray, 't n'] | None = None,
  audio_map: Float[np.ndarray, 't f u'] | None = None,
  event: Float[np.ndarray, 't'] | None = None,
  shares: Mapping[str, Float[np.ndarray, 't']] | None = None,
  title: str = '',
) -> Figure:
  """Frames, sound, attention and timelines of t seconds, above each other on one axis of time.

  Args:
    wave: s samples per second.
    timelines: title -> class of every second; `len(names)` is none of them.
    visual_map: weights over a square grid of tokens, drawn over the frames.
    audio_map: weights over f bands, from low to high, and u parts of each second (see `unfold`),
      drawn over the spectrogram.
    event: probability that something is seen and heard at all.
    shares: title -> how much of the whole each second has.
  """
  every = math.ceil(len(frames) / (STRIP * STRIPS))  # seconds from one frame to the next
  long = min(len(frames), STRIP * every)
  strips = [range(i, min(i + long, len(frames))) for i in range(0, len(frames), long)]
  sounds = dict(zip(strips, _spectra(wave, strips)))
  height = SECOND * frames.shape[1] / frames.shape[2]

  def look(axes: Axes, span: range) -> None:
    drawn = span[::every]
    _film(axes, {i: over_frame(frames[i], visual_map[i], looks) for i in drawn}, drawn, every)

  def listen(axes: Axes, span: range) -> None:
    weights = rearrange(_relative(audio_map[span.start : span.stop]), 't f u -> f (t u)')
    sound = _shade(sounds[span])
    _image(axes, blend(sound, *tint(weights[::-1], hears, sound.shape[:2])), span)

  rows = [_Row('frames', height, lambda axes, span: _film(axes, frames, span[::every], every))]
  if visual_map is not None:
    looks = attention_scale(visual_map)
    rows.append(_Row('looks at', height, look, looks))
  rows.append(_Row('sound', 0.9, lambda axes, span: _image(axes, _shade(sounds[span]), span)))
  if audio_map is not None:
    hears = attention_scale(audio_map)
    rows.append(_Row('listens to', 0.9, listen, hears))
  if event is not None:
    rows.append(_Row('event', 0.4, lambda axes, span: _steps(axes, event, span, 0.5)))
  for name, share in (shares or {}).items():
    rows.append(
      _Row(
        name,
        0.4,
        lambda axes, span, share=share: _steps(
          axes, share / share.max(), span, float(1 / (len(share) * share.max()))
        ),
      )
    )
  for name, line in timelines.items():
    rows.append(
      _Row(name, 0.27, lambda axes, span, line=line: _bars(axes, line, names, span, SECOND / every))
    )
  present = sorted({int(c) for line in timelines.values() for c in line if c < len(names)})
  legend = {names[c]: colour(c) for c in present} if every > 1 else {}
  return _assemble(rows, strips, SECOND * long / every, title, legend)


def event_clips(
  outputs: Mapping[str, Any],
  batch: Mapping[str, Any],
  folder: Path,
  *,
  predicted: Int[np.ndarray, 'b t'],
  names: Sequence[str],
  audio: Any,
) -> None:
  """Draws the clips of an AVE batch as folder/clip_I.png.

  Args:
    audio: the audio backbone; see `unfold`.
  """
  event = 1 / (1 + np.exp(-np.asarray(outputs['event_logits'], np.float64)))
  for i in np.flatnonzero(batch['mask']):
    wave, label = np.asarray(batch['wave'][i]), np.asarray(batch['label'][i])
    right = np.sum(label == predicted[i])
    figure = clip(
      pixels(np.asarray(batch['video'][i])),
      wave,
      {'true': label, 'predicted': predicted[i]},
      names,
      visual_map=np.asarray(outputs['visual_map'][i]),
      event=event[i],
      audio_map=unfold(np.asarray(outputs['audio_map'][i]), wave.shape[1], audio),
      title=f'clip {i}: {right} of {len(label)} seconds right',
    )
    figure.savefig(folder / f'clip_{i}.png')


def pixels(video: Float[np.ndarray, '*t h w 3']) -> UInt8[np.ndarray, '*t h w 3']:
  """Frames as a model gets them, as pictures again."""
  return np.rint(255 * np.clip(video * IMAGENET_STD + IMAGENET_MEAN, 0, 1)).astype(np.uint8)


def colour(label: int) -> str:
  """The colour of a class, the same in every figure; neighbours in number differ most in hue."""
  hue = (0.58 + label * 0.618034) % 1
  return colors.to_hex(colors.hsv_to_rgb((hue, 0.62, 0.72 - 0.16 * (label % 2))))


def attention_scale(weights: Float[np.ndarray, 't ...']) -> colors.Normalize:
  """From the least to the most attention in a clip, over its mean within each second.

  Wide enough that equal attention leaves frames grey: mere rounding does not show.
  """
  weights = _relative(weights)
  low, high = float(np.nanmin(weights)), float(np.nanmax(weights))
  return colors.Normalize(low, max(high, low + 0.02))


def over_frame(
  frame: UInt8[np.ndarray, 'h w 3'], weights: Float[np.ndarray, 'n'], scale: colors.Normalize
) -> UInt8[np.ndarray, 'h w 3']:
  """A frame under the attention of its tokens: grey where there is little, glowing where much."""
  return blend(frame, *tint(square(weights), scale, frame.shape[:2]))


def square(weights: Float[np.ndarray, 'n']) -> Float32[np.ndarray, 'g g']:
  """The attention of a grid of tokens over its mean."""
  side = math.isqrt(weights.size)
  if side**2 != weights.size:
    raise ValueError(
      f'{weights.size} weights are no square grid of tokens; they cannot be drawn over a frame.'
    )
  return _relative(weights[None])[0].reshape(side, side)


def tint(
  weights: Float[np.ndarray, 'y x'], scale: colors.Normalize, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, 'h w 3'], Float[np.ndarray, 'h w 1']]:
  """(light, share of the picture that shines through) of weights that are enlarged smoothly.

  Where they are nan there is no light.
  """

  def enlarge(x: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.asarray(x, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC))

  known = np.isfinite(weights)
  value = np.clip(scale(enlarge(np.where(known, weights, scale.vmin))), 0, 1)
  strength = (0.75 * value * np.clip(enlarge(known), 0, 1))[..., None]
  return 255 * strength * HEAT(value)[..., :3], 1 - strength


def blend(
  frame: UInt8[np.ndarray, 'h w 3'],
  light: Float[np.ndarray, 'h w 3'],
  through: Float[np.ndarray, 'h w 1'],
) -> UInt8[np.ndarray, 'h w 3']:
  """A frame, without its colours, under a tint."""
  grey = frame @ np.float32([[0.27], [0.53], [0.1]])  # of the luminance, nine tenths
  return (through * grey + light).astype(np.uint8)


def unfold(
  audio_map: Float[np.ndarray, 't m'], samples: int, audio: Any
) -> Float[np.ndarray, 't f u']:
  """Attention over the tokens of a folded spectrogram -> over mel bands and parts of the second.

  The model hears a second `audio.tile` times in a row: what its tokens say of the same moment is
  averaged. Moments that it does not hear, since the image holds less than that, are nan.

  Args:
    samples: of a second.
    audio: the audio backbone; its `size`, `mel_bins`, `hop` and `tile` are those of `LogMel`.
  """
  side, chunks = math.isqrt(audio_map.shape[1]), audio.size // audio.mel_bins
  tokens = rearrange(audio_map, 't (q f u) -> t f (q u)', q=chunks, u=side)
  frames = samples * audio.tile // audio.hop + 1
  held = min(frames, audio.size**2 // audio.mel_bins)
  skipped = (frames - held) // 2  # as `LogMel.crop` does in evaluation
  parts = tokens.shape[-1]
  part = (np.arange(parts) + 0.5) / parts
  moment = (np.arange(audio.tile)[:, None] + part) * samples / audio.hop  # in frames
  index = np.floor((moment - skipped) / held * parts).astype(int)
  heard = (index >= 0) & (index < parts)
  found = np.where(heard, tokens[:, :, index.clip(0, parts - 1)], 0).sum(2)
  return np.where(heard.any(0), found / np.maximum(heard.sum(0), 1), np.nan)


def _relative(weights: Float[np.ndarray, 't ...']) -> Float32[np.ndarray, 't ...']:
  """Attention over its mean within each second."""
  weights = np.asarray(weights, np.float32)
  return weights / np.nanmean(weights, tuple(range(1, weights.ndim)), keepdims=True)


def _shade(sound: Float[np.ndarray, 'f x']) -> UInt8[np.ndarray, 'f x 3']:
  return (255 * colormaps['bone'](sound)[..., :3]).astype(np.uint8)


def _spectra(
  wave: Float[np.ndarray, 't s'], strips: Sequence[range]
) -> list[Float[np.ndarray, 'f x']]:
  """Log-mel spectrograms of strips, high bands first: 1 is the loudest, 0 is 70 dB below it."""
  rate = wave.shape[1]
  n_fft = 2 ** round(math.log2(rate * 0.032))
  filters = mel.mel_filters(rate, n_fft, 64, 50.0, min(14000.0, rate / 2))
  real, imag = mel.stft_kernels(n_fft)
  spectra = []
  for span in strips:
    samples = np.asarray(wave[span.start : span.stop], np.float32).reshape(-1)
    hop = max(n_fft // 4, samples.size // 1400)  # more would not be seen
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)[::hop]
    power = np.square(windows @ real) + np.square(windows @ imag)
    spectra.append(10 * np.log10(np.maximum(power @ filters, 1e-10)).T[::-1])
  loudest = max(-20.0, *(spectrum.max() for spectrum in spectra))  # silence stays dark
  return [np.clip(1 + (spectrum - loudest) / 70, 0, 1) for spectrum in spectra]


def _assemble(
  rows: Sequence[_Row], strips: Sequence[range], width: float, title: str, legend: Mapping[str, str]
) -> Figure:
  """All rows of every strip; scales beside the first strip, the legend below the last."""
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


def _film(
  axes: Axes, frames: Mapping[int, np.ndarray] | np.ndarray, drawn: range, every: int
) -> None:
  for i in drawn:
    axes.imshow(frames[i], extent=(i + 0.015 * every, i + 0.985 * every, 0, 1), aspect='auto')


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
  """Seconds of one class in a row are one bar, with the class's name where there is room."""
  start = span.start
  for label, run in itertools.groupby(int(line[i]) for i in span):
    length = len(list(run))
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
  """What the colours of a row mean: attention over its mean."""
  axes.figure.colorbar(cm.ScalarMappable(scale, HEAT), cax=axes, ticks=[scale.vmin, scale.vmax])
  axes.set_yticklabels([f'{scale.vmin:.2f}×', f'{scale.vmax:.2f}×'])
  axes.tick_params(length=0, labelsize=7, colors=INK, pad=2)
