"""A checkpoint is whole or not there, and goes only to the run that it is of."""

import json
import re
import shutil

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from dgsct_jax import checkpoint, train
from tests import toy

CONFIG = dict(
  task='ave',
  seed=43,
  trainable=('head/.*',),
  frozen_dtype='float32',
  parts=dict(visual='encoder/visual'),
  model=dict(width=8, remat='none', scan_layers=False),
  data=dict(dir='a', batch=8, workers=0),
  optim=dict(lr=0.1, epochs=4, patience=2, schedule='step'),
)


@flax.struct.dataclass
class State:
  step: jax.Array
  params: dict
  batch_stats: dict
  opt_state: tuple
  rng: jax.Array


def make(step, width=3):
  x = jnp.full((width, 2), float(step))
  rng = jnp.zeros(2, jnp.uint32)
  return State(jnp.int32(step), {'head': {'kernel': x}}, {}, ((), {'mu': x + 1}), rng)


def run(weights='sha256 1', epoch_steps=5, **changes):
  config = ml_collections.ConfigDict(CONFIG)
  config.update_from_flattened_dict(changes)
  return checkpoint.identity(config, {'visual': weights}, epoch_steps)


def save(manager, step, metrics=None, **changes):
  checkpoint.save(manager, step, make(step), {'batches': step}, run(**changes), metrics)


def test_the_latest_state_and_place_come_back(tmp_path):
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    assert checkpoint.restore_latest(manager, make(0), run()) is None
    for step in (1, 2, 3):
      save(manager, step)
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    state, place = checkpoint.restore_latest(manager, make(0), run())
  assert place == {'batches': 3}
  assert jax.tree.structure(state) == jax.tree.structure(make(0))
  jax.tree.map(np.testing.assert_array_equal, state, make(3))


def test_a_state_may_be_donated_while_it_is_written(tmp_path):
  add = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  state = {'w': jnp.zeros((512, 512))}
  with checkpoint.open(tmp_path, 9, 'acc') as manager:
    for step in range(1, 6):
      state = add(state)
      checkpoint.save(manager, step, make(step).replace(params=state), {}, run())
      for _ in range(3):
        state = add(state)
    checkpoint.check(manager, wait=True)
    for step in range(1, 6):
      abstract = make(0).replace(params={'w': jax.ShapeDtypeStruct((512, 512), jnp.float32)})
      params, _ = checkpoint.restore_model(manager, step, abstract, run())
      np.testing.assert_array_equal(params['w'], 4 * step - 3)


def test_the_latest_ones_and_the_best_are_kept_over_restarts(tmp_path):
  scores = {1: 0.2, 2: 0.9, 3: None, 4: 0.9, 5: 0.5, 6: float('nan'), 7: None, 8: 0.1}
  for step, score in scores.items():
    with checkpoint.open(tmp_path, 2, 'acc') as manager:
      save(manager, step, None if score is None else {'acc': score, 'other': -score})
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    assert sorted(manager.all_steps()) == [4, 7, 8]
    assert checkpoint.best(manager) == (4, {'acc': 0.9, 'other': -0.9})  # of equals the later one


def test_without_evaluations_the_latest_is_the_best(tmp_path):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    assert checkpoint.best(manager) == (None, {})
    save(manager, 1)
    save(manager, 2)
    assert checkpoint.best(manager) == (2, {})


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'model.width': 9}, 'config.model.width: 8 in the checkpoint, 9 now'),
    ({'optim.lr': 0.2}, 'config.optim.lr: 0.1 in the checkpoint, 0.2 now'),
    (
      {'trainable': ('.*',)},
      r"config.trainable: \['head/\.\*'\] in the checkpoint, \['\.\*'\] now",
    ),
    ({'seed': 1}, 'config.seed: 43 in the checkpoint, 1 now'),
    ({'data.batch': 4}, 'config.data.batch: 8 in the checkpoint, 4 now'),
    ({'weights': 'sha256 2'}, "weights.visual: 'sha256 1' in the checkpoint, 'sha256 2' now"),
    ({'epoch_steps': 6}, 'batches in an epoch: 5 in the checkpoint, 6 now'),
    ({'optim.schedule': 'cosine', 'optim.epochs': 9}, 'optim.epochs: 4 in the check.*\n.*schedule'),
  ],
)
def test_a_checkpoint_of_another_run_is_refused_with_both_values(tmp_path, changes, message):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    save(manager, 1)
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    whole = f'(?s)checkpoints/1 is of another run:.*{message}.*another --workdir'
    with pytest.raises(ValueError, match=whole):
      checkpoint.restore_latest(manager, make(0), run(**changes))


