"""AVSBench from both layouts; masks of any mode; files of sounds that cannot run code."""

import io

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import doctor, records
from dgsct_jax.data.datasets import avsbench, avsbench_ms3, avsbench_s4
from tests import clips

RATE = 800  # Hz, of all sound here
S4 = [
  ('aa_1', '0', 'helicopter', 'train'),
  ('bb_2', '30', 'cat_meowing', 'train'),
  ('cc', '0', 'lawn_mowing', 'val'),
  ('dd', '1', 'helicopter', 'test'),
  ('ee', '2', 'cat_meowing', 'test'),
  ('ff', '3', 'helicopter', 'test'),
]
MS3 = [('x-y_z', 'train'), ('uu', 'val'), ('vv', 'test')]


def square(value=255, mode='L'):
  """A mask of 24 x 24 whose upper left quarter sounds."""
  values = np.zeros((24, 24), np.uint8)
  values[:12, :12] = value
  image = Image.fromarray(values)
  if mode == 'P':
    image = Image.fromarray(values, 'P')
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image
  return image.convert(mode)


def save(image, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)


def save_waves(path, names):
  path.parent.mkdir(parents=True, exist_ok=True)
  waves = {f'{name}.wav': np.full(5 * RATE, i / 8, np.float32) for i, name in enumerate(names)}
  np.save(path, np.array(waves, dtype=object))


def s4(root, released=True, mode='L'):
  root.mkdir(parents=True, exist_ok=True)
  lines = ['name,start,category,split', *(','.join(row) for row in S4)]
  (root / 's4_meta_data.csv').write_text('\n'.join(lines) + '\n')
  data = root / 's4_data'
  for name, _, category, split in S4:
    inside = f'{split}/{category}/{name}'
    for i in range(1, 6):
      if released:
        picture = Image.fromarray(np.full((24, 24, 3), 40 * i, np.uint8))
        save(picture, data / 'visual_frames' / inside / f'{name}_{i}.png')
      if i == 1 or split != 'train':
        save(
          square(1 if mode == 'P' else 255, mode), data / 'gt_masks' / inside / f'{name}_{i}.png'
        )
  for split, category in {(row[3], row[2]) for row in S4} if released else ():
    names = [row[0] for row in S4 if row[2:] == (category, split)]
    save_waves(data / 'wave' / split / category / 'AVS.npy', names)
  return root


def ms3(root, released=True):
  root.mkdir(parents=True, exist_ok=True)
  lines = ['video_id,split', *(','.join(row) for row in MS3)]
  (root / 'ms3_meta_data.csv').write_text('\n'.join(lines) + '\n')
  data = root / 'ms3_data'
  for name, split in MS3:
    for i in range(1, 6):
      if released:
        picture = Image.fromarray(np.full((24, 24, 3), 40 * i, np.uint8))
        save(picture, data / f'visual_frames/{name}/{name}.mp4_{i}.png')
      save(square(255 * (i > 1)), data / f'gt_masks/{split}/{name}/{name}_{i}.png')
    if released:
      save_waves(data / f'wave/{split}/AVS.npy', [name])
  return root


def build(recipe, out, **options):
  return records.write(recipe, out, **options)


def decode(png):
  return np.asarray(Image.open(io.BytesIO(png)))


def test_s4_is_read_in_the_order_of_its_list_with_one_mask_in_training(tmp_path):
  root = s4(tmp_path / 'data/AVSBench_data/Single-source')
  build(avsbench_s4.recipe(tmp_path, rate=RATE), tmp_path / 'out')
  train, _, test = (records.load(tmp_path / 'out', 'avsbench_s4', s) for s in avsbench.SPLITS)
  assert train.ids == ['helicopter/aa_1', 'cat_meowing/bb_2']
  assert [test[i]['id'] for i in range(3)] == ['helicopter/dd', 'cat_meowing/ee', 'helicopter/ff']
  assert len(train[0]['masks']) == 1 and len(test[0]['masks']) == 5
  assert test[0]['category'] == 15
  files = [root / f's4_data/visual_frames/test/helicopter/dd/dd_{i}.png' for i in range(1, 6)]
  assert test[0]['frames'] == [file.read_bytes() for file in files]
  assert test[0]['wave'].tolist() == [0] * 5 * RATE
  assert test[2]['wave'].tolist() == [4096] * 5 * RATE  # the second helicopter of its file
  mask = decode(test[0]['masks'][4])
  assert mask.dtype == np.uint8 and mask.sum() == 255 * 144 and (mask[:12, :12] == 255).all()


