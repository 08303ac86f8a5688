"""The best checkpoint of a run as a folder that others can use; `dgsct_jax.published` reads it."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dgsct_jax import checkpoint, published, trained, tree, whole
from dgsct_jax.convert import read
from dgsct_jax.convert.table import VERSION
from dgsct_jax.data import datasets
from dgsct_jax.trained import Trained

PATHS = ('dir', 'media', 'pseudo')  # fields of config.data that mean something on one machine


def publish(workdir: Path, out: Path, dtype: str = 'float32') -> str:
  """Writes the folder whole or not at all, and says what it holds.

  Args:
    dtype: what the variables are stored as.

  Raises:
    ValueError: `workdir` is no run, its frozen weights are missing, or `out` exists.
  """
  if out.exists():
    raise ValueError(f'{out} exists; name a new folder.')
  model = trained.load(workdir, trained.read_config(workdir))
  run = checkpoint.read_run(*checkpoint.find(workdir, step=model.step))
  variables = {
    path: np.asarray(leaf).astype(dtype)
    for path, leaf in tree.flatten(model.variables.joined).items()
  }
  metrics = workdir / 'metrics.json'
  about = {
    'config': _portable(run['config']),
    'weights': run['weights'],
    'step': model.step,
    'metrics': json.loads(metrics.read_text()) if metrics.is_file() else {},
    'versions': {name: metadata.version(name) for name in ('dgsct-jax', 'jax', 'flax')},
  }
  names = datasets.of(model.config.data).classes(model.config.data)
  try:
    with whole.beside(out) as folder:
      read.write(
        folder / published.WEIGHTS,
        variables,
        {'source': 'run', 'variant': 'custom', 'step': str(model.step), 'table': VERSION},
      )
      (folder / published.CONFIG).write_text(json.dumps(about, indent=2) + '\n')
      if names:
        (folder / published.CLASSES).write_text('\n'.join(names) + '\n')
      (folder / published.CARD).write_text(card(out.name, model, about, names))
      whole.seal(folder)
  except OSError as error:
    raise ValueError(f'{out} cannot be written: {error}.') from error
  values = sum(x.size for x in variables.values())
  return f'{out}: {len(variables)} tensors, {values:,} values of step {model.step} of {workdir}'


def _portable(config: dict[str, Any]) -> dict[str, Any]:
  """The settings of a run for a model whose variables all come from one file."""
  data = {name: '' if name in PATHS else value for name, value in config['data'].items()}
  init = {name: published.WEIGHTS if name == 'all' else '' for name in config['init'] | {'all': ''}}
  return config | {'data': data, 'init': init, 'trainable': []}


def card(name: str, model: Trained, about: dict[str, Any], classes: tuple[str, ...]) -> str:
  """The model card: what it is, its data and scores, the weights below it, how to use it."""
  config, metrics = model.config, about['metrics'].get('test', {})
  adapter = config.model.get('adapter', {}).get('name', 'none')
  lines = [
    f'# {name}',
    '',
    f'A model of dgsct_jax {about["versions"]["dgsct-jax"]} for the task `{config.task}`, adapters'
    f' `{adapter}`, trained for {model.step} steps on `{config.data.name}` with the seed'
    f' {config.seed}.',
    '',
    '```',
    f'python -m dgsct_jax.predict --workdir={name} clip.mp4',
    '```',
    '',
    '## Scores on the test split',
    '',
    f'The checkpoint was {about["metrics"].get("chosen", "not scored")}.' if metrics else 'None.',
    '',
    *(['| metric | value |', '| --- | --- |'] if metrics else []),
    *(f'| {metric} | {value:.2f} |' for metric, value in metrics.items()),
    '',
    '## Frozen weights',
    '',
    'Their licences hold for this file, too.',
    '',
    *(f'- `{part}`: {origin}' for part, origin in about['weights'].items()),
    '',
  ]
  if classes:
    lines += ['## Classes', '', ', '.join(classes), '']
  return '\n'.join(lines)
