"""Checkpoints of MA-AVT: there and back, folded, and what is refused."""

import math

import jax
import numpy as np
import pytest

from dgsct_jax.convert import ma_avt, table
from dgsct_jax.models.ma_avt import MAAVT
from dgsct_jax.models.vit import ViT
from tests.parity import golden

SIZES = dict(classes=3, prompts=2, shared_prompts=3, features=4)
BATCH = {
  'video': jax.ShapeDtypeStruct((1, 1, 16, 16, 3), np.float32),
  'wave': jax.ShapeDtypeStruct((1, 1, 16, 16), np.float32),
}


def released(contrast='blocks'):
  """Random weights under the released names."""
  vit = ViT(image=16, patch=8, width=8, depths=(2,), heads=1)
  model = MAAVT(vit, lambda picture: picture, contrast=contrast, **SIZES)
  shapes = table.targets(model, BATCH)
  rng = np.random.default_rng(0)
  ours = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  return ours, ma_avt.export(ours)


@pytest.mark.parametrize('contrast', ['blocks', 'final'])
def test_what_is_exported_converts_to_the_same(contrast):
  ours, state = released(contrast)
  plan = ma_avt.plan({f'module.{name}': x for name, x in state.items()})
  found = table.convert(plan.state, plan.table, plan.targets)
  assert found.keys() == ours.keys()
  assert all((found[name] == x).all() for name, x in ours.items())


def test_exported_names_are_those_of_the_release():
  (case,) = (case for case in golden.cases() if case.name == 'ma_avt_tiny')
  state = case.weights()
  plan = ma_avt.plan(state)
  exported = ma_avt.export(table.convert(plan.state, plan.table, plan.targets))
  unread = {f'logit_scale.{k}' for k in range(12)} | {'ViT.v.head.weight', 'ViT.v.head.bias'}
  assert exported.keys() - state.keys() == unread and not state.keys() - exported.keys()
  assert all((exported[name] == x).all() for name, x in state.items())
  assert exported['logit_scale.3'] == np.float32(math.log(1 / 0.07))
  assert exported['ViT.v.head.weight'].shape == (21843, 192)


def test_folded_it_has_neither_attention_of_prompts_nor_projections():
  ours, state = released()
  folded = ma_avt.export_folded(ours)
  gone = {name.split('.')[0] for name in state.keys() - folded.keys()}
  assert gone == {
    'visual_attn', 'audio_attn', 'shared_attn', 'vis_proj', 'audio_proj', 'logit_scale',
  }  # fmt: skip
  assert folded['shared_tokens'].shape == (3, 8)
  assert np.abs(folded['shared_tokens'] - state['shared_tokens']).max() > 0.1
  plan = ma_avt.plan(folded)
  assert 'params/shared_attn/qkv/kernel' not in plan.targets


def test_another_checkpoint_is_refused():
  with pytest.raises(ValueError, match='No released MA-AVT checkpoint: shared_tokens, .* missing'):
    ma_avt.plan({'conv1.weight': np.zeros(3)})


def test_missing_and_surplus_tensors_are_named():
  _, state = released()
  del state['shared_attn.proj.bias']
  state['cnt_audio_token'] = np.zeros((1, 8), np.float32)
  plan = ma_avt.plan(state)
  with pytest.raises(ValueError) as error:
    table.convert(plan.state, plan.table, plan.targets)
  assert 'shared_attn.proj.bias: missing' in str(error.value)
  assert 'cnt_audio_token: (1, 8) in the file, neither used nor dropped' in str(error.value)
