"""Damaged folders of runs: each reader gives what the whole folder gives, or one error names it.

A failing input is made again by its seed and number; the message tells what was done to the folder.
"""

import gc
import shutil

import jax
import numpy as np
import pytest

from dgsct_jax import checkpoint, report, train, trained, whole, writer
from tests import toy
from tests.fuzz import damage

pytestmark = pytest.mark.fuzz

INPUTS = 200


def checkpoints(workdir):
  """Step, run, config, metrics and variables of the best one."""
  manager, step = checkpoint.find(workdir, 'accuracy')
  run = checkpoint.read_run(manager, step)
  metrics = checkpoint.metrics(manager, step)
  model = jax.tree.map(np.asarray, checkpoint.read_model(manager, step))
  return step, run, checkpoint.config_of(run).to_json_best_effort(), metrics, model


def scalars(workdir):
  """What is read, before and after a run goes on, which drops the lines of later steps."""
  before, step = writer.read(workdir), 10**9
  again = writer.Writer(workdir, step)
  again.close()
  assert writer.read(workdir) == [line for line in before if line['step'] <= step]
  return before


def pages(workdir):
  """Draws and writes all that a report has."""
  report.curves(workdir)
  assert report.page(workdir).stat().st_size > 1000
  return report.metrics(workdir)


READERS = {
  'checkpoints': checkpoints,
  'config': lambda workdir: trained.read_config(workdir).to_json_best_effort(),
  'scalars': scalars,
  'report': pages,
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a whole run, and what the readers make of it."""
  workdir = tmp_path_factory.mktemp('finished')
  train.train(toy.config(**{'optim.epochs': 2}), workdir, toy.task())
  expected = {name: read(workdir) for name, read in READERS.items()}
  for drawn in ('figures', 'tensorboard'):
    shutil.rmtree(workdir / drawn)
  for written in ('index.html', 'predictions.jsonl', 'goodput.json'):
    (workdir / written).unlink()
  yield workdir, expected
  gc.collect()  # What Orbax has left is told here, where it is expected, and not in another file.


def damaged(rng, workdir, told):
  """Changes a few files or a folder.

  Returns:
    Whether readers may only give what they gave before; whether more than checkpoints changed.
  """
  same, outside = True, False
  for _ in range(rng.integers(1, 3)):
    files = sorted(path for path in workdir.rglob('*') if path.is_file())
    ours = [path for path in files if path.suffix in ('.json', '.jsonl') or 'run' in path.parts]
    top = [path for path in files if path.parent == workdir]
    some = (files, ours, top)[rng.integers(3)] or files
    path = some[rng.integers(len(some))]
    if rng.random() < 0.1:
      path = path.parent if path.parent != workdir else path
      name = (f'{path.name}0', f'0{path.name}', 'x', '-1', '\u0663')[rng.integers(5)]
      told.append(f'{path.relative_to(workdir)} named {name}')
      path.rename(path.with_name(name))
      same = False
      continue
    told.append(str(path.relative_to(workdir)))
    damage.file(rng, path, told)
    # What stands outside of a checkpoint has no manifest.
    in_checkpoint = path.relative_to(workdir).parts[0] == 'checkpoints'
    same &= in_checkpoint and path.name != whole.MANIFEST
    outside |= not in_checkpoint
  if rng.random() < 0.5:
    for manifest in workdir.glob(f'checkpoints/*/{whole.MANIFEST}'):
      if manifest.is_file():
        same = False
        manifest.unlink()
        if rng.random() < 0.5:
          whole.seal(manifest.parent)
    told.append('manifests removed, or written again')
  return same, outside


def plain(found):
  """Readers give what their callers expect."""
  step, run, config, metrics, model = found
  assert isinstance(step, int) and isinstance(run['config'], dict) and config
  assert all(isinstance(value, int | float) for value in metrics.values())
  assert {'params', 'batch_stats'} <= model.keys()


# Where an array does not restore, Orbax closes its loop of events while tensorstore reads the
# others. Whether they tell so on exit is a matter of time. A manifest keeps users from it.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_run_is_read_as_it_was_or_refused_in_one_error(tmp_path, seed, number, finished):
  rng, told = np.random.default_rng([seed, number]), []
  given, expected = finished
  workdir = tmp_path / 'run'
  shutil.copytree(given, workdir)
  same, outside = damaged(rng, workdir, told)
  input_ = f'seed {seed}, number {number}: {"; ".join(told)}'

  cost = damage.Cost()
  for name, read in READERS.items():
    if name == 'report' and not outside:
      continue  # the slowest; it reads no checkpoint
    try:
      found = read(workdir)
      if same:
        np.testing.assert_equal(found, expected[name])
      elif name == 'checkpoints':
        plain(found)
    except (ValueError, OSError) as error:  # which commands tell in one line
      assert str(workdir) in str(error) and len(str(error)) < 5000, f'{input_}: {name}: {error}'
    except Exception as error:
      raise AssertionError(f'{input_}: {name}') from error
  cost.check(input_)
