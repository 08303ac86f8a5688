"""Time, memory and FLOPs of an evaluation forward and a training step of any config, on random clips and weights.

python -m benchmarks.step_time --config=configs/ave.py [--clips=1] [--repeats=5] [--torch_module=PATH:CALLABLE]

CALLABLE(clips) returns two functions without arguments, (forward, training step), of your own PyTorch model; they are
timed alternately with ours, and the ratio is printed. Each phase may also be run alone (--phase), to see its memory alone.
"""

import importlib.util
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from dgsct_jax import optim, sharding, state, train, trained
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Task

CONFIG = config_flags.DEFINE_config_file('config', 'configs/ave.py', 'Config whose model is timed.')
CLIPS = flags.DEFINE_integer('clips', 1, 'Clips in a batch, over all devices.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed steps; the median is printed.')
PHASE = flags.DEFINE_enum('phase', 'both', ['both', 'forward', 'step'], 'What to time.')
TORCH = flags.DEFINE_string(
  'torch_module', '', 'FILE:FUNCTION of a PyTorch model to time beside ours.'
)

# Dense matrix FLOP/s of one device, (bfloat16, float32 as XLA runs it by default); from the makers' data sheets.
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
  del argv
  measure(CONFIG.value, registry.build(CONFIG.value))


def measure(config: Any, task: Task) -> None:
  """Prints time, memory and FLOPs of a task."""
  config.init.update({name: 'random' for name in config.init if name != 'all'})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_batch(CLIPS.value, mesh)
  batch = random_batch(task.inputs.spec)
  layout = state.layout(task.model, task.inputs.spec, config, mesh)
  variables = state.fill(layout)
  on_device = sharding.global_batch(batch, mesh)
  print(
    f'{jax.device_count()} × {jax.devices()[0].device_kind}, {CLIPS.value} clips, {config.model.dtype}, '
    f'remat={config.model.remat}'
  )
  theirs = load(TORCH.value)(CLIPS.value) if TORCH.value else (None, None)

  if PHASE.value != 'step':
    since = time.perf_counter()
    forward = trained.compile_forward(task, mesh)
    arguments = *variables, on_device
    forward = forward.lower(*arguments).compile()
    report(
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

    report('training step', run, theirs[1], step, seconds, config)


def random_batch(spec: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """A batch as a task describes it: noise, and the first of all labels."""
  rng, b = np.random.default_rng(0), CLIPS.value
  batch = {'index': np.arange(b, dtype=np.int32), 'valid': np.ones(b, np.float32)}
  for name, leaf in spec.items():
    if np.issubdtype(leaf.dtype, np.floating):
      batch[name] = (0.1 * rng.standard_normal((b, *leaf.shape))).astype(leaf.dtype)
    else:
      batch[name] = np.zeros((b, *leaf.shape), leaf.dtype)
  return batch


def report(
  name: str,
  ours: Callable[[], Any],
  theirs: Callable[[], Any] | None,
  compiled: Any,
  compile_seconds: float,
  config: Any,
) -> None:
  """Prints one phase. The first run is not timed with the others: it also touches memory for the first time."""
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
  memory = compiled.memory_analysis()
  if memory:
    print(
      f'  memory: arguments {memory.argument_size_in_bytes / 1e9:.2f} GB, results '
      f'{memory.output_size_in_bytes / 1e9:.2f} GB, of them in place {memory.alias_size_in_bytes / 1e9:.2f} GB, '
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
  share = (
    f', {100 * rate / (jax.device_count() * peak[config.model.dtype != "bfloat16"]):.1f} % of the peak'
    if peak
    else ''
  )
  print(f"  {flops / 1e9:.0f} GFLOP by XLA's count, {rate / 1e9:.0f} GFLOP/s{share}")
  if their_times:
    their_seconds = statistics.median(their_times)
    print(
      f'  PyTorch, alternately: {their_seconds:.3f} s; ours is {their_seconds / seconds:.2f} times as fast'
    )


def seconds_of(run: Callable[[], Any]) -> float:
  since = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - since


def load(spec: str) -> Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]]:
  """FILE:FUNCTION as a function."""
  file, _, name = spec.rpartition(':')
  if not Path(file).is_file():
    raise ValueError(f'--torch_module={spec}: there is no file {file!r}; give FILE.py:FUNCTION.')
  module_spec = importlib.util.spec_from_file_location('torch_module', file)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  return getattr(module, name)


if __name__ == '__main__':
  app.run(main)
