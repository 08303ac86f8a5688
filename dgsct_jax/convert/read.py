"""Checkpoint files as names and numpy arrays, and our own files of weights."""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from dgsct_jax.convert.table import State

TORCH = ('.pth', '.pt', '.ckpt', '.bin')
SUFFIXES = ('.safetensors', *TORCH, '.npz')
NESTED = ('state_dict', 'model')  # where Lightning, LAION and Microsoft keep the tensors


def fetch(checkpoint: str) -> Path:
  """A local file for a path or `hf://owner/name[/file]`; the latter is downloaded into huggingface_hub's cache."""
  if not checkpoint.startswith('hf://'):
    path = Path(checkpoint).expanduser()
    if not path.is_file():
      raise ValueError(
        f'{path} is not a file; give a {", ".join(SUFFIXES)} or hf://owner/name[/file].'
      )
    return path
  try:
    import huggingface_hub
  except ImportError as error:
    raise ValueError(
      f'{checkpoint} needs huggingface_hub: pip install "dgsct-jax[convert]".'
    ) from error
  owner, name, *rest = checkpoint.removeprefix('hf://').split('/', 2) + [''] * 2
  if not owner or not name:
    raise ValueError(
      f'{checkpoint!r} names no repository; write hf://owner/name or hf://owner/name/file.'
    )
  file = rest[0]
  try:
    if not file:
      files = huggingface_hub.list_repo_files(f'{owner}/{name}')
      file = next((f for f in ('model.safetensors', 'pytorch_model.bin') if f in files), '')
      if not file:
        raise ValueError(
          f'{checkpoint} has neither model.safetensors nor pytorch_model.bin but {", ".join(files)}; '
          f'write hf://{owner}/{name}/FILE.'
        )
    return Path(huggingface_hub.hf_hub_download(f'{owner}/{name}', file))
  except (
    OSError,
    huggingface_hub.errors.HfHubHTTPError,
    huggingface_hub.errors.HFValidationError,
  ) as error:
    raise ValueError(f'{checkpoint} cannot be downloaded: {error}') from error


def read(path: Path) -> State:
  """All tensors of a file by name, floating ones of 16 bits as float32. No code in the file is ever run.

  Raises ValueError where the file is damaged, holds anything that code would have to build, or holds no tensors.
  """
  if path.suffix == '.safetensors':
    return _read_safetensors(path)
  if path.suffix in TORCH:
    return _read_torch(path)
  if path.suffix == '.npz':
    return _read_npz(path)
  raise ValueError(
    f'{path} is no checkpoint by its name; its suffix must be {", ".join(SUFFIXES)}.'
  )


def _read_safetensors(path: Path) -> State:
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise ValueError(f'{path} is not a whole safetensors file: {error}') from error
  return {name: _widen(x) for name, x in tensors.items()}


def _read_npz(path: Path) -> State:
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: _widen(file[name]) for name in file.files}
  except (zipfile.BadZipFile, OSError, ValueError, TypeError) as error:
    raise ValueError(f'{path} is not a whole .npz of plain arrays: {error}') from error


def _widen(x: np.ndarray) -> np.ndarray:
  """16-bit floats as float32: numpy does not count bfloat16 among its floating types."""
  return x.astype(np.float32) if x.dtype.name in ('bfloat16', 'float16') else x


def _read_torch(path: Path) -> State:
  try:
    import torch
  except ImportError as error:
    raise ValueError(f'{path} is a PyTorch file: pip install "dgsct-jax[convert]".') from error
  try:
    content = torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
  except Exception as error:  # torch raises a dozen types for damaged files
    if code := re.search(r'GLOBAL ([\w.]+)', str(error)):
      raise ValueError(
        f'{path} holds more than tensors: reading it would run {code[1]}. If you trust it, keep the '
        'tensors alone, in PyTorch: torch.save(torch.load(PATH, weights_only=False)["state_dict"], NEW).'
      ) from error
    why = (
      type(error).__name__
      if isinstance(error, pickle.UnpicklingError)
      else f'{error}'.split('. ')[0]
    )
    raise ValueError(
      f'{path} is damaged, or no PyTorch file of tensors alone ({why or type(error).__name__}); '
      'fetch it again.'
    ) from error
  for name in NESTED:
    if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
      content = content[name]
  if not isinstance(content, Mapping) or not content:
    raise ValueError(f'{path} holds {type(content).__name__}, no names and tensors.')
  if strange := [name for name, x in content.items() if not isinstance(x, torch.Tensor)]:
    raise ValueError(
      f'{path} holds more than tensors beside its weights: {", ".join(map(str, strange[:9]))}.'
    )
  return {name: _to_numpy(x) for name, x in content.items()}


def _to_numpy(x: Any) -> np.ndarray:
  x = x.detach()
  return (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()


def sha256(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def metadata(path: Path) -> dict[str, str]:
  """Header of a file of ours: source, variant, sha256 of the source file, version of the table."""
  with safetensors.safe_open(path, framework='numpy') as file:
    return dict(file.metadata() or {})


def write(path: Path, state: State, header: Mapping[str, str]) -> None:
  """A whole .safetensors or PyTorch file, or none: written beside its place and renamed."""
  unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    if path.suffix == '.safetensors':
      save_file(
        {name: np.asarray(x, order='C') for name, x in state.items()}, unfinished, dict(header)
      )
    else:
      import torch

      torch.save({name: torch.from_numpy(np.array(x)) for name, x in state.items()}, unfinished)
    unfinished.replace(path)
  finally:
    unfinished.unlink(missing_ok=True)
