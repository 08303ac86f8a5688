"""Every field of a config that is not a text has a rule, and what the rule forbids is named."""

import math
import re

import pytest
from ml_collections import ConfigDict

from configs import ave, avqa, avvp, common, few_shot, quickstart
from dgsct_jax import settings
from dgsct_jax.scenes.compose import Knobs
from dgsct_jax.tasks import registry
from tests.test_configs import EVERY, get_config

FORBIDDEN = {
  'seed': [-1, 1.5, 1 << 31],
  'trainable': ['encoder/.*', ('encoder/(',), (1,)],
  'task': [None, 1],
  'init.visual': [None, 1, ('random',)],
  'parts.audio': [None, 0, ()],
  'data.dir': [None, 1],
  'model.visual.kind': [None, 1],
  'frozen_dtype': ['float16', 'nothing'],
  'select_on': ['dev'],
  'log_steps': [0, -1, True],
  'eval_batch': [-1],
  'mesh': [(1,), (0, 1), (-1, 1, 1), (1.5, 1)],
  'profile': [(2,), (0, 3), (5, 3)],
  'optim.lr': [0, -1e-3, math.inf, math.nan],
  'optim.schedule': ['linear'],
  'optim.epochs': [0],
  'optim.decay_rate': [0.0, 1.5],
  'optim.accumulate': [0, 'real', 1.5],
  'optim.clip_norm': [-1.0],
  'optim.lr_by_path': [(-1,), (('classify/.*',),), (('(', 0.1),), (('.*', -0.1),), ('.*', 0.1)],
  'data.batch': [0],
  'data.workers': [-7, 1 << 20],
  'data.segments': [0],
  'data.blank': ['video', ('sound',)],
  'data.knobs.events': [(), (0, 1), (3, 1), (1.5, 2)],
  'data.knobs.motion': [-1, math.nan],
  'data.knobs.heard': [1.5],
  'data.knobs.sample_rate': [0, 1],
  'model.audio.n_fft': [1, 100000],
  'model.audio.fmax': [0],
  'model.audio.tile': [0, 0.5],
  'model.audio.depths': [(), ('video', 'nothing'), (0, 2), (1.5, 2)],
  'model.visual.heads': [(1.5, 2), 0],
  'model.adapter.reduction': [0, 1e9, 10**9],
  'model.adapter.alpha': [math.nan],
  'model.head.dropout': [2, -0.1],
}


@pytest.mark.parametrize('name', FORBIDDEN)
def test_what_a_field_cannot_be_is_told_with_what_it_can(name):
  rule = settings.rule_of(name)
  for value in FORBIDDEN[name]:
    config = ConfigDict()
    place = config
    for part in name.split('.')[:-1]:
      place[part] = ConfigDict()
      place = place[part]
    place[name.split('.')[-1]] = value
    with pytest.raises(ValueError, match=re.escape(f'config.{name}=')) as error:
      settings.check(config)
    assert str(error.value).endswith(f'give {rule.words}.')


def test_all_faults_are_told_at_once():
  config = common.get_config()
  config.optim.update(lr=-1.0, epochs=0)
  with pytest.raises(ValueError, match=r'(?s)config\.optim\.epochs=0;.*config\.optim\.lr=-1\.0;'):
    settings.check(config)


@pytest.mark.parametrize('name, variant', EVERY)
def test_every_number_of_a_config_has_a_rule_and_keeps_it(name, variant):
  config = get_config(name, variant)
  settings.check(config)
  unruled = [
    field
    for field, value in settings.fields(config).items()
    if not isinstance(value, str) and settings.rule_of(field) is None
  ]
  assert not unruled


def test_every_rule_is_of_some_field():
  configs = [settings.fields(get_config(name, variant)) for name, variant in EVERY]
  known = set().union(*configs) | {f'data.knobs.{name}' for name in Knobs.__dataclass_fields__}
  for pattern, _ in settings.RULES:
    for part in pattern.split('|') if '(' not in pattern else [pattern]:
      assert any(re.fullmatch(part, field) for field in known), part


def test_fields_of_other_tasks_are_left_alone():
  settings.check(ConfigDict({'task': 'mine', 'model': {'bands': -3}}))


@pytest.mark.parametrize('config', [ave, avvp, few_shot, quickstart])
def test_a_task_is_not_built_of_such_settings(config):
  found = config.get_config()
  found.optim.lr = -1.0
  with pytest.raises(ValueError, match=r'config\.optim\.lr=-1\.0; give a finite number above 0'):
    registry.build(found)


@pytest.mark.parametrize('config', [ave, avvp, few_shot])
def test_a_task_without_questions_needs_one_of_the_streams(config):
  config = config.get_config('tiny')
  for blank in ((), ('video',), ('wave',)):
    config.data.blank = blank
    registry.build(config)
  config.data.blank = ('wave', 'video')
  with pytest.raises(ValueError, match=r'config.data.blank.*Blank one of them'):
    registry.build(config)


def test_a_question_alone_may_be_answered():
  config = avqa.get_config('tiny')
  config.data.blank = ('video', 'wave')
  assert registry.build(config).ask
