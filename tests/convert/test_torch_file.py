"""PyTorch files in every form: the same values, nothing run, and one error for what is wrong."""

import io
import os
import pickle
import pickletools
import zipfile

import numpy as np
import pytest

from dgsct_jax.convert import read, torch_file

torch = pytest.importorskip('torch')
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def save(path, content, **options):
  torch.save(content, path, **options)
  return path


def repacked(path, change):
  """The same zip with its pickle changed, under right checksums."""
  made = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, 'w') as new:
    for name in old.namelist():
      content = old.read(name)
      new.writestr(name, change(content) if name.endswith('/data.pkl') else content)
  path.write_bytes(made.getvalue())
  return path


def tensors():
  torch.manual_seed(0)
  base = torch.arange(20.0)
  named = torch.nn.Parameter(torch.ones(2))
  named.comment = 'kept by Python, not by us'
  return {
    'turned': torch.randn(3, 4).T,
    'every second': base[3:9:2],
    'shared': base[5:].view(3, 5),
    'repeated': torch.ones(1).expand(4),
    'empty': torch.ones(0, 4),
    'number': torch.tensor(3),
    'half': torch.randn(3).half(),
    'bfloat': torch.randn(3).bfloat16(),
    'double': torch.randn(3).double(),
    'bool': torch.tensor([True, False]),
    'complex': torch.ones(2, dtype=torch.complex64),
    'unsigned': torch.ones(2, dtype=torch.uint16),
    'parameter': named,
    **torch.nn.Linear(2, 3).state_dict(),
  }


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_every_protocol_and_form_gives_the_values_of_torch(tmp_path, protocol, zipped):
  options = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
  state = read.read(save(tmp_path / 'x.pt', tensors(), **options))
  assert state.keys() == tensors().keys()
  for name, x in tensors().items():
    x = x.detach()
    expected = (x.float() if x.dtype in (torch.half, torch.bfloat16) else x).numpy()
    np.testing.assert_array_equal(state[name], expected, err_msg=name, strict=True)


def test_a_metric_beside_the_weights_does_not_matter(tmp_path):
  content = {'state_dict': {'a': torch.ones(2)}, 'best': np.float64(0.5), 'order': {1, 2}}
  for protocol in PROTOCOLS:
    save(tmp_path / 'x.pt', content, pickle_protocol=protocol)
    assert read.read(tmp_path / 'x.pt').keys() == {'a'}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
  'make, kind',
  [
    (lambda: torch.eye(3).to_sparse(), 'sparse'),
    (lambda: torch.eye(3).to_sparse_csr(), 'sparse'),
    (lambda: torch.ones(3, device='meta'), 'meta'),
    (lambda: torch.ones(3).to(torch.float8_e4m3fn), 'float8_e4m3fn'),
    (lambda: torch.ones(3).to(torch.float8_e5m2), 'float8_e5m2'),
    (lambda: torch.ones(3, dtype=torch.complex64).conj(), 'conjugate'),
  ],
)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_tensors_without_plain_values_are_named(tmp_path, make, kind, zipped):
  content = {'good': torch.ones(1), 'odd.weight': make(), 'odd.bias': make()}
  path = save(tmp_path / 'x.pt', content, _use_new_zipfile_serialization=zipped)
  with pytest.raises(ValueError, match=rf'x.pt has 2 .*odd.weight \({kind}.*odd.bias \({kind}'):
    read.read(path)


