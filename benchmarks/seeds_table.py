"""The tables of the documentation: test metrics of variants of a config, over seeds.

python -m benchmarks.seeds_table --config=configs/quickstart.py \
    --variants='shapes,dgsct shapes,none' --runs=DIR \
    [--seeds=0,1,2] [--metrics=accuracy,clip_accuracy] [-- FLAGS]

Each cell is a run; runs that are in DIR already are not repeated. FLAGS are passed to every run,
such as --config.data.media=MEDIA. Prints a Markdown table: mean ± standard deviation over the
seeds, of the checkpoint that was best on val.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.tables import spread

CONFIG = flags.DEFINE_string('config', 'configs/quickstart.py', 'Config without its variant.')
VARIANTS = flags.DEFINE_string(
  'variants',
  'shapes,dgsct shapes,none',
  'Variants of the config, separated by spaces; one row each.',
)
SEEDS = flags.DEFINE_list(
  'seeds', ['0', '1', '2'], 'Seeds of initial values, shuffling and dropout.'
)
METRICS = flags.DEFINE_list('metrics', ['accuracy', 'clip_accuracy', 'event_accuracy'], 'Columns.')
RUNS = flags.DEFINE_string('runs', 'runs/table', 'Folder of the runs.')


def main(argv: list[str]) -> None:
  """Prints the table, row by row."""
  print(
    f'| variant | {" | ".join(METRICS.value)} |\n| --- |{" --- |" * len(METRICS.value)}', flush=True
  )
  for variant in VARIANTS.value.split():
    runs = [score(variant, seed, argv[1:]) for seed in SEEDS.value]
    cells = [spread([metrics[name] for metrics in runs]) for name in METRICS.value]
    print(f'| `{variant}` | {" | ".join(cells)} |', flush=True)


def score(
  variant: str, seed: str, extra: Sequence[str], runs: Path | None = None
) -> dict[str, float]:
  """The test metrics of one run, whose folder is in `runs`, or in that of the flag."""
  workdir = (runs or Path(RUNS.value)) / f'{variant.replace(",", "_")}_{seed}'
  if not (workdir / 'metrics.json').exists():
    workdir.mkdir(parents=True, exist_ok=True)
    command = [
      sys.executable,
      '-m',
      'dgsct_jax.main',
      f'--config={CONFIG.value}:{variant}',
      f'--workdir={workdir}',
      f'--config.seed={seed}',
      *extra,
    ]
    cache = {'JAX_COMPILATION_CACHE_DIR': str(Path(RUNS.value).absolute() / 'compiled')}
    with (workdir / 'log.txt').open('w') as log:
      subprocess.run(
        command, check=True, stdout=log, stderr=subprocess.STDOUT, env=os.environ | cache
      )
  return json.loads((workdir / 'metrics.json').read_text())['test']


if __name__ == '__main__':
  app.run(main)
