"""Several processes as one run: they meet, agree on what they do, and notice when one is lost.

jax leaves both to the end of a time limit and then aborts. So the processes meet at the address of
its coordinator before jax listens there, and keep the connections, which end with a process. The
coordinator has a process of its own, or the others would abort with process 0.
"""

import contextlib
import errno
import hashlib
import json
import os
import socket
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TextIO

import jax
from jax._src.clusters import ClusterEnv  # what jax.distributed finds by itself has no other name

from dgsct_jax import coordinator

START = 300.0  # seconds in which all processes must have come
GRACE = 5.0  # seconds in which the others may still come once something is wrong
VERDICT = 10.0  # seconds between a failed collective and the news of who was lost
SOON = 1.0  # the same for errors that hardly are of a collective
AGAIN = 'Start the same command on all of them; it goes on from the latest checkpoint.'
REMEDY = (
  'Start the processes by Slurm, Open MPI or Kubernetes, or set JAX_COORDINATOR_ADDRESS,'
  ' JAX_NUM_PROCESSES and JAX_PROCESS_ID; a single process needs no --multihost.'
)


class Link:
  """A connection to another process, over which go objects of JSON, one a line."""

  def __init__(self, connection: socket.socket, process: int, name: str):
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (('TCP_KEEPIDLE', 10), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 3)):
      if hasattr(socket, option):  # a host that is gone is noticed after 10 + 3 · 5 s
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    self.connection, self.process, self.name = connection, process, name
    self.lines: TextIO = connection.makefile('r', encoding='utf-8')

  def send(self, **values: Any) -> None:
    """Sends values, or nothing to a process that is gone."""
    with contextlib.suppress(OSError):
      self.connection.sendall((json.dumps(values) + '\n').encode())

  def read(self) -> dict[str, Any]:
    """The next values; none when the connection has ended."""
    try:
      values = json.loads(self.lines.readline(1 << 20))
      return values if isinstance(values, dict) else {}
    except (OSError, ValueError):
      return {}

  def close(self) -> None:
    """Ends the connection."""
    self.lines.close()
    self.connection.close()


class Hosts:
  """The connections of this process: process 0 has one to each other, the others one to it."""

  def __init__(self, process: int, count: int, links: list[Link]):
    self.process, self.count, self.links = process, count, links
    self.leaving = False
    self.input = {process: 0.0}  # seconds of a step in which a process waits for its clips
    self.watches = [
      threading.Thread(target=self._watch, args=[link], daemon=True) for link in links
    ]
    for watch in self.watches:
      watch.start()

  def slow(self, waits: float, step: float) -> str:
    """Which process keeps the others waiting, on process 0; '' if none does.

    Args:
      waits: seconds of a step in which this process waits for its clips. step: of a whole one.
    """
    self.input[self.process] = waits
    if self.process:
      self.links[0].send(input=waits)
      return ''
    usual = statistics.median_low(self.input.values())
    names = {link.process: link.name for link in self.links}
    late = [
      f'process {process} ({names.get(process, socket.gethostname())}) waits {seconds:.2f} s'
      for process, seconds in sorted(self.input.items())
      if seconds > 1.5 * usual and seconds - usual > 0.1 * step
    ]
    if not late:
      return ''
    return f'slow: of a step of {step:.2f} s {", ".join(late)} for its clips, others {usual:.2f} s'

  def fail(self, error: str) -> NoReturn:
    """Tells the others and ends this process at once; jax would wait for them first."""
    self.leaving = True
    for link in self.links:
      link.send(error=error)
    _end(error)

  def leave(self) -> None:
    """Tells the others that the end of this process is none to worry about."""
    self.leaving = True
    for link in self.links:
      link.send(done=True)

  def _watch(self, link: Link) -> None:
    while values := link.read():
      if values.get('done'):
        return
      if 'error' in values:
        break
      self.input[link.process] = float(values.get('input', 0))
    if self.leaving:
      return
    who = f'process {link.process} of {self.count} ({link.name})'
    said = values.get('error') or f'{who} was lost: it no longer answers, so this one ends, too. '
    if 'error' in values and not values.get('told'):
      said = f'{who} has ended: {values["error"]}\n'
    said = said if AGAIN in said else said + AGAIN
    for other in self.links:
      if other is not link:
        other.send(error=said, told=True)
    _end(said)


