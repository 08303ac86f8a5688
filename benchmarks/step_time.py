"""Time, memory and FLOPs of a forward pass and a training step of any config.

python -m benchmarks.step_time --config=configs/ave.py [--clips=1] [--repeats=5] \
    [--phase=both|forward|step] [--torch_module=FILE:FUNCTION] [--json=FILE]

Clips and weights are random. FUNCTION(clips) returns two functions without arguments, (forward,
training step), of a PyTorch model; they are timed alternately with ours, and the ratio is printed.
Run one phase alone to measure its memory.
"""

import importlib.util
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

from benchmarks.noise import random_batch
from dgsct_jax import optim, sharding, state, train, trained, tree
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Task

CONFIG = config_flags.DEFINE_config_file('config', 'configs/ave.py', 'Config whose model is timed.')
CLIPS = flags.DEFINE_integer('clips', 1, 'Clips in a batch, over all devices.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed steps; the median is printed.')
PHASE = flags.DEFINE_enum('phase', 'both', ['both', 'forward', 'step'], 'What to time.')
TORCH = flags.DEFINE_string(
  'torch_module', '', 'FILE:FUNCTION of a PyTorch model to time beside ours.'
)
JSON = flags.DEFINE_string('json', '', 'File for the numbers of the phase that is timed last.')

SETTINGS = ('dtype', 'remat')  # of config.model, which are printed if the task has them
# Dense matrix FLOP/s of one device: (bfloat16, float32 as XLA runs it by default), from the
# manufacturers' data sheets.
PEAKS = {
  'TPU v4': (275e12, 275e12),
  'TPU v5 lite': (197e12, 197e12),
  'TPU v5p': (459e12, 459e12),
  'TPU v6 lite': (918e12, 918e12),
  'NVIDIA A100': (312e12, 156e12),
  'NVIDIA H100': (989e12, 494e12),
  'NVIDIA H200': (989e12, 494e12),
}


def main(argv: list[str]) -> None:
  """Measures the task of `--config`."""
  del argv
  if TORCH.value:  # which needs memory of the same card; JAX takes most of it at once otherwise
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  measure(CONFIG.value, registry.build(CONFIG.value))


def measure(config: Any, task: Task) -> None:
  """Prints time, memory and FLOPs of a task."""
  config.init.update({name: 'random' for name in config.init if name != 'all'})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch(CLIPS.value, mesh)
  batch = random_batch(task.inputs.spec, CLIPS.value)
  layout = state.layout(task.model, task.inputs.spec, config, mesh)
  variables = state.fill(layout)
  on_device = sharding.global_batch(batch, mesh)
  print(
    f'{jax.device_count()} × {jax.devices()[0].device_kind}, {CLIPS.value} clips,'
    f' {", ".join(f"{name}={config.model[name]}" for name in SETTINGS if name in config.model)}'
  )
  theirs = load(TORCH.value)(CLIPS.value) if TORCH.value else (None, None)

  if PHASE.value != 'step':
    since = time.perf_counter()
    arguments = *variables, on_device
    jitted: Any = trained.compile_forward(task, mesh)
    forward = jitted.lower(*arguments).compile()
    numbers = report(
      'forward',
      lambda: forward(*arguments),
      theirs[0],
      forward,
      time.perf_counter() - since,
      config,
    )

  if PHASE.value != 'forward':
    tx, schedule = optim.build(config.optim, epoch_steps=100)
    current = state.create(variables, tx, config.seed, mesh)
    step, seconds = train.compile_step(task, tx, schedule, current, variables.frozen, on_device)
    holder = [current]

    def run() -> Any:
      holder[0], scalars = step(holder[0], variables.frozen, on_device)
      return scalars

    numbers = report('training step', run, theirs[1], step, seconds, config)

  if JSON.value:
    numbers |= {'trainable': tree.count(variables.params)}
    Path(JSON.value).write_text(json.dumps(numbers))


def report(
  name: str,
  ours: Callable[[], Any],
  theirs: Callable[[], Any] | None,
  compiled: Any,
  compile_seconds: float,
  config: Any,
) -> dict[str, float]:
  """Prints one phase. Its first run is timed separately, since it also allocates memory.

  Returns `seconds`, `compile_seconds`, XLA's count of `flops`, the peak of `bytes` that it plans,
  where it says, and with a PyTorch model its `torch_seconds`.
  """
  first = seconds_of(ours)
  times, their_times = [], []
  if theirs:
    theirs()
  for _ in range(REPEATS.value):
    times.append(seconds_of(ours))
    if theirs:
      their_times.append(seconds_of(theirs))
  seconds = statistics.median(times)
  flops = (compiled.cost_analysis() or {}).get('flops', float('nan'))
  print(
    f'{name}: {seconds:.3f} s (of {REPEATS.value}: {min(times):.3f} to {max(times):.3f}), '
    f'{CLIPS.value / seconds:.3f} clips/s; to the first result {compile_seconds + first:.1f} s, '
    f'of which compilation {compile_seconds:.1f} s'
  )
  numbers = {'seconds': seconds, 'compile_seconds': compile_seconds, 'flops': flops}
  memory = compiled.memory_analysis()
  if memory:
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    numbers['bytes'] = held - memory.alias_size_in_bytes
    print(
      f'  memory: arguments {memory.argument_size_in_bytes / 1e9:.2f} GB, results '
      f'{memory.output_size_in_bytes / 1e9:.2f} GB, of them in place '
      f'{memory.alias_size_in_bytes / 1e9:.2f} GB, '
      f'intermediate {memory.temp_size_in_bytes / 1e9:.2f} GB'
    )
  print(
    f'  peak so far: {train.peak_memory()}; the process '
    f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB'
  )
  rate = flops / seconds
  peak = next(
    (p for kind, p in PEAKS.items() if jax.devices()[0].device_kind.startswith(kind)), None
  )
  share = ''
  if peak:
    possible = jax.device_count() * peak[config.model.get('dtype') != 'bfloat16']
    share = f', {100 * rate / possible:.1f} % of the peak'
  print(f"  {flops / 1e9:.0f} GFLOP by XLA's count, {rate / 1e9:.0f} GFLOP/s{share}")
  if their_times:
    numbers['torch_seconds'] = their_seconds = statistics.median(their_times)
    print(
      f'  PyTorch, alternately: {their_seconds:.3f} s; '
      f'ours is {their_seconds / seconds:.2f} times as fast'
    )
  return numbers


def seconds_of(run: Callable[[], Any]) -> float:
  """The time of one call, until its results are computed."""
  since = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - since


def load(spec: str) -> Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]]:
  """FILE:FUNCTION as a function."""
  file, _, name = spec.rpartition(':')
  if not Path(file).is_file():
    raise ValueError(f'--torch_module={spec}: there is no file {file!r}; give FILE.py:FUNCTION.')
  module_spec = importlib.util.spec_from_file_location('torch_module', file)
  if module_spec is None or module_spec.loader is None:
    raise ValueError(f'--torch_module={spec}: {file!r} is not a Python file.')
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  return getattr(module, name)


if __name__ == '__main__':
  app.run(main)
