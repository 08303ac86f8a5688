"""Labels of composed clips in the form of other benchmarks, and parameters of suitable clips.

A record of `dataset.py` has all labels of its clip; `label` is AVE's. The transforms here reduce
them to those of LLP and AVSBench. Questions are in `questions.py`.
"""

import dataclasses
import io
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from dgsct_jax.scenes.compose import Knobs

Example = dict[str, Any]

# Like LLP: several events, each heard, seen or both, at its own times.
LLP = Knobs(events=(1, 2), distractors=(0, 2), offscreen=0.6)
# Like AVSBench S4: five seconds, one object that sounds throughout, beside silent ones.
S4 = Knobs(segments=5, events=(1, 1), distractors=(0, 2), offscreen=0.0, heard=1.0, seen=1.0)
# Like AVSBench MS3: five seconds, up to three objects that sound at times, some of one class.
MS3 = Knobs(
  segments=5, events=(1, 3), distractors=(0, 2), offscreen=0.2, repeats=0.15, heard=0.7, seen=0.9
)
# Like MUSIC-AVQA, as long as the windows of its models: objects stay in their places.
MUSIC = Knobs(
  events=(1, 3),
  distractors=(0, 1),
  offscreen=0.3,
  repeats=0.3,
  heard=0.6,
  seen=1.0,
  motion=0.1,
  level=(-14.0, 0.0),
)


@dataclasses.dataclass(frozen=True)
class Parsing(grain.transforms.Map):
  """LLP's labels: `audio` and `visual` [t c] for each second, `label` [c] for the clip.

  Weakly supervised training uses `label` only; the others are for evaluation.
  """

  def map(self, example: Example) -> Example:
    """Adds the labels, 0 or 1, in float32."""
    audio, visual = (example[name].astype(np.float32) for name in ('heard', 'seen'))
    label = np.maximum(audio, visual).max(0)
    return example | {'label': label, 'audio': audio, 'visual': visual}


@dataclasses.dataclass(frozen=True)
class SoundingMasks(grain.transforms.Map):
  """AVSBench's labels: `masks` [t h w], 1 where an object is visible that sounds in this second.

  `first`: only the mask of the first second, [1 h w], as in S4's training split.
  """

  first: bool = False

  def map(self, example: Example) -> Example:
    """Replaces the encoded object masks by float32 masks of the sounding objects."""
    sounding = example['sounding'][:, :-1]  # the last source is off screen
    if len(example['masks']) != len(sounding):
      raise ValueError(
        f'{len(example["masks"])} frames in {len(sounding)} seconds: there must be one mask for '
        'each second; build the clips with frames_per_second=1.'
      )
    count = 1 if self.first else len(sounding)
    masks = [of_objects(decode(png), on) for png, on in zip(example['masks'][:count], sounding)]
    return example | {'masks': np.stack(masks).astype(np.float32)}


def decode(png: bytes) -> UInt8[np.ndarray, 'h w']:
  """The object numbers of a stored mask: i + 1 where object i is visible."""
  return np.asarray(Image.open(io.BytesIO(png)))


def of_objects(
  mask: UInt8[np.ndarray, 'h w'], chosen: Bool[np.ndarray, 'k']
) -> Bool[np.ndarray, 'h w']:
  """Where any of the chosen objects is visible."""
  return np.concatenate([[False], chosen])[mask]