def test_ms3_is_read_with_masks_of_every_second(tmp_path):
  root = ms3(tmp_path / 'AVSBench_data/Multi-sources')
  build(avsbench_ms3.recipe(tmp_path, rate=RATE), tmp_path / 'out')
  train = records.load(tmp_path / 'out', 'avsbench_ms3', 'train')
  assert [decode(mask).any() for mask in train[0]['masks']] == [False, True, True, True, True]
  assert (
    train[0]['frames'][2] == (root / 'ms3_data/visual_frames/x-y_z/x-y_z.mp4_3.png').read_bytes()
  )


@pytest.fixture(scope='session')
def video(tmp_path_factory):
  """42 s: the grey of a picture is its half second times 3, the pitch 10 Hz more each second."""
  path = tmp_path_factory.mktemp('video') / 'a.mkv'
  sound = np.concatenate([clips.tone(2000, 1, 10.0 * i) for i in range(42)], 1)
  return clips.write(path, clips.counter(84, (30, 40), 3), np.arange(84) / 2, sound, 2000)


def test_raw_videos_are_cut_where_the_list_says(tmp_path, video):
  root = s4(tmp_path / 'in', released=False)
  for name, _, category, split in S4:
    path = root / 's4_data/raw_videos' / split / category / f'{name}.mkv'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(video)
  build(avsbench_s4.recipe(root, rate=RATE), tmp_path / 'out')
  record = records.load(tmp_path / 'out', 'avsbench_s4', 'train')[1]  # from 30 s on
  assert [round(decode(frame).mean() / 3) for frame in record['frames']] == [61, 63, 65, 67, 69]
  pitches = np.abs(np.fft.rfft(record['wave'].reshape(5, RATE), axis=1)).argmax(1)
  assert pitches.tolist() == [300, 310, 320, 330, 340]


def test_ms3_is_read_from_videos_too(tmp_path):
  video = clips.write(
    tmp_path / 'a.mkv', clips.counter(10, (30, 40), 3), np.arange(10) / 2, clips.tone(2000, 5), 2000
  )
  root = ms3(tmp_path / 'in', released=False)
  for name, _ in MS3:
    (root / f'{name}.mkv').symlink_to(video)
  with pytest.raises(ValueError, match='neither a folder visual_frames nor any video'):
    avsbench_ms3.recipe(root)
  for name, _ in MS3:
    (root / f'{name}.mkv').rename(root / f'ms3_data/{name}.mkv')
  build(avsbench_ms3.recipe(root, rate=RATE), tmp_path / 'out')
  record = records.load(tmp_path / 'out', 'avsbench_ms3', 'test')[0]
  assert [round(decode(frame).mean() / 3) for frame in record['frames']] == [1, 3, 5, 7, 9]


def test_where_ms3_clips_lie_in_longer_videos_is_not_listed(tmp_path, video):
  root = ms3(tmp_path / 'in', released=False)
  for name, _ in MS3:
    (root / f'ms3_data/{name}.mkv').symlink_to(video)
  with pytest.raises(ValueError, match='x-y_z.mkv lasts 42.00 s: .* to be the clip of 5 s.'):
    build(avsbench_ms3.recipe(root, rate=RATE), tmp_path / 'out')


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'I;16'])
def test_masks_of_any_mode_become_zero_and_255(tmp_path, mode):
  square(1 if mode == 'P' else 255, mode).save(tmp_path / 'a.png')
  mask = decode(avsbench.binary_mask(tmp_path / 'a.png'))
  assert mask.dtype == np.uint8 and mask.shape == (24, 24)
  np.testing.assert_array_equal(mask, np.asarray(square()))


