"""Checkpoint files as names and numpy arrays, and our own files of weights."""

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

from dgsct_jax.convert import tf_bundle, torch_file
from dgsct_jax.convert.table import State, one_line

SAFETENSORS = 'BOOL U8 I8 U16 I16 U32 I32 U64 I64 F16 BF16 F32 F64 C64'.split()  # plain values
TORCH = ('.pth', '.pt', '.ckpt', '.bin')
SUFFIXES = ('.safetensors', *TORCH, '.npz', '.index')
NESTED = ('state_dict', 'model')  # where Lightning, LAION and Microsoft keep the tensors


def read(path: Path) -> State:
  """All tensors of a file by name, floating ones of 16 bits as float32. No code in it is ever run.

  Raises:
    ValueError: the file is damaged, holds what code would have to build, or no tensors.
  """
  if path.suffix == '.safetensors':
    return _read_safetensors(path)
  if path.suffix in TORCH:
    return _read_torch(path)
  if path.suffix == '.npz':
    return _read_npz(path)
  if path.suffix == '.index':
    return tf_bundle.read(path)
  raise ValueError(
    f'{path} is no checkpoint by its name; its suffix must be {", ".join(SUFFIXES)}.'
  )


def _read_safetensors(path: Path) -> State:
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
      if strange := {name: kind for name, kind in kinds.items() if kind not in SAFETENSORS}:
        raise ValueError(_unusable(path, strange))
      tensors = {name: file.get_tensor(name) for name in kinds}
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(f'{path} is not a whole safetensors file: {error}') from error
  return {name: _widen(x) for name, x in tensors.items()}


def _read_npz(path: Path) -> State:
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: _widen(file[name]) for name in file.files}
  except Exception as error:  # A damaged archive raises what NumPy, zipfile or zlib does.
    raise ValueError(f'{path} is not a whole .npz of plain arrays: {error}') from error


def _widen(x: np.ndarray) -> np.ndarray:
  """16-bit floats as float32: numpy does not count bfloat16 among its floating types."""
  return x.astype(np.float32) if x.dtype.name in ('bfloat16', 'float16') else x


def _read_torch(path: Path) -> State:
  try:
    content = torch_file.read(path)
    value = content.value
    for name in NESTED:
      if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
        value = value[name]
    tensors = dict(value) if isinstance(value, Mapping) else {}
  except torch_file.ForeignName as error:
    raise ValueError(
      f'{path} is no PyTorch file of tensors alone: to load it would run {error}. Nothing of it was'
      ' run. Fetch it again, or ask where it was made for torch.save(model.state_dict(), FILE).'
    ) from error
  except Exception as error:  # A damaged pickle raises anything.
    raise ValueError(
      f'{path} is damaged, or no PyTorch file of tensors alone ({_why(error)}); fetch it again.'
    ) from error
  if not tensors:
    raise ValueError(f'{path} holds {type(value).__name__}, no names and tensors.')
  if strange := [name for name in tensors if not isinstance(name, str)]:
    raise ValueError(
      f'{path} has keys that are no names: {_list(map(repr, strange))}. Save the state dict of the '
      'whole model: torch.save(model.state_dict(), FILE).'
    )
  if others := {name: x.kind for name, x in tensors.items() if isinstance(x, torch_file.Other)}:
    raise ValueError(_unusable(path, others))
  if strange := [name for name, x in tensors.items() if not isinstance(x, torch_file.Tensor)]:
    raise ValueError(f'{path} holds more than tensors beside its weights: {_list(strange)}.')
  state = {}
  for name, x in tensors.items():
    try:
      state[name] = _widen(content.array(x))
    except Exception as error:
      raise ValueError(
        f'{path} is damaged at {one_line(name)} ({_why(error)}); fetch it again.'
      ) from error
  return state


def _unusable(path: Path, kinds: Mapping[str, str]) -> str:
  return (
    f'{path} has {len(kinds)} tensors without plain values: '
    f'{_list(f"{name} ({kind})" for name, kind in kinds.items())}. Save them dense and as float32, '
    'where the file was made.'
  )


def _list(names: Iterable[str], most: int = 9) -> str:
  names = [one_line(name) for name in names]
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def _why(error: Exception) -> str:
  return one_line(f'{type(error).__name__}: {error}'.splitlines()[0])


def sha256(path: Path) -> str:
  """The hash of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def metadata(path: Path) -> dict[str, str]:
  """Header of a file of ours: source, variant, sha256 of the source file, version of the table."""
  with safetensors.safe_open(path, framework='numpy') as file:
    return dict(file.metadata() or {})


def check_place(path: Path) -> None:
  """Raises ValueError where a file cannot be written, before the work is done."""
  if os.path.isdir(path):  # False, not an error, for any name
    raise ValueError(f'{path} is a folder; give the name of a file.')
  if path.suffix != '.safetensors' and not importlib.util.find_spec('torch'):
    raise ValueError(
      f"{path} is written by torch: pip install 'dgsct-jax[convert]', or give a name that ends in"
      ' .safetensors.'
    )
  try:
    with _beside(path) as unfinished:
      unfinished.touch()
  except OSError as error:
    raise ValueError(f'{path} cannot be written ({error.strerror}); give another name.') from error


def write(path: Path, state: State, header: Mapping[str, str]) -> None:
  """A whole .safetensors or PyTorch file, or none: written beside its place and renamed.

  Raises:
    ValueError: it cannot be written.
  """
  try:
    with _beside(path) as unfinished:
      if path.suffix == '.safetensors':
        save_file(
          {name: np.asarray(x, order='C') for name, x in state.items()}, unfinished, dict(header)
        )
      else:
        import torch

        torch.save({name: torch.from_numpy(np.array(x)) for name, x in state.items()}, unfinished)
      unfinished.replace(path)
  except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch's own is the second
    raise ValueError(f'{path} cannot be written ({_why(error)}).') from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
  """A name for an unfinished file, of which nothing stays."""
  unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield unfinished
  finally:
    with contextlib.suppress(OSError):
      unfinished.unlink(missing_ok=True)
