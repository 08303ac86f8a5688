"""Tells what a training step needs on chips that are not there: memory, traffic, time.

python -m dgsct_jax.plan --config=configs/ave.py --topology=v5e:4x4 [--config.data.batch=128]

TPUs: the step is compiled for them on this machine, by libtpu (`pip install 'dgsct-jax[plan]'`).
GPUs, as in --topology=gpu:h100x8, and with --arithmetic: memory from shapes, without intermediate
values. All numbers are for one device. No weights are read, and no data.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from absl import app, flags, logging
from jax.experimental import topologies
from jax.sharding import AbstractMesh, AxisType

from dgsct_jax import chips, command_line, hlo, optim, sharding, train, tree
from dgsct_jax import state as states
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Batch, Task
from dgsct_jax.writer import gb

TOPOLOGY = flags.DEFINE_string('topology', '', 'CHIP:SHAPE: v5e:4x4, v5p:2x2x1, gpu:h100x8.')
ARITHMETIC = flags.DEFINE_bool('arithmetic', False, 'Memory from shapes alone; needs no libtpu.')

REMEDY = (
  'a smaller config.data.batch or more chips; --config.model.remat=blocks;'
  ' --config.model.dtype=bfloat16 and --config.frozen_dtype=bfloat16;'
  " --config.mesh='(1,-1)' splits parameters and optimiser over the chips"
)


class Step(NamedTuple):
  """A training step by shapes, each with its sharding."""

  task: Task
  tx: optax.GradientTransformation
  schedule: optim.Schedule
  state: states.TrainState
  frozen: tree.Tree
  batch: Batch


def main(argv: list[str]) -> None:
  """Prints the plan."""
  jax.config.update('jax_platforms', 'cpu')  # what is planned for need not be here
  logging.set_verbosity(logging.ERROR)
  try:
    config = command_line.at_home(command_line.CONFIG.value)
    topology = chips.topology(TOPOLOGY.value)
    print(plan(config, topology, ARITHMETIC.value or topology.is_gpu))
  except (ValueError, OSError) as error:
    if command_line.DEBUG.value:
      raise
    sys.exit(f'error: {error}')


def plan(config: ml_collections.ConfigDict, topology: chips.Topology, arithmetic: bool) -> str:
  """The plan as text.

  Raises:
    ValueError: the config cannot be used, the topology does not exist or does not divide the mesh
      or the batch, or there is no libtpu.
  """
  train.check(config)
  mesh: sharding.AnyMesh
  if arithmetic:
    sizes = sharding.mesh_sizes(config.mesh, topology.devices)
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * 2)
  else:
    mesh = sharding.make_mesh(config.mesh, devices(topology))
  sharding.check_batch(config.data.batch, mesh)
  step = abstract(config, mesh)
  each = topology.chip.memory / topology.chip.devices
  lines = [
    f'{topology.name}: {mesh.size} devices as {dict(mesh.shape)}, each with {gb(each)} of HBM'
    f' ({topology.chip.source}); {config.data.batch} clips,'
    f' {config.data.batch / mesh.size:g} a device',
    '',
    *from_shapes(step, each),
  ]
  return '\n'.join(lines if arithmetic else [*lines, '', *from_compiler(step, topology)])


def abstract(config: ml_collections.ConfigDict, mesh: sharding.AnyMesh) -> Step:
  """The training step of a config by shapes; nothing is read, whatever config.init names."""
  task = registry.build(config)
  config = config.copy_and_resolve_references()
  config.init.update({name: '' if name == 'all' else 'random' for name in config.init})
  tx, schedule = optim.build(config.optim, epoch_steps=1)
  variables = states.abstract(states.layout(task.model, task.inputs.spec, config, mesh))
  return Step(
    task,
    tx,
    schedule,
    states.abstract_state(variables, tx, mesh),
    variables.frozen,
    sharding.abstract_batch(task.inputs.spec, config.data.batch, mesh),
  )


def devices(topology: chips.Topology) -> list[Any]:
  """The devices of a TPU topology, for the compiler. Raises ValueError if it cannot be had."""
  if not importlib.util.find_spec('libtpu'):
    raise ValueError(
      f"--topology={topology.name}: the compiler for TPUs is missing; pip install 'dgsct-jax[plan]'"
      ' (Linux), or give --arithmetic for the memory of parameters, optimiser and batch alone.'
    )
  # It shall neither look for a TPU nor keep other processes from one.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    return list(topologies.get_topology_desc(topology.name, 'tpu').devices)
  except (RuntimeError, NotImplementedError) as error:
    raise ValueError(f'--topology={topology.name}: libtpu has no such topology: {error}') from error


def from_shapes(step: Step, memory: float) -> list[str]:
  """What a device holds between steps and at the most certain moment of one, by arithmetic."""
  parts: dict[str, Any] = {
    'trainable parameters': step.state.params,
    'gradients of them': step.state.params,
    'optimiser': step.state.opt_state,
    'running statistics': step.state.batch_stats,
    'frozen parameters': step.frozen,
    'batch': step.batch,
  }
  sizes = {name: held(part) for name, part in parts.items()}
  return [
    'By arithmetic on shapes (intermediate values are not in it):',
    *(f'  {name:24} {gb(size):>10}' for name, size in sizes.items()),
    f'  {"together":24} {gb(sum(sizes.values())):>10}',
    '  ' + verdict(sum(sizes.values()), memory, 'and leaves for intermediate values'),
  ]


def from_compiler(step: Step, topology: chips.Topology) -> list[str]:
  """What the compiler makes of the step."""
  chip, n = topology.chip, topology.chip.devices
  try:
    compiled: Any
    compiled, seconds = train.compile_step(*step)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return ['Compiled: it does not fit. ' + str(error), f'What helps: {REMEDY}.']
  program, memory = hlo.read(compiled.as_text()), compiled.memory_analysis()
  held = memory.argument_size_in_bytes
  peak = held + memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  costs = compiled.cost_analysis()
  again, moved_again = hlo.repeated(program)
  flops, moved = costs['flops'] + again, costs['bytes accessed'] + moved_again
  traffic = hlo.collectives(program)
  sent = sum(kind.sent for kind in traffic.values())
  times = {
    'arithmetic': flops / (chip.flops / n),
    'HBM': moved / (chip.bandwidth / n),
    'links': sent / (chip.link / 2),
  }
  slowest = max(times, key=lambda name: times[name])
  unknown = hlo.unknown_loops(program)
  return [
    f'Compiled in {seconds:.0f} s, for each device:',
    f'  {"arguments":24} {gb(held):>10}',
    f'  {"temporary":24} {gb(memory.temp_size_in_bytes):>10}',
    f'  {"peak":24} {gb(peak):>10}',
    '  ' + verdict(peak, chip.memory / n, 'and leaves'),
    f'  {"FLOPs":24} {flops:.3e}, of which later turns of loops {again:.3e}',
    f'  {"bytes moved":24} {gb(moved):>10}, of which later turns of loops {gb(moved_again):>10}',
    *([f'  {unknown} loops of unknown length are counted once'] if unknown else []),
    '',
    'Collectives (bytes: of whole values; sent: by a device, round a ring):',
    *(
      f'  {name:24} {kind.number:5} of {gb(kind.bytes):>10}, sent {gb(kind.sent):>10},'
      f' {100 * kind.sent / moved:.2f} % of bytes moved'
      for name, kind in sorted(traffic.items())
    ),
    *([] if traffic else ['  none']),
    '',
    'Estimate of a step from the data sheet, if all three go on at once and at their peak'
    f' (bfloat16): {max(times.values()) * 1e3:.2f} ms, by {slowest}',
    *(f'  {name:24} {value * 1e3:.2f} ms' for name, value in times.items()),
    '',
    'The largest arguments and values in HBM, which need not be there at one time:',
    *(
      f'  {gb(x.held):>10}  {x.code:16} {x.type[:40]:40} {hlo.owner(x, program)}'
      for x in hlo.largest(program)
    ),
  ]


def verdict(size: float, memory: float, leaves: str) -> str:
  """Whether so many bytes fit, and what to change if not."""
  if size <= memory:
    return f'fits {leaves} {gb(memory - size)}'
  return f'does not fit: {gb(size - memory)} too many. What helps: {REMEDY}.'


def held(leaves: Mapping[str, Any] | Any) -> int:
  """The bytes of one device's share of all leaves."""
  return sum(
    int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(leaves)
  )


if __name__ == '__main__':
  app.run(main, flags_parser=command_line.parse_flags)
