"""Modules by the name of a published variant."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Module = TypeVar('Module')

CUSTOM: dict[str, dict[str, Any]] = {'custom': {}}  # all fields are the caller's


def make(
  kind: type[Module],
  variants: Mapping[str, Mapping[str, Any]],
  variant: str,
  fields: Mapping[str, Any],
) -> Module:
  """A module of a variant, with any field replaced.

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
  return kind(**{**variants[variant], **fields})
