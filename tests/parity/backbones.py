"""Golden cases of the backbones and of the audio front end, through the converter's tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgsct_jax import tree
from dgsct_jax.convert import htsat, swin_v2, table
from dgsct_jax.models import mel
from dgsct_jax.models.htsat import HTSAT
from dgsct_jax.models.swin_v2 import SwinV2
from tests.parity.golden import Case


def swin_fields(settings: dict[str, Any]) -> dict[str, Any]:
  return dict(
    image=settings['img_size'],
    patch=settings['patch_size'],
    window=settings['window_size'],
    width=settings['embed_dim'],
    depths=tuple(settings['depths']),
    heads=tuple(settings['num_heads']),
    mlp_ratio=settings.get('mlp_ratio', 4.0),
  )


def htsat_fields(settings: dict[str, Any]) -> dict[str, Any]:
  return dict(
    window=settings['window'],
    width=settings['dim'],
    depths=tuple(settings['depths']),
    heads=tuple(settings['heads']),
    size=settings['spec_size'],
    classes=settings.get('classes', 527),
    sample_rate=settings.get('sample_rate', 32000),
    hop=settings.get('hop_size', 320),
  )


def adapter_fields(settings: dict[str, Any]) -> dict[str, Any]:
  return dict(
    alpha=settings['channel_gate'],
    beta=settings['spatial_gate'],
    tokens=settings['num_tokens'],
    reduction=settings.get('reduction') or settings['Adapter_downsample'],
    groups=settings.get('groups') or settings['num_conv_group'],
  )


def blocks(stages: Any, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
  """Runs all stages; the outputs of stage 0's blocks and of every stage."""
  seen = {}
  for i, stage in enumerate(stages):
    for j, block in enumerate(stage.blocks):
      x = block(x, False)
      if i == 0:
        seen[f'stage0_block{j}'] = x
    seen[f'stage{i}'] = x = stage.downsample(x)
  return seen, x


def run_swin_v2(case: Case) -> dict[str, jax.Array]:
  plan = swin_v2.plan(case.weights())
  variables = tree.unflatten(table.convert(plan.state, plan.table, plan.targets))

  @jax.jit
  def run(variables, x):
    def forward(model, x):
      tokens = model.stem(x)
      seen, x = blocks(model.stages, tokens)
      return seen | {'patch_embed': tokens, 'norm': model.norm(x)}

    return SwinV2(**swin_fields(case.settings)).apply(variables, x, method=forward)

  return run(variables, channels_last(case.inputs()['frames']))


def run_htsat(case: Case) -> dict[str, jax.Array]:
  plan = htsat.plan(case.weights() | htsat.front_end())
  fields = htsat.sizes(plan.state)
  variables = tree.unflatten(
    table.convert(plan.state, htsat.TABLE_TAGGING, htsat.shapes(fields, tagging=True))
  )

  @jax.jit
  def run(variables, wave):
    def forward(model, wave):
      tokens = model.stem(wave)
      seen, x = blocks(model.stages, tokens)
      x = model.norm(x)
      return seen | {'patch_embed': tokens, 'norm': x, 'latent_output': x.mean(1)}

    model = HTSAT(**htsat_fields(case.settings))
    tags = model.apply(variables, wave, method=HTSAT.tag)
    seen = {
      'clipwise_output': jax.nn.sigmoid(tags['clip_logits']),
      'framewise_output': jax.nn.sigmoid(tags['frame_logits']),
    }
    return seen | (
      model.apply(variables, wave, method=forward) if 'patch_embed' in case.outputs else {}
    )

  return run(variables, case.inputs()['wave'])


def run_front_end(case: Case) -> dict[str, jax.Array]:
  settings, wave = case.settings, case.inputs()['wave']
  model = mel.LogMel(
    settings['sample_rate'],
    settings['window_size'],
    settings['hop_size'],
    settings['mel_bins'],
    settings['fmin'],
    settings['fmax'],
    settings['spec_size'],
    tile=10 if 'repeat it 10' in case.notes else 1,
  )
  targets = table.targets(model, jax.ShapeDtypeStruct(wave.shape, np.float32), train=False)
  targets = {name.replace('/', '/mel/', 1): shape for name, shape in targets.items()}
  state = case.weights() | htsat.front_end(
    settings['sample_rate'],
    settings['window_size'],
    settings['mel_bins'],
    settings['fmin'],
    settings['fmax'],
  )
  variables = tree.unflatten(table.convert(state, htsat.TABLE, targets))
  variables = {collection: values['mel'] for collection, values in variables.items()}

  def forward(model, wave):
    power, order = model.power(wave)
    log_mel = model.log_mel(wave)
    bn0 = model.normalise(log_mel, False)
    return {
      'power': power[:, None, order],
      'logmel': log_mel[:, None],
      'bn0': bn0[:, None],
      'image': jnp.moveaxis(model.image(bn0), -1, 1),
      'mel_filters': model.mel_basis,
    }

  return model.apply(variables, wave, method=forward)


def channels_last(frames: np.ndarray) -> np.ndarray:
  return np.moveaxis(frames, -3, -1)
