"""Trees by their paths: rules, split into trainable and frozen, merge, differences."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

Tree = dict[str, Any]


def flatten(tree: Tree) -> dict[str, Any]:
  """Nested dicts as one dict from 'a/b/c' to leaf."""
  return traverse_util.flatten_dict(tree, sep='/')


def unflatten(leaves: dict[str, Any]) -> Tree:
  """The inverse of `flatten`; an empty dict gives an empty tree."""
  return traverse_util.unflatten_dict(leaves, sep='/')


def first_match(paths: Sequence[str], rules: Sequence[str], what: str) -> dict[str, int | None]:
  """Maps each path to the first rule that matches all of it, or None.

  Args:
    paths: 'a/b/c' names.
    rules: regular expressions, in order of precedence.
    what: the config field that holds the rules, for the message.

  Raises:
    ValueError: a rule is the first match of no path. All such rules are named at once.
  """
  patterns = [_compile(rule, what) for rule in rules]
  first = {
    path: next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(path)), None)
    for path in paths
  }
  faults = []
  for i, pattern in enumerate(patterns):
    if i in first.values():
      continue
    hidden = next((path for path in paths if pattern.fullmatch(path)), None)
    if hidden is None:
      faults.append(f'{rules[i]!r} matches no parameter')
    else:
      earlier = next(rule for rule, other in zip(rules, patterns) if other.fullmatch(hidden))
      faults.append(f'{rules[i]!r} is never first: {hidden} already matches {earlier!r}')
  if faults:
    raise ValueError(
      f'{what}: {"; ".join(faults)}. Rules match whole paths, first match wins; '
      f'there are {len(paths)} paths such as {_examples(paths)}.'
    )
  return first


def split(tree: Tree, rules: Sequence[str]) -> tuple[Tree, Tree]:
  """(trainable, frozen): the leaves that a rule of `config.trainable` matches, and the others."""
  leaves = flatten(tree)
  first = first_match(list(leaves), rules, 'config.trainable')
  trainable = {path: leaf for path, leaf in leaves.items() if first[path] is not None}
  frozen = {path: leaf for path, leaf in leaves.items() if first[path] is None}
  return unflatten(trainable), unflatten(frozen)


def merge(*trees: Tree) -> Tree:
  """Joins disjoint trees; the inverse of `split`."""
  leaves: dict[str, Any] = {}
  for part in map(flatten, trees):
    assert not leaves.keys() & part.keys(), sorted(leaves.keys() & part.keys())
    leaves |= part
  return unflatten(leaves)


def count(tree: Tree) -> int:
  """Number of values in all leaves, which may be shapes."""
  return sum(leaf.size for leaf in flatten(tree).values())


def table(trainable: Tree, frozen: Tree) -> str:
  """Trainable, frozen and total parameters per module.

  A module is the first two names of a path; modules that differ only in a number are counted as
  one.
  """
  rows: dict[str, list[int]] = {}
  for column, part in enumerate((trainable, frozen)):
    for path, leaf in flatten(part).items():
      module = re.sub(r'_\d+\b', '_*', '/'.join(path.split('/')[:-1][:2])) or path
      rows.setdefault(module, [0, 0])[column] += leaf.size
  rows = dict(sorted(rows.items()))
  rows['total'] = [count(trainable), count(frozen)]
  width = max(map(len, rows))
  lines = [f'{"module":{width}}  {"trainable":>13}  {"frozen":>13}  {"total":>13}']
  lines += [f'{name:{width}}  {a:13,}  {b:13,}  {a + b:13,}' for name, (a, b) in rows.items()]
  return '\n'.join(lines)


def _compile(rule: str, what: str) -> re.Pattern[str]:
  try:
    return re.compile(rule)
  except re.error as error:
    raise ValueError(f'{what}: {rule!r} is not a regular expression: {error}.') from error


def _examples(paths: Sequence[str]) -> str:
  """A few paths, evenly spread over the tree."""
  return ', '.join(paths[:: max(1, len(paths) // 4)][:5]) or '(none)'


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> list[str]:
  """A line with both values for each name whose value is another; a missing one is None.

  Args:
    where: the old values are, such as 'in the checkpoint'.
  """
  return [
    f'  {name}: {old.get(name)!r} {where}, {new.get(name)!r} now'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
  ]
