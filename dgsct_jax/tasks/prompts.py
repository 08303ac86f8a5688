"""The names of classes as the text towers of CLIP and CLAP read them."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dgsct_jax import hub
from dgsct_jax.models.heads.matching import Classes
from dgsct_jax.tokenizers import clip, letters, roberta

LETTERS = 'letters'
LONGEST = 77  # tokens that CLAP was trained with; its text tower holds more


class Tokenizer(NamedTuple):
  """encode: texts -> ids [c l]. words: a text -> its ids alone, without start and end."""

  encode: Callable[[Sequence[str]], np.ndarray]
  words: Callable[[str], list[int]]


def of_clip(name: str, context: int) -> Tokenizer:
  """The tokenizer 'clip' of CLIP, or 'letters' of toy towers, of so many tokens at most."""
  if name == LETTERS:
    return Tokenizer(functools.partial(letters.encode_as_clip, context=context), letters.words)
  if name != 'clip':
    raise ValueError(f"config.model.tokenizer.clip is {name!r}; set 'clip' or '{LETTERS}'.")
  return Tokenizer(functools.partial(clip.encode, context=context), clip.words)


def of_clap(name: str, weights: str, context: int) -> Callable[[Sequence[str]], np.ndarray]:
  """Texts -> ids [c l], with RoBERTa's vocabulary, or by 'letters'.

  Args:
    name: of the vocabulary, a file, a folder, or one of the hub; '': it lies beside the weights.
    weights: of CLAP, as `config.init.clap` names them.
    context: the most tokens of a text.
  """
  if name == LETTERS:
    return functools.partial(letters.encode_as_roberta, context=context)
  if not name and not weights:
    raise ValueError(
      'config.model.tokenizer.clap is not given: name the tokenizer.json, or the folder with'
      ' vocab.json and merges.txt, that lies beside the weights of CLAP.'
    )
  vocabulary = name or hub.beside(weights, 'tokenizer.json')
  path = hub.fetch(vocabulary) if vocabulary.startswith('hf://') else Path(vocabulary)
  return functools.partial(roberta.encode, path=path, context=context)


def read(
  names: Sequence[str],
  picture: str,
  sound: str,
  tokenizer: Tokenizer,
  encode_sounds: Callable[[Sequence[str]], np.ndarray],
) -> Classes:
  """What the text towers read of the names of classes.

  Args:
    names: '_' stands for a space, but, as released, it is left alone in the prompts of sounds.
    picture, sound: the prompts of CLIP and of CLAP, in which '{}' stands for the name.
    tokenizer, encode_sounds: of CLIP and of CLAP.

  Raises:
    ValueError: a name stands twice, is empty or too long; or a prompt has no '{}'.
  """
  for field, prompt in (('picture', picture), ('sound', sound)):
    if prompt.count('{}') != 1 or prompt.count('{') != 1 or prompt.count('}') != 1:
      raise ValueError(
        f'config.model.head.{field} is {prompt!r}; write {{}} once, where the name goes.'
      )
  meant = [clip.clean(name.replace('_', ' ')) for name in names]
  if faults := [name for name, text in zip(names, meant) if not text or meant.count(text) > 1]:
    raise ValueError(
      f'Names of classes that are empty or stand twice (case and "_" do not count): {faults};'
      ' give each class one name.'
    )
  spaced = [name.replace('_', ' ') for name in names]
  rows = lambda ids: tuple(tuple(row) for row in ids.tolist())
  return Classes(
    rows(tokenizer.encode([picture.format(name) for name in spaced])),
    tuple(len(tokenizer.words(name)) for name in spaced),
    rows(encode_sounds([sound.format(name) for name in names])),
  )


def context(picture: str, tokenizer: Tokenizer) -> int:
  """How many tokens stand before the name in the prompt of CLIP."""
  return len(tokenizer.words(picture.partition('{}')[0]))
