"""A run is asked by its best checkpoint, as it was trained, wherever its weights lie now."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import few_shot
from dgsct_jax import checkpoint, sharding, train, trained, whole
from dgsct_jax import state as states
from dgsct_jax.models.heads.matching import Matching
from tests import tiny, toy


@pytest.fixture(scope='module')
def truck(tmp_path_factory):
  return tiny.ave_run(tmp_path_factory.mktemp('run'))


def clip(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'video': rng.normal(size=(1, 10, 32, 32, 3)).astype(np.float32),
    'wave': rng.uniform(-1, 1, (1, 10, 4000)).astype(np.float32),
    'valid': np.ones(1, np.float32),
  }


def test_the_best_checkpoint_of_a_run_is_loaded(tmp_path):
  task = toy.task()
  train.train(toy.config(**{'optim.epochs': 2}), tmp_path, task)
  model = trained.load(tmp_path, toy.config(), task)
  manager, step = checkpoint.find(tmp_path, 'accuracy')
  held = checkpoint.read_model(manager, step)
  assert (model.step, model.selected) == (step, checkpoint.metrics(manager, step))
  np.testing.assert_array_equal(
    model.variables.params['head']['kernel'], held['params']['head']['kernel']
  )


def test_weights_that_moved_can_be_named(truck):
  config = trained.read_config(truck, ['visual=/moved.safetensors'])
  assert config.init.visual == '/moved.safetensors' and config.init.audio == 'random'
  with pytest.raises(ValueError, match='/moved.safetensors is not a file'):
    trained.load(truck, config)
  with pytest.raises(ValueError, match='NAME one of all, audio, visual'):
    trained.read_config(truck, ['vision=/moved.safetensors'])


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match='There is no checkpoint in'):
    trained.read_config(tmp_path / 'none')
  assert not (tmp_path / 'none').exists()


def test_a_run_from_before_there_were_kinds_says_the_same(truck, tmp_path):
  batch = clip()
  expected = trained.load(truck, trained.read_config(truck))(batch)
  old = tiny.ave_run(tmp_path)
  (file,) = old.glob('checkpoints/*/run/metadata')
  run = json.loads(file.read_text())
  config = run['config']
  for fields in (config['data'], config['model']['visual'], config['model']['audio']):
    del fields['kind']
  del config['parts']
  file.write_text(json.dumps(run))
  (file.parents[1] / whole.MANIFEST).unlink()
  found = trained.load(old, trained.read_config(old))(batch)
  assert found.keys() == expected.keys()
  for name, values in found.items():
    np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_outputs_that_do_not_lead_with_clips_are_refused():
  class Flat(toy.Model):
    def __call__(self, batch, train=False):
      logits = jnp.zeros((8, 3)) + batch['wave'].mean()
      return {'logits': logits, 'loss': logits.sum(), 'flat': logits.reshape(-1)}

  task, config = toy.task(model=Flat()), toy.config()
  forward = trained.compile_forward(task, sharding.make_mesh((-1, 1)))
  clips = [toy.DropStrings().map(toy.Clips('test', 13)[i]) for i in range(8)]
  batch = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
  batch['valid'] = np.ones(config.data.batch, np.float32)
  with pytest.raises(
    ValueError, match=r"8 clips of the batch, unlike {'loss': \(\), 'flat': \(24,"
  ):
    forward(*states.Variables({}, {}, {}), batch)


def test_outputs_of_half_precision_come_as_float32():
  class Half(toy.Model):
    def __call__(self, batch, train=False):
      return {'logits': batch['wave'].mean((1, 2)).astype(jnp.bfloat16), 'index': batch['index']}

  forward = trained.compile_forward(toy.task(model=Half()), sharding.make_mesh((-1, 1)))
  batch = {
    'wave': np.ones((4, 2, 8), np.float32),
    'index': np.arange(4, dtype=np.int32),
    'valid': np.ones(4, np.float32),
  }
  found = forward(*states.Variables({}, {}, {}), batch)
  assert (found['logits'].dtype, found['index'].dtype) == (jnp.float32, jnp.int32)


# Without a run.


@pytest.fixture(scope='module')
def towers():
  """CLIP and CLAP of toy size, which nobody trains."""
  config = few_shot.get_config('tiny,clap')
  config.data.update(segments=2, classes=('dog', 'bell'))
  return trained.untrained(config)


def test_a_model_that_nobody_trains_needs_no_run(towers):
  assert towers.step == 0 and not towers.variables.params and towers.variables.frozen


def test_what_depends_on_no_clip_is_computed_once(towers, monkeypatch):
  calls, read = [], Matching.read
  monkeypatch.setattr(Matching, 'read', lambda *given: calls.append(given) or read(*given))
  spec = towers.task.inputs.spec
  rng = np.random.default_rng(0)
  batch = {name: rng.normal(size=(1, *x.shape)).astype(x.dtype) for name, x in spec.items()}
  batch['valid'] = np.ones(1, np.float32)
  first = towers(batch)
  second = towers(batch | {'wave': batch['wave'][:, ::-1]})
  assert len(calls) == 1
  assert np.abs(first['logits'] - second['logits']).max() > 0
  direct = towers.forward(*towers.variables, batch)
  assert len(calls) == 2
  np.testing.assert_allclose(direct['logits'], first['logits'], rtol=1e-5, atol=1e-6)


def test_a_config_that_trains_is_refused_and_so_are_variables_of_no_file(monkeypatch):
  config = few_shot.get_config('tiny')
  with pytest.raises(ValueError, match='This config trains encoder/exchange_'):
    trained.untrained(config)
  config.trainable = ()
  trained.untrained(config)  # its towers are random by name, and so is the rest
  layout = states.layout

  def of_files(*given):
    made = layout(*given)
    held = {path: None for path in made.leaves if path.startswith(('params/cl', 'batch_stats/'))}
    return dataclasses.replace(made, sources=held)

  monkeypatch.setattr(states, 'layout', of_files)
  config.init.clip = config.init.clap = 'file'
  config.init.all = ''
  monkeypatch.setattr(states, '_sources', lambda shapes, config: ({}, {}))
  with pytest.raises(ValueError, match='come from no file of config.init.*such as params/'):
    trained.untrained(config)
