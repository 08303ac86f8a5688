"""What starts a run elsewhere: each file by what can check it here."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from dgsct_jax import main

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
TOOLS = Path(sys.executable).parent  # where pip puts commands
# Writes what a process of the run would see; stands for Slurm's srun and for python.
SRUN = """#!/usr/bin/env bash
for task in 0 1; do
  [[ $1 == --kill-on-bad-exit=1 ]] || exit 9
  SLURM_PROCID=$task SLURM_LOCALID=$((task % SLURM_NTASKS_PER_NODE)) "${@:2}" || exit
done
"""
PYTHON = """#!/usr/bin/env bash
echo "$SLURM_PROCID $SLURM_LOCALID ${JAX_LOCAL_DEVICE_IDS:-own} $*"
"""


def tool(name, *arguments):
  path = TOOLS / name
  if not path.exists():
    pytest.skip(f'{name} is not installed: pip install -e ".[test]"')
  done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr


def documents(name):
  return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def valid(document):
  kubernetes = pytest.importorskip('kubernetes_validate')
  kubernetes.validate(document, '1.37', strict=True)


@pytest.mark.parametrize('script', sorted(path.name for path in LAUNCH.glob('*.sh')))
def test_shellcheck_finds_nothing(script):
  tool('shellcheck', LAUNCH / script)
  assert os.stat(LAUNCH / script).st_mode & stat.S_IXUSR


def test_the_image_is_linted_and_takes_its_packages_from_the_project():
  tool('hadolint', LAUNCH / 'Dockerfile')
  text = (LAUNCH / 'Dockerfile').read_text()
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  assert re.findall(r'pip install .*', text) == ['pip install --no-cache-dir -e ".[${EXTRA}]"']
  (named,) = re.findall(r'EXTRA is a name of pyproject.toml: (.*?)\.', text)
  assert set(named.split(', ')) < set(extras)
  for copied in re.findall(r'(?m)^COPY (.*) \S+$', text):
    assert all((ROOT / name).exists() for name in copied.split())


def test_the_job_of_gpus_is_valid_and_its_processes_find_each_other():
  service, job = documents('k8s.yaml')
  valid(service)
  valid(job)
  spec, pod = job['spec'], job['spec']['template']['spec']
  name = job['metadata']['name']
  assert service['spec']['selector'] == {'job-name': name}
  assert pod['subdomain'] == service['metadata']['name']
  (container,) = pod['containers']
  environment = {each['name']: each.get('value') for each in container['env']}
  assert environment['JAX_COORDINATOR_ADDRESS'] == f'{name}-0.{pod["subdomain"]}:8476'
  assert int(environment['JAX_NUM_PROCESSES']) == spec['completions'] == spec['parallelism']
  of_a_run(container)


def test_the_jobset_of_a_tpu_slice_is_valid():
  (jobset,) = documents('gke.yaml')
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and jobset['kind'] == 'JobSet'
  # The fields of the JobSet that are used, as its documentation names them; a Job is within.
  assert jobset.keys() == {'apiVersion', 'kind', 'metadata', 'spec'}
  assert jobset['spec'].keys() == {'failurePolicy', 'replicatedJobs'}
  assert jobset['spec']['failurePolicy'].keys() == {'maxRestarts'}
  (replicated,) = jobset['spec']['replicatedJobs']
  assert replicated.keys() == {'name', 'replicas', 'template'}
  job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'slice'}}
  valid(job | replicated['template'])
  spec, pod = replicated['template']['spec'], replicated['template']['spec']['template']['spec']
  (container,) = pod['containers']
  across, down = map(int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
  chips = container['resources']['limits']['google.com/tpu']
  assert chips * spec['completions'] == across * down and spec['parallelism'] == spec['completions']
  of_a_run(container)


def of_a_run(container):
  """Its arguments are flags of the command, and a stop is no end to the scheduler."""
  names = [word.removeprefix('--').partition('=')[0] for word in container['args']]
  assert all(name in main.flags.FLAGS for name in names)
  assert '--multihost' in container['args'] and '--stopped_status=75' in container['args']


@pytest.mark.parametrize(
  'tasks, devices', [('1', ['0,1,2,3'] * 2), ('2', ['own'] * 2)], ids=['a node', 'a GPU']
)
def test_slurm_starts_two_tasks_with_their_gpus(tmp_path, tasks, devices):
  for name, text in (('srun', SRUN), ('python', PYTHON)):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  slurm = {'SLURM_GPUS_ON_NODE': '4', 'SLURM_NTASKS_PER_NODE': tasks}
  done = subprocess.run(
    [LAUNCH / 'slurm.sh', 'configs/ave.py', 'runs/a b', '--config.data.dir=/d'],
    env=os.environ | slurm | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  flags = '--multihost --config=configs/ave.py --workdir=runs/a b --config.data.dir=/d'
  assert done.stdout.splitlines() == [
    f'{i} {i % int(tasks)} {devices[i]} -m dgsct_jax.main {flags}' for i in range(2)
  ]


def test_every_file_is_documented():
  text = (LAUNCH / 'README.md').read_text()
  for path in LAUNCH.iterdir():
    assert path.name in text or path.name == 'README.md', path.name
