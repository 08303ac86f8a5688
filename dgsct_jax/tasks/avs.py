"""Audio-visual segmentation (AVSBench S4 and MS3): which pixels sound, in every second."""

import functools
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32

from dgsct_jax import models
from dgsct_jax.data import datasets, scene_labels, transforms
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.heads import avs as head
from dgsct_jax.tasks import Batch, Outputs, Scalars, Task, Weighted, mean_over_clips, share

Means = dict[str, Any]

THRESHOLDS = (np.arange(255) / 254).astype(np.float32)
BETA_SQUARE = 0.3  # of the F-measure: precision counts more


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.head`: gamma, width and dropout of the segmenter; the rest as in `loss`."""
  fields = config.model.head
  model = head.AVS(
    models.build(config.model),
    head.Segmenter(fields.gamma, fields.width, fields.dropout, jnp.dtype(config.model.dtype)),
  )
  return Task(
    model=model,
    loss=functools.partial(
      loss, matching_weight=fields.matching_weight, matching_frames=fields.matching_frames
    ),
    metrics=lambda outputs, batch: _split(metrics(outputs, batch)),
    data=functools.partial(data, config),
    primary='miou',
    summarize=lambda means: summarize(_join(means)),
    batch_means=('miou',),
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
    frames = matching_frames or jnp.sum(batch['mask']) * t
    parts['matching'] = matching_weight * frames * divergence.mean(1)
  return mean_over_clips(parts, batch['mask'])


def mask_loss(
  logits: Float[Array, 'b t h w'], masks: Float[Array, 'b first_t h w']
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
  overlap, empty = iou(logits, masks), ~masks.any((2, 3))
  ones = np.full(len(masks), masks.shape[1], float)
  return {
    'miou': (100 * overlap.mean(1), ones),
    'sounding_miou': mean_where(100 * overlap, ~empty),
    'f_curve': mean_where(100 * f_curves(logits, masks), ~empty),
    'empty_frames': (100 * empty.mean(1), ones),
    'empty_right': share(~(logits > 0).any((2, 3)), empty),
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
    count = lambda weights: np.bincount(reached[at].ravel(), weights, len(THRESHOLDS) + 1)
    above = lambda counts: counts[::-1].cumsum()[::-1][1:]  # of pixels that reach each threshold
    hits, predicted, true = above(count(masks[at].ravel())), above(count(None)), masks[at].sum()
    precision, recall = hits / (predicted + 1e-20), hits / (true + 1e-20)
    below = BETA_SQUARE * precision + recall
    curves[at] = (1 + BETA_SQUARE) * precision * recall / np.where(below > 0, below, 1)
  return curves


def mean_where(
  values: Float[np.ndarray, 'b t *v'], counted: Bool[np.ndarray, 'b t']
) -> tuple[Float[np.ndarray, 'b *v'], Float[np.ndarray, 'b']]:
  """The mean over the frames that count, and how many they are."""
  weight = counted.sum(1).astype(float)
  total = np.einsum('bt...,bt->b...', values, counted.astype(float))
  return (total.T / np.maximum(weight, 1)).T, weight


def _split(found: dict[str, Weighted]) -> dict[str, Weighted]:
  """Metrics as `Task` takes them today, a number per clip: the curve as one for each threshold."""
  curve, weight = found.pop('f_curve')
  return found | {f'f_curve_{i}': (value, weight) for i, value in enumerate(curve.T)}


def _join(means: Scalars) -> Means:
  curve = [means.pop(f'f_curve_{i}') for i in range(len(THRESHOLDS))]
  return means | {'f_curve': np.array(curve)}


def data(config: ml_collections.ConfigDict, split: str) -> Dataset:
  """Clips of `config.data` with the masks that the split has.

  `size`: of frames and masks. `first`: in training, of composed clips too, only the first second
  has a mask, as in S4. `blank`: fields that are replaced by zeros, to see what the other stream
  alone is worth.
  """
  fields = config.data
  recipe = {
    name: fields[name] for name in ('source', 'media', 'knobs', 'clips', 'seed') if name in fields
  }
  first = fields.first and split == 'train'
  masks = scene_labels.SoundingMasks(first) if recipe else transforms.DecodeMasks()
  return Dataset(
    datasets.load(split, fields.name, fields.dir, **recipe),
    (
      transforms.DecodeFrames(fields.size),
      transforms.DecodeWave(fields.segments, config.model.audio.sample_rate),
      masks,
      transforms.Blank(tuple(fields.blank)),
      transforms.Keep(('video', 'wave', 'masks')),
    ),
  )
