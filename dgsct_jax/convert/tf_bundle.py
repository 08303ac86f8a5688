"""The variables of a TensorFlow checkpoint (`NAME.index` beside `NAME.data-00000-of-00001`).

Read without TensorFlow. The index is a sorted table in the format of LevelDB: blocks of entries,
each key given by how much of the one before it keeps; the last block but one tells where the others
lie. An entry's value is a protocol buffer with type, shape and place of one variable.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, padded, and the magic number
TRAILER = 5  # bytes after a block: its compression and a checksum
DTYPES = {  # of tensorflow/core/framework/types.proto
  1: np.dtype('<f4'),
  2: np.dtype('<f8'),
  3: np.dtype('<i4'),
  9: np.dtype('<i8'),
  14: np.dtype(ml_dtypes.bfloat16),
  19: np.dtype('<f2'),
}
SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'


def read(path: Path) -> dict[str, np.ndarray]:
  """All numeric variables by their names.

  Args:
    path: the index.

  Raises:
    ValueError: the index is damaged, or the data are missing or too short.
  """
  data_path = path.with_name(f'{path.stem}.data-00000-of-00001')
  if not data_path.is_file():
    raise ValueError(f'{path} needs {data_path.name} beside it.')
  index, data = path.read_bytes(), np.fromfile(data_path, np.uint8)
  tensors = {}
  try:
    for name, value in _table(index):
      dtype, shape, shard, offset, size = _entry(value)
      if name and dtype in DTYPES:
        if shard or size != math.prod(shape) * DTYPES[dtype].itemsize or offset + size > len(data):
          raise ValueError(f'{name} does not lie in {data_path.name}')
        values = data[offset : offset + size].view(DTYPES[dtype]).reshape(shape)
        tensors[name.removesuffix(SUFFIX)] = values
  except (IndexError, UnicodeDecodeError, struct.error) as error:
    raise ValueError(f'{path} is damaged ({error})') from error
  return tensors


def _table(index: bytes) -> Iterator[tuple[str, bytes]]:
  """The entries of all blocks."""
  if len(index) < FOOTER or struct.unpack('<Q', index[-8:])[0] != MAGIC:
    raise ValueError('it does not end as the index of a TensorFlow checkpoint does')
  footer = index[-FOOTER:]
  _, at = _handle(footer, 0)  # of a block about the table
  directory, _ = _handle(footer, at)
  for _, value in _block(index, *directory):
    for key, entry in _block(index, *_handle(value, 0)[0]):
      yield key.decode(), entry


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
  block = index[offset : offset + size]
  if len(block) < size or index[offset + size]:
    raise ValueError('a block is cut off or compressed')
  restarts = struct.unpack('<I', block[-4:])[0]
  at, end, key = 0, size - 4 * (restarts + 1), b''
  while at < end:
    kept, at = _varint(block, at)
    fresh, at = _varint(block, at)
    length, at = _varint(block, at)
    key = key[:kept] + block[at : at + fresh]
    at += fresh
    yield key, block[at : at + length]
    at += length


def _entry(value: bytes) -> tuple[int, tuple[int, ...], int, int, int]:
  """Type, shape, number of the data file, place and size in bytes."""
  fields: dict[int, int] = {}
  shape: tuple[int, ...] = ()
  for number, content in _message(value):
    if isinstance(content, bytes):
      if number == 2:
        sizes = (dict(_message(x)) for n, x in _message(content) if n == 2 and isinstance(x, bytes))
        shape = tuple(int(size.get(1, 0)) for size in sizes)
    else:
      fields[number] = content
  dtype, shard, offset, size = (fields.get(number, 0) for number in (1, 3, 4, 5))
  return dtype, shape, shard, offset, size


def _message(value: bytes) -> Iterator[tuple[int, int | bytes]]:
  """The fields of a protocol buffer: numbers, or the bytes of what is nested."""
  at = 0
  while at < len(value):
    tag, at = _varint(value, at)
    number, wire = tag >> 3, tag & 7
    if wire == 0:
      content, at = _varint(value, at)
      yield number, content
    elif wire == 2:
      length, at = _varint(value, at)
      yield number, value[at : at + length]
      at += length
    elif wire in (1, 5):
      at += 8 if wire == 1 else 4
    else:
      raise ValueError('an entry is no protocol buffer')


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
  """The place and size of a block, and what follows."""
  offset, at = _varint(content, at)
  size, at = _varint(content, at)
  return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
  """A number in groups of seven bits, and what follows."""
  value = 0
  for shift in range(0, 64, 7):
    byte = content[at]
    at += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, at
  raise ValueError('a number is too long')