@pytest.mark.parametrize('field', sorted(checkpoint.LATER))
def test_a_run_from_before_a_field_goes_on_as_it_was(tmp_path, field):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    save(manager, 1)
  name, value, now = field.removeprefix('config.'), checkpoint.LATER[field], run()

  def with_field(value):
    fields = traverse_util.flatten_dict(now['config'], sep='.') | {name: value}
    return now | {'config': traverse_util.unflatten_dict(fields, sep='.')}

  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    checkpoint.restore_latest(manager, make(0), with_field(value))
    with pytest.raises(ValueError, match=f'{field}: {value!r} in the checkpoint'):
      checkpoint.restore_latest(manager, make(0), with_field('other'))


def test_what_changes_no_result_may_change_and_the_run_goes_on(tmp_path):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    save(manager, 1)
    changed = run(
      **{
        'optim.epochs': 9,
        'optim.patience': 7,
        'data.dir': 'b',
        'data.workers': 3,
        'eval_batch': 4,
        'model.remat': 'blocks',
        'model.scan_layers': True,
      }
    )
    assert checkpoint.restore_latest(manager, make(0), changed)[1] == {'batches': 1}


def test_evaluation_minds_the_model_and_not_the_optimiser(tmp_path):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    save(manager, 1)
    changed = run(**{'optim.lr': 3.0, 'data.batch': 2, 'epoch_steps': 0})
    params, _ = checkpoint.restore_model(manager, 1, make(0), changed)
    np.testing.assert_array_equal(params['head']['kernel'], 1.0)
    with pytest.raises(ValueError, match='config.model.width: 8 in the checkpoint, 9 now'):
      checkpoint.restore_model(manager, 1, make(0), run(**{'model.width': 9}))


def test_a_half_written_checkpoint_is_never_the_latest_and_is_cleared_away(tmp_path):
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    save(manager, 1)
    save(manager, 2)
  whole = tmp_path / 'checkpoints'
  (whole / '2').rename(whole / '2.orbax-checkpoint-tmp')  # the name until all is written
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    assert manager.latest_step() == 1
    save(manager, 3)
    checkpoint.check(manager, wait=True)
    assert sorted(path.name for path in whole.iterdir()) == ['1', '3']


def test_reading_leaves_alone_what_a_run_is_writing(tmp_path):
  with pytest.raises(ValueError, match='There is no checkpoint in .*; train first'):
    checkpoint.find(tmp_path, 'acc')
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    save(manager, 1, {'acc': 0.5})
    save(manager, 2)
  (tmp_path / 'checkpoints/3.orbax-checkpoint-tmp').mkdir()
  manager, step = checkpoint.find(tmp_path, 'acc')
  assert (step, checkpoint.metrics(manager, step)) == (1, {'acc': 0.5})
  assert (tmp_path / 'checkpoints/3.orbax-checkpoint-tmp').is_dir()


# Folders.


@pytest.mark.parametrize('name', ['lr=[1e-3]', 'a*', 'a?', 'a[', 'a\\b'])
def test_where_checkpoints_would_be_lost_no_run_begins(tmp_path, name):
  workdir = tmp_path / name / 'run'
  with pytest.raises(ValueError, match='cannot be kept in .*; choose a --workdir whose path has'):
    train.train(toy.config(), workdir, toy.task())
  assert not workdir.exists()


@pytest.mark.parametrize('name', ['a]', '{a}', 'a b', 'a%20b', 'a#b', 'a@2', 'a:b', 'ä|b', "a'$b"])
def test_other_names_of_folders_are_as_good_as_any(tmp_path, name):
  checkpoint.check_folder(tmp_path / name)
  with checkpoint.open(tmp_path / name, 2, 'acc') as manager:
    save(manager, 1)
  assert train_from(tmp_path / name) == predict_by(tmp_path / name) == (1, 1.0)


def test_a_finished_run_may_have_any_name_but_that_of_another_folder(whole_run, tmp_path):
  for name in ('lr=[1e-3]', 'a*', 'a?'):
    shutil.copytree(whole_run, tmp_path / name)
    assert predict_by(tmp_path / name) == (1, 1.0)
  with pytest.raises(ValueError, match=r'its path has \\; choose'):
    predict_by(tmp_path / 'a\\b')


# Damage.


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
  """Checkpoints of steps 1 and 2; the first is the best."""
  workdir = tmp_path_factory.mktemp('whole')
  with checkpoint.open(workdir, 2, 'acc') as manager:
    save(manager, 1, {'acc': 0.9})
    save(manager, 2, {'acc': 0.5})
    checkpoint.check(manager, wait=True)
  return workdir


