"""Models.

Dimension letters, everywhere in this package: `b` clips (or rows of segments), `t` segments, `n` tokens, `m` tokens of
the other stream, `d` width, `e` width of the other stream, `h w` grid, `k` heads, `s` samples, `c` channels or classes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from dgsct_jax.models import adapters, htsat, swin_v2
from dgsct_jax.models.dual import DualEncoder

ADAPTERS = {'dgsct': adapters.DGSCTAdapter}


def build(config: ml_collections.ConfigDict) -> DualEncoder:
  """The dual encoder of `config.model`: `visual`, `audio`, and `adapter`: its name, or 'none', and fields."""
  return DualEncoder(build_visual(config), build_audio(config), build_exchange(config))


def build_visual(config: ml_collections.ConfigDict) -> swin_v2.SwinV2:
  """`config.visual`: variant and fields of a Swin V2."""
  return swin_v2.build(**shared_fields(config) | dict(config.visual))


def build_audio(config: ml_collections.ConfigDict) -> htsat.HTSAT:
  """`config.audio`: variant and fields of an HTS-AT. `config.spec_augment`: hide stripes of the spectrogram."""
  live = config.backbone_mode == 'train'
  fields = dict(batch_stats=live, spec_augment=live or config.spec_augment)
  return htsat.build(**shared_fields(config) | fields | dict(config.audio))


def shared_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """What both backbones are told.

  `backbone_mode`: 'eval' holds them still in training too; 'train' lets them do as the release's do, frozen or not:
  drop-path, SpecAugment, moving `bn0` statistics. `remat`: 'none' or 'blocks'. `dtype`: of the computation.
  """
  modes = {'eval': dict(drop_path=0.0), 'train': {}}
  if config.backbone_mode not in modes:
    raise ValueError(
      f"config.model.backbone_mode is {config.backbone_mode!r}; set 'eval' or 'train'."
    )
  if config.remat not in ('none', 'blocks'):
    raise ValueError(f"config.model.remat is {config.remat!r}; set 'none' or 'blocks'.")
  return (
    dict(dtype=jnp.dtype(config.dtype), remat=config.remat == 'blocks')
    | modes[config.backbone_mode]
  )


def build_exchange(config: ml_collections.ConfigDict) -> Callable[[], nn.Module]:
  """Makes the pair of adapters between the streams."""
  fields = dict(config.adapter)
  name = fields.pop('name')
  if name == 'none':
    return adapters.NoExchange
  if name not in ADAPTERS:
    raise ValueError(
      f'config.model.adapter.name is {name!r}; choose one of none, {", ".join(ADAPTERS)}.'
    )
  audio_gate = fields.pop('audio_gate', True)
  adapter = functools.partial(ADAPTERS[name], dtype=jnp.dtype(config.dtype), **fields)
  audio_adapter = None if audio_gate else functools.partial(adapter, gate=False)
  return functools.partial(
    adapters.Exchange, adapter, audio_adapter, remat=config.remat == 'blocks'
  )
