"""Training from features: frozen backbones look at every clip once, and what they see is kept.

With `config.data.cache_features` the features of the clips that training and selection read are
written to that folder before the first step, as bfloat16 in ArrayRecord files. The final scores on
test are computed from the clips themselves.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Array

from dgsct_jax import compiler, tree
from dgsct_jax import state as states
from dgsct_jax.data import records
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.transforms import Example
from dgsct_jax.models import cached as models
from dgsct_jax.models.adapters import NoExchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tasks.task import Task, floats
from dgsct_jax.writer import gb

ABOUT = 'about.json'  # what the features are made of
STREAMS = ('video', 'wave')
VERSION = '1.0.0'  # of the layout


@dataclasses.dataclass(frozen=True)
class Place:
  """A clip of a split."""

  id: str
  split: str
  index: int


@dataclasses.dataclass(frozen=True)
class Read(grain.transforms.Map):
  """A record of the cache -> the example with features as `video` [t 1 1 k] and `wave` [t j]."""

  def map(self, record: Example) -> Example:
    """The streams in float32; the other fields stay."""
    streams = {name: record[name].view(jnp.bfloat16).astype(np.float32) for name in STREAMS}
    streams['video'] = streams['video'][:, None, None]
    return record | streams


def task(
  of: Task, config: ml_collections.ConfigDict, layout: states.Layout, variables: states.Variables
) -> Task:
  """The task with features in place of pictures and sounds, which are made if there are none.

  Raises:
    ValueError: something that is trained or drawn anew in each step changes the features; or the
      folder has those of other clips or weights; or they would not fit on the disk.
  """
  quick = without_encoder(of, config, layout)
  encoder: models.CachedEncoder = quick.model.encoder
  splits = tuple(dict.fromkeys(('train', config.select_on)))
  datasets = {split: of.data(split) for split in splits}
  for split, dataset in datasets.items():
    _check_fixed(split, dataset)

  mesh = next(iter(layout.leaves.values())).sharding.mesh

  @functools.partial(jax.jit, compiler_options=compiler.options(mesh))
  def compute(variables: Any, *streams: Array) -> dict[str, Array]:
    encoded = _look(of, variables, *streams)
    pyramids = zip(STREAMS, (encoded.visual_pyramid, encoded.audio_pyramid))
    return {name: models.pack(pyramid, encoder.kept) for name, pyramid in pyramids}

  others = {name: x for name, x in quick.inputs.spec.items() if name not in STREAMS}
  features: dict[str, Any] = {
    name: tfds.features.Tensor(shape=x.shape, dtype=x.dtype) for name, x in others.items()
  }
  size = 0
  for name in STREAMS:
    t, *_, k = quick.inputs.spec[name].shape
    features[name] = tfds.features.Tensor(shape=(t, k), dtype=np.int16, encoding='bytes')
    size += 2 * t * k
  facts = _facts(encoder, config, layout, datasets)
  recipe = records.Recipe(
    name=config.data.name,
    version=VERSION,
    features=features,
    splits={split: _places(split, dataset) for split, dataset in datasets.items()},
    read=_reader(datasets, functools.partial(compute, variables.joined), tuple(others)),
    files={ABOUT: json.dumps(facts, indent=1, sort_keys=True)},
  )
  folder = Path(config.data.cache_features)
  _prepare(recipe, folder, facts, size)
  load = functools.partial(records.load, folder, config.data.name)
  return dataclasses.replace(quick, data=lambda split: Dataset(load(split), (Read(),)))


def without_encoder(of: Task, config: ml_collections.ConfigDict, layout: states.Layout) -> Task:
  """The task whose model takes features, with the data as they were.

  Raises ValueError if something that is trained or drawn in each step changes the features, or the
  head needs pictures.
  """
  encoder, spec = _encoder(of, config, layout), dict(of.inputs.spec)
  streams, variables = [spec[name] for name in STREAMS], states.abstract(layout).joined
  encoded = jax.eval_shape(functools.partial(_look, of), variables, *streams)
  inputs = models.cached(encoder, encoded)
  t = spec['video'].shape[0]
  spec['video'] = floats(t, 1, 1, models.size(inputs.visual_shapes))
  spec['wave'] = floats(t, models.size(inputs.audio_shapes))
  model: Any = of.model.clone(encoder=inputs)
  clip = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in spec.items()}
  jax.eval_shape(lambda variables, batch: model.apply(variables, batch, False), variables, clip)
  return dataclasses.replace(of, model=model, inputs=of.inputs._replace(spec=spec))


def _look(of: Task, variables: Any, *streams: Array) -> Any:
  """What the encoder of a task makes of segments."""
  look = lambda model, *streams: model.encoder.streams(*streams, False)
  return of.model.apply(variables, *streams, method=look)


def _encoder(of: Task, config: ml_collections.ConfigDict, layout: states.Layout) -> DualEncoder:
  """The encoder of a model whose features training does not change."""
  encoder, faults = getattr(of.model, 'encoder', None), []
  if not isinstance(encoder, DualEncoder) or not of.inputs.spec.keys() >= {*STREAMS}:
    raise ValueError(
      'config.data.cache_features cannot be used: this task has no encoder of pictures and sounds'
      ' that could be left out.'
    )
  if encoder.exchange is not NoExchange:
    faults.append(
      f'the adapters {config.model.adapter.name!r} work within the encoders; choose'
      " config.model.adapter.name='side' or 'none'"
    )
  within = tuple(f'params/encoder/{stream}/' for stream in ('visual', 'audio'))
  if moved := sorted(path for path in layout.trainable if path.startswith(within)):
    faults.append(f'config.trainable has {len(moved)} values of the encoders, such as {moved[0]}')
  if config.model.backbone_mode != 'eval' or config.model.get('spec_augment'):
    faults.append(
      "the encoders drop paths or parts of spectrograms; set config.model.backbone_mode='eval' and"
      ' config.model.spec_augment=False'
    )
  if faults:
    raise ValueError(f'config.data.cache_features cannot be used: {"; ".join(faults)}.')
  return encoder


def _check_fixed(split: str, dataset: Dataset) -> None:
  """Raises ValueError if clips of a split are not the same in every epoch."""
  drawn = [
    type(transform).__name__
    for transform in dataset.transforms
    if isinstance(transform, grain.transforms.RandomMap)
  ]
  if drawn:
    raise ValueError(
      f'config.data.cache_features cannot be used: {", ".join(drawn)} of the split {split!r} makes'
      ' other clips in each epoch; leave it empty.'
    )


def _facts(
  encoder: models.CachedEncoder,
  config: ml_collections.ConfigDict,
  layout: states.Layout,
  datasets: Mapping[str, Dataset],
) -> dict[str, str]:
  """All that the features depend on."""
  facts = {f'weights {name}': told for name, told in layout.weights.items()}
  facts |= {
    'visual': repr(encoder.visual),
    'audio': repr(encoder.audio),
    'stages': str(encoder.kept),
  }
  facts |= {'norm_audio': str(encoder.norm_audio), 'frozen_dtype': config.frozen_dtype}
  for split, dataset in datasets.items():
    built = Path(getattr(dataset.source, 'folder', ''), 'recipe.json')
    facts[f'{split} clips'] = built.read_text() if built.is_file() else ''
    facts[f'{split} decoded by'] = repr(dataset.transforms)
  return facts


def _places(split: str, dataset: Dataset) -> list[Place]:
  """The clips of a split in the order in which it is read."""
  count = len(dataset.source)
  ids = getattr(dataset.source, 'ids', None) or [str(i) for i in range(count)]
  return [Place(name, split, i) for i, name in enumerate(ids)]


def _reader(
  datasets: Mapping[str, Dataset], encode: Callable[..., dict[str, Array]], others: Sequence[str]
) -> Callable[[Place], records.Record]:
  """A function from a clip to its record in the cache, with the other fields of an example."""

  def read(place: Place) -> records.Record:
    dataset = datasets[place.split]
    example = dict(dataset.source[place.index])
    for transform in dataset.transforms:
      assert isinstance(transform, grain.transforms.Map)
      example = transform.map(example)
    features = encode(*(example[name] for name in STREAMS))
    packed = {name: np.asarray(x).astype(jnp.bfloat16) for name, x in features.items()}
    streams = {name: x.view(np.int16) for name, x in packed.items()}
    return {name: example[name] for name in others} | streams

  return read


def _prepare(
  recipe: records.Recipe[Place], folder: Path, facts: Mapping[str, str], clip: int
) -> None:
  """Writes the features of `clip` bytes each, unless they are there."""
  built = folder / recipe.name / recipe.version
  if (about := built / ABOUT).is_file():
    held = json.loads(about.read_text())
    if stale := tree.differences(held, facts, 'there'):
      raise ValueError(
        f'{built} has features of other clips or weights:\n'
        + '\n'.join(stale)
        + '\nRemove it, or choose another config.data.cache_features.'
      )
  elif jax.process_count() > 1:
    raise ValueError(
      f'{built} does not exist. Write it with one process first: the same command on one host,'
      ' stopped after its first step.'
    )
  else:
    count = sum(map(len, recipe.splits.values()))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    told = f'features of {count} clips, {gb(count * clip)}, in {built}'
    if count * clip > free:
      raise ValueError(f'{told}: only {gb(free)} are free; choose another folder.')
    print(f'looking at every clip once: {told}', flush=True)
  records.write(recipe, folder)
