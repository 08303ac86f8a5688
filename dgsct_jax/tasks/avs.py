"""Audio-visual segmentation (AVSBench S4 and MS3): which pixels sound, in every second."""

import dataclasses
import functools

import grain
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32, Int

from dgsct_jax import models
from dgsct_jax.data import datasets, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.transforms import Example
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import avs as head
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual
from dgsct_jax.tasks.task import (
  Batch,
  Inputs,
  Means,
  Outputs,
  Scalars,
  Task,
  View,
  Weighted,
  floats,
  mean_over_clips,
  share,
)
from dgsct_jax.tracks import Mask

THRESHOLDS = (np.arange(255) / 254).astype(np.float32)
BETA_SQUARE = 0.3  # of the F-measure: precision counts more


def build(config: ml_collections.ConfigDict) -> Task:
  """The task of `config.model.head`.

  `gamma`, `width`, `dropout`, `gates`, `tpavi` and `widths` of the segmenter; `matching_weight` and
  `matching_frames` as in `loss`.
  """
  fields, encoder = config.model.head, models.build(config.model)
  parts = {name: fields[name] for name in ('gates', 'tpavi', 'widths') if name in fields}
  segmenter = head.Segmenter(
    fields.gamma, fields.width, fields.dropout, jnp.dtype(config.model.dtype), **parts
  )
  if fields.matching_weight and not segmenter.tpavi:
    raise ValueError(
      f'config.model.head.matching_weight is {fields.matching_weight}, and the matching compares'
      ' what TPAVI finds; set it to 0, or config.model.head.tpavi=True.'
    )
  found = inputs(config, encoder)
  return Task(
    model=head.AVS(encoder, segmenter),
    loss=functools.partial(
      loss, matching_weight=fields.matching_weight, matching_frames=fields.matching_frames
    ),
    metrics=metrics,
    data=functools.partial(data, config.data, found.decode),
    primary='miou',
    inputs=found,
    show=functools.partial(show, encoder=encoder),
    summarize=summarize,
    released=released,
  )


def inputs(config: ml_collections.ConfigDict, encoder: DualEncoder) -> Inputs:
  """Frames of `config.data.size`, at which the masks are, too; the model resizes them."""
  size, t = config.data.size, config.data.segments
  found = audio_visual(config, encoder, masks=floats(config.data.masked, size, size))
  frames, *others = found.decode
  return found._replace(
    spec=dict(found.spec) | {'video': floats(t, size, size, 3)},
    decode=(dataclasses.replace(frames, size=size), *others),
  )


# Losses.


