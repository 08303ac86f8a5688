"""Training from features: they are those of the encoder, and of nothing else."""

import collections
import contextlib
import dataclasses
import importlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import cached, sharding, writer
from dgsct_jax import state as states
from dgsct_jax import train as trains
from dgsct_jax.data import pipeline, transforms
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models import cached as models
from dgsct_jax.tasks.task import Task
from tests import tiny, toy


def ave(folder, variant='tiny,side', **changes):
  changes = {'data.cache_features': str(folder), 'data.name': 'noise'} | changes
  return tiny.ave(variant, **changes)


@pytest.mark.parametrize('name', ['ave', 'avqa', 'avvp', 'quickstart', 'unimodal'])
def test_configs_whose_encoders_may_be_left_out_have_the_field(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  assert config.data.cache_features == ''


def laid_out(task, config):
  return states.layout(task.model, task.inputs.spec, config, sharding.make_mesh((-1, 1)))


def refused(task, config):
  """The error before any clip is read."""
  layout = laid_out(task, config)
  with pytest.raises(ValueError) as error:
    cached.task(task, config, layout, states.abstract(layout))
  return str(error.value)


def batch_of(task):
  return next(pipeline.evaluate(task.data('train'), batch=4))


class Seen(NamedTuple):
  """A task, the same with features in place of clips, and the variables of both."""

  task: Task
  config: Any
  quick: Task
  variables: states.Variables
  folder: Path
  said: str


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cache')
  task, config = ave(folder)
  layout = laid_out(task, config)
  variables = states.fill(layout)
  with contextlib.redirect_stdout(io.StringIO()) as said:
    quick = cached.task(task, config, layout, variables)
  return Seen(task, config, quick, variables, folder, said.getvalue())


def test_the_outputs_are_those_of_the_clips(seen):
  """But for rounding to bfloat16."""
  found, expected = (
    jax.jit(task.model.apply)(seen.variables.joined, batch_of(task))
    for task in (seen.quick, seen.task)
  )
  assert found.keys() == expected.keys()
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=0.02, atol=0.02, err_msg=name)


def test_features_are_the_encoders_rounded(seen):
  read, clip = batch_of(seen.quick), batch_of(seen.task)
  look = lambda model, *streams: model.encoder.streams(*streams, False)
  apply = lambda *streams: seen.task.model.apply(seen.variables.joined, *streams, method=look)
  encoded = jax.jit(apply)(clip['video'][1], clip['wave'][1])
  for name, pyramid in (('video', encoded.visual_pyramid), ('wave', encoded.audio_pyramid)):
    flat = pyramid[-1].reshape(10, -1)  # of the one stage that this ladder looks at
    rounded = flat.astype(jnp.bfloat16).astype(np.float32)
    # Two programs: what lies between two values of bfloat16 may be rounded to either.
    np.testing.assert_allclose(read[name][1].reshape(flat.shape), rounded, rtol=2**-7)
    assert read[name].dtype == np.float32
  np.testing.assert_array_equal(read['label'], clip['label'])


def test_several_stages_are_packed_and_unpacked():
  pyramid = [jnp.arange(2.0 * n * 3).reshape(2, n, 3) for n in (8, 4, 2)]
  unpacked = models.unpack(models.pack(pyramid, 2), ((4, 3), (2, 3)))
  for found, given in zip(unpacked, pyramid[1:], strict=True):
    np.testing.assert_array_equal(found, given)


def losses(workdir):
  return [line['train/loss'] for line in writer.read(workdir) if 'train/loss' in line]


@dataclasses.dataclass(frozen=True)
class Counted(tiny.Noise):
  """Noise that knows how often each clip was read."""

  reads: collections.Counter = dataclasses.field(default_factory=collections.Counter)

  def __getitem__(self, i):
    self.reads[int(i)] += 1
    return super().__getitem__(i)


def test_a_run_learns_what_it_learns_from_clips_and_is_scored_on_these(tmp_path):
  task, config = ave(tmp_path / 'cache', 'tiny,lavish,none', **{'optim.epochs': 2, 'log_steps': 1})
  source = task.data('train').source
  counted = Counted(source.image, source.samples)
  counting = dataclasses.replace(task, data=lambda split: Dataset(counted))
  found = trains.train(config, tmp_path / 'cached', counting)
  # Once for training, once for selection, once for the test.
  assert set(counted.reads.values()) == {3} and len(counted.reads) == len(source)
  config.data.cache_features = ''
  expected = trains.train(config, tmp_path / 'clips', task)
  assert len(losses(tmp_path / 'clips')) == 4
  np.testing.assert_allclose(
    losses(tmp_path / 'cached'), losses(tmp_path / 'clips'), rtol=0.01, atol=1e-3
  )
  assert found.keys() == expected.keys()
  # Its checkpoints are those of any run, which may go on from the clips.
  config.optim.epochs = 3
  trains.train(config, tmp_path / 'cached', task)
  assert len(losses(tmp_path / 'cached')) == 6


