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

import numpy as np

from benchmarks import video
from dgsct_jax import predict
from dgsct_jax.data import clips
from dgsct_jax.tasks import registry


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
    video.make(path, given.seconds)

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
