"""Texts as the bytes of their letters: for toy text towers, which need no vocabulary."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from dgsct_jax.tokenizers import clip, pad, roberta

CLIP_VOCABULARY, ROBERTA_VOCABULARY = 259, 259


def words(text: str) -> list[int]:
  """The ids of a text alone, in the numbering of `encode_as_clip`."""
  return [1 + byte for byte in clip.clean(text).encode()]


def encode_as_clip(texts: Sequence[str], context: int) -> Int32[np.ndarray, 'c l']:
  """As `clip.encode`: a start, an end, which has the largest id, and zeros after it."""
  return pad(texts, [[257, *words(text), 258] for text in texts], context, 0)


def encode_as_roberta(texts: Sequence[str], context: int) -> Int32[np.ndarray, 'c l']:
  """As `roberta.encode`, with its special tokens."""
  start, padding, end = roberta.SPECIAL.values()
  first = 1 + max(roberta.SPECIAL.values())
  ids = [[start, *(first + byte for byte in text.encode()), end] for text in texts]
  return pad(texts, ids, context, padding)
