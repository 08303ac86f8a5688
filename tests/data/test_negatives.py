import io

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import negatives, pipeline, transforms
from dgsct_jax.data.questions import Asked

CLIPS, SEGMENTS, RATE = 4, 3, 5


class Clips:
  """Clip i, second j is a grey of 50i + 10j, and sounds of that many steps."""

  def __len__(self):
    return CLIPS

  def __getitem__(self, i):
    levels = [50 * i + 10 * j for j in range(SEGMENTS)]
    return {
      'id': f'clip{i}',
      'frames': [png(level) for level in levels],
      'wave': np.repeat(np.int16(levels), RATE),
    }


def png(level):
  file = io.BytesIO()
  Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(file, 'PNG')
  return file.getvalue()


def level(frames):
  """The grey of normalised frames."""
  pixels = frames * transforms.IMAGENET_STD + transforms.IMAGENET_MEAN
  return np.rint(255 * pixels.mean((-3, -2, -1))).astype(int)


def share(own, clips, segments, rule, n=60_000):
  """Of every clip and segment among many draws."""
  clip, segment = negatives.draw(np.random.default_rng(0), own, clips, segments, n, rule)
  edges = np.arange(clips + 1) - 0.5, np.arange(segments + 1) - 0.5
  return np.histogram2d(clip, segment, edges)[0] / n


@pytest.mark.parametrize('own', [0, 2, 4])
def test_every_segment_of_every_other_clip_is_as_likely(own):
  found = share(own, 5, 3, 'correct')
  assert not found[own].any()
  np.testing.assert_allclose(np.delete(found, own, 0), 1 / 12, rtol=0.1)


def test_the_released_rule_refuses_six_clips_that_have_nothing_to_do_with_it():
  found = share(1, 20, 10, 'released').sum(1)
  assert not found[6:12].any() and found[1] > 0
  np.testing.assert_allclose(np.delete(found, range(6, 12)), 1 / 14, rtol=0.1)


def test_the_released_rule_refuses_nothing_to_late_clips():
  np.testing.assert_allclose(share(4, 20, 10, 'released').sum(1), 1 / 20, rtol=0.1)
  assert share(3, 20, 10, 'released').sum(1)[18:].sum() == 0  # clips 18 to 23, of which two exist


@pytest.mark.parametrize('clips, rule', [(1, 'correct'), (6, 'released')])
def test_too_few_clips_are_refused_where_the_release_would_draw_for_ever(clips, rule):
  with pytest.raises(ValueError, match=f'refuses all {clips} clips.*more than {clips}'):
    negatives.draw(np.random.default_rng(0), 0, clips, 10, 5, rule)


def test_an_unknown_rule_is_refused():
  with pytest.raises(ValueError, match="negatives='wrong'; choose 'correct' or 'released'"):
    negatives.draw(np.random.default_rng(0), 0, 9, 10, 5, 'wrong')


def test_frames_of_other_clips_come_beside_those_of_the_clip_of_the_question():
  asked = Asked(
    Clips(),
    [
      {
        'question_content': 'Is it?',
        'templ_values': '[]',
        'type': '["Audio", "Counting"]',
        'anser': 'yes',
      }
    ]
    * 6,
    [0, 1, 1, 2, 3, 3],
    ['<pad>', 'Is', 'it'],
    ['yes'],
  )
  decode = transforms.DecodeFrames(4)
  steps = decode, negatives.OtherFrames(asked, decode, 'correct')
  dataset = pipeline.Dataset(asked, (*steps, transforms.Keep(('video', 'negative'))))
  with (
    pipeline.train(dataset, batch=6, seed=0) as batches,
    pipeline.train(dataset, batch=6, seed=0) as again,
  ):
    seen = set()
    for batch, same in zip((next(batches) for _ in range(9)), again):
      np.testing.assert_array_equal(batch['negative'], same['negative'])
      own, other = level(batch['video']) // 50, level(batch['negative']) // 50
      assert batch['negative'].shape == batch['video'].shape
      assert (own == np.array(asked.places)[batch['index']][:, None]).all()
      assert (own != other).all()
      seen |= set(level(batch['negative']).ravel())
  assert seen == {50 * i + 10 * j for i in range(CLIPS) for j in range(SEGMENTS)}


def test_seconds_come_one_by_one_with_a_frame_of_another_clip():
  seconds = negatives.Seconds(Clips(), SEGMENTS)
  steps = (
    negatives.OtherFrame(seconds),
    transforms.DecodeFrames(4),
    transforms.DecodeWave(1, RATE),
  )
  dataset = pipeline.Dataset(seconds, (*steps, transforms.Keep(('video', 'wave'))))
  with pipeline.evaluate(dataset, batch=5) as batches:
    found = [
      (int(i), *level(video), wave)
      for batch in batches
      for i, video, wave, valid in zip(
        batch['index'], batch['video'], batch['wave'], batch['valid']
      )
      if valid
    ]
  assert [i for i, *_ in found] == list(range(CLIPS * SEGMENTS))
  for i, own, other, wave in found:
    assert own == 50 * (i // SEGMENTS) + 10 * (i % SEGMENTS)
    assert other // 50 != own // 50
    np.testing.assert_allclose(wave * 32768, np.full((1, RATE), own))