def test_float8_safetensors_are_named(tmp_path):
  from safetensors.torch import save_file

  save_file({'a': torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / 'x.safetensors')
  with pytest.raises(ValueError, match=r'x.safetensors has 1 .*a \(F8_E4M3\)'):
    read.read(tmp_path / 'x.safetensors')


@pytest.mark.parametrize('key', [7, None, ('a', 'b'), b'a'])
def test_keys_that_are_no_names_are_refused(tmp_path, key):
  path = save(tmp_path / 'x.pt', {'a': torch.ones(1), key: torch.ones(1)})
  with pytest.raises(ValueError, match='x.pt has keys that are no names'):
    read.read(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_flipped_bit_is_damage_and_never_a_reason_to_run_the_file(tmp_path, zipped):
  weights = {f'layers.{i}.weight': torch.ones(3, i + 1) for i in range(4)}
  whole = save(tmp_path / 'w.pt', weights, _use_new_zipfile_serialization=zipped).read_bytes()
  path, rng = tmp_path / 'x.pt', np.random.default_rng(0)
  for place in rng.choice(len(whole), 300, replace=False):
    data = bytearray(whole)
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    try:
      state = read.read(path)
    except ValueError as error:
      assert 'x.pt' in str(error) and 'weights_only' not in str(error), place
    else:  # in what nobody reads, or, without a checksum, in a value or a name
      assert len(state) <= 4
      assert not zipped or all((x == 1).all() for x in state.values()), place


@pytest.mark.parametrize(
  'old, new, told',
  [
    (b'_utils\n_rebuild', b'_utilr\n_rebuild', 'to load it would run torch._utilr._rebuild_tens'),
    (b'OrderedDict', b'OrderedDicu', 'to load it would run collections.OrderedDicu'),
    (b'FloatStorage', b'FlobtStorage', 'a .FlobtStorage|damaged'),
    (b'cpu', b'cp\xff', 'damaged'),
  ],
)
def test_a_damaged_name_is_told_without_advice_to_run_it(tmp_path, old, new, told):
  path = save(tmp_path / 'x.pt', {'a': torch.ones(2)})
  repacked(path, lambda pickled: pickled.replace(old, new))
  with pytest.raises(ValueError, match=f'x.pt.*({told})') as error:
    read.read(path)
  assert 'weights_only' not in str(error.value) and 'trust' not in str(error.value)


@pytest.mark.parametrize('index', [b'\xff\xff\xff\x7f', b'\xff\xff\xff\xff'])
def test_a_huge_index_in_a_pickle_costs_nothing(tmp_path, index):
  """The unpickler in C would reserve 32 GB."""
  put = b'r' + index  # LONG_BINPUT
  path = save(tmp_path / 'x.pt', {'a': torch.ones(2)})
  repacked(path, lambda pickled: pickled.replace(b'}q\x00', b'}' + put, 1))
  assert (read.read(path)['a'] == 1).all()


@pytest.mark.filterwarnings('ignore:TypedStorage')
@pytest.mark.parametrize('shape', [(10**6,), (2**40,), (-1,), (2, 2), (3,) * 3])
def test_shapes_beyond_the_storage_are_refused(tmp_path, shape):
  class Enlarged:
    def __reduce__(self):
      storage = torch.ones(3).storage()
      strides = (1,) * len(shape)
      return torch._utils._rebuild_tensor_v2, (storage, 1, shape, strides, False, {})

  path = save(tmp_path / 'x.pt', {'a': Enlarged()})
  with pytest.raises(ValueError, match='x.pt is damaged at a'):
    read.read(path)


def test_a_changed_weight_is_noticed_by_its_checksum(tmp_path):
  path = save(tmp_path / 'x.pt', {'a': torch.full((100,), 0.5)})
  data = path.read_bytes()
  place = data.index(np.full(100, 0.5, np.float32).tobytes())
  path.write_bytes(data[:place] + b'\x01' + data[place + 1 :])
  assert torch.load(path, weights_only=True)['a'][0] != 0.5  # torch does not look
  with pytest.raises(ValueError, match='x.pt is damaged at a .*CRC'):
    read.read(path)


def test_files_without_checksums_are_read(tmp_path):
  torch.serialization.set_crc32_options(False)
  try:
    save(tmp_path / 'x.pt', {'a': torch.ones(3)})
  finally:
    torch.serialization.set_crc32_options(True)
  assert (read.read(tmp_path / 'x.pt')['a'] == 1).all()


class Evil:
  """Unpickling it would make a folder."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_foreign_code_is_named_and_never_run(tmp_path, protocol, zipped):
  ran = tmp_path / 'ran'
  content = {'state_dict': {'a': torch.ones(1)}, 'callback': Evil(ran)}
  options = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
  with pytest.raises(ValueError, match=r'would run posix\.mkdir. Nothing of it was run'):
    read.read(save(tmp_path / 'x.pt', content, **options))
  assert not ran.exists()


@pytest.mark.parametrize(
  'name', ['torch.load', 'torch.hub.load', 'torch.ops.x', 'torch._utils.exec', 'builtins.eval']
)
def test_no_name_of_torch_or_python_does_anything(tmp_path, name):
  module, _, function = name.rpartition('.')
  pickled = f'\x80\x02}}X\x01\x00\x00\x00ac{module}\n{function}\nU\x04path\x85Rs.'.encode('latin-1')
  pickletools.dis(pickled, io.StringIO())
  path = save(tmp_path / 'x.pt', {})
  repacked(path, lambda _: pickled)
  with pytest.raises(ValueError, match='x.pt'):
    read.read(path)


def test_programs_are_no_tensors(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.pt', 'w') as file:
    file.writestr('x/data.pkl', pickle.dumps({}, 2))
    file.writestr('x/constants.pkl', pickle.dumps((), 2))
  with pytest.raises(ValueError, match='TorchScript'):
    read.read(tmp_path / 'x.pt')
  with pytest.raises(ValueError, match='TorchScript'):
    torch_file.read(tmp_path / 'x.pt')
