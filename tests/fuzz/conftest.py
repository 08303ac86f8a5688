"""Fuzz tests are run by: pytest -m fuzz --seed N."""

import pytest


@pytest.fixture
def seed(request):
  """Of all inputs of this run."""
  return request.config.getoption('seed')
