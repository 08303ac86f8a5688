"""Several processes: they agree at the start, and end together when one is lost."""

import os
import signal
import socket
import time
from concurrent import futures

import pytest

from dgsct_jax import coordinator, hosts
from tests import forks, processes
from tests.test_main import CONFIG, TOY

# The same command, of which one process does something where a step is reported.
AT_STEP = """
import os, signal
from dgsct_jax import writer
from tests import processes
progress = writer.progress

def at_step(step, *args):
  if step == {step} and os.environ['JAX_PROCESS_ID'] == '{process}':
    {what}
  return progress(step, *args)

writer.progress = at_step
"""
KILLED = 'processes.signal_itself(signal.SIGKILL)'


def environment(port, count, process):
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
    'JAX_NUM_PROCESSES': str(count),
    'JAX_PROCESS_ID': str(process),
  }


def command(tmp_path, *flags, count=2, code='', run='run', port=0):
  """Runs the command in so many processes: [(exit status, output, time of its end)]."""
  (tmp_path / 'tiny.py').write_text(CONFIG)
  port = port or processes.free_port()
  arguments = [f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/{run}', '--multihost']
  started = [
    forks.command(code + TOY, *arguments, *flags, env=environment(port, count, process))
    for process in range(count)
  ]

  def finish(process):
    done = process.finish()
    return done.returncode, done.stdout + done.stderr, time.monotonic()

  with futures.ThreadPoolExecutor(count) as pool:
    return list(pool.map(finish, started))


def results(workdir):
  names = 'scalars.jsonl', 'metrics.json', 'predictions.jsonl'
  return [(workdir / name).read_text() for name in names]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """Two processes without a stop."""
  folder = tmp_path_factory.mktemp('unbroken')
  for status, said, _ in command(folder):
    assert status == 0, said
  return results(folder / 'run')


@pytest.mark.parametrize(
  'count, lost',
  [(2, 1), pytest.param(2, 0, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)],
)
def test_when_one_is_killed_the_others_say_so_and_end_and_the_command_goes_on(
  unbroken, tmp_path, count, lost
):
  port = processes.free_port()
  code = AT_STEP.format(step=5, process=lost, what=KILLED)
  ends = command(tmp_path, count=count, code=code, port=port)
  status, _, killed = ends.pop(lost)
  assert status == -signal.SIGKILL
  for status, said, end in ends:
    assert status == 1 and end - killed < 30
    errors = [line for line in said.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and f'process {lost} of {count} (' in errors[0], said
    assert 'was lost' in errors[0] and 'Start the same command on all' in errors[0]
    assert 'Traceback' not in said and 'stack trace' not in said, said
  for status, said, _ in command(tmp_path, count=count, port=port):
    assert status == 0, said
  if count == 2:
    assert results(tmp_path / 'run') == unbroken


@pytest.mark.slow
def test_sigterm_to_one_saves_all_with_the_status_that_is_asked_for(unbroken, tmp_path):
  stop = AT_STEP.format(step=3, process=0, what='processes.signal_itself(signal.SIGTERM)')
  for status, said, _ in command(tmp_path, '--stopped_status=75', code=stop):
    assert status == 75 and 'Traceback' not in said, said
  for status, said, _ in command(tmp_path):
    assert status == 0, said
  assert results(tmp_path / 'run') == unbroken


def test_an_error_of_one_ends_all_with_its_words(tmp_path):
  what = 'raise ValueError("no room for clip 7")'
  ends = command(tmp_path, code=AT_STEP.format(step=2, process=1, what=what))
  assert [status for status, *_ in ends] == [1, 1]
  assert 'error: no room for clip 7' in ends[1][1]
  assert 'process 1 of 2' in ends[0][1] and 'has ended: no room for clip 7' in ends[0][1]


@pytest.mark.slow  # what follows asks the same without processes
def test_other_settings_are_told_by_all_before_any_work(tmp_path):
  code = """
import os, sys
if os.environ['JAX_PROCESS_ID'] == '1':
  sys.argv.append('--config.optim.lr=0.5')
"""
  for status, said, _ in command(tmp_path, code=code):
    assert status == 1 and 'Traceback' not in said
    assert 'error: The processes of this run are not of one mind' in said
    assert 'config.optim.lr: 0.01 in process 0, 0.5 in process 1' in said
  assert not (tmp_path / 'run').exists()


def meet(monkeypatch, *told, start=5.0):
  """What the processes say that come with (process, number, facts); the first is process 0."""
  monkeypatch.setattr(hosts, 'START', start)
  monkeypatch.setattr(hosts, 'GRACE', 1.0)
  address = f'localhost:{processes.free_port()}'

  def come(process, count, facts):
    facts = {'JAX_NUM_PROCESSES': count} | facts
    try:
      if process == 0:
        return hosts._receive(address, count, facts)
      return hosts._call(address, process, facts)
    except ValueError as error:
      return str(error)

  with futures.ThreadPoolExecutor(len(told)) as pool:
    return list(pool.map(come, *zip(*told)))


def test_processes_of_one_mind_meet(monkeypatch):
  links = meet(monkeypatch, (0, 3, {'a': (1, 2)}), (2, 3, {'a': (1, 2)}), (1, 3, {'a': (1, 2)}))
  assert sorted(link.process for link in links[0]) == [1, 2]
  assert [link.process for link in links[1] + links[2]] == [0, 0]
  for link in sum(links, []):
    link.close()


@pytest.mark.parametrize(
  'told, words',
  [
    ([(0, 3, {}), (1, 2, {})], 'JAX_NUM_PROCESSES: 3 in process 0, 2 in process 1'),
    ([(0, 2, {}), (1, 3, {})], 'JAX_NUM_PROCESSES: 2 in process 0, 3 in process 1'),
    ([(0, 2, {}), (2, 3, {})], 'JAX_NUM_PROCESSES: 2 in process 0, 3 in process 2'),
    ([(0, 3, {}), (1, 3, {}), (1, 3, {})], 'JAX_PROCESS_ID: 1 in two processes'),
    (
      [(0, 2, {'version of jax': '0.10.2'}), (1, 2, {'version of jax': '0.12.0'})],
      "version of jax: '0.10.2' in process 0, '0.12.0' in process 1",
    ),
    ([(0, 2, {'config.a': 1}), (1, 2, {})], "config.a: 1 in process 0, 'nothing' in process 1"),
  ],
)
def test_what_differs_is_told_with_both_values(monkeypatch, told, words):
  for said in meet(monkeypatch, *told):
    assert words in said


def test_who_does_not_come_is_told(monkeypatch):
  for said in meet(monkeypatch, (0, 3, {}), (1, 3, {}), start=2.0):
    assert 'Of the 3 processes (JAX_NUM_PROCESSES=3) 2 came within 2 s; process 2 did not' in said
  (alone,) = meet(monkeypatch, (1, 2, {}), start=1.0)
  assert 'process 1 has waited 1 s for process 0 at JAX_COORDINATOR_ADDRESS=localhost:' in alone


def test_a_port_in_use_is_told_by_process_0_and_by_those_who_call_there(monkeypatch):
  monkeypatch.setattr(hosts, 'START', 1.0)
  monkeypatch.setattr(hosts, 'GRACE', 0.5)
  with socket.create_server(('localhost', 0)) as taken:
    address = f'localhost:{taken.getsockname()[1]}'
    monkeypatch.setattr(coordinator, 'LINGER', -1.0)
    with pytest.raises(ValueError, match=f'cannot listen on the port .*{address} .*in use'):
      hosts._receive(address, 2, {})
    with pytest.raises(ValueError, match='something else answers.*the port is free'):
      hosts._call(address, 1, {})


def test_who_is_no_process_of_ours_is_not_heard(monkeypatch):
  monkeypatch.setattr(hosts, 'GRACE', 0.5)
  port = processes.free_port()
  with futures.ThreadPoolExecutor(2) as pool:
    waits = pool.submit(hosts._receive, f'localhost:{port}', 2, {})
    for words in (b'GET / HTTP/1.1\r\n', b'[1]\n', b'{"process": "x"}\n', b'\xff\n', b''):
      for _ in range(50):
        try:
          with socket.create_connection(('localhost', port)) as other:
            other.sendall(words)
          break
        except ConnectionRefusedError:
          time.sleep(0.1)
    links = hosts._call(f'localhost:{port}', 1, {}) + waits.result()
    assert [link.process for link in links] == [0, 1]
    for link in links:
      link.close()


@pytest.fixture
def three():
  """Process 0 and two others, all in this one."""
  with socket.create_server(('localhost', 0)) as server:
    ends = [socket.create_connection(server.getsockname()) for _ in range(2)]
    pairs = [(server.accept()[0], end) for end in ends]
  first = hosts.Hosts(
    0, 3, [hosts.Link(pair[0], i + 1, f'box{i + 1}') for i, pair in enumerate(pairs)]
  )
  others = [hosts.Hosts(i + 1, 3, [hosts.Link(pair[1], 0, 'box0')]) for i, pair in enumerate(pairs)]
  yield first, *others
  for each in (first, *others):
    each.leave()
  for each in (first, *others):
    for thread in each.watches:
      thread.join(5)
    for link in each.links:
      link.close()


def test_a_host_that_keeps_the_others_waiting_is_named(three):
  first, second, third = three
  assert second.slow(0.1, 1.0) == third.slow(0.1, 1.0) == ''
  assert heard(first, {1: 0.1, 2: 0.1}) and first.slow(0.1, 1.0) == ''
  third.slow(0.6, 1.0)
  assert heard(first, {1: 0.1, 2: 0.6})
  assert first.slow(0.1, 1.0) == (
    'slow: of a step of 1.00 s process 2 (box2) waits 0.60 s for its clips, others 0.10 s'
  )
  assert first.slow(0.1, 60.0) == ''  # of so long a step it is nothing


def heard(first, values):
  for _ in range(100):
    if {i: first.input.get(i) for i in values} == values:
      return True
    time.sleep(0.05)
  return False


@pytest.mark.parametrize(
  'environment', [{}, {'JAX_NUM_PROCESSES': 'x'}, {'JAX_COORDINATOR_ADDRESS': 'localhost:1'}]
)
def test_several_hosts_without_their_environment_are_an_error(monkeypatch, environment):
  for name in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', 'JAX_COORDINATOR_ADDRESS'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match='--multihost: .*set JAX_COORDINATOR_ADDRESS'):
    hosts._place()


@pytest.mark.parametrize(
  'environment, words',
  [
    ({'JAX_PROCESS_ID': '2'}, 'JAX_PROCESS_ID=2 of JAX_NUM_PROCESSES=2; count from 0'),
    ({'JAX_COORDINATOR_ADDRESS': 'here'}, "JAX_COORDINATOR_ADDRESS='here'; write HOST:PORT"),
  ],
)
def test_an_environment_that_cannot_be_is_an_error(monkeypatch, environment, words):
  given = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}
  for name, value in (given | environment).items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=words):
    hosts._place()


def test_the_environment_of_slurm_is_understood(monkeypatch):
  slurm = {
    'SLURM_JOB_ID': '8192',
    'SLURM_STEP_NODELIST': 'gpu[03-04]',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': '1',
    'SLURM_LOCALID': '0',
  }
  for name, value in slurm.items():
    monkeypatch.setenv(name, value)
  address, count, process, devices = hosts._place()
  assert address.startswith('gpu03:') and (count, process, devices) == (2, 1, [0])
  monkeypatch.setenv('JAX_LOCAL_DEVICE_IDS', '0,1,2,3')
  assert hosts._place()[3] == [0, 1, 2, 3]