def test_a_mask_may_be_empty_or_full_but_not_ambiguous(tmp_path):
  for value, expected in ((0, 0), (255, 255), (1, 255)):
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / 'a.png')
    assert (decode(avsbench.binary_mask(tmp_path / 'a.png')) == expected).all()
  Image.fromarray(np.uint8([[0, 128, 255]])).save(tmp_path / 'a.png')
  with pytest.raises(
    ValueError, match='a.png has 3 shades, on 33 % of its pixels; a mask is black'
  ):
    avsbench.binary_mask(tmp_path / 'a.png')
  (tmp_path / 'a.png').write_bytes(b'x')
  with pytest.raises(ValueError, match='a.png is not a readable picture'):
    avsbench.binary_mask(tmp_path / 'a.png')


class Command:
  def __reduce__(self):
    return exec, ('raise SystemExit("it ran")',)


def test_files_of_sounds_cannot_run_code_and_faults_are_listed(tmp_path):
  root = s4(tmp_path)
  for split, category, content in (
    ('val', 'lawn_mowing', {'x.wav': Command()}),
    ('test', 'cat_meowing', {'other.wav': np.zeros(5 * RATE)}),
  ):
    np.save(root / f's4_data/wave/{split}/{category}/AVS.npy', np.array(content, dtype=object))
  np.save(root / 's4_data/wave/train/cat_meowing/AVS.npy', np.zeros(3))
  (root / 's4_data/gt_masks/train/helicopter/aa_1/aa_1_1.png').unlink()
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)4 clips of avsbench_s4.*cat_meowing/bb_2: .*AVS.npy holds an array of shape \(3,\).*'
      r'helicopter/aa_1: .*No such file.*aa_1_1.png.*'
      r'lawn_mowing/cc: .*not a readable dictionary of waves .it asks for builtins.exec.*'
      r"cat_meowing/ee: .*AVS.npy has no 'ee.wav'"
    ),
  ):
    build(avsbench_s4.recipe(root, rate=RATE), tmp_path / 'out')


@pytest.mark.parametrize('name', ['', '.', '..', '../..', 'a/b', '/'])
def test_a_clip_of_any_name_is_told_to_be_missing(tmp_path, name):
  for make, kind, listed in (
    (s4, avsbench_s4, 's4_meta_data.csv'),
    (ms3, avsbench_ms3, 'ms3_meta_data.csv'),
  ):
    root = make(tmp_path / listed)
    head, first, *rest = (root / listed).read_text().splitlines()
    (root / listed).write_text('\n'.join([head, f'{name},{first.split(",", 1)[1]}', *rest]))
    found = doctor.examine(kind.recipe(root, rate=RATE))
    assert [f.id for f in found if not f.usable] in ([name], [f'helicopter/{name}'])


def test_unknown_rows_and_missing_folders_are_said(tmp_path):
  root = s4(tmp_path)
  path = root / 's4_meta_data.csv'
  path.write_text('name,start,category,split\naa,0,sneezing,train\n')
  with pytest.raises(ValueError, match="line 2: .*'sneezing'.* unknown category or split"):
    avsbench_s4.recipe(root)
  path.write_text('aa,0,helicopter,train\n')
  with pytest.raises(ValueError, match='needs the columns category, split'):
    avsbench_s4.recipe(root)
  (tmp_path / 'x').mkdir()
  (tmp_path / 'x/ms3_meta_data.csv').write_text('video_id,split\naa,training\n')
  with pytest.raises(ValueError, match='no folder gt_masks'):
    avsbench_ms3.recipe(tmp_path / 'x')
  (tmp_path / 'x/gt_masks').mkdir()
  (tmp_path / 'x/visual_frames').mkdir()
  with pytest.raises(ValueError, match='line 2: .*is none of train, val, test'):
    avsbench_ms3.recipe(tmp_path / 'x')
