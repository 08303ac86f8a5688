"""The type of a task: what one benchmark adds to training and evaluation."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from dgsct_jax.data.clips import Clip, Window
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.transforms import Example
from dgsct_jax.tracks import Heat, Mask, Track

Batch: TypeAlias = dict[str, Any]
Outputs: TypeAlias = dict[str, Any]
Scalars: TypeAlias = dict[str, float]
Weighted: TypeAlias = tuple[Float[np.ndarray, 'b *v'], Float[np.ndarray, 'b']]
Means: TypeAlias = dict[str, Float[np.ndarray, '*v'] | float]


class Inputs(NamedTuple):
  """The inputs of a model.

  spec: one clip of a training batch, without the leading b: the inputs of the model and the labels.
  windows: the length of a file in seconds -> the windows of it that the model gets.
  decode: from a stored record (`frames`, `wave`) to the model's input, for data sets and files.
  side: the maximum of the shorter side of stored frames.
  pixels: (mean, standard deviation) of the normalisation of `video`.
  rate: of the sound of stored records, in Hz.
  """

  spec: Mapping[str, jax.ShapeDtypeStruct]
  windows: Callable[[float], list[Window]]
  decode: tuple[grain.transforms.Map, ...]
  side: int = 256
  pixels: tuple[Sequence[float], Sequence[float]] = ((0.0,), (1.0,))
  rate: int = 32000


class View(NamedTuple):
  """One clip and the model's outputs for it, in the forms in which they are shown.

  name: of the result, such as 'events', and of its file.
  record: a line of predictions.jsonl, the JSON of a prediction.
  lines: printed by `predict`. captions: one for each second of the film, or none.
  tracks: drawn by figures.py on one time axis. overlay: drawn by film.py over the video.
  """

  name: str
  title: str
  record: dict[str, Any]
  lines: tuple[str, ...] = ()
  tracks: tuple[Track, ...] = ()
  overlay: Heat | Mask | None = None
  captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
  """What one benchmark adds to training and evaluation.

  model: (batch, train) -> outputs, whose first axis is b.
  loss: traced; the total and its parts, averaged over the clips with `batch['valid']` 1;
    `batch['epoch']` counts from 1.
  metrics: in numpy; a value [b *v] and a weight [b] per clip. Their mean over a split is
    Σ value·weight·valid / Σ weight·valid.
  data: split -> records and transforms.
  primary: the metric that selects the best checkpoint; higher is better.
  show: the outputs for the w windows of a clip, with w as the first axis -> its view.
  ask: what a user types, questions or names of classes -> a part of the model's input.
  summarize: the means of a split -> the metrics that are reported.
  released: the means of a batch -> metrics whose plain mean over batches is also reported, as
    `<name>_batch_mean`, because a release reports it.
  constants: what the model makes of its variables alone, such as features of texts; traced. Except
    in training it is computed once, and every batch has it.
  modulate: (gradients, outputs, batch, key) -> the gradients that the optimiser gets; traced.
  """

  model: nn.Module
  loss: Callable[[Outputs, Batch], tuple[Array, dict[str, Array]]]
  metrics: Callable[[Outputs, Batch], dict[str, Weighted]]
  data: Callable[[str], Dataset]
  primary: str
  inputs: Inputs
  show: Callable[[Clip, Outputs], View] | None = None
  ask: Callable[[Sequence[str]], Example] | None = None
  summarize: Callable[[Means], Scalars] = lambda means: {k: float(v) for k, v in means.items()}
  released: Callable[[Means], Scalars] | None = None
  constants: Callable[[Any], dict[str, Any]] | None = None
  modulate: Callable[[Any, Outputs, Batch, Array], Any] | None = None


def check_fields(batch: Mapping[str, np.ndarray], spec: Mapping[str, jax.ShapeDtypeStruct]) -> None:
  """Raises ValueError unless a batch has the fields of `Inputs.spec`, `index` and `valid` only."""
  read = {name: (x.shape[1:], str(x.dtype)) for name, x in batch.items()}
  wanted = {name: (x.shape, str(x.dtype)) for name, x in spec.items()}
  wanted |= {'index': ((), 'int32'), 'valid': ((), 'float32')}
  wrong = [
    f'{name}: {read.get(name, "nothing")} in the data, {wanted.get(name, "nothing")} in the task'
    for name in sorted(read.keys() | wanted.keys())
    if read.get(name) != wanted.get(name)
  ]
  if wrong:
    raise ValueError(
      f'Clips differ from `inputs.spec` of the task: {"; ".join(wrong)}. Set config.data and'
      ' config.model to the same sizes, or correct `inputs.spec`.'
    )


def floats(*shape: int) -> jax.ShapeDtypeStruct:
  """A float32 field of `Inputs.spec`."""
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape: int) -> jax.ShapeDtypeStruct:
  """An int32 field of `Inputs.spec`."""
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def share(right: Bool[np.ndarray, 'b *n'], counted: Bool[np.ndarray, 'b *n']) -> Weighted:
  """For each clip, the right ones among those that are counted, in percent, and their number."""
  axes = tuple(range(1, counted.ndim))
  weight = counted.sum(axes).astype(float)
  return 100 * (right & counted).sum(axes) / np.maximum(weight, 1), weight


def mean_over_clips(
  parts: dict[str, Float[Array, 'b']], valid: Float[Array, 'b']
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """The sum of the parts of a loss, and each part, averaged over the valid clips."""
  means = {name: jnp.sum(part * valid) / jnp.sum(valid) for name, part in parts.items()}
  return sum(means.values(), jnp.zeros(())), means
