"""The state of a run: its layout from shapes, and its arrays from converted weights and a seed."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import safetensors
from einops import EinopsError
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from dgsct_jax import sharding, tree
from dgsct_jax import weights as files
from dgsct_jax.models import lazy

CONVERT = 'python -m dgsct_jax.convert SOURCE CHECKPOINT OUT.safetensors'


@struct.dataclass
class TrainState:
  """What training changes; with the frozen parameters, all that it needs to go on."""

  # Not annotated as arrays: such a tree may also hold shapes or shardings.
  step: Any  # int32 []: batches taken so far
  params: tree.Tree  # the trainable half
  batch_stats: tree.Tree  # of the whole model: statistics of frozen parts may move too
  opt_state: optax.OptState
  rng: Any  # uint32 [words]: the key of the run, from which each step derives its own


class Variables(NamedTuple):
  """A model's variables in two halves, as arrays or as their shapes."""

  params: tree.Tree  # the trainable half
  batch_stats: tree.Tree
  frozen: tree.Tree

  @property
  def joined(self) -> tree.Tree:
    """Both halves in one tree, as the model takes them."""
    return {'params': tree.merge(self.params, self.frozen), 'batch_stats': self.batch_stats}


@dataclasses.dataclass(frozen=True)
class Layout:
  """Shapes, shardings and sources of all variables of a model, before there are any arrays.

  leaves: path -> shape, type and sharding.
  sources: path -> the tensor of a file, for variables that are read from one.
  weights: field of config.init -> the hash of its file.
  """

  model: nn.Module
  batch: Mapping[str, jax.ShapeDtypeStruct]  # one clip, for initial values
  seed: int
  trainable: frozenset[str]  # paths
  leaves: Mapping[str, jax.ShapeDtypeStruct]
  sources: Mapping[str, '_Tensor']
  weights: Mapping[str, str]

  def split(self, leaves: Mapping[str, Any]) -> Variables:
    """Values by path, of all variables or some, as the variables of the model."""
    parts: dict[str, dict[str, Any]] = {'params': {}, 'batch_stats': {}, 'frozen': {}}
    for path, leaf in leaves.items():
      collection, _, rest = path.partition('/')
      part = 'frozen' if collection == 'params' and path not in self.trainable else collection
      parts[part][rest] = leaf
    return Variables(**{name: tree.unflatten(part) for name, part in parts.items()})

  @property
  def whole(self) -> list[str]:
    """Large leaves that the mesh cannot split, so that every device holds all of them."""
    return [path for path, leaf in self.leaves.items() if sharding.is_whole(leaf)]


def layout(
  model: nn.Module,
  spec: Mapping[str, jax.ShapeDtypeStruct],
  config: ml_collections.ConfigDict,
  mesh: sharding.AnyMesh,
) -> Layout:
  """The shape, source and sharding of every variable; only the headers of files are read.

  Args:
    spec: one clip as the model takes it, without the leading b.

  Raises:
    ValueError: a file is not given or does not exist; or the tensors of the files do not fit the
      model. All missing, surplus and misshapen ones are named at once.
  """
  batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in spec.items()}
  shapes = tree.flatten(_shapes(model, batch))
  trained, _ = tree.split(tree.unflatten(shapes)['params'], config.trainable)
  trainable = frozenset(f'params/{path}' for path in tree.flatten(trained))
  leaves = {}
  for path, shape in shapes.items():
    # Only kernels: tables and the STFT need full precision.
    compact = path.startswith('params/') and path.endswith('/kernel') and path not in trainable
    dtype = config.frozen_dtype if compact else shape.dtype
    leaf = jax.ShapeDtypeStruct(shape.shape, jnp.dtype(dtype))
    leaves[path] = jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding.of_leaf(leaf, mesh)
    )
  sources, weights = _sources(shapes, config)
  return Layout(model, batch, config.seed, trainable, leaves, sources, weights)


def _shapes(model: nn.Module, batch: Mapping[str, jax.ShapeDtypeStruct]) -> tree.Tree:
  """The shapes of the variables of a model."""
  try:
    return lazy.shapes(model, batch, train=False)
  except (ArithmeticError, EinopsError, LookupError, TypeError) as error:
    raise ValueError(
      f'The sizes of config.model and config.data do not fit together: {error}'
    ) from error


def abstract(layout: Layout) -> Variables:
  """The shapes of all variables, for restoring checkpoints and compiling steps."""
  return layout.split(layout.leaves)


def fill(layout: Layout, frozen_only: bool = False) -> Variables:
  """The arrays on the mesh: read from files, or drawn where there is no file.

  Args:
    frozen_only: leave out the variables that a checkpoint holds.
  """
  frozen = {f'params/{path}' for path in tree.flatten(abstract(layout).frozen)}
  wanted = frozen if frozen_only else layout.leaves.keys()
  drawn = tree.flatten(
    lazy.init(
      layout.model,
      jax.random.key(layout.seed),
      layout.batch,
      train=False,
      keep=lambda path: path in wanted and path not in layout.sources,
    )
  )
  leaves = {}
  for path, leaf in layout.leaves.items():  # One by one: only a single leaf is held twice.
    if path in wanted:
      source = layout.sources.get(path)
      value = source.read() if source else np.asarray(drawn.pop(path))
      leaves[path] = sharding.put(value.astype(leaf.dtype), leaf.sharding)
  return layout.split(leaves)


def abstract_state(
  variables: Variables, tx: optax.GradientTransformation, mesh: sharding.AnyMesh
) -> TrainState:
  """The shapes of a training state; the optimiser's state is sharded like the parameters."""
  at = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
  opt_state = jax.eval_shape(tx.init, variables.params)
  key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
  replicated = sharding.replicated(mesh)
  return TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated),
    params=variables.params,
    batch_stats=variables.batch_stats,
    opt_state=jax.tree.map(at, opt_state, sharding.of_tree(opt_state, mesh)),
    rng=at(key, replicated),
  )


