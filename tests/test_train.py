"""A run as a whole, on the toy task: what is trained, and that stopping it changes nothing."""

import json
import re
import signal

import jax
import numpy as np
import pytest

from dgsct_jax import checkpoint, optim, profile, sharding, tree, writer
from dgsct_jax import state as states
from dgsct_jax import train as trains
from dgsct_jax.data import pipeline
from dgsct_jax.tasks.task import floats
from tests import processes, toy


def run(workdir, task=None, **changes):
  config = toy.config(**changes)
  return trains.train(config, workdir, task or toy.task(config.model.width))


def saved(workdir, step=None):
  """(step, all arrays by path) of a checkpoint, by default the latest, wherever it was written."""
  ocp, found = checkpoint.ocp, {}
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  step = step or checkpoint.find(workdir)[1]
  for item in ('model', 'optimizer'):
    with ocp.StandardCheckpointer() as reader:
      folder = workdir / 'checkpoints' / str(step) / item
      shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        reader.metadata(folder).item_metadata.tree,
      )
      found[item] = reader.restore(folder, shapes)
  leaves = jax.tree_util.tree_leaves_with_path(found)
  return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def same(a, b):
  assert a[0] == b[0] and a[1].keys() == b[1].keys()
  for path, leaf in a[1].items():
    np.testing.assert_array_equal(leaf, b[1][path], err_msg=path)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """36 batches without a stop."""
  workdir = tmp_path_factory.mktemp('unbroken')
  metrics = run(workdir)
  return workdir, metrics


def prepare(**changes):
  """Task, state and compiled step outside of the loop."""
  config = toy.config(**changes)
  task, mesh = toy.task(config.model.width), sharding.make_mesh(config.mesh)
  batches = pipeline.train(task.data('train'), batch=8, seed=1)
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh))
  tx, schedule = optim.build(config.optim, 6)
  state = states.create(variables, tx, config.seed, mesh)
  batches = (sharding.global_batch(batch, mesh) for batch in batches)
  step, _ = trains.compile_step(task, tx, schedule, state, variables.frozen, next(batches))
  return state, variables.frozen, step, batches


