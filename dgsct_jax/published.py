"""A trained model as a folder for others: plain values and texts, of which nothing is executed.

  config.json        the settings, the step, the metrics, the hashes of the frozen weights
  model.safetensors  all variables
  classes.txt        the names of the classes, where the data set has them
  README.md          the model card
  manifest.json      the sha256 of each of these files

`convert/publish.py` writes it. `predict --workdir` takes the folder in place of a run, and
hf://owner/name, where it was put on the Hugging Face hub.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dgsct_jax import hub

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
CLASSES = 'classes.txt'
CARD = 'README.md'
MANIFEST = 'manifest.json'
FILES = (CONFIG, WEIGHTS, CLASSES, CARD)


def seal(folder: Path) -> None:
  """Writes the manifest of the files that are there."""
  files = {name: _sha256(folder / name) for name in FILES if (folder / name).exists()}
  text = json.dumps({'format': 1, 'files': files}, indent=2)
  (folder / MANIFEST).write_text(f'{text}\n')


def is_one(folder: Path) -> bool:
  """Whether a folder is a published model."""
  return (folder / MANIFEST).is_file() and not (folder / 'checkpoints').exists()


def fetch(given: str) -> Path:
  """A folder by its path, or `hf://owner/name`, whose files are downloaded.

  Raises:
    ValueError: a file cannot be downloaded.
  """
  if not given.startswith('hf://'):
    return Path(os.path.expanduser(given))
  folder = Path(hub.beside(given, MANIFEST))
  for name in _listed(folder):
    hub.beside(given, name)
  return folder


def about(folder: Path) -> dict[str, Any]:
  """What config.json says."""
  said: dict[str, Any] = json.loads((folder / CONFIG).read_text())
  return said


def check(folder: Path) -> None:
  """Compares all files with the manifest.

  Raises:
    ValueError: a file is missing, damaged or altered.
  """
  for name, sha256 in _listed(folder).items():
    path = folder / name
    if not path.is_file():
      raise ValueError(f'{path} is missing; {MANIFEST} lists it. Fetch the folder again.')
    if (found := _sha256(path)) != sha256:
      raise ValueError(
        f'{path} has the sha256 {found}, {MANIFEST} says {sha256}: it was damaged or altered. Fetch'
        ' the folder again.'
      )


def _listed(folder: Path) -> dict[str, str]:
  """File -> sha256, by the manifest."""
  path = folder / MANIFEST
  try:
    files = json.loads(path.read_text())['files']
    if not {CONFIG, WEIGHTS} <= set(files) <= set(FILES):
      raise ValueError(f'it lists {", ".join(files)}')
    return dict(files)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f'{path} is no manifest of a published model: {error!r}.') from error


def _sha256(path: Path) -> str:
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()