def create(
  variables: Variables, tx: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
  """The state before the first step."""
  where = sharding.of_tree(jax.eval_shape(tx.init, variables.params), mesh)
  rng = np.asarray(jax.random.key_data(jax.random.key(seed)))
  return TrainState(
    step=sharding.put(np.zeros((), np.int32), sharding.replicated(mesh)),
    params=variables.params,
    batch_stats=variables.batch_stats,
    opt_state=jax.jit(tx.init, out_shardings=where)(variables.params),
    rng=sharding.put(rng, sharding.replicated(mesh)),
  )


def step_keys(rng: UInt32[Array, 'words'], step: Int[Array, '']) -> dict[str, Array]:
  """The random keys of one step, a function of (seed, step)."""
  key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
  return dict(zip(('dropout', 'drop_path', 'augment', 'modulate'), jax.random.split(key, 4)))


class _Tensor:
  """One tensor of a file, not read yet."""

  def __init__(self, file: Any, name: str):
    self.file, self.name = file, name

  @property
  def shape(self) -> tuple[int, ...]:
    """From the header of the file."""
    return tuple(self.file.get_slice(self.name).get_shape())

  def read(self) -> np.ndarray:
    """The values."""
    return self.file.get_tensor(self.name)


def _sources(
  shapes: dict[str, Any], config: ml_collections.ConfigDict
) -> tuple[dict[str, _Tensor], dict[str, str]]:
  """(path -> tensor) of every variable that comes from a file, and the hash of each file."""
  init, parts = config.init, dict(config.parts) | {'all': ''}
  if unknown := set(init) - set(parts):
    raise ValueError(
      f'config.init names {", ".join(sorted(unknown))}; config.parts has {", ".join(parts)}.'
    )
  sources: dict[str, _Tensor] = {}
  weights: dict[str, str] = {}
  faults: list[str] = []
  for name in ('all',) if init.all else config.parts:
    prefix, given = parts[name], init[name]
    targets = {path for path in shapes if _below(path, prefix)}
    if given == 'random':
      weights[name] = f'random, seed {config.seed}'
      continue
    if not targets and not given:
      continue  # The model has no such part: LAVISH has one backbone for both streams.
    file, path = _open(name, given, prefix, {target: shapes[target].shape for target in targets})
    with path.open('rb') as stream:
      weights[name] = 'sha256 ' + hashlib.file_digest(stream, 'sha256').hexdigest()
    held = {join(tensor, prefix): _Tensor(file, tensor) for tensor in file.keys()}
    faults += [
      f'  {path}: {fault}'
      for fault in _faults(targets, held, shapes, file.metadata() or {}, config.model.get(name))
    ]
    sources |= held
  if faults:
    raise ValueError(
      'Weights do not fit the model of config.model:\n'
      + '\n'.join(faults)
      + (f'\nConvert the checkpoint of this model: {CONVERT}; or change config.model.')
    )
  return sources, weights


def _open(
  name: str, given: str, prefix: str, wanted: Mapping[str, tuple[int, ...]]
) -> tuple[Any, Path]:
  """The file that a field of config.init names, as one of ours."""
  remedy = f'make it with `{CONVERT}`, or choose random weights: --config.init.{name}=random'
  if not given:
    size = sum(math.prod(shape) for shape in wanted.values())
    raise ValueError(
      f'config.init.{name} is not given: the {size:,} values of {prefix or "the model"}'
      f' come from a converted file; {remedy}.'
    )
  try:
    path = files.find(given, {_without(path, prefix): shape for path, shape in wanted.items()})
    return safetensors.safe_open(path, framework='np'), path
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'config.init.{name}={given}: {path} is no safetensors file ({error}); {remedy}.'
    ) from error
  except ValueError as error:
    raise ValueError(f'config.init.{name}={given}: {error}\nOr {remedy}.') from error


def _faults(
  targets: set[str],
  held: dict[str, _Tensor],
  shapes: dict[str, Any],
  header: dict[str, str],
  fields: Any,
) -> list[str]:
  """All reasons why a file does not fill its targets exactly."""
  faults = []
  wanted, variant = (fields or {}).get('variant'), header.get('variant')
  # A file may state only the beginning of its variant: 'large', where the window is unknown.
  if wanted and variant and 'custom' not in (wanted, variant) and not wanted.startswith(variant):
    faults.append(f'it holds the variant {variant}, the config asks for {wanted}')
  for path in sorted(targets | held.keys()):
    if path not in held:
      faults.append(f'missing {path} {shapes[path].shape}')
    elif path not in targets:
      faults.append(f'surplus {path} {held[path].shape}')
    elif held[path].shape != shapes[path].shape:
      faults.append(f'{path} is {held[path].shape}, the model has {shapes[path].shape}')
  return faults


def _below(path: str, prefix: str) -> bool:
  """Whether 'collection/a/b/c' lies below 'a/b'."""
  return f'{path.partition("/")[2]}/'.startswith(f'{prefix}/' if prefix else '')


def join(tensor: str, prefix: str) -> str:
  """'collection/c' of a file as 'collection/a/b/c' of the model."""
  collection, _, path = tensor.partition('/')
  return '/'.join(filter(None, (collection, prefix, path)))


def _without(path: str, prefix: str) -> str:
  """The inverse of `join`."""
  collection, _, rest = path.partition('/')
  return f'{collection}/{rest.removeprefix(f"{prefix}/" if prefix else "")}'