_hosts: Hosts | None = None  # of this process, while it is one of several


def slow(waits: float, step: float) -> str:
  """As `Hosts.slow`; '' of a single process."""
  return _hosts.slow(waits, step) if _hosts else ''


@contextlib.contextmanager
def joined(facts: dict[str, Any], debug: bool = False) -> Iterator[None]:
  """A context in which this is one process of several; must come before any use of a device.

  An error in it ends all of them, and so does the loss of one.

  Args:
    facts: what must be the same in all of them, by name.
    debug: whether to show where an error was raised.

  Raises:
    ValueError: it is not known how many they are and where, they cannot be reached in time, or
      they are not of one mind.
  """
  global _hosts
  address, count, process, devices = _place()
  facts = {'JAX_NUM_PROCESSES': count} | versions() | facts
  links = _receive(address, count, facts) if process == 0 else _call(address, process, facts)
  hosts = _hosts = Hosts(process, count, links)
  try:
    with coordinator.apart():
      jax.distributed.initialize(address, count, process, devices)
    yield
    hosts.leave()
  except BaseException as error:
    # If another is lost, its watch ends this process meanwhile; gloo says so by a ValueError.
    time.sleep(VERDICT if isinstance(error, RuntimeError) else SOON)
    if debug or not isinstance(error, ValueError | OSError | FloatingPointError):
      traceback.print_exc()
    hosts.fail(str(error) or type(error).__name__)
  finally:
    _hosts = None


def versions() -> dict[str, str]:
  """The versions that must be the same: of Python packages, and of this one the very source."""
  source = hashlib.sha256()
  for file in sorted(Path(__file__).parent.rglob('*.py')):
    source.update(file.read_bytes())
  ours = {'source of dgsct_jax': source.hexdigest()[:12]}
  return ours | {f'version of {name}': metadata.version(name) for name in ('jax', 'jaxlib')}


def _place() -> tuple[str, int, int, Any]:
  """(address of the coordinator, number of processes, which this is, its devices if limited)."""
  try:
    count, process = (
      int(os.environ[name]) if name in os.environ else None
      for name in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    )
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    limited = os.environ.get('JAX_LOCAL_DEVICE_IDS')
    place = ClusterEnv.auto_detect_unset_distributed_params(
      address,
      count,
      process,
      [int(device) for device in limited.split(',')] if limited else None,
      None,
      int(START),
    )
  except (ValueError, RuntimeError) as error:
    raise ValueError(f'--multihost: {error} {REMEDY}') from error
  address, count, process, devices = place
  if address is None or count is None or process is None:
    names = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
    missing = ', '.join(name for name, value in zip(names, place) if value is None)
    raise ValueError(f'--multihost: {missing} cannot be told. {REMEDY}')
  if not 0 <= process < count:
    raise ValueError(
      f'--multihost: JAX_PROCESS_ID={process} of JAX_NUM_PROCESSES={count}; count from 0.'
    )
  if not address.rpartition(':')[2].isdecimal():
    raise ValueError(f'--multihost: JAX_COORDINATOR_ADDRESS={address!r}; write HOST:PORT.')
  return address, count, process, devices


