"""The released few-shot checkpoint: every name of it, there and back, and what CLAP lends it."""

import numpy as np
import pytest

from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import htsat, matching, read, table
from tests.parity import golden

SCALES = {'logit_scale_a': np.full((), 4, np.float32), 'logit_scale_t': np.ones((), np.float32)}


def released():
  """All names with a use and some without; one value each, so that all takes no memory."""
  (case,) = (case for case in golden.cases() if case.name == 'fewshot_full')
  shapes = case.shapes | {
    'CMBS.video_cas.bias': [28],
    'audio_adapter.fc.weight': [2, 2],
    'audio_adapter_blocks_p1.0.gate_tk': [1],
    'vis_adapter_blocks_p2.11.fc_caption.weight': [192, 512],
    'clap_text_encoder.text_transform.sequential.0.bias': [512],
    'clap_text_encoder.text_branch.embeddings.position_ids': [1, 514],
    'prompt_learner.meta_net.linear1.bias': [32],
    'htsat.head.bias': [527],
  }
  state = {
    name: np.broadcast_to(np.float32(i), shape) for i, (name, shape) in enumerate(shapes.items())
  }
  return state | {f'htsat.{name}': x for name, x in htsat.front_end(48000).items()}


@pytest.fixture(scope='module')
def converted():
  plan = matching.plan(released() | SCALES)
  return plan, table.convert(plan.state, plan.table, plan.targets)


def test_every_name_is_used_or_dropped_and_goes_back(converted):
  plan, ours = converted
  back = matching.export(ours)
  dropped = table.dropped(plan.table, plan.state)
  assert back.keys() == released().keys() - dropped.keys()
  assert all(np.array_equal(x, plan.state[name]) for name, x in back.items())
  assert 'prompt_learner.token_suffix' in dropped and 'CMBS.video_cas.bias' in dropped


def test_blocks_of_the_image_tower_lie_in_the_stages_of_the_audio_tower(converted):
  plan, ours = converted
  np.testing.assert_array_equal(
    ours['params/clip/visual/stages_2/blocks_0/norm1/scale'],
    plan.state['ViT.transformer.resblocks.4.ln_1.weight'],
  )
  assert ours['params/clap/logit_scale_a'] == 4


def test_clap_lends_its_factors_by_either_name():
  for prefix in ('', 'module.'):
    lent = matching.borrow({prefix + name: x for name, x in SCALES.items()})
    assert lent.keys() == SCALES.keys()
  with pytest.raises(ValueError, match='No CLAP: logit_scale_t missing'):
    matching.borrow({'logit_scale_a': np.ones(())})


def test_without_claps_file_nothing_is_converted(tmp_path, capsys):
  read.write(tmp_path / 'in.safetensors', {'x': np.ones(1, np.float32)}, {})
  paths = str(tmp_path / 'in.safetensors'), str(tmp_path / 'out.safetensors')
  assert convert.main(['dgsct-matching', *paths]) == 1
  assert 'needs --original: the CLAP file' in capsys.readouterr().err
  assert convert.main(['clip', *paths, '--original', paths[0]]) == 1
  assert 'clip takes nothing from --original' in capsys.readouterr().err
  assert not (tmp_path / 'out.safetensors').exists()
