import dataclasses

import numpy as np
import pytest

from dgsct_jax.scenes import compose as scenes
from dgsct_jax.scenes.compose import Knobs, compose
from dgsct_jax.scenes.shapes import Shapes

SMALL = Knobs(segments=6, size=48, sample_rate=4000)
CROWD = dataclasses.replace(SMALL, events=(1, 3), distractors=(0, 2), repeats=0.4, offscreen=0.8)


def clips(knobs, count=12, split='train', seed=0):
  return [compose(Shapes(), knobs, seed, split, i) for i in range(count)]


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(a, b))


def test_a_clip_depends_on_seed_split_and_index_alone():
  first = compose(Shapes(), SMALL, 3, 'val', 5)
  compose(Shapes(), SMALL, 9, 'train', 1)
  assert same(first, compose(Shapes(), SMALL, 3, 'val', 5))
  for seed, split, index in ((4, 'val', 5), (3, 'train', 5), (3, 'val', 6)):
    assert not np.array_equal(first.frames, compose(Shapes(), SMALL, seed, split, index).frames)


def test_shapes_and_dtypes_follow_the_knobs():
  knobs = dataclasses.replace(SMALL, frames_per_second=2)
  clip = compose(Shapes(), knobs, 0, 'train', 0)
  assert clip.frames.shape == (12, 48, 48, 3) and clip.frames.dtype == np.uint8
  assert clip.masks.shape == (12, 48, 48) and clip.masks.dtype == np.uint8
  assert clip.boxes.shape == (12, 4, 4)
  assert clip.wave.shape == (6 * 4000,) and clip.wave.dtype == np.float32
  assert clip.sources.shape == clip.level.shape == (5,)
  assert clip.visible.shape == (6, 4) and clip.sounding.shape == (6, 5)
  assert clip.seen.shape == clip.heard.shape == (6, 8)
  assert clip.label.shape == (6,) and clip.label.dtype == np.int32


@pytest.mark.parametrize('knobs', [SMALL, CROWD])
def test_labels_say_what_sources_do(knobs):
  for clip in clips(knobs):
    for c in range(8):
      where = clip.sources[:-1] == c
      assert np.array_equal(clip.seen[:, c], clip.visible[:, where].any(1))
      assert np.array_equal(clip.heard[:, c], clip.sounding[:, clip.sources == c].any(1))
    event = clip.sources[0]
    both = clip.seen[:, event] & clip.heard[:, event]
    assert both.any() and np.array_equal(clip.label, np.where(both, event, 8))
    assert not clip.visible[:, clip.sources[:-1] < 0].any()
    assert not clip.sounding[:, clip.sources < 0].any()


def test_an_ave_clip_has_one_class_that_is_both_seen_and_heard():
  for clip in clips(SMALL, 30):
    assert np.flatnonzero((clip.seen & clip.heard).any(0)).tolist() == [clip.sources[0]]


def test_no_stream_alone_tells_the_label():
  """Seen but silent, heard but unseen, silent others and unseen others all occur."""
  found = clips(SMALL, 40)
  event = [clip.sources[0] for clip in found]
  seen = np.concatenate([clip.seen[:, e] for clip, e in zip(found, event)])
  heard = np.concatenate([clip.heard[:, e] for clip, e in zip(found, event)])
  for state in (seen & heard, seen & ~heard, ~seen & heard, ~seen & ~heard):
    assert state.mean() > 0.03
  assert 0.3 < np.mean([clip.sources[-1] >= 0 for clip in found]) < 0.7
  assert 0.5 < np.mean([clip.sources[1] >= 0 for clip in found])


