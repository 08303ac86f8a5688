"""What a step needs on chips that are not there: texts of programs, arithmetic, the command."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dgsct_jax import chips, hlo, plan, sharding
from tests import toy

ROOT = Path(__file__).parents[1]

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=4

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused (p: bf16[8,16], q: f32[16,4]) -> f32[8,4] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = f32[16,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %t = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %a = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%t), index=1
  %w = f32[4,4]{1,0} constant({...})
  %dot.2 = f32[8,4]{1,0} dot(%a, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %r = f32[8,4]{1,0} all-reduce(%dot.2), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %out = (s32[], f32[8,4]{1,0}) tuple(%i, %r)
}

%until (t.1: (s32[], f32[8,4])) -> pred[] {
  %t.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %end = pred[] constant(false)
}

ENTRY %main (v: bf16[8,16], k: f32[16,4]) -> f32[32,4] {
  %v = bf16[8,16]{1,0} parameter(0), metadata={op_name="batch[\\'video\\']"}
  %k = f32[16,4]{1,0} parameter(1), metadata={op_name="frozen[\\'kernel\\']"}
  %f = f32[8,4]{1,0} fusion(%v, %k), kind=kOutput, calls=%fused
  %zero = s32[] constant(0)
  %start = (s32[], /*index=1*/f32[8,4]{1,0}) tuple(%zero, %f)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%until, body=%body, LOOP
  %b = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  %g = (f32[8,4]{1,0}, f32[32,4]{1,0}) all-gather-start(%b), replica_groups=[1,4]<=[4]
  ROOT %done = f32[32,4]{1,0} all-gather-done(%g), metadata={op_name="OWNER"}
}
"""
PROGRAM = PROGRAM.replace('LOOP', 'backend_config={"known_trip_count":{"n":"10"}}').replace(
  'OWNER', 'jit(step)/transpose(jvp(Model))/encoder/block_0/dot_general'
)


def test_the_text_of_a_program_is_read():
  program = hlo.read(PROGRAM)
  assert program.entry == 'main' and set(program.computations) == {
    'add', 'fused', 'body', 'until', 'main',
  }  # fmt: skip
  main = program.computations['main']
  assert main['f'].operands == ('v', 'k') and main['f'].code == 'fusion' and main['f'].bytes == 128
  assert main['start'].bytes == 4 + 128
  assert main['v'].owner == "batch['video']" and main['done'].owner == 'encoder/block_0'
  a = program.computations['body']['a']
  assert a.bytes == 128 and a.held == 0  # S(1): it does not lie in HBM


def test_loops_count_as_often_as_they_run():
  program = hlo.read(PROGRAM)
  found = {run.operation.name: (run.times, hlo.flops(run)) for run in hlo.runs(program)}
  assert found['dot.1'] == (1, 2 * 8 * 4 * 16) and found['dot.2'] == (10, 2 * 8 * 4 * 4)
  assert 'x' not in found  # a sum of single numbers is no operation of its own
  flops, moved = hlo.repeated(program)
  assert flops == 9 * 2 * 8 * 4 * 4
  assert moved == 9 * ((128 + 128 + 64) + (128 + 128))  # the product, the sum over devices
  assert not hlo.unknown_loops(program)
  assert hlo.unknown_loops(hlo.read(PROGRAM.replace('known_trip_count', 'no'))) == 1


def test_a_loop_without_its_number_of_turns_is_read_by_its_condition():
  until = """%n = s32[]{:T(128)} constant(7)
  %j = s32[] get-tuple-element(%t.1), index=0
  ROOT %end = pred[] compare(%j, %n), direction=LT"""
  text = PROGRAM.replace('known_trip_count', 'no').replace(
    'ROOT %end = pred[] constant(false)', until
  )
  program = hlo.read(text)
  assert not hlo.unknown_loops(program)
  assert hlo.repeated(program)[0] == 6 * 2 * 8 * 4 * 4


def test_collectives_count_with_their_loops_and_groups():
  found = hlo.collectives(hlo.read(PROGRAM))
  assert found == {
    'all-reduce': hlo.Traffic(10, 10 * 128, 10 * 128 * 2 * 3 / 4),
    'all-gather': hlo.Traffic(1, 512, 512 * 3 / 4),
  }


@pytest.mark.parametrize(
  'groups, size',
  [
    ('{{0,4},{1,5},{2,6},{3,7}}', 2),
    ('[2,4]<=[8]', 4),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
    ("mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", 4),
    ("mesh['axis_0'=8] {'axis_0':(1)2}", 2),
    ('{}', 4),  # all
  ],
)
def test_groups_of_devices_in_all_their_spellings(groups, size):
  text = PROGRAM.replace('[1,4]<=[4]', groups)
  assert hlo.collectives(hlo.read(text))['all-gather'].sent == 512 * (size - 1) / size


