"""What the views of several tasks share."""

from typing import Any, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int

from dgsct_jax.data.clips import SILENT, Clip
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tasks.task import View
from dgsct_jax.tracks import Bars, Frames, Heat, Spectrum, Steps, clock


class Judged(NamedTuple):
  """What every segment of some windows is.

  predicted: the class, their number where there is none. likeliest: the class if there is one.
  confidence: the probability that there is an event and that it is the likeliest. event: the
  probability that there is one at all.
  """

  predicted: Int[np.ndarray, 'w t']
  likeliest: Int[np.ndarray, 'w t']
  confidence: Float[np.ndarray, 'w t']
  event: Float[np.ndarray, 'w t']


def events(
  clip: Clip,
  names: tuple[str, ...],
  judged: Judged,
  encoder: DualEncoder,
  visual_map: Float[np.ndarray, 'w t n'],
  audio_map: Float[np.ndarray, 'w t m'],
  seconds: int = 1,
) -> View:
  """The events of a clip, second by second, with the true ones where they are known.

  Args:
    seconds: of a segment; all of them get what the segment has.
  """
  known = clip.known.get('label')
  clip = by_second(clip, seconds)
  every = lambda x: clip.join(np.repeat(np.asarray(x), seconds, 1))
  judged = Judged(*map(every, judged))
  rows = timeline(judged, names, clip.seconds)
  title = ' · '.join([clip.title, *clip.notes])
  bars: tuple[Bars, ...] = ()
  if known is not None:
    label = np.repeat(np.asarray(known), seconds)
    title += f': {np.sum(label == judged.predicted)} of {len(label)} seconds right'
    bars = (Bars('true', label, names),)
    for row, true in zip(rows, label):
      row['true'] = names[true] if true < len(names) else None
  lines = tuple(line(row) for row in rows)
  frames, looks, sound, listens = perception(clip, encoder, every(visual_map), every(audio_map))
  return View(
    name='events',
    title=title,
    record={'classes': list(names), 'timeline': rows},
    lines=lines,
    tracks=(
      frames,
      looks,
      sound,
      listens._replace(weights=over_seconds(listens.weights, seconds)),
      Steps('event', judged.event, 0.5),
      *bars,
      Bars('predicted', judged.predicted, names),
    ),
    overlay=looks,
    captions=lines,
  )


def timeline(
  judged: Judged, names: tuple[str, ...], seconds: tuple[int, ...]
) -> list[dict[str, Any]]:
  """For each second: the event or None, and the likeliest event's probability."""
  return [
    {
      'second': second,
      'event': names[label] if label < len(names) else None,
      'likeliest': names[best],
      'confidence': float(sure),
      'event_probability': float(p),
    }
    for second, label, best, sure, p in zip(seconds, *judged)
  ]


def line(second: dict[str, Any]) -> str:
  """A second as text: '1:07  Bark 0.93', or '1:08  – (Bark 0.21)' for background."""
  name = f'{second["likeliest"]} {second["confidence"]:.2f}'
  return f'{clock(second["second"])}  ' + (name if second['event'] else f'– ({name})')


def by_second(clip: Clip, seconds: int) -> Clip:
  """A clip of segments as one of seconds; that of a file is one already."""
  if 'index' not in clip.known or seconds == 1:
    return clip
  assert clip.frames is not None and clip.wave is not None
  return clip._replace(
    seconds=tuple(range(len(clip.seconds) * seconds)),
    frames=np.repeat(clip.frames, seconds, 0),
    wave=rearrange(clip.wave, 't (k s) -> (t k) s', k=seconds),
  )


def over_seconds(weights: Float[np.ndarray, 't y x'], seconds: int) -> Float[np.ndarray, 't y z']:
  """Each second's part of a map that lies over a segment, of which every second has a copy."""
  fine = np.repeat(weights, seconds, 2)
  parts = rearrange(fine, 't y (k x) -> t k y x', k=seconds)
  every = np.arange(len(weights))
  return parts[every, every % seconds]


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


def present(clip: Clip) -> Bool[np.ndarray, 't 2']:
  """Whether there is something to see and to hear in each second: neither black nor silent."""
  assert clip.frames is not None and clip.wave is not None
  seen = clip.frames.max((1, 2, 3)) > 0
  heard = np.sqrt(np.square(clip.wave).mean(-1)) > SILENT
  return np.stack([seen, heard], 1)
