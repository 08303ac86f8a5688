"""Two stand-ins for checkouts, of which one takes longer."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEP_TIME = """
import time
import jax
import jax.numpy as jnp
from absl import flags

flags.DEFINE_string('config', '', '')
flags.DEFINE_integer('clips', 1, '')
flags.DEFINE_string('phase', 'both', '')

def seconds_of(run):
  since = time.perf_counter()
  run()
  return time.perf_counter() - since

def main(argv):
  print('words of the build')
  x = jnp.ones(flags.FLAGS.clips * 1000)
  compiled = jax.jit(lambda x: x + 1).lower(x).compile()
  report('step', lambda: time.sleep({seconds}), None, compiled, {seconds}, flags.FLAGS.config)
"""


def build(root: Path, seconds: float) -> Path:
  (root / 'benchmarks').mkdir(parents=True)
  (root / 'benchmarks/__init__.py').touch()
  (root / 'benchmarks/step_time.py').write_text(STEP_TIME.replace('{seconds}', str(seconds)))
  return root


def compare(
  *arguments: str | Path, env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, '-m', 'benchmarks.compare_builds', *map(str, arguments)],
    cwd=ROOT,
    env={**env, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )


def test_a_phase_is_compiled_read_back_and_run_alternately(tmp_path):
  old, new = build(tmp_path / 'old', 0.4), build(tmp_path / 'new', 0.1)
  done = compare(old, new, '--phases=step', '--repeats=2', '--clips=3')
  assert done.returncode == 0, done.stderr
  head, _, *lines = done.stdout.splitlines()
  assert head == '| phase | what | old | new | new : old |'
  cells = {line.split(' | ')[1]: line.strip('| ').split(' | ')[2:] for line in lines}
  assert cells['trace and compile'] == ['0.40 s', '0.10 s', '0.25']
  assert cells['trace and read back'] == ['0.40 s', '0.10 s', '0.25']
  assert 0.2 < float(cells['run, median of 2'][2]) < 0.4
  assert cells['planned memory'] == ['24.00 kB', '24.00 kB', '1.00']
  assert cells['peak of the process'][0].endswith('MB')


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
  old = build(tmp_path / 'old', 0)
  done = compare(old, tmp_path)
  assert done.returncode and f'{tmp_path} is no checkout' in done.stdout + done.stderr
  assert compare(old).returncode


def test_a_build_that_fails_is_told(tmp_path):
  old, new = build(tmp_path / 'old', 0), build(tmp_path / 'new', 0)
  (new / 'benchmarks/step_time.py').write_text('raise SystemExit("no such config")')
  done = compare(old, new, '--phases=step', '--repeats=1')
  assert done.returncode and 'no such config' in done.stderr and 'ended' in done.stderr


def test_what_a_run_is_asked_for_starts_in_a_new_process_of_each_build(tmp_path):
  for name, seconds in {'old': 0.6, 'new': 0.2}.items():
    package = build(tmp_path / name, 0) / 'dgsct_jax'
    package.mkdir()
    (package / '__init__.py').touch()
    for module in ('main', 'predict'):
      what = (
        f'import sys, time; time.sleep({seconds}); open("asked", "a").write(f"{{sys.argv[2:]}}")'
      )
      (package / f'{module}.py').write_text(what)
  done = compare(tmp_path / 'old', tmp_path / 'new', '--phases=', '--start', '--repeats=1')
  assert done.returncode == 0, done.stderr
  cells = {
    line.split(' | ')[0]: line.strip('| ').split(' | ')[2:] for line in done.stdout.splitlines()
  }
  for what in ('| scoring', '| predict'):
    assert float(cells[what][2]) < 0.8
  asked = (tmp_path / 'new/asked').read_text()
  assert asked.count('--config=configs/quickstart.py') == 3  # it is trained, and scored twice
  assert asked.count('--mode=evaluate') == asked.count('clip.mp4') == 2


def test_a_build_has_large_pages_if_its_commands_ask_for_them(tmp_path):
  tell = "raise SystemExit('has ' + os.environ.get('GLIBC_TUNABLES', 'none'))"
  old, new = build(tmp_path / 'old', 0), build(tmp_path / 'new', 0)
  for root in (old, new):
    (root / 'benchmarks/step_time.py').write_text(f'import os\n{tell}')
  (new / 'dgsct_jax').mkdir()
  (new / 'dgsct_jax/large_pages.py').touch()
  chosen = os.environ | {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
  assert 'has none' in compare(old, new, '--phases=step', env=chosen).stderr
  assert 'has glibc.malloc.hugetlb=1' in compare(new, old, '--phases=step', env=chosen).stderr
