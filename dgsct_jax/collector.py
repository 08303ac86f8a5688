"""Python's garbage collector looks less often, in commands.

Imports and traces make millions of small objects that stay. With Python's own thresholds a quarter
of the time of tracing a large model goes into looking at them again (docs/performance.md).
"""

import gc
import sys

THRESHOLDS = 100_000, 20, 100  # of `gc.set_threshold`


def start() -> None:
  """Sets the thresholds where `python -m PACKAGE.MODULE` starts, and not for any other import."""
  if sys.argv[:1] == ['-m']:  # so it is while Python looks for the module that it is to run
    gc.set_threshold(*THRESHOLDS)
