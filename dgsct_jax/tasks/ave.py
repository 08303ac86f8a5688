"""Audio-visual event localisation (AVE): one event per clip, and the seconds in which it is seen and heard."""

import functools
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax import figures, models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.heads import ave as head
from dgsct_jax.models.temporal import TemporalAttention
from dgsct_jax.tasks import Batch, Outputs, Task, Weighted, mean_over_clips


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.head`: classes; `weak` learns from the clip's class alone; `gate_loss` as in `loss`."""
  fields = config.model.head
  classes = fields.classes
  localizer = head.WeakLocalizer(classes) if fields.weak else head.Localizer(classes)
  model = head.AVE(
    models.build(config.model), TemporalAttention(fields.gamma, fields.width), localizer
  )
  if fields.gate_loss not in ('logits', 'probability'):
    raise ValueError(
      f"config.model.head.gate_loss is {fields.gate_loss!r}; set 'logits' or 'probability'."
    )
  supervised = functools.partial(loss, classes=classes, gate_loss=fields.gate_loss)
  return Task(
    model=model,
    loss=functools.partial(weak_loss, classes=classes) if fields.weak else supervised,
    metrics=functools.partial(metrics, classes=classes),
    data=functools.partial(data, config),
    primary='accuracy',
    batch_means=('accuracy',),
    figures=functools.partial(draw, names=class_names(config), audio=model.encoder.audio),
  )


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Of the classes that the head tells apart."""
  names, classes = (
    datasets.class_names(config.data.name, config.data.get('source', '')),
    config.model.head.classes,
  )
  if len(names) != classes:
    raise ValueError(
      f'config.model.head.classes is {classes}; the data set {config.data.name} has {len(names)} classes.'
    )
  return names


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
  return mean_over_clips(parts, batch['mask'])


def weak_loss(
  outputs: Outputs, batch: Batch, classes: int = 28
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the clip's class alone."""
  event = clip_class(batch['label'], classes)
  parts = {'clip': optax.softmax_cross_entropy_with_integer_labels(outputs['clip_logits'], event)}
  return mean_over_clips(parts, batch['mask'])


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


def draw(
  outputs: Outputs, batch: Batch, folder: Path, names: tuple[str, ...], audio: nn.Module
) -> None:
  figures.event_clips(
    outputs, batch, folder, predicted=predict(outputs, len(names)), names=names, audio=audio
  )


def data(config: ml_collections.ConfigDict, split: str) -> Dataset:
  """Clips of `config.data`, one frame and one second of sound per segment, as the backbones take them.

  `blank`: fields that are replaced by zeros, to see what the other stream alone is worth.
  """
  fields = config.data
  recipe = {
    name: fields[name] for name in ('source', 'media', 'knobs', 'clips', 'seed') if name in fields
  }
  decode = (
    transforms.DecodeFrames(config.model.visual.image),
    transforms.DecodeWave(fields.segments, config.model.audio.sample_rate),
    transforms.Blank(tuple(fields.blank)),
  )
  return Dataset(
    datasets.load(split, fields.name, fields.dir, **recipe),
    (*decode, transforms.Keep(('video', 'wave', 'label'))),
  )
