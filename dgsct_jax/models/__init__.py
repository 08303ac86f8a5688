"""Models.

Dimension letters, everywhere in this package: `b` clips (or rows of segments), `t` segments,
`n` tokens, `m` tokens of the other stream, `d` width, `e` width of the other stream, `h w` grid,
`k` heads, `s` samples, `c` channels or classes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from dgsct_jax.models import (
  adapters,
  clip,
  efficientnet_lite,
  htsat,
  kaldi,
  lavish,
  remat,
  side,
  stft,
  swin_v2,
  variants,
  vit,
  yamnet,
)
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.listener import Listener
from dgsct_jax.models.variants import Partial

VISUAL: dict[str, Callable[..., nn.Module]] = {
  'swin_v2': swin_v2.build,
  'clip': clip.build_vision,
  'vit': vit.build,
  'efficientnet_lite': efficientnet_lite.build,
}
AUDIO: dict[str, Callable[..., nn.Module]] = {'htsat': htsat.build, 'yamnet': yamnet.build}
FRONT_ENDS = {'fbank': kaldi.build, 'log_magnitude': stft.build}
ADAPTERS = {'dgsct': adapters.DGSCTAdapter, 'lavish': lavish.LavishAdapter}


def build(config: ml_collections.ConfigDict) -> DualEncoder:
  """The dual encoder of `config.model`: `visual`, `audio` and `adapter`.

  The adapter's name may also be 'none', or 'side' for a ladder beside the backbones. With
  `adapter.stages` so many of the last stages have adapters, without it all.

  `audio.kind` 'shared': the visual backbone looks at spectrograms, too (LAVISH). `audio.front_end`
  names what makes them, the other fields are its own. `scan_layers`: meetings of the streams that
  are alike share a loop; missing in configs of older runs.
  """
  visual, exchange, ladder = build_visual(config), build_exchange(config), build_side(config)
  encoder = functools.partial(
    DualEncoder,
    exchange=exchange,
    stages=config.adapter.get('stages'),
    scan_layers=config.get('scan_layers', False),
    side=ladder,
  )
  if config.audio.kind != 'shared':
    return encoder(visual, build_audio(config))
  fields = {name: x for name, x in config.audio.items() if name != 'kind'}
  front_end = fields.pop('front_end')
  if front_end not in FRONT_ENDS:
    raise ValueError(
      f'config.model.audio.front_end is {front_end!r}; choose one of {", ".join(FRONT_ENDS)}.'
    )
  listener = Listener(visual, FRONT_ENDS[front_end](dtype=jnp.dtype(config.dtype), **fields))
  return encoder(visual, listener, split_audio=True, norm_audio=True)


def build_visual(config: ml_collections.ConfigDict) -> nn.Module:
  """The backbone of `config.visual`: its kind, variant and fields."""
  return _backbone(VISUAL, config.visual, 'visual', config)


def build_audio(config: ml_collections.ConfigDict) -> nn.Module:
  """The backbone of `config.audio`; `config.spec_augment` turns SpecAugment on."""
  live = config.backbone_mode == 'train'
  front_end = dict(batch_stats=live, spec_augment=config.spec_augment or live)
  return _backbone(AUDIO, config.audio, 'audio', config, **front_end)


def _backbone(
  known: Mapping[str, Callable[..., nn.Module]], fields: Any, stream: str, config: Any, **more: Any
) -> nn.Module:
  """One of the `known` backbones.

  `backbone_mode`: 'eval' runs it in evaluation mode during training too; 'train' keeps drop-path,
  SpecAugment and moving `bn0` statistics even where it is frozen, as released. `remat`: 'none',
  'cheap' or 'blocks'. `dtype`: of the computation.
  """
  fields = dict(fields)
  kind = fields.pop('kind')
  if kind not in known:
    raise ValueError(f'config.model.{stream}.kind is {kind!r}; choose one of {", ".join(known)}.')
  modes: dict[str, dict[str, Any]] = {'eval': dict(drop_path=0.0), 'train': {}}
  if config.backbone_mode not in modes:
    raise ValueError(
      f"config.model.backbone_mode is {config.backbone_mode!r}; set 'eval' or 'train'."
    )
  shared: dict[str, Any] = dict(dtype=jnp.dtype(config.dtype), remat=remat.named(config.remat))
  return known[kind](**shared | modes[config.backbone_mode] | more | fields)


def build_exchange(config: ml_collections.ConfigDict) -> Callable[[], nn.Module]:
  """The constructor of one exchange: the pair of adapters between the streams.

  With the adapters 'none' and 'side' there is none within the backbones.
  """
  fields = dict(config.adapter)
  name = fields.pop('name')
  fields.pop('stages', None)  # a field of the encoder
  if name in ('none', 'side'):
    return adapters.NoExchange
  if name not in ADAPTERS:
    raise ValueError(
      f'config.model.adapter.name is {name!r}; choose one of none, {", ".join(ADAPTERS)}, side.'
    )
  audio_gate = fields.pop('audio_gate', True)
  adapter = Partial(ADAPTERS[name], dtype=jnp.dtype(config.dtype), **fields)
  audio_adapter = None if audio_gate else Partial(adapter, gate=False)
  return Partial(adapters.Exchange, adapter, audio_adapter, remat=remat.named(config.remat))


def build_side(config: ml_collections.ConfigDict) -> Callable[[], nn.Module] | None:
  """The constructor of the ladder beside the backbones, if `adapter.name` is 'side'."""
  if config.adapter.name != 'side':
    return None
  fields = {name: x for name, x in config.adapter.items() if name != 'name'}
  fields = {'dtype': jnp.dtype(config.dtype)} | fields
  return Partial(side.Ladder, **variants.chosen(side.Ladder, variants.CUSTOM, 'custom', fields))
