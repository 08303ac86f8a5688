"""CLAP's layouts: the same weights under every name, and transformers' ClapModel as an oracle."""

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import clap, htsat, table
from tests.parity import golden

AUDIO = dict(
  patch=4, width=16, depths=(1, 1, 1, 1), heads=(2, 2, 4, 4), mlp_ratio=4.0, window=8, n_fft=1024
)
TEXT = dict(vocabulary=99, positions=13, width=128, depth=2, heads=2, mlp_ratio=2.0)


def laion():
  """Random weights under LAION's names, with what its fused files hold besides."""
  shapes = clap.shapes(AUDIO | {'mel_bins': 64}, TEXT, 24)
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  names = {name: x.shape for name, x in table.export(empty, clap.LAION).items()}
  filters = {f'audio_branch.{name}': x for name, x in htsat.front_end(48000).items()}
  state = golden.weights(names, seed=0) | filters
  fused = (
    'audio_branch.patch_embed.mel_conv2d.weight',
    'audio_branch.patch_embed.mel_conv2d.bias',
    'audio_branch.patch_embed.fusion_model.local_att.0.weight',
    'audio_branch.patch_embed.fusion_model.global_att.5.running_mean',
    'audio_branch.tscam_conv.weight',
    'audio_branch.tscam_conv.bias',
    'audio_branch.head.weight',
    'text_transform.sequential.0.weight',
    'audio_transform.sequential.3.bias',
  )
  state |= {name: np.ones(3, np.float32) for name in fused}
  state['text_branch.embeddings.position_ids'] = np.arange(13)[None]
  return {f'module.{name}': x for name, x in state.items()}


def test_a_file_of_laion_fills_both_towers_and_leaves_fusion_out_by_name():
  plan = clap.plan(laion())
  tensors = table.convert(plan.state, plan.table, plan.targets)
  assert (plan.layout, plan.variant) == ('laion', 'clap')
  assert tensors['params/text_projection/fc1/kernel'].shape == (128, 24)
  assert tensors['params/audio_projection/fc1/kernel'].shape == (128, 24)
  reasons = table.dropped(plan.table, plan.state)
  assert sum('fusion' in reason for reason in reasons.values()) == 4
  assert 'text_branch.embeddings.position_ids' in reasons


def test_an_unknown_tensor_is_not_dropped():
  plan = clap.plan(laion() | {'module.audio_branch.patch_embed.other': np.ones(3, np.float32)})
  with pytest.raises(ValueError, match='audio_branch.patch_embed.other.*neither used nor dropped'):
    table.convert(plan.state, plan.table, plan.targets)


def test_an_audio_tower_alone_is_refused():
  with pytest.raises(ValueError, match='No CLAP in this file'):
    clap.plan({name: x for name, x in laion().items() if 'text' not in name})


def test_our_towers_are_those_of_transformers():
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  torch.manual_seed(0)
  oracle = transformers.ClapModel(
    transformers.ClapConfig(
      text_config=dict(
        vocab_size=99,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=13,
        layer_norm_eps=1e-5,  # RoBERTa's; the default of ClapTextConfig is 1e-12.
        projection_dim=24,
      ),
      audio_config=dict(
        patch_embeds_hidden_size=16,
        depths=[1, 1, 1, 1],
        num_attention_heads=[2, 2, 4, 4],
        window_size=8,
        hidden_size=128,
        num_mel_bins=64,
        enable_fusion=False,
        projection_dim=24,
      ),
      projection_dim=24,
    )
  ).eval()
  # The running statistics of this batch norm are those of decibels; fill.py knows it by another
  # name.
  named = lambda name: name.replace('audio_encoder.batch_norm', 'bn0')
  state = {
    name: np.asarray(golden.fill().tensor(named(name), tuple(x.shape), 1))
    if x.is_floating_point()
    else x.numpy()
    for name, x in oracle.state_dict().items()
  }
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
  plan = clap.plan(state)
  tensors = table.convert(plan.state, plan.table, plan.targets)
  assert plan.layout == 'transformers'

  wave = golden.fill().array('wave', (2, 320000), 0, 'wave')
  ids = np.random.default_rng(0).integers(2, 99, (3, 11))
  ids[0, 5:] = 1
  model = clap.build(AUDIO | {'mel_bins': 64}, TEXT, 24)

  @jax.jit
  def run(variables, wave, ids):
    def forward(model, wave, ids):
      return model.audio.mel.log_mel(wave), *model(wave, ids)

    return model.apply(variables, wave, ids, method=forward)

  with jax.default_matmul_precision('highest'):
    decibels, heard, read = run(tree.unflatten(tensors), wave, ids)
    trimmed = run(tree.unflatten(tensors), wave[:, :3200], ids[:1, :5])[2]
  with torch.no_grad():
    # Its feature extractor would call a short clip longer at random: `is_longer` is ours.
    want_heard = oracle.get_audio_features(
      input_features=torch.from_numpy(np.array(decibels)[:, None]),
      is_longer=torch.zeros(2, 1, dtype=torch.bool),
    ).pooler_output
    want_read = oracle.get_text_features(
      input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy((ids != 1).astype(int))
    ).pooler_output
  for got, want in ((heard, want_heard), (read, want_read)):
    got, want = np.asarray(got), want.numpy()
    if abs(np.linalg.norm(want, axis=-1) - 1).max() < 1e-5:
      got = got / np.linalg.norm(got, axis=-1, keepdims=True)
    assert golden.rms(got - want) < 1e-5 * golden.rms(want)
  np.testing.assert_allclose(trimmed[0], read[0], rtol=1e-4, atol=1e-5)
