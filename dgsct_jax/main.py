"""Trains a model, or scores it on the test split.

python -m dgsct_jax.main --config=configs/avqa.py [--workdir=DIR] [--mode=train|evaluate]

Any field of the config can be set too, as in --config.optim.lr=1e-4. The same command continues a
run that was stopped.
"""

import contextlib
import difflib
import os
import re
import signal
import sys
from pathlib import Path

import ml_collections
from absl import app, flags, logging
from flax import traverse_util
from ml_collections import config_flags

from dgsct_jax import compiled, evaluate, hosts, settings, train, trained

CONFIG = config_flags.DEFINE_config_file('config', None, 'FILE or FILE:VARIANT of the config.')
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
DEBUG = flags.DEFINE_bool('debug', False, 'Show where in the code an error was raised.')
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
flags.mark_flag_as_required('config')


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
    config = at_home(CONFIG.value)
    given = {'--workdir': str(workdir), '--mode': MODE.value, '--from': FROM.value}
    same = given | {f'config.{name}': value for name, value in settings.fields(config).items()}
    with hosts.joined(same, DEBUG.value) if MULTIHOST.value else contextlib.nullcontext():
      if MODE.value == 'train' or not config.trainable:
        make(workdir)
      result = start(config, workdir, None, FROM.value)
    if result is None:
      sys.exit(STOPPED.value)
  except (ValueError, OSError, FloatingPointError) as error:
    if DEBUG.value:
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


def at_home(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with `~/` in its texts as the user's home folder, which shells leave in flags."""
  fields = traverse_util.flatten_dict(config.to_dict(), sep='.')
  for name, value in fields.items():
    if isinstance(value, str) and value.startswith('~/'):
      config.update_from_flattened_dict({name: os.path.expanduser(value)})
  return config


def default_workdir(config_file: str) -> Path:
  """runs/avqa for configs/avqa.py, runs/quickstart_stamps for configs/quickstart.py:stamps."""
  file, _, variant = config_file.partition(':')
  return Path('runs') / re.sub(r'\W+', '_', '_'.join(filter(None, (Path(file).stem, variant))))


def parse_flags(argv: list[str]) -> list[str]:
  """As absl does; what is wrong with a flag or the config is one error."""
  try:
    for given in re.findall(r'(?m)^--?config[=\n](.*)$', '\n'.join(argv)):
      trained.from_file(given)  # absl shows a traceback of what is wrong there
    return flags.FLAGS(argv)
  except (ValueError, flags.Error) as error:
    sys.exit(f'error: {error}')
  except (AttributeError, KeyError):
    words = [re.match(r'--?config\.([^=]+)', word) for word in argv]
    sys.argv = [word for word, field in zip(argv, words) if not field]  # config_flags reads it
    flags.FLAGS.unparse_flags()
    flags.FLAGS(sys.argv, known_only=True)
    fields = traverse_util.flatten_dict(CONFIG.value.to_dict(), sep='.')
    unknown = [field[1] for field in words if field and field[1] not in fields]
    if not unknown:
      raise  # something else is wrong, in the config itself
    near = {name: difflib.get_close_matches(name, fields, 3, 0.3) for name in unknown}
    sys.exit(
      'error: '
      + '\n'.join(
        f'--config.{name}: the config has no such field; near to it: {", ".join(names)}.'
        for name, names in near.items()
      )
    )


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
