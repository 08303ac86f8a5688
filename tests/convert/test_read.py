"""Reading checkpoints: formats, damage, foreign code, and whole files or none."""

import os
import pickle

import numpy as np
import pytest

from dgsct_jax.convert import read


def save_torch(path, content, **options):
  torch = pytest.importorskip('torch')
  torch.save(content, path, **options)
  return path


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_what_is_written_is_read_again(tmp_path, suffix):
  if suffix == '.pt':
    pytest.importorskip('torch')
  state = {
    'a': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    'n': np.zeros((), np.int64),
    'view': np.broadcast_to(np.float32(1), (2, 2)),
  }
  read.write(tmp_path / f'x{suffix}', state, {'source': 'test'})
  again = read.read(tmp_path / f'x{suffix}')
  assert (
    all(
      (again[name] == x).all() and again[name].shape == x.shape and again[name].dtype == x.dtype
      for name, x in state.items()
    )
    and again.keys() == state.keys()
  )
  assert [path.name for path in tmp_path.iterdir()] == [f'x{suffix}']


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(b'old')
  with pytest.raises(Exception):
    read.write(path, {'a': np.array(['no', 'numbers'])}, {})
  assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['x.safetensors']


@pytest.mark.parametrize('key', ['state_dict', 'model', None])
@pytest.mark.parametrize('zipped', [True, False])
def test_torch_files_of_all_kinds_are_read(tmp_path, key, zipped):
  torch = pytest.importorskip('torch')
  tensors = {
    'a': torch.ones(2, 3),
    'half': torch.ones(2, dtype=torch.bfloat16),
    'n': torch.tensor(3),
    'p': torch.nn.Parameter(torch.zeros(1)),
  }
  content = {key: tensors, 'epoch': 3} if key else tensors
  state = read.read(save_torch(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped))
  assert {name: (x.shape, x.dtype.name) for name, x in state.items()} == {
    'a': ((2, 3), 'float32'),
    'half': ((2,), 'float32'),
    'n': ((), 'int64'),
    'p': ((1,), 'float32'),
  }


def test_sixteen_bit_safetensors_are_widened(tmp_path):
  torch = pytest.importorskip('torch')
  from safetensors.torch import save_file

  save_file({'a': torch.full((2,), 0.5, dtype=torch.bfloat16)}, tmp_path / 'x.safetensors')
  state = read.read(tmp_path / 'x.safetensors')
  assert state['a'].dtype == np.float32 and (state['a'] == 0.5).all()


class Evil:
  """Unpickling it would create a file."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('name', ['x.pt', 'x.ckpt', 'x.bin'])
def test_foreign_code_is_refused_and_never_run(tmp_path, name):
  pytest.importorskip('torch')
  ran = tmp_path / 'ran'
  with pytest.raises(ValueError, match=r'would run posix\.mkdir'):
    read.read(save_torch(tmp_path / name, {'state_dict': {}, 'callback': Evil(ran)}))
  with open(tmp_path / 'bare.pt', 'wb') as file:
    pickle.dump(Evil(ran), file)
  with pytest.raises(ValueError, match='no PyTorch file of tensors alone'):
    read.read(tmp_path / 'bare.pt')
  assert not ran.exists()


def test_truncated_files_are_refused(tmp_path):
  torch = pytest.importorskip('torch')
  whole = save_torch(tmp_path / 'whole.pt', {'a': torch.ones(1000)}).read_bytes()
  (tmp_path / 'x.pt').write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match='damaged'):
    read.read(tmp_path / 'x.pt')
  read.write(tmp_path / 'whole.safetensors', {'a': np.ones(1000, np.float32)}, {})
  (tmp_path / 'x.safetensors').write_bytes((tmp_path / 'whole.safetensors').read_bytes()[:-100])
  with pytest.raises(ValueError, match='not a whole safetensors'):
    read.read(tmp_path / 'x.safetensors')
  (tmp_path / 'empty.pt').write_bytes(b'')
  with pytest.raises(ValueError, match='damaged'):
    read.read(tmp_path / 'empty.pt')


def test_things_that_are_no_tensors_are_named(tmp_path):
  torch = pytest.importorskip('torch')
  with pytest.raises(ValueError, match='epoch'):
    read.read(save_torch(tmp_path / 'x.pt', {'a': torch.ones(1), 'epoch': 3}))
  with pytest.raises(ValueError, match='holds list'):
    read.read(save_torch(tmp_path / 'y.pt', [torch.ones(1)]))


def test_unknown_suffixes_are_refused(tmp_path):
  (tmp_path / 'x.txt').write_bytes(b'')
  with pytest.raises(ValueError, match='suffix must be'):
    read.read(tmp_path / 'x.txt')


def test_damaged_npz_files_are_refused(tmp_path):
  np.savez_compressed(tmp_path / 'x.npz', a=np.arange(1000.0))
  whole, damaged = (tmp_path / 'x.npz').read_bytes(), tmp_path / 'damaged.npz'
  for content in (b'', whole[:50], whole[:-30], whole[:200] + b'\0' * 40 + whole[240:]):
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match='damaged.npz is not a whole .npz'):
      read.read(damaged)


def test_without_torch_a_file_of_torch_is_refused_before_the_work(tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"a.pt is written by torch: pip install 'dgsct-jax"):
    read.check_place(tmp_path / 'a.pt')
  read.check_place(tmp_path / 'a.safetensors')
