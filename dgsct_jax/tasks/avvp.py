"""Audio-visual video parsing (LLP): what is heard and seen when, learned from the clip's label."""

import functools
from typing import Any, Literal

import grain
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.motion import WIDTH, Motion
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.pseudo_labels import STREAMS, PseudoLabels
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import avvp as head
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual, class_names
from dgsct_jax.tasks.task import (
  Batch,
  Means,
  Outputs,
  Scalars,
  Task,
  View,
  Weighted,
  floats,
  mean_over_clips,
)
from dgsct_jax.tracks import Bars

EMPTY = '_skip_empty'  # ends the names of scores in which clips without any event do not count
CALLED = {'audio': 'heard', 'visual': 'seen', 'both': 'both'}
Level = Literal['segment', 'event']
LEVELS: tuple[Level, ...] = ('segment', 'event')
Seconds = Bool[np.ndarray, 'b t c']
Counts = tuple[Int[np.ndarray, 'b c'], Int[np.ndarray, 'b c'], Int[np.ndarray, 'b c']]


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.head`: the fields of `heads.avvp.Parser`; `config.loss`: those of `loss`."""
  names, fields = class_names(config), dict(config.model.head)
  for name, known in (
    ('motion', ('r2plus1d_18', 'none')),
    ('seconds', ('released', 'own')),
    ('assign', ('soft', 'hard')),
    ('joint_assign', ('soft', 'hard')),
    ('other_assign', ('soft', 'hard', 'none')),
  ):
    if fields[name] not in known:
      raise ValueError(f'config.model.head.{name} is {fields[name]!r}; choose one of {known}.')
  if config.data.pseudo and fields['seconds'] != 'own':
    raise ValueError(
      f'config.data.pseudo is {config.data.pseudo!r}, and config.model.head.seconds is'
      f" {fields['seconds']!r}: only seconds with logits of their own learn from it; set 'own'."
    )
  encoder = models.build(config.model)
  t, c = config.data.segments, len(names)
  more = {'motion': floats(t, WIDTH)} if fields['motion'] != 'none' else {}
  if config.data.pseudo:
    more |= {f'pseudo_{stream}': floats(t, c) for stream in STREAMS}
  inputs = audio_visual(config, encoder, label=floats(c), **more)
  return Task(
    model=head.AVVP(encoder, head.Parser(**fields)),
    loss=functools.partial(loss, **config.loss),
    metrics=metrics,
    data=functools.partial(data, config, inputs.decode),
    primary='segment_type',
    inputs=inputs,
    show=functools.partial(show, names=names, encoder=encoder),
    summarize=summarize,
  )


def data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Clips of `config.data` with their labels: in training that of the clip alone.

  `pseudo`: folder of pseudo labels for training, see `PseudoLabels`; '' for none. `blank`: fields
  that are replaced by zeros, to see what the other stream alone is worth.
  """
  fields, motion = config.data, config.model.head.motion != 'none'
  kind = datasets.of(fields)
  if kind.parsing is None:
    raise ValueError(
      f'config.data.kind is {fields.kind!r}, whose clips have no labels of what is heard and seen;'
      " choose 'llp' or 'scenes'."
    )
  steps = [*decode, *kind.parsing]
  steps += [Motion(fields.segments)] if motion else []
  inputs = ('video', 'wave') + ('motion',) * motion
  labels: tuple[str, ...] = ('label',) if split == 'train' else ('label', *STREAMS)
  if fields.pseudo and split == 'train':
    steps += [PseudoLabels(fields.pseudo, (fields.segments, config.model.head.classes))]
    labels += tuple(f'pseudo_{stream}' for stream in STREAMS)
  blank = tuple(fields.blank) + ('motion',) * (motion and 'video' in fields.blank)
  steps += [transforms.Blank(blank), transforms.Keep(inputs + labels)]
  return Dataset(kind.load(fields, split), tuple(steps))


# Learning.


def loss(
  outputs: Outputs,
  batch: Batch,
  audio_smoothing: float = 0.0,
  visual_smoothing: float = 0.1,
  pseudo_weight: float = 1.0,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Class of the clip by both streams and by each, and of the class tokens; all with weight 1.

  `label` [b c] says what is heard or seen at all. Where a batch has pseudo labels `pseudo_audio`
  or `pseudo_visual` [b t c], from 0 to 1, the seconds of that stream are compared with them,
  `pseudo_weight` times, and the clip of that stream with what occurs in any of its seconds.

  *_smoothing: how far the clip's label of a stream is moved towards 1/2. As released, only what is
    seen is smoothed.
  """
  label = batch['label']
  parts = {'joint': optax.sigmoid_binary_cross_entropy(outputs['logits'], label).mean(1)}
  for stream, smoothing in zip(STREAMS, (audio_smoothing, visual_smoothing)):
    pseudo = batch.get(f'pseudo_{stream}')
    target = label if pseudo is None else pseudo.max(1)
    target = (1 - smoothing) * target + smoothing / 2
    clip = optax.sigmoid_binary_cross_entropy(outputs[f'{stream}_logits'], target)
    parts[stream] = clip.mean(1)
    parts[f'{stream}_tokens'] = token_loss(outputs[f'{stream}_token_logits'])
    if f'{stream}_pooled' in outputs:
      parts[f'{stream}_pooled'] = binary(outputs[f'{stream}_pooled'], target).mean(1)
    if pseudo is not None:
      own = outputs[f'{stream}_second_logits']
      parts[f'{stream}_pseudo'] = pseudo_weight * pseudo_loss(own, pseudo)
  return mean_over_clips(parts, batch['valid'])


def token_loss(logits: Float[Array, 'b c c']) -> Float[Array, 'b']:
  """Cross entropy of which class each class token stands for."""
  stands_for = jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape[:-1])
  return optax.softmax_cross_entropy_with_integer_labels(logits, stands_for).mean(1)


def pseudo_loss(logits: Float[Array, 'b t c'], pseudo: Float[Array, 'b t c']) -> Float[Array, 'b']:
  """Binary cross entropy of every second and class (VALOR, Lai et al. 2023)."""
  return optax.sigmoid_binary_cross_entropy(logits, pseudo).mean((1, 2))


def binary(probability: Float[Array, 'b c'], target: Float[Array, 'b c']) -> Float[Array, 'b c']:
  """Binary cross entropy of probabilities."""
  p = jnp.clip(probability, 1e-6, 1 - 1e-6)
  return -target * jnp.log(p) - (1 - target) * jnp.log1p(-p)


# Scores.


def predict(outputs: Outputs) -> dict[str, Seconds]:
  """What is heard and seen in each second: where the probabilities of clip and second reach 1/2."""
  clip = np.asarray(outputs['logits'])[:, None] >= 0
  return {
    stream: clip & (np.asarray(outputs[f'{stream}_probability']) >= 0.5) for stream in STREAMS
  }


def metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """F scores in percent of what is heard, seen, both at once, and either, by seconds and by events.

  `<level>_<name>` counts a clip without true or predicted events as right, as released;
  `<level>_<name>_skip_empty` does not count it.
  """
  true = {stream: np.asarray(batch[stream]) > 0 for stream in STREAMS}
  found = {}
  for level in LEVELS:
    for name, (score, counted) in f_scores(predict(outputs), true, level).items():
      found[f'{level}_{name}'] = 100 * score, np.ones(len(score))
      found[f'{level}_{name}{EMPTY}'] = 100 * score, counted.astype(float)
  return found


def summarize(means: Means) -> Scalars:
  """With Type@AV, the mean of what is heard, seen and both; `event` is Event@AV."""
  types = {
    f'{level}_type{rule}': float(
      np.mean([means[f'{level}_{name}{rule}'] for name in (*STREAMS, 'audio_visual')])
    )
    for level in LEVELS
    for rule in ('', EMPTY)
  }
  return {name: float(value) for name, value in means.items()} | types


def f_scores(
  predicted: dict[str, Seconds], true: dict[str, Seconds], level: Level
) -> dict[str, tuple[Float[np.ndarray, 'b'], Bool[np.ndarray, 'b']]]:
  """Mean F of the classes of each clip, and whether there is any class, else F is 1.

  A class counts that occurs in the truth or in the prediction. 'event' adds the hits and misses of
  both streams; 'audio_visual' is of seconds in which both are true.
  """
  both = lambda on: on['audio'] & on['visual']
  counts = {stream: count(predicted[stream], true[stream], level) for stream in STREAMS}
  counts['audio_visual'] = count(both(predicted), both(true), level)
  hits, false, missed = (a + v for a, v in zip(counts['audio'], counts['visual']))
  counts['event'] = hits, false, missed
  return {name: f_score(*found) for name, found in counts.items()}


def f_score(
  hits: Int[np.ndarray, 'b c'], false: Int[np.ndarray, 'b c'], missed: Int[np.ndarray, 'b c']
) -> tuple[Float[np.ndarray, 'b'], Bool[np.ndarray, 'b']]:
  """As `f_scores`, of one quantity."""
  total = 2 * hits + false + missed
  classes = (total > 0).sum(1)
  mean = (2 * hits / np.maximum(total, 1)).sum(1) / np.maximum(classes, 1)
  return np.where(classes > 0, mean, 1.0), classes > 0


def count(predicted: Seconds, true: Seconds, level: Level) -> Counts:
  """Per clip and class: hits, false alarms, misses; of seconds or of events."""
  if level == 'segment':
    return (predicted & true).sum(1), (predicted & ~true).sum(1), (~predicted & true).sum(1)
  counts = np.zeros((3, len(true), true.shape[-1]), int)
  for i, c in zip(*np.nonzero((predicted | true).any(1))):
    counts[:, i, c] = count_events(predicted[i, :, c], true[i, :, c])
  hits, false, missed = counts
  return hits, false, missed


def count_events(
  predicted: Bool[np.ndarray, 't'], true: Bool[np.ndarray, 't']
) -> tuple[int, int, int]:
  """Hits, false alarms and misses of events: those match that share half of their union."""
  guesses, truths = spans(predicted), spans(true)
  match = np.zeros((len(guesses), len(truths)), bool)
  for i, (start, stop) in enumerate(guesses):
    for j, (first, last) in enumerate(truths):
      shared = max(0, min(stop, last) - max(start, first))
      match[i, j] = 2 * shared >= (stop - start) + (last - first) - shared
  hits = int(match.any(1).sum())
  return hits, len(guesses) - hits, len(truths) - int(match.any(0).sum())


def spans(on: Bool[np.ndarray, 't']) -> list[tuple[int, int]]:
  """First second and second after the last of each run."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
  return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def show(clip: Clip, outputs: Outputs, *, names: tuple[str, ...], encoder: DualEncoder) -> View:
  """What is heard, seen and both, as spans of seconds; beside the truth where it is known.

  A window's classes decide on its own seconds, as in evaluation.
  """
  on = {stream: clip.join(seconds) for stream, seconds in predict(outputs).items()}
  on['both'] = on['audio'] & on['visual']
  true = {s: np.asarray(clip.known[s]) > 0 for s in STREAMS if s in clip.known}
  record: dict[str, Any] = {
    CALLED[stream]: timeline(seconds, clip.seconds, names) for stream, seconds in on.items()
  }
  record |= {
    f'true_{CALLED[stream]}': timeline(seconds, clip.seconds, names)
    for stream, seconds in true.items()
  }
  bars = [
    bar
    for stream, seconds in on.items()
    for bar in (
      *(_bars(f'true, {CALLED[stream]}', true[stream], names) if stream in true else ()),
      *_bars(CALLED[stream], seconds, names),
    )
  ]
  tracks = views.perception(
    clip, encoder, *(clip.join(outputs[name]) for name in ('visual_map', 'audio_map'))
  )
  lines = tuple(_line(second, i, on, names) for i, second in enumerate(clip.seconds))
  return View(
    name='events',
    title=' · '.join([clip.title, *clip.notes]),
    record=record,
    lines=lines,
    tracks=(*tracks, *bars),
    overlay=tracks[1],
    captions=lines,
  )


def timeline(
  on: Bool[np.ndarray, 't c'], starts: tuple[int, ...], names: tuple[str, ...]
) -> list[dict[str, Any]]:
  """The events of one stream of a clip; `end` is the second after the last."""
  return [
    {'event': name, 'start': starts[start], 'end': starts[end - 1] + 1}
    for name, column in zip(names, on.T)
    for start, end in spans(column)
  ]


def _bars(title: str, on: Bool[np.ndarray, 't c'], names: tuple[str, ...]) -> tuple[Bars, ...]:
  """A row for each class that occurs, or an empty one."""
  classes = np.flatnonzero(on.any(0))
  rows = [Bars(title, np.where(on[:, c], c, len(names)), names) for c in classes]
  none = Bars(title, np.full(len(on), len(names)), names)
  return tuple(rows) or (none,)


def _line(
  second: int, i: int, on: dict[str, Bool[np.ndarray, 't c']], names: tuple[str, ...]
) -> str:
  """'0:07  heard Dog, Speech · seen Dog'."""
  said = [
    f'{CALLED[stream]} ' + (', '.join(names[c] for c in np.flatnonzero(on[stream][i])) or '–')
    for stream in STREAMS
  ]
  return f'{views.clock(second)}  ' + ' · '.join(said)
