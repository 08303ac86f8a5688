"""Toy encoders and composed clips, for the `scenes` variants of the configs.

The encoders' weights are files of the package; configs/unimodal.py trained them.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

# Patches of 8: 8×8 tokens, then 4×4. All attention is global at this size.
VISUAL = {
  'kind': 'swin_v2',
  'variant': 'custom',
  'image': 64,
  'patch': 8,
  'width': 48,
  'depths': (2, 2),
  'heads': (2, 4),
  'window': 8,
  'pretrained_windows': (0, 0),
  'drop_path': 0.0,
}
AUDIO = {
  'kind': 'htsat',
  'variant': 'audioset',
  'size': 64,
  'patch': 8,
  'mel_bins': 32,
  'n_fft': 256,
  'hop': 64,
  'sample_rate': 8000,
  'fmax': 4000.0,
  'width': 48,
  'depths': (2, 2),
  'heads': (2, 4),
  'window': 8,
  'drop_path': 0.0,
}
# A plain ViT over the same patches, and spectrograms of its size, of one second of composed sound.
VIT = {
  'kind': 'vit',
  'variant': 'custom',
  'image': 64,
  'patch': 8,
  'width': 72,
  'depths': (2, 2),
  'heads': 4,
}
SHARED = {
  'kind': 'shared',
  'front_end': 'fbank',
  'variant': 'lavish_ave',
  'sample_rate': 8000,
  'mel_bins': 64,
  'shift': 15.0,
  'frames': 64,
  'mean': -4.26,
  'std': 3.13,
}
# CLIP and CLAP at the size of these encoders, which read letters (configs/captions.py).
CLIP = {
  'kind': 'clip',
  'variant': 'custom',
  'image': 64,
  'patch': 8,
  'width': 64,
  'depths': (2, 2),
  'heads': 4,
  'features': 64,
}
TEXT = {
  'variant': 'custom',
  'vocabulary': 259,
  'context': 64,
  'width': 64,
  'depth': 2,
  'heads': 4,
  'features': 64,
}
ROBERTA = {'vocabulary': 259, 'positions': 66, 'width': 64, 'depth': 2, 'heads': 4}
CLASSES = {'shapes': 8, 'stamps': 13}

# Smaller still, for tests: random weights, compiled in seconds.
TINY_VISUAL = {
  'kind': 'swin_v2',
  'variant': 'custom',
  'image': 32,
  'width': 8,
  'depths': (1,),
  'heads': (2,),
  'window': 4,
}
TINY_VIT = {
  'kind': 'vit',
  'variant': 'custom',
  'image': 32,
  'patch': 8,
  'width': 16,
  'depths': (2,),
  'heads': 2,
}
TINY_CLIP = {
  'kind': 'clip',
  'variant': 'custom',
  'image': 32,
  'patch': 16,
  'width': 16,
  'depths': (1,),
  'heads': 2,
  'features': 8,
}
# Text towers that read letters.
TINY_TEXT = {
  'variant': 'custom',
  'vocabulary': 259,
  'context': 64,
  'width': 16,
  'depth': 1,
  'heads': 2,
  'features': 8,
}
TINY_ROBERTA = {'vocabulary': 259, 'positions': 66, 'width': 16, 'depth': 1, 'heads': 2}
TINY_AUDIO = {
  'kind': 'htsat',
  'variant': 'audioset',
  'size': 32,
  'mel_bins': 16,
  'width': 8,
  'depths': (1,),
  'heads': (2,),
  'window': 4,
  'sample_rate': 1000,
  'n_fft': 64,
  'hop': 32,
  'fmax': 500.0,
  'tile': 1,
}
TINY_SHARED = SHARED | {'sample_rate': 1000, 'mel_bins': 32, 'shift': 30.0, 'frames': 32}


def use(
  config: ml_collections.ConfigDict,
  source: str,
  name: str,
  knobs: Mapping[str, Any],
  clips: Mapping[str, int],
  seed: int,
  kind: str = 'scenes',
) -> None:
  """Sets toy encoders of the kinds that the config has, and clips of a source as the data.

  Args:
    source: 'shapes', drawn and synthesised; 'stamps', photographs and recordings, whose unpacked
      Debian packages are in the folder config.data.media.
    name: of the folder in config.data.dir.
    knobs: fields of `dgsct_jax.scenes.compose.Knobs`. clips: how many, for each split.
    kind: of config.data.
  """
  visual, audio = kinds(config)
  # No toy ViT has been trained: a config that has one trains it.
  config.init.visual = 'random' if visual == 'vit' else f'package:visual_{source}.safetensors'
  if audio != 'shared':
    config.init.audio = f'package:audio_{source}.safetensors'
  config.model.visual = of_kind(visual, swin_v2=VISUAL, vit=VIT)
  config.model.audio = of_kind(audio, htsat=AUDIO, shared=SHARED)
  config.model.remat = 'none'
  clips_of(config, source, name, knobs, clips, seed, kind)


def use_towers(
  config: ml_collections.ConfigDict,
  visual: Mapping[str, Any] = CLIP,
  text: Mapping[str, Any] = TEXT,
  audio: Mapping[str, Any] = AUDIO,
  roberta: Mapping[str, Any] = ROBERTA,
) -> None:
  """Sets the towers of CLIP and CLAP, random toy ones, and their tokenizer."""
  config.init.clip = config.init.clap = 'random'
  config.model.visual = dict(visual)
  config.model.text = dict(text)
  config.model.audio = dict(audio)
  config.model.roberta.update(roberta)
  config.model.features = text['features']
  config.model.tokenizer = {'clip': 'letters', 'clap': 'letters'}


def clips_of(
  config: ml_collections.ConfigDict,
  source: str,
  name: str,
  knobs: Mapping[str, Any],
  clips: Mapping[str, int],
  seed: int,
  kind: str = 'scenes',
) -> None:
  """Sets clips of a source as the data, see `use`."""
  config.data.update(
    {
      'kind': kind,
      'name': f'{name}_{source}',
      'dir': 'data',
      'workers': 0,
      'segments': knobs['segments'],
      'source': source,
      'media': '',
      'knobs': {'size': 64, 'sample_rate': 8000} | dict(knobs),
      'clips': dict(clips),
      'seed': seed,
    }
  )


def make_tiny(config: ml_collections.ConfigDict, segments: int = 3) -> None:
  """Sets tiny random encoders, and few, short clips, in a config with composed clips."""
  tiny_encoders(config)
  config.data.knobs.update(segments=segments, size=32, sample_rate=1000)
  config.data.update(
    name=f'{config.data.name}_tiny',
    segments=segments,
    batch=4,
    clips={'train': 6, 'val': 2, 'test': 2},
  )
  config.optim.epochs = 1


def tiny_encoders(config: ml_collections.ConfigDict) -> None:
  """Sets tiny random encoders of the kinds that the config has."""
  visual, audio = kinds(config)
  config.init.visual = 'random'
  if audio != 'shared':
    config.init.audio = 'random'
  config.model.visual = of_kind(visual, swin_v2=TINY_VISUAL, vit=TINY_VIT)
  config.model.audio = of_kind(audio, htsat=TINY_AUDIO, shared=TINY_SHARED)


def kinds(config: ml_collections.ConfigDict) -> tuple[str, str]:
  """Of both encoders; DG-SCT's where the config names none."""
  named = [config.model.get(stream, {}).get('kind') for stream in ('visual', 'audio')]
  return named[0] or 'swin_v2', named[1] or 'htsat'


def of_kind(kind: str, **encoders: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of the encoder of a kind. Raises ValueError if there is none."""
  if kind not in encoders:
    raise ValueError(
      f'There is a toy encoder of the kinds {", ".join(encoders)}, none of {kind!r}; set the fields'
      ' of a small one in your config.'
    )
  return dict(encoders[kind])
