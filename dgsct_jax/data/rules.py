"""By which rule pictures are taken from a video.

'release' is what the authors of a data set did, as far as that is known; its page says what it is.
'ffmpeg_fps' is what `ffmpeg -i CLIP -vf fps=RATE %08d.jpg` writes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dgsct_jax.data import media

RELEASE, FFMPEG_FPS = NAMES = ('release', 'ffmpeg_fps')


@dataclasses.dataclass(frozen=True)
class Taken:
  """Some of the pictures of a video that is cut at a frame rate.

  rate: pictures a second. numbers: of those that are taken, from 0, ascending.
  at: the time of a released picture in its 1/rate of a second: 0 is its start, 1/2 its middle.
  """

  rate: int
  numbers: Sequence[int]
  at: float = 0.0

  def times(self, frames_like: str = RELEASE) -> list[float]:
    """The times in seconds at which the pictures are shown."""
    if frames_like == RELEASE:
      return [(number + self.at) / self.rate for number in self.numbers]
    # The filter rounds time stamps to the nearest 1/rate, halves upwards: number n is the last
    # picture that begins before n + 1/2, while `media` also shows what begins a little later.
    late = media.EARLY + 1e-6
    return [(number + 0.5) / self.rate - late for number in self.numbers]


class Pair(NamedTuple):
  """A clip whose pictures are stored, and whose video is there, too."""

  video: Path
  folder: Path  # of the pictures
  taken: Taken  # which pictures of the video they are if the folder has no others
  seconds: int  # of the clip
  start: float | None = 0.0  # as for `cut.start_of`


def pairs(videos: Mapping[str, Path], folder: Path, taken: Taken, seconds: int) -> list[Pair]:
  """Each video with the folder of its name, which has its pictures."""
  return [Pair(video, folder / name, taken, seconds) for name, video in videos.items()]


def check(frames_like: str, stored: bool = False) -> str:
  """The name of a rule, if it is one.

  Args:
    stored: the pictures are files, to which no rule applies.

  Raises:
    ValueError: it is none, or does not apply.
  """
  if frames_like not in NAMES:
    raise ValueError(f'frames_like={frames_like!r}; choose one of {", ".join(NAMES)}.')
  if stored and frames_like != RELEASE:
    raise ValueError(
      f'frames_like={frames_like!r} is a rule for videos, but here pictures are stored, and taken'
      ' as they are. The doctor says which rule they follow where the videos are there, too.'
    )
  return frames_like