@pytest.mark.parametrize('knobs', [SMALL, dataclasses.replace(CROWD, frames_per_second=2)])
def test_boxes_are_the_smallest_around_masks_of_objects_that_are_seen(knobs):
  for clip in clips(knobs):
    for frame, (mask, boxes) in enumerate(zip(clip.masks, clip.boxes)):
      assert set(np.unique(mask)) <= {0} | {i + 1 for i in np.flatnonzero(clip.sources[:-1] >= 0)}
      for i, box in enumerate(boxes):
        y, x = np.nonzero(mask == i + 1)
        expected = (x.min(), y.min(), x.max() + 1, y.max() + 1) if y.size else (0, 0, 0, 0)
        assert tuple(box) == expected
        assert not y.size or clip.visible[frame // knobs.frames_per_second, i]
    shown = clip.boxes.any(-1).reshape(knobs.segments, -1, knobs.objects).any(1)
    assert np.array_equal(shown, clip.visible)


def test_pixels_outside_of_all_masks_are_the_background():
  for clip in clips(dataclasses.replace(SMALL, grain=0.0), 6):
    free = (clip.masks == 0).all(0)
    free[1:], free[:-1] = free[1:] & free[:-1], free[1:] & free[:-1]
    free[:, 1:], free[:, :-1] = free[:, 1:] & free[:, :-1], free[:, 1:] & free[:, :-1]
    moved = np.ptp(clip.frames.astype(int), 0).max(-1)
    # Half-transparent edges reach a pixel or two beyond the mask.
    assert np.mean(moved[free] > 0) < 0.1 and np.mean(moved[~free] > 0) > 0.8


def test_seconds_are_loud_exactly_when_something_sounds():
  knobs = dataclasses.replace(SMALL, hiss=0.001)
  for clip in clips(knobs, 20):
    power = np.sqrt((clip.wave.reshape(6, -1) ** 2).mean(1))
    sounds = clip.sounding.any(1)
    assert (power[sounds] > 0.02).all() and (power[~sounds] < 0.002).all()


def test_levels_are_those_of_the_waveform():
  knobs = dataclasses.replace(SMALL, hiss=0.0, offscreen=0.0, level=(-8.0, -2.0))
  for clip in clips(knobs, 10):
    wave = clip.wave.reshape(6, -1)[clip.sounding[:, 0]]
    level = 20 * np.log10(np.sqrt((wave**2).mean()) / scenes.LOUDNESS)
    # Short fades, and a peak that had to be lowered, take a little.
    assert level < clip.level[0] + 0.1 and (
      level > clip.level[0] - 0.5 or np.abs(wave).max() > 0.98
    )


def test_the_waveform_never_clips():
  knobs = dataclasses.replace(SMALL, level=(20.0, 30.0))
  assert all(0.9 < np.abs(clip.wave).max() < 1 for clip in clips(knobs, 4))


def test_repeats_give_several_objects_of_one_class_and_zero_gives_none():
  def doubles(repeats):
    found = clips(dataclasses.replace(CROWD, repeats=repeats))
    classes = [clip.sources[:-1][clip.sources[:-1] >= 0] for clip in found]
    return sum(len(set(c)) < len(c) for c in classes)

  assert doubles(0.0) == 0 and doubles(0.6) > 3


def test_a_minute_and_five_seconds_at_other_rates_are_composed_too():
  for seconds, frames in ((60, 1), (5, 4)):
    clip = compose(
      Shapes(),
      Knobs(segments=seconds, frames_per_second=frames, size=32, sample_rate=1000),
      0,
      'test',
      0,
    )
    assert len(clip.frames) == seconds * frames and clip.wave.size == seconds * 1000


@pytest.mark.parametrize(
  'change, message',
  [
    ({'distractors': (0, 8)}, '8 objects|9 objects.*lower events'),
    ({'events': (0, 1)}, 'events'),
    ({'scale': (0.5, 0.2)}, 'scale'),
    ({'seen': 0.0}, 'seen'),
  ],
)
def test_impossible_knobs_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    compose(Shapes(), dataclasses.replace(SMALL, **change), 0, 'train', 0)


def test_an_unknown_split_is_named():
  with pytest.raises(ValueError, match='validation'):
    compose(Shapes(), SMALL, 0, 'validation', 0)


def test_knobs_that_leave_no_event_say_what_to_raise():
  knobs = dataclasses.replace(
    SMALL,
    events=(6, 6),
    distractors=(0, 0),
    heard=0.01,
    seen=0.01,
    heard_switching=1.0,
    seen_switching=1.0,
  )
  with pytest.raises(ValueError, match='no event in 100 throws'):
    compose(Shapes(), knobs, 0, 'train', 0)
