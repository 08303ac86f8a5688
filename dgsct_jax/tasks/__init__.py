"""Tasks: what one benchmark adds to the training loop."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from dgsct_jax.data.pipeline import Dataset

Batch: TypeAlias = dict[str, Any]
Outputs: TypeAlias = dict[str, Any]
Scalars: TypeAlias = dict[str, float]
Weighted: TypeAlias = tuple[Float[np.ndarray, 'b'], Float[np.ndarray, 'b']]


@dataclasses.dataclass(frozen=True)
class Task:
  """What one benchmark adds to the loop.

  model: (batch, train) -> outputs. loss: traced; the total and its parts, averaged with `batch['mask']`.
  metrics: numpy; a value and a weight per clip. The metric is Σ value·weight·mask / Σ weight·mask.
  data: split -> records and transforms. primary: the metric, higher is better, that picks the best checkpoint.
  batch_means: metrics whose unweighted mean over batches is reported too, as `<name>_batch_mean`, because a release did.
  figures: draws the clips of a batch into a folder. rows: what is predicted of every clip of a batch of the test split,
  each a line of predictions.jsonl.
  """

  model: nn.Module
  loss: Callable[[Outputs, Batch], tuple[Array, dict[str, Array]]]
  metrics: Callable[[Outputs, Batch], dict[str, Weighted]]
  data: Callable[[str], Dataset]
  primary: str
  summarize: Callable[[Scalars], Scalars] = lambda means: means
  batch_means: tuple[str, ...] = ()
  figures: Callable[[Outputs, Batch, Path], None] | None = None
  rows: Callable[[Outputs, Batch], list[dict[str, Any]]] | None = None


def build(config: ml_collections.ConfigDict) -> Task:
  """The task of `config.task`."""
  from dgsct_jax.tasks import ave, avqa, avvp, unimodal  # Tasks import this module for `Task`.

  TASKS = {
    'ave': ave.build,
    'avqa': avqa.build,
    'avqa_grounding': avqa.build_grounding,
    'avvp': avvp.build,
    'unimodal': unimodal.build,
  }
  if config.task not in TASKS:
    raise ValueError(f'config.task is {config.task!r}; choose one of {", ".join(TASKS)}.')
  return TASKS[config.task](config)


def share(right: Bool[np.ndarray, 'b ...'], counted: Bool[np.ndarray, 'b ...']) -> Weighted:
  """Of what is counted in each clip, how much is right, in percent; and how much is counted."""
  axes = tuple(range(1, counted.ndim))
  weight = counted.sum(axes).astype(float)
  return 100 * (right & counted).sum(axes) / np.maximum(weight, 1), weight


def mean_over_clips(parts: dict[str, Array], mask: Array) -> tuple[Array, dict[str, Array]]:
  """The sum of the parts of a loss, and each; from a value per clip [b], over the clips that count."""
  parts = {name: jnp.sum(part * mask) / jnp.sum(mask) for name, part in parts.items()}
  return sum(parts.values()), parts
