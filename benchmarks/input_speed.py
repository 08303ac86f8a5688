"""Clips per second of the input pipeline, for several numbers of worker processes.

python benchmarks/input_speed.py [--dir=DIR --name=ave] [--workers=0,1,2,4] [--batch=8]

Without --dir it makes clips of AVE's size: ten JPEG files of 256 x 256 and ten seconds of sound at
32 kHz. Batches have `video` [b 10 192 192 3] and `wave` [b 10 32000]. docs/data/speed.md has
results.
"""

import argparse
import dataclasses
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from dgsct_jax.data import media, pipeline, records, transforms

SECONDS, RATE = 10, 32000


@dataclasses.dataclass(frozen=True)
class Entry:
  """A synthetic clip; its id is the seed."""

  id: str


def make(entry: Entry) -> records.Record:
  """Frames of smooth noise, as large in JPEG as real ones (about 15 kB), and a wave of noise."""
  rng = np.random.default_rng(int(entry.id))
  frames = []
  for _ in range(SECONDS):
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)).astype(int)
    frames.append(
      media.jpeg(
        np.clip(smooth + rng.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8), quality=90
      )
    )
  wave = (rng.normal(size=SECONDS * RATE) * 2000).astype(np.int16)
  return {'id': entry.id, 'frames': frames, 'wave': wave, 'label': np.zeros(SECONDS, np.int32)}


def build(folder: Path, clips: int) -> None:
  """Builds a data set 'ave' of synthetic clips."""
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * RATE),
    'label': tfds.features.Tensor(shape=(SECONDS,), dtype=np.int32),
  }
  splits = {'train': [Entry(str(i)) for i in range(clips)]}
  records.write(records.Recipe('ave', '1.0.0', features, splits, make), folder)


def alone(work: Callable[[int], object], seconds: float = 2.0) -> float:
  """Milliseconds of one core for each call of `work`, whose argument is the number of the call."""
  work(0)
  started, count = time.thread_time(), 0
  while time.thread_time() - started < seconds:
    work(count)
    count += 1
  return 1e3 * (time.thread_time() - started) / count


def map_cost(transform: grain.transforms.Map, record: records.Record) -> float:
  """Milliseconds of one core for transforming a record."""
  return alone(lambda i: transform.map(record))


def measure(
  dataset: pipeline.Dataset, batch: int, workers: int, seconds: float
) -> tuple[float, float]:
  """Clips per second after the first batches, and the cores in use according to the system."""
  with pipeline.train(dataset, batch=batch, seed=0, workers=workers) as batches:
    for _ in range(2 + 2 * workers):
      next(batches)
    started, busy, count = time.perf_counter(), _busy(), 0
    while time.perf_counter() - started < seconds:
      count += len(next(batches)['valid'])
    passed = time.perf_counter() - started
    return count / passed, (_busy() - busy) / passed


def _busy() -> float:
  """Seconds of processor time of this process and its living children."""
  ticks = 0
  for stat in Path('/proc').glob('[0-9]*/stat'):
    try:
      number, fields = stat.parent.name, stat.read_text().rpartition(')')[2].split()
    except OSError:  # it has just ended
      continue
    if os.getpid() in (int(number), int(fields[1])):
      ticks += int(fields[11]) + int(fields[12])
  return ticks / os.sysconf('SC_CLK_TCK')


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', default='')
  parser.add_argument('--name', default='ave')
  parser.add_argument('--workers', default='0,1,2')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--size', type=int, default=192)
  parser.add_argument('--seconds', type=float, default=10)
  flags = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  with tempfile.TemporaryDirectory() as made:
    if not flags.dir:
      build(Path(made), 128)
    source = records.load(flags.dir or made, flags.name, 'train')
    samples = len(source[0]['wave']) // SECONDS
    decode = (
      transforms.DecodeFrames(flags.size),
      transforms.DecodeWave(SECONDS, samples),
      transforms.Keep(('video', 'wave')),
    )
    record = source[0]
    size = sum(map(len, record['frames'])) + record['wave'].nbytes
    print(
      f'{len(source)} clips of {size / 1e3:.0f} kB, batches of {flags.batch}, '
      f'{os.cpu_count()} cores'
    )
    print(f'reading: {alone(lambda i: source[i % len(source)]):.2f} ms of one core for a clip')
    for transform in decode[:2]:
      cost = map_cost(transform, record)
      print(f'{type(transform).__name__}: {cost:.2f} ms of one core for a clip')
    print('workers  clips/s  cores in use  peak memory of this process, of the largest worker')
    for workers in map(int, flags.workers.split(',')):
      rate, busy = measure(pipeline.Dataset(source, decode), flags.batch, workers, flags.seconds)
      peaks = [
        resource.getrusage(who).ru_maxrss / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
      ]
      print(
        f'{workers:7d}  {rate:7.1f}  {busy:12.1f}  {peaks[0]:.2f} GB, {peaks[1]:.2f} GB', flush=True
      )


if __name__ == '__main__':
  main()
