"""Audio-visual event localisation: one event per clip, and when it is both seen and heard."""

import functools
from typing import Any

import grain
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import ave as head
from dgsct_jax.models.temporal import TemporalAttention
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual
from dgsct_jax.tasks.task import Batch, Outputs, Task, View, Weighted, integers, mean_over_clips
from dgsct_jax.tracks import Bars, Steps


def build(config: ml_collections.ConfigDict) -> Task:
  """The task of `config.model.head`.

  `classes`; `weak` learns from the clip's class alone; `gate_loss` as in `loss`.
  """
  fields, names = config.model.head, class_names(config)
  classes = fields.classes
  if fields.gate_loss not in ('logits', 'probability'):
    raise ValueError(
      f"config.model.head.gate_loss is {fields.gate_loss!r}; set 'logits' or 'probability'."
    )
  encoder = models.build(config.model)
  localizer = head.WeakLocalizer(classes) if fields.weak else head.Localizer(classes)
  supervised = functools.partial(loss, classes=classes, gate_loss=fields.gate_loss)
  inputs = audio_visual(config, encoder, label=integers(config.data.segments))
  return Task(
    model=head.AVE(encoder, TemporalAttention(fields.gamma, fields.width), localizer),
    loss=functools.partial(weak_loss, classes=classes) if fields.weak else supervised,
    metrics=functools.partial(metrics, classes=classes),
    data=functools.partial(data, config.data, inputs.decode),
    primary='accuracy',
    inputs=inputs,
    show=functools.partial(show, names=names, encoder=encoder),
    released=lambda means: {'accuracy': float(means['accuracy'])},
  )


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Of the classes that the head tells apart."""
  names, classes = datasets.of(config.data).classes(config.data), config.model.head.classes
  if len(names) != classes:
    raise ValueError(
      f'config.model.head.classes is {classes}; the data set {config.data.name} has {len(names)}'
      ' classes.'
    )
  return names


def data(
  fields: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Clips of `config.data` with the class of each second.

  `blank`: fields that are replaced by zeros, to see what the other stream alone is worth.
  """
  records = datasets.of(fields).load(fields, split)
  keep = transforms.Keep(('video', 'wave', 'label'))
  return Dataset(records, (*decode, transforms.Blank(tuple(fields.blank)), keep))


def clip_class(label: Array, classes: int) -> Array:
  """The event of a clip [b] from the classes of its seconds [b t]; 0 where all are background, as released."""
  return jnp.max(jnp.where(label < classes, label, 0), 1)


def loss(
  outputs: Outputs, batch: Batch, classes: int = 28, gate_loss: str = 'logits'
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Event per second, gate per second, class per clip and class activation per clip, with equal weights.

  gate_loss: 'logits' takes the product of the two gates, a probability, for a logit, as released; 'probability' does not.
  """
  foreground = (batch['label'] < classes).astype(jnp.float32)
  event = clip_class(batch['label'], classes)
  gate = outputs['gate']
  if gate_loss == 'probability':
    gate = jnp.clip(gate, 1e-6, 1 - 1e-6)
    gate = jnp.log(gate) - jnp.log1p(-gate)
  parts = {
    'event': optax.sigmoid_binary_cross_entropy(outputs['event_logits'], foreground).mean(1),
    'gate': optax.sigmoid_binary_cross_entropy(gate, foreground).mean(1),
    'class': optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], event),
    'activation': optax.softmax_cross_entropy_with_integer_labels(
      outputs['activation_logits'], event
    ),
  }
  return mean_over_clips(parts, batch['valid'])


def weak_loss(
  outputs: Outputs, batch: Batch, classes: int = 28
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the clip's class alone."""
  event = clip_class(batch['label'], classes)
  parts = {'clip': optax.softmax_cross_entropy_with_integer_labels(outputs['clip_logits'], event)}
  return mean_over_clips(parts, batch['valid'])


def predict(outputs: Outputs, classes: int = 28) -> np.ndarray:
  """The class of every second [b t]: the clip's event where the second's event probability passes 0.5."""
  event = np.argmax(np.asarray(outputs['logits'])[:, :classes], -1)
  return np.where(np.asarray(outputs['event_logits']) > 0, event[:, None], classes)


def metrics(outputs: Outputs, batch: Batch, classes: int = 28) -> dict[str, Weighted]:
  """Share of seconds with the right class, in percent; and of clips with the right event."""
  label = np.asarray(batch['label'])
  ones = np.ones(len(label))
  event = np.where(label < classes, label, 0).max(1)
  clip = np.argmax(np.asarray(outputs['logits'])[:, :classes], -1) == event
  foreground = (np.asarray(outputs['event_logits']) > 0) == (label < classes)
  return {
    'accuracy': (100 * (predict(outputs, classes) == label).mean(1), ones),
    'clip_accuracy': (100.0 * clip, ones),
    'event_accuracy': (100 * foreground.mean(1), ones),
  }


def show(clip: Clip, outputs: Outputs, *, names: tuple[str, ...], encoder: DualEncoder) -> View:
  """The events of a clip, second by second; beside the true ones where they are known."""
  timeline = judge(outputs, names)[: len(clip.seconds)]
  for second, found in zip(clip.seconds, timeline):
    found['second'] = second
  title, bars = ' · '.join([clip.title, *clip.notes]), ()
  predicted = clip.join(predict(outputs, len(names)))
  if 'label' in clip.known:
    label = np.asarray(clip.known['label'])
    title += f': {np.sum(label == predicted)} of {len(label)} seconds right'
    bars = (Bars('true', label, names),)
    for found, true in zip(timeline, label):
      found['true'] = names[true] if true < len(names) else None
  lines = tuple(line(second) for second in timeline)
  maps = [clip.join(outputs[name]) for name in ('visual_map', 'audio_map')]
  tracks = views.perception(clip, encoder, *maps)
  return View(
    name='events',
    title=title,
    record={'classes': list(names), 'timeline': timeline},
    lines=lines,
    tracks=(
      *tracks,
      Steps('event', clip.join(views.sigmoid(outputs['event_logits'])), 0.5),
      *bars,
      Bars('predicted', predicted, names),
    ),
    overlay=tracks[1],
    captions=lines,
  )


def judge(outputs: Outputs, names: tuple[str, ...]) -> list[dict[str, Any]]:
  """For each second of windows: the event or none, and how sure the model is of the likeliest."""
  classes = len(names)
  logits = np.asarray(outputs['logits'])[:, :classes]
  share = views.softmax(logits).max(1)
  event = views.sigmoid(outputs['event_logits'])
  likeliest = np.repeat(logits.argmax(1), event.shape[1])
  found = predict(outputs, classes).reshape(-1)
  confidence = (event * share[:, None]).reshape(-1)
  return [
    {
      'second': i,
      'event': names[f] if f < classes else None,
      'likeliest': names[l],
      'confidence': float(c),
      'event_probability': float(p),
    }
    for i, (f, l, c, p) in enumerate(zip(found, likeliest, confidence, event.reshape(-1)))
  ]


def line(second: dict[str, Any]) -> str:
  """'1:07  Bark 0.93', or of background '1:08  – (Bark 0.21)'."""
  name = f'{second["likeliest"]} {second["confidence"]:.2f}'
  return f'{views.clock(second["second"])}  ' + (name if second['event'] else f'– ({name})')
