"""Where time goes: what lies within what counts once, and every operation belongs to a part."""

import collections
import re

import jax
import pytest

from dgsct_jax import hlo, profile, sharding, state
from dgsct_jax.profile import Event, Trace
from dgsct_jax.tasks import registry
from tests import test_configs

PROGRAM = """HloModule jit_train_step, num_partitions=1

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %m = f32[4]{0} multiply(%p, %p), metadata={op_name="EXCHANGE"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %fusion.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %add.2 = f32[4]{0} add(%fusion.1, %x), metadata={op_name="VISUAL"}
  ROOT %sub.3 = f32[4]{0} subtract(%add.2, %x), metadata={op_name="jit(train_step)/sub"}
}
"""
EXCHANGE = 'jit(train_step)/jvp(Net)/encoder/exchange_mlp_3/both/mul'
VISUAL = 'jit(train_step)/transpose(jvp(Net))/encoder/visual/stages_0/blocks_1.attend/add'
TRACE = Trace(2, 0.5, 0.05, {'fusion.1': 0.3, 'add.2': 0.08, 'sub.3': 0.02})


def event(name, start, length, operation=None):
  return Event(name, name if operation is None else operation, start * 1e9, length * 1e9)


def test_time_within_another_operation_counts_once():
  loop = event('while', 0, 10)
  inner = [event('dot', 1, 4), event('add', 6, 2), event('dot', 8, 1)]
  after = event('copy', 10, 3)
  seconds = profile.alone([after, *inner, loop])
  assert seconds == pytest.approx({'while': 3, 'dot': 5, 'add': 2, 'copy': 3})
  assert sum(seconds.values()) == pytest.approx(13)


def test_the_mark_of_an_end_takes_no_time():
  seconds = profile.alone([event('dot', 0, 4), event('end: dot', 3.9, 0.05), event('add', 5, 1)])
  assert seconds['dot'] == pytest.approx(3.95) and seconds['add'] == pytest.approx(1)


@pytest.mark.parametrize(
  'owner, part',
  [
    ('encoder/visual/stages_0/blocks_1.attend', 'encoder/visual'),
    ('encoder/visual.stem/patch_embed', 'encoder/visual'),
    ('encoder/exchange_attn_11/visual', 'encoder/exchange'),
    ('encoder/exchange_side', 'encoder/exchange'),
    ('encoder/encoder.streams/visual/stages_0/blocks_1.attend', 'encoder/visual'),
    ('encoder/encoder.streams/exchange_mlp_0/exchange_mlp_0.both/audio', 'encoder/exchange'),
    ('Matching.perceive/encoder/encoder.streams/audio.stem/mel', 'encoder/audio'),
    ('AVE/localize', 'localize'),
    ('blocks_11/attn', 'blocks'),
    ('yh,xw,', profile.NOWHERE),
    ('encoder', 'encoder'),
    ('parse/joint_groups', 'parse'),
    ('step_keys', profile.NOWHERE),
    ('', profile.NOWHERE),
  ],
)
def test_every_module_belongs_to_a_part(owner, part):
  assert profile.part(owner) == part


@pytest.mark.parametrize('name, head', [('ave', 'localize'), ('few_shot', 'contrast')])
def test_the_parts_of_a_model_are_found_by_the_names_that_it_gives_its_operations(
  name, head, tmp_path
):
  config = test_configs.small(name, tmp_path)
  task, mesh = registry.build(config), sharding.make_mesh(config.mesh)
  variables = state.abstract(state.layout(task.model, task.inputs.spec, config, mesh))
  clips = sharding.abstract_batch(task.inputs.spec, 1, mesh)
  traced = jax.jit(lambda variables, clips: task.model.apply(variables, clips, False))
  text = traced.lower(variables.joined, clips).as_text(debug_info=True)
  operations = [
    hlo.Operation('dot.1', 'f32[]', 'dot', (), f'op_name="{path}"')
    for path in re.findall(r'loc\("([^"]*)"\(', text)
  ]
  found = collections.Counter(profile.part(operation.owner) for operation in operations)
  for part in ('encoder/visual', 'encoder/audio', 'encoder/exchange', head):
    assert found[part]
  assert found['encoder'] < 10  # what it does by itself


def test_shares_and_operations_are_told_with_their_modules():
  owner = profile.owners(hlo.read(PROGRAM.replace('EXCHANGE', EXCHANGE).replace('VISUAL', VISUAL)))
  assert profile.shares(TRACE, owner) == pytest.approx(
    {'encoder/exchange': 0.15, 'encoder/visual': 0.04, profile.NOWHERE: 0.01}
  )
  assert list(profile.shares(TRACE, owner)) == [
    'encoder/exchange',
    'encoder/visual',
    profile.NOWHERE,
  ]
  told = list(profile.report(TRACE, owner, 2))
  assert told[0] == '2 steps, 0.250 s each, of which 10.0% waiting for clips'
  rows = [line.split() for line in told]
  assert ['encoder/exchange', '75.0%', '0.1500'] in rows
  assert ['fusion.1', '75.0%', '0.1500', 'encoder/exchange_mlp_3/both'] in rows
  assert not any('sub.3' in row for row in rows)


def test_a_run_without_a_trace_is_told_how_to_get_one(tmp_path, capsys):
  assert profile.main([str(tmp_path)]) == 1
  assert 'train with --config.profile=' in capsys.readouterr().err
