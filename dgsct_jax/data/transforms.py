"""Transforms from stored records to examples, which are dicts of numpy arrays."""

import dataclasses
import functools
import io
from typing import Any

import grain
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError

from dgsct_jax.cubic import kernel

Example = dict[str, Any]

MOST_PIXELS = 50_000_000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class DecodeFrames(grain.transforms.Map):
  """`frames`, a list of t encoded pictures -> `video` [t h w 3], normalised in float32.

  By default with ImageNet's mean and standard deviation. Frames may be decoded already.
  """

  size: int  # of both sides: the aspect ratio is not kept
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD

  def map(self, example: Example) -> Example:
    """Raises ValueError, with the record and the frame, for a picture that cannot be decoded."""
    example = dict(example)
    mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
    frames = example.pop('frames')
    video = np.empty((len(frames), self.size, self.size, 3), np.float32)
    for i, encoded in enumerate(frames):
      try:
        frame = encoded if isinstance(encoded, np.ndarray) else decode_image(encoded)
      except ValueError as error:
        raise ValueError(f'{name(example)}: frame {i} {error}.') from error
      # Normalised in the flat layout that the resize leaves: numpy is slow along an axis of 3.
      columns = resize(frame, self.size, self.size).swapaxes(0, 1).reshape(self.size, -1)
      columns *= np.tile(1 / (255 * std), self.size)
      columns -= np.tile(mean / std, self.size)
      video[i] = columns.reshape(self.size, self.size, 3).swapaxes(0, 1)
    return example | {'video': video}


@dataclasses.dataclass(frozen=True)
class DecodeMasks(grain.transforms.Map):
  """`masks`, a list of t encoded pictures -> float32 [t h w], 1 where they are not black."""

  def map(self, example: Example) -> Example:
    """Raises ValueError, with the record and the mask, for a picture that cannot be decoded."""
    masks = []
    for i, encoded in enumerate(example['masks']):
      try:
        masks.append(decode_image(encoded).max(-1) > 0)
      except ValueError as error:
        raise ValueError(f'{name(example)}: mask {i} {error}.') from error
    return example | {'masks': np.stack(masks).astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class DecodeWave(grain.transforms.Map):
  """`wave`, int16 or float [t*s] -> float32 [t s] in -1..1, t segments of s samples."""

  segments: int
  samples: int  # of one segment

  def map(self, example: Example) -> Example:
    """Raises ValueError for a wave of another length, or with samples that are not finite."""
    wave = example['wave']
    expected = self.segments * self.samples
    if wave.shape != (expected,):
      raise ValueError(
        f'{name(example)}: the waveform has the shape {wave.shape}, not {self.segments} segments '
        f'of {self.samples} samples = {expected}; build the data set with these numbers.'
      )
    if wave.dtype == np.int16:
      wave = wave / np.float32(32768)
    elif not np.isfinite(wave).all():
      raise ValueError(f'{name(example)}: the waveform has samples that are not finite.')
    wave = np.asarray(wave, np.float32).reshape(self.segments, self.samples)
    return example | {'wave': wave}


@dataclasses.dataclass(frozen=True)
class Blank(grain.transforms.Map):
  """Replaces fields by zeros, which are pictures of the mean colour, or silence."""

  names: tuple[str, ...]

  def map(self, example: Example) -> Example:
    """Raises ValueError if the example lacks a field."""
    if missing := [key for key in self.names if key not in example]:
      raise ValueError(f'{name(example)} has no {missing}, only {sorted(example)}.')
    return example | {key: np.zeros_like(example[key]) for key in self.names}


@dataclasses.dataclass(frozen=True)
class Keep(grain.transforms.Map):
  """Keeps only these fields, and `index` and `valid`, which every batch has."""

  names: tuple[str, ...]

  def map(self, example: Example) -> Example:
    """Raises ValueError if the example lacks a field."""
    if missing := [key for key in self.names if key not in example]:
      raise ValueError(f'{name(example)} has no {missing}, only {sorted(example)}.')
    return {key: example[key] for key in (*self.names, 'index', 'valid') if key in example}


def name(example: Example) -> str:
  """The name of a record in error messages."""
  return f'record {example["id"]!r}' if 'id' in example else 'a record'


def decode_image(encoded: bytes) -> UInt8[np.ndarray, 'h w 3']:
  """The pixels of a JPEG or PNG file. Raises ValueError."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      check_size(image)
      return np.asarray(image.convert('RGB'))
  except Image.DecompressionBombError as error:
    raise ValueError(f'is too large ({error})') from error
  except UnidentifiedImageError as error:
    raise ValueError('is not a readable picture') from error
  except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three
    raise ValueError(f'is not a readable picture ({error})') from error


def check_size(image: Image.Image) -> None:
  """Raises ValueError for a picture of so many pixels that decoding would need gigabytes."""
  if image.width * image.height > MOST_PIXELS:
    raise ValueError(
      f'it has {image.width} × {image.height} pixels; at most {MOST_PIXELS:,} can be used'
    )


def resize(
  image: UInt8[np.ndarray, 'y x c'] | Float32[np.ndarray, 'y x c'], height: int, width: int
) -> Float32[np.ndarray, 'h w c']:
  """Bicubic resize as in torchvision 0.14 on tensors, without antialiasing.

  It equals torch.nn.functional.interpolate; values may leave their range. Other libraries use
  antialiasing or a = -0.5, and give other pixels.
  """
  y, x, c = image.shape
  if (y, x) == (height, width):
    return image.astype(np.float32)
  rows = _mix(image.reshape(y, x * c), *_taps(y, height))
  columns = rows.reshape(height, x, c).swapaxes(0, 1).reshape(x, height * c)
  return _mix(columns, *_taps(x, width)).reshape(width, height, c).swapaxes(0, 1)


def _mix(image: np.ndarray, index: np.ndarray, weight: np.ndarray) -> Float32[np.ndarray, 'n m']:
  """Each new row is a weighted sum of four rows; faster than a product with a sparse matrix."""
  image = image.astype(np.float32)
  total, tap = image[index[0]] * weight[0], np.empty((index.shape[1], image.shape[1]), np.float32)
  for i, w in zip(index[1:], weight[1:]):
    np.take(image, i, axis=0, out=tap, mode='clip')
    tap *= w
    total += tap
  return total


@functools.cache
def _taps(size: int, new: int) -> tuple[np.ndarray, np.ndarray]:
  """Indices [4 new] of the four old pixels of each new one, and their weights [4 new 1]."""
  one = np.float32  # torch rounds the positions to single precision, an effect of 1e-5
  position = ((np.arange(new) + 0.5) * float(one(size / new)) - 0.5).astype(one)
  first = np.floor(position)
  taps = np.arange(-1, 3, dtype=one)[:, None]
  weight = kernel(np.abs(taps - (position - first))).astype(one)
  index = np.clip(first + taps, 0, size - 1).astype(int)
  return index, weight[..., None]
