"""Learning rate schedules, learning rates by path, gradient accumulation: the optax chain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float

from dgsct_jax import tree

SMALL = 2**16  # values of a leaf
Schedule = Callable[[Any], Float[Array, '']]  # index of a batch -> learning rate


def build(
  config: ml_collections.ConfigDict, epoch_steps: int
) -> tuple[optax.GradientTransformation, Schedule]:
  """The optimiser and its schedule, both counted in batches.

  Args:
    config: `config.optim`.
    epoch_steps: batches of one epoch.
  """
  rate = schedule(config, epoch_steps)
  parts = [clip(config.clip_norm)] if config.clip_norm else []
  parts += [_rule(config), scale_by_path(config.lr_by_path)]
  # The rate comes after the accumulation, so that it counts batches; between updates it scales 0.
  tx = optax.chain(
    accumulate(optax.chain(*parts), config.accumulate, epoch_steps),
    optax.scale_by_learning_rate(rate),
  )
  return tx, rate


def clip(limit: float) -> optax.GradientTransformation:
  """What optax.clip_by_global_norm does, with a `norm` that compiles faster."""

  def update(
    gradients: tree.Tree, state: optax.EmptyState, params: Any = None
  ) -> tuple[tree.Tree, optax.EmptyState]:
    del params
    factor = jnp.minimum(1.0, limit / norm(gradients))
    return jax.tree.map(lambda g: g * factor, gradients), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def norm(gradients: tree.Tree) -> Float[Array, '']:
  """The Euclidean norm of all leaves together.

  Small leaves, which no mesh splits, are laid end to end first: a sum for each of hundreds takes
  XLA a fifth of the time to compile a step.
  """
  leaves = jax.tree.leaves(gradients)
  large = [leaf for leaf in leaves if leaf.size > SMALL]
  small = [leaf.ravel() for leaf in leaves if leaf.size <= SMALL]
  return optax.tree.norm([*large, jnp.concatenate(small)] if small else large)


def schedule(config: ml_collections.ConfigDict, epoch_steps: int) -> Schedule:
  """The learning rate of batch `step`, counted from 0.

  It rises linearly during the first `warmup_steps`.
  """
  decay = _decay(config, epoch_steps)
  if not config.warmup_steps:
    return decay
  return lambda step: decay(step) * jnp.minimum(1.0, (step + 1) / config.warmup_steps)


def _decay(config: ml_collections.ConfigDict, epoch_steps: int) -> Schedule:
  """The learning rate without warm-up."""
  if config.schedule == 'constant':
    return lambda step: jnp.full((), config.lr)
  if config.schedule == 'cosine':
    return optax.cosine_decay_schedule(config.lr, config.epochs * epoch_steps)
  if config.schedule == 'step':
    # As released: lr(e) = lr * rate^floor((e - 1) / n) in epoch e = 1, 2, ...
    return lambda step: (
      config.lr * jnp.float32(config.decay_rate) ** (step // (epoch_steps * config.decay_epochs))
    )
  raise ValueError(
    f"config.optim.schedule={config.schedule!r}; choose 'step', 'cosine' or 'constant'."
  )


def accumulate(
  tx: optax.GradientTransformation, every: int | str, epoch_steps: int
) -> optax.GradientTransformation:
  """Updates once per `every` batches with the mean of their gradients.

  `every='released'` does what the released AVE loop does: it updates with the gradient of every
  second batch and of the last one of an epoch, and discards the others. `every='released_lavish'`
  does what that of LAVISH does: it updates with every batch, and a second time with the gradient of
  every eighth and of the last one of an epoch.
  """
  if every == 'released_lavish':
    return _twice(tx, lambda step: (step % epoch_steps % 8 == 7) | (_last(step, epoch_steps)))
  if every == 'released':

    def counts(step: Array) -> Array:
      return (step % epoch_steps % 2 == 1) | _last(step, epoch_steps)

    return optax.transforms.conditionally_mask(tx, counts)
  if not isinstance(every, int) or every < 1:
    raise ValueError(
      f"config.optim.accumulate={every!r}; choose a number of batches, 'released' or"
      " 'released_lavish'."
    )
  return tx if every == 1 else optax.MultiSteps(tx, every).gradient_transformation()


def _last(step: Array, epoch_steps: int) -> Array:
  """Whether a batch, counted from 0, is the last of an epoch."""
  return step % epoch_steps == epoch_steps - 1


def _twice(
  tx: optax.GradientTransformation, when: Callable[[Array], Array]
) -> optax.GradientTransformation:
  """Makes the updates of some batches, counted from 0, once more with the same gradient."""

  def update(
    gradients: tree.Tree, state: tuple[Array, Any], params: Any = None
  ) -> tuple[tree.Tree, tuple[Array, Any]]:
    step, inner = state
    once, inner = tx.update(gradients, inner, params)
    again, after = tx.update(gradients, inner, params)
    twice = when(step)
    updates = jax.tree.map(lambda a, b: jnp.where(twice, a + b, a), once, again)
    return updates, (step + 1, jax.tree.map(lambda a, b: jnp.where(twice, b, a), inner, after))

  return optax.GradientTransformation(
    lambda params: (jnp.zeros((), jnp.int32), tx.init(params)), update
  )


def scale_by_path(rules: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
  """Multiplies updates by the number of the first rule (regex, number) that matches, or by 1."""

  def init(params: tree.Tree) -> optax.EmptyState:
    _factors(params, rules)  # Raises at the start of the run if a rule matches nothing.
    return optax.EmptyState()

  def update(
    updates: tree.Tree, state: optax.EmptyState, params: Any = None
  ) -> tuple[tree.Tree, optax.EmptyState]:
    del params
    return jax.tree.map(lambda u, factor: u * factor, updates, _factors(updates, rules)), state

  return optax.GradientTransformation(init, update)


def _factors(params: tree.Tree, rules: tuple[tuple[str, float], ...]) -> tree.Tree:
  """The multiplier of every leaf."""
  paths = list(tree.flatten(params))
  first = tree.first_match(paths, [rule for rule, _ in rules], 'config.optim.lr_by_path')
  return tree.unflatten({path: 1.0 if i is None else rules[i][1] for path, i in first.items()})


def _rule(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Turns a gradient into an update of learning rate 1; weight decay is decoupled from it."""
  if config.name == 'adamw':
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay))
  if config.name == 'adam' and not config.weight_decay:
    return optax.scale_by_adam()
  if config.name == 'adam':
    raise ValueError(
      f'config.optim.weight_decay={config.weight_decay} has no effect with config.optim.name='
      "'adam'; choose 'adamw' or set it to 0."
    )
  raise ValueError(f"config.optim.name={config.name!r}; choose 'adam' or 'adamw'.")
