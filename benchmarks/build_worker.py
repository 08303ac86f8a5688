"""Runs a phase of `benchmarks.step_time` of the build on PYTHONPATH, as compare_builds asks.

python -P build_worker.py DESCRIPTOR [flags of step_time]

Writes a line of JSON to the descriptor once the phase is compiled, and one for each line of stdin.
"""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from absl import app

from benchmarks import step_time

ANSWERS = os.fdopen(int(sys.argv.pop(1)), 'w')


def answer(**numbers: float) -> None:
  """Tells the process that asks."""
  print(json.dumps(numbers), file=ANSWERS, flush=True)


def serve(
  name: str,
  ours: Callable[[], Any],
  theirs: Callable[[], Any] | None,
  compiled: Any,
  compile_seconds: float,
  config: Any,
) -> dict[str, float]:
  """Stands in for the `report` of step_time, which every build calls once it has compiled."""
  del name, theirs, config
  step_time.seconds_of(ours)  # allocates memory, too
  memory = compiled.memory_analysis()
  held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  answer(compile_seconds=compile_seconds, bytes=held - memory.alias_size_in_bytes)
  for _ in sys.stdin:
    seconds = step_time.seconds_of(ours)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer(seconds=seconds, process_bytes=peak)
  return {}


step_time.report = serve

if __name__ == '__main__':
  with contextlib.suppress(ImportError):  # of builds whose commands leave the collector as it is
    from dgsct_jax.collector import relax

    relax()
  app.run(step_time.main)
