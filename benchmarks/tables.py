"""Cells of the tables in the documentation."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float]) -> str:
  """Mean ± standard deviation, with one digit after the point."""
  deviation = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
  return f'{statistics.mean(values):.1f}{deviation}'
