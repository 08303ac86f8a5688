"""Checkpoints of LAVISH on AVE."""

import numpy as np
import pytest

from dgsct_jax.convert import lavish, table
from tests.parity import golden


@pytest.fixture(scope='module')
def state():
  (case,) = (case for case in golden.cases() if case.name == 'lavish_ave_small')
  return case.weights()


def test_every_tensor_has_its_place_and_the_unread_ones_none(state):
  unread = {
    'swin.head.weight': np.zeros((5, 128), np.float32),
    'adapter_token_downsampler.weight': np.zeros((3, 3), np.float32),
    'vis_adapter_blocks_p1.0.gate_tk': np.ones(1, np.float32),
    'vis_adapter_blocks_p1.0.bn1.num_batches_tracked': np.zeros((), np.int64),
  }
  plan = lavish.plan_ave({f'module.{name}': x for name, x in (state | unread).items()})
  ours = table.convert(plan.state, plan.table, plan.targets)
  assert sum(x.size for x in ours.values()) == sum(x.size for x in state.values())
  back = table.export(ours, lavish.AVE)
  assert back.keys() == state.keys() and all((back[name] == x).all() for name, x in state.items())


def test_shapes_tell_the_variant_of_the_adapters(state):
  first = {
    name.removeprefix('vis_adapter_blocks_p1.0.'): x
    for name, x in state.items()
    if name.startswith('vis_adapter_blocks_p1.0.')
  }
  told = dict(reduction=8, groups=2, tokens=2, batch_norm=True, gate=True)
  assert lavish.fields(first) == told | dict(norm_before=True, norm_post=True)
  bare = {name: x for name, x in first.items() if name.split('.')[0] not in ('bn1', 'bn2', 'gate')}
  assert lavish.fields(bare)['batch_norm'] is lavish.fields(bare)['gate'] is False


def test_another_checkpoint_is_refused():
  with pytest.raises(ValueError, match='No released LAVISH AVE checkpoint: .* missing'):
    lavish.plan_ave({'conv1.weight': np.zeros(3)})
