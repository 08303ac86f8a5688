"""Writes an HTML page with clips of a built data set.

python -m dgsct_jax.data.inspect NAME --dir=DIR [--split=test] [--count=12] --out=page.html

It shows the frames of each clip (masks in red), its spectrogram, its sound and its labels, with the
time from left to right. The page is one file and needs no network.
"""

import argparse
import base64
import html
import io
import json
import os
import sys
import wave as wav
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16, UInt8
from PIL import Image

from dgsct_jax.data import records, transforms
from dgsct_jax.data.questions import words

WIDTH = 960  # pixels of a clip
STYLE = f"""
body {{ font-family: sans-serif; margin: 2em; }}
section {{ width: {WIDTH}px; margin-bottom: 3em; }}
img, audio, table {{ display: block; width: {WIDTH}px; }}
table {{ table-layout: fixed; border-collapse: collapse; font-size: x-small; }}
td {{ border: 1px solid #ccc; text-align: center; overflow: hidden; }}
td.on {{ background: #fc8; }}
th {{ text-align: left; }}
"""


def page(source: records.Records, title: str, indices: Sequence[int], rate: int) -> str:
  """The HTML of some clips."""
  listed = source.folder / 'classes.txt'
  classes = listed.read_text(encoding='utf-8').splitlines() if listed.exists() else []
  asked = questions(source.folder)
  sections = []
  for index in indices:
    record = source[index]
    texts = ''.join(f'<p>{html.escape(text)}</p>' for text in asked.get(record['id'], ()))
    sections.append(
      f'<section><h2>{index}: {html.escape(record["id"])}</h2>{image(strip(record))}'
      f'{image(spectrogram(record["wave"]))}{sound(record["wave"], rate)}'
      f'{labels(record, classes)}{texts}</section>'
    )
  title = html.escape(title)
  return (
    f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title>'
    f'<style>{STYLE}</style></head><body><h1>{title}</h1><p>{len(source)} clips</p>'
    f'{"".join(sections)}</body></html>'
  )


def strip(record: records.Record) -> UInt8[np.ndarray, 'h w 3']:
  """The frames side by side, with their masks, if there are any, in red."""
  frames = [transforms.decode_image(frame) for frame in record['frames']]
  width = WIDTH // len(frames)
  height = max(1, round(frames[0].shape[0] * width / frames[0].shape[1]))
  small = [np.asarray(Image.fromarray(frame).resize((width, height))) for frame in frames]
  for i, encoded in enumerate(record.get('masks', ())[: len(small)]):
    image = Image.fromarray(transforms.decode_image(encoded))
    resized = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
    red = small[i] // 2 + np.array([127, 0, 0], np.uint8)
    small[i] = np.where(resized.any(-1, keepdims=True), red, small[i])
  return np.concatenate(small, axis=1)


def spectrogram(wave: Int16[np.ndarray, 's'], height: int = 128) -> UInt8[np.ndarray, 'h w']:
  """The level from -80 to 0 dB of full scale, over time and frequency.

  The frequency rises upwards, to half the sampling rate.
  """
  size = 2 * height
  padded = np.pad(wave / np.float32(32768), size // 2)
  starts = np.linspace(0, len(padded) - size, WIDTH).astype(int)
  pieces = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
  amplitude = np.abs(np.fft.rfft(pieces, axis=1)[:, 1:]) / (size / 4)
  level = 1 + 20 * np.log10(np.maximum(amplitude, 1e-4)) / 80
  return (255 * np.clip(level, 0, 1)).astype(np.uint8).T[::-1]


def labels(record: records.Record, classes: Sequence[str]) -> str:
  """Tables of all numeric fields: [t] and [t c] with a column for each second, [c] as names."""
  rows = []
  for name, stored in record.items():
    value = np.asarray(stored)
    if name in ('wave', 'motion', 'boxes') or value.dtype.kind not in 'biuf' or value.ndim > 2:
      continue
    if value.shape == (len(classes),):
      on = [classes[i] for i in np.flatnonzero(value).tolist()]
      rows.append(f'<tr><th>{name}</th><td>{html.escape(", ".join(on))}</td></tr>')
    elif value.ndim == 2 and value.shape[1] == len(classes):
      for c in np.flatnonzero(value.any(0)).tolist():
        rows.append(_row(f'{name}: {classes[c]}', [''] * len(value), value[:, c] > 0))
    elif value.ndim < 2:
      value, texts = np.atleast_1d(value), [f'{number:g}' for number in np.atleast_1d(value)]
      if name in ('label', 'event', 'category') and classes:
        named = [*classes, 'background']
        texts = [named[i] if 0 <= i < len(named) else str(i) for i in value.astype(int)]
      rows.append(_row(name, texts, value != len(classes)))
  return ''.join(f'<table>{row}</table>' for row in rows)


def _row(name: str, texts: Sequence[str], on: Bool[np.ndarray, 't']) -> str:
  cells = ''.join(
    f'<td{" class=on" if lit else ""}>{html.escape(text)}&nbsp;</td>'
    for text, lit in zip(texts, on)
  )
  return f'<tr><th colspan={len(texts)}>{html.escape(name)}</th></tr><tr>{cells}</tr>'


def questions(folder: Path) -> dict[str, list[str]]:
  """MUSIC-AVQA's questions about each video, with answers; empty for other data sets."""
  texts: dict[str, list[str]] = {}
  for path in sorted(folder.glob('original-*.json')):
    for question in json.loads(path.read_text(encoding='utf-8')):
      text = f'{path.stem}: {" ".join(words(question))}? {question["anser"]}.'
      texts.setdefault(question['video_id'], []).append(text)
  return texts


def image(pixels: UInt8[np.ndarray, 'h w *c']) -> str:
  """An image element with an embedded JPEG file."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'jpeg', quality=85)
  return f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def sound(wave: Int16[np.ndarray, 's'], rate: int) -> str:
  """An audio element with an embedded WAV file."""
  file = io.BytesIO()
  with wav.open(file, 'wb') as out:
    out.setnchannels(1)
    out.setsampwidth(2)
    out.setframerate(rate)
    out.writeframes(wave.astype('<i2').tobytes())
  encoded = base64.b64encode(file.getvalue()).decode()
  return f'<audio controls src="data:audio/wav;base64,{encoded}"></audio>'


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
  parser.add_argument('--out', required=True, help='file of the page')
  flags = parser.parse_args(arguments)
  try:
    source = records.load(flags.dir, flags.name, flags.split)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 1
  count = min(flags.count, len(source))
  indices = np.linspace(0, len(source) - 1, count).astype(int).tolist()
  text = page(source, f'{flags.name} {flags.split}', indices, flags.rate)
  Path(flags.out).write_text(text, encoding='utf-8')
  print(f'{flags.out}: {count} clips, {os.path.getsize(flags.out) / 1e6:.1f} MB')
  return 0


if __name__ == '__main__':
  sys.exit(main())