def test_clips_are_looked_at_once_for_many_runs(seen):
  config = seen.config.copy_and_resolve_references()
  config.optim.lr = 0.1  # on which features do not depend
  layout = laid_out(seen.task, config)
  again = cached.task(seen.task, config, layout, states.abstract(layout))  # nothing to look with
  for name, x in batch_of(seen.quick).items():
    np.testing.assert_array_equal(x, batch_of(again)[name])


@pytest.mark.parametrize(
  ('variant', 'changes', 'told'),
  [
    ('tiny,side', {'seed': 44}, 'weights visual'),  # random encoders
    ('tiny,side', {'frozen_dtype': 'bfloat16'}, 'frozen_dtype'),
    ('tiny,side', {'model.dtype': 'bfloat16'}, 'visual'),
    ('tiny,side', {'model.adapter.stages': 2}, 'stages'),
  ],
)
def test_features_of_other_weights_or_rules_are_refused(variant, changes, told, seen):
  error = refused(*ave(seen.folder, variant, **changes))
  assert 'has features of other clips or weights' in error
  assert f'\n  {told}: ' in error and 'Remove it' in error


def test_features_of_other_clips_are_refused(seen):
  source = seen.task.data('train').source
  other = lambda dataset: dataclasses.replace(seen.task, data=lambda split: dataset)
  blank = other(Dataset(source, (transforms.Blank(('video',)),)))
  assert 'train decoded by: ' in refused(blank, seen.config)
  fewer = other(Dataset(dataclasses.replace(source, length=8)))
  assert 'other clips' in refused(fewer, seen.config)


class Drawn(grain.transforms.RandomMap):
  def random_map(self, example, rng):
    return example


@pytest.mark.parametrize(
  ('variant', 'changes', 'told'),
  [
    ('tiny', {}, "adapters 'dgsct' work within the encoders"),
    ('tiny,none', {'trainable': ('encoder/visual/.*', 'localize/.*')}, 'values of the encoders'),
    ('tiny,none', {'model.backbone_mode': 'train'}, "backbone_mode='eval'"),
  ],
)
def test_what_changes_features_is_told(variant, changes, told, tmp_path):
  error = refused(*ave(tmp_path / 'cache', variant, **changes))
  assert 'cache_features cannot be used' in error and told in error
  assert not (tmp_path / 'cache').exists()


def test_clips_that_are_drawn_anew_are_told(seen, tmp_path):
  task, config = ave(tmp_path / 'cache')
  source = task.data('train').source
  drawn = dataclasses.replace(task, data=lambda split: Dataset(source, (Drawn(),)))
  assert "Drawn of the split 'train' makes other clips" in refused(drawn, config)


def test_a_head_that_needs_pictures_is_told(tmp_path):
  task, config = tiny.noise('avs_s4', 'tiny,none')
  config.data.cache_features = str(tmp_path / 'cache')
  assert 'which resizes the pictures' in refused(task, config)
  assert not (tmp_path / 'cache').exists()


def test_a_task_without_encoder_is_told(tmp_path):
  config = toy.config()
  config.data.cache_features = str(tmp_path / 'cache')
  with pytest.raises(ValueError, match='no encoder of pictures and sounds'):
    trains.train(config, tmp_path / 'run', toy.task(config.model.width))


def test_its_size_is_told_before_a_clip_is_read(seen, tmp_path, monkeypatch):
  assert 'looking at every clip once: features of 32 clips, ' in seen.said
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(cached.shutil, 'disk_usage', lambda _: usage(2, 2, 1000))
  error = refused(*ave(tmp_path / 'cache'))
  assert 'features of 32 clips, ' in error and 'only 1.00 kB are free' in error


def test_what_they_are_made_of_stands_beside_them(seen):
  about = json.loads((seen.folder / 'noise' / cached.VERSION / cached.ABOUT).read_text())
  assert about['weights visual'] == f'random, seed {seen.config.seed}' and about['stages'] == '1'
