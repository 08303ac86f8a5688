"""Adapters compared: each system in each task on the same composed clips, over seeds.

python -m benchmarks.compare --runs=DIR [--tasks=ave,avvp] [--systems=none,lavish,lavish_two,dgsct]
    [--seeds=0,1,2] [--source=shapes] [--out=table.md] [--few] [-- FLAGS]

Trains every cell in a process of its own, one after another. A run that DIR has is not repeated, so
the same command goes on after a stop. Writes a Markdown table: the task's main metric on test, mean
± standard deviation over the seeds; the values that are trained; time and planned memory of a
training step, relative to those of the first system, timed right after it. FLAGS are passed to
every run, such as --config.data.media=MEDIA for --source=stamps.

A system has its own encoders and its own head where configs give it these: LAVISH hears with the
visual encoder, which knows no sound; for AVE it has two linear layers, for AVS a decoder without
TPAVI. `none` has DG-SCT's encoders and heads. With --few, a smoke test.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.runs import run, score, spread

# Main metric, training clips and epochs. The default 48 runs took 4.1 hours of one core in all: two
# hours on two cores if two commands share the tasks.
TASKS = {
  'ave': ('accuracy', 900, 2),
  'avqa': ('accuracy', 1200, 1),
  'avvp': ('segment_type', 600, 3),
  'avs_s4': ('miou', 900, 1),
  'avs_ms3': ('miou', 900, 1),
}
TASK_NAMES = flags.DEFINE_list(
  'tasks', ['ave', 'avqa', 'avvp', 'avs_s4'], 'Rows, by their configs.'
)
SYSTEMS = flags.DEFINE_list(
  'systems', ['none', 'lavish', 'lavish_two', 'dgsct'], 'The first is what costs are relative to.'
)
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Of initial values, shuffling and dropout.')
SOURCE = flags.DEFINE_enum('source', 'shapes', ['shapes', 'stamps'], 'What scenes are made of.')
RUNS = flags.DEFINE_string('runs', 'runs/compare', 'Folder of the runs.')
OUT = flags.DEFINE_string('out', '', 'File of the table; by default table.md in the folder.')
FEW = flags.DEFINE_bool('few', False, 'Few clips and one epoch.')

HEAD = """| task | system | metric | test | trained | step | memory |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main(argv: list[str]) -> None:
  """Trains what is missing and writes the table after each task."""
  if unknown := sorted(set(TASK_NAMES.value) - set(TASKS)):
    raise app.UsageError(f'--tasks has {unknown}; choose from {", ".join(TASKS)}.')
  folder = Path(RUNS.value) / (f'{SOURCE.value}_few' if FEW.value else SOURCE.value)
  out, lines = Path(OUT.value or folder / 'table.md'), ''
  for task in TASK_NAMES.value:
    lines += '\n'.join(rows(task, folder / task, argv[1:])) + '\n'
    out.write_text(HEAD + lines)
  print(HEAD + lines)


def rows(task: str, folder: Path, extra: Sequence[str]) -> list[str]:
  """The lines of a task."""
  metric, clips, epochs = TASKS[task]
  config = f'configs/{task}.py'
  sizes = {'train': clips, 'val': 60, 'test': 200}
  if FEW.value:
    sizes, epochs = {'train': 8, 'val': 4, 'test': 4}, 1
  flags = [f'--config.data.clips.{split}={count}' for split, count in sizes.items()]
  flags += [f'--config.optim.epochs={epochs}', f'--config.data.dir={folder / "data"}', *extra]
  scores: dict[str, list[float]] = {}
  for seed in SEEDS.value:  # seeds first: a stop leaves whole comparisons
    for system in SYSTEMS.value:
      found = score(folder, config, variant(system), seed, flags)
      scores.setdefault(system, []).append(found[metric])
  costs = measure(config, folder, extra)
  means = {system: statistics.mean(values) for system, values in scores.items()}
  first, lines = costs[SYSTEMS.value[0]], []
  for system, values in scores.items():
    cost, text = costs[system], spread(values)
    text = f'**{text}**' if means[system] == max(means.values()) else text
    relative = [f'{cost[name] / first[name]:.2f}×' for name in ('seconds', 'bytes')]
    cells = (task, f'`{system}`', metric, text, f'{cost["trainable"]:,}', *relative)
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def variant(system: str) -> str:
  """The words of a system in every config."""
  base = 'scenes' if SOURCE.value == 'shapes' else SOURCE.value
  return base if system == 'dgsct' else f'{base},{system}'


def measure(config: str, folder: Path, extra: Sequence[str]) -> dict[str, dict[str, float]]:
  """What a training step of each system costs; all are timed in one go, or none."""
  costs = {}
  file = folder / f'cost_{"_".join(SYSTEMS.value)}.json'
  if not file.exists():
    for system in SYSTEMS.value:
      part = folder / f'cost_{system}.json'
      flags = [f'--config={config}:{variant(system)}', '--phase=step', f'--json={part}']
      flags += [f'--clips={2 if FEW.value else 8}', '--repeats=9', *extra]
      run('benchmarks.step_time', flags, part.with_suffix('.txt'), folder / 'compiled')
      costs[system] = json.loads(part.read_text())
    file.write_text(json.dumps(costs))
  return json.loads(file.read_text())


if __name__ == '__main__':
  app.run(main)
