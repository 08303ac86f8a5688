"""What models that take a picture and some seconds of sound per segment get from their data set."""

import functools

import jax
import ml_collections

from dgsct_jax.data import clips, datasets, transforms
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
  seconds = seconds_of(encoder)
  windows = functools.partial(kind.windows, config.data)
  if seconds > 1:
    windows = functools.partial(clips.consecutive, times=clips.middles(t * seconds))
  return Inputs(
    spec={'video': floats(t, size, size, 3), 'wave': floats(t, seconds * rate)} | fields,
    windows=windows,
    decode=(
      transforms.DecodeFrames(size, *encoder.visual.pixels),
      transforms.DecodeWave(t, seconds * rate),
    ),
    side=kind.side(config.data),
    pixels=encoder.visual.pixels,
    rate=rate,
  )


def seconds_of(encoder: DualEncoder) -> int:
  """Of sound in a segment: one, unless the front end of a shared backbone takes more.

  Raises:
    ValueError: they are not whole.
  """
  seconds = getattr(encoder.audio, 'seconds', 1)
  if seconds != int(seconds):
    raise ValueError(
      f'The front end takes {seconds} seconds of sound per segment, and stored clips have whole'
      ' ones; set config.model.audio.seconds=1.'
    )
  return int(seconds)


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """The names of the classes of the head.

  Raises:
    ValueError: the data set has another number of classes.
  """
  names, classes = datasets.of(config.data).classes(config.data), config.model.head.classes
  if len(names) != classes:
    raise ValueError(
      f'config.model.head.classes is {classes}; the data set {config.data.kind} has {len(names)}'
      f' classes. Set config.model.head.classes={len(names)}.'
    )
  return names
