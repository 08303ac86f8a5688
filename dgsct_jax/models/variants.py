"""Constructors of modules: by the name of a published variant, and with some fields given."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

Module = TypeVar('Module')

CUSTOM: dict[str, dict[str, Any]] = {'custom': {}}  # all fields are the caller's


class Partial(functools.partial[Module]):
  """A constructor with fields given, equal to another one of the same fields.

  So models whose fields are constructors are equal if they are alike, and jax knows them again.
  """

  def __eq__(self, other: object) -> bool:
    """Whether the other one makes the same."""
    return isinstance(other, Partial) and self._given == other._given

  def __hash__(self) -> int:
    """That of the constructor and its fields."""
    return hash(self._given)

  @property
  def _given(self) -> tuple[Any, ...]:
    return self.func, self.args, tuple(sorted(self.keywords.items()))


def make(
  kind: type[Module],
  variants: Mapping[str, Mapping[str, Any]],
  variant: str,
  fields: Mapping[str, Any],
) -> Module:
  """A module of a variant, with any field replaced; raises ValueError as `chosen` does."""
  return kind(**chosen(kind, variants, variant, fields))


def chosen(
  kind: type[Module],
  variants: Mapping[str, Mapping[str, Any]],
  variant: str,
  fields: Mapping[str, Any],
) -> dict[str, Any]:
  """The fields of a variant, with any replaced.

  Args:
    variants: name -> fields.

  Raises:
    ValueError: there is no such variant or field.
  """
  if variant not in variants:
    raise ValueError(
      f'{kind.__name__} has no variant {variant!r}; choose one of {", ".join(variants)}.'
    )
  known = {field.name for field in dataclasses.fields(kind)} - {'parent', 'name'}  # type: ignore[arg-type]
  if unknown := set(fields) - known:
    raise ValueError(
      f'{kind.__name__} has no field {", ".join(sorted(unknown))}; it has'
      f' {", ".join(sorted(known))}.'
    )
  return {**variants[variant], **fields}
