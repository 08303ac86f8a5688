"""The public label files of AVE, LLP and MUSIC-AVQA, where they lie beside the repository."""

import os
from pathlib import Path

import pytest

FOLDER = Path(
  os.environ.get('DGSCT_ANNOTATIONS') or Path(__file__).parents[2] / 'shared/annotations'
)


def folder(name: str) -> Path:
  """That of a data set; skips the test where it is missing."""
  if not (FOLDER / name).is_dir():
    pytest.skip(f'there are no label files in {FOLDER / name} (set DGSCT_ANNOTATIONS)')
  return FOLDER / name
