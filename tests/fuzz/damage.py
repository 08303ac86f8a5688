"""What happens to files: bits flip, ends are lost, blocks are zero or stand twice."""

import resource
import time


def of_bytes(rng, data, told, start=0, end=None):
  """The bytes with a few of those from start to end changed; what was done is told."""
  data, end = bytearray(data), min(len(data), end or len(data))
  if start >= end:
    return bytes(data)
  match rng.integers(4):
    case 0:
      for _ in range(rng.integers(1, 4)):
        i, bit = int(rng.integers(start, end)), int(rng.integers(8))
        data[i] ^= 1 << bit
        told.append(f'bit {bit} of byte {i} flipped')
    case 1:
      end = int(rng.integers(len(data)))
      told.append(f'cut after {end} bytes')
      data = data[:end]
    case 2:
      i, n = int(rng.integers(start, end)), int(rng.integers(1, 100))
      data[i : i + n] = bytes(len(data[i : i + n]))
      told.append(f'{n} bytes from {i} are 0')
    case 3:
      i, n = int(rng.integers(start, end)), int(rng.integers(1, 100))
      data[i:i] = data[i : i + n]
      told.append(f'{n} bytes from {i} twice')
  return bytes(data)


class Cost:
  """Processor time and memory of this process since this was made."""

  def __init__(self):
    self._time, self._peak = time.process_time(), _peak()

  def check(self, what, seconds=30, megabytes=1000):
    """Fails if more was needed."""
    taken, grown = time.process_time() - self._time, _peak() - self._peak
    assert taken < seconds, f'{taken:.0f} s: {what}'
    assert grown < megabytes, f'{grown:.0f} MB: {what}'


def _peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
