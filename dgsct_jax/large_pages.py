"""Large pages for what XLA computes on CPUs, where the kernel gives them to whom asks.

XLA takes the memory of a step's intermediate values from the C library in each step anew, and that
takes it from the kernel: in pages of 4 kB, each of them a fault. The quickstart has 70,000 in each
step, a third of its time (findings/jax_cpu_faults_of_every_step.sh). glibc asks for pages of 2 MB
if the environment says so when a process starts.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SETTING = Path('/sys/kernel/mm/transparent_hugepage/enabled')
ASK = 'glibc.malloc.hugetlb'  # of glibc 2.35 and later; others ignore it


def start_again() -> None:
  """Begins the command anew with large pages, in the same process, if they are to be asked for."""
  if tunables := asked(os.environ, SETTING.read_text() if SETTING.exists() else ''):
    environment = os.environ | {'GLIBC_TUNABLES': tunables}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def asked(environment: Mapping[str, str], setting: str) -> str:
  """The GLIBC_TUNABLES that ask for large pages; '' where there is nothing to ask for.

  So it is if the user has set it, to 0 or else, and where the kernel's setting is to give large
  pages always or never.
  """
  given = environment.get('GLIBC_TUNABLES', '')
  if '[madvise]' not in setting or ASK in given:
    return ''
  return ':'.join(filter(None, [given, f'{ASK}=1']))
