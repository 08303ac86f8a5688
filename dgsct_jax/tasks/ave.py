"""Audio-visual event localisation: one event per clip, and when it is both seen and heard."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import ave as head
from dgsct_jax.models.heads import lavish
from dgsct_jax.models.temporal import TemporalAttention
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual, class_names
from dgsct_jax.tasks.task import Batch, Outputs, Task, View, Weighted, integers, mean_over_clips


class Parts(NamedTuple):
  """What a head has of its own: the model, its loss, metrics, and what each second is."""

  model: nn.Module
  loss: Callable[[Outputs, Batch], tuple[Array, dict[str, Array]]]
  metrics: Callable[[Outputs, Batch], dict[str, Weighted]]
  judge: Callable[[Outputs], views.Judged]


def build(config: ml_collections.ConfigDict) -> Task:
  """The task with the head of `config.model.head`, whose `kind` is a name in `HEADS`.

  `classes` is their number; the other fields are those of the head.
  """
  fields, names = config.model.head, class_names(config)
  kind = fields.get('kind', 'localizer')  # runs from before there were two have none
  if kind not in HEADS:
    raise ValueError(f'config.model.head.kind is {kind!r}; choose one of {", ".join(HEADS)}.')
  encoder = models.build(config.model)
  parts = HEADS[kind](fields, encoder)
  inputs = audio_visual(config, encoder, label=integers(config.data.segments))
  return Task(
    model=parts.model,
    loss=parts.loss,
    metrics=parts.metrics,
    data=functools.partial(data, config.data, inputs.decode),
    primary='accuracy',
    inputs=inputs,
    show=functools.partial(show, names=names, encoder=encoder, judge=parts.judge),
    released=lambda means: {'accuracy': float(means['accuracy'])},
  )


def localizer(fields: ml_collections.ConfigDict, encoder: DualEncoder) -> Parts:
  """DG-SCT's: an event per clip, and in which seconds it is.

  `weak`, to learn from the clip's class alone; `gate_loss`, see `loss`; `gamma` and `width` of the
  temporal attention.
  """
  classes = fields.classes
  if fields.gate_loss not in ('logits', 'probability'):
    raise ValueError(
      f"config.model.head.gate_loss is {fields.gate_loss!r}; set 'logits' or 'probability'."
    )
  localize = head.WeakLocalizer(classes) if fields.weak else head.Localizer(classes)
  supervised = functools.partial(loss, classes=classes, gate_loss=fields.gate_loss)
  return Parts(
    model=head.AVE(encoder, TemporalAttention(fields.gamma, fields.width), localize),
    loss=functools.partial(weak_loss, classes=classes) if fields.weak else supervised,
    metrics=functools.partial(metrics, classes=classes),
    judge=functools.partial(judge, classes=classes),
  )


def seconds(fields: ml_collections.ConfigDict, encoder: DualEncoder) -> Parts:
  """LAVISH's: every second by itself. `width`, of the hidden layer; `loss`, see `seconds_loss`."""
  return Parts(
    model=lavish.Seconds(encoder, lavish.Classifier(fields.classes + 1, fields.width)),
    loss=functools.partial(seconds_loss, kind=fields.loss),
    metrics=seconds_metrics,
    judge=judge_seconds,
  )


HEADS: dict[str, Callable[[ml_collections.ConfigDict, DualEncoder], Parts]] = {
  'localizer': localizer,
  'seconds': seconds,
}


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


# The head that has every second by itself.


def seconds_loss(
  outputs: Outputs, batch: Batch, kind: str = 'bce_softmax'
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Of the class of each second, of which background is the last.

  Args:
    kind: 'bce_softmax', as released: the mean, over the classes, of the binary cross entropies of
      the probabilities that a softmax makes; logarithms are at least −100. 'ce': cross entropy.
  """
  logits, label = outputs['logits'], batch['label']
  if kind == 'ce':
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  elif kind == 'bce_softmax':
    c = logits.shape[-1]
    target = jax.nn.one_hot(label, c)
    # Of "not this class": what all others have together.
    others = jnp.where(jnp.eye(c, dtype=bool), -jnp.inf, logits[..., None, :])
    no = jax.nn.logsumexp(others, -1) - jax.nn.logsumexp(logits, -1, keepdims=True)
    yes = jax.nn.log_softmax(logits)
    each = -jnp.mean(target * jnp.maximum(yes, -100) + (1 - target) * jnp.maximum(no, -100), -1)
  else:
    raise ValueError(f"config.model.head.loss is {kind!r}; set 'bce_softmax' or 'ce'.")
  return mean_over_clips({'class': each.mean(1)}, batch['valid'])


def judge_seconds(outputs: Outputs) -> views.Judged:
  """What every second is: the likeliest class, background among them."""
  shares = views.softmax(outputs['logits'])
  events = shares[..., :-1]
  return views.Judged(
    predicted=shares.argmax(-1),
    likeliest=events.argmax(-1),
    confidence=events.max(-1),
    event=1 - shares[..., -1],
  )


def seconds_metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Accuracies in percent, for every clip, as `metrics` has them.

  The event of a clip is that which its seconds together find likeliest.
  """
  label, shares = np.asarray(batch['label']), views.softmax(outputs['logits'])
  background = shares.shape[-1] - 1
  predicted, ones = shares.argmax(-1), np.ones(len(label))
  clip = shares[..., :-1].sum(1).argmax(-1) == np.where(label < background, label, 0).max(1)
  events = (predicted < background) == (label < background)
  return {
    'accuracy': (100 * (predicted == label).mean(1), ones),
    'clip_accuracy': (100.0 * clip, ones),
    'event_accuracy': (100 * events.mean(1), ones),
  }


# What is shown.


def show(
  clip: Clip,
  outputs: Outputs,
  *,
  names: tuple[str, ...],
  encoder: DualEncoder,
  judge: Callable[[Outputs], views.Judged],
) -> View:
  """The events of a clip, second by second, with the true ones where they are known."""
  maps = outputs['visual_map'], outputs['audio_map']
  return views.events(clip, names, judge(outputs), encoder, *maps)


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