def test_the_run_learns_and_leaves_what_a_user_looks_for(unbroken):
  workdir, metrics = unbroken
  assert metrics['accuracy'] > 80
  found = json.loads((workdir / 'metrics.json').read_text())
  assert found['test'] == metrics and found['chosen'] == 'best accuracy on val'
  lines = writer.read(workdir)
  scores = {line['step']: line['val/accuracy'] for line in lines if 'val/accuracy' in line}
  assert list(scores) == [6, 12, 18, 24, 30, 36]
  assert found['val']['accuracy'] == max(scores.values()) == scores[found['step']]
  losses = [line for line in lines if 'train/loss' in line]
  assert [line['step'] for line in losses] == list(range(1, 37))
  assert {'train/class', 'train/lr', 'train/grad_norm'} < losses[0].keys()
  rates = [losses[i]['train/lr'] for i in (0, 11, 12, 24)]
  np.testing.assert_allclose(rates, [0.01, 0.01, 0.005, 0.0025])
  lines = (workdir / 'predictions.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row['index'] for row in rows] == list(range(13)) and len(rows[0]['logits']) == 3
  right = [row['predicted'] == toy.NAMES[i % 3] for i, row in enumerate(rows)]
  assert 100 * np.mean(right) == pytest.approx(metrics['accuracy'])
  drawn = sorted(path.name for path in (workdir / 'figures').glob('clip_*.png'))
  assert drawn == [f'clip_{i}.png' for i in range(8)]
  assert (workdir / 'figures/curves.png').stat().st_size > 1000
  assert (workdir / 'index.html').is_file()


def test_the_start_is_told_in_full(tmp_path, capsys):
  run(tmp_path, **{'optim.epochs': 1})
  out = capsys.readouterr().out
  rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
  assert rows['encoder/visual'] == ['0', '176', '176']
  assert rows['encoder/exchange_*'] == ['512', '0', '512']
  assert rows['total'] == ['675', '352', '1,027']
  assert '42 clips, 6 batches of 8 in an epoch' in out
  assert 'compiled the step in ' in out and 'peak memory of the first step: ' in out
  assert re.search(r'step 6/6  loss .* clips/s  input \d+ ms a step  0:00:00 left', out)


def test_frozen_parameters_stay_and_statistics_move():
  state, frozen, step, batches = prepare()
  before = jax.device_get((frozen, state.params, state.batch_stats))
  for _ in range(3):
    state, _ = step(state, frozen, next(batches))
  after = jax.device_get((frozen, state.params, state.batch_stats))
  jax.tree.map(np.testing.assert_array_equal, before[0], after[0])
  for part in (1, 2):
    old, new = tree.flatten(before[part]), tree.flatten(after[part])
    assert all((old[path] != new[path]).any() for path in old), part
  assert not tree.flatten(before[0]).keys() & tree.flatten(before[1]).keys()
  assert 'encoder/audio/bn0/mean' in tree.flatten(after[2])


def test_gradients_flow_through_the_frozen_backbones_but_not_to_them():
  state, frozen, _, batches = prepare()
  tx, schedule = optim.build(toy.config().optim, 6)
  step = lambda state, batch: (
    trains.train_step(state, frozen, batch, task=toy.task(), tx=tx, schedule=schedule)[0].opt_state
  )
  outputs = jax.make_jaxpr(step)(state, next(batches)).out_avals
  held = sum(int(np.prod(aval.shape)) for aval in outputs if aval.shape)
  assert held == 2 * tree.count(state.params)  # the two moments of Adam, of the trainable half


def test_a_task_may_change_gradients_before_the_optimiser_gets_them():
  def modulate(gradients, outputs, batch, key):
    assert len(outputs['logits']) == len(batch['valid']) and key.shape == ()
    return gradients | {'head': jax.tree.map(jax.numpy.zeros_like, gradients['head'])}

  state, frozen, _, batches = prepare()
  tx, schedule = optim.build(toy.config().optim, 6)
  step = jax.jit(
    lambda state, batch: (
      trains.train_step(
        state, frozen, batch, task=toy.task(modulate=modulate), tx=tx, schedule=schedule
      )[0].params
    )
  )
  after = tree.flatten(step(state, next(batches)))
  moved = {path for path, leaf in tree.flatten(state.params).items() if (after[path] != leaf).any()}
  assert moved == {path for path in after if not path.startswith('head/')} != set(after)


def test_half_precision_frozen_kernels_train_too(tmp_path):
  metrics = run(tmp_path, frozen_dtype='bfloat16', **{'optim.epochs': 2})
  assert np.isfinite(metrics['margin'])


def test_released_accumulation_moves_statistics_with_every_batch():
  state, frozen, step, batches = prepare(**{'optim.accumulate': 'released'})
  for i in range(4):
    before = jax.device_get((state.params, state.batch_stats))
    state, _ = step(state, frozen, next(batches))
    after = jax.device_get((state.params, state.batch_stats))
    moved = [
      any(jax.tree.leaves(jax.tree.map(lambda x, y: (x != y).any(), *pair)))
      for pair in zip(before, after)
    ]
    assert moved == [i % 2 == 1, True]


@pytest.mark.parametrize('stop', [1, 6, 35])
def test_a_run_stopped_by_sigterm_and_resumed_equals_an_unbroken_one(
  unbroken, tmp_path, monkeypatch, stop
):
  progress = writer.progress

  def at_step(step, *args):
    if step == stop:
      signal.raise_signal(signal.SIGTERM)
    return progress(step, *args)

  monkeypatch.setattr(writer, 'progress', at_step)
  handler = signal.getsignal(signal.SIGTERM)
  assert run(tmp_path) is None
  assert signal.getsignal(signal.SIGTERM) == handler
  assert saved(tmp_path)[0] in (stop, stop + 1)  # scalars are a step behind
  monkeypatch.undo()
  assert run(tmp_path) == unbroken[1]
  same(saved(tmp_path), saved(unbroken[0]))
  assert (tmp_path / 'scalars.jsonl').read_text() == (unbroken[0] / 'scalars.jsonl').read_text()


def test_a_run_killed_between_two_saves_equals_an_unbroken_one(unbroken, tmp_path):
  (killed,) = processes.train('tests.toy:build', tmp_path, kill=15)
  assert killed.returncode == -signal.SIGKILL
  step, _ = saved(tmp_path)
  assert step in (8, 12)  # that of step 12 may still have been on its way
  (done,) = processes.train('tests.toy:build', tmp_path)
  assert done.returncode == 0 and f'going on after step {step}' in done.stdout, done.stderr
  same(saved(tmp_path), saved(unbroken[0]))
  assert (tmp_path / 'scalars.jsonl').read_text() == (unbroken[0] / 'scalars.jsonl').read_text()


WIDE = {'model.width': 128, 'save_steps': 8}  # checkpoints of a megabyte


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
  """Two epochs without a stop, of a model whose checkpoints can fill a disk."""
  workdir = tmp_path_factory.mktemp('wide')
  run(workdir, **WIDE, **{'optim.epochs': 2})
  return saved(workdir)


def test_a_run_killed_while_saving_goes_on_from_the_save_before(wide, tmp_path):
  run(tmp_path, **WIDE, **{'optim.epochs': 1})
  (killed,) = processes.train(
    'tests.toy:build', tmp_path, file_bytes=100_000, dies=True, **WIDE, **{'optim.epochs': 2}
  )
  assert killed.returncode == -signal.SIGXFSZ  # of a write in the middle of the save
  names = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert '6' in names and any(name.startswith('8.') for name in names) and '8' not in names
  assert saved(tmp_path)[0] == 6
  run(tmp_path, **WIDE, **{'optim.epochs': 2})
  same(saved(tmp_path), wide)


def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_room(wide, tmp_path):
  run(tmp_path, **WIDE, **{'optim.epochs': 1})
  (full,) = processes.train(
    'tests.toy:build', tmp_path, file_bytes=100_000, **WIDE, **{'optim.epochs': 2}
  )
  assert full.returncode == 1
  error = full.stderr[full.stderr.rindex('ValueError: A checkpoint could not be written to') :]
  assert 'File too large' in error  # what the system said
  assert 'never retrieved' not in error  # of the writes that failed along with it
  assert 'steps 6; make room and run the same command' in error
  run(tmp_path, **WIDE, **{'optim.epochs': 2})
  same(saved(tmp_path), wide)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
  clips = toy.task().data('train')
  batches = pipeline.train(clips, batch=8, seed=43)
  order = [next(batches)['index'].tolist() for _ in range(6)]
  for late in (1, 4, 5):  # in the third batch, the one that is saved, or in one after
    workdir, poison = tmp_path / str(late), order[late][0]
    message = rf"Step {late + 1} is not finite: .*'loss': nan.*clip_norm"
    with pytest.raises(FloatingPointError, match=message):
      run(workdir, toy.task(poison=poison), save_steps=2)
    kept = [int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()]
    assert all(step <= late for step in kept)
    for step in kept:
      assert all(np.isfinite(leaf).all() for leaf in saved(workdir, step)[1].values())


def test_a_run_ends_early_when_it_gets_no_better_and_stays_ended(tmp_path, capsys):
  worse = iter([0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
  task = toy.task(summarize=lambda means: {'accuracy': next(worse, 0.45)})
  run(tmp_path, task, **{'optim.patience': 2, 'optim.epochs': 9})
  assert saved(tmp_path)[0] == 24  # the second epoch was as good as the first, two were not
  assert '2 epochs were not as good as the best: stopping' in capsys.readouterr().out
  run(tmp_path, toy.task(), **{'optim.patience': 2, 'optim.epochs': 9})
  assert saved(tmp_path)[0] == 24


def test_the_best_checkpoint_and_not_the_last_is_scored(tmp_path):
  scores = iter([0.1, 0.9, 0.3])
  task = toy.task(summarize=lambda means: {'accuracy': next(scores, -1.0)})
  assert run(tmp_path, task, keep=1, **{'optim.epochs': 3})['accuracy'] == -1.0  # the fourth
  assert json.loads((tmp_path / 'metrics.json').read_text())['step'] == 12


def test_selection_on_test_is_asked_for_by_name(tmp_path):
  run(tmp_path, select_on='test', **{'optim.epochs': 1})
  assert any('test/accuracy' in line for line in writer.read(tmp_path))
  assert json.loads((tmp_path / 'metrics.json').read_text())['chosen'] == 'best accuracy on test'


def test_the_profile_of_chosen_steps_is_written_and_read(tmp_path, capsys):
  run(tmp_path, profile=(2, 3), **{'optim.epochs': 1})
  capsys.readouterr()
  picture = tmp_path / 'profile.png'
  assert profile.main([str(tmp_path), f'--figure={picture}']) == 0
  told = capsys.readouterr().out
  assert told.startswith('2 steps, ') and ' waiting for clips' in told
  shares = [line.split()[-2] for line in told.split('\n\n')[1].splitlines()[1:]]
  assert sum(float(share.rstrip('%')) for share in shares) == pytest.approx(100, abs=0.3)
  assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'select_on': 'dev'}, "config.select_on='dev'; give one of 'val', 'test'"),
    ({'log_steps': 0}, 'config.log_steps=0; give a whole number from 1'),
    ({'eval_epochs': 0}, 'config.eval_epochs=0'),
    ({'profile': (0, 3)}, r'config.profile=\(0, 3\); give \(\), or \(least, most\)'),
    ({'mesh': (3, 5)}, r'config.mesh=\(3, 5\)'),
    ({'data.batch': 0}, 'config.data.batch=0; give a whole number from 1'),
    ({'eval_batch': -1}, 'config.eval_batch=-1; give a whole number from 0'),
    ({'trainable': ('temporal/.*',)}, "'temporal/.*' matches no parameter"),
    ({'optim.lr_by_path': (('encoder/visual/.*', 0.1),)}, "'encoder/visual/.*' matches no param"),
  ],
)
def test_wrong_values_stop_at_the_start(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    run(tmp_path, **changes)
  assert not (tmp_path / 'scalars.jsonl').exists()


def test_clips_that_are_not_as_the_task_says_stop_at_the_first_batch(tmp_path):
  spec = toy.INPUTS.spec | {'wave': floats(3, 8), 'more': floats(2)}
  task = toy.task(inputs=toy.INPUTS._replace(spec=spec))
  with pytest.raises(ValueError) as error:
    run(tmp_path, task)
  wrong = r"more: nothing in the data, ((2,), 'float32') in the task; wave: ((2, 8), 'float32') in"
  assert wrong in str(error.value) and '((3, 8), ' in str(error.value)


def test_resuming_with_another_model_is_refused(unbroken, tmp_path):
  run(tmp_path, **{'optim.epochs': 1})
  with pytest.raises(ValueError, match='(?s)config.model.width: 16 in the checkpoint, 32 now.*'):
    run(tmp_path, **{'model.width': 32})


@pytest.fixture(scope='module')
def still(tmp_path_factory):
  """36 batches in one process, without dropout."""
  workdir = tmp_path_factory.mktemp('still')
  run(workdir, toy.task(dropout=0.0))
  return workdir, saved(workdir)


def close(found, expected):
  assert found[0] == expected[0] and found[1].keys() == expected[1].keys()
  for path, leaf in found[1].items():
    np.testing.assert_allclose(leaf, expected[1][path], rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_a_run_goes_on_on_other_devices(tmp_path):
  """Saved by eight, which split it two ways, gone on with by two, by one, and by eight again."""
  build = 'tests.toy:build_wide_still'
  meshes = [(8, (2, 4)), (2, (1, 2)), (1, (1, 1)), (8, (-1, 1))]
  for epochs, (devices, mesh) in enumerate(meshes, 1):
    changes = {'mesh': mesh, 'optim.epochs': epochs}
    (done,) = processes.train(build, tmp_path / 'many', devices=devices, **changes)
    assert done.returncode == 0, done.stderr[-3000:]
    started = f'going on after step {6 * (epochs - 1)}' if epochs > 1 else 'starting'
    assert f', {devices} cpu devices; {started} of' in done.stdout
  (done,) = processes.train(build, tmp_path / 'one', **{'optim.epochs': len(meshes)})
  assert done.returncode == 0, done.stderr[-3000:]
  # Not the parameters: sums in another order are other signs of gradients that are rounding alone,
  # and of any sign Adam's steps are as large.
  losses = lambda name: [
    line['train/loss'] for line in writer.read(tmp_path / name) if 'train/loss' in line
  ]
  assert len(losses('one')) == 24
  np.testing.assert_allclose(losses('many'), losses('one'), rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one_does(still, tmp_path):
  both = processes.train('tests.toy:build_still', tmp_path, hosts=2)
  assert [process.returncode for process in both] == [0, 0], both[1].stderr[-3000:]
  assert 'step 36/36' in both[0].stdout and 'step' not in both[1].stdout  # process 0 alone speaks
  close(saved(tmp_path), still[1])
  score = lambda workdir: json.loads((workdir / 'metrics.json').read_text())['test']
  for name, value in score(still[0]).items():
    np.testing.assert_allclose(score(tmp_path)[name], value, rtol=1e-4)


def test_all_processes_stop_at_one_step_when_one_gets_sigterm(still, tmp_path):
  both = processes.train(
    'tests.toy:build_still', tmp_path, hosts=2, kill=3, killed_host=1, with_signal=signal.SIGTERM
  )
  assert [process.returncode for process in both] == [0, 0], both[1].stderr[-3000:]
  step, _ = saved(tmp_path)
  assert step < 36 and f'saved step {step}' in both[0].stdout
  run(tmp_path, toy.task(dropout=0.0))  # goes on in one process
  close(saved(tmp_path), still[1])
