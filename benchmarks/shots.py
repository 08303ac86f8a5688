"""The curve of few-shot learning: a test metric over the clips of each class, for several variants.

python -m benchmarks.shots --variants='ave ave,none ave,coop' --runs=DIR --out=curve.png \
    [--shots=1,2,4,8,16] [--seeds=0,1,2] [--metric=accuracy] [--published] [-- FLAGS]

Each point is the mean over the seeds, which also draw the clips, with its standard deviation; runs
that are in DIR already are not repeated. Prints the same as a Markdown table. `--published` draws
the curve of the paper's figure for the task of the config, too.
"""

import statistics
from pathlib import Path

from absl import app, flags
from matplotlib.figure import Figure

from benchmarks import seeds_table
from benchmarks.tables import spread

SHOTS = flags.DEFINE_list('shots', ['1', '2', '4', '8', '16'], 'Clips of each class.')
METRIC = flags.DEFINE_string('metric', 'accuracy', 'What is drawn.')
OUT = flags.DEFINE_string('out', 'shots.png', 'The picture.')
PUBLISHED = flags.DEFINE_enum(
  'published', '', ['', 'ave', 'ave_class', 'llp_class'], 'A curve of the paper beside them.'
)
# Read off the figure of the DG-SCT repository; of 16 clips it names the numbers.
PAPER = {
  'ave': {1: 63.0, 2: 65.0, 4: 66.3, 8: 67.9, 16: 72.4},
  'ave_class': {1: 73.5, 2: 73.5, 4: 74.8, 8: 80.0, 16: 84.2},
  'llp_class': {1: 27.6, 2: 28.4, 4: 31.2, 8: 32.6, 16: 32.6},
}


def main(argv: list[str]) -> None:
  """Prints the table and draws the curves."""
  shots = [int(k) for k in SHOTS.value]
  print(f'| variant | {" | ".join(SHOTS.value)} |\n| --- |{" --- |" * len(shots)}', flush=True)
  figure = Figure((6, 4), layout='constrained')
  axes = figure.subplots()
  for variant in seeds_table.VARIANTS.value.split():
    points = [values(variant, k, argv[1:]) for k in shots]
    cells = [spread(point) for point in points]
    print(f'| `{variant}` | {" | ".join(cells)} |', flush=True)
    means, deviations = map(statistics.mean, points), map(deviation, points)
    axes.errorbar(shots, list(means), list(deviations), marker='o', capsize=3, label=variant)
  if PUBLISHED.value:
    paper = PAPER[PUBLISHED.value]
    axes.plot(list(paper), list(paper.values()), 'k--', label='DG-SCT, published')
  axes.set(xlabel='clips of each class', ylabel=f'{METRIC.value}, %', xscale='log')
  axes.set_xticks(shots, SHOTS.value, minor=False)
  axes.minorticks_off()
  axes.legend(frameon=False)
  figure.savefig(OUT.value, dpi=100)


def values(variant: str, shots: int, extra: list[str]) -> list[float]:
  """The metric for every seed."""
  given = [f'--config.data.shots={shots}', *extra]
  found = []
  for seed in seeds_table.SEEDS.value:
    runs = Path(seeds_table.RUNS.value) / f'shots_{shots}'
    draw = [*given, f'--config.data.draw={seed}']
    found.append(seeds_table.score(variant, seed, draw, runs)[METRIC.value])
  return found


def deviation(point: list[float]) -> float:
  """Standard deviation; none of a single run."""
  return statistics.stdev(point) if len(point) > 1 else 0.0


if __name__ == '__main__':
  flags.set_default(seeds_table.CONFIG, 'configs/few_shot.py')
  app.run(main)
