"""The released AVS checkpoints: what of them is read, there and back, and what is dropped."""

import functools

import jax
import numpy as np
import pytest

from configs import avs_ms3, avs_s4
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import avs, read, release, table
from dgsct_jax.tasks import registry
from tests.models import filled

CONFIGS = {'s4': avs_s4, 'ms3': avs_ms3}
UNREAD = {  # names of the release that nothing reads
  'encoder_backbone.block1.0.attn.q.weight': (3, 3),
  'conv1.conv2d_list.0.bias': (4,),
  'x1_linear.weight': (2, 2),
  'temporal_attn.video_decoder.0.affine_matrix.bias': (8,),
  'temporal_attn.audio_encoder.3.encoder_layer.norm1.bias': (8,),
  'path4.resConfUnit1.conv1.bias': (16,),
  'tpavi_b2.W_z.1.num_batches_tracked': (),
  'vis_adapter_blocks_p1.0.ln_before.weight': (16,),
  'audio_adapter_blocks_p2.1.temporal_gated.0.bias': (1,),
  'swin.head.bias': (7,),
  'htsat.tscam_conv.bias': (2,),
}


@functools.cache
def ours(task: str) -> table.State:
  """The variables of a small model in four stages, as the release has them."""
  config = CONFIGS[task].get_config('released,tiny')
  for stream in (config.model.visual, config.model.audio):
    stream.update(depths=(1,) * 4, heads=(1,) * 4, window=2, width=16)
  config.model.visual.update(image=64, patch=4)
  config.model.audio.update(size=64, mel_bins=16, patch=4)
  config.model.adapter.reduction = {'s4': 8, 'ms3': 2}[task]
  config.model.head.width = 16
  model = registry.build(config).model
  batch = {
    'video': jax.ShapeDtypeStruct((1, 2, 64, 64, 3), np.float32),
    'wave': jax.ShapeDtypeStruct((1, 2, 1000), np.float32),
  }
  shapes = table.targets(model, batch)
  return {name: filled.value(name, shape, None) for name, shape in shapes.items()}


@functools.cache
def theirs(task: str) -> table.State:
  state = release.export_avs(ours(task))
  unread = {name: np.full(shape, 3, np.float32) for name, shape in UNREAD.items()}
  if task == 's4':
    unread |= {
      f'{stream}_adapter_blocks_p{part}.{i}.conv_adapter.{leaf}': np.zeros(shape, np.float32)
      for stream, n in (('vis', 256), ('audio', 256))
      for part in (1, 2)
      for i in range(4)
      for leaf, shape in (('weight', (n >> 2 * i,) * 2 + (1, 1)), ('bias', (n >> 2 * i,)))
    }
  return state | unread


@pytest.mark.parametrize('task', CONFIGS)
def test_there_and_back_changes_nothing(task):
  state = {f'module.{name}': x for name, x in theirs(task).items()}
  plan = avs.plan(state)
  assert plan.variant == f'avs_{task}'
  back = table.convert(plan.state, plan.table, plan.targets)
  assert back.keys() == ours(task).keys()
  for name, x in back.items():
    np.testing.assert_array_equal(x, ours(task)[name], err_msg=name)


@pytest.mark.parametrize('task', CONFIGS)
def test_names_shapes_and_axes_are_the_released_ones(task):
  state = release.export_avs(ours(task))
  shapes = {name: x.shape for name, x in state.items()}
  assert shapes['tpavi_b4.theta.weight'] == (8, 16, 1, 1, 1)
  assert shapes['temporal_attn.video_gated.3.0.weight'] == (1, 16)
  assert shapes['temporal_attn.audio_visual_rnn_layer.2.audio_rnn.weight_ih_l0_reverse'] == (32, 8)
  assert shapes['output_conv.2.weight'] == (2, 8, 3, 3)
  kernel = ours(task)['params/segment/tpavi_3/theta/kernel']
  np.testing.assert_array_equal(state['tpavi_b4.theta.weight'][..., 0, 0, 0], kernel.T)
  conv = ours(task)['params/segment/decode/fuse_1/own/conv2/kernel']
  np.testing.assert_array_equal(
    state['path2.resConfUnit1.conv2.weight'], conv.transpose(3, 2, 0, 1)
  )
  assert ('vis_adapter_blocks_p1.0.conv_adapter.weight' in shapes) == (task == 'ms3')
  assert not any(name.startswith('path4.resConfUnit1') for name in shapes)
  assert not any('audio_adapter' in name and name.endswith('.gate') for name in shapes)


@pytest.mark.parametrize('task', CONFIGS)
def test_what_is_never_read_is_dropped_with_a_reason(task):
  gone = table.dropped(avs.TABLES[task], theirs(task))
  assert UNREAD.keys() <= gone.keys() and all(gone.values())
  maps = {name for name in theirs(task) if 'conv_adapter' in name}
  assert maps and maps.isdisjoint(gone) == (task == 'ms3')
  assert not any(name in gone for name in release.export_avs(ours(task)))


def test_the_command_line_converts_and_fills_up_from_the_original(tmp_path, task='s4'):
  pytest.importorskip('torch')
  released, out, again = (tmp_path / name for name in ('released.pt', 'ours.safetensors', 'new.pt'))
  read.write(released, theirs(task), {})
  assert convert.main(['dgsct-avs', str(released), str(out)]) == 0
  assert read.metadata(out)['variant'] == f'avs_{task}'
  export = ['--export', 'dgsct-avs', str(out), str(again), '--original', str(released)]
  assert convert.main(export) == 0
  found = read.read(again)
  assert found.keys() == theirs(task).keys()
  for name, x in found.items():
    np.testing.assert_array_equal(x, theirs(task)[name], err_msg=name)


def test_another_bottleneck_is_neither_task():
  state = dict(theirs('ms3'))
  for name in [name for name in state if 'sampler' in name]:
    state[name] = state[name][: len(state[name]) // 2]
  with pytest.raises(ValueError, match='reduce the width by 4; S4 was released with 8, MS3 with 2'):
    avs.plan(state)


def test_other_checkpoints_are_refused():
  with pytest.raises(ValueError, match='No released AVS checkpoint: audio_adapter_blocks_p1'):
    avs.plan({'CMBS.video_cas.bias': np.zeros(3)})
