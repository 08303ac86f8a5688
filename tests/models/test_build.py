"""The dual encoder of a config: what the settings mean to its parts."""

import jax.numpy as jnp
import ml_collections
import pytest

from configs import ave
from dgsct_jax import models
from dgsct_jax.models.adapters import NoExchange
from dgsct_jax.models.side import Ladder


def config(**changes) -> ml_collections.ConfigDict:
  values = ave.get_config('tiny').model
  values.update_from_flattened_dict({name.replace('__', '.'): x for name, x in changes.items()})
  return values


def test_frozen_backbones_stand_still_unless_asked_to_live():
  still, live = models.build(config()), models.build(config(backbone_mode='train'))
  found = lambda model: (
    model.visual.drop_path,
    model.audio.drop_path,
    model.audio.batch_stats,
    model.audio.spec_augment,
  )
  assert found(still) == (0, 0, False, False)
  assert found(live) == (0.1, 0.1, True, True)


def test_spec_augment_can_be_had_alone():
  audio = models.build(config(spec_augment=True)).audio
  assert audio.spec_augment and not audio.batch_stats and not audio.drop_path


def test_dtype_and_remat_reach_both_backbones_and_the_adapters():
  model = models.build(config(dtype='bfloat16', remat='blocks'))
  assert model.visual.dtype == model.audio.dtype == 'bfloat16'
  assert model.visual.remat == model.audio.remat == model.exchange().remat == 'blocks'
  adapter = model.exchange().adapter()
  assert adapter.dtype == 'bfloat16' and adapter.tokens == 2


def test_loops_are_a_field_that_configs_of_older_runs_lack():
  assert models.build(config(scan_layers=True)).scan_layers
  old = config()
  del old.scan_layers
  assert not models.build(old).scan_layers


def test_the_audio_gate_can_be_left_out():
  values = config()
  values.adapter = dict(values.adapter) | {'audio_gate': False}
  exchange = models.build(values).exchange()
  assert exchange.adapter().gate and not exchange.audio_adapter().gate


def test_streams_may_be_kept_apart():
  values = config()
  values.adapter = ml_collections.ConfigDict({'name': 'none'})
  assert models.build(values).exchange is NoExchange


@pytest.mark.parametrize('name', ['dgsct', 'lavish'])
def test_adapters_may_be_in_the_last_stages_alone(name):
  values = config()
  values.adapter = ml_collections.ConfigDict({'name': name})
  every = models.build(values)
  values.adapter.stages = 1
  late = models.build(values)
  assert (every.stages, late.stages) == (None, 1)
  assert late.exchange == every.exchange


def test_a_ladder_stands_beside_backbones_that_do_not_exchange():
  values = config(dtype='bfloat16')
  values.adapter = ml_collections.ConfigDict(dict(name='side', width=16, tokens=4, stages=1))
  model = models.build(values)
  assert model.exchange is NoExchange
  assert model.side() == Ladder(width=16, tokens=4, stages=1, dtype=jnp.dtype('bfloat16'))
  assert models.build(config()).side is None


def test_fields_that_a_ladder_has_not_are_refused():
  values = config()
  values.adapter = ml_collections.ConfigDict(dict(name='side', width=16, groups=2))
  with pytest.raises(ValueError, match='Ladder has no field groups; it has dtype, stages'):
    models.build(values).side()


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(backbone_mode='still'), "backbone_mode is 'still'; set 'eval' or 'train'"),
    (dict(remat='all'), "remat is 'all'; set 'none', 'cheap' or 'blocks'"),
    (dict(adapter__name='lora'), "adapter.name is 'lora'; choose one of none, dgsct"),
    (dict(visual__variant='big'), "SwinV2 has no variant 'big'"),
    (dict(audio__variant='big'), "HTSAT has no variant 'big'"),
  ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    models.build(config(**changes))
