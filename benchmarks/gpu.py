"""What a card makes of a config: batch × rematerialisation × dtype, beside its matrix product.

python -m benchmarks.gpu --runs=DIR [--config=configs/ave.py] [--clips=1,2,4,8,16,32]
    [--vary=model.dtype=float32,bfloat16] [--vary=model.remat=none,cheap,blocks]
    [--phase=step|forward] [--torch_module=FILE:FUNCTION] [--train_clips=3339] [--epochs=50]

Each row is measured by `benchmarks.step_time` in a process of its own, since a card gives memory
back only then; a row that DIR has is not repeated. Writes a Markdown table to DIR/table.md: clips a
second, the memory that XLA plans, the rate by XLA's count of operations (with remat it counts what
is done twice) and its share of a large product in the same dtype on the same card, the minutes of
all epochs as far as steps go, and the ratio to a PyTorch model (see step_time), timed alternately
in the same process. What does not fit says so. It runs on any device that JAX has.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import app, flags

from benchmarks.runs import run
from dgsct_jax.writer import gb

CONFIG = flags.DEFINE_string('config', 'configs/ave.py', 'Config whose model is timed.')
RUNS = flags.DEFINE_string('runs', 'runs/gpu', 'Folder of what was measured.')
CLIPS = flags.DEFINE_list('clips', ['1', '2', '4', '8', '16', '32'], 'Batches.')
VARY = flags.DEFINE_multi_string(
  'vary',
  ['model.dtype=float32,bfloat16', 'model.remat=none,cheap,blocks'],
  'Field of the config and its values; all combinations are measured.',
)
PHASE = flags.DEFINE_enum('phase', 'step', ['step', 'forward'], 'What to time.')
TORCH = flags.DEFINE_string('torch_module', '', 'FILE:FUNCTION of a PyTorch model, for the ratio.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed runs; medians count.', lower_bound=1)
SIZE = flags.DEFINE_integer('size', 8192, 'Rows and columns of the matrix product.')
TRAIN_CLIPS = flags.DEFINE_integer('train_clips', 3339, "Clips of an epoch; AVE's by default.")
EPOCHS = flags.DEFINE_integer('epochs', 50, 'Epochs of which the time is computed.')

# As XLA, cuDNN and allocators say that memory is out.
OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'out of memory', 'OUT_OF_MEMORY')


def main(argv: list[str]) -> None:
  """Measures what is missing and writes the table after each row."""
  del argv
  folder = Path(RUNS.value)
  fields = [text.partition('=')[::2] for text in VARY.value]
  if bad := [text for text, (_, values) in zip(VARY.value, fields) if not values]:
    raise app.UsageError(f'--vary={bad[0]}; give FIELD=VALUE,VALUE.')
  names = [name for name, _ in fields]
  minutes = f'{EPOCHS.value} epochs of {TRAIN_CLIPS.value}'
  head = [*names, 'clips', 'clips/s', 'memory', 'GFLOP/s', 'of a product', minutes, 'PyTorch']
  lines = [f'| {" | ".join(head)} |', '| --- ' * len(head) + '|']
  for values in itertools.product(*(values.split(',') for _, values in fields)):
    for line in rows(folder, dict(zip(names, values))):
      lines.append(line)
      folder.joinpath('table.md').write_text('\n'.join(lines) + '\n')
  print('\n'.join(lines))


def rows(folder: Path, setting: Mapping[str, str]) -> Iterator[str]:
  """A line for each batch, up to the first that does not fit."""
  dtype = setting.get('model.dtype', 'float32')
  arguments = [f'--dtype={dtype}', f'--size={SIZE.value}']
  product = measure(folder / f'product_{dtype}', 'matmul', arguments)
  assert product is not None
  for clips in CLIPS.value:
    arguments = [f'--config={CONFIG.value}', f'--clips={clips}', f'--phase={PHASE.value}']
    arguments += [f'--config.{name}={value}' for name, value in setting.items()]
    arguments += [f'--torch_module={TORCH.value}'] if TORCH.value else []
    name = '_'.join([PHASE.value, *setting.values(), clips])
    found = measure(folder / name, 'step_time', arguments)
    if not found:
      yield f'| {" | ".join([*setting.values(), clips, "does not fit", *[""] * 5])} |'
      return
    rate, per_second = found['flops'] / found['seconds'], int(clips) / found['seconds']
    cells = [
      *setting.values(),
      clips,
      f'{per_second:.2f}',
      gb(found['bytes']) if 'bytes' in found else '',
      f'{rate / 1e9:.0f}',
      f'{100 * rate / product["flops_per_second"]:.1f} %',
      f'{EPOCHS.value * TRAIN_CLIPS.value / per_second / 60:.1f} min',
      f'{found["torch_seconds"] / found["seconds"]:.2f}×' if 'torch_seconds' in found else '',
    ]
    yield f'| {" | ".join(cells)} |'


def measure(file: Path, module: str, arguments: list[str]) -> dict[str, float] | None:
  """The numbers of a benchmark, run unless `file` has them; None if the card's memory is too small.

  Raises subprocess.CalledProcessError if it ends otherwise; its words are in the log.
  """
  found, log = file.with_suffix('.json'), file.with_suffix('.txt')
  if not found.exists():
    arguments = [*arguments, f'--repeats={REPEATS.value}', f'--json={found}']
    try:
      run(f'benchmarks.{module}', arguments, log, file.parent / 'compiled')
    except subprocess.CalledProcessError:
      if not any(words in log.read_text() for words in OUT_OF_MEMORY):
        raise
      found.write_text('null')
  return json.loads(found.read_text())


if __name__ == '__main__':
  app.run(main)
