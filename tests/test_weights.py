"""Weights by name: ours as they are, others converted once and kept."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from dgsct_jax import weights
from dgsct_jax.convert import clip
from tests.convert import test_clip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'dgsct_jax'


@pytest.fixture(scope='module')
def released(tmp_path_factory):
  """A file with OpenAI's names of both towers of a toy CLIP."""
  file = tmp_path_factory.mktemp('clip') / 'model.safetensors'
  save_file({name: np.array(x, order='C') for name, x in test_clip.openai().items()}, file)
  return file


WHOLE = clip.shapes(test_clip.VISUAL, test_clip.TEXT)
TOWER = clip.plan_vision(test_clip.openai()).targets


@pytest.mark.parametrize('wanted, source', [(WHOLE, 'clip'), (TOWER, 'clip-visual')])
def test_what_is_not_ours_becomes_what_is_wanted_and_is_kept(
  released, cache, capsys, monkeypatch, wanted, source
):
  found = weights.find(str(released), wanted)
  assert weights.shapes(found) == dict(wanted) and found.parent == cache
  said = capsys.readouterr().out
  assert said.startswith(f'{released}: {source}, converted and kept as {cache}')
  monkeypatch.setattr(weights.read, 'read', lambda path: pytest.fail('it is read again'))
  assert weights.find(str(released.parent), wanted) == found
  assert weights.find(str(found), wanted) == found, 'ours is taken as it is'
  assert not capsys.readouterr().out


def test_another_file_of_the_same_name_is_converted_anew(released, tmp_path):
  other = tmp_path / 'model.safetensors'
  state = test_clip.openai() | {'logit_scale': np.float32(3.0) * np.ones(())}
  save_file({name: np.array(x, order='C') for name, x in state.items()}, other)
  first, second = (weights.find(str(file), WHOLE) for file in (released, other))
  assert first != second and weights.shapes(first) == weights.shapes(second)


def test_what_fits_nothing_is_told_with_what_came_nearest(released, tmp_path):
  wider = WHOLE | {'params/visual/class_token': (256,), 'params/visual/other': (1,)}
  with pytest.raises(ValueError) as error:
    weights.find(str(released), wider)
  assert 'is none of the checkpoints that fit here' in str(error.value)
  assert (
    'clip: it is one, but not for this part of the model: 1 variables missing, 0 surplus, 1 of'
    ' other shapes; params/visual/class_token is (128,), not (256,)'
  ) in str(error.value)
  strange = tmp_path / 'strange.safetensors'
  save_file({'a': np.zeros(3, np.float32)}, strange)
  with pytest.raises(ValueError, match='(?s)strange.*swin_v2: .*clip: No CLIP with'):
    weights.find(str(strange), WHOLE)


def test_what_was_half_written_is_not_taken(released, cache):
  found = weights.find(str(released), WHOLE)
  found.write_bytes(found.read_bytes()[:200])
  assert weights.find(str(released), WHOLE) == found and weights.shapes(found) == WHOLE


def test_a_packaged_file_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match='weights/gone.safetensors is not a file'):
    weights.find('package:gone.safetensors', {})
