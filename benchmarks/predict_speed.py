"""How many seconds of video `predict` does in a second, and what it does meanwhile.

python -m benchmarks.predict_speed [--config=configs/tags.py] [--seconds=60] [--jobs=1,2]

A video of pictures and noise is made, 640 × 360 at 25 pictures a second with 44.1 kHz stereo, and
looked at as often as there are jobs; all results are written, with the film and without. The model
is compiled before. Give it an idle machine: times of two runs are no comparison.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from dgsct_jax import predict
from dgsct_jax.data import clips
from dgsct_jax.tasks import registry

SIZE, FPS, RATE = (360, 640), 25, 44100


def make(path: Path, seconds: int) -> None:
  """A video whose pictures move and whose sound is noise."""
  rng = np.random.default_rng(0)
  texture = rng.integers(0, 256, (*SIZE, 3), np.uint8)
  texture = np.repeat(np.repeat(texture[::8, ::8], 8, 0), 8, 1)[: SIZE[0], : SIZE[1]]
  with av.open(str(path), 'w') as file:
    pictures = file.add_stream('h264', FPS)
    pictures.height, pictures.width, pictures.pix_fmt = *SIZE, 'yuv420p'
    sound = file.add_stream('aac', RATE)
    for second in range(seconds):
      for i in range(FPS):
        shown = np.roll(texture, 4 * (FPS * second + i), 1)
        file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown))))
      wave = rng.uniform(-0.3, 0.3, (2, RATE)).astype(np.float32)
      heard = av.AudioFrame.from_ndarray(wave, format='fltp', layout='stereo')
      heard.rate, heard.pts = RATE, second * RATE
      file.mux(sound.encode(heard))
    file.mux(pictures.encode())
    file.mux(sound.encode())


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/tags.py')
  parser.add_argument('--seconds', type=int, default=60)
  parser.add_argument('--jobs', default='1,2')
  parser.add_argument('--repeats', type=int, default=3)
  given = parser.parse_args()
  config = predict.settings(None, given.config)
  task = registry.build(config)
  model, about = predict.load(None, given.config, config, task)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'clip.mp4'
    make(path, given.seconds)

    def one(number: int, film: bool = True) -> tuple[float, float]:
      """Seconds for the model's part and for writing."""
      start = time.perf_counter()
      file, view = predict.look(model, path)
      between = time.perf_counter()
      predict.write(file, view, Path(folder) / f'out_{number}', about, None, film)
      return between - start, time.perf_counter() - between

    one(0)  # compiles
    windows = len(clips.open_file(path, task.inputs.rate, task.inputs.windows).windows)
    print(f'{given.seconds} s of video, {windows} windows, {given.repeats} repeats')
    print('film  jobs  times real time  looking, writing: s of one file')
    for film, jobs in itertools.product((True, False), map(int, given.jobs.split(','))):
      rates: list[float] = []
      parts: list[tuple[float, float]] = []
      for _ in range(given.repeats):
        start = time.perf_counter()
        parts += predict.each(one, [(i, film) for i in range(jobs)], jobs)
        rates.append(jobs * given.seconds / (time.perf_counter() - start))
      looking, writing = np.median(parts, axis=0)
      row = f'{"yes" if film else "no":4s}  {jobs:4d}  {np.median(rates):15.1f}'
      print(f'{row}  {looking:.2f}, {writing:.2f}', flush=True)


if __name__ == '__main__':
  main()
