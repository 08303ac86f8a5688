"""HTS-AT layouts: the same weights under every name, and transformers' CLAP as an oracle."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import htsat, table
from dgsct_jax.models import mel
from dgsct_jax.models.htsat import HTSAT
from tests import field
from tests.parity import golden

FIELDS = dict(
  patch=4, width=8, depths=(2, 2), heads=(2, 4), mlp_ratio=4.0, window=8, n_fft=1024, mel_bins=64
)


def lightning(classes=527, sample_rate=32000):
  """Random weights under the names of the original files, without their prefix."""
  shapes = htsat.shapes(FIELDS | {'classes': classes}, tagging=True)
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  names = {name: x.shape for name, x in table.export(empty, htsat.TABLE_TAGGING).items()}
  state = golden.weights(names, seed=0) | htsat.front_end(sample_rate)
  extra = {
    'bn0.num_batches_tracked': np.zeros((), np.int64),
    'head.weight': np.zeros((classes, classes), np.float32),
    'head.bias': np.zeros(classes, np.float32),
    'layers.0.blocks.1.attn.relative_position_index': np.zeros((64, 64), np.int64),
  }
  return state | extra


def prefixed(state, prefix):
  return {prefix + name: x for name, x in state.items()}


def converted(state):
  plan = htsat.plan(state)
  return plan, table.convert(plan.state, plan.table, plan.targets)


@pytest.mark.parametrize(
  'classes, variant', [(527, 'audioset'), (50, 'esc50'), (35, 'scv2'), (9, 'custom')]
)
def test_the_released_configurations_are_named_by_their_classes(classes, variant):
  plan, _ = converted(prefixed(lightning(classes), 'sed_model.'))
  assert plan.layout == 'lightning' and plan.variant == variant


def test_the_filters_of_the_file_are_kept():
  _, ours = converted(lightning(sample_rate=16000))
  np.testing.assert_array_equal(
    ours['params/mel/mel_basis'], mel.mel_filters(16000, 1024, 64, 50, 14000)
  )


def test_the_audio_branch_of_laion_clap_gives_the_same_weights_and_leaves_fusion_and_text_out():
  _, want = converted(prefixed(lightning(), 'sed_model.'))
  clap = prefixed(
    lightning()
    | {
      'patch_embed.mel_conv2d.weight': np.ones((8, 1, 4, 12), np.float32),
      'patch_embed.fusion_model.local_att.0.weight': np.ones(3, np.float32),
    },
    'module.audio_branch.',
  )
  plan, got = converted(
    clap
    | {
      'module.text_branch.pooler.weight': np.ones(3, np.float32),
      'module.logit_scale_a': np.ones((), np.float32),
    }
  )
  assert plan.layout == 'laion clap' and plan.variant == 'clap' and got.keys() == want.keys()
  assert all((got[name] == x).all() for name, x in want.items())


def test_another_model_is_refused():
  with pytest.raises(ValueError, match='No HTS-AT in this file'):
    htsat.plan({'conv1.weight': np.zeros(3)})


NEEDED = (
  'logmel_extractor.melW',
  'spectrogram_extractor.stft.conv_real.weight',
  'spectrogram_extractor.stft.conv_imag.weight',
  'bn0.bias',
  'patch_embed.proj.weight',
  'layers.0.blocks.0.attn.relative_position_bias_table',
  'layers.0.blocks.0.mlp.fc1.bias',
)


@pytest.mark.parametrize(
  'missing, prefix',
  [
    *(((name,), '') for name in NEEDED),
    (NEEDED[:2], 'sed_model.'),
    (NEEDED[2:], 'module.audio_branch.'),
  ],
)
def test_all_that_is_missing_is_listed(missing, prefix):
  state = {name: x for name, x in lightning(classes=5).items() if name not in missing}
  with pytest.raises(ValueError) as error:
    converted(prefixed(state, prefix))
  for name in missing:
    assert f'{name}: missing' in str(error.value)
  assert f'{len(missing)} faults' in str(error.value)


@pytest.mark.parametrize('name', NEEDED)
@pytest.mark.parametrize('shape', [(), (10**6,)])
def test_what_tells_sizes_may_be_misshapen(name, shape):
  state = lightning(classes=5) | {name: np.broadcast_to(np.float32(0), shape)}
  with pytest.raises(ValueError, match=f'{name}: .*in the file'):
    converted(state)


@pytest.mark.parametrize(
  'file, status, told',
  [
    ('clap_pickle_protocol_4.pt.gz', 0, 'laion clap'),
    ('htsat_without_melW.pt.gz', 1, 'htsat_without_melW.pt .*\n.*logmel_extractor.melW: missing'),
  ],
)
def test_files_that_users_brought(tmp_path, capsys, file, status, told):
  given = field.unpacked(file, tmp_path)
  assert convert.main(['htsat', str(given), str(tmp_path / 'out.safetensors')]) == status
  printed = capsys.readouterr()
  assert re.search(told, printed.err if status else printed.out)


@pytest.mark.parametrize('fusion', [False, True])
def test_our_htsat_is_the_audio_encoder_of_transformers_clap(fusion):
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  depths, heads = (2, 2, 2, 2), (2, 2, 4, 4)
  torch.manual_seed(0)
  oracle = transformers.ClapAudioModel(
    transformers.ClapAudioConfig(
      patch_embeds_hidden_size=16,
      depths=list(depths),
      num_attention_heads=list(heads),
      window_size=8,
      hidden_size=128,
      num_mel_bins=64,
      enable_fusion=fusion,
    )
  ).eval()
  state = {name: x.numpy() for name, x in oracle.state_dict().items()}
  # The running statistics of this batch norm are those of decibels; fill.py knows it by another
  # name.
  rename = lambda name: (
    name.replace('batch_norm', 'bn0') if 'audio_encoder.batch_norm' in name else name
  )
  random = {
    name: golden.fill().tensor(rename(name), x.shape, 1)
    for name, x in state.items()
    if x.dtype == np.float32
  }
  state |= random
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})

  plan, ours = converted(state)
  assert plan.layout == 'transformers' and plan.variant == 'clap'
  wave = golden.fill().array('wave', (2, 320000), 0, 'wave')
  model = HTSAT(width=16, depths=depths, heads=heads, sample_rate=48000)

  @jax.jit
  def run(variables, wave):
    def forward(model, wave):
      decibels = model.mel.log_mel(wave)
      return decibels, model.body(
        model.patch_embed(model.mel.image(model.mel.normalise(decibels, False)))
      )

    return model.apply(variables, wave, method=forward)

  with jax.default_matmul_precision('highest'):
    decibels, tokens = run(tree.unflatten(ours), wave)
  scale, bias = state['audio_encoder.norm.weight'], state['audio_encoder.norm.bias']
  tokens = (tokens - tokens.mean(-1, keepdims=True)) / jnp.sqrt(
    tokens.var(-1, keepdims=True) + 1e-5
  )
  tokens = tokens * scale + bias
  features = torch.from_numpy(np.array(decibels)[:, None])
  with torch.no_grad():
    # Fused clips carry three crops besides; a clip that is not longer than 10 s uses the first
    # picture alone.
    features = features.expand(-1, 4, -1, -1) if fusion else features
    want = oracle(features, is_longer=torch.zeros(2, 1, dtype=torch.bool)).pooler_output.numpy()
  assert golden.rms(tokens.mean(1) - want) < 3e-5 * golden.rms(want)
