"""TorchScript programs, such as OpenAI's files of CLIP: weights are read, code is not."""

import zipfile

import numpy as np
import pytest

from dgsct_jax.convert import read

torch = pytest.importorskip('torch')


class Tower(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.blocks = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3)).half()
    self.scale = torch.nn.Parameter(torch.tensor(2.5))
    self.sizes = [1, 2]
    self.register_buffer('context_length', torch.tensor(77))

  def forward(self, x):
    return self.blocks(x) * self.scale + self.sizes[0]


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  torch.manual_seed(0)
  model, path = Tower(), tmp_path_factory.mktemp('script') / 'tower.pt'
  torch.jit.script(model).save(str(path))
  return model, path


def test_the_weights_of_a_program_are_its_state_dict(saved):
  model, path = saved
  state = read.read(path)
  want = {name: x.numpy() for name, x in model.state_dict().items()}
  assert state.keys() == want.keys() and state['blocks.0.weight'].dtype == np.float32
  assert all(np.array_equal(state[name], x) for name, x in want.items())


def test_its_code_is_not_looked_at(saved, tmp_path):
  _, path = saved
  changed = tmp_path / 'changed.pt'
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, 'w') as new:
    for info in old.infolist():
      code = info.filename.endswith('.py')
      new.writestr(info.filename, 'this is no program' if code else old.read(info))
  assert read.read(changed).keys() == read.read(path).keys()
  with zipfile.ZipFile(changed, 'a') as new:
    data = next(name for name in new.namelist() if name.endswith('data.pkl'))
    hostile = tmp_path / 'hostile.pt'
    with zipfile.ZipFile(hostile, 'w') as bad:
      for name in new.namelist():
        bad.writestr(name, b'cos\nsystem\n(S"false"\ntR.' if name == data else new.read(name))
  with pytest.raises(ValueError, match='would run os.system. Nothing of it was run'):
    read.read(hostile)
