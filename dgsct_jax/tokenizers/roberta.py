"""RoBERTa's byte-pair tokenizer, which CLAP reads with.

Its vocabulary is not part of this package; we found no package that ships it.
It lies beside CLAP's weights at Hugging Face, as tokenizer.json or as vocab.json and merges.txt.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32

from dgsct_jax.tokenizers import pad

SPECIAL = {'<s>': 0, '<pad>': 1, '</s>': 2}


def encode(texts: Sequence[str], path: Path, context: int = 77) -> Int32[np.ndarray, 'c l']:
  """Ids of texts between `<s>` and `</s>`, filled up with `<pad>`; `l` is `context`.

  Args:
    path: a tokenizer.json, or a folder with one or with vocab.json and merges.txt.

  Raises:
    ValueError: there is no such vocabulary, or a text is longer. The release cuts these.
  """
  bpe = _load(Path(path).expanduser().resolve())
  start, padding, end = SPECIAL.values()
  found = (bpe.encode(text, add_special_tokens=False).ids for text in texts)
  return pad(texts, [[start, *ids, end] for ids in found], context, padding)


@functools.cache
def _load(path: Path) -> tokenizers.Tokenizer:
  file = path / 'tokenizer.json' if path.is_dir() else path
  parts = [path / name for name in ('vocab.json', 'merges.txt')]
  if file.is_file():
    try:
      bpe = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
      raise ValueError(f'{file} is no tokenizer.json: {error}.') from error
  elif all(part.is_file() for part in parts):
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*map(str, parts)))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.add_special_tokens(list(SPECIAL))
  else:
    raise ValueError(
      f'No vocabulary of RoBERTa at {path}: give a tokenizer.json, or a folder with it or with'
      ' vocab.json and merges.txt; they lie beside the weights of CLAP or of roberta-base.'
    )
  bpe.no_truncation()
  bpe.no_padding()
  wrong = {token: bpe.token_to_id(token) for token in SPECIAL}
  if wrong != SPECIAL:
    raise ValueError(f'{path} is no vocabulary of RoBERTa: its {wrong} should be {SPECIAL}.')
  return bpe
