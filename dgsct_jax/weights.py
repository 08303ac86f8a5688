"""Weights by name: what `config.init` names, as a file of ours that fits a part of the model."""

from collections.abc import Mapping
from pathlib import Path

import safetensors

from dgsct_jax import hub
from dgsct_jax.convert import read, table
from dgsct_jax.convert.sources import SOURCES

PACKAGED = Path(__file__).parent / 'scenes' / 'weights'
COLLECTIONS = ('params/', 'batch_stats/')  # how the names of our own files begin


def find(given: str, wanted: Mapping[str, tuple[int, ...]]) -> Path:
  """A file of ours for a name in `config.init`.

  Args:
    given: 'package:NAME' of this package; or a file of ours or of any source of `convert`, as
      `hub.fetch` takes it. What is not ours is converted once and kept in `hub.folder()`.
    wanted: name -> shape of all variables that the file is to fill, by which its source is known.

  Raises:
    ValueError: there is no such file, or it is of no source that fits.
  """
  packaged = str(PACKAGED / given.removeprefix('package:'))
  path = hub.fetch(packaged if given.startswith('package:') else given)
  if is_ours(path):
    return path
  sha256 = read.sha256(path)
  known = hub.folder() / f'{sha256}-{table.VERSION}'
  kept = {source: known.with_name(f'{known.name}-{source}.safetensors') for source in SOURCES}
  for file in kept.values():
    if is_ours(file) and shapes(file) == dict(wanted):
      return file
  source, plan = recognise(path, given, wanted)
  out = kept[source]
  out.parent.mkdir(parents=True, exist_ok=True)
  tensors = table.convert(plan.state, plan.table, plan.targets)
  about = {'source': source, 'variant': plan.variant, 'sha256': sha256, 'table': table.VERSION}
  read.write(out, tensors, about)
  print(f'{given}: {source}, converted and kept as {out}', flush=True)
  return out


def recognise(
  path: Path, given: str, wanted: Mapping[str, tuple[int, ...]]
) -> tuple[str, table.Plan]:
  """The source that makes the wanted variables of a checkpoint, and how.

  Raises:
    ValueError: there is none; the message says what came nearest.
  """
  state, reasons = read.read(path), {}
  for name, source in SOURCES.items():
    try:
      plan = source.plan(state, given)
    except ValueError as error:
      reasons[name] = str(error).splitlines()[0]
      continue
    if dict(plan.targets) == dict(wanted):
      return name, plan
    other = [x for x in wanted if plan.targets.get(x) not in (None, wanted[x])]
    missing, surplus = wanted.keys() - plan.targets.keys(), plan.targets.keys() - wanted.keys()
    example = f'; {other[0]} is {plan.targets[other[0]]}, not {wanted[other[0]]}' if other else ''
    reasons[name] = (
      f'it is one, but not for this part of the model: {len(missing)} variables missing,'
      f' {len(surplus)} surplus, {len(other)} of other shapes{example}'
    )
  faults = '\n'.join(f'  {name}: {reason}' for name, reason in reasons.items())
  raise ValueError(f'{path} is none of the checkpoints that fit here:\n{faults}')


def is_ours(path: Path) -> bool:
  """Whether there is a whole file that `convert` has written."""
  if path.suffix != '.safetensors' or not path.is_file():
    return False
  try:
    return all(name.startswith(COLLECTIONS) for name in shapes(path))
  except safetensors.SafetensorError:
    return False


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
  """The shapes of the tensors of a .safetensors, from its header."""
  with safetensors.safe_open(path, framework='np') as file:
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
