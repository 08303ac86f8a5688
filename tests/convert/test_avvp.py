"""The released AVVP checkpoint: every name of it, there and back."""

import jax
import numpy as np
import pytest

from configs import avvp as avvp_config
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import avvp, htsat, release, table
from dgsct_jax.tasks import registry
from tests.parity import golden

SIZES = dict(window=4, image_classes=3, sound_classes=2)


def small():
  """Random weights of a small AVVP model; golden cases leave out what is never read."""
  case = min((case for case in golden.cases() if case.kind == 'avvp'), key=lambda case: case.size)
  return case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()}


@pytest.fixture(scope='module')
def plan():
  """How the small model converts; tests must not change its state dict."""
  return convert.SOURCES['dgsct-avvp'].plan(
    {f'module.{name}': x for name, x in small().items()}, ''
  )


@pytest.fixture(scope='module')
def ours(plan):
  return table.convert(plan.state, plan.table, plan.targets)


def test_the_prefix_of_parallel_training_is_no_matter(plan):
  assert plan.state.keys() == small().keys()


def test_a_round_trip_of_random_weights_is_exact(plan, ours):
  source = convert.SOURCES['dgsct-avvp']
  back = source.export(ours, **SIZES)
  dropped = table.dropped(source.rows, back)
  assert plan.state.keys() <= back.keys()
  for name, x in back.items():
    assert name in dropped or np.array_equal(x, plan.state[name]), name
  again = table.convert(back, plan.table, plan.targets)
  assert again.keys() == ours.keys()
  for name, x in ours.items():
    np.testing.assert_array_equal(again[name], x, err_msg=name)


def test_the_half_of_the_gate_whose_result_is_thrown_away_is_dropped_with_a_reason(plan):
  gone = table.dropped(plan.table, plan.state)
  half = {
    name
    for name in plan.state
    if name.startswith('temporal_attn.') and ('video_' in name or '.visual_rnn' in name)
  }
  assert half and {gone.get(name) for name in half} == {avvp.UNHEARD.reason}
  assert not any(name.startswith(('audio_cug', 'visual_cug', 'av_mcg', 'fc_')) for name in gone)


def test_projections_are_packed_in_the_order_query_key_value(plan, ours):
  name = 'audio_cug.han_encoder.pre_assign_attn.attn.{}_proj.weight'
  packed = ours['params/parse/audio_groups/other/attn/in_proj/kernel']
  for part, kernel in zip('qkv', np.split(packed, 3, 1)):
    np.testing.assert_array_equal(kernel, plan.state[name.format(part)].T)


def test_the_whole_network_goes_back_to_as_many_names_as_the_release_has():
  model = registry.build(avvp_config.get_config()).model
  batch = {
    'video': jax.ShapeDtypeStruct((1, 10, 192, 192, 3), np.float32),
    'wave': jax.ShapeDtypeStruct((1, 10, 32000), np.float32),
    'motion': jax.ShapeDtypeStruct((1, 10, 512), np.float32),
  }
  shapes = table.targets(model, batch)
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  state = release.export_avvp(empty)
  assert len(state) == 3064
  case = next(case for case in golden.cases() if case.name == 'avvp_full')
  for name, shape in case.shapes.items():
    assert state[name].shape == tuple(shape), name
  sizes = sum(x.size for name, x in state.items() if is_parameter(name))
  assert sizes == 458_907_183


def is_parameter(name):
  """Unlike running statistics and what follows from shapes."""
  buffers = ('running_', 'num_batches_tracked', 'relative_position_index', 'attn_mask')
  return not any(part in name for part in buffers)


def test_a_model_without_motion_is_not_exported(ours):
  still = {name: x for name, x in ours.items() if 'motion_fc' not in name and 'fusion' not in name}
  with pytest.raises(ValueError, match="config.model.head.motion='r2plus1d_18'"):
    release.export_avvp(still, **SIZES)


def test_other_checkpoints_are_refused():
  with pytest.raises(ValueError, match='No released AVVP checkpoint: audio_adapter_blocks_p1'):
    avvp.plan({'fc_cls.weight': np.zeros((25, 128))})
