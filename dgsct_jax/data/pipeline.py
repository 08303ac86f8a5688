"""From a data set to batches: shuffled and endless for training, each clip once for evaluation."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags

from dgsct_jax.data import readers, transforms

Batch = dict[str, np.ndarray]

ENDLESS = 2**31  # epochs; Grain cannot compute the length of a truly endless data set


@runtime_checkable
class Source(Protocol):
  """Random access to records; picklable if worker processes are to read it."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


class Dataset(NamedTuple):
  """The records of one split, and the transforms that make examples of them."""

  source: Source
  transforms: tuple[grain.transforms.Map | grain.transforms.RandomMap, ...] = ()


def train(
  dataset: Dataset, *, batch: int, seed: int, workers: int = 0, host: int = 0, hosts: int = 1
) -> 'Batches':
  """Endless batches, reshuffled each epoch; a function of (seed, step) for any number of readers.

  Args:
    batch: clips over all hosts; each host gets its share of the same global batch.
    workers: processes that read and transform; with 0, two threads of this process do.
  """
  size = _size(dataset, batch, hosts)
  order = grain.MapDataset.range(size).seed(seed).shuffle().repeat(ENDLESS)
  return Batches(_batches(order, dataset, batch, host, hosts), workers)


def evaluate(
  dataset: Dataset, *, batch: int, workers: int = 0, host: int = 0, hosts: int = 1
) -> 'Batches':
  """Every clip once, in order; the last batch is filled up with repeated clips of `valid` 0."""
  # Positions are padded, not batches, so that all hosts take the same number of equal steps.
  steps = -(-_size(dataset, batch, hosts) // batch)
  order = grain.MapDataset.range(steps * batch).seed(0)
  return Batches(_batches(order, dataset, batch, host, hosts), workers)


class Batches(Iterator[Batch]):
  """An iterator over batches with a position that can be saved and restored.

  Its state is the number of batches taken. Unlike the state of Grain's own iterators it does not
  depend on the number of workers, so a run may be resumed with more or fewer.
  """

  def __init__(self, batches: grain.MapDataset, workers: int):
    self._batches, self._workers = batches, workers
    self._taken = 0
    self._iterator: grain.DatasetIterator | None = None

  def __len__(self) -> int:
    return len(self._batches)

  def __next__(self) -> Batch:
    if self._iterator is None:
      # Few buffers (Grain's default is 500): one batch of full size is tens of megabytes.
      ahead = 1 if self._workers else 2
      reading = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
      rest = self._batches[self._taken :].to_iter_dataset(reading)
      if self._workers:
        if not flags.FLAGS.is_parsed():  # outside of absl's app.run; Grain reads its own flags
          flags.FLAGS.mark_as_parsed()
        rest = rest.mp_prefetch(grain.MultiprocessingOptions(self._workers), readers.begin)
      with _without_interrupts():
        self._iterator = iter(rest)
        batch = next(self._iterator)  # starts the workers
    else:
      batch = next(self._iterator)
    self._taken += 1
    return batch

  def get_state(self) -> dict[str, int]:
    """The number of batches taken, for `set_state`."""
    return {'batches': self._taken}

  def set_state(self, state: dict[str, int]) -> None:
    """Continues after the batches that `state` counts."""
    self.close()
    self._taken = int(state['batches'])

  def close(self) -> None:
    """Ends the workers; the next `next` starts them again at the same position."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *error: Any) -> None:
    self.close()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
  """A context in which processes are started that leave what terminals send to this one."""
  resource_tracker.ensure_running()  # Python would lift the block when it starts this one
  before = signal.pthread_sigmask(signal.SIG_BLOCK, readers.OF_TERMINALS)  # which they inherit
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _size(dataset: Dataset, batch: int, hosts: int) -> int:
  if batch < 1 or batch % hosts:
    raise ValueError(
      f'A batch of {batch} clips does not divide over {hosts} hosts; '
      f'set config.data.batch to a multiple of {hosts}.'
    )
  if not len(dataset.source):
    raise ValueError('There is nothing to read: this split has no records.')
  return len(dataset.source)


def _batches(
  order: grain.MapDataset, dataset: Dataset, batch: int, host: int, hosts: int
) -> grain.MapDataset:
  examples = order.map(_Read(dataset.source))
  for transform in dataset.transforms:
    if isinstance(transform, grain.transforms.RandomMap):
      examples = examples.random_map(transform)
    else:
      examples = examples.map(transform)
  # Sliced last (nothing is computed yet): random transforms depend on the position in the global
  # order, and each clip has the same row in the global batch for any number of hosts.
  return examples.batch(batch // hosts, batch_fn=_stack)[host::hosts]


@dataclasses.dataclass(frozen=True)
class _Read(grain.transforms.Map):
  """A position -> its record, with its `index` in the source; `valid` is 0 beyond the end."""

  source: Source

  def map(self, position: int) -> transforms.Example:
    size = len(self.source)
    index, valid = np.int32(position % size), np.float32(position < size)
    return dict(self.source[int(index)]) | {'index': index, 'valid': valid}


def _stack(examples: Sequence[transforms.Example]) -> Batch:
  batch = {}
  for key in examples[0]:
    values = [np.asarray(example[key]) for example in examples]
    if values[0].dtype.kind not in 'biuf':
      raise ValueError(
        f'The field {key!r} holds {values[0].dtype.type.__name__}, which devices do not '
        'support; leave it out with transforms.Keep.'
      )
    if len(shapes := {value.shape for value in values}) > 1:
      raise ValueError(
        f'The field {key!r} has different shapes in one batch: {sorted(shapes)}; '
        f'records {[int(example["index"]) for example in examples]}.'
      )
    batch[key] = np.stack(values)
  return batch
