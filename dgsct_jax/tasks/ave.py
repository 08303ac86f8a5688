"""Audio-visual event localisation: one event per clip, and when it is both seen and heard."""

import functools

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
from dgsct_jax.tasks.inputs import audio_visual, class_names
from dgsct_jax.tasks.task import Batch, Outputs, Task, View, Weighted, integers, mean_over_clips


def build(config: ml_collections.ConfigDict) -> Task:
  """The task with the head of `config.model.head`.

  Its fields are `classes`, their number; `weak`, to learn from the clip's class alone; `gate_loss`,
  see `loss`; `gamma` and `width` of the temporal attention.
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


def data(
  fields: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Clips of `config.data` with the class of each second.

  `blank` names the fields that are replaced by zeros, to evaluate the other stream alone.
  """
  records = datasets.of(fields).load(fields, split)
  keep = transforms.Keep(('video', 'wave', 'label'))
  return Dataset(records, (*decode, transforms.Blank(tuple(fields.blank)), keep))


def clip_class(label: Array, classes: int) -> Array:
  """The event of a clip [b] from the classes of its seconds [b t].

  As released: class 0 where all seconds are background.
  """
  return jnp.max(jnp.where(label < classes, label, 0), 1)


def loss(
  outputs: Outputs, batch: Batch, classes: int = 28, gate_loss: str = 'logits'
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Event and gate per second, class and class activation per clip, with equal weights.

  Args:
    gate_loss: 'logits' uses the product of the two gates, a probability, as a logit, as released;
      'probability' uses it as a probability.
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
  """The class of every second [b t].

  It is the clip's event where the event probability of the second is over 0.5, else `classes`.
  """
  event = np.argmax(np.asarray(outputs['logits'])[:, :classes], -1)
  return np.where(np.asarray(outputs['event_logits']) > 0, event[:, None], classes)


def metrics(outputs: Outputs, batch: Batch, classes: int = 28) -> dict[str, Weighted]:
  """Accuracies in percent, for every clip.

  `accuracy`: seconds with the right class. `clip_accuracy`: clips with the right event.
  `event_accuracy`: seconds rightly classified as event or background.
  """
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
  """The events of a clip, second by second, with the true ones where they are known."""
  judged = judge(outputs, len(names))
  return views.events(clip, names, judged, encoder, outputs['visual_map'], outputs['audio_map'])


def judge(outputs: Outputs, classes: int) -> views.Judged:
  """What every second of the windows is, by the clip's event and whether it happens."""
  logits = np.asarray(outputs['logits'])[:, :classes]
  event = views.sigmoid(outputs['event_logits'])
  return views.Judged(
    predicted=predict(outputs, classes),
    likeliest=np.broadcast_to(logits.argmax(1)[:, None], event.shape),
    confidence=event * views.softmax(logits).max(1)[:, None],
    event=event,
  )
