"""Python's garbage collector looks less often.

Imports and traces make millions of small objects that stay. With Python's own thresholds a quarter
of the time of tracing a large model goes into looking at them again (docs/performance.md).
"""

import gc

THRESHOLDS = 100_000, 20, 100  # of `gc.set_threshold`


def relax() -> None:
  """Sets the thresholds of this process."""
  gc.set_threshold(*THRESHOLDS)
