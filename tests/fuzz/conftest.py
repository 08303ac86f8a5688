"""Fuzz tests are run by: pytest -m fuzz --seed N [--inputs N].

A file has INPUTS of them by default; each is made from the seed and its number.
"""

import pytest


@pytest.fixture
def seed(request):
  """Of all inputs of this run."""
  return request.config.getoption('seed')


def pytest_generate_tests(metafunc):
  if 'number' in metafunc.fixturenames:
    inputs = metafunc.config.getoption('inputs') or metafunc.module.INPUTS
    metafunc.parametrize('number', range(inputs))
