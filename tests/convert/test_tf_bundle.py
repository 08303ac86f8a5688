"""Checkpoints of TensorFlow: written here as it writes them, read back, and damaged."""

import struct

import ml_dtypes
import numpy as np
import pytest

from dgsct_jax.convert import read, tf_bundle

TENSORS = {
  'layer/bias': np.arange(3, dtype=np.float32),
  'layer/kernel': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'layer/step': np.array(7, np.int64),
  'other/half': np.arange(4).astype(np.float16),
  'other/kernel': np.linspace(0, 1, 300, dtype=np.float64),
  'other/short': np.arange(5).astype(ml_dtypes.bfloat16),
}
CODES = {dtype: code for code, dtype in tf_bundle.DTYPES.items()}


def varint(value):
  out = b''
  while value >= 128:
    out += bytes([value & 127 | 128])
    value >>= 7
  return out + bytes([value])


def field(number, content):
  if isinstance(content, int):
    return varint(number << 3) + varint(content)
  return varint(number << 3 | 2) + varint(len(content)) + content


def block(entries):
  """With every key given by what it shares with the one before it."""
  out, before = b'', b''
  for key, value in entries:
    shared = next((i for i, (a, b) in enumerate(zip(before, key)) if a != b), 0)
    out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
    before = key
  return out + struct.pack('<II', 0, 1)


def write(folder, tensors=TENSORS, suffix=tf_bundle.SUFFIX):
  entries, data = [(b'', field(1, 1))], b'before'
  for name, x in tensors.items():
    shape = b''.join(field(2, field(1, size) if size else b'') for size in x.shape)
    entry = field(1, CODES[x.dtype]) + field(2, shape) + field(4, len(data)) + field(5, x.nbytes)
    checksum = varint(6 << 3 | 5) + bytes(4)
    entries.append((f'{name}{suffix}'.encode(), entry + checksum))
    data += x.tobytes()
  entries.append((b'text', field(1, 7) + field(4, 0) + field(5, 6)))  # no numbers
  out, places = b'', []
  for part in (entries[:3], entries[3:]):
    content = block(part)
    places.append((part[-1][0], varint(len(out)) + varint(len(content))))
    out += content + bytes(5)
  handles = b''
  for content in (block([]), block(places)):
    handles += varint(len(out)) + varint(len(content))
    out += content + bytes(5)
  footer = handles + bytes(40 - len(handles)) + struct.pack('<Q', tf_bundle.MAGIC)
  (folder / 'variables.index').write_bytes(out + footer)
  (folder / 'variables.data-00000-of-00001').write_bytes(data)
  return folder / 'variables.index'


def test_all_numbers_are_read_and_texts_are_left(tmp_path):
  found = tf_bundle.read(write(tmp_path))
  assert found.keys() == TENSORS.keys()
  for name, x in TENSORS.items():
    assert found[name].dtype == x.dtype and found[name].shape == x.shape
    np.testing.assert_array_equal(found[name], x)


def test_a_checkpoint_without_the_suffix_of_variables_is_read_too(tmp_path):
  assert tf_bundle.read(write(tmp_path, suffix='')).keys() == TENSORS.keys()


def test_the_reader_of_checkpoints_takes_it(tmp_path):
  found = read.read(write(tmp_path))
  np.testing.assert_array_equal(found['layer/kernel'], TENSORS['layer/kernel'])


def test_missing_and_short_data_are_told(tmp_path):
  index = write(tmp_path)
  data = tmp_path / 'variables.data-00000-of-00001'
  data.write_bytes(data.read_bytes()[:100])
  with pytest.raises(ValueError, match='does not lie in variables.data'):
    tf_bundle.read(index)
  data.unlink()
  with pytest.raises(ValueError, match='needs variables.data-00000-of-00001 beside it'):
    tf_bundle.read(index)


def test_damage_is_one_error(tmp_path):
  index = write(tmp_path)
  whole = index.read_bytes()
  rng = np.random.default_rng(0)
  for i in range(200):
    damaged = bytearray(whole)
    if i % 2:
      damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    else:
      del damaged[rng.integers(len(whole)) :]
    index.write_bytes(damaged)
    try:
      tf_bundle.read(index)  # a flipped bit of a name goes unnoticed
    except ValueError:
      pass
  index.write_bytes(b'')
  with pytest.raises(ValueError, match='does not end as the index'):
    tf_bundle.read(index)
