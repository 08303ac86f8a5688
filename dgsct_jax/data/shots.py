"""A few clips of each class: the training data of few-shot learning."""

import grain
import numpy as np

from dgsct_jax.data.records import Record, Records, Selection


def choose(
  records: Records, target: tuple[grain.transforms.Map, ...], shots: int, seed: int | None = None
) -> Selection:
  """`shots` clips of each class, class by class; all there are where there are fewer.

  Clips of several classes are left out, and classes that no clip has alone, such as Speech in LLP.
  All records are read once, as only they tell their classes: some milliseconds each.

  Args:
    target: from a record to one with `target` [c], its classes.
    seed: of the draw; None takes the first ones in the order of the data, as released.

  Raises:
    ValueError: `shots` is not positive, or no clip has a class of its own.
  """
  if shots < 1:
    raise ValueError(f'config.data.shots is {shots}; give at least 1, or 0 for all clips.')
  classes = np.array([_class(records[i], target) for i in range(len(records))])
  order = np.arange(len(records))
  if seed is not None:
    np.random.default_rng(seed).shuffle(order)
  places = [
    int(place)
    for c in range(classes.max(initial=-1) + 1)
    for place in order[classes[order] == c][:shots]
  ]
  if not places:
    raise ValueError('No clip of the training data has one class alone; set config.data.shots=0.')
  return Selection(records, tuple(places))


def _class(record: Record, target: tuple[grain.transforms.Map, ...]) -> int:
  """The class of a clip that has one alone, else −1."""
  for transform in target:
    record = transform.map(record)
  (classes,) = np.nonzero(record['target'])
  return int(classes[0]) if len(classes) == 1 else -1
