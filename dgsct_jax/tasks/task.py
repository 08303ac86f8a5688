"""What one benchmark adds to the loop: a task is a value."""

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
from dgsct_jax.tracks import Track

Batch: TypeAlias = dict[str, Any]
Outputs: TypeAlias = dict[str, Any]
Scalars: TypeAlias = dict[str, float]
Weighted: TypeAlias = tuple[Float[np.ndarray, 'b *v'], Float[np.ndarray, 'b']]
Means: TypeAlias = dict[str, Float[np.ndarray, '*v']]


class Inputs(NamedTuple):
  """What goes into a model.

  spec: one clip of a training batch, without the leading b: what the model takes, and what the loss
    compares with it.
  windows: the length of a file in seconds -> what of it the model gets, window by window.
  decode: from a stored record (`frames`, `wave`) to the model's input, in training and of a file.
  side: the shorter side of stored frames is at most this.
  pixels: (mean, standard deviation) of the normalisation of `video`.
  """

  spec: Mapping[str, jax.ShapeDtypeStruct]
  windows: Callable[[float], list[Window]]
  decode: tuple[grain.transforms.Map, ...]
  side: int = 256
  pixels: tuple[Sequence[float], Sequence[float]] = ((0.0,), (1.0,))


class View(NamedTuple):
  """One clip and what the model says of it, ready for anyone to show.

  name: what the record tells, such as 'events'; files are called so.
  record: a line of predictions.jsonl, the JSON of a prediction.
  lines: for the terminal. captions: for each second of the film, or none at all.
  tracks: what figures.py draws on one axis of time; overlay: what film.py draws over the video.
  """

  name: str
  title: str
  record: dict[str, Any]
  lines: tuple[str, ...] = ()
  tracks: tuple[Track, ...] = ()
  overlay: Track | None = None
  captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
  """What one benchmark adds to the loop.

  model: (batch, train) -> outputs, all of which lead with b.
  loss: traced; the total and its parts, averaged over the clips that `batch['valid']` marks.
  metrics: numpy; a value [b *v] and a weight [b] per clip. Their mean over a split is
    Σ value·weight·valid / Σ weight·valid.
  data: split -> records and transforms.
  primary: the metric, higher is better, that picks the best checkpoint.
  inputs: what goes in. show: what comes out, of the w windows of a clip: outputs lead with w.
  ask: what a user types, questions or names of classes -> a part of the model's input.
  summarize: the means of a split -> the metrics that are reported.
  released: the means of a batch -> metrics whose plain mean over batches is reported too, as
    `<name>_batch_mean`, because a release did.
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


def check_fields(batch: Mapping[str, np.ndarray], spec: Mapping[str, jax.ShapeDtypeStruct]) -> None:
  """Raises ValueError unless a batch holds just what `Inputs.spec` says, and what all hold."""
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
      f'Clips are not as the task says: {"; ".join(wrong)}. Set config.data and config.model to'
      ' the same sizes, or mend `inputs.spec` of the task.'
    )


def floats(*shape: int) -> jax.ShapeDtypeStruct:
  """A field of float32 in `Inputs.spec`."""
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape: int) -> jax.ShapeDtypeStruct:
  """A field of int32 in `Inputs.spec`."""
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def share(right: Bool[np.ndarray, 'b *n'], counted: Bool[np.ndarray, 'b *n']) -> Weighted:
  """Of what is counted in each clip, how much is right, in percent; and how much is counted."""
  axes = tuple(range(1, counted.ndim))
  weight = counted.sum(axes).astype(float)
  return 100 * (right & counted).sum(axes) / np.maximum(weight, 1), weight


def mean_over_clips(
  parts: dict[str, Float[Array, 'b']], valid: Float[Array, 'b']
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """The sum of the parts of a loss, and each part; from a value per clip, over the valid clips."""
  means = {name: jnp.sum(part * valid) / jnp.sum(valid) for name, part in parts.items()}
  return sum(means.values()), means
