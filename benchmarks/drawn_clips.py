"""The masks of runs of segmentation on the first test clips, below the true ones, as one picture.

python -m benchmarks.drawn_clips --runs=RUN,RUN --names='with sound,silent' --out=clips.png \
    [--clips=8] [--columns=2]

All runs must be of the same data; each gives one row of every clip.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dgsct_jax import evaluate, figures, trained
from dgsct_jax.tracks import Frames, Mask

RUNS = flags.DEFINE_list('runs', None, 'Folders of runs.', required=True)
NAMES = flags.DEFINE_list('names', None, 'What to call them.', required=True)
OUT = flags.DEFINE_string('out', None, 'The picture.', required=True)
CLIPS = flags.DEFINE_integer('clips', 8, 'How many are drawn.')
COLUMNS = flags.DEFINE_integer('columns', 2, 'Clips side by side.')


def main(argv: list[str]) -> None:
  """Draws the picture."""
  del argv
  runs = [masks(Path(run)) for run in RUNS.value]
  drawn = []
  for number, clip in enumerate(itertools.islice(zip(*runs), CLIPS.value)):
    frames, true, _ = clip[0]
    found = [mask._replace(name=name) for name, (*_, mask) in zip(NAMES.value, clip, strict=True)]
    drawn.append(pixels(figures.draw([frames, true, *found], f'clip {number}')))
  rows = [
    np.concatenate(drawn[i : i + COLUMNS.value], 1) for i in range(0, len(drawn), COLUMNS.value)
  ]
  image = Image.fromarray(np.concatenate(rows)).quantize(64)
  image.save(OUT.value, optimize=True)
  print(f'{OUT.value}: {image.width}×{image.height}, {Path(OUT.value).stat().st_size / 1e3:.0f} kB')


def masks(run: Path) -> Iterator[tuple[Frames, Mask, Mask]]:
  """Frames, true and predicted masks of the test clips of a run, in their order."""
  config = trained.read_config(run)
  model = trained.load(run, config)
  assert model.task.show is not None
  with evaluate.batches(model.task, 'test', config) as batches:
    for batch in batches:
      outputs = model(batch)
      for i in np.flatnonzero(batch['valid']):
        tracks = evaluate.show(model.task, batch, outputs, int(i)).tracks
        (frames,) = (track for track in tracks if isinstance(track, Frames))
        true, found = (track for track in tracks if isinstance(track, Mask))
        yield frames, true, found


def pixels(figure: Figure) -> np.ndarray:
  """A figure as a small picture [h w 3]."""
  figure.set_dpi(70)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3]


if __name__ == '__main__':
  app.run(main)
