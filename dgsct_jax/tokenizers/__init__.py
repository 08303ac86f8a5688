"""From the names of classes to the ids that text towers read."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32


def pad(
  texts: Sequence[str], ids: Sequence[Sequence[int]], context: int, padding: int
) -> Int32[np.ndarray, 'c l']:
  """Rows of ids, filled up to the length `context`.

  Raises ValueError where a text is longer: all such texts by name, none is cut.
  """
  long = [f'{text!r} ({len(row)})' for text, row in zip(texts, ids) if len(row) > context]
  if long:
    raise ValueError(
      f'The text tower holds {context} tokens, its start and end among them; too long:'
      f' {", ".join(long)}. Shorten the names or the prompt.'
    )
  out = np.full((len(ids), context), padding, np.int32)
  for row, found in zip(out, ids):
    row[: len(found)] = found
  return out
