"""Drawn objects and synthesised sounds: a source of scenes with nothing to download."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from dgsct_jax.scenes.voices import VOICES

CANVAS = 192  # pixels; outlines are drawn at this size
SPRITE = 96  # pixels; pictures are reduced to this size

Points = list[tuple[float, float]]


def _polar(radius: Callable[[np.ndarray], np.ndarray], corners: int) -> Points:
  angle = np.arange(corners) * 2 * np.pi / corners
  r = radius(angle)
  return list(zip(r * np.cos(angle), r * np.sin(angle)))


def _crescent() -> Points:
  outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 24)
  inner = np.linspace(1.7 * np.pi, 0.3 * np.pi, 24)
  return list(zip(np.cos(outer), np.sin(outer))) + list(
    zip(0.42 + 0.72 * np.cos(inner), 0.72 * np.sin(inner))
  )


def _heart() -> Points:
  t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
  y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
  return list(zip(np.sin(t) ** 3, -y / 16))


# Outlines in [-1, 1]², x to the right and y down. The outline alone shows the class, at any angle.
SHAPES: dict[str, Points] = {
  'disc': _polar(np.ones_like, 40),
  'square': [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
  'triangle': _polar(np.ones_like, 3),
  'star': _polar(lambda a: np.where(np.arange(a.size) % 2, 0.42, 1.0), 10),
  'cross': [
    (-0.33, -1),
    (0.33, -1),
    (0.33, -0.33),
    (1, -0.33),
    (1, 0.33),
    (0.33, 0.33),
    (0.33, 1),
    (-0.33, 1),
    (-0.33, 0.33),
    (-1, 0.33),
    (-1, -0.33),
    (-0.33, -0.33),
  ],
  'ring': _polar(np.ones_like, 40),
  'crescent': _crescent(),
  'hourglass': [(-0.75, -0.95), (0.75, -0.95), (0.14, 0), (0.75, 0.95), (-0.75, 0.95), (-0.14, 0)],
  'heart': _heart(),
  'arrow': [(0, -1), (0.85, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.85, -0.1)],
  'bolt': [
    (0.25, -1),
    (-0.65, 0.15),
    (-0.1, 0.15),
    (-0.35, 1),
    (0.65, -0.25),
    (0.1, -0.25),
    (0.55, -1),
  ],
  'comb': [
    (-0.9, -0.6),
    (0.9, -0.6),
    (0.9, 0.8),
    (0.5, 0.8),
    (0.5, -0.1),
    (0.2, -0.1),
    (0.2, 0.8),
    (-0.2, 0.8),
    (-0.2, -0.1),
    (-0.5, -0.1),
    (-0.5, 0.8),
    (-0.9, 0.8),
  ],
}
HOLES = {'ring': 0.55 * np.array(SHAPES['ring'])}


@dataclasses.dataclass(frozen=True)
class Shapes:
  """Drawn and synthesised scenes: the class is the outline of a picture and the timbre of a sound.

  Colour, texture, angle, pitch, tempo and phase are random and independent of the class. Splits
  differ by the random numbers only. `classes`: any of `SHAPES`; class i of that table always has
  voice i of `VOICES`.
  """

  classes: tuple[str, ...] = tuple(SHAPES)[:8]

  def __post_init__(self) -> None:
    unknown = [name for name in self.classes if name not in SHAPES]
    if unknown or len(set(self.classes)) < len(self.classes):
      raise ValueError(
        f'classes {self.classes} have unknown names {unknown} or repeat one; '
        f'choose from {tuple(SHAPES)}.'
      )

  def picture(self, label: int, rng: np.random.Generator, split: str) -> UInt8[np.ndarray, 'h w 4']:
    """An object of class `label`: a textured area with a contrasting outline."""
    del split
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = 0.46 * CANVAS * rng.uniform(0.85, 1, (2, 1)) * turn
    name, width = self.classes[label], int(rng.integers(6, 12))
    area, border = Image.new('L', (CANVAS, CANVAS)), Image.new('L', (CANVAS, CANVAS))
    outline = np.array(SHAPES[name]) @ turn + CANVAS / 2
    for points, inside in ((outline, 255), (HOLES.get(name), 0)):
      if points is not None:
        points = points if inside else points @ turn + CANVAS / 2
        corners = [tuple(point) for point in points.tolist()]
        ImageDraw.Draw(area).polygon(corners, fill=inside)
        ImageDraw.Draw(border).line(corners + corners[:2], fill=255, width=width, joint='curve')
    mask, edge = (
      np.asarray(image.reduce(CANVAS // SPRITE), np.float32) / 255 for image in (area, border)
    )
    x0, y0 = (outline.min(0).clip(0) * SPRITE / CANVAS).astype(int)
    x1, y1 = np.ceil(outline.max(0) * SPRITE / CANVAS).astype(int)
    fill = _texture(SPRITE, rng)
    line = np.float32(20 if fill.mean() > 110 else 235)
    picture = np.empty((SPRITE, SPRITE, 4), np.uint8)
    picture[..., :3] = fill + (line - fill) * edge[..., None]
    picture[..., 3] = mask * 255
    return picture[y0:y1, x0:x1]

  def sound(
    self, label: int, rng: np.random.Generator, split: str, seconds: int, rate: int
  ) -> Float32[np.ndarray, 's']:
    """`seconds` of the voice of class `label`, without pauses over 0.3 s."""
    del split
    voice = tuple(VOICES.values())[tuple(SHAPES).index(self.classes[label])]
    return voice(rng, seconds * rate, rate).astype(np.float32)

  def background(
    self, rng: np.random.Generator, split: str, size: int
  ) -> UInt8[np.ndarray, 'h w 3']:
    """A gradient with coarse noise and clutter of lines and specks in muted colours."""
    del split
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    ramp = np.broadcast_to(ramp[:, None] if rng.random() < 0.5 else ramp, (size, size))[..., None]
    first, second = _colour(rng, 0.4), _colour(rng, 0.4)
    coarse = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)
    noise = np.asarray(smooth, np.float32)
    picture = first + (second - first) * ramp + (noise - 128) * rng.uniform(0.1, 0.5)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 7)):
      x, y, dx, dy = rng.uniform(0, size, 4)
      colour = tuple(_colour(rng, 0.5).astype(int).tolist())
      if rng.random() < 0.5:
        draw.line((x, y, dx, dy), fill=colour, width=max(1, size // 48))
      else:
        r = size * 0.02
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    return np.asarray(image)


def _colour(rng: np.random.Generator, saturation: float = 1.0) -> Float32[np.ndarray, '3']:
  """A colour of any hue; `saturation` 0 gives greys."""
  hue = np.abs((rng.random() * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
  colour = 1 - saturation * rng.uniform(0.4, 1) * (1 - hue.clip(0, 1))
  return (255 * rng.uniform(0.35, 1) * colour).astype(np.float32)


def _texture(size: int, rng: np.random.Generator) -> Float32[np.ndarray, 'h w 3']:
  """Two colours, plain, shaded, striped, chequered or dotted."""
  first, second = _colour(rng), _colour(rng)
  y, x = np.mgrid[:size, :size].astype(np.float32) / size
  wave = lambda v: np.sin(2 * np.pi * (rng.uniform(3, 6) * v + rng.random())) > 0
  kind = rng.integers(5)
  if kind == 0:
    mix = np.zeros_like(x)
  elif kind == 1:
    mix = y
  elif kind == 2:
    mix = wave(x)
  elif kind == 3:
    mix = wave(x) ^ wave(y)
  else:
    mix = wave(x) & wave(y)
  return first + (second - first) * mix[..., None].astype(np.float32)
