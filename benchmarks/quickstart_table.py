"""The table of the README: what the adapters are worth on composed scenes, over seeds.

python -m benchmarks.quickstart_table --runs=DIR --sources=shapes,stamps --media=MEDIA --seeds=0,1,2

Each cell is a run of configs/quickstart.py on its own; those that are in DIR already are not run again. Prints markdown:
mean ± standard deviation over seeds of the test metrics, of the checkpoint that was best on val.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags

RUNS = flags.DEFINE_string('runs', 'runs/table', 'Where the runs go.')
SOURCES = flags.DEFINE_list('sources', ['shapes'], 'shapes, stamps.')
VARIANTS = flags.DEFINE_list('variants', ['dgsct', 'none', 'audio', 'video'], 'Words of configs/quickstart.py.')
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of initial values, shuffling and dropout.')
MEDIA = flags.DEFINE_string('media', '', 'The unpacked packages, for stamps.')
METRICS = ('accuracy', 'clip_accuracy', 'event_accuracy')


def main(argv: list[str]) -> None:
  extra = argv[1:]  # further flags for every run
  print(f'| scenes | variant | {" | ".join(METRICS)} |\n| --- | --- |{" --- |" * len(METRICS)}', flush=True)
  for source in SOURCES.value:
    for variant in VARIANTS.value:
      found = [score(source, variant, seed, extra) for seed in SEEDS.value]
      cells = []
      for name in METRICS:
        values = [metrics[name] for metrics in found]
        spread = statistics.stdev(values) if len(values) > 1 else float('nan')
        cells.append(f'{statistics.mean(values):.1f} ± {spread:.1f}')
      print(f'| {source} | {variant} | {" | ".join(cells)} |', flush=True)


def score(source: str, variant: str, seed: str, extra: list[str]) -> dict[str, float]:
  """The test metrics of one run."""
  workdir = Path(RUNS.value) / f'{source}_{variant}_{seed}'
  if not (workdir / 'metrics.json').exists():
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'dgsct_jax.main', f'--config=configs/quickstart.py:{source},{variant}',
               f'--workdir={workdir}', f'--config.seed={seed}', f'--config.data.media={MEDIA.value}', *extra]
    cache = {'JAX_COMPILATION_CACHE_DIR': str(Path(RUNS.value).absolute() / 'compiled')}
    with (workdir / 'log.txt').open('w') as log:
      subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=os.environ | cache)
  return json.loads((workdir / 'metrics.json').read_text())['test']


if __name__ == '__main__':
  app.run(main)
