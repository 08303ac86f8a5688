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

  Raises:
    ValueError: there is none of that name, a setting cannot be used, or the config is of another
      task.
  """
  if config.task not in TASKS:
    raise ValueError(f'config.task is {config.task!r}; choose one of {", ".join(TASKS)}.')
  settings.check(config)
  try:
    task = TASKS[config.task](config)
  except (AttributeError, KeyError) as error:
    field = str(error).strip('"\'')
    raise ValueError(
      f'config.task={config.task!r} needs a field {field!r}, which this config does not have;'
      ' choose the config of this task.'
    ) from error
  if not task.ask and set(config.data.get('blank', ())) >= {'video', 'wave'}:
    raise ValueError(
      "config.data.blank is ('video', 'wave'): nothing is left that the answer could depend on, as"
      ' this task asks no question. Blank one of them.'
    )
  return task
