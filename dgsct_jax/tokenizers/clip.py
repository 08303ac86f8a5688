"""OpenAI's byte-pair tokenizer of CLIP, with its cleaning of texts.

`clip_merges.txt.gz` holds the merges that CLIP uses of OpenAI's `bpe_simple_vocab_16e6.txt.gz`:
lines 2 to 48895. See LICENSE-CLIP.
"""

import functools
import gzip
import html
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32

from dgsct_jax.tokenizers import pad

MERGES = Path(__file__).with_name('clip_merges.txt.gz')
START, END = '<|startoftext|>', '<|endoftext|>'
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# What ftfy, which OpenAI cleans with, makes of single characters. It also undoes wrong decoding
# ('cafÃ©'), which is not done here.
QUOTES = {ord(c): "'" for c in '\u02bc\u2018\u2019\u201a\u201b'} | {
  ord(c): '"' for c in '\u201c\u201d\u201e\u201f'
}
COMPATIBLE = re.compile(
  '[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\u3000\ufb00-\ufb06\uff01-\uffee]'
)
CONTROL = re.compile('[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]')


def encode(texts: Sequence[str], context: int = 77) -> Int32[np.ndarray, 'c l']:
  """Ids of texts between start and end, filled up with 0; `l` is `context`.

  Raises ValueError where a text is longer: none is cut.
  """
  start, end = (int(_bpe().token_to_id(token) or 0) for token in (START, END))
  ids = [[start, *words(text), end] for text in texts]
  return pad(texts, ids, context, 0)


def words(text: str) -> list[int]:
  """The ids of a text alone. A literal end token in it is the end token, as released."""
  return _bpe().encode(clean(text), add_special_tokens=False).ids


def clean(text: str) -> str:
  """The text in lower case, with plain quotes and single spaces, HTML undone."""
  text = COMPATIBLE.sub(lambda found: unicodedata.normalize('NFKC', found[0]), text)
  text = unicodedata.normalize('NFC', CONTROL.sub('', text.translate(QUOTES)))
  text = html.unescape(html.unescape(text))
  return ' '.join(text.split()).lower()


@functools.cache
def _bpe() -> tokenizers.Tokenizer:
  lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
  merges = [(left, right) for left, right in map(str.split, lines)]
  printable = [*range(ord('!'), ord('~') + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
  letters = [chr(x) for x in printable] + [chr(256 + i) for i in range(256 - len(printable))]
  tokens = [*letters, *(x + '</w>' for x in letters), *map(''.join, merges), START, END]
  model = tokenizers.models.BPE(
    {token: i for i, token in enumerate(tokens)}, merges, end_of_word_suffix='</w>'
  )
  bpe = tokenizers.Tokenizer(model)
  split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), 'removed', invert=True)
  as_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, as_bytes])
  bpe.add_special_tokens([START, END])
  return bpe
