"""No data set: classes that the user names, to be found in any file without training."""

from typing import Any

from dgsct_jax.data import clips, kind, records

SECONDS = 10


def load(fields: Any, split: str) -> records.Records:
  """Raises ValueError: there are no clips to train on, or to score."""
  raise ValueError(
    f'config.data.kind is {fields.kind!r}: there is no split {split!r}, as there are no clips but'
    ' those that `python -m dgsct_jax.predict` is given.'
  )


KIND = kind.Kind(
  classes=lambda fields: tuple(fields.classes),
  windows=lambda fields, length: clips.consecutive(length, clips.middles(SECONDS)),
  load=load,
)
