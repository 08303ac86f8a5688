"""What torch.save or torch.jit.save wrote, read without PyTorch and without running anything.

Every function that a pickle names stays a name here, and a call of one gives a plain value. Zipped
files and those of PyTorch before 1.6 are read, in pickle protocols 2 to 5; of a TorchScript
program, such as OpenAI's files of CLIP, the weights and not the code. The checksums of a zip are
looked at, so that a flipped bit is noticed; `torch.load` does not look at them.
"""

import io
import math
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of an unzipped file
KNOWN = re.compile(  # names that files of tensors hold
  r'torch\.\w+|torch\.(cuda|storage)\.\w+|torch\._utils\._rebuild_\w+'
  r'|torch\._tensor\._rebuild_from_type_v2|torch\.serialization\._get_layout'
  r'|torch\.nn\.parameter\.Parameter|collections\.(OrderedDict|Counter)|_codecs\.encode'
  r'|(__builtin__|builtins)\.(set|bytearray|complex)'
  r'|numpy(\.core\.multiarray|\._core\.multiarray)?\.(scalar|dtype)'  # a metric beside the weights
)
STORAGES = {  # `torch.FloatStorage` holds `torch.float32`
  'Float': 'float32',
  'Double': 'float64',
  'Half': 'float16',
  'BFloat16': 'bfloat16',
  'Char': 'int8',
  'Short': 'int16',
  'Int': 'int32',
  'Long': 'int64',
  'Byte': 'uint8',
  'Untyped': 'uint8',
  'Bool': 'bool',
  'ComplexFloat': 'complex64',
  'ComplexDouble': 'complex128',
  'QInt8': 'int8',
  'QUInt8': 'uint8',
  'QInt32': 'int32',
}
DTYPES = {*STORAGES.values(), 'uint16', 'uint32', 'uint64'}


class ForeignName(Exception):
  """The file names what is no part of a tensor; to load it the usual way would run that."""


class Storage(NamedTuple):
  """A run of values somewhere in the file."""

  key: str
  dtype: str
  length: int


class Tensor(NamedTuple):
  """A view of a storage, not read yet; offset and strides in elements."""

  storage: Storage
  dtype: str
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Other(NamedTuple):
  """What has no plain values: `kind` says why."""

  kind: str

  def __setstate__(self, state: Any) -> None:
    """Nothing is kept."""


class Name(NamedTuple):
  """A function or class that the file names."""

  name: str

  def __call__(self, *args: Any) -> Any:
    """One of the values above, an OrderedDict or a tuple; nothing else is ever built."""
    build: Any = BUILD.get(self.name, lambda *args: Other(self.name))
    return build(*args)


class Script:
  """A module of a TorchScript program: its attributes, whatever its class and code are."""

  attributes: dict[str, Any] = {}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.attributes = state

  def tensors(self, prefix: str = '') -> dict[str, Tensor]:
    """Those of the module and of the modules in it, as its state dict names them."""
    found: dict[str, Tensor] = {}
    for name, x in self.attributes.items():
      if isinstance(x, Script):
        found |= x.tensors(f'{prefix}{name}.')
      elif isinstance(x, Tensor):
        found[prefix + name] = x
    return found


class Content(NamedTuple):
  """The pickled value with each tensor as a `Tensor`, and the function that reads one."""

  value: Any
  array: Callable[[Tensor], Shaped[np.ndarray, '...']]  # may raise as `read` does


def read(path: Path) -> Content:
  """What a file holds.

  Raises:
    ForeignName: more than tensors.
    Exception: of any type; the file is damaged, or torch.save did not write it.
  """
  return _zipped(path) if zipfile.is_zipfile(path) else _unzipped(path)


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, bits=None):
  if bits:
    return Other('conjugate or negative view')
  return Tensor(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_of_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, bits=None):
  name = dtype.name.removeprefix('torch.')
  if bits or name not in DTYPES:
    return Other(f'{name} tensor')
  return Tensor(storage, name, offset, tuple(shape), tuple(strides))


BUILD = {
  'collections.OrderedDict': OrderedDict,
  'torch.Size': tuple,
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _tensor_of_dtype,
  'torch._utils._rebuild_parameter': lambda data, *rest: data,
  'torch._utils._rebuild_parameter_with_state': lambda data, *rest: data,
  'torch._tensor._rebuild_from_type_v2': lambda build, kind, args, state: build(*args),
  'torch._utils._rebuild_sparse_tensor': lambda *args: Other('sparse tensor'),
  'torch._utils._rebuild_meta_tensor_no_storage': lambda *args: Other('meta tensor without values'),
  'torch._utils._rebuild_qtensor': lambda *args: Other('quantised tensor'),
  'torch._utils._rebuild_nested_tensor': lambda *args: Other('nested tensor'),
}


