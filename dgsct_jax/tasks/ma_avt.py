"""MA-AVT: what two streams through one frozen ViT show, and whether they belong together."""

import functools
import zlib
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.background import Mismatch
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.crops import RandomPart, Whole
from dgsct_jax.data.excerpts import Excerpt, RandomExcerpt, hold_out
from dgsct_jax.data.pipeline import Dataset, Source
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.listener import Listener
from dgsct_jax.models.ma_avt import MAAVT
from dgsct_jax.models.vit import ViT
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual, class_names, seconds_of
from dgsct_jax.tasks.task import (
  Batch,
  Means,
  Outputs,
  Scalars,
  Task,
  View,
  Weighted,
  integers,
  share,
)

TEMPERATURE = 0.07


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.head`: the fields of `MAAVT`, and `primary`, the metric that selects.

  `config.loss`: `contrast_weight` as in `loss`; `modulation`, the strength of gradient modulation,
  0 for none; `modulation_noise`, see `modulate`.
  """
  encoder, fields = models.build(config.model), dict(config.model.head)
  if not isinstance(encoder.visual, ViT) or not isinstance(encoder.audio, Listener):
    raise ValueError(
      f'config.model has visual.kind={config.model.visual.kind!r} and audio.kind='
      f"{config.model.audio.kind!r}; MA-AVT is one ViT: set 'vit' and 'shared'."
    )
  if encoder.side or encoder.stages:
    raise ValueError(
      f'config.model.adapter has name={config.model.adapter.name!r} and stages={encoder.stages},'
      " and MA-AVT's streams meet in every block; set 'none', 'dgsct' or 'lavish', without stages."
    )
  primary, classes = fields.pop('primary'), fields['classes']
  found = audio_visual(config, encoder, label=integers(config.data.segments))
  excerpt = Excerpt(
    config.data.segments, seconds_of(encoder), config.model.audio.sample_rate, config.data.picture
  )
  stretch = (Whole(config.model.visual.image),) if config.data.crops else ()
  inputs = found._replace(decode=(excerpt, *stretch, *found.decode))
  strength, noise = config.loss.modulation, config.loss.modulation_noise
  # Of VGGSound they are stored with the built data set, which a model does not need.
  names = functools.cache(lambda: class_names(config))
  return Task(
    model=MAAVT(encoder.visual, encoder.audio.front_end, exchange=encoder.exchange, **fields),
    loss=functools.partial(loss, classes=classes, contrast_weight=config.loss.contrast_weight),
    metrics=functools.partial(metrics, classes=classes),
    data=functools.partial(data, config, inputs.decode),
    primary=primary,
    inputs=inputs,
    show=lambda clip, outputs: show(clip, outputs, names=names(), encoder=encoder),
    summarize=summarize,
    modulate=functools.partial(modulated, strength=strength, noise=noise) if strength else None,
  )


def data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Clips of `config.data`, in training with pairs that do not belong together.

  `bg_prob`, `bg_mode`: of these, see `Mismatch`. `hold_out`: every n-th training clip is for
  validation; with 0, the data set has clips for it. `picture`: see `Excerpt`. `crops`: in training
  random parts of pictures. `blank`: fields that are replaced by zeros.
  """
  fields, train = config.data, split == 'train'
  class_names(config)  # for its error message
  records, steps = load(fields, split), list(decode)
  if train:
    steps[0] = RandomExcerpt(decode[0])
    if fields.crops:
      steps[1] = RandomPart(config.model.visual.image)
    if config.model.head.background and fields.bg_prob:
      steps.insert(0, Mismatch(records, config.model.head.classes, fields.bg_prob, fields.bg_mode))
  keep = transforms.Keep(('video', 'wave', 'label'))
  return Dataset(records, (*steps, transforms.Blank(tuple(fields.blank)), keep))


def load(fields: ml_collections.ConfigDict, split: str) -> Source:
  """The records of a split, of which 'val' may be held out of training."""
  kind = datasets.of(fields)
  if fields.hold_out and split != 'test':
    return hold_out(kind.load(fields, 'train'), fields.hold_out, split)
  return kind.load(fields, split)


def show(clip: Clip, outputs: Outputs, *, names: tuple[str, ...], encoder: DualEncoder) -> View:
  """The class of every second, or that its picture and sound do not belong together."""
  judged, seconds = judge(outputs), seconds_of(encoder)
  maps = outputs['visual_map'], outputs['audio_map']
  return views.events(clip, names, judged, encoder, *maps, seconds)


def judge(outputs: Outputs) -> views.Judged:
  """What every segment is: background where the classifier of background says so."""
  shares = views.softmax(outputs['logits'])
  likeliest, classes = shares.argmax(-1), shares.shape[-1]
  event = np.ones(likeliest.shape)
  if 'background_logits' in outputs:
    event = 1 - views.sigmoid(outputs['background_logits'])
  return views.Judged(
    predicted=np.where(event < 0.5, classes, likeliest),
    likeliest=likeliest,
    confidence=event * shares.max(-1),
    event=event,
  )


def loss(
  outputs: Outputs, batch: Batch, classes: int, contrast_weight: float = 1.0
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Class of foreground pairs, background or not of all pairs, contrast of foreground pairs.

  Pairs are the segments of all clips of the global batch; a label `classes` is background. Parts
  for which the model has no outputs are left out.

  contrast_weight: 1 is the loss of the paper. The release does not differentiate what it gathers
    from other devices, and its gradient of the contrast is 1/N of the true one on N devices; 0.25
    reproduces its four. It adds up both directions of compared='nearest' instead of taking their
    mean: 2.
  """
  label = batch['label']
  valid = jnp.broadcast_to(batch['valid'][:, None], label.shape)
  background = label >= classes
  foreground = valid * ~background
  within = jnp.where(background, 0, label)
  entropy = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], within)
  parts = {'class': mean(entropy, foreground)}
  if 'background_logits' in outputs:
    entropy = optax.sigmoid_binary_cross_entropy(outputs['background_logits'], background)
    parts['background'] = mean(entropy, valid)
  if 'visual_features' in outputs:
    visual, audio = (
      outputs[f'{stream}_features'].reshape(label.size, *outputs[f'{stream}_features'].shape[2:])
      for stream in ('visual', 'audio')
    )
    parts['contrast'] = contrast_weight * contrast(visual, audio, foreground.reshape(-1))
  return jnp.sum(jnp.stack(list(parts.values()))), parts


def mean(x: Float[Any, '*b'], weight: Num[Any, '*b']) -> Float[Array, '']:
  """Over what has weight 1; 0 where nothing has."""
  return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1)


def contrast(
  visual: Float[Any, 'm k *n p'], audio: Float[Any, 'm k p'], weight: Float[Any, 'm']
) -> Float[Array, '']:
  """Symmetric InfoNCE between the streams of m pairs, the mean over k blocks.

  Args:
    visual, audio: of unit length. Of n visual vectors the one counts that is most like the other.
    weight: 1 or 0; pairs of weight 0 are neither rows nor columns.
  """
  several = visual.reshape(*audio.shape[:2], -1, audio.shape[-1])
  logits = jnp.einsum('mknp,jkp->kmjn', several, audio).max(-1) / TEMPERATURE
  own = jnp.diagonal(logits, axis1=1, axis2=2)

  def one_way(logits: Float[Array, 'k m n']) -> Float[Array, 'k m']:
    logits = jnp.where(weight > 0, logits, -jnp.inf)
    # A pair without weight is its own only column, or with none at all the row would be empty.
    logits = jnp.where(jnp.eye(len(weight), dtype=bool), own[:, None], logits)
    return jax.nn.logsumexp(logits, -1) - own

  both = one_way(logits) + one_way(logits.swapaxes(1, 2))
  return mean(both.mean(0) / 2, weight)


def metrics(outputs: Outputs, batch: Batch, classes: int) -> dict[str, Weighted]:
  """Shares of segments, in percent; the latter two with a background classifier only.

  accuracy: of foreground segments, those with the right class. background_accuracy: of all, those
  rightly called background or not. joint_accuracy: of all, those rightly called background, or not
  and then given the right class. foreground: of all, those that are not background.
  """
  label = np.asarray(batch['label'])
  background = label >= classes
  right = np.argmax(np.asarray(outputs['logits']), -1) == label
  found = {'accuracy': share(right, ~background)}
  if 'background_logits' in outputs:
    detected = (np.asarray(outputs['background_logits']) > 0) == background
    everywhere = np.ones_like(background)
    found['background_accuracy'] = share(detected, everywhere)
    found['joint_accuracy'] = share(detected & (right | background), everywhere)
    found['foreground'] = share(~background, everywhere)
  return found


def summarize(means: Means) -> Scalars:
  """The means of a split, and the accuracy that the release calls total.

  That is the accuracy of foreground, as often as there is any, and for the rest the accuracy of
  background *of all segments*. Without background in the split it is `accuracy`.
  """
  found = {name: float(x) for name, x in means.items()}
  if 'foreground' in found:
    part = found['foreground'] / 100
    of_foreground = part * found['accuracy'] if part else 0.0
    found['total_accuracy'] = of_foreground + (1 - part) * found['background_accuracy']
  return {name: x for name, x in found.items() if not np.isnan(x)}


def modulation(
  unimodal_logits: Float[Any, 'b t 2 c'],
  label: Int[Any, 'b t'],
  valid: Float[Any, 'b'],
  strength: float = 0.1,
) -> Float[Array, '2']:
  """By what the gradients of the visual and the audio stream are scaled: the stronger one by less.

  On-the-fly gradient modulation (Peng et al., 2022): the strength of a stream is the sum of its own
  probabilities of the true classes over all foreground segments of the global batch.
  """
  classes = unimodal_logits.shape[-1]
  weight = (label < classes) * valid[:, None]
  true = jnp.where(label < classes, label, 0)[..., None, None]
  probability = jnp.take_along_axis(jax.nn.softmax(unimodal_logits), true, -1)[..., 0]
  visual, audio = jnp.sum(probability * weight[..., None], (0, 1))
  ratio = jnp.stack([visual / audio, audio / visual])
  return jnp.where(ratio > 1, 1 - jnp.tanh(strength * ratio), 1.0)


def modulated(
  gradients: Any, outputs: Outputs, batch: Batch, key: Array, *, strength: float, noise: bool
) -> Any:
  """The gradients of a batch, those of the stream that is ahead made smaller."""
  coefficients = modulation(outputs['unimodal_logits'], batch['label'], batch['valid'], strength)
  return modulate(gradients, coefficients, key, noise)


def modulate(gradients: Any, coefficients: Float[Any, '2'], key: Array, noise: bool = True) -> Any:
  """The gradients of what belongs to one stream alone, scaled by that stream's coefficient.

  That is prompts, their attention, projections and adapters. noise: as released, something random
  is added that has the standard deviation of each gradient.
  """
  streams = 'visual', 'audio'

  def scale(path: tuple[Any, ...], gradient: Array) -> Array:
    name = '/' + jax.tree_util.keystr(path, simple=True, separator='/')
    stream = next((i for i, stream in enumerate(streams) if f'/{stream}' in name), None)
    if stream is None or gradient.size == 1:
      return gradient
    scaled = gradient * coefficients[stream]
    if not noise:
      return scaled
    drawn = jax.random.normal(jax.random.fold_in(key, zlib.crc32(name.encode())), gradient.shape)
    return scaled + drawn * (gradient.std() + 1e-8)

  return jax.tree_util.tree_map_with_path(scale, gradients)
