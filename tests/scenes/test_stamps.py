import numpy as np
import pytest

from dgsct_jax.scenes import stamps
from dgsct_jax.scenes.compose import SPLITS, Knobs, compose
from tests import media


@pytest.fixture(scope='module')
def source():
  folder = media.debian('tuxpaint-stamps-default', 'usr/share/tuxpaint/stamps/animals')
  assert media.debian('scratch', 'usr/share/scratch/Media/Backgrounds') == folder
  return stamps.Stamps(str(folder))


def test_test_photographs_are_shown_in_no_other_split():
  for name in stamps.CLASSES:
    train, val, test = (set(stamps.photographs(name, split)) for split in SPLITS)
    assert len(train) >= 2 and len(test) == 1 and not test & (train | val)
    assert val == train or not val & train


def test_no_recording_is_in_two_classes():
  names = [name for label in stamps.CLASSES for name in stamps.recordings(label)]
  assert len(names) == len(set(names))
  assert not {
    'mammals/bovines/goat',
    'mammals/bovines/mountaingoat',
    'mammals/rodents/beaver',
  } & set(names)


def test_backgrounds_are_disjoint():
  names = [name for split in SPLITS for name in stamps.BACKGROUNDS[split]]
  assert len(names) == len(set(names))


def test_missing_files_are_counted_and_the_remedy_named(tmp_path):
  with pytest.raises(ValueError, match=r'\d+ of \d+ .*apt-get download tuxpaint'):
    stamps.Stamps(str(tmp_path))


def test_the_place_of_the_files_is_not_part_of_the_source(source):
  assert repr(source) == 'Stamps()'


def test_held_out_says_which_classes_have_other_photographs_in_val(source):
  assert source.held_out['test'] == source.classes
  assert source.held_out['val'] == ('cattle', 'big_cat', 'deer', 'equine')


def test_splits_hear_other_parts_of_a_recording(source):
  for name in source.classes:
    for recording in stamps.recordings(name):
      parts = [stamps._part(source._file(recording, '.ogg'), split) for split in SPLITS]
      held = [part for part in parts if part is not None]
      assert len(held) in (1, 3) and parts[0] is not None
      assert sum(part[0].size for part in held) / held[0][1] > 0.5
    assert stamps._part(source._file(recording, '.ogg'), 'test') or any(
      stamps._part(source._file(other, '.ogg'), 'test') for other in stamps.recordings(name)
    )


def test_recordings_shared_by_name_are_not_shared_by_content(source):
  found = {}
  for name in source.classes:
    for recording in stamps.recordings(name):
      samples = stamps._part(source._file(recording, '.ogg'), 'train')[0][:4000]
      for other, (label, wave) in found.items():
        both = min(len(wave), len(samples))
        assert label == name or abs(np.corrcoef(wave[:both], samples[:both])[0, 1]) < 0.9, (
          recording,
          other,
        )
      found[recording] = name, samples


@pytest.mark.parametrize('split', SPLITS)
def test_every_class_can_be_seen_and_heard_in_every_split(source, split):
  rng = np.random.default_rng(0)
  for label in range(len(source.classes)):
    picture = source.picture(label, rng, split)
    assert picture.shape[-1] == 4 and 0.1 < (picture[..., 3] > 128).mean() < 1
    sound = source.sound(label, rng, split, 2, 16000)
    power = np.sqrt((sound.reshape(-1, 4800 * 2 // 3) ** 2).mean(1))
    assert sound.shape == (32000,) and (power > 0.1 * sound.std()).all()


def test_a_clip_of_photographs_is_composed_the_same_each_time(source):
  first, second = (
    compose(source, Knobs(segments=4, sample_rate=8000), 0, 'test', 3) for _ in range(2)
  )
  assert np.array_equal(first.frames, second.frames) and np.array_equal(first.wave, second.wave)
  assert first.label.min() < len(source.classes)