class _Unpickler(pickle._Unpickler):
  """The one in Python: that in C reserves whatever memory an index in a damaged file asks for."""

  def __init__(self, file):
    super().__init__(file, encoding='utf-8')
    self.storages: dict[str, Storage] = {}

  def find_class(self, module: str, name: str) -> Name:
    if not KNOWN.fullmatch(whole := f'{module}.{name}'):
      raise ForeignName(whole)
    return Name(whole)

  def persistent_load(self, given: tuple) -> Any:
    kind, *rest = given
    if kind == 'module':  # a class with its source, in unzipped files
      return rest[0]
    storage, key, _, count, *view = rest
    name = storage.name.rpartition('.')[2].removesuffix('Storage')
    if any(view):
      raise ValueError('a storage is part of another, as PyTorch 0.3 wrote it')
    return self.storages.setdefault(key, Storage(key, STORAGES.get(name, name), count))


class _ScriptUnpickler(_Unpickler):
  """Every class of the program is a `Script`."""

  def find_class(self, module: str, name: str) -> Any:
    if module.split('.')[0] == '__torch__':
      return Script
    if module == 'torch.jit._pickle':  # lists of numbers and their types
      return Name(f'{module}.{name}')
    return super().find_class(module, name)


def _zipped(path: Path) -> Content:
  archive = zipfile.ZipFile(path)
  names = {name.partition('/')[2]: name for name in archive.namelist()}

  def record(name: str) -> bytes:
    info = archive.getinfo(names[name])
    if info.compress_type != zipfile.ZIP_STORED:
      raise ValueError(f'{name} is compressed, which torch.save does not do')
    if info.CRC == 0:  # torch.serialization.set_crc32_options(False)
      del info.CRC
    return archive.read(info)

  order = '>' if 'byteorder' in names and record('byteorder') == b'big' else '<'
  array = lambda x: _view(x, record(f'data/{x.storage.key}'), order)
  data = io.BytesIO(record('data.pkl'))
  if 'constants.pkl' not in names:
    return Content(_Unpickler(data).load(), array)
  program = _ScriptUnpickler(data).load()
  if not isinstance(program, Script):
    raise ValueError(f'it is a TorchScript program of {type(program).__name__}, no module')
  return Content(program.tensors(), array)


def _unzipped(path: Path) -> Content:
  size = path.stat().st_size
  with path.open('rb') as file:
    if [_Unpickler(file).load() for _ in range(2)] != [MAGIC, VERSION]:
      raise ValueError('it does not begin as torch.save begins a file')
    order = '<' if _Unpickler(file).load()['little_endian'] else '>'
    unpickler = _Unpickler(file)
    value, keys, starts = unpickler.load(), _Unpickler(file).load(), {}
    for key in keys:
      (count,) = struct.unpack(order + 'q', file.read(8))
      length = count * _dtype(unpickler.storages[key].dtype).itemsize
      starts[key] = file.tell(), length
      if not 0 <= length <= size - file.tell():
        raise ValueError(f'storage {key} ends after the file')
      file.seek(length, os.SEEK_CUR)

  def array(x: Tensor) -> Shaped[np.ndarray, '...']:
    start, length = starts[x.storage.key]
    with path.open('rb') as file:
      file.seek(start)
      return _view(x, file.read(length), order)

  return Content(value, array)


def _view(x: Tensor, content: bytes, order: Any) -> Shaped[np.ndarray, '...']:
  """The values of a tensor, which must lie within those of its storage."""
  dtype = _dtype(x.dtype).newbyteorder(order)
  values = np.frombuffer(content, dtype)
  last = x.offset + sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True))
  inside = min((x.offset, *x.shape, *x.strides)) >= 0 and (0 in x.shape or last < len(values))
  # A view may repeat values, but not so often that none could have meant it.
  if not inside or math.prod(x.shape) > 1024 * max(1, len(values)):
    raise ValueError(f'its storage has {len(values)} values, too few for the shape {x.shape}')
  strides = [stride * dtype.itemsize for stride in x.strides]
  start = 0 if 0 in x.shape else x.offset
  return np.lib.stride_tricks.as_strided(values[start:], x.shape, strides, writeable=False)


def _dtype(name: str) -> np.dtype:
  return np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)
