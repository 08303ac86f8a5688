"""Batches depend on (seed, step) alone: not on workers, hosts or interruptions."""

import dataclasses
import multiprocessing

import grain
import numpy as np
import pytest

from dgsct_jax.data import pipeline, transforms


class Numbers:
  """Records that hold their number."""

  def __init__(self, size, fault=None):
    self.size, self.fault = size, fault

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    if index == self.fault:
      raise ValueError(f"record 'clip{index}': cannot be read.")
    return {'id': f'clip{index}', 'value': np.full(3, index, np.float32)}


@dataclasses.dataclass(frozen=True)
class Jitter(grain.transforms.RandomMap):
  def random_map(self, example, rng):
    return example | {'noise': rng.uniform(size=2).astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class Other(grain.transforms.RandomMap):
  def random_map(self, example, rng):
    return example | {'other': rng.uniform(size=2).astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class Double(grain.transforms.Map):
  def map(self, example):
    return example | {'value': 2 * example['value']}


def dataset(size=13, fault=None):
  return pipeline.Dataset(
    Numbers(size, fault), (Double(), transforms.Keep(('value',)), Jitter(), Other())
  )


def take(batches, n):
  return [next(batches) for _ in range(n)]


def assert_same(one, two):
  assert len(one) == len(two)
  for a, b in zip(one, two):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def gather(per_host):
  """The batches of all hosts -> global batches, one host's rows after another's, as on a mesh."""
  return [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*per_host)
  ]


def test_a_batch_has_the_transformed_fields_its_indices_and_marks_of_what_is_real():
  batch = next(pipeline.train(dataset(), batch=4, seed=0))
  assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
    'value': ((4, 3), 'float32'),
    'noise': ((4, 2), 'float32'),
    'other': ((4, 2), 'float32'),
    'index': ((4,), 'int32'),
    'valid': ((4,), 'float32'),
  }
  np.testing.assert_array_equal(batch['value'][:, 0], 2 * batch['index'])
  assert batch['valid'].tolist() == [1, 1, 1, 1]


def test_batches_of_one_clip_do_not_end():
  batches = pipeline.train(dataset(size=3), batch=1, seed=0)
  seen = [int(batch['index'][0]) for batch in take(batches, 6)]
  assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]


def test_each_epoch_has_every_record_once_in_another_order():
  batches = pipeline.train(dataset(12), batch=4, seed=0)
  first, second = (np.concatenate([b['index'] for b in take(batches, 3)]) for _ in range(2))
  assert sorted(first) == sorted(second) == list(range(12))
  assert first.tolist() != second.tolist() != list(range(12))


def test_the_seed_decides_order_and_random_transforms():
  one, again, other = (take(pipeline.train(dataset(), batch=4, seed=s), 5) for s in (1, 1, 2))
  assert_same(one, again)
  assert any((a['index'] != b['index']).any() for a, b in zip(one, other))
  noise = np.concatenate([np.concatenate([b['noise'], b['other']]) for b in one])
  assert len(np.unique(noise)) == noise.size  # anew for each clip, epoch and transform


@pytest.mark.parametrize('hosts', [2, 4])
def test_global_batches_are_the_same_for_any_number_of_hosts(hosts):
  expected = take(pipeline.train(dataset(), batch=8, seed=3), 4)
  per_host = [
    take(pipeline.train(dataset(), batch=8, seed=3, host=h, hosts=hosts), 4) for h in range(hosts)
  ]
  assert_same(gather(per_host), expected)
  expected = list(pipeline.evaluate(dataset(), batch=8))
  per_host = [
    list(pipeline.evaluate(dataset(), batch=8, host=h, hosts=hosts)) for h in range(hosts)
  ]
  assert_same(gather(per_host), expected)


def test_the_number_of_workers_changes_nothing():
  expected = take(pipeline.train(dataset(), batch=4, seed=3), 6)
  for workers in (1, 2):
    with pipeline.train(dataset(), batch=4, seed=3, workers=workers) as batches:
      assert_same(take(batches, 6), expected)
  assert_same(
    list(pipeline.evaluate(dataset(), batch=4, workers=2)),
    list(pipeline.evaluate(dataset(), batch=4)),
  )
  assert not multiprocessing.active_children()


@pytest.mark.parametrize('before, after', [(0, 0), (0, 2), (2, 1)])
def test_a_restored_iterator_goes_on_where_it_was_with_any_number_of_workers(before, after):
  expected = take(pipeline.train(dataset(), batch=4, seed=3), 9)
  with pipeline.train(dataset(), batch=4, seed=3, workers=before) as batches:
    assert_same(take(batches, 5), expected[:5])
    state = batches.get_state()
    next(batches)  # read ahead, then killed
  with pipeline.train(dataset(), batch=4, seed=3, workers=after) as batches:
    batches.set_state(state)
    assert batches.get_state() == state
    assert_same(take(batches, 4), expected[5:])
    batches.set_state(state)  # and back
    assert_same(take(batches, 1), expected[5:6])


@pytest.mark.parametrize('size, batch', [(13, 4), (12, 4), (3, 8), (1, 1)])
def test_evaluation_sees_each_record_once_and_marks_the_surplus(size, batch):
  batches = pipeline.evaluate(dataset(size), batch=batch)
  assert len(batches) == -(-size // batch)
  batches = list(batches)
  assert all(b['value'].shape == (batch, 3) for b in batches)
  index, valid = (np.concatenate([b[key] for b in batches]) for key in ('index', 'valid'))
  assert index[valid == 1].tolist() == list(range(size))
  assert (valid[size:] == 0).all()


def test_evaluation_is_the_same_every_time():
  assert_same(
    list(pipeline.evaluate(dataset(), batch=4)), list(pipeline.evaluate(dataset(), batch=4))
  )


@pytest.mark.parametrize(
  'read', [lambda data, **kw: pipeline.train(data, seed=0, **kw), pipeline.evaluate]
)
def test_what_cannot_work_is_said_at_once(read):
  with pytest.raises(ValueError, match=r'batch of 6 clips does not divide over 4 hosts.*multiple'):
    read(dataset(), batch=6, hosts=4)
  with pytest.raises(ValueError, match='batch of 0 clips'):
    read(dataset(), batch=0)
  with pytest.raises(ValueError, match='no records'):
    read(dataset(0), batch=2)


@pytest.mark.parametrize('workers', [0, 1])
def test_the_error_of_a_bad_record_arrives_with_its_name(workers):
  batches = pipeline.evaluate(dataset(fault=5), batch=2, workers=workers)
  take(batches, 2)
  with pytest.raises(ValueError, match="record 'clip5': cannot be read"):
    next(batches)
  batches.close()


def test_text_and_ragged_fields_are_refused_by_name():
  with pytest.raises(ValueError, match=r"'id' holds str_.*transforms.Keep"):
    next(pipeline.evaluate(pipeline.Dataset(Numbers(3)), batch=2))

  class Ragged(Numbers):
    def __getitem__(self, index):
      return {'value': np.zeros(index)}

  with pytest.raises(ValueError, match=r"'value' has different shapes.*\(0,\), \(1,\).*\[0, 1\]"):
    next(pipeline.evaluate(pipeline.Dataset(Ragged(3)), batch=2))
