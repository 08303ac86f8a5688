"""Transforms from stored records to examples, which are dicts of numpy arrays."""

import dataclasses
import io
from typing import Any

import cv2
import grain
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError

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
    # Normalised with pixels and colours in one axis: numpy is slow along an axis of 3.
    scale, shift = np.tile(1 / (255 * std), self.size), np.tile(mean / std, self.size)
    frames = example.pop('frames')
    video = np.empty((len(frames), self.size, 3 * self.size), np.float32)
    for i, encoded in enumerate(frames):
      try:
        frame = encoded if isinstance(encoded, np.ndarray) else decode_image(encoded)
      except ValueError as error:
        raise ValueError(f'{name(example)}: frame {i} {error}.') from error
      pixels = resize(frame, self.size, self.size).reshape(self.size, -1)
      np.multiply(pixels, scale, out=video[i])
      video[i] -= shift
    return example | {'video': video.reshape(-1, self.size, self.size, 3)}


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

  It equals torch.nn.functional.interpolate, as OpenCV has the same kernel (a = -0.75), but for the
  rounding of positions: for noise 1080 rows high up to 0.04 of 255. Values may leave their range.
  Other libraries use antialiasing or a = -0.5, and give other pixels.
  """
  if image.shape[:2] == (height, width):
    return image.astype(np.float32)
  resized = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
  return resized.reshape(height, width, -1)  # OpenCV drops the axis of a single channel
