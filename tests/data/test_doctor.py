"""The doctor finds every fault that is planted, and nothing else."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import compare, datasets, doctor, media, rules
from dgsct_jax.data.datasets import ave, llp, music_avqa
from tests import clips
from tests.data import test_rules
from tests.data.datasets import test_ave, test_llp, test_music_avqa

RATE = 800
TRAIN, VAL, TEST = 'aaaaaaaaaaa', 'bbbbbbbbbbb', 'ccccccccccc'  # b is in train too


def healthy(root):
  """A released folder of AVE whose clips differ."""
  test_ave.released(root)
  for number, video in enumerate((TRAIN, VAL, TEST)):
    wave = 0.1 * np.sin(np.arange(10 * RATE) * (0.1 + 0.1 * number))
    np.save(root / f'wave/{video}.npy', wave.astype(np.float32))
  # The row that puts b into train: no video is in two splits.
  rows = [row.replace(VAL, 'ddddddddddd') if 'Mandolin' in row else row for row in test_ave.ROWS]
  head = (root / 'Annotations.txt').read_text().splitlines()[0]
  (root / 'Annotations.txt').write_text('\n'.join([head, *rows]))
  shutil.copytree(root / f'frames/{VAL}', root / 'frames/ddddddddddd')
  np.save(root / 'wave/ddddddddddd.npy', np.sin(np.arange(10 * RATE) * 0.7).astype(np.float32))
  return root


def kinds(root):
  """(split, id) -> kinds, of what the doctor finds."""
  findings = doctor.examine(ave.recipe(root, rate=RATE))
  assert len(findings) == 4
  return {(f.split, f.id): f.kinds for f in findings if f.kinds}


def test_a_healthy_folder_has_no_findings(tmp_path, monkeypatch, capsys):
  assert kinds(healthy(tmp_path)) == {}
  published = {'train': 2, 'val': 1, 'test': 1}
  monkeypatch.setitem(datasets.KINDS, 'ave', dataclasses.replace(ave.KIND, published=published))
  arguments = ['ave', f'--source={tmp_path}', '--workers=0', f'--rate={RATE}']
  assert doctor.main(arguments) == 0
  assert 'train: 2 listed, 2 usable, 2 published' in capsys.readouterr().out


def remove_frames(root):
  shutil.rmtree(root / f'frames/{TEST}')


def empty_frames(root):
  remove_frames(root)
  (root / f'frames/{TEST}').mkdir()


def remove_wave(root):
  (root / f'wave/{TEST}.npy').unlink()


def spoil_frame(root):
  path = root / f'frames/{TEST}/00000017.jpg'  # one of those that are used
  path.write_bytes(path.read_bytes()[:300])


def spoil_wave(root):
  (root / f'wave/{TEST}.npy').write_bytes(b'x')


def put_nan(root):
  wave = np.load(root / f'wave/{TEST}.npy')
  wave[77] = np.nan
  np.save(root / f'wave/{TEST}.npy', wave)


def shorten(root, samples):
  np.save(root / f'wave/{TEST}.npy', np.load(root / f'wave/{TEST}.npy')[:samples])


def lengthen(root):
  wave = np.load(root / f'wave/{TEST}.npy')
  np.save(root / f'wave/{TEST}.npy', np.append(wave, wave[:100]))


def silence(root):
  np.save(root / f'wave/{TEST}.npy', np.full(10 * RATE, 1e-4, np.float32))


def freeze(root):
  for path in (root / f'frames/{TEST}').iterdir():
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)


@pytest.mark.parametrize(
  'plant, kind',
  [
    (remove_frames, 'missing'),
    (empty_frames, 'missing'),
    (remove_wave, 'missing'),
    (spoil_frame, 'unreadable'),
    (spoil_wave, 'unreadable'),
    (put_nan, 'unreadable'),
    (lambda root: shorten(root, 9 * RATE), 'wrong length'),
    (lambda root: shorten(root, 10 * RATE - 1), 'made good'),
    (lengthen, 'made good'),
    (silence, 'silent'),
    (freeze, 'frozen picture'),
  ],
)
def test_every_planted_fault_is_found_alone(tmp_path, plant, kind):
  plant(healthy(tmp_path))
  assert kinds(tmp_path) == {('test', TEST): (kind,)}


def test_the_same_content_in_two_splits_is_found_under_any_name(tmp_path):
  root = healthy(tmp_path)
  shutil.copy(root / f'wave/{TRAIN}.npy', root / f'wave/{TEST}.npy')
  assert kinds(root) == {('train', TRAIN): ('in two splits',), ('test', TEST): ('in two splits',)}


def test_a_video_that_is_named_in_two_splits_is_found_even_if_missing(tmp_path):
  root = test_ave.label_files(tmp_path)
  (root / 'frames').mkdir()
  (root / 'wave').mkdir()
  found = kinds(root)
  assert found['val', VAL] == found['train', VAL] == ('missing', 'in two splits')
  assert found['test', TEST] == ('missing',)


def test_faults_are_printed_written_and_told_by_the_exit_status(tmp_path, capsys):
  root = healthy(tmp_path)
  remove_wave(root)
  silence(root)
  freeze(root)
  (root / f'frames/{TRAIN}/00000001.jpg').write_bytes(b'x')
  arguments = [
    'ave',
    f'--source={root}',
    f'--csv={tmp_path / "out.csv"}',
    '--workers=1',
    f'--rate={RATE}',
  ]
  assert doctor.main(arguments) == 1
  printed = capsys.readouterr().out
  assert 'unreadable: 1\n  train aaaaaaaaaaa: ' in printed
  assert 'silent: 1\n' in printed and 'frozen picture: 1\n' in printed
  assert 'train: 2 listed, 1 usable, 3339 published' in printed
  with open(tmp_path / 'out.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['split'], row['id'], row['findings']) for row in rows] == [
    ('train', 'ddddddddddd', 'ok'),
    ('train', TRAIN, 'unreadable'),
    ('val', VAL, 'ok'),
    ('test', TEST, 'silent; frozen picture'),
  ]


def test_raw_videos_are_examined_too(tmp_path):
  root = test_llp.label_files(tmp_path)
  moving = clips.write(
    tmp_path / 'moving.mkv', clips.counter(10), np.arange(10), clips.tone(2000, 10), 2000
  )
  still = clips.write(
    tmp_path / 'still.mkv', 0 * clips.counter(10), np.arange(10), clips.tone(2000, 10), 2000
  )
  (root / 'video').mkdir()
  shutil.copy(moving, root / 'video/aaaaaaaaaaa.mkv')
  shutil.copy(still, root / 'video/b_bb-bbbbb_.mkv')
  clips.write(root / 'video/ccccccccccc.mkv', clips.counter(10), np.arange(10))
  found = {f.id: f.kinds for f in doctor.examine(llp.recipe(root, rate=RATE))}
  assert found == {
    'aaaaaaaaaaa_20_30': (),
    'b_bb-bbbbb__101.8_111.8': ('frozen picture',),
    'ccccccccccc_0_10': ('unreadable',),
    'ddddddddddd_30_40': ('missing',),
  }


def test_of_music_avqa_questions_are_counted(tmp_path):
  root = test_music_avqa.released(tmp_path)
  (root / 'audio_wave/00000003.npy').unlink()
  recipe = music_avqa.recipe(root, rate=RATE)
  assert doctor.totals(music_avqa.KIND, recipe, doctor.examine(recipe)) == [
    ('original-val', 3, 3, 4595),
    ('original-test', 2, 1, 9185),
    ('update-val', 3, 3, 4568),
    ('update-test', 1, 1, 9129),
  ]


def cut_from(root, rate, numbers, rule):
  """A released folder of AVE beside the videos that its pictures were cut from."""
  test_ave.released(root)
  (root / 'AVE').mkdir()
  for name in (TRAIN, VAL, TEST):
    folder = root / 'frames' / name
    shutil.rmtree(folder)
    folder.mkdir()
    path = test_rules.video(root / f'AVE/{name}.mkv', rate)
    for i, frame in enumerate(media.frames(path, rules.Taken(16, numbers).times(rule)), 1):
      Image.fromarray(frame).save(folder / f'{i:08d}.jpg')


@pytest.mark.parametrize('rule', rules.NAMES)
@pytest.mark.parametrize('numbers', [range(160), ave.taken(16).numbers])
def test_it_says_by_which_rule_stored_pictures_were_cut(tmp_path, capsys, rule, numbers):
  cut_from(tmp_path, 30, numbers, rule)
  doctor.main(['ave', f'--source={tmp_path}', '--workers=0', f'--rate={RATE}'])
  printed = capsys.readouterr().out
  assert f'stored pictures of 3 clips and their videos: they follow frames_like={rule} (' in printed


def test_it_says_if_they_follow_none_or_the_rules_agree(tmp_path):
  def told():
    return compare.followed(ave.recipe(tmp_path, rate=RATE).pairs())

  cut_from(tmp_path, 25, range(3, 163), 'release')
  assert 'they follow no rule (0 release, ' in told()
  for name in (TRAIN, VAL):
    (tmp_path / f'AVE/{name}.mkv').write_bytes(b'broken')
  assert 'stored pictures of 1 clips' in told()
  still = np.zeros((250, 16, 16, 3), np.uint8)
  clips.write(tmp_path / f'AVE/{TEST}.mkv', still, np.arange(250) / 25)
  assert 'the rules take the same of these videos (0 release, 0 ffmpeg_fps, 10 either' in told()
  shutil.rmtree(tmp_path / 'AVE')
  assert told() == ''


def test_a_wrong_folder_is_an_error_without_a_traceback(tmp_path, capsys):
  assert doctor.main(['ave', f'--source={tmp_path}']) == 1
  assert 'There is no Annotations.txt' in capsys.readouterr().err
