"""Real photographs and recordings for tests, fetched by package name and never committed."""

import functools
import os
from pathlib import Path
import subprocess
import tempfile

import pytest

CACHE = Path(os.environ.get('DGSCT_MEDIA', Path.home() / '.cache/dgsct_jax/media'))


@functools.cache
def debian(package: str, proof: str) -> Path:
  """The folder into which a Debian package was unpacked; skips the test where it cannot be had.

  `proof`: a path inside the package by which one recognises that it is there. Packages that are
  installed or lie in $DGSCT_MEDIA are used as they are.
  """
  for folder in (CACHE, Path('/')):
    if (folder / proof).exists():
      return folder
  try:
    with tempfile.TemporaryDirectory() as folder:
      run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True)
      run(['apt-get', 'download', package], timeout=300)
      CACHE.mkdir(parents=True, exist_ok=True)
      run(['dpkg-deb', '-x', str(next(Path(folder).glob('*.deb'))), str(CACHE)], timeout=300)
  except (OSError, subprocess.SubprocessError) as error:
    pytest.skip(f'the Debian package {package} cannot be fetched ({error}); '
                f'unpack it into {CACHE} or set DGSCT_MEDIA')
  return CACHE
