"""Frames of other clips: negative examples for learning which pictures match a sound."""

import dataclasses
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from dgsct_jax.data.pipeline import Source
from dgsct_jax.data.questions import Asked
from dgsct_jax.data.transforms import DecodeFrames, Example


def draw(
  rng: np.random.Generator, own: int, clips: int, segments: int, count: int, rule: str
) -> tuple[Int[np.ndarray, 'n'], Int[np.ndarray, 'n']]:
  """(clip, segment) of `count` segments, uniform over all that `rule` permits for the clip `own`.

  Args:
    rule: 'correct' excludes the clip's own segments. 'released' excludes 60 segments, those of the
      clips 6·own to 6·own + 5 where each has ten, because the release confuses numbers of segments
      with numbers of frames. So a clip sometimes gets its own frames, and early clips never get
      those of some others.

  Raises:
    ValueError: the rule is unknown or excludes all segments.
  """
  if rule not in ('correct', 'released'):
    raise ValueError(f"config.data.negatives={rule!r}; choose 'correct' or 'released'.")
  total, block = clips * segments, 60 if rule == 'released' else segments
  low = min(own * block, total)
  refused = min(block, total - low)
  if refused == total:
    raise ValueError(
      f'config.data.negatives={rule!r} refuses all {clips} clips to clip {own}; '
      f'there must be more than {-(-block // segments)}.'
    )
  place = rng.integers(total - refused, size=count)
  return np.divmod(place + refused * (place >= low), segments)


@dataclasses.dataclass(frozen=True)
class OtherFrames(grain.transforms.RandomMap):
  """`negative` [t h w 3] beside `video`: for each second a frame of some second of any clip."""

  asked: Asked
  decode: DecodeFrames
  rule: str  # see `draw`

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    """Adds `negative`, decoded like `video`."""
    clips, t = self.asked.clips, len(example['video'])
    own = self.asked.clip_of(int(example['index']))
    drawn = zip(*draw(rng, own, len(clips), t, t, self.rule))
    frames = [clips[int(clip)]['frames'][segment] for clip, segment in drawn]
    decoded = self.decode.map({'frames': frames, 'id': 'of frames of other clips'})
    return example | {'negative': decoded['video']}


@dataclasses.dataclass(frozen=True)
class Seconds:
  """The seconds of clips, one by one: a frame and the second's sound."""

  clips: Source
  segments: int

  def __len__(self) -> int:
    return self.segments * len(self.clips)

  def __getitem__(self, index: int) -> dict[str, Any]:
    clip, segment = divmod(index, self.segments)
    record = self.clips[clip]
    wave = np.asarray(record['wave']).reshape(self.segments, -1)[segment]
    return {'id': record['id'], 'frames': [record['frames'][segment]], 'wave': wave}


@dataclasses.dataclass(frozen=True)
class OtherFrame(grain.transforms.RandomMap):
  """Adds a frame of another clip to the frame of a second."""

  seconds: Seconds

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    """Appends to `frames` a frame of any second of any other clip."""
    segments = self.seconds.segments
    own, clips = int(example['index']) // segments, len(self.seconds.clips)
    (clip,), (segment,) = draw(rng, own, clips, segments, 1, 'correct')
    other = self.seconds[int(clip * segments + segment)]
    return example | {'frames': [*example['frames'], *other['frames']]}
