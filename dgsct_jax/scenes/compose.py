"""Composes clips of moving objects and intermittent sounds, with exact labels.

Pictures and sounds come from a `Source`: `shapes.py` (drawn and synthesised) or `stamps.py`
(photographs and recordings).
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image

SPLITS = ('train', 'val', 'test')
HIDDEN = 1 / 3  # an object of which a smaller share would be visible is left out of the frame
LOUDNESS = 0.1  # root mean square of a sound at 0 dB


@runtime_checkable
class Source(Protocol):
  """Where pictures and sounds come from."""

  @property
  def classes(self) -> tuple[str, ...]:
    """The names of the classes."""

  def picture(self, label: int, rng: np.random.Generator, split: str) -> UInt8[np.ndarray, 'h w 4']:
    """An object of class `label`; the fourth channel is its opacity."""

  def sound(
    self, label: int, rng: np.random.Generator, split: str, seconds: int, rate: int
  ) -> Float32[np.ndarray, 's']:
    """`seconds` · `rate` samples of class `label` at any level, without pauses over 0.3 s."""

  def background(
    self, rng: np.random.Generator, split: str, size: int
  ) -> UInt8[np.ndarray, 'h w 3']:
    """A square picture with sides of `size` pixels."""


@dataclasses.dataclass(frozen=True)
class Knobs:
  """Parameters of clips. Pairs are ranges, both ends included; shares and rates are in [0, 1]."""

  segments: int = 10  # seconds
  frames_per_second: int = 1
  size: int = 64  # pixels of a side
  sample_rate: int = 16000
  events: tuple[int, int] = (1, 1)  # objects that are seen and heard
  distractors: tuple[int, int] = (0, 3)  # objects that are seen and never heard
  offscreen: float = 0.5  # share of clips with the sound of a class that is never seen
  repeats: float = 0.0  # share of objects after the first that are of an earlier object's class
  heard: float = 0.6  # share of seconds in which an event or the off-screen class sounds
  seen: float = 0.75  # share of seconds in which an object is in the picture
  heard_switching: float = 0.4  # rate per second at which `heard` is drawn anew
  seen_switching: float = 0.25
  scale: tuple[float, float] = (0.25, 0.45)  # longer side of an object over the picture's side
  motion: float = 0.4  # longest path of an object within a clip, over the picture's side
  level: tuple[float, float] = (-8.0, 0.0)  # loudness of a sound, dB
  hiss: float = 0.01  # root mean square of noise in the waveform, full scale 1
  grain: float = 4.0  # standard deviation of noise in the frames, full scale 255

  @property
  def objects(self) -> int:
    """The most objects that a clip can hold."""
    return self.events[1] + self.distractors[1]


class Composed(NamedTuple):
  """One composed clip: n frames, t seconds, k objects, r = k + 1 sources with one off screen."""

  frames: UInt8[np.ndarray, 'n h w 3']
  masks: UInt8[np.ndarray, 'n h w']  # i + 1 where object i is visible, else 0
  boxes: Float32[np.ndarray, 'n k 4']  # left top right bottom of its visible part, pixels; or zeros
  wave: Float32[np.ndarray, 's']
  sources: Int32[np.ndarray, 'r']  # class of each object and of the sound off screen; -1: none
  visible: Bool[np.ndarray, 't k']  # the object is visible in some frame of the second
  sounding: Bool[np.ndarray, 't r']
  level: Float32[np.ndarray, 'r']  # dB, of sources that sound
  seen: Bool[np.ndarray, 't c']
  heard: Bool[np.ndarray, 't c']
  label: Int32[np.ndarray, 't']  # object 0's class in seconds in which it is seen and heard, else c


def compose(source: Source, knobs: Knobs, seed: int, split: str, index: int) -> Composed:
  """Clip `index` of a split, always the same; each event is seen and heard in some second.

  Raises:
    ValueError: knobs are out of range, need more classes than there are, or permit no event.
  """
  _check(source, knobs, split)
  rng = np.random.default_rng((seed, SPLITS.index(split), index))
  for _ in range(100):
    sources, events, objects = _cast(rng, knobs, len(source.classes))
    visible, sounding = _timelines(rng, knobs, sources, events)
    if not _eventful(visible, sounding, events, objects):
      continue
    frames, masks, boxes = _film(source, rng, split, knobs, sources, visible)
    shown = np.asarray(boxes.any(-1))
    visible = np.asarray(shown.reshape(knobs.segments, -1, knobs.objects).any(1))
    if not _eventful(visible, sounding, events, objects):
      continue  # an object was hidden behind another one in the seconds of its event
    wave, level = _mix(source, rng, split, knobs, sources, sounding)
    seen, heard = (_by_class(on, sources, len(source.classes)) for on in (visible, sounding))
    event = sources[0]
    label = np.where(seen[:, event] & heard[:, event], event, len(source.classes))
    return Composed(
      frames,
      masks,
      boxes,
      wave,
      sources,
      visible,
      sounding,
      level,
      seen,
      heard,
      label.astype(np.int32),
    )
  raise ValueError(
    f'no event in 100 throws of clip {index} with {knobs}; '
    'raise heard, seen or segments, or lower scale.'
  )


def _check(source: Source, knobs: Knobs, split: str) -> None:
  if split not in SPLITS:
    raise ValueError(f'there is no split {split!r}; choose from {SPLITS}.')
  if len(source.classes) <= knobs.objects:
    raise ValueError(
      f'{knobs.objects} objects and a sound off screen need {knobs.objects + 1} '
      f'classes, the source has {len(source.classes)}; lower events or distractors.'
    )
  for name, least in (('events', 1), ('distractors', 0), ('scale', 1 / knobs.size)):
    low, high = getattr(knobs, name)
    if not least <= low <= high:
      raise ValueError(f'{name}={low, high} is not a range from at least {least}.')
  for name in ('heard', 'seen'):
    if not 0 < getattr(knobs, name) <= 1:
      raise ValueError(f'{name}={getattr(knobs, name)} is no share of seconds; give one in (0, 1].')


def _eventful(visible: np.ndarray, sounding: np.ndarray, events: int, objects: int) -> bool:
  both = visible & sounding[:, :-1]
  return bool(both[:, :events].any(0).all() and visible[:, :objects].any(0).all())


def _cast(
  rng: np.random.Generator, knobs: Knobs, classes: int
) -> tuple[Int32[np.ndarray, 'r'], int, int]:
  """Classes of all sources, the number of events and of all objects. Events come first."""
  events = int(rng.integers(knobs.events[0], knobs.events[1] + 1))
  objects = events + int(rng.integers(knobs.distractors[0], knobs.distractors[1] + 1))
  order = rng.permutation(classes)
  sources = np.full(knobs.objects + 1, -1, np.int32)
  for i in range(objects):
    sources[i] = sources[rng.integers(i)] if i and rng.random() < knobs.repeats else order[i]
  if rng.random() < knobs.offscreen:
    sources[-1] = order[objects]
  return sources, events, objects


def _timelines(
  rng: np.random.Generator, knobs: Knobs, sources: np.ndarray, events: int
) -> tuple[Bool[np.ndarray, 't k'], Bool[np.ndarray, 't r']]:
  """The seconds in which each object is in the picture, and in which each source sounds."""

  def throw(share: float, switching: float) -> np.ndarray:
    while True:
      again = rng.random(knobs.segments) < switching
      states = rng.random(knobs.segments) < share
      states = states[np.maximum.accumulate(np.where(again, np.arange(knobs.segments), 0))]
      if states.any():
        return states

  visible = np.zeros((knobs.segments, knobs.objects), bool)
  sounding = np.zeros((knobs.segments, knobs.objects + 1), bool)
  for i in np.flatnonzero(sources >= 0):
    if i < knobs.objects:
      visible[:, i] = throw(knobs.seen, knobs.seen_switching)
    if i < events or i == knobs.objects:
      sounding[:, i] = throw(knobs.heard, knobs.heard_switching)
  return visible, sounding


def _paths(rng: np.random.Generator, knobs: Knobs, objects: int) -> tuple[np.ndarray, np.ndarray]:
  """Centres [n, k, 2] and longer sides [n, k] of the objects, over the picture's side.

  Each moves and grows linearly. Of 24 random draws the one with the largest distance between
  objects is taken.
  """
  throws, n = 24, knobs.segments * knobs.frames_per_second
  side = rng.uniform(*knobs.scale, (throws, 2, objects))
  margin = 0.45 * side[..., None]
  place = margin + rng.random((throws, 2, objects, 2)) * (1 - 2 * margin).clip(0)
  way = place[:, 1] - place[:, 0]
  length = np.linalg.norm(way, axis=-1, keepdims=True)
  place[:, 1] = place[:, 0] + way * np.minimum(1, knobs.motion / np.maximum(length, 1e-9))
  time = (np.arange(n) + 0.5) / n
  side, place = (
    np.einsum('te..., ef -> tf...', ends, np.stack([1 - time, time])) for ends in (side, place)
  )
  if objects == 1:
    return place[0], side[0]
  i, j = np.triu_indices(objects, 1)
  apart = np.linalg.norm(place[:, :, i] - place[:, :, j], axis=-1)
  best = (apart - 0.5 * (side[:, :, i] + side[:, :, j])).min((1, 2)).argmax()
  return place[best], side[best]


def _film(
  source: Source,
  rng: np.random.Generator,
  split: str,
  knobs: Knobs,
  sources: np.ndarray,
  visible: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Frames, masks and boxes as in `Composed`."""
  size, n = knobs.size, knobs.segments * knobs.frames_per_second
  cast = np.flatnonzero(sources[:-1] >= 0).tolist()
  sprites = [Image.fromarray(source.picture(int(sources[i]), rng, split)) for i in cast]
  centres, sides = _paths(rng, knobs, len(cast))
  order = rng.permutation(len(cast))
  background = source.background(rng, split, size).astype(np.float32)
  frames = rng.standard_normal((n, size, size, 3), np.float32) * np.float32(knobs.grain)
  masks = np.zeros((n, size, size), np.uint8)
  boxes = np.zeros((n, knobs.objects, 4), np.float32)
  for f in range(n):
    placed = {
      cast[j]: _layer(sprites[j], centres[f, j] * size, sides[f, j] * size, size)
      for j in order
      if visible[f // knobs.frames_per_second, cast[j]]
    }
    layers = _stack(placed, masks[f])
    picture = background.copy()
    for i, layer in layers.items():
      alpha = layer.pixels[..., 3:].astype(np.float32) / 255
      picture[layer.window] += alpha * (layer.pixels[..., :3] - picture[layer.window])
      y, x = np.nonzero(masks[f] == i + 1)
      boxes[f, i] = x.min(), y.min(), x.max() + 1, y.max() + 1
    frames[f] += picture
  return frames.round().clip(0, 255).astype(np.uint8), masks, boxes


class _Layer(NamedTuple):
  """An object in one frame."""

  window: tuple[slice, slice]  # of the frame
  pixels: UInt8[np.ndarray, 'y x 4']  # in the window
  area: int  # opaque pixels, also of those outside the frame


def _layer(sprite: Image.Image, centre: np.ndarray, side: float, size: int) -> _Layer:
  shape = [max(2, round(side * s / max(sprite.size))) for s in sprite.size]
  pixels = np.asarray(sprite.resize(shape, Image.Resampling.BILINEAR, reducing_gap=2.0))
  left, top = (round(float(c) - s / 2) for c, s in zip(centre, shape))
  inside = pixels[max(0, -top) : size - top, max(0, -left) : size - left]
  left, top = max(0, left), max(0, top)
  window = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
  return _Layer(window, inside, int(np.count_nonzero(_opaque(pixels))))


def _opaque(pixels: UInt8[np.ndarray, 'y x 4']) -> Bool[np.ndarray, 'y x']:
  return pixels[..., 3] >= 128


def _stack(layers: dict[int, _Layer], mask: UInt8[np.ndarray, 'h w']) -> dict[int, _Layer]:
  """The layers of which enough is visible, back to front; writes their object mask to `mask`."""
  while layers:
    mask[:] = 0
    for i, layer in layers.items():
      mask[layer.window][_opaque(layer.pixels)] = i + 1
    share = {i: np.count_nonzero(mask == i + 1) / max(1, layer.area) for i, layer in layers.items()}
    worst = min(share, key=share.__getitem__)
    if share[worst] >= HIDDEN:
      return layers
    layers = {i: layer for i, layer in layers.items() if i != worst}
  mask[:] = 0
  return layers


def _mix(
  source: Source,
  rng: np.random.Generator,
  split: str,
  knobs: Knobs,
  sources: np.ndarray,
  sounding: np.ndarray,
) -> tuple[Float32[np.ndarray, 's'], Float32[np.ndarray, 'r']]:
  """The waveform, peak below 1, and the level of each source in dB."""
  rate = knobs.sample_rate
  level = rng.uniform(*knobs.level, len(sources)).astype(np.float32)
  wave = rng.standard_normal((knobs.segments, rate), np.float32) * np.float32(knobs.hiss)
  ramp = np.linspace(0, 1, rate // 200, dtype=np.float32)  # 5 ms, so that switching does not click
  for i in np.flatnonzero(sounding.any(0)):
    on = sounding[:, i]
    sound = source.sound(int(sources[i]), rng, split, int(on.sum()), rate).reshape(-1, rate)
    power = np.sqrt(np.mean(sound**2))
    sound = sound * np.float32(LOUDNESS * 10 ** (level[i] / 20) / max(power, 1e-9))
    seconds = np.flatnonzero(on)
    sound[np.diff(seconds, prepend=-2) > 1, : ramp.size] *= ramp
    sound[np.diff(seconds, append=knobs.segments + 1) > 1, -ramp.size :] *= ramp[::-1]
    wave[on] += sound
  return (wave / max(1.0, 1.01 * np.abs(wave).max())).reshape(-1), level


def _by_class(on: np.ndarray, sources: np.ndarray, classes: int) -> Bool[np.ndarray, 't c']:
  """Whether any source of each class is on; `on` has a column for each of the first sources."""
  by_class = np.zeros((len(on), classes), bool)
  for column, label in zip(on.T, sources):
    if label >= 0:
      by_class[:, label] |= column
  return by_class