@pytest.fixture
def damaged(whole_run, tmp_path):
  shutil.copytree(whole_run / 'checkpoints', tmp_path / 'checkpoints')
  return tmp_path


def train_from(workdir, start=None):
  """Step and first value of what training goes on from."""
  with checkpoint.open(workdir, 2, 'acc', start) as manager:
    state, place = checkpoint.restore_latest(manager, make(0), run())
  return place['batches'], float(state.params['head']['kernel'][0, 0])


def predict_by(workdir, step=None):
  manager, step = checkpoint.find(workdir, 'acc', step)
  checkpoint.read_run(manager, step)
  params, _ = checkpoint.restore_model(manager, step, make(0), run())
  return step, float(params['head']['kernel'][0, 0])


def refused(call, *arguments):
  """Whether an error names the folder and the step that is whole; else the result is returned."""
  try:
    return call(*arguments)
  except ValueError as error:
    message = r'checkpoints/2 is damaged: .*newest whole one is that of step 1: with --from=1'
    assert re.search(message, str(error)), error
    return 'refused'


FAULTS = {
  'removed': lambda data: None,
  'cut': lambda data: data[: len(data) // 2],
  'flipped': lambda data: bytes([data[0] ^ 1]) + data[1:],
}


def change(file, fault):
  data = FAULTS[fault](file.read_bytes())
  file.unlink()
  if data is not None:
    file.write_bytes(data)


@pytest.mark.parametrize('fault', FAULTS)
def test_a_damaged_file_is_refused_or_was_not_needed(whole_run, damaged, fault):
  kept, found = whole_run / 'checkpoints/2', {}
  for file in sorted(path for path in kept.rglob('*') if path.is_file()):
    name = file.relative_to(kept)
    change(damaged / 'checkpoints/2' / name, fault)
    found[str(name)] = refused(train_from, damaged), refused(predict_by, damaged, 2)
    shutil.copy(file, damaged / 'checkpoints/2' / name)
  # What Orbax itself notes of a whole checkpoint, and the manifest that older ones do not have.
  notes = {'_CHECKPOINT_METADATA', 'commit_success.txt'}
  notes |= {'manifest.json'} if fault == 'removed' else set()
  for name, (trained, predicted) in found.items():
    assert trained == ((2, 2.0) if name in notes else 'refused'), name
    unread = name.startswith('optimizer/') and fault == 'flipped'
    assert predicted == ((2, 2.0) if name in notes or unread else 'refused'), name
  assert len(found) > 20


def test_a_damaged_checkpoint_is_an_error_even_if_another_is_the_best(damaged):
  (damaged / 'checkpoints/2/run/metadata').unlink()
  assert refused(predict_by, damaged) == refused(train_from, damaged) == 'refused'
  assert predict_by(damaged, 1) == (1, 1.0)
  assert (damaged / 'checkpoints/2').is_dir()  # reading moves nothing


def test_training_goes_on_from_the_step_that_is_asked_for_and_deletes_nothing(damaged, capsys):
  shutil.rmtree(damaged / 'checkpoints/2/model')
  assert train_from(damaged, 1) == (1, 1.0)
  assert f'put aside: {damaged}/checkpoints/2 is now {damaged}/aside/2' in capsys.readouterr().out
  assert (damaged / 'aside/2/optimizer').is_dir() and train_from(damaged) == (1, 1.0)
  with checkpoint.open(damaged, 2, 'acc') as manager:
    save(manager, 2)
  assert train_from(damaged, 1) == (1, 1.0)  # a whole one, too
  assert (damaged / 'aside/2.2/model').is_dir()


@pytest.mark.parametrize('step', [2, 7])
def test_a_step_that_is_not_whole_or_not_there_cannot_be_asked_for(damaged, step):
  shutil.rmtree(damaged / 'checkpoints/2/model')
  for call in (train_from, predict_by):
    with pytest.raises(ValueError, match='2 is damaged|--from=7: .* no such step, only 1, 2'):
      call(damaged, step)


def test_an_empty_folder_is_an_unfinished_save_and_no_obstacle(damaged):
  (damaged / 'checkpoints/3').mkdir()
  assert predict_by(damaged) == (1, 1.0) and (damaged / 'checkpoints/3').is_dir()
  assert train_from(damaged) == (2, 2.0) and not (damaged / 'checkpoints/3').exists()


def test_with_nothing_whole_the_error_says_so(damaged):
  for step in (1, 2):
    shutil.rmtree(damaged / f'checkpoints/{step}/run')
  for call in (train_from, predict_by):
    with pytest.raises(ValueError, match='2 is damaged.*No other one is whole; choose another'):
      call(damaged)


def test_a_checkpoint_from_before_there_were_manifests_is_read(damaged):
  for step in (1, 2):
    (damaged / f'checkpoints/{step}/manifest.json').unlink()
  assert train_from(damaged) == (2, 2.0) and predict_by(damaged) == (1, 1.0)
  (damaged / 'checkpoints/2/model/_METADATA').write_text('')
  assert refused(train_from, damaged) == 'refused'
  shutil.rmtree(damaged / 'checkpoints/2/model')
  assert refused(train_from, damaged) == refused(predict_by, damaged) == 'refused'


@pytest.mark.parametrize('name', ['_CHECKPOINT_METADATA', 'metrics/metrics'])
def test_notes_that_cannot_be_read_are_one_error_that_names_the_folder(damaged, name):
  for step in (1, 2):
    (damaged / f'checkpoints/{step}/manifest.json').unlink()
  file = damaged / 'checkpoints/2' / name
  file.unlink()
  if name == 'metrics/metrics':
    file.mkdir()
  else:
    file.write_text('true')
  for call in (train_from, predict_by):
    with pytest.raises(ValueError, match=f'A checkpoint in {damaged}/checkpoints is damaged'):
      call(damaged)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_what_is_no_number_never_evicts_the_best(tmp_path, bad):
  for step, score in enumerate([0.5, bad, 0.3, bad, bad], 1):
    with checkpoint.open(tmp_path, 2, 'acc') as manager:
      save(manager, step, {'acc': score})
      checkpoint.check(manager, wait=True)
      assert checkpoint.best(manager)[0] == 1
  assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['1', '4', '5']
  assert checkpoint.find(tmp_path, 'acc')[1] == 1


def test_the_config_is_read_back_as_json(tmp_path):
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    save(manager, 1)
    found = checkpoint.read_run(manager, 1)
  assert found['config'] == json.loads(json.dumps(CONFIG)) and found['place'] == {'batches': 1}


VISUAL, AUDIO = dict(variant='custom', image=32), dict(variant='audioset', size=32)
STREAMS = {'visual': 'encoder/visual', 'audio': 'encoder/audio'}


@pytest.mark.parametrize(
  'task, data, init, kind, parts',
  [
    ('ave', dict(name='ave'), ('visual', 'audio', 'all'), 'ave', STREAMS),
    ('ave', dict(name='quickstart', source='shapes'), ('visual', 'audio'), 'scenes', STREAMS),
    (
      'avqa',
      dict(name='music_avqa'),
      ('visual', 'audio', 'ground', 'all'),
      'music_avqa',
      STREAMS | {'ground': 'matching'},
    ),
    (
      'avqa_grounding',
      dict(name='questions', source='shapes'),
      ('visual', 'audio'),
      'scene_questions',
      STREAMS,
    ),
    (
      'unimodal',
      dict(name='unimodal', source='stamps'),
      ('backbone', 'all'),
      'scenes',
      {'backbone': 'backbone'},
    ),
  ],
)
def test_a_config_from_before_there_were_kinds_is_brought_up_to_date(
  tmp_path, task, data, init, kind, parts
):
  before = CONFIG | dict(task=task, data=data, init=dict.fromkeys(init, ''))
  before['model'] = dict(visual=VISUAL, audio=AUDIO, width=8)
  del before['parts']
  with checkpoint.open(tmp_path, 1, 'acc') as manager:
    then = checkpoint.identity(ml_collections.ConfigDict(before), {}, 5)
    checkpoint.save(manager, 1, make(1), {'batches': 1}, then)
    config = checkpoint.config_of(checkpoint.read_run(manager, 1))
  model = {'visual': {'kind': 'swin_v2'} | VISUAL, 'audio': {'kind': 'htsat'} | AUDIO, 'width': 8}
  today = {'data': {'kind': kind} | data, 'parts': parts, 'model': model}
  assert config.to_dict() == before | today  # the rest is as it was


def test_a_failed_save_is_an_error_that_names_what_is_left(tmp_path, monkeypatch):
  with checkpoint.open(tmp_path, 2, 'acc') as manager:
    save(manager, 1)
    checkpoint.check(manager, wait=True)

    def full(*args, **kwargs):
      raise OSError(28, 'No space left on device')

    monkeypatch.setattr(ocp.CheckpointManager, 'save', full)
    with pytest.raises(
      ValueError, match=r'(?s)No space left on device.*steps 1; make room and run'
    ):
      save(manager, 2)


def test_keeping_none_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='config.keep=0'):
    checkpoint.open(tmp_path, 0, 'acc')
