"""All tasks, by their names in a config."""

import ml_collections

from dgsct_jax import settings
from dgsct_jax.scenes import unimodal
from dgsct_jax.tasks import ave, avqa, avs, avvp, ma_avt, matching, tags
from dgsct_jax.tasks.task import Task

TASKS = {
  'ave': ave.build,
  'avqa': avqa.build,
  'avqa_grounding': avqa.build_grounding,
  'avvp': avvp.build,
  'avs': avs.build,
  'ma_avt': ma_avt.build,
  'matching': matching.build,
  'tags': tags.build,
  'unimodal': unimodal.build,
}


def build(config: ml_collections.ConfigDict) -> Task:
  """The task that `config.task` names.

  Raises ValueError if there is none of that name, or a setting cannot be used.
  """
  if config.task not in TASKS:
    raise ValueError(f'config.task is {config.task!r}; choose one of {", ".join(TASKS)}.')
  settings.check(config)
  return TASKS[config.task](config)
