"""Writes an HTML page with clips of a built data set.

python -m dgsct_jax.data.inspect NAME --dir=DIR [--split=test] [--count=12] --out=page.html

It shows the frames of each clip, its masks, its spectrogram and the labels of its seconds on one
time axis, with its sound and its other labels. The page is one file and needs no network.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dgsct_jax import figures
from dgsct_jax import page as pages
from dgsct_jax.data import records, transforms
from dgsct_jax.data.questions import words
from dgsct_jax.tracks import Bars, Frames, Mask, Spectrum, Track

CLASSED = ('label', 'event', 'category')  # fields that hold the number of a class
HIDDEN = ('wave', 'motion', 'boxes')


def page(source: records.Records, title: str, indices: Sequence[int], rate: int) -> str:
  """The HTML of some clips.

  Raises:
    ValueError: a sound is no whole number of seconds at `rate`, in Hz.
  """
  listed = source.folder / 'classes.txt'
  classes = listed.read_text(encoding='utf-8').splitlines() if listed.exists() else []
  asked = questions(source.folder)
  parts = [pages.text(f'{len(source)} clips')]
  for index in indices:
    record = source[index]
    name = f'{index}: {record["id"]}'
    parts += [
      pages.text(name, 'h2'),
      pages.drawing(figures.draw(tracks(record, classes, rate)), name),
      pages.sound(record['wave'], rate),
      pages.table(labels(record, classes, rate)),
      *(pages.text(text) for text in asked.get(record['id'], ())),
    ]
  return pages.page(title, *parts)


def tracks(record: records.Record, classes: Sequence[str], rate: int) -> list[Track]:
  """What a record has for each second: a frame and its masks, the sound, the class or classes.

  Of more frames than seconds, the first one of each second is shown; of fewer, each stays for a
  while. A frame without a mask is shown as it is.
  """
  t = _seconds(record, rate)
  images = [transforms.decode_image(frame) for frame in record['frames']]
  first = np.arange(t) * len(images) // t
  frames = Frames('frames', np.stack([images[i] for i in first]))
  drawn: list[Track] = [frames]
  if encoded := record.get('masks', ()):
    masks = [transforms.decode_image(mask).any(-1) for mask in encoded]
    masks += [np.zeros_like(masks[0])] * (len(images) - len(masks))
    drawn.append(Mask('masks', np.stack([masks[i] for i in first]).astype(np.float32), frames))
  drawn.append(Spectrum('sound', record['wave'].reshape(t, rate) / np.float32(32768)))
  for name, value in _numbers(record).items():
    if name in CLASSED and value.shape == (t,) and classes:
      drawn.append(Bars(name, value.astype(int), tuple(classes)))
    elif value.shape == (t, len(classes)):
      drawn += [
        Bars(name, np.where(value[:, c] > 0, c, len(classes)), tuple(classes))
        for c in np.flatnonzero(value.any(0)).tolist()
      ]
  return drawn


def labels(record: records.Record, classes: Sequence[str], rate: int) -> list[list[str]]:
  """Name and text of each numeric field that is not drawn; classes by their names."""
  rows, t = [], _seconds(record, rate)
  for name, value in _numbers(record).items():
    if value.shape == (len(classes),):
      rows.append([name, ', '.join(classes[i] for i in np.flatnonzero(value).tolist())])
    elif name in CLASSED and classes:
      named = [*classes, 'background']
      if value.shape != (t,):
        numbers = np.atleast_1d(value).astype(int).tolist()
        texts = [named[i] if 0 <= i < len(named) else str(i) for i in numbers]
        rows.append([name, ', '.join(texts)])
    elif value.ndim < 2:
      rows.append([name, ', '.join(f'{number:g}' for number in np.atleast_1d(value).tolist())])
  return rows


def _numbers(record: records.Record) -> dict[str, np.ndarray]:
  arrays = {name: np.asarray(value) for name, value in record.items() if name not in HIDDEN}
  return {name: value for name, value in arrays.items() if value.dtype.kind in 'biuf'}


def _seconds(record: records.Record, rate: int) -> int:
  seconds, rest = divmod(len(record['wave']), rate)
  if rest or not seconds:
    raise ValueError(
      f'The sound of {record["id"]} has {len(record["wave"])} samples, which is no whole number of'
      f' seconds at {rate} Hz; give --rate as the data set was built with.'
    )
  return seconds


def questions(folder: Path) -> dict[str, list[str]]:
  """MUSIC-AVQA's questions about each video, with answers; empty for other data sets."""
  texts: dict[str, list[str]] = {}
  for path in sorted(folder.glob('original-*.json')):
    for question in json.loads(path.read_text(encoding='utf-8')):
      text = f'{path.stem}: {" ".join(words(question))}? {question["anser"]}.'
      texts.setdefault(question['video_id'], []).append(text)
  return texts


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.data.inspect',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('name', help='name of a built data set')
  parser.add_argument('--dir', required=True, help='where it was built')
  parser.add_argument('--split', default='test', help="split; 'videos' for music_avqa")
  parser.add_argument('--count', type=int, default=12, help='number of clips, evenly spread')
  parser.add_argument('--rate', type=int, default=32000, help='rate of the stored sound, in Hz')
  parser.add_argument('--out', type=os.path.expanduser, required=True, help='file of the page')
  flags = parser.parse_args(arguments)
  try:
    source = records.load(flags.dir, flags.name, flags.split)
    count = min(flags.count, len(source))
    indices = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    text = page(source, f'{flags.name} {flags.split}', indices, flags.rate)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 1
  Path(flags.out).write_text(text, encoding='utf-8')
  print(f'{flags.out}: {count} clips, {os.path.getsize(flags.out) / 1e6:.1f} MB')
  return 0


if __name__ == '__main__':
  sys.exit(main())
