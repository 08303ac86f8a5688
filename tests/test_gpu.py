"""The table of a card: from numbers that are given, and once on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

from benchmarks import gpu

ROOT = Path(__file__).parents[1]
TERA = 1e12


@pytest.fixture
def card(monkeypatch):
  """A card on which 4 clips fit, of 10 TFLOP/s in float32 and 20 in bfloat16; lists what ran."""
  ran = []

  def run(module, arguments, log, cache):
    given = dict(argument.removeprefix('--').split('=', 1) for argument in arguments)
    ran.append(Path(given['json']).stem)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text('')
    if module == 'benchmarks.matmul':
      numbers = {'flops_per_second': {'float32': 10, 'bfloat16': 20}[given['dtype']] * TERA}
    elif (clips := int(given['clips'])) > 4:
      log.write_text('XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory')
      raise subprocess.CalledProcessError(1, module)
    else:
      assert given['config.model.remat'] in ('none', 'blocks') and given['phase'] == 'step'
      numbers = {'seconds': 0.5, 'flops': clips * TERA, 'bytes': 3e9, 'torch_seconds': 1.0}
    Path(given['json']).write_text(json.dumps(numbers))

  monkeypatch.setattr(gpu, 'run', run)
  return ran


def table(folder: Path, **given) -> list[list[str]]:
  if not gpu.flags.FLAGS.is_parsed():
    gpu.flags.FLAGS(['test'])
  with flagsaver.flagsaver(runs=str(folder), **given):
    gpu.main([])
  lines = (folder / 'table.md').read_text().splitlines()
  assert lines[1] == '| --- ' * 9 + '|'
  return [line.strip('|').replace(' ', '').split('|') for line in lines[2:]]


def test_each_batch_has_its_line_up_to_the_first_that_does_not_fit(card, tmp_path):
  given = dict(clips=['2', '4', '8', '16'], train_clips=600, epochs=2)
  found = table(tmp_path, **given)
  assert [line[:3] for line in found if line[2] == '4'] == [
    [dtype, remat, '4'] for dtype in ('float32', 'bfloat16') for remat in ('none', 'blocks')
  ]
  assert found[0] == ['float32', 'none', '2', '4.00', '3.00GB', '4000', '40.0%', '5.0min', '2.00×']
  assert found[1][3:7] == ['8.00', '3.00GB', '8000', '80.0%']
  assert found[2][2:4] == ['8', 'doesnotfit'] and len(found) == 4 * 3
  assert found[7][3:7] == ['8.00', '3.00GB', '8000', '40.0%']  # bfloat16
  assert len(card) == len(set(card)) == 2 + 4 * 3


def test_what_was_measured_is_not_measured_again(card, tmp_path):
  first = table(tmp_path, clips=['2', '8'])
  del card[:]
  assert table(tmp_path, clips=['2', '4', '8'])[::3] == first[::2]
  assert card and all(name.endswith('_4') for name in card)


def test_another_failure_is_no_lack_of_memory(monkeypatch, tmp_path):
  def run(module, arguments, log, cache):
    log.write_text('Segmentation fault')
    raise subprocess.CalledProcessError(139, module)

  monkeypatch.setattr(gpu, 'run', run)
  with pytest.raises(subprocess.CalledProcessError):
    table(tmp_path)
  assert not list(tmp_path.glob('*.json'))


@pytest.mark.slow  # three processes that import and compile
def test_it_runs_on_this_machine(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.gpu', f'--runs={tmp_path}', '--config=configs/ave.py:tiny']
    + ['--phase=forward', '--clips=1', '--vary=model.dtype=float32', '--size=64', '--repeats=1'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr + '\n'.join(
    x.read_text() for x in tmp_path.glob('*.txt')
  )
  assert '| float32 | 1 |' in done.stdout and 'min' in done.stdout
