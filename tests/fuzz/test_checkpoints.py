"""Damaged and odd checkpoints: each is converted whole, or refused in one error that names it.

A failing input is made again by its seed and number; the message tells what was done to it.
"""

import functools
import io
import warnings
import zipfile

import numpy as np
import pytest

from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import read
from tests.fuzz import damage

torch = pytest.importorskip('torch')
pytestmark = pytest.mark.fuzz

INPUTS = 200


@functools.cache
def whole(source):
  """A small valid state dict; not to be changed."""
  from tests.convert import test_dgsct, test_htsat, test_swin_v2

  if source == 'swin_v2':
    return test_swin_v2.timm_0612()
  if source == 'htsat':
    return test_htsat.lightning(classes=5)
  if source == 'dgsct-ave':
    return test_dgsct.small()
  widths = {'fc_a1': (6, 4), 'fc_a2': (6, 6), 'fc_gl': (6, 8)}
  widths |= {'fc1': (5, 12), 'fc2': (4, 5), 'fc3': (3, 4), 'fc4': (2, 3)}
  weights = {f'{name}.weight': np.ones(shape, np.float32) for name, shape in widths.items()}
  return weights | {f'{name}.bias': np.ones(shape[0], np.float32) for name, shape in widths.items()}


def reshaped(rng, x):
  """The same values, or some of them, in another shape."""
  shapes = [(), (0,), (x.size,), (1, *x.shape), (*x.shape, 1), x.shape[::-1]]
  shape = shapes[rng.integers(len(shapes))]
  return np.resize(x, shape)


def odd_values(rng, x):
  """The same shape with other types or values."""
  huge = x.astype(np.float64) * 1e39 + 1e300
  choices = [
    x.astype(np.int64),
    x.astype(np.float16),
    x.astype(np.float64),
    x.astype(np.complex64),
    x > 0,
    huge,
    x * np.nan,
  ]
  return choices[rng.integers(len(choices))]


def odd_tensor(rng, x):
  """A kind of tensor that numpy does not have, or no tensor."""
  x = torch.from_numpy(np.array(x, np.float32, ndmin=1))
  kinds = [
    lambda: x.to_sparse(),
    lambda: x.to('meta'),
    lambda: x.to(torch.float8_e4m3fn),
    lambda: x.to(torch.bfloat16),
    lambda: torch.nn.Parameter(x),
    lambda: x.expand(1000, *x.shape),
    lambda: x.to(torch.complex64).conj(),
    lambda: 3,
    lambda: 'text',
    lambda: None,
    lambda: {'weight': x},
  ]
  return kinds[rng.integers(len(kinds))]()


def odd_name(rng, name):
  names = [
    7,
    None,
    ('a', 1),
    '',
    name + '.more',
    name.upper(),
    'module.' + name,
    name.replace('0', '5000', 1),
    name.replace('.0.', '.' + '9' * 5000 + '.', 1),
    name.replace('.0.', '.\u0663.', 1),
    'a\nb\udcff',
    'layers.5000.blocks.5000.attn.logit_scale',
  ]
  return names[rng.integers(len(names))]


def changed(rng, state, told):
  """The state dict with a few changes, each one told."""
  state = dict(state)
  for _ in range(rng.integers(0, 4)):
    name = list(state)[rng.integers(len(state))]
    x = state[name]
    if not isinstance(x, np.ndarray):
      continue
    match rng.integers(5):
      case 0:
        told.append(f'{name!r} removed')
        del state[name]
      case 1:
        state[name] = reshaped(rng, x)
        told.append(f'{name!r} reshaped to {state[name].shape}')
      case 2:
        state[name] = odd_values(rng, x)
        told.append(f'{name!r} as {state[name].dtype}, {state[name].reshape(-1)[:1]}')
      case 3:
        state[name] = odd_tensor(rng, x)
        told.append(f'{name!r} as {type(state[name])}')
      case 4:
        new = odd_name(rng, str(name))
        told.append(f'{name!r} named {str(new)[:60]!a}')
        state[new] = state.pop(name)
  if rng.random() < 0.1:
    prefix = ('module.', 'model.', 'sed_model.', 'x.')[rng.integers(4)]
    told.append(f'all names below {prefix}')
    state = {f'{prefix}{name}': x for name, x in state.items()}
  return state


def packed(rng, state, told):
  """The bytes of a file, and its suffix."""
  if rng.random() < 0.3 and all(type(x) is np.ndarray and type(n) is str for n, x in state.items()):
    from safetensors.numpy import save

    told.append('as safetensors')
    try:
      return save({name: np.asarray(x, order='C') for name, x in state.items()}), '.safetensors'
    except Exception:  # A name that is no text.
      pass
  tensors = {
    name: torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x
    for name, x in state.items()
  }
  outer = ('state_dict', 'model', 'other', None)[rng.integers(4)]
  protocol, zipped = int(rng.integers(2, 6)), bool(rng.random() < 0.7)
  told.append(f'torch.save of {outer}, protocol {protocol}, {"zip" if zipped else "no zip"}')
  content = {outer: tensors, 'epoch': 1} if outer else tensors
  file = io.BytesIO()
  torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
  return file.getvalue(), ('.pt', '.pth', '.ckpt', '.bin')[rng.integers(4)]


def damaged(rng, data, told):
  """The bytes with a few of them changed; or the pickle in a zip, under a right checksum."""
  start = end = 0
  if rng.random() < 0.5:  # where names and shapes are
    start = max(0, data.find(b'\x80'))
    end = start + 4000
  if rng.random() < 0.2:
    return _damaged_pickle(rng, data, told)
  return damage.of_bytes(rng, data, told, start, end)


def _damaged_pickle(rng, data, told):
  if not zipfile.is_zipfile(io.BytesIO(data)):
    return data
  made = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, 'w') as new:
    for name in old.namelist():
      content = bytearray(old.read(name))
      if name.endswith('/data.pkl'):
        i, bit = int(rng.integers(len(content))), int(rng.integers(8))
        content[i] ^= 1 << bit
        told.append(f'bit {bit} of byte {i} of the pickle flipped, its checksum right')
      new.writestr(name, bytes(content))
  return made.getvalue()


def test_a_checkpoint_is_converted_or_refused_in_one_error(tmp_path, capsys, seed, number):
  rng, told = np.random.default_rng([seed, number]), []
  sources = ['swin_v2', 'htsat', 'dgsct-grounding', 'dgsct-ave']
  source = rng.choice(sources, p=[0.4, 0.3, 0.27, 0.03])
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of torch about its own odd tensors
    data, suffix = packed(rng, changed(rng, whole(source), told), told)
  if rng.random() < 0.6:
    data = damaged(rng, data, told)
  given, out = tmp_path / f'given{suffix}', tmp_path / 'out.safetensors'
  given.write_bytes(data)
  input_ = f'seed {seed}, number {number}: {source}; ' + '; '.join(told)

  cost = damage.Cost()
  try:
    status = convert.main([source, str(given), str(out)])
  except BaseException as error:
    raise AssertionError(input_) from error
  cost.check(input_)
  printed = capsys.readouterr()
  if status == 0:
    assert all(np.isfinite(x).all() for x in read.read(out).values()), input_
  else:
    assert status == 1 and given.name in printed.err and not out.exists(), input_
    assert 'Traceback' not in printed.err and 'weights_only' not in printed.err, input_
    assert len(printed.err) < 20_000, input_
  assert {path.name for path in tmp_path.iterdir()} <= {given.name, out.name}, input_
