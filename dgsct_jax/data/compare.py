"""Which rule a folder of pictures follows, where their videos are there, too."""

import collections
import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from PIL import Image

from dgsct_jax.data import cut, files, media
from dgsct_jax.data.rules import FFMPEG_FPS, NAMES, RELEASE, Pair

COMPARED = 10  # clips that are decoded to find the rule
APART = 1.0  # of 255: pictures that differ by less in the mean are the same
MOST = 0.8  # share of the pictures that must follow a rule


def followed(pairs: Sequence[Pair]) -> str:
  """Which rule stored pictures follow, as a sentence; '' if there is nothing to compare."""
  votes: collections.Counter[str] = collections.Counter()
  clips = 0
  for place in sorted(set(cut.spread(len(pairs), COMPARED))) if pairs else []:
    with contextlib.suppress(ValueError, OSError):  # the doctor has other lines for those
      votes.update(_votes(pairs[place]))
      clips += 1
  if not clips:
    return ''
  decided = sum(votes.values()) - votes['either']
  best = max(NAMES, key=lambda name: votes[name])
  if not decided:
    result = 'the rules take the same of these videos'
  elif votes[best] < MOST * decided:
    result = 'they follow no rule'
  else:
    result = f'they follow frames_like={best}'
  counts = ', '.join(f'{votes[name]} {name}' for name in (*NAMES, 'either', 'neither'))
  return f'stored pictures of {clips} clips and their videos: {result} ({counts})'


def _votes(pair: Pair) -> list[str]:
  """For each picture the rule that it follows, 'either' or 'neither'."""
  start = cut.start_of(pair.video, pair.start, pair.seconds)
  paths, taken = files.pictures(pair.folder), pair.taken
  if len(paths) > len(taken.numbers):  # then their place in the folder is their number
    taken = dataclasses.replace(taken, numbers=cut.spread(len(paths), len(taken.numbers)))
    paths = [paths[number] for number in taken.numbers]
  by_rule = {name: [start + time for time in taken.times(name)] for name in NAMES}
  wanted = sorted({time for times in by_rule.values() for time in times})
  frames = media.each_frame(pair.video, wanted)
  seen = {time: _small(Image.fromarray(frame)) for time, frame in zip(wanted, frames)}
  votes = []
  for i, path in enumerate(paths):
    with Image.open(path) as image:
      stored = _small(image)
    expected = {name: seen[times[i]] for name, times in by_rule.items()}
    apart = np.abs(expected[RELEASE] - expected[FFMPEG_FPS]).mean()
    if apart < APART:
      votes.append('either')
      continue
    far = {name: np.abs(stored - pixels).mean() for name, pixels in expected.items()}
    best = min(far, key=lambda name: far[name])
    votes.append(best if far[best] < apart / 2 else 'neither')
  return votes


def _small(image: Image.Image) -> Float32[np.ndarray, '64 64']:
  return np.asarray(image.convert('L').resize((64, 64), Image.Resampling.BOX), np.float32)
