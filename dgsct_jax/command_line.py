"""What commands with a --config have in common: its flags, and how errors in them are told."""

import difflib
import os
import re
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags

from dgsct_jax import settings, trained

CONFIG = config_flags.DEFINE_config_file('config', None, 'FILE or FILE:VARIANT of the config.')
DEBUG = flags.DEFINE_bool('debug', False, 'Show where in the code an error was raised.')
flags.mark_flag_as_required('config')


def at_home(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with `~/` in its texts as the user's home folder, which shells leave in flags."""
  for name, value in settings.fields(config).items():
    if isinstance(value, str) and value.startswith('~/'):
      config.update_from_flattened_dict({name: os.path.expanduser(value)})
  return config


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
    fields = settings.fields(CONFIG.value)
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