def test_the_largest_values_are_those_in_memory():
  sizes = {x.name: x.bytes for x in hlo.largest(hlo.read(PROGRAM), 99)}
  assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
  assert sizes['done'] == 512 and sizes['k'] == sizes['v'] == 256
  assert not {'dot.1', 'start', 'b', 't', 'p'} & set(sizes)  # in a fusion, or another name


def test_a_fusion_without_a_name_is_owned_by_what_is_in_it():
  made = 'rhs_contracting_dims={0}, metadata={op_name="jit(step)/encoder/norm/dot"}'
  program = hlo.read(PROGRAM.replace('rhs_contracting_dims={0}', made))
  assert hlo.owner(program.computations['main']['f'], program) == 'encoder/norm'
  assert hlo.owner(program.computations['main']['done'], program) == 'encoder/block_0'
  assert hlo.owner(program.computations['main']['loop'], program) == ''


@pytest.mark.parametrize(
  'fields',
  [
    dict(window_strides=(1, 1), padding='SAME'),
    dict(window_strides=(2, 3), padding=[(13, 11), (0, 2)], rhs_dilation=(2, 1)),
    dict(window_strides=(1, 1), padding=[(15, 15), (0, 0)], lhs_dilation=(16, 1)),
    dict(window_strides=(15, 1), padding=[(0, 0), (4, 4)], lhs_dilation=(1, 3)),
    dict(window_strides=(1, 2), padding='VALID', feature_group_count=2),
  ],
)
def test_flops_of_convolutions_are_those_of_xla(fields):
  x, k = jnp.ones((2, 16, 9, 4)), jnp.ones((16, 3, 4 // fields.get('feature_group_count', 1), 6))
  convolve = lambda x, k: jax.lax.conv_general_dilated(
    x, k, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **fields
  )
  lowered = jax.jit(convolve).lower(x, k)
  text = lowered.compiler_ir('hlo').as_hlo_module().to_string()
  found = sum(map(hlo.flops, hlo.runs(hlo.read(text))))
  assert found == lowered.cost_analysis()['flops'] > 0


def test_flops_of_convolutions():
  text = """HloModule m

ENTRY %main (x: f32[2,8,8,3], k: f32[3,3,3,5]) -> f32[2,6,6,5] {
  %x = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %k = f32[3,3,3,5]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,6,6,5]{3,2,1,0} convolution(%x, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
}
"""
  assert sum(map(hlo.flops, hlo.runs(hlo.read(text)))) == 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)


def test_what_this_version_compiles_is_read():
  def f(x, w):
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=7)[0]

  x, w = jnp.ones((8, 16)), jnp.ones((16, 16))
  program = hlo.read(jax.jit(f).lower(x, w).compile().as_text())
  assert not hlo.unknown_loops(program)
  assert sum(run.times * hlo.flops(run) for run in hlo.runs(program)) == 7 * 2 * 8 * 16 * 16


DEVICES = """
import json, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from dgsct_jax import hlo, sharding
mesh = sharding.make_mesh((2, 4))
at = lambda shape, *spec: jax.ShapeDtypeStruct(
  shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))
step = lambda x, w: jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w) ** 2))(w)
def found(w, out):
  f = jax.jit(step, out_shardings=NamedSharding(mesh, P(*out)))
  text = f.lower(at((256, 32), ('data', 'fsdp')), w).compile().as_text()
  return hlo.collectives(hlo.read(text))
print(json.dumps([found(at((32, 64)), ()), found(at((32, 64), None, 'fsdp'), (None, 'fsdp'))]))
"""


def run(*words, check=True, **env):
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | env
  return subprocess.run(
    [sys.executable, *words],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=1800,
    check=check,
  )


def test_what_devices_send_to_each_other():
  flags = '--xla_force_host_platform_device_count=8'
  whole, split = json.loads(run('-c', DEVICES, XLA_FLAGS=flags).stdout)
  weights = 4 * 32 * 64
  assert list(whole) == ['all-reduce']
  assert whole['all-reduce'] == [1, weights, weights * 2 * 7 / 8]
  assert split['all-gather'] == [1, weights, weights * 3 / 4]  # from the four of 'fsdp'
  assert {'all-reduce', 'reduce-scatter'} & set(split)  # of the gradient


SPLIT = """
import json, jax
from dgsct_jax import hlo, plan, sharding, train
from dgsct_jax.tasks import registry
from tests import toy
registry.TASKS['toy'] = lambda config: toy.task(config.model.width)
config = toy.config(**{'model.width': 1040, 'mesh': (2, 4), 'data.batch': 64})
step = plan.abstract(config, sharding.make_mesh(config.mesh))
compiled, _ = train.compile_step(*step)
leaves = jax.tree.leaves((step.state, step.frozen))
sizes = [(leaf.size * leaf.dtype.itemsize, leaf.sharding.is_fully_replicated) for leaf in leaves]
print(json.dumps({
  'traffic': hlo.collectives(hlo.read(compiled.as_text())),
  'sizes': sizes,
  'planned': plan.held((step.state, step.frozen, step.batch)),
  'compiled': compiled.memory_analysis().argument_size_in_bytes,
}))
"""


