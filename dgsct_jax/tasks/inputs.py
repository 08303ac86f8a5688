"""What models that take a picture and a second of sound per segment get from their data set."""

import functools

import jax
import ml_collections

from dgsct_jax.data import datasets, transforms
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tasks.task import Inputs, floats


def audio_visual(
  config: ml_collections.ConfigDict, encoder: DualEncoder, **fields: jax.ShapeDtypeStruct
) -> Inputs:
  """`video` [t h w 3] and `wave` [t s] of `config.data`, as the backbones take them.

  Args:
    fields: the other fields of a clip in a training batch.
  """
  kind = datasets.of(config.data)
  t, size, rate = config.data.segments, config.model.visual.image, config.model.audio.sample_rate
  return Inputs(
    spec={'video': floats(t, size, size, 3), 'wave': floats(t, rate)} | fields,
    windows=functools.partial(kind.windows, config.data),
    decode=(transforms.DecodeFrames(size, *encoder.visual.pixels), transforms.DecodeWave(t, rate)),
    side=kind.side(config.data),
    pixels=encoder.visual.pixels,
  )


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """The names of the classes of the head.

  Raises:
    ValueError: the data set has another number of classes.
  """
  names, classes = datasets.of(config.data).classes(config.data), config.model.head.classes
  if len(names) != classes:
    raise ValueError(
      f'config.model.head.classes is {classes}; the data set {config.data.name} has {len(names)}'
      ' classes.'
    )
  return names
