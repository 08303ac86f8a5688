"""The report of a run: its curves, and one HTML page with the metrics and all figures.

`python -m dgsct_jax.report WORKDIR` writes both again; with --features figures/features.png, too,
as features.py says.
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgsct_jax import page as pages
from dgsct_jax import writer
from dgsct_jax.figures import FAINT, INK, colour

FIGURES = 'figures'  # their folder in that of the run
Points = list[tuple[int, float]]  # (step, value)


def curves(workdir: Path) -> None:
  """Draws figures/curves.png: losses, metrics, learning rate and gradient norm over the steps."""
  series: dict[str, dict[str, Points]] = {}
  for line in writer.read(workdir):
    for name in line.keys() - {'step'}:
      prefix, _, short = name.partition('/')
      if short.endswith('_batch_mean'):
        continue  # the same metric, averaged as released
      point = int(line['step']), line[name]
      series.setdefault(prefix, {}).setdefault(short, []).append(point)
  train = series.pop('train', {})
  alone = {'learning rate': train.pop('lr', []), 'gradient norm': train.pop('grad_norm', [])}
  panels = {'training loss': train}
  panels |= {f'{split} metrics': drawn for split, drawn in series.items()}
  panels |= {title: {title: points} for title, points in alone.items() if points}
  figure = Figure((4.2 * len(panels), 3.4), dpi=100, layout='constrained', facecolor='white')
  chosen = metrics(workdir).get('step')
  row = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (title, drawn) in zip(row, panels.items()):
    if title.endswith('metrics') and chosen:
      axes.axvline(chosen, color='#888888', lw=1, ls='--')
    _panel(axes, title, drawn)
  (workdir / FIGURES).mkdir(parents=True, exist_ok=True)
  figure.savefig(workdir / FIGURES / 'curves.png')


def _panel(axes: Axes, title: str, drawn: dict[str, Points]) -> None:
  names = sorted(drawn, key=lambda name: (name != 'loss', name))
  for i, name in enumerate(names):
    total = name in ('loss', title)
    axes.plot(
      *zip(*drawn[name]),
      label=name,
      color=INK if total else colour(i),
      lw=1.6 if total else 1.1,
      marker='o' if len(drawn[name]) < 30 else None,
      ms=3,
    )
  if len(names) > 1:
    axes.legend(fontsize=8, frameon=False)
  axes.set_title(title, fontsize=10, color=INK, loc='left')
  axes.set_xlabel('step', fontsize=8, color=INK)
  steps = ticker.AutoLocator()
  steps.set_params(integer=True)
  axes.xaxis.set_major_locator(steps)
  axes.tick_params(labelsize=8, colors=INK)
  axes.grid(color=FAINT, lw=0.8)
  axes.spines[['top', 'right']].set_visible(False)


def metrics(workdir: Path) -> dict[str, Any]:
  """The contents of metrics.json; empty before the final evaluation.

  Raises:
    ValueError: the file is not one of ours.
  """
  file = workdir / 'metrics.json'
  if not file.is_file():
    return {}
  try:
    found = json.loads(file.read_text(encoding='utf-8'))
    splits = [values for values in found.values() if isinstance(values, dict)]
    numbers = [found['step'], *(value for values in splits for value in values.values())]
    if not all(isinstance(value, int | float) for value in numbers):
      raise ValueError('a metric is no number')
    return found
  except (ValueError, AttributeError, KeyError, RecursionError) as error:
    raise ValueError(
      f'{file} is not what an evaluation writes ({type(error).__name__}: {error}); remove it, or'
      ' write it again with --mode=evaluate.'
    ) from error


def goodput(workdir: Path) -> str:
  """What the time of the last start went to, in a line; '' before its end. Raises ValueError."""
  file = workdir / writer.GOODPUT
  if not file.is_file():
    return ''
  try:
    seconds = json.loads(file.read_text(encoding='utf-8'))
    return writer.shares({str(part): float(value) for part, value in seconds.items()})
  except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
    raise ValueError(
      f'{file} is not what a run writes ({type(error).__name__}: {error}); remove it.'
    ) from error


def page(workdir: Path) -> Path:
  """Writes index.html: metrics, time and figures of a run in one self-contained file."""
  results = metrics(workdir)
  splits = {name: values for name, values in results.items() if isinstance(values, dict)}
  summary = ', '.join(f'{name} {value}' for name, value in results.items() if name not in splits)
  names = dict.fromkeys(name for values in splits.values() for name in values)
  rows = [['', *splits]]
  rows += [[name, *(_number(values.get(name)) for values in splits.values())] for name in names]
  order = lambda file: (file.stem != 'curves', len(file.stem), file.stem)
  drawn = sorted((workdir / FIGURES).glob('*.png'), key=order)
  text = pages.page(
    workdir.resolve().name,
    pages.text(summary or 'not evaluated yet'),
    pages.table(rows),
    pages.text(goodput(workdir)),
    *(pages.picture(file.read_bytes(), file.stem) for file in drawn),
  )
  file = workdir / 'index.html'
  file.write_text(text, encoding='utf-8')
  return file


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.2f}'


if __name__ == '__main__':
  given = [word for word in sys.argv[1:] if word != '--features']
  if len(given) != 1 or not Path(given[0]).is_dir():
    sys.exit('Usage: python -m dgsct_jax.report WORKDIR [--features], the folder of a run.')
  try:
    if '--features' in sys.argv:
      from dgsct_jax import features  # runs the model, which pages alone do not need

      features.draw(Path(given[0]))
    curves(Path(given[0]))
    print(page(Path(given[0])))
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
