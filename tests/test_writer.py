"""Scalars survive a stop: what a killed run wrote beyond its checkpoint is taken back."""

import json
import subprocess
import sys
import time

import pytest

from dgsct_jax import writer as writers


def write(workdir, start, steps):
  writer = writers.Writer(workdir, start)
  for step in steps:
    writer.scalars(step, {'loss': step / 4, 'lr': 0.1})
  writer.close()


def test_scalars_are_one_json_object_per_step(tmp_path):
  write(tmp_path, 0, [1, 2])
  assert [json.loads(line) for line in (tmp_path / 'scalars.jsonl').read_text().splitlines()] == [
    {'step': 1, 'train/loss': 0.25, 'train/lr': 0.1},
    {'step': 2, 'train/loss': 0.5, 'train/lr': 0.1},
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_a_resumed_run_leaves_the_file_of_an_unbroken_one(tmp_path):
  write(tmp_path / 'unbroken', 0, range(1, 9))
  write(tmp_path / 'stopped', 0, range(1, 7))
  write(tmp_path / 'stopped', 4, range(5, 9))  # the checkpoint was of step 4
  text = lambda run: (tmp_path / run / 'scalars.jsonl').read_text()
  assert text('stopped') == text('unbroken')


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
  write(tmp_path, 0, [1, 2])
  with (tmp_path / 'scalars.jsonl').open('a') as file:
    file.write('{"step": 3, "train/lo')
  assert [line['step'] for line in writers.read(tmp_path)] == [1, 2]
  write(tmp_path, 2, [3])
  assert [line['step'] for line in writers.read(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
  'line',
  [
    b'',
    b'{"step": 2, "tra',
    b'{"train/loss": 1}',
    b'[2]',
    b'\xff\x00',
    b'{"step": "2"}',
    b'{"step": 2, "trai\xee/loss": 1}',
    b'{"step": 2, "trai\\udcee/loss": 1}',
  ],
)
def test_a_damaged_line_is_passed_over_and_what_follows_it_is_kept(tmp_path, line):
  write(tmp_path, 0, [1, 2, 3])
  file = tmp_path / 'scalars.jsonl'
  first, _, third = file.read_bytes().splitlines()
  file.write_bytes(b'\n'.join([first, line, third, b'']))
  assert [line['step'] for line in writers.read(tmp_path)] == [1, 3]
  write(tmp_path, 3, [4])
  assert file.read_bytes().splitlines()[:3] == [first, line, third]
  assert [line['step'] for line in writers.read(tmp_path)] == [1, 3, 4]
  write(tmp_path, 1, [2])
  assert file.read_bytes().splitlines()[:2] == [first, line]
  assert [line['step'] for line in writers.read(tmp_path)] == [1, 2]


def test_reading_a_folder_without_scalars_gives_none(tmp_path):
  assert writers.read(tmp_path) == []


def test_training_never_imports_torch(tmp_path):
  code = (
    'import pathlib, sys; from dgsct_jax import train, writer;'
    'writer.Writer(pathlib.Path(sys.argv[1]), 0).close(); assert "torch" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=True)


def test_the_clock_counts_batches_but_no_pauses(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  clock = writers.Clock(10, 50, batch=4)
  assert clock.report(10) == (0.0, '?')
  now[0] += 5
  with clock.paused():
    now[0] += 1000
  clips, left = clock.report(20)  # ten batches in five seconds
  assert clips == 8.0 and left == '0:00:15'
  now[0] += 1
  assert clock.report(21)[0] == 4.0


def test_the_progress_line_has_all_that_one_looks_for():
  line = writers.progress(
    20,
    400,
    {'loss': 1.5, 'event': 1.0, 'class': 0.5, 'grad_norm': 2.0, 'lr': 5e-4},
    0.0132,
    12.25,
    '0:01:00',
  )
  assert line == (
    'step 20/400  loss 1.5000  event 1.0000 class 0.5000 grad_norm 2.0000'
    '  lr 5.00e-04  12.2 clips/s  input 13 ms a step  0:01:00 left'
  )


def test_every_second_of_a_run_goes_to_one_part(tmp_path, monkeypatch, capsys):
  now = [100.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  spent = writers.Spent()
  for part, seconds in (('input', 10), ('steps', 50), ('saving', 5), ('steps', 10)):
    with spent.on(part):
      now[0] += seconds
  assert spent.lately('input') == (10, 70)
  assert spent.lately('input') == (0, 0)
  spent.add('compilation', 20)
  now[0] += 25  # of which 20 were spent compiling
  with pytest.raises(OSError), spent.on('evaluation'):
    now[0] += 100
    raise OSError
  seconds = {'steps': 60, 'input': 10, 'evaluation': 100, 'compilation': 20, 'saving': 5, 'rest': 5}
  assert spent.seconds() == seconds
  writer = writers.Writer(tmp_path, 0)
  writer.spent(spent)
  writer.close()
  assert json.loads((tmp_path / 'goodput.json').read_text()) == seconds
  assert capsys.readouterr().out == (
    '0:03:20 in all: steps 30.0%, input 5.0%, evaluation 50.0%, compilation 10.0%,'
    ' saving 2.5%, rest 2.5%\n'
  )
