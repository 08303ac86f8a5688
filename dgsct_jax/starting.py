"""What comes first where a command starts, before anything large is imported."""

import sys

from dgsct_jax import collector, large_pages


def prepare() -> None:
  """Prepares the process of `python -m PACKAGE.MODULE`.

  Called where a package is imported, it does nothing for any other import.
  """
  if sys.argv[:1] == ['-m']:  # so it is while Python looks for the module that it is to run
    large_pages.start_again()
    collector.relax()
