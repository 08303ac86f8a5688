"""The mesh, the placement of arrays on it, and the transfer of batches from hosts to devices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AnyMesh = Mesh | AbstractMesh  # shapes and placements need no devices

AXES = ('data', 'fsdp')
BATCH = PartitionSpec(AXES)  # clips are spread over both axes
SPLIT_BYTES = 4 * 2**20  # smaller leaves are copied to every device


def make_mesh(shape: Sequence[int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices as ('data', 'fsdp'), those of this run if None.

  One of the two sizes may be -1 and follows from the other.
  """
  sizes = mesh_sizes(shape, len(devices or jax.devices()))
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def mesh_sizes(shape: Sequence[int], devices: int) -> tuple[int, int]:
  """The sizes of `config.mesh` over so many devices. Raises ValueError if it does not hold them."""
  given = tuple(shape)
  known = math.prod(size for size in given if size != -1)
  sizes = tuple(devices // known if size == -1 and known > 0 else size for size in given)
  if len(sizes) != 2 or math.prod(sizes) != devices or min(sizes) < 1:
    raise ValueError(
      f'config.mesh={given} over {AXES} does not hold the {devices} devices;'
      ' their product must be that number, and one of them may be -1.'
    )
  return sizes[0], sizes[1]


def check_batch(batch: int, mesh: AnyMesh, field: str = 'config.data.batch') -> None:
  """Raises ValueError unless a batch divides evenly over the devices, and so over the hosts."""
  if batch < 1 or batch % mesh.size:
    raise ValueError(
      f'{batch} clips do not divide over {mesh.size} devices; set {field} to a multiple of'
      f' {mesh.size}.'
    )


def of_batch(mesh: AnyMesh) -> NamedSharding:
  """The sharding of a batch: its clips spread over all devices."""
  return NamedSharding(mesh, BATCH)


def replicated(mesh: AnyMesh) -> NamedSharding:
  """The sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def of_leaf(leaf: Any, mesh: AnyMesh) -> NamedSharding:
  """The sharding of one array.

  One over 4 MB is split over 'fsdp', along its largest dimension that this axis divides, if any.
  """
  fsdp = mesh.shape['fsdp']
  if fsdp > 1 and _is_large(leaf):
    for i in sorted(range(leaf.ndim), key=lambda i: -leaf.shape[i]):
      if leaf.shape[i] % fsdp == 0:
        return NamedSharding(mesh, PartitionSpec(*[None] * i, 'fsdp'))
  return replicated(mesh)


def is_whole(leaf: Any) -> bool:
  """Whether every device holds all of a large leaf although there is an 'fsdp' axis."""
  fsdp = leaf.sharding.mesh.shape['fsdp']
  return fsdp > 1 and _is_large(leaf) and leaf.sharding.is_fully_replicated


def of_tree(tree: Any, mesh: AnyMesh) -> Any:
  """The sharding of every leaf of parameters or of a train state, from shapes."""
  return jax.tree.map(lambda leaf: of_leaf(leaf, mesh), tree)


def _is_large(leaf: Any) -> bool:
  return leaf.size * leaf.dtype.itemsize > SPLIT_BYTES


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Places an array that every host holds whole on the mesh."""
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """The clips of all hosts as global arrays; each host provides b / hosts of them."""
  sharding = of_batch(mesh)
  with jax.transfer_guard_host_to_device('allow'):  # the only transfer that a step should make
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def abstract_batch(
  spec: Mapping[str, jax.ShapeDtypeStruct], clips: int, mesh: AnyMesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a global batch of clips, with the `index` and `valid` that every batch has."""
  marks = {
    'index': jax.ShapeDtypeStruct((), np.int32),
    'valid': jax.ShapeDtypeStruct((), np.float32),
  }
  return {
    name: jax.ShapeDtypeStruct((clips, *leaf.shape), leaf.dtype, sharding=of_batch(mesh))
    for name, leaf in (marks | dict(spec)).items()
  }


def local(array: jax.Array) -> np.ndarray:
  """This host's clips of a global array, or all of a replicated one."""
  if array.is_fully_replicated:
    return np.asarray(array)
  shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
  return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
