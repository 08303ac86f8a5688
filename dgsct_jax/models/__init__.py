"""Models.

Dimension letters, everywhere in this package: `b` clips (or rows of segments), `t` segments, `n` tokens, `m` tokens of
the other stream, `d` width, `e` width of the other stream, `h w` grid, `k` heads, `s` samples, `c` channels or classes.
"""

import functools

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from dgsct_jax.models import adapters, htsat, swin_v2
from dgsct_jax.models.dual import DualEncoder

ADAPTERS = {'dgsct': adapters.DGSCTAdapter}


def build(config: ml_collections.ConfigDict) -> DualEncoder:
  """The dual encoder of `config.model`.

  `visual`, `audio`: variant and fields of the backbones; `adapter`: its name, or 'none', and fields.
  `backbone_mode`: 'eval' holds the frozen backbones still; 'train' lets them behave as the release's do in training
  (drop-path, SpecAugment, moving `bn0` statistics). `remat`: 'none' or 'blocks'. `dtype`: of the computation.
  """
  modes = {'eval': dict(drop_path=0.0), 'train': {}}
  if config.backbone_mode not in modes:
    raise ValueError(f"config.model.backbone_mode is {config.backbone_mode!r}; set 'eval' or 'train'.")
  if config.remat not in ('none', 'blocks'):
    raise ValueError(f"config.model.remat is {config.remat!r}; set 'none' or 'blocks'.")
  shared = dict(dtype=jnp.dtype(config.dtype), remat=config.remat == 'blocks') | modes[config.backbone_mode]
  live = config.backbone_mode == 'train'
  visual = swin_v2.build(**shared | dict(config.visual))
  audio = htsat.build(**shared | dict(batch_stats=live, spec_augment=live or config.spec_augment) | dict(config.audio))
  return DualEncoder(visual, audio, exchange(config))


def exchange(config: ml_collections.ConfigDict) -> functools.partial[nn.Module]:
  """Makes the pair of adapters between the streams."""
  fields = dict(config.adapter)
  name = fields.pop('name')
  if name == 'none':
    return adapters.NoExchange
  if name not in ADAPTERS:
    raise ValueError(f'config.model.adapter.name is {name!r}; choose one of none, {", ".join(ADAPTERS)}.')
  audio_gate = fields.pop('audio_gate', True)
  adapter = functools.partial(ADAPTERS[name], dtype=jnp.dtype(config.dtype), **fields)
  Exchange = nn.remat(adapters.Exchange, static_argnums=(3,)) if config.remat == 'blocks' else adapters.Exchange
  return functools.partial(Exchange, adapter, None if audio_gate else functools.partial(adapter, gate=False))
