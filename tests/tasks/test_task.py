"""What all tasks are checked by and count with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.tasks import task

SPEC = {'wave': task.floats(2, 8), 'label': task.integers()}
BATCH = {
  'wave': np.zeros((4, 2, 8), np.float32),
  'label': np.zeros(4, np.int32),
  'index': np.arange(4, dtype=np.int32),
  'valid': np.ones(4, np.float32),
}


def test_a_batch_as_the_task_says_passes():
  task.check_fields(BATCH, SPEC)


@pytest.mark.parametrize(
  'change, message',
  [
    (
      {'wave': np.zeros((4, 3, 8), np.float32)},
      r'wave: \(\(3, 8\), \'float32\'\) in the data, \(\(2, 8',
    ),
    ({'wave': np.zeros((4, 2, 8))}, r"wave: .*'float64'\) in the data, .*'float32'\) in the task"),
    ({'more': np.zeros(4)}, r'more: .* in the data, nothing in the task'),
    ({'label': None}, r'label: nothing in the data, .* in the task'),
    ({'valid': None}, r'valid: nothing in the data'),
  ],
)
def test_every_difference_between_clips_and_task_is_named(change, message):
  batch = {name: x for name, x in (BATCH | change).items() if x is not None}
  with pytest.raises(ValueError, match=f'Clips differ from `inputs.spec` of the task: {message}'):
    task.check_fields(batch, SPEC)


def test_shares_are_of_what_is_counted_in_each_clip():
  right = np.array([[True, True], [True, False], [True, True]])
  counted = np.array([[True, False], [True, True], [False, False]])
  value, weight = task.share(right, counted)
  assert value.tolist() == [100, 50, 0] and weight.tolist() == [1, 2, 0]


def test_losses_are_means_over_valid_clips():
  parts = {'a': jnp.array([1.0, 3.0, 100.0]), 'b': jnp.array([10.0, 20.0, 100.0])}
  total, means = jax.jit(task.mean_over_clips)(parts, jnp.array([1.0, 1.0, 0.0]))
  assert {name: float(x) for name, x in means.items()} == {'a': 2, 'b': 15} and total == 17
