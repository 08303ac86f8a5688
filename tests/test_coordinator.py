"""The coordinator in a process of its own."""

import signal
import socket
import time

import pytest
from jaxlib import _jax

from dgsct_jax.coordinator import LINGER, Coordinator
from tests import processes


@pytest.fixture
def address():
  return f'localhost:{processes.free_port()}'


def client(address):
  return _jax.get_distributed_runtime_client(address, 0, init_timeout=10, shutdown_timeout=5)


def test_it_serves_and_is_gone_when_it_is_told(address):
  service = Coordinator(address, 1, heartbeat_timeout=100)
  one = client(address)
  one.connect()
  one.key_value_set('key', 'value')
  service.process.send_signal(signal.SIGTERM)  # as Slurm does: the run still has to save
  assert one.blocking_key_value_get('key', 5000) == 'value'
  one.shutdown()
  service.shutdown()
  assert service.process.returncode == 0


def test_it_outlives_its_process_for_a_while_and_then_gives_the_port_back(address):
  service = Coordinator(address, 1)
  service.process.stdin.close()  # as when process 0 is killed
  since = time.monotonic()
  assert service.process.wait(LINGER + 10) == 0
  assert time.monotonic() - since > LINGER - 1
  service.process.stdout.close()
  socket.create_server(('', int(address.rpartition(':')[2]))).close()


def test_what_it_says_when_it_cannot_start_is_seen(capfd):
  with pytest.raises(OSError, match='localhost:nowhere has not started'):
    Coordinator('localhost:nowhere', 1)
  assert 'localhost:nowhere' in capfd.readouterr().err
