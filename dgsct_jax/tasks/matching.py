"""Matching with words: the losses of its training, and what of the model learns."""

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dgsct_jax.models.heads.matching import Classes
from dgsct_jax.tasks.task import Batch, Outputs
from dgsct_jax.tokenizers import clip, roberta

# For config.trainable: as released, both CLIP and CLAP are frozen, their factors and projections,
# too.
TRAINABLE = (
  'encoder/exchange_.*',
  'prompt/.*',
  'visual_adapter/.*',
  'text_adapter/.*',
  'contrast/.*',
)


def tokenize(
  names: tuple[str, ...], vocabulary: Path, words: int = 4, sound: str = 'The sounds of {}'
) -> Classes:
  """What the text towers read of names.

  Args:
    names: '_' stands for a space, but, as released, in the prompts of sounds it is left alone.
    vocabulary: RoBERTa's, see `tokenizers.roberta`.
    words: learned ones in front of a name.
    sound: CLAP's prompt.

  Raises:
    ValueError: there is no name, one stands twice, is empty or too long.
  """
  if not names:
    raise ValueError('There are no classes; give at least one name.')
  meant = [clip.clean(name.replace('_', ' ')) for name in names]
  if faults := [name for name, text in zip(names, meant) if not text or meant.count(text) > 1]:
    raise ValueError(
      f'Names of classes that are empty or stand twice (case and "_" do not count): {faults};'
      ' give each class one name.'
    )
  spaced = [name.replace('_', ' ') for name in names]
  prompts = clip.encode([f'{"X " * words}{name}.' for name in spaced])
  sounds = roberta.encode([sound.format(name) for name in names], vocabulary)
  rows = lambda ids: tuple(tuple(row) for row in ids.tolist())
  return Classes(rows(prompts), tuple(len(clip.words(name)) for name in spaced), rows(sounds))


def loss_parts(outputs: Outputs, batch: Batch) -> dict[str, Float[Array, 'b']]:
  """The three losses of each clip.

  `event`: of the classes; where `batch['target']` is of every second, [b t c], the mean over these,
  and where it is of the clip alone, [b c], that of the mean score. `audio`: which of the pictures
  of the batch belong to the sound; `visual`: which of the sounds belong to the pictures.
  """
  target, logits = batch['target'], outputs['logits']
  if target.ndim == 2:
    event = cross_entropy(logits.mean(1), target)
  else:
    event = cross_entropy(logits, target).mean(1)
  contrast, valid = outputs['contrast'], batch['valid']
  return {
    'event': event,
    'audio': own_is_found(contrast, valid),
    'visual': own_is_found(contrast.T, valid),
  }


def cross_entropy(logits: Float[Array, '*n c'], target: Float[Array, '*n c']) -> Float[Array, '*n']:
  """−Σ target · log softmax; a target of zeros has no loss, as released."""
  return -jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), -1)


def own_is_found(logits: Float[Array, 'b b'], valid: Float[Array, 'b']) -> Float[Array, 'b']:
  """Cross entropy of finding the own one among all of a batch; padding is not among them."""
  logits = jnp.where(valid[None] > 0, logits, jnp.finfo(jnp.float32).min)
  return cross_entropy(logits, jnp.eye(len(logits))) * valid


def total_loss(
  event: Float[Array, ''],
  audio: Float[Array, ''],
  visual: Float[Array, ''],
  epoch: Float[Array, ''],
  weights: Literal['fixed', 'shares', 'shares_released'] = 'shares',
) -> Float[Array, '']:
  """The mean losses of a batch as one.

  fixed: 500 event + 2 audio + 1.5 visual, from epoch 11 on 5 event (few-shot AVE).
  shares: each weighs its share of the sum of all and of the epoch, and 1 / epoch (LLP, pre-
  training).
  shares_released: the same, but for a misplaced parenthesis in the last weight (AVE
  classification).

  Args:
    event: of the classes.
    audio: of sounds with pictures.
    visual: of pictures with sounds.
    epoch: from 1 on.
    weights: which of the three. As released, gradients pass through them.
  """
  if weights == 'fixed':
    return jnp.where(epoch <= 10, 500.0, 5.0) * event + 2 * audio + 1.5 * visual
  if weights not in ('shares', 'shares_released'):
    raise ValueError(
      f"Losses cannot be weighed by {weights!r}; choose 'fixed', 'shares' or 'shares_released'."
    )
  sum_ = event + audio + visual
  share = lambda part: part / (epoch + sum_) + 1 / epoch
  last = share(visual)
  if weights == 'shares_released':
    last = visual / epoch + sum_ + 1 / epoch
  return share(event) * event + share(audio) * audio + last * visual


def clip_target(label: np.ndarray, classes: int) -> np.ndarray:
  """The class of a clip [classes] from those of its seconds [t]: the first that is not background.

  Zeros where all are, as released.
  """
  target = np.zeros(classes, np.float32)
  event = label[label < classes]
  target[event[:1]] = 1
  return target
