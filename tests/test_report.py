import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgsct_jax import report, writer


@pytest.fixture
def run(tmp_path):
  lines = [
    {'step': i, 'train/loss': 3 / i, 'train/class': 2 / i, 'train/lr': 0.1, 'train/grad_norm': 1.0}
    for i in range(1, 6)
  ]
  lines.insert(3, {'step': 3, 'val/accuracy': 40.0, 'val/event_accuracy': 60.0})
  (tmp_path / writer.SCALARS).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return tmp_path


def finish(run):
  (run / 'metrics.json').write_text(
    json.dumps(
      {
        'task': 'ave',
        'step': 3,
        'chosen': 'best accuracy on val',
        'val': {'accuracy': 40.0},
        'test': {'accuracy': 41.25, 'accuracy_batch_mean': 41.5},
      }
    )
  )


def size(run):
  with Image.open(run / 'figures/curves.png') as drawn:
    return drawn.size


def test_curves_have_a_panel_for_each_kind_of_scalar(run, tmp_path):
  report.curves(run)
  wide = size(run)
  lines = [line for line in writer.read(run) if 'val/accuracy' not in line]
  (run / writer.SCALARS).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  report.curves(run)
  assert wide[0] / size(run)[0] == 4 / 3


def test_curves_of_a_run_that_has_only_begun_are_drawn(tmp_path):
  report.curves(tmp_path)
  assert size(tmp_path)[1] > 100


def test_curves_show_what_was_written(run):
  report.curves(run)
  before = np.asarray(Image.open(run / 'figures/curves.png'))
  with (run / writer.SCALARS).open('a') as file:
    file.write(
      json.dumps({'step': 6, 'train/loss': 9.0, 'train/class': 9.0, 'train/lr': 0.1}) + '\n'
    )
  report.curves(run)
  assert (before != np.asarray(Image.open(run / 'figures/curves.png'))).any()


def test_the_page_tells_what_the_time_went_to(run):
  assert 'in all' not in report.page(run).read_text()
  (run / writer.GOODPUT).write_text('{"steps": 90, "input": 30}')
  assert '<p>0:02:00 in all: steps 75.0%, input 25.0%</p>' in report.page(run).read_text()


@pytest.mark.parametrize(
  'text', ['', '[1]', '{"steps": "long"}', '{"steps": null}', '{"a": 1e400}']
)
def test_times_that_no_run_wrote_are_named(run, text):
  (run / writer.GOODPUT).write_text(text)
  with pytest.raises(ValueError, match='goodput.json is not what a run writes'):
    report.page(run)


def test_the_page_holds_every_metric_and_figure(run):
  finish(run)
  report.curves(run)
  Image.new('RGB', (4, 4)).save(run / 'figures/clip_10.png')
  Image.new('RGB', (4, 4)).save(run / 'figures/clip_2.png')
  text = report.page(run).read_text()
  assert re.findall('alt="(.*?)"', text) == ['curves', 'clip_2', 'clip_10']
  assert '<th>accuracy</th><td>40.00</td><td>41.25</td>' in text
  assert '<th>accuracy_batch_mean</th><td></td><td>41.50</td>' in text
  assert 'step 3' in text and 'best accuracy on val' in text
  assert 'src="data:image/png;base64' in text and 'http' not in text


def test_the_page_of_a_run_that_is_not_finished_says_so(run):
  assert 'not evaluated yet' in report.page(run).read_text()


def test_names_are_no_markup(tmp_path):
  folder = tmp_path / 'a<b>&c'
  folder.mkdir()
  assert 'a&lt;b&gt;&amp;c' in report.page(folder).read_text()


@pytest.mark.parametrize(
  'text',
  [
    '',
    '{"task": "ave", "st',
    '[]',
    '3',
    'null',
    '{}',
    '{"step": "3"}',
    '{"step": 3, "test": {"a": "x"}}',
  ]
  + ['\x00', '[' * 99999],
)
def test_a_metrics_file_that_is_none_is_one_line(run, text):
  (run / 'metrics.json').write_text(text)
  with pytest.raises(ValueError, match='metrics.json is not what an evaluation writes') as error:
    report.curves(run)
  assert '\n' not in str(error.value)
  command = [sys.executable, '-m', 'dgsct_jax.report', str(run)]
  if not text:
    told = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr == f'error: {error.value}\n'
