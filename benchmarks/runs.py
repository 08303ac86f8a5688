"""Runs of configs one after another, each in a process of its own; those that exist are kept."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def score(
  folder: Path, config: str, variant: str, seed: str, extra: Sequence[str]
) -> dict[str, float]:
  """The test metrics of a run in `folder`, which is trained unless it has them."""
  workdir = folder / f'{variant.replace(",", "_")}_{seed}'
  if not (workdir / 'metrics.json').exists():
    flags = [f'--config={config}:{variant}', f'--workdir={workdir}', f'--config.seed={seed}']
    run('dgsct_jax.main', [*flags, *extra], workdir / 'log.txt', folder / 'compiled')
  return json.loads((workdir / 'metrics.json').read_text())['test']


def run(module: str, arguments: Sequence[str], log: Path, cache: Path) -> None:
  """Runs a module to its end. Raises subprocess.CalledProcessError; its words are in `log`."""
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open('w') as out:
    subprocess.run(
      [sys.executable, '-m', module, *arguments],
      check=True,
      stdout=out,
      stderr=subprocess.STDOUT,
      env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(cache.absolute())},
    )


def spread(values: Sequence[float]) -> str:
  """Mean ± standard deviation, with one digit after the point."""
  deviation = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
  return f'{statistics.mean(values):.1f}{deviation}'
