"""Photographs and recordings of animals (Tux Paint) before photographs of places (Scratch).

A source of scenes. Both come as Debian packages (GPL-2, CC-BY-SA-3.0), which are not included here:
`apt-get download tuxpaint-stamps-default scratch`, then `dpkg-deb -x FILE.deb DIR` for each. The
clips are compositions of real photographs and real recordings, not real video.

Splits. Every class has three or more photographs. The first in `CLASSES` is used in test only. The
second is used in val only, if there are four or more; for a class of three, val uses the training
photographs (`Stamps.held_out` names the classes whose photographs are held out). Mirrored or turned
copies are not counted as other photographs. Of each recording, training has the first 60 %, val the
next 20 %, test the last; one shorter than `SHORTEST` is used in training only. Backgrounds are
disjoint. So val and test measure how well a model recognises other photographs and other parts of
the *same* recordings.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, UInt8
from PIL import Image, ImageEnhance

# Class: photographs; recordings. Species are grouped so that there are photographs to hold out.
# Left out: rhea, giraffe, iguana and wombat (silent recordings), the picture of a bee (a drawing;
# its recording is real), goat and mountain goat (with the recording of the ram), beaver (with that
# of the badger), pigs (a third of a second each), and species with fewer photographs.
CLASSES: dict[str, tuple[str, str]] = {
  'chicken': ('birds/: hen rooster chicken_profile', 'birds/: hen rooster'),
  'waterfowl': ('birds/: duck drake gander', 'birds/: duck drake gander'),
  'penguin': ('birds/: magellanic_penguin penguin little-penguin', 'birds/: penguin'),
  'cattle': (
    'mammals/bovines/: cow yak bull cow_white zebu',
    'mammals/bovines/: cow bull cow_white',
  ),
  'sheep': ('mammals/bovines/: ram sheep sheep_lamb', 'mammals/bovines/: ram sheep sheep_lamb'),
  'big_cat': ('mammals/cats/: tiger_sumatran lion-2 lion tiger', 'mammals/cats/: lion tiger'),
  'deer': ('mammals/deer/: caribou deer doe wapiti', 'mammals/deer/: caribou deer doe'),
  'canine': ('mammals/dogs/: dingo dog fox', 'mammals/dogs/: dog fox'),
  'equine': (
    'mammals/equines/: donkey donkey_eating horse zebra',
    'mammals/equines/: donkey horse zebra',
  ),
  'rabbit': ('mammals/: rabbit_little rodents/rabbit rodents/rabbit-2', 'mammals/rodents/: rabbit'),
  'whale': ('mammals/aquatic/: whale dolphin orca', 'mammals/aquatic/: whale dolphin orca'),
  'ape': ('mammals/apes/: gorilla chimp tamarin_emperor', 'mammals/apes/: gorilla chimp'),
  'insect': ('insects/: hoverfly hornet fly', 'insects/: bee hornet mosquito'),
}
# The photographic backgrounds, without drawings and without murals of people and animals.
BACKGROUNDS = {
  'train': """
        Indoors/clothing-store Indoors/the-movies-inside Nature/beach-malibu Nature/flower-bed
        Nature/forest Nature/grand-canyon Nature/gravel-desert Nature/moon Nature/water-and-rocks
        Nature/wave Outdoors/atom-playground Outdoors/bench-with-view Outdoors/boardwalk
        Outdoors/brick-wall-and-stairs Outdoors/brick-wall1 Outdoors/brick-wall2
        Outdoors/building-at-mit Outdoors/city-with-water Outdoors/city-with-water2
        Outdoors/hay_field Outdoors/mansion Outdoors/parking-ramp Outdoors/train-tracks1
        Outdoors/train-tracks2 Outdoors/village Sports/baseball-field Sports/basketball-court1-a
        Sports/basketball-court1-b Sports/football-field""".split(),
  'val': """
        Indoors/kitchen Nature/hill Nature/garden-rock Nature/pathway Outdoors/pool Outdoors/silos
        Outdoors/wooden-house Outdoors/route66""".split(),
  'test': """
        Indoors/hall Nature/canyon Nature/lake Nature/tree Outdoors/houses Outdoors/castle
        Outdoors/driveway Sports/playing-field""".split(),
}
SHORTEST = 1.0  # seconds of sound in a recording that is divided among the splits
PARTS = {'train': (0.0, 0.6), 'val': (0.6, 0.8), 'test': (0.8, 1.0)}
PIECE = (0.2, 1.0)  # seconds


@dataclasses.dataclass(frozen=True)
class Stamps:
  """Photographs and recordings of animals; the docstring of the file describes the splits.

  `media`: the folder into which both packages were unpacked ('/' where they are installed).

  Raises:
    ValueError: files are missing; the message says how to get them.
  """

  media: str = dataclasses.field(repr=False)  # the clips are the same from any place

  def __post_init__(self) -> None:
    files = [
      self._file(name, end)
      for lists in CLASSES.values()
      for names, end in zip(lists, ('.png', '.ogg'))
      for name in _names(names)
    ]
    files += [self._place(name) for names in BACKGROUNDS.values() for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
      raise ValueError(
        f'{len(missing)} of {len(files)} photographs and recordings are missing, first '
        f'{missing[0]}; get them by `apt-get download tuxpaint-stamps-default scratch` and '
        '`dpkg-deb -x FILE.deb DIR` for each of the two, and give DIR.'
      )

  @property
  def classes(self) -> tuple[str, ...]:
    """The names of the groups of species."""
    return tuple(CLASSES)

  @property
  def held_out(self) -> dict[str, tuple[str, ...]]:
    """For val and test, the classes whose photographs are not used in training."""
    return {
      split: tuple(
        name
        for name in CLASSES
        if not set(photographs(name, split)) & set(photographs(name, 'train'))
      )
      for split in ('val', 'test')
    }

  def picture(self, label: int, rng: np.random.Generator, split: str) -> UInt8[np.ndarray, 'h w 4']:
    """A cut-out photograph of the class, at random mirrored, slightly turned and recoloured."""
    names = photographs(self.classes[label], split)
    image = _cut_out(self._file(names[rng.integers(len(names))], '.png'))
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, expand=True)
    alpha = image.getchannel('A')
    image = image.convert('RGB')
    for change, low, high in (
      (ImageEnhance.Brightness, 0.7, 1.3),
      (ImageEnhance.Contrast, 0.7, 1.3),
      (ImageEnhance.Color, 0.5, 1.5),
    ):
      image = change(image).enhance(rng.uniform(low, high))
    image.putalpha(alpha)
    return np.asarray(image.crop(alpha.getbbox()))

  def sound(
    self, label: int, rng: np.random.Generator, split: str, seconds: int, rate: int
  ) -> Float32[np.ndarray, 's']:
    """A piece of a recording of the class, repeated, at a slightly changed pitch."""
    names = recordings(self.classes[label])
    parts = [_part(self._file(name, '.ogg'), split) for name in names]
    usable = [part for part in parts if part is not None]
    part, given = usable[rng.integers(len(usable))]
    # Held-out parts are short; with longer pieces in training, repetition would differ by split.
    length = min(part.size, int(given * rng.uniform(*PIECE)))
    start = rng.integers(part.size - length + 1)
    piece = soxr.resample(
      part[start : start + length], given * rng.uniform(0.92, 1.08), rate, quality='LQ'
    )
    ramp = np.linspace(0, 1, rate // 200, dtype=np.float32)
    piece[: ramp.size] *= ramp
    piece[-ramp.size :] *= ramp[::-1]
    return np.resize(piece, seconds * rate)

  def background(
    self, rng: np.random.Generator, split: str, size: int
  ) -> UInt8[np.ndarray, 'h w 3']:
    """A square of a photograph, at random mirrored and of another brightness."""
    names = BACKGROUNDS[split]
    image = _photograph(self._place(names[rng.integers(len(names))]))
    side = int(min(image.size) * rng.uniform(0.6, 1))
    x, y = (int(rng.integers(s - side + 1)) for s in image.size)
    image = image.resize(
      (size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side), reducing_gap=2.0
    )
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.2)))

  def _file(self, name: str, end: str) -> Path:
    return Path(self.media, 'usr/share/tuxpaint/stamps/animals', name + end)

  def _place(self, name: str) -> Path:
    return Path(self.media, 'usr/share/scratch/Media/Backgrounds', f'{name}.jpg')


def photographs(name: str, split: str) -> list[str]:
  """The photographs of a class that are used in a split."""
  test, val, *rest = _names(CLASSES[name][0])
  spare = len(rest) > 1
  train = rest if spare else [val, *rest]
  return {'train': train, 'val': [val] if spare else train, 'test': [test]}[split]


def recordings(name: str) -> list[str]:
  """The recordings of a class."""
  return _names(CLASSES[name][1])


def _names(names: str) -> list[str]:
  """'a/: b c' -> ['a/b', 'a/c']."""
  folder, _, rest = names.partition(':')
  return [folder + name for name in rest.split()]


@functools.cache
def _cut_out(file: Path) -> Image.Image:
  """An object without its transparent margin, reduced to at most 200 pixels."""
  image = Image.open(file).convert('RGBA')
  image = image.crop(image.getchannel('A').point(lambda a: 255 * (a >= 128)).getbbox())
  image.thumbnail((200, 200), Image.Resampling.BOX)
  return image


@functools.cache
def _photograph(file: Path) -> Image.Image:
  return Image.open(file).convert('RGB')


@functools.cache
def _part(file: Path, split: str) -> tuple[Float32[np.ndarray, 's'], int] | None:
  """(samples, samples per second) of a split's part of a recording, or None if it has none."""
  wave, rate = soundfile.read(file, dtype='float32', always_2d=True)
  wave = wave.mean(1)
  step = rate // 50
  wave = wave[: wave.size // step * step].reshape(-1, step)
  power = np.sqrt(np.mean(wave**2, 1))
  # Pauses are removed, so that no second that is labelled as heard is silent.
  wave = wave[power > 0.05 * power.max()].reshape(-1)
  if wave.size < SHORTEST * rate:
    return (wave, rate) if split == 'train' else None
  low, high = (int(share * wave.size) for share in PARTS[split])
  return wave[low:high], rate
