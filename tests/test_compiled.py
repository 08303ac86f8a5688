"""Compiled programs are kept, and what that saves is said."""

import os
import re

import pytest

from tests import test_main

command = test_main.command


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache/dgsct_jax/compiled'


def test_the_second_start_says_what_the_kept_programs_saved(command, home, tmp_path):
  first = command(f'--workdir={tmp_path}/first')
  assert first.returncode == 0, first.stderr
  assert re.search(r'compiled the step in \d+\.\d s\n', first.stdout) and os.listdir(home)
  second = command(f'--workdir={tmp_path}/second')
  said = rf'compiled the step in \d+\.\d s: read from {home}, which (saved|cost) \d+\.\d s\n'
  assert re.search(said, second.stdout), second.stdout


@pytest.mark.slow
def test_nothing_is_kept_on_request_and_a_folder_that_is_given_counts(
  command, home, tmp_path, monkeypatch
):
  assert command(f'--workdir={tmp_path}/a', '--nokeep_compiled').returncode == 0
  assert not home.exists()
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'given'))
  assert command(f'--workdir={tmp_path}/b').returncode == 0
  assert os.listdir(tmp_path / 'given') and not home.exists()