def test_a_split_step_gathers_its_large_kernels_once_and_holds_its_share_of_them():
  flags = '--xla_force_host_platform_device_count=8'
  found = json.loads(run('-c', SPLIT, XLA_FLAGS=flags).stdout)
  kernel = 4 * 1040 * 1040
  assert sum(size == kernel for size, _ in found['sizes']) == 6  # two, with Adam's two moments
  assert not [size for size, whole in found['sizes'] if whole and size > sharding.SPLIT_BYTES]
  assert found['traffic']['all-gather'] == [2, 2 * kernel, 2 * kernel * 3 / 4]
  # Compilers for CPUs make no reduce-scatter: they sum over all and keep a part.
  assert found['traffic']['all-reduce'][1] > 2 * kernel
  assert found['compiled'] == pytest.approx(found['planned'], abs=1000)  # what is not used is left


@pytest.mark.parametrize(
  'name, devices', [('v5e:4x4', 16), ('v5p:2x2x1', 4), ('tpu7x:2x2x1', 8), ('gpu:h100x8', 8)]
)
def test_a_topology_has_devices(name, devices):
  assert chips.topology(name).devices == devices


@pytest.mark.parametrize('name', ['v5e', 'v9:2x2', 'h100x8', 'v5e:0x4', 'gpu:v5e:2x2', 'v5e:2y2'])
def test_an_unknown_chip_or_shape_is_an_error_that_names_the_chips(name):
  with pytest.raises(ValueError, match=f'--topology={name}: give CHIP:SHAPE .* v5e, v5p'):
    chips.topology(name)


def shapes(mesh):
  mesh = jax.sharding.AbstractMesh(mesh, sharding.AXES)
  config = toy.config(**{'model.width': 1040, 'data.batch': 16})
  config.task = 'toy'
  return plan.abstract(config, mesh)


@pytest.fixture
def with_toy(monkeypatch):
  monkeypatch.setitem(plan.registry.TASKS, 'toy', lambda config: toy.task(config.model.width))


def test_a_device_holds_its_share(with_toy):
  whole, split = shapes((8, 1)), shapes((2, 4))
  size = sum(x.size * 4 for x in jax.tree.leaves(whole.state.params))
  assert plan.held(whole.state.params) == size
  assert size / 4 <= plan.held(split.state.params) < size / 2  # small leaves stay whole
  assert plan.held(whole.state.opt_state) == pytest.approx(2 * size, abs=100)
  assert plan.held(whole.batch) == sum(x.size for x in jax.tree.leaves(whole.batch)) * 4 // 8
  text = '\n'.join(plan.from_shapes(whole, 1e6))
  assert 'does not fit' in text and 'too many. What helps' in text and 'bfloat16' in text


def test_what_does_not_divide_is_an_error(with_toy):
  config = toy.config(**{'data.batch': 12})
  config.task = 'toy'
  with pytest.raises(ValueError, match='12 clips do not divide over 8 devices'):
    plan.plan(config, chips.topology('gpu:h100x8'), True)
  config.mesh = (3, -1)
  with pytest.raises(ValueError, match='config.mesh=.3, -1. .* does not hold the 8 devices'):
    plan.plan(config, chips.topology('gpu:h100x8'), True)


@pytest.mark.skipif(bool(importlib.util.find_spec('libtpu')), reason='libtpu is installed')
def test_without_libtpu_that_is_said_with_the_remedy(with_toy):
  config = toy.config()
  config.task = 'toy'
  with pytest.raises(ValueError, match=r"pip install 'dgsct-jax\[plan\]' .*or give --arithmetic"):
    plan.plan(config, chips.topology('v5e:2x2'), False)


COMMAND = '-m', 'dgsct_jax.plan', f'--config={ROOT}/configs/ave.py:tiny'


def test_the_command_for_gpus_prints_what_they_hold():
  told = run(*COMMAND, '--topology=gpu:h100x8', '--config.data.batch=16').stdout
  assert told.startswith("gpu:h100x8: 8 devices as {'data': 8, 'fsdp': 1}, each with 80.00 GB")
  assert 'intermediate values are not in it' in told and '  together ' in told
  assert 'fits and leaves' in told and 'Compiled' not in told


def test_an_error_of_the_command_is_one_paragraph():
  wrong = run(*COMMAND, '--topology=v9:2x2', check=False)
  assert wrong.returncode == 1 and 'Traceback' not in wrong.stderr
  assert wrong.stderr.startswith('error: --topology=v9:2x2: give CHIP:SHAPE')


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='libtpu is not installed')
def test_a_step_is_compiled_for_tpus(with_toy):
  config = toy.config(**{'data.batch': 16})
  config.task = 'toy'
  told = plan.plan(config, chips.topology('v5e:2x2'), False)
  assert 'Compiled in' in told and 'all-reduce' in told and 'The largest' in told
