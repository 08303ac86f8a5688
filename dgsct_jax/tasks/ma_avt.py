"""What MA-AVT learns from and is measured by."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dgsct_jax.tasks.task import Batch, Outputs, Weighted, share

TEMPERATURE = 0.07


def loss(
  outputs: Outputs, batch: Batch, classes: int, contrast_weight: float = 1.0
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Class of foreground pairs, background or not of all pairs, contrast of foreground pairs.

  Pairs are the segments of all clips of the global batch; a label `classes` is background. Parts
  for which the model has no outputs are left out.

  contrast_weight: 1 is the loss of the paper. The release does not differentiate what it gathers
    from other devices, and its gradient of the contrast is 1/N of the true one on N devices; 0.25
    reproduces its four.
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


def mean(x: Float[Array, '*b'], weight: Float[Array, '*b']) -> Float[Array, '']:
  """Over what has weight 1; 0 where nothing has."""
  return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1)


def contrast(
  visual: Float[Array, 'm k p'], audio: Float[Array, 'm k p'], weight: Float[Array, 'm']
) -> Float[Array, '']:
  """Symmetric InfoNCE between the streams of m pairs, the mean over k blocks.

  Args:
    visual, audio: of unit length.
    weight: 1 or 0; pairs of weight 0 are neither rows nor columns.
  """
  logits = jnp.einsum('mkp,nkp->kmn', visual, audio) / TEMPERATURE
  own = jnp.diagonal(logits, axis1=1, axis2=2)

  def one_way(logits: Float[Array, 'k m n']) -> Float[Array, '']:
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
  and then given the right class.
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
  return found


def modulation(
  unimodal_logits: Float[Array, 'b t 2 c'],
  label: Int[Array, 'b t'],
  valid: Float[Array, 'b'],
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


def modulate(
  gradients: Any, coefficients: Float[Array, '2'], key: Array, noise: bool = True
) -> Any:
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
