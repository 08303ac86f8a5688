"""The command that builds data sets: its counts, its errors, its exit status."""

import numpy as np
import pytest

from dgsct_jax.data import prepare, records
from tests import clips
from tests.data.datasets import test_ave


@pytest.fixture
def video(tmp_path):
  """Ten seconds of which no two pictures are the same."""
  return clips.write(
    tmp_path / 'a.mp4', clips.counter(250, step=1), np.arange(250) / 25, clips.tone(8000, 10), 8000
  )


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


def test_a_rule_is_named_in_what_is_built_and_must_apply(tmp_path, video, capsys):
  source = test_ave.raw(tmp_path / 'in', video)
  stored = test_ave.released(tmp_path / 'stored')

  def build(source, out, *flags):
    flags = [f'--out={tmp_path / out}', '--workers=0', f'--rate={test_ave.RATE}', *flags]
    return prepare.main(['ave', f'--source={source}', *flags])

  assert build(source, 'a') == build(source, 'b', '--frames_like=ffmpeg_fps') == 0
  first, second = (records.load(tmp_path / out, 'ave', 'val')[0]['frames'] for out in 'ab')
  assert first != second
  capsys.readouterr()
  for folder, out, flag, message in (
    (source, 'a', 'ffmpeg_fps', "frames_like='release' there, 'ffmpeg_fps' now"),
    (source, 'b', 'release', "frames_like='ffmpeg_fps' there, 'release' now"),
    (source, 'c', 'ffmpeg', "frames_like='ffmpeg'; choose one of release, ffmpeg_fps"),
    (stored, 'c', 'ffmpeg_fps', 'here pictures are stored'),
  ):
    assert build(folder, out, f'--frames_like={flag}') == 1
    assert message in capsys.readouterr().err


def test_a_wrong_folder_is_an_error_without_a_traceback(tmp_path, capsys):
  assert prepare.main(['ave', f'--source={tmp_path}', f'--out={tmp_path}']) == 1
  assert 'There is no Annotations.txt' in capsys.readouterr().err


@pytest.mark.parametrize('name', prepare.names())
def test_help_names_the_rules_that_can_be_changed(name, capsys):
  with pytest.raises(SystemExit) as exit:
    prepare.main([name, '--help'])
  assert exit.value.code == 0
  printed = capsys.readouterr().out
  for rule in ('--source', '--skip_bad', '--rate', '--frames_like'):
    assert rule in printed
