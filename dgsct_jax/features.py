"""Where segments lie among each other by their features, with and without the adapters.

`python -m dgsct_jax.report RUN --features` draws it. Needs scikit-learn, `pip install
'dgsct_jax[features]'`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from dgsct_jax import compiler, evaluate, sharding, trained
from dgsct_jax.data import datasets
from dgsct_jax.figures import INK, as_written, colour
from dgsct_jax.models.adapters import Exchange, NoExchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.side import Ladder
from dgsct_jax.tasks.task import Batch
from dgsct_jax.trained import Trained

MOST = 3000  # segments that are drawn: more are slow and no clearer
SPLIT = 'test'


def draw(workdir: Path) -> Path:
  """Writes figures/features.png of a run: its test segments, one colour for each class.

  Raises:
    ValueError: the folder is no run; the model has no dual encoder with adapters, or its clips no
      class for each segment; or scikit-learn is not there.
  """
  try:
    from sklearn.manifold import TSNE
  except ImportError as error:
    raise ValueError("--features needs scikit-learn: pip install 'dgsct_jax[features]'.") from error
  config = trained.read_config(workdir)
  if config.model.adapter.name == 'none':
    raise ValueError(f'The model of {workdir} has no adapters to be compared with their absence.')
  model = trained.load(workdir, config)
  names = datasets.of(config.data).classes(config.data)
  found, label = pooled(model)
  places = {}
  for title, x in found.items():
    near = min(30.0, (len(x) - 1) / 3)
    places[title] = TSNE(perplexity=near, init='pca', random_state=0).fit_transform(x)
  path = workdir / 'figures' / 'features.png'
  path.parent.mkdir(exist_ok=True)
  scattered(places, label, names).savefig(path)
  return path


@as_written
def scattered(
  places: Mapping[str, Float[np.ndarray, 'n 2']], label: Int[np.ndarray, 'n'], names: Sequence[str]
) -> Figure:
  """Points in one panel for each of `places`, coloured by their labels."""
  figure = Figure((11, 5.4), dpi=100, layout='constrained', facecolor='white')
  for axes, (title, place) in zip(figure.subplots(1, len(places)), places.items()):
    for c in np.unique(label):
      name = names[c] if c < len(names) else 'none'
      shade = colour(int(c)) if c < len(names) else '#bbbbbb'
      axes.scatter(*place[label == c].T, s=6, color=shade, label=name, lw=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10, color=INK, loc='left')
    axes.spines[:].set_visible(False)
  figure.legend(
    *axes.get_legend_handles_labels(), loc='outside right center', fontsize=8, frameon=False
  )
  return figure


def pooled(model: Trained) -> tuple[dict[str, Float[np.ndarray, 'n d']], Int[np.ndarray, 'n']]:
  """The features of test segments with and without adapters, and the class of each.

  They are the means of the tokens of both streams, one after the other. Raises ValueError.
  """
  ways = {'with adapters': True, 'the same encoders without': False}
  run = jax.jit(
    lambda variables, batch, adapt: features(model, variables, batch, adapt),
    static_argnums=2,
    compiler_options=compiler.options(model.mesh),
  )
  found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
  labels: list[np.ndarray] = []
  variables = model.variables.joined
  with evaluate.batches(model.task, SPLIT, model.config) as batches:
    for batch in batches:
      label = batch.get('label')
      if label is None or label.ndim != 2 or label.dtype.kind != 'i':
        raise ValueError(
          f'--features colours segments by their class; the clips of {model.config.task} have none.'
        )
      valid = batch['valid'] > 0
      on_device = sharding.global_batch(batch, model.mesh)
      for way, adapt in ways.items():
        x = sharding.local(run(variables, on_device, adapt))[valid]
        found[way].append(x.reshape(-1, x.shape[-1]))
      labels.append(label[valid].reshape(-1))
      if sum(map(len, labels)) >= MOST:
        break
  return {way: np.concatenate(x) for way, x in found.items()}, np.concatenate(labels)


def features(model: Trained, variables: Any, batch: Batch, adapt: bool) -> jax.Array:
  """[b t d]: what comes out of the encoder, where adapters may be made to say nothing."""
  seen: list[jax.Array] = []

  def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if context.method_name != '__call__':
      return call(*args, **kwargs)
    if isinstance(context.module, Exchange) and not adapt:
      return NoExchange(parent=None)(*args, **kwargs)
    if isinstance(context.module, Ladder) and not adapt:
      return args[0]
    out = call(*args, **kwargs)
    if isinstance(context.module, DualEncoder):
      seen.append(jnp.concatenate([out.visual.mean(1), out.audio.mean(1)], -1))
    return out

  with nn.intercept_methods(record):
    model.task.model.apply(variables, batch, False)
  if not seen:
    raise ValueError(f'--features needs a dual encoder; the model of {model.config.task} has none.')
  return seen[0].reshape(len(batch['valid']), -1, seen[0].shape[-1]).astype(jnp.float32)
