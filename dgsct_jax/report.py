"""The report of a run: its curves, and one HTML page with the metrics and all figures.

`python -m dgsct_jax.report WORKDIR` writes both again; with --features figures/features.png, too,
as features.py says.
"""

import base64
import html
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
  """The contents of metrics.json; empty before the final evaluation."""
  file = workdir / 'metrics.json'
  return json.loads(file.read_text()) if file.is_file() else {}


def page(workdir: Path) -> Path:
  """Writes index.html: metrics and figures of a run in one self-contained file."""
  results = metrics(workdir)
  splits = {name: values for name, values in results.items() if isinstance(values, dict)}
  summary = ', '.join(f'{name} {value}' for name, value in results.items() if name not in splits)
  names = dict.fromkeys(name for values in splits.values() for name in values)
  rows = [['', *splits]]
  rows += [[name, *(_number(values.get(name)) for values in splits.values())] for name in names]
  table = ''.join(
    f'<tr><th>{html.escape(first)}</th>{"".join(f"<td>{html.escape(c)}</td>" for c in rest)}</tr>'
    for first, *rest in rows
  )
  order = lambda file: (file.stem != 'curves', len(file.stem), file.stem)
  images = ''.join(
    f'<figure><img alt="{html.escape(file.stem)}" src="data:image/png;base64,'
    f'{base64.b64encode(file.read_bytes()).decode()}"></figure>\n'
    for file in sorted((workdir / FIGURES).glob('*.png'), key=order)
  )
  file = workdir / 'index.html'
  title, summary = html.escape(workdir.resolve().name), html.escape(summary or 'not evaluated yet')
  text = PAGE.format(title=title, summary=summary, table=table, images=images)
  file.write_text(text, encoding='utf-8')
  return file


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.2f}'


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
  body {{ font: 15px/1.45 system-ui, sans-serif; color: #222 }}
  body {{ max-width: 1510px; margin: 2em auto; padding: 0 1em }}
  table {{ border-collapse: collapse }}
  th, td {{ padding: .2em 1.6em .2em 0; border-bottom: 1px solid #e9e9e9; text-align: right }}
  th {{ text-align: left; font-weight: 400 }}
  tr:first-child td {{ color: #777 }}
  figure {{ margin: 2em 0 }}
  img {{ max-width: 100% }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<table>{table}</table>
{images}</html>
"""


if __name__ == '__main__':
  given = [word for word in sys.argv[1:] if word != '--features']
  if len(given) != 1 or not Path(given[0]).is_dir():
    sys.exit('Usage: python -m dgsct_jax.report WORKDIR [--features], the folder of a run.')
  if '--features' in sys.argv:
    from dgsct_jax import features  # runs the model, which pages alone do not need

    try:
      features.draw(Path(given[0]))
    except ValueError as error:
      sys.exit(f'error: {error}')
  curves(Path(given[0]))
  print(page(Path(given[0])))
