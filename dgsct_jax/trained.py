"""The best checkpoint of a run, or an untrained model, as a function from batches to outputs."""

import dataclasses
import functools
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from dgsct_jax import checkpoint, compiler, kept, published, sharding, tree
from dgsct_jax import state as states
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Batch, Outputs, Task

Forward = Callable[[tree.Tree, tree.Tree, tree.Tree, Batch], Outputs]


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its variables."""

  config: ml_collections.ConfigDict
  task: Task
  mesh: Mesh
  step: int  # of the checkpoint; 0: it was not trained
  selected: dict[str, float]  # its metrics on the split that selected it; empty: it is the latest
  variables: states.Variables
  forward: Forward
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # hashes, if all is from files

  def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs for this host's clips; `batch` is its share of the global batch."""
    clips = sharding.global_batch(batch, self.mesh)
    outputs = self.forward(*self.variables, clips | self.constants)
    return jax.tree.map(sharding.local, outputs)

  @functools.cached_property
  def constants(self) -> Outputs:
    """What the model makes of its variables alone, once for all batches.

    If these are all from files, such as the towers of CLIP and CLAP, it is kept on disk.
    """
    make = self.task.constants
    if make is None:
      return {}
    compute = jax.jit(lambda *variables: make(states.Variables(*variables).joined))
    if not self.files:
      return compute(*self.variables)
    # The model as text has its every field, the classes as its towers read them among these.
    about = {'model': repr(self.task.model), 'frozen_dtype': self.config.frozen_dtype}
    return kept.arrays({**about, **self.files}, lambda: compute(*self.variables))


def read_config(
  workdir: Path, init: Sequence[str] = (), step: int | None = None
) -> ml_collections.ConfigDict:
  """The config of a run, or of a published model.

  Args:
    init: 'NAME=FILE' replaces `config.init.NAME`, for a file that was moved.
    step: of the checkpoint that it is read from; the latest if None.

  Raises:
    ValueError: there is no checkpoint, or a damaged one; or no field NAME; or a file of a published
      model is missing, damaged or altered.
  """
  if published.is_one(workdir):
    config = checkpoint.config_of(published.read(workdir))
    config.init.all = str(workdir / published.WEIGHTS)
  else:
    config = checkpoint.config_of(checkpoint.read_run(*checkpoint.find(workdir, step=step)))
  set_init(config, init)
  return config


def from_file(given: str) -> ml_collections.ConfigDict:
  """The config of FILE[:VARIANT].

  Raises:
    ValueError: there is none, whatever the file makes of that.
  """
  file, colon, variant = given.partition(':')
  if not Path(file).is_file():
    raise ValueError(f'--config={given}: there is no file {file}.')
  try:
    return runpy.run_path(file)['get_config'](*[variant] if colon else [])
  except Exception as error:
    raise ValueError(f'--config={given}: {type(error).__name__}: {error}') from error


def set_init(config: ml_collections.ConfigDict, init: Sequence[str]) -> None:
  """Sets `config.init.NAME` for each 'NAME=FILE'. Raises ValueError if there is no such field."""
  for name, _, file in (given.partition('=') for given in init):
    if name not in config.init or not file:
      raise ValueError(
        f'--init={name}={file}: give NAME=FILE, NAME one of {", ".join(config.init)}.'
      )
    config.init[name] = file


def load(
  workdir: Path,
  config: ml_collections.ConfigDict,
  task: Task | None = None,
  mesh: Mesh | None = None,
  step: int | None = None,
) -> Trained:
  """The best checkpoint of a run, the latest if none was evaluated; or a published model.

  Args:
    mesh: all devices, each with the whole model, if None.
    step: of another checkpoint.

  Raises:
    ValueError: there is no checkpoint, or it is damaged; or its frozen weights are missing or have
      changed.
  """
  if published.is_one(workdir):
    return dataclasses.replace(untrained(config, task, mesh), step=published.step(workdir))
  task, mesh = task or registry.build(config), mesh or sharding.make_mesh((-1, 1))
  manager, step = checkpoint.find(workdir, task.primary, step)
  layout = states.layout(task.model, task.inputs.spec, config, mesh)
  frozen = states.fill(layout, frozen_only=True).frozen
  return restore(manager, step, config, task, layout, frozen, mesh)


def untrained(
  config: ml_collections.ConfigDict, task: Task | None = None, mesh: Mesh | None = None
) -> Trained:
  """The model of a config that trains nothing, from the files of `config.init` alone.

  Args:
    mesh: all devices, each with the whole model, if None.

  Raises:
    ValueError: the config trains something; or files are missing or leave variables open.
  """
  if config.trainable:
    raise ValueError(
      f'This config trains {", ".join(config.trainable)}; train it, and give the folder of the run,'
      ' or choose one that trains nothing, such as configs/zero_shot.py.'
    )
  task, mesh = task or registry.build(config), mesh or sharding.make_mesh((-1, 1))
  layout = states.layout(task.model, task.inputs.spec, config, mesh)
  random = 'random' in config.init.values()
  if not random and (drawn := sorted(layout.leaves.keys() - layout.sources.keys())):
    raise ValueError(
      f'{len(drawn)} variables come from no file of config.init and would be random, such as'
      f' {drawn[0]}; name a file that has them, or choose a model without them.'
    )
  files = {} if random else dict(layout.weights)
  variables = states.fill(layout)
  return Trained(config, task, mesh, 0, {}, variables, compile_forward(task, mesh), files)


def renewed(model: Trained, config: ml_collections.ConfigDict, task: Task | None = None) -> Trained:
  """The variables of a model under another config that has the same ones: other names of classes.

  No file is read; what depends on the names, such as features of texts, is computed anew.
  """
  task = task or registry.build(config)
  forward = compile_forward(task, model.mesh)
  return dataclasses.replace(model, config=config, task=task, forward=forward)


def restore(
  manager: Any,
  step: int,
  config: ml_collections.ConfigDict,
  task: Task,
  layout: states.Layout,
  frozen: tree.Tree,
  mesh: Mesh,
  forward: Forward | None = None,
) -> Trained:
  """The checkpoint of a step, with frozen parameters that are loaded already."""
  selected = checkpoint.metrics(manager, step)
  run = checkpoint.identity(config, layout.weights)
  params, batch_stats = checkpoint.restore_model(manager, step, states.abstract(layout), run)
  variables = states.Variables(params, batch_stats, frozen)
  return Trained(
    config, task, mesh, step, selected, variables, forward or compile_forward(task, mesh)
  )


def compile_forward(task: Task, mesh: Mesh) -> Forward:
  """(params, batch_stats, frozen, batch) -> outputs in float32, sharded like the batch."""

  def forward(
    params: tree.Tree, batch_stats: tree.Tree, frozen: tree.Tree, batch: Batch
  ) -> Outputs:
    variables = states.Variables(params, batch_stats, frozen)
    outputs: Any = task.model.apply(variables.joined, batch, False)
    clips = len(batch['valid'])
    wrong = {name: x.shape for name, x in outputs.items() if x.shape[:1] != (clips,)}
    if wrong:
      raise ValueError(f'Outputs must lead with the {clips} clips of the batch, unlike {wrong}.')

    def place(x: jax.Array) -> jax.Array:
      x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
      return jax.lax.with_sharding_constraint(x, sharding.of_batch(mesh))

    return jax.tree.map(place, outputs)

  return jax.jit(forward, compiler_options=compiler.options(mesh))
