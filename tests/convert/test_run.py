"""The model of a run as one file holds all of it, or says what it lacks."""

import pytest
from safetensors import numpy

from dgsct_jax.convert import __main__ as command
from tests import tiny


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Its encoders are random and frozen."""
  return tiny.ave_run(tmp_path_factory.mktemp('run'))


def test_a_run_with_random_encoders_says_what_is_missing_and_gives_its_other_parts(
  run, tmp_path, capsys
):
  out = tmp_path / 'a.safetensors'
  for part in ([], ['--part=encoder/visual']):
    assert command.main(['run', str(run), str(out), *part]) == 1
    told = capsys.readouterr().err
    assert (
      'tensors lie in no file, such as params/encoder/' in told and "'visual': 'random'" in told
    )
    assert not out.exists()
  assert command.main(['run', str(run), str(out), '--part=localize']) == 0
  assert 'params/event/bias' in numpy.load_file(out)


def test_a_damaged_run_is_one_error(run, tmp_path, capsys):
  (run / 'checkpoints/1/model/manifest.ocdbt').unlink()
  assert command.main(['run', str(run), str(tmp_path / 'a.safetensors')]) == 1
  assert 'checkpoints/1 is damaged: model/manifest.ocdbt is missing' in capsys.readouterr().err
