"""Trains a model, or scores it on the test split.

python -m dgsct_jax.main --config=configs/avqa.py [--workdir=DIR] [--mode=train|evaluate]

Any field of the config can be set too, as in --config.optim.lr=1e-4. The same command continues a
run that was stopped.
"""

import contextlib
import re
import signal
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from dgsct_jax import command_line, compiled, evaluate, hosts, settings, train

WORKDIR = flags.DEFINE_string('workdir', '', 'Where results go; by default runs/<config name>.')
MODE = flags.DEFINE_enum(
  'mode', 'train', ['train', 'evaluate'], 'Train, or score the best checkpoint on test.'
)
MULTIHOST = flags.DEFINE_bool(
  'multihost',
  False,
  'One process of several. Slurm, Open MPI, Kubernetes and TPU pods are recognised; elsewhere set'
  ' JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.',
)
KEEP = flags.DEFINE_bool(
  'keep_compiled',
  True,
  'Keep compiled programs for the next start, in JAX_COMPILATION_CACHE_DIR or the folder'
  ' dgsct_jax/compiled of the user cache.',
)
STOPPED = flags.DEFINE_integer(
  'stopped_status',
  0,
  'Exit status of a run that was stopped and saved before its end; not 0 where a scheduler would'
  ' take that for the end.',
)
FROM = flags.DEFINE_integer(
  'from',
  None,
  'Step of the checkpoint to go on from, or to score. Training puts later and damaged ones aside.',
)


def main(argv: list[str]) -> None:
  """Runs `--mode` with `--config`."""
  # Ctrl-C ends at once, as SIGTERM does, even while XLA compiles; the loop of training saves first.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS log every file.
  start = {'train': train.train, 'evaluate': evaluate.run}[MODE.value]
  config_file = config_flags.get_config_filename(flags.FLAGS['config'])
  workdir = Path(WORKDIR.value or default_workdir(config_file)).expanduser()
  try:
    if len(argv) > 1:
      raise ValueError(
        f'{" ".join(argv[1:])} is no flag; fields of the config are given as --config.NAME=VALUE.'
      )
    if KEEP.value:
      compiled.keep()
    config = command_line.at_home(command_line.CONFIG.value)
    given = {'--workdir': str(workdir), '--mode': MODE.value, '--from': FROM.value}
    same = given | {f'config.{name}': value for name, value in settings.fields(config).items()}
    joined = hosts.joined(same, command_line.DEBUG.value)
    with joined if MULTIHOST.value else contextlib.nullcontext():
      if MODE.value == 'train' or not config.trainable:
        make(workdir)
      result = start(config, workdir, None, FROM.value)
    if result is None:
      sys.exit(STOPPED.value)
  except (ValueError, OSError, FloatingPointError) as error:
    if command_line.DEBUG.value:
      raise
    sys.exit(f'error: {error}')


def make(workdir: Path) -> None:
  """Makes the folder of a run. Raises ValueError if it cannot be."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'--workdir={workdir} cannot be made ({error.strerror}); choose another folder.'
    ) from error


def default_workdir(config_file: str) -> Path:
  """runs/avqa for configs/avqa.py, runs/quickstart_stamps for configs/quickstart.py:stamps."""
  file, _, variant = config_file.partition(':')
  return Path('runs') / re.sub(r'\W+', '_', '_'.join(filter(None, (Path(file).stem, variant))))


if __name__ == '__main__':
  app.run(main, flags_parser=command_line.parse_flags)