def _receive(address: str, count: int, facts: dict[str, Any]) -> list[Link]:
  """Process 0 waits for the others and compares their facts with its own."""
  port, faults, deadline = int(address.rpartition(':')[2]), [], time.monotonic() + START
  links: list[Link] = []
  try:
    server = _listen(port)
  except OSError as error:
    raise ValueError(
      f'--multihost: process 0 cannot listen on the port of JAX_COORDINATOR_ADDRESS={address}'
      f' ({error.strerror}); another process may use it: end that one, or give another port to all.'
    ) from error
  with server:
    while len(links) < count - 1 and (left := deadline - time.monotonic()) > 0:
      server.settimeout(left)
      try:
        connection, _ = server.accept()
      except TimeoutError:
        break
      connection.settimeout(GRACE)
      with contextlib.suppress(OSError):
        connection.sendall(b'{"dgsct_jax": 0}\n')
      try:
        hello = json.loads(_line(connection))
        link = Link(connection, int(hello['process']), str(hello['name']))
        wrong = _differences(facts, dict(hello['facts']), link.process)
      except (ValueError, TypeError, KeyError):
        connection.close()  # no process of ours
        continue
      if twin := next((other for other in links if other.process == link.process), None):
        names = f'{twin.name} and {link.name}'
        wrong.append(f'  JAX_PROCESS_ID: {link.process} in two processes, {names}')
      links.append(link)
      if wrong:
        faults += wrong
        deadline = min(deadline, time.monotonic() + GRACE)
  missing = sorted(set(range(1, count)) - {link.process for link in links})
  said = ''
  if faults:
    said = 'The processes of this run are not of one mind:\n' + '\n'.join(faults)
  elif missing:
    said = (
      f'Of the {count} processes (JAX_NUM_PROCESSES={count}) {len(links) + 1} came within'
      f' {START:.0f} s; process {", ".join(map(str, missing))} did not: start it, or correct the'
      ' number.'
    )
  for link in links:
    link.send(**({'error': said} if said else {'welcome': True}))
  if said:
    for link in links:
      link.close()
    raise ValueError(said)
  return links


def _listen(port: int) -> socket.socket:
  """Listens on a port; the coordinator of a run that was killed may still hold it for a while."""
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  deadline = time.monotonic() + coordinator.LINGER + 1
  while True:
    try:
      return socket.create_server(('', port), family=family, dualstack_ipv6=both)
    except OSError as error:
      if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
        raise
      time.sleep(0.2)


def _call(address: str, process: int, facts: dict[str, Any]) -> list[Link]:
  """Another process calls process 0 until it answers."""
  host, _, port = address.rpartition(':')
  deadline, why = time.monotonic() + START, 'nothing answers'
  while time.monotonic() < deadline:
    try:
      connection = socket.create_connection((host.strip('[]'), int(port)), GRACE)
      if _line(connection) == '{"dgsct_jax": 0}':
        link = Link(connection, 0, host)
        link.send(process=process, name=_name(), facts=facts)
        answer = link.read()
        if 'welcome' in answer:
          return [link]
        link.close()
        if 'error' in answer:
          raise ValueError(answer['error'])
      connection.close()
      why = 'something else answers'
    except OSError as error:
      why = str(error)
    time.sleep(0.2)
  raise ValueError(
    f'--multihost: process {process} has waited {START:.0f} s for process 0 at'
    f' JAX_COORDINATOR_ADDRESS={address} ({why}); see whether process 0 runs there, what it says,'
    ' and that the port is free and open.'
  )


def _differences(ours: dict[str, Any], theirs: dict[str, Any], process: int) -> list[str]:
  """What is not the same, a line each."""
  ours = json.loads(json.dumps(ours))
  absent = 'nothing'
  return [
    f'  {name}: {ours.get(name, absent)!r} in process 0, {theirs.get(name, absent)!r} in process'
    f' {process}'
    for name in ours | theirs
    if ours.get(name, absent) != theirs.get(name, absent)
  ]


def _line(connection: socket.socket) -> str:
  """A line without buffering what follows it; '' if none comes."""
  read = bytearray()
  with contextlib.suppress(OSError):
    while (byte := connection.recv(1)) not in (b'', b'\n') and len(read) < 1 << 20:
      read += byte
  return read.decode(errors='replace')


def _name() -> str:
  return f'{socket.gethostname()}, pid {os.getpid()}'


def _end(error: str) -> NoReturn:
  """Ends this process, from whichever thread, while others of its threads may wait for ever."""
  sys.stdout.flush()
  os.write(2, f'error: {error}\n'.encode())
  os._exit(1)