def loss(
  outputs: Outputs, batch: Batch, matching_weight: float = 0.0, matching_frames: int = 10
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the masks in the batch, and `matching_weight` times the matching.

  matching_frames: the matching is a sum over so many frames, those of a released batch, however
    many there are; 0: over the frames of the batch at hand, as released, so that larger batches
    weigh it more.
  """
  parts = {'mask': mask_loss(outputs['mask_logits'], batch['masks'])}
  if matching_weight:
    divergence = matching_loss(outputs['seen'], outputs['heard'])
    t = divergence.shape[1]
    frames = matching_frames or jnp.sum(batch['valid']) * t
    parts['matching'] = matching_weight * frames * divergence.mean(1)
  return mean_over_clips(parts, batch['valid'])


def mask_loss(
  logits: Float[Array, 'b t h w'], masks: Float[Array, 'b first_t y x']
) -> Float[Array, 'b']:
  """Mean binary cross entropy over the pixels of the first frames, those that have a mask.

  Raises:
    ValueError: the masks have another size than the frames.
  """
  if logits.shape[2:] != masks.shape[2:]:
    raise ValueError(
      f'The masks have {masks.shape[2]}×{masks.shape[3]} pixels, the frames'
      f' {logits.shape[2]}×{logits.shape[3]}; set config.data.size to the size of the masks.'
    )
  logits = logits[:, : masks.shape[1]]
  return optax.sigmoid_binary_cross_entropy(logits, masks).mean((1, 2, 3))


def matching_loss(
  seen: Float[Array, 'b t l d'], heard: Float[Array, 'b t l d']
) -> Float[Array, 'b t']:
  """KL divergence of what is seen under the mask from what is heard, mean over the stages.

  Both are made distributions over the channels.
  """
  q, p = nn.log_softmax(heard), nn.log_softmax(seen)
  return jnp.sum(jnp.exp(q) * (q - p), -1).mean(-1)


# Metrics.


def metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Of each clip, over its t frames, in percent.

  `miou` [b]: overlap of the predicted and the true mask. A frame where nothing sounds scores the
    share of pixels that are rightly left out, as released.
  `sounding_miou` [b]: of the frames where something sounds alone.
  `f_curve` [b 255]: F-measure at each threshold, of the frames where something sounds.
  `empty_frames`: share of frames where nothing sounds. `empty_right`: of those, the share in which
  no
    pixel is predicted.
  """
  masks = np.asarray(batch['masks'], np.float32)
  logits = np.asarray(outputs['mask_logits'], np.float32)[:, : masks.shape[1]]
  overlap, empty = iou(logits, masks), np.asarray(~masks.any((2, 3)))
  ones = np.full(len(masks), masks.shape[1], float)
  return {
    'miou': (100 * overlap.mean(1), ones),
    'sounding_miou': mean_where(100 * overlap, np.logical_not(empty)),
    'f_curve': mean_where(100 * f_curves(logits, masks), np.logical_not(empty)),
    'empty_frames': (100 * empty.mean(1), ones),
    'empty_right': share(np.asarray(~(logits > 0).any((2, 3))), empty),
  }


def summarize(means: Means) -> Scalars:
  """The means of a split as they are reported.

  `f_score`: the best threshold's on the mean curve of all frames, whatever the batches.
  `j_and_f`: the mean of `miou` and `f_score`. What no frame tells is left out.
  """
  found = {name: x for name, x in means.items() if name != 'f_curve'}
  found['f_score'] = np.max(means['f_curve'])
  found['j_and_f'] = (found['miou'] + found['f_score']) / 2
  return {name: float(x) for name, x in found.items() if not np.isnan(x)}


def released(means: Means) -> Scalars:
  """The released metrics of a batch; their plain means over batches are the released numbers.

  M_F depends on what is in a batch: the best threshold is picked for each. The published ones are
  of batches of four clips in the order of the list. A batch in which nothing sounds scores 0.
  """
  best = np.max(means['f_curve'])
  return {'miou': float(means['miou']), 'f_score': 0.0 if np.isnan(best) else float(best)}


def iou(
  logits: Float32[np.ndarray, 'b t h w'], masks: Float32[np.ndarray, 'b t h w']
) -> Float[np.ndarray, 'b t']:
  """Intersection over union of each frame; the share of true negatives where nothing sounds."""
  predicted = logits > 0
  inter = (predicted * masks).sum((2, 3), dtype=np.float64)
  union = np.maximum(predicted, masks).sum((2, 3), dtype=np.float64)
  pixels = masks.shape[2] * masks.shape[3]
  right = ((1 - masks) * ~predicted).sum((2, 3), dtype=np.float64)
  return np.where(masks.any((2, 3)), inter / (union + 1e-7), right / (pixels + 1e-7))


def f_curves(
  logits: Float32[np.ndarray, 'b t h w'], masks: Float32[np.ndarray, 'b t h w']
) -> Float[np.ndarray, 'b t 255']:
  """F-measure of each frame at each threshold; 0 where no true pixel is found."""
  with np.errstate(over='ignore'):
    probability = 1 / (1 + np.exp(-logits))
  # How many thresholds a pixel reaches, so that all are counted in one go.
  reached = np.searchsorted(THRESHOLDS, probability, side='right')
  curves = np.empty((*logits.shape[:2], len(THRESHOLDS)))
  for at in np.ndindex(*logits.shape[:2]):
    hits, predicted = (_reaching(reached[at], weights) for weights in (masks[at], None))
    precision, recall = hits / (predicted + 1e-20), hits / (masks[at].sum() + 1e-20)
    below = BETA_SQUARE * precision + recall
    curves[at] = (1 + BETA_SQUARE) * precision * recall / np.where(below > 0, below, 1)
  return curves


def _reaching(
  reached: Int[np.ndarray, 'h w'], weights: Float32[np.ndarray, 'h w'] | None
) -> Float[np.ndarray, '255']:
  """How many pixels, or what weight of them, reach each threshold."""
  counts = np.bincount(
    reached.ravel(), None if weights is None else weights.ravel(), len(THRESHOLDS) + 1
  )
  return counts[::-1].cumsum()[::-1][1:].astype(np.float64)


def mean_where(
  values: Float[np.ndarray, 'b t *v'], counted: Bool[np.ndarray, 'b t']
) -> tuple[Float[np.ndarray, 'b *v'], Float[np.ndarray, 'b']]:
  """The mean over the frames that count, and how many they are."""
  weight = counted.sum(1).astype(float)
  total = np.einsum('bt...,bt->b...', values, counted.astype(float))
  return (total.T / np.maximum(weight, 1)).T, weight


# Data and views.


@dataclasses.dataclass(frozen=True)
class FirstMasks(grain.transforms.Map):
  """Masks for some seconds only, as S4 has them in training."""

  count: int

  def map(self, example: Example) -> Example:
    """Keeps `masks` [t h w] of the first `count` seconds."""
    return example | {'masks': example['masks'][: self.count]}


def data(
  fields: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Clips of `config.data` with their masks.

  `size`: of frames and masks. `masked`: so many seconds have a mask in training, the first one in
  S4. `blank`: fields that are replaced by zeros, to see what the other stream alone is worth.
  """
  kind = datasets.of(fields)
  if kind.masks is None:
    raise ValueError(
      f'config.data.kind is {fields.kind!r}, a data set without masks; choose avsbench_s4,'
      ' avsbench_ms3 or scenes.'
    )
  first = (FirstMasks(fields.masked),) if split == 'train' else ()
  return Dataset(
    kind.load(fields, split),
    (
      *decode,
      *kind.masks(split),
      *first,
      transforms.Blank(tuple(fields.blank)),
      transforms.Keep(('video', 'wave', 'masks')),
    ),
  )


def show(clip: Clip, outputs: Outputs, *, encoder: DualEncoder) -> View:
  """The mask of every second of a clip; beside the true ones where they are known.

  The record has the share of the picture that sounds, in each second.
  """
  probability = clip.join(views.sigmoid(outputs['mask_logits'])).astype(np.float32)
  shares = (probability > 0.5).mean((1, 2))
  frames, looks, sound, listens = views.perception(
    clip, encoder, *(clip.join(outputs[name]) for name in ('visual_map', 'audio_map'))
  )
  title = ' · '.join([clip.title, *clip.notes])
  true: tuple[Mask, ...] = ()
  if 'masks' in clip.known:
    masks = np.asarray(clip.known['masks'], np.float32)
    logits = np.asarray(outputs['mask_logits'], np.float32)[:, : len(masks)]
    overlap = iou(logits, masks[None]).mean()
    title += f': overlap {overlap:.2f}'
    true = (Mask('true', masks, frames),)
  mask = Mask('sounding', probability, frames)
  lines = tuple(
    f'{views.clock(second)}  {share:4.0%} of the picture sounds'
    for second, share in zip(clip.seconds, shares)
  )
  return View(
    name='masks',
    title=title,
    record={'sounding': [round(float(share), 4) for share in shares]},
    lines=lines,
    tracks=(frames, looks, *true, mask, sound, listens),
    overlay=mask,
    captions=lines,
  )
