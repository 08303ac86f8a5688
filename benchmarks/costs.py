"""What a training step of several variants of a config costs, side by side.

python -m benchmarks.costs --config=configs/ave.py --variants='scenes,none scenes scenes,side' \
    [--clips=8] [--repeats=9] [--shapes] [--json=FILE]

`+features` behind a variant, as in 'scenes,side+features': trained from the kept features of its
encoders (config.data.cache_features).

Prints a Markdown table: the values that are trained outside of the head and altogether; XLA's count
of floating-point operations and its plan of memory for what is computed on the way; and the time of
a step, the median of steps that are taken alternately, so that all see the same machine. The last
three are relative to the first variant, too. Clips and weights are random. With --shapes nothing is
run or allocated: for models that are too large for the machine, but not for its compiler.
"""

import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags

from benchmarks.noise import random_batch
from dgsct_jax import cached, optim, sharding, state, train, tree
from dgsct_jax.tasks import registry

CONFIG = flags.DEFINE_string('config', 'configs/ave.py', 'Config without its variant.')
VARIANTS = flags.DEFINE_string(
  'variants',
  'scenes,none scenes,lavish scenes scenes,side',
  'Variants, separated by spaces; the first is what others are relative to. `default` has no word.',
)
CLIPS = flags.DEFINE_integer('clips', 8, 'Clips in a batch, over all devices.')
REPEATS = flags.DEFINE_integer('repeats', 9, 'Steps of each variant that are timed.')
SHAPES = flags.DEFINE_bool('shapes', False, 'Compile only.')
JSON = flags.DEFINE_string('json', '', 'File for the numbers.')

HEAD = """| variant | trained | of it in the encoder | GFLOP | | intermediate | | step | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


class Step(NamedTuple):
  """A compiled step: what it costs, and a function that takes one."""

  costs: dict[str, float]
  take: Callable[[], None]


def main(argv: list[str]) -> None:
  """Compiles all variants, times them in turns and prints the table."""
  del argv
  variants = VARIANTS.value.split()
  steps = {variant: compiled(variant) for variant in variants}
  if not SHAPES.value:
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for i in range(REPEATS.value + 1):
      for variant, step in steps.items():
        since = time.perf_counter()
        step.take()
        if i:  # the first one also allocates memory
          times[variant].append(time.perf_counter() - since)
    for variant, seconds in times.items():
      steps[variant].costs['seconds'] = statistics.median(seconds)
  costs = {variant: step.costs for variant, step in steps.items()}
  print(table(costs))
  if JSON.value:
    Path(JSON.value).write_text(json.dumps(costs, indent=1))


def compiled(variant: str) -> Step:
  """The step of a variant. Its arrays are made unless only shapes are asked for."""
  name = CONFIG.value.removesuffix('.py').replace('/', '.')
  words, plus, _ = variant.partition('+features')
  config = importlib.import_module(name).get_config('' if words == 'default' else words)
  config.init.update({part: 'random' for part in config.init if part != 'all'})
  task, mesh = registry.build(config), sharding.make_mesh(config.mesh)
  tx, schedule = optim.build(config.optim, epoch_steps=100)
  layout = state.layout(task.model, task.inputs.spec, config, mesh)
  abstract = state.abstract(layout)
  if plus:
    task = cached.without_encoder(task, config, layout)
  batch = sharding.abstract_batch(task.inputs.spec, CLIPS.value, mesh)
  whole = state.abstract_state(abstract, tx, mesh)
  step: Any
  step, seconds = train.compile_step(task, tx, schedule, whole, abstract.frozen, batch)
  print(f'{variant}: compiled in {seconds:.0f} s', flush=True)
  leaves = tree.flatten(abstract.params)
  adapters = {path: x for path, x in leaves.items() if path.startswith('encoder/')}
  costs = {
    'trained': float(tree.count(abstract.params)),
    'adapters': float(tree.count(adapters)),
    'flops': step.cost_analysis()['flops'],
    'bytes': float(step.memory_analysis().temp_size_in_bytes),
  }
  if SHAPES.value:
    return Step(costs, lambda: None)
  variables = state.fill(layout)
  holder = [state.create(variables, tx, config.seed, mesh)]
  clips = sharding.global_batch(random_batch(task.inputs.spec, CLIPS.value), mesh)

  def take() -> None:
    holder[0], scalars = step(holder[0], variables.frozen, clips)
    jax.block_until_ready((holder[0], scalars))

  return Step(costs, take)


def table(costs: dict[str, dict[str, float]]) -> str:
  """The costs as Markdown."""
  first, lines = next(iter(costs.values())), [HEAD]
  for variant, cost in costs.items():
    cells = [f'`{variant}`', f'{cost["trained"]:,.0f}', f'{cost["adapters"]:,.0f}']
    for name, text in (
      ('flops', '{:.1f}'.format(cost['flops'] / 1e9)),
      ('bytes', f'{cost["bytes"] / 1e6:.0f} MB'),
      ('seconds', f'{cost.get("seconds", float("nan")):.3f} s'),
    ):
      ratio = f'{cost[name] / first[name]:.2f}×' if name in cost else ''
      cells += [text if name in cost else '', ratio]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  app.run(main)
