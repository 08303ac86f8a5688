"""What happens to files: bits flip, ends are lost, blocks are zero or stand twice."""

import json
import resource
import time

ODD = (None, True, -1, 0, 1e400, float('nan'), 10**30, 0.5, '', 'text', '12', [], [1], {}, {'a': 1})


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


def _odd_json(rng, text, told):
  """The text with one value replaced, removed, renamed, or put into a list."""
  content = json.loads(text)
  value, place = content, []
  while isinstance(value, dict | list) and value and rng.random() < 0.7:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    place.append(keys[rng.integers(len(keys))])
    parent, value = value, value[place[-1]]
  new = ODD[rng.integers(len(ODD))] if rng.random() < 0.8 else [value]
  if not place:
    told.append(f'all of it {new!r}')
    return json.dumps(new)
  match rng.integers(3):
    case 0 if isinstance(parent, dict):
      told.append(f'{place} removed')
      del parent[place[-1]]
    case 1 if isinstance(parent, dict):
      told.append(f'{place} named x')
      parent['x'] = parent.pop(place[-1])
    case _:
      told.append(f'{place} is {new!r}')
      parent[place[-1]] = new
  return json.dumps(content)


def _is_json(data):
  try:
    return bool(json.loads(data))
  except ValueError:
    return False


def file(rng, path, told):
  """Damages a file, which is there."""
  data = path.read_bytes()
  if rng.random() < 0.4:
    lines = data.split(b'\n')
    i = int(rng.integers(len(lines)))
    if _is_json(data):
      path.write_text(_odd_json(rng, data, told))
      return
    if _is_json(lines[i]):
      told.append(f'line {i}')
      lines[i] = _odd_json(rng, lines[i], told).encode()
      path.write_bytes(b'\n'.join(lines))
      return
  path.unlink()
  match rng.integers(7):
    case 0:
      told.append('removed')
    case 1:
      told.append('empty')
      path.touch()
    case 2:
      told.append('a folder')
      path.mkdir()
    case 3:
      told.append('a link to nothing')
      path.symlink_to(path.with_name('nothing'))
    case 4:
      told.append('renamed')
      path.with_name(f'{path.name}.old').write_bytes(data)
    case _:
      path.write_bytes(of_bytes(rng, data, told))


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
