"""The state of a run: made from a model, a seed and converted weights."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import safetensors
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from dgsct_jax import sharding, tree
from dgsct_jax.models import lazy

PREFIXES = {  # of config.init
  'visual': 'encoder/visual',
  'audio': 'encoder/audio',
  'ground': 'matching',
  'backbone': 'backbone',
  'all': '',
}
CONVERT = 'python -m dgsct_jax.convert SOURCE CHECKPOINT OUT.safetensors'
PACKAGED = Path(__file__).parent / 'weights'


@struct.dataclass
class TrainState:
  """What training changes, and all that it needs to go on but the frozen parameters."""

  # Not annotated as arrays: trees of this kind hold their shapes and shardings too.
  step: Any  # int32 []: batches taken so far
  params: tree.Tree  # the trainable half
  batch_stats: tree.Tree  # of the whole model: statistics of frozen parts may move too
  opt_state: optax.OptState
  rng: Any  # uint32 [words]: the key of the run, from which each step derives its own


@dataclasses.dataclass(frozen=True)
class Variables:
  """A model's variables in two halves, and where they came from."""

  params: tree.Tree
  frozen: tree.Tree
  batch_stats: tree.Tree
  weights: dict[str, str]  # field of config.init -> hash


def create(
  variables: Variables, tx: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
  """The state before the first step; the optimiser's is laid out like the parameters."""
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
  """The keys of one step, a function of (seed, step)."""
  key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
  return dict(zip(('dropout', 'drop_path', 'augment'), jax.random.split(key, 3)))


def variables(
  model: nn.Module, batch: dict[str, np.ndarray], config: ml_collections.ConfigDict, mesh: Mesh
) -> Variables:
  """Parameters and statistics on the mesh: from the files of `config.init`, the others drawn.

  Args:
    batch: any batch of the data, for its shapes.

  Raises:
    ValueError: a file that is needed is not given or not there; or what it holds is not what the
      model needs: all missing, surplus and misshapen names of all files at once.
  """
  if config.frozen_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f"config.frozen_dtype={config.frozen_dtype!r}; choose 'float32' or 'bfloat16'."
    )
  batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch))
  shapes = tree.flatten(jax.eval_shape(lambda b: model.init(jax.random.key(0), b, False), batch))
  params = tree.unflatten({p: s for p, s in shapes.items() if p.startswith('params/')})['params']
  _, frozen = tree.split(params, config.trainable)
  frozen = {f'params/{path}' for path in tree.flatten(frozen)}

  sources, weights = _sources(shapes, config)
  drawn = tree.flatten(
    lazy.init(
      model, jax.random.key(config.seed), batch, train=False, keep=lambda path: path not in sources
    )
  )
  leaves = {}
  for path, shape in shapes.items():  # One at a time: nothing is held twice but a single leaf.
    value = sources[path].read() if path in sources else np.asarray(drawn.pop(path))
    compact = path in frozen and path.endswith('/kernel')  # Tables and STFT need all digits.
    value = value.astype(config.frozen_dtype if compact else shape.dtype)
    leaves[path] = sharding.put(value, sharding.of_leaf(value, mesh))
  found = tree.unflatten(leaves)
  trainable, frozen = tree.split(found['params'], config.trainable)
  return Variables(trainable, frozen, found.get('batch_stats', {}), weights)


class _Tensor:
  """One tensor of a file, not read yet."""

  def __init__(self, file: Any, name: str):
    self.file, self.name = file, name

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.file.get_slice(self.name).get_shape())

  def read(self) -> np.ndarray:
    return self.file.get_tensor(self.name)


def _sources(
  shapes: dict[str, Any], config: ml_collections.ConfigDict
) -> tuple[dict[str, _Tensor], dict[str, str]]:
  """(path -> tensor) of every variable that comes from a file, and the hash of each file."""
  init = config.init
  sources, weights, faults = {}, {}, []
  for name in ('all',) if init.all else [name for name in PREFIXES if name in init][:-1]:
    prefix, given = PREFIXES[name], init[name]
    targets = {path for path in shapes if _below(path, prefix)}
    if given == 'random':
      weights[name] = f'random, seed {config.seed}'
      continue
    if not targets and not given:
      continue  # LAVISH has one backbone for both streams.
    file, path = _open(name, given, sum(shapes[target].size for target in targets))
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


def _open(name: str, given: str, size: int) -> tuple[Any, Path]:
  """The file that a field of config.init names."""
  remedy = (
    f'make it with `{CONVERT}`, or ask for random weights by name: --config.init.{name}=random'
  )
  if not given:
    raise ValueError(
      f'config.init.{name} is not given: the {size:,} values of {PREFIXES[name] or "the model"}'
      f' come from a converted file; {remedy}.'
    )
  path = locate(given)
  if not path.is_file():
    raise ValueError(f'config.init.{name}={given}: there is no file {path}; {remedy}.')
  try:
    return safetensors.safe_open(path, framework='np'), path
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'config.init.{name}={given}: {path} is no safetensors file ({error}); {remedy}.'
    ) from error


def locate(given: str) -> Path:
  """The path of a file named in config.init; 'package:NAME' is one that comes with this package."""
  if given.startswith('package:'):
    return PACKAGED / given.removeprefix('package:')
  return Path(given).expanduser()


def _faults(
  targets: set[str],
  held: dict[str, _Tensor],
  shapes: dict[str, Any],
  header: dict[str, str],
  fields: Any,
) -> list[str]:
  """All that keeps a file from filling its targets exactly."""
  faults = []
  wanted, variant = (fields or {}).get('variant'), header.get('variant')
  # A file may know its variant only in part: 'large', where nothing in it shows the window.
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
