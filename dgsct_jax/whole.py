"""Files and folders that are whole or not there, and that tell whether they still are.

What is written lies under another name until all of it is on disk. A folder that lasts has a
manifest, written last: every file in it with its size and hash.
"""

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

MANIFEST = 'manifest.json'
_appending = threading.Lock()


def write(path: Path, text: str) -> None:
  """Writes a text file, whole or not at all. Text may hold `surrogateescape`d bytes."""
  part = path.with_name(f'.{path.name}.part')
  try:
    part.write_text(text, encoding='utf-8', errors='surrogateescape')
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
  """Adds text to a file, all of it or nothing; of several threads one after another."""
  with _appending:
    size = path.stat().st_size if path.exists() else 0
    try:
      with path.open('a', encoding='utf-8') as file:
        file.write(text)
    except OSError:
      if path.exists():
        os.truncate(path, size)
      raise


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[Path]:
  """A new folder whose files go to `folder` once all are written; after an error, none of them.

  Files of the same name are replaced, others stay.
  """
  part = folder.with_name(f'.{folder.name}.part')
  shutil.rmtree(part, ignore_errors=True)  # of a killed process
  part.mkdir(parents=True)
  try:
    yield part
    folder.mkdir(exist_ok=True)
    for file in sorted(part.iterdir(), key=lambda file: file.stat().st_mtime_ns):
      os.replace(file, folder / file.name)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def seal(folder: Path, without: Collection[str] = ()) -> None:
  """Writes the manifest of a folder, after all of its files are on disk.

  Args:
    without: names of files that will still change.
  """
  files = {}
  for path in sorted(folder.rglob('*')):
    if not path.is_file() or path.name in without:
      continue
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      os.fsync(file.fileno())
      files[path.relative_to(folder).as_posix()] = {'bytes': file.tell(), 'sha256': digest}
  with (folder / MANIFEST).open('w', encoding='utf-8') as file:
    json.dump(files, file, indent=1)
    file.flush()
    os.fsync(file.fileno())


def fault(folder: Path, contents: Collection[str] = ()) -> str:
  """What is wrong with a sealed folder, in a few words; empty if nothing is.

  Sizes are compared, and hashes of what lies below the `contents`, names of files or folders.
  """
  try:
    files = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    for name, known in files.items():
      path = folder / name
      if not path.is_file():
        return f'{name} is missing'
      if path.stat().st_size != known['bytes']:
        return f'{name} has {path.stat().st_size} bytes of {known["bytes"]}'
      if name.split('/')[0] in contents:
        with path.open('rb') as file:
          if hashlib.file_digest(file, 'sha256').hexdigest() != known['sha256']:
            return f'{name} is not what was written'
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    return f'{MANIFEST} cannot be read ({type(error).__name__})'
  return ''
