"""All data sets, by their names in `config.data.kind`."""

from typing import Any

from dgsct_jax.data.datasets import (
  ave,
  avsbench_ms3,
  avsbench_s4,
  cremad,
  llp,
  music_avqa,
  vggsound,
  vggsound_avel,
  words,
)
from dgsct_jax.data.kind import Kind
from dgsct_jax.scenes import dataset as scenes

KINDS: dict[str, Kind] = {
  'ave': ave.KIND,
  'avsbench_ms3': avsbench_ms3.KIND,
  'avsbench_s4': avsbench_s4.KIND,
  'cremad': cremad.KIND,
  'llp': llp.KIND,
  'music_avqa': music_avqa.KIND,
  'scene_questions': scenes.QUESTIONS,
  'scenes': scenes.KIND,
  'vggsound': vggsound.KIND,
  'vggsound_avel': vggsound_avel.KIND,
  'words': words.KIND,
}


def of(fields: Any) -> Kind:
  """The data set of `config.data`. Raises ValueError if there is none of that kind."""
  if fields.kind not in KINDS:
    raise ValueError(f'config.data.kind is {fields.kind!r}; choose one of {", ".join(KINDS)}.')
  return KINDS[fields.kind]
