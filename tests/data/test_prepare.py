"""The command that builds data sets: its counts, its errors, its exit status."""

import numpy as np
import pytest

from dgsct_jax.data import prepare, records
from tests.data.datasets import test_ave


def test_the_command_builds_and_reports_counts_and_sizes(tmp_path, capsys):
  test_ave.released(tmp_path / 'data/AVE')
  arguments = [
    'ave',
    f'--source={tmp_path}',
    f'--out={tmp_path / "out"}',
    '--workers=0',
    f'--rate={test_ave.RATE}',
  ]
  assert prepare.main(arguments) == 0
  printed = capsys.readouterr()
  assert 'train: 2 clips, ' in printed.out and 'kB each' in printed.out
  assert 'ave train: clips 1-2 of 2: ' in printed.err and ' per second, 0 bad' in printed.err
  assert len(records.load(tmp_path / 'out', 'ave', 'train')) == 2
  assert prepare.main(arguments) == 0  # there already


def test_bad_clips_are_listed_and_left_out_on_request(tmp_path, capsys):
  root = test_ave.released(tmp_path)
  np.save(root / 'wave/aaaaaaaaaaa.npy', np.zeros(7))
  arguments = [
    'ave',
    f'--source={tmp_path}',
    f'--out={tmp_path / "out"}',
    '--workers=0',
    f'--rate={test_ave.RATE}',
  ]
  assert prepare.main(arguments) == 1
  assert 'aaaaaaaaaaa: ' in capsys.readouterr().err
  assert prepare.main([*arguments, '--skip_bad']) == 0
  assert '1 clips left out, see ' in capsys.readouterr().out


def test_a_wrong_folder_is_an_error_without_a_traceback(tmp_path, capsys):
  assert prepare.main(['ave', f'--source={tmp_path}', f'--out={tmp_path}']) == 1
  assert 'There is no Annotations.txt' in capsys.readouterr().err


@pytest.mark.parametrize('name', prepare.names())
def test_help_names_the_rules_that_can_be_changed(name, capsys):
  with pytest.raises(SystemExit) as exit:
    prepare.main([name, '--help'])
  assert exit.value.code == 0
  printed = capsys.readouterr().out
  for rule in ('--source', '--skip_bad', '--rate'):
    assert rule in printed
