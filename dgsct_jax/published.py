"""A trained model as a folder for others: plain values and texts, of which nothing is executed.

  config.json        the settings, the step, the metrics, the hashes of the frozen weights
  model.safetensors  all variables
  classes.txt        the names of the classes, where the data set has them
  README.md          the model card
  manifest.json      the size and the sha256 of each of these files

`convert/publish.py` writes it. `predict --workdir` takes the folder in place of a run, and
hf://owner/name, where it was put on the Hugging Face hub.
"""

import json
import os
from pathlib import Path
from typing import Any

from dgsct_jax import hub, whole

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
CLASSES = 'classes.txt'
CARD = 'README.md'
NEEDED = {CONFIG, WEIGHTS}
FILES = (CONFIG, WEIGHTS, CLASSES, CARD)


def is_one(folder: Path) -> bool:
  """Whether a folder is a published model."""
  return (folder / whole.MANIFEST).is_file() and not (folder / 'checkpoints').exists()


def fetch(given: str) -> Path:
  """A folder by its path, or `hf://owner/name`, whose files are downloaded.

  Raises:
    ValueError: a file cannot be downloaded.
  """
  if not given.startswith('hf://'):
    return Path(os.path.expanduser(given))
  folder = Path(hub.beside(given, whole.MANIFEST))
  for name in _listed(folder):
    hub.beside(given, name)
  return folder


def read(folder: Path) -> dict[str, Any]:
  """What config.json says, after all files were compared with the manifest.

  Raises:
    ValueError: a file is missing, damaged or altered.
  """
  _listed(folder)
  if fault := whole.fault(folder, FILES):
    raise ValueError(f'{folder} is no longer what was published: {fault}. Fetch it again.')
  return _said(folder)


def step(folder: Path) -> int:
  """The step after which the model was published."""
  return int(_said(folder)['step'])


def _said(folder: Path) -> dict[str, Any]:
  said: dict[str, Any] = json.loads((folder / CONFIG).read_text())
  return said


def _listed(folder: Path) -> list[str]:
  """The files that the manifest lists."""
  path = folder / whole.MANIFEST
  try:
    files = list(json.loads(path.read_text()))
  except (TypeError, ValueError) as error:
    raise ValueError(f'{path} cannot be read ({error}). Fetch the folder again.') from error
  if not NEEDED <= set(files) <= set(FILES):
    raise ValueError(
      f'{path} lists {", ".join(map(str, files)) or "nothing"}; a published model has'
      f' {", ".join(FILES)}. Fetch the folder again.'
    )
  return files
