import hashlib

import jax
import numpy as np
import pytest

from configs import avqa as avqa_config
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import avqa, read, release, table
from dgsct_jax.tasks import registry
from tests.models import filled

# Names and shapes of the released networks (sorted `name<TAB>shape`), without 'module.'.
AVQA = '5211c9a1d64473c194fa72fb0ce1dd2806986a0f363c2d9eb82848b57fddc4bb'


def digest(state):
  lines = sorted(f'{name}\t{tuple(x.shape)}' for name, x in state.items())
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def model(variant):
  """Names and shapes of the variables of a model of configs/avqa.py."""
  config = avqa_config.get_config(variant)
  net = registry.build(config).model
  image, rate = config.model.visual.image, config.model.audio.sample_rate
  batch = {
    'video': jax.ShapeDtypeStruct((1, 2, image, image, 3), np.float32),
    'wave': jax.ShapeDtypeStruct((1, 2, rate), np.float32),
    'question': jax.ShapeDtypeStruct((1, 1, 14), np.int32),
  }
  return table.targets(net, batch)


@pytest.fixture(scope='module')
def ours():
  """A small model, with the gates that the released one has."""
  shapes = model('tiny')
  return {
    name: filled.value(name, shape, None)
    for name, shape in shapes.items()
    if not (name.endswith('audio/gate') and 'exchange' in name)
  }


def test_the_whole_network_goes_back_to_every_released_name_and_shape():
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in model('released').items()}
  assert digest(release.export_avqa(empty)) == AVQA


def test_there_and_back_changes_nothing(ours):
  state = release.export_avqa(ours, window=4, image_classes=3, sound_classes=1)
  plan = avqa.plan({f'module.{name}': x for name, x in state.items()})
  back = table.convert(plan.state, plan.table, plan.targets)
  assert back.keys() == ours.keys()
  for name, x in back.items():
    np.testing.assert_array_equal(x, ours[name], err_msg=name)


def test_what_is_never_read_is_dropped_with_a_reason(ours):
  state = release.export_avqa(ours, window=4, image_classes=3, sound_classes=1)
  gone = table.dropped(avqa.AVQA, state)
  dead = {
    f'{name}.{kind}'
    for name in ('fc_a1_pure', 'fc_a2_pure', 'norm3')
    for kind in ('weight', 'bias')
  }
  assert dead < gone.keys()
  assert not any(
    name in gone for name in ('fc_a1.weight', 'norm1.weight', 'question_encoder.lstm.bias_hh_l0')
  )


def test_the_pre_stage_gives_14_tensors_below_matching(ours, tmp_path):
  pytest.importorskip('torch')
  matching = {
    name.replace('/matching/', '/'): x for name, x in ours.items() if '/matching/' in name
  }
  state = {f'module.{name}': x for name, x in release.export_grounding(matching).items()}
  assert len(state) == 14
  backbones = {
    'module.swin.norm.bias': np.ones(3, np.float32),
    'module.htsat.bn0.num_batches_tracked': np.zeros((), np.int64),
  }
  released, out, again = (
    tmp_path / name for name in ('released.pt', 'ours.safetensors', 'again.pt')
  )
  read.write(released, state | backbones, {})
  assert convert.main(['dgsct-grounding', str(released), str(out)]) == 0
  found = read.read(out)
  assert found.keys() == matching.keys()
  for name, x in found.items():
    np.testing.assert_array_equal(x, matching[name])
  assert convert.main(['--export', 'dgsct-grounding', str(out), str(again)]) == 0
  for name, x in read.read(again).items():
    np.testing.assert_array_equal(x, state.pop(name))
  assert not state


def test_other_checkpoints_are_refused():
  with pytest.raises(
    ValueError, match='No released AVQA checkpoint: audio_adapter_blocks_p1.0.my_tokens'
  ):
    avqa.plan({'CMBS.video_cas.bias': np.zeros(3)})
