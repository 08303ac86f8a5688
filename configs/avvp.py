"""AVVP (LLP) with DG-SCT at full size: Swin-V2-L (192 px) × HTS-AT, parsing from weak labels.

python -m dgsct_jax.main --config=configs/avvp.py --config.data.dir=DIR \
    --config.init.visual=swin.safetensors --config.init.audio=htsat.safetensors

DIR: `python -m dgsct_jax.data.prepare llp --source FOLDER --out DIR`; FOLDER holds the features of
motion, too, or go without: --config.model.head.motion=none. Weights: see README.
Paper: Type@AV 57.1 % by seconds, 50.5 % by events, on the test split (one run). Verified here: the
head with its gradients, the metrics and the whole model agree with the released code on stand-in
weights (tests/parity). Not verified: the scores, for want of the data and the weights.

`configs/avvp.py:released` trains as the release does, with live drop-path, SpecAugment and `bn0`
statistics in the frozen backbones, and sounds that are mixed while their labels are not.
docs/avvp.md has every difference.
`configs/avvp.py:scenes` is the same at toy size on composed clips: minutes on two CPU cores, no
download. `scenes,none` is without adapters, `scenes,audio` and `scenes,video` with the other stream
of input silenced; `scenes,stamps` takes photographs and recordings (--config.data.media=DIR).
`configs/avvp.py:tiny` is smaller still, with random weights, for tests.
"""

from configs import common, unimodal

# Like the clips of LLP (data/scene_labels.py), at the size of the small encoders.
LLP = {
  'segments': 10,
  'size': 64,
  'sample_rate': 8000,
  'events': (1, 2),
  'distractors': (0, 2),
  'offscreen': 0.6,
  'scale': (0.35, 0.6),
}


def get_config(variant: str = ''):
  config = common.get_config()
  config.task = 'avvp'
  config.seed = 1
  config.trainable = ('encoder/exchange_.*', 'parse/.*')
  config.init = {'visual': '', 'audio': '', 'all': ''}

  config.model = {
    'visual': {'variant': 'large_window12_192', 'image': 192},
    # Each second is heard ten times, as released.
    'audio': {'variant': 'audioset', 'tile': 10, 'sample_rate': 32000, 'mixup': False},
    'adapter': {
      'name': 'dgsct',
      'alpha': 0.3,
      'beta': 0.05,
      'tokens': 32,
      'reduction': 8,
      'groups': 2,
    },
    'head': {
      'classes': 25,
      'width': 128,
      'audio_depth': 3,
      'visual_depth': 3,
      'joint_depth': 6,
      'heads': 8,
      'drop_path': 0.1,
      'gamma': 0.05,
      'gate_width': 64,
      'assign': 'soft',  # of seconds to classes
      'joint_assign': 'soft',  # of classes heard to classes seen
      'other_assign': 'hard',  # of seconds heard to seconds seen
      'seconds': 'released',  # or 'own': a linear layer of their own
      'motion': 'r2plus1d_18',  # or 'none'
    },
    'backbone_mode': 'eval',
    'spec_augment': False,
    'dtype': 'float32',
    'remat': 'blocks',  # a fifth of the memory
  }
  config.loss = {'audio_smoothing': 0.0, 'visual_smoothing': 0.1, 'pseudo_weight': 1.0}
  config.data = {
    'name': 'llp',
    'dir': '',
    'batch': 8,
    'workers': 2,
    'segments': 10,
    'pseudo': '',  # folder of pseudo labels to learn from besides
    'blank': (),  # 'video', 'wave': what the model is not shown
  }
  config.optim.lr = 3e-4
  config.optim.schedule = 'step'
  config.optim.decay_epochs = 10
  config.optim.decay_rate = 0.1
  config.optim.epochs = 40
  config.optim.patience = 0

  variants = {
    'released': released,
    'scenes': scenes,
    'shapes': lambda config: None,  # what scenes are of unless they are of stamps
    'stamps': stamps,
    'dgsct': lambda config: None,
    'none': none,
    'audio': audio,
    'video': video,
    'tiny': tiny,
  }
  for name in filter(None, variant.split(',')):
    if name not in variants:
      raise ValueError(
        f'configs/avvp.py has no variant {name!r}; choose from {", ".join(variants)}.'
      )
    variants[name](config)
  return config


def released(config):
  config.model.backbone_mode = 'train'
  config.model.audio.mixup = True


def scenes(config, source='shapes'):
  config.init.visual = f'package:visual_{source}.safetensors'
  config.init.audio = f'package:audio_{source}.safetensors'
  config.model.visual = dict(unimodal.VISUAL)
  config.model.audio = dict(unimodal.AUDIO)
  config.model.remat = 'none'
  config.model.adapter.update(tokens=8, reduction=4, groups=2)
  config.model.head.update(
    classes=unimodal.CLASSES[source],
    width=64,
    audio_depth=1,
    visual_depth=1,
    joint_depth=2,
    gate_width=32,
    seconds='own',
    motion='none',
  )
  config.data.update(
    {
      'name': f'parsing_{source}',
      'dir': 'data',
      'workers': 0,
      'source': source,
      'media': '',  # stamps: the folder into which the Debian packages were unpacked
      'knobs': dict(LLP),
      'clips': {'train': 1200, 'val': 100, 'test': 300},
      'seed': 4,
    }
  )
  config.optim.lr = 1e-3
  config.optim.schedule = 'cosine'
  config.optim.clip_norm = 1.0
  config.optim.epochs = 6


def stamps(config):
  scenes(config, 'stamps')


def none(config):
  config.trainable = ('parse/.*',)
  config.model.adapter = {'name': 'none'}


def audio(config):
  none(config)
  config.data.blank = ('video',)


def video(config):
  none(config)
  config.data.blank = ('wave',)


def tiny(config):
  scenes(config)
  config.init.visual = config.init.audio = 'random'
  config.model.visual = {
    'variant': 'custom',
    'image': 32,
    'width': 8,
    'depths': (1,),
    'heads': (2,),
    'window': 4,
  }
  config.model.audio = {
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
  config.model.adapter.update(tokens=2, reduction=2)
  config.model.head.update(width=16, joint_depth=1, heads=2, gate_width=8)
  config.data.knobs.update(segments=3, size=32, sample_rate=1000)
  config.data.update(
    name='parsing_tiny', segments=3, batch=2, clips={'train': 4, 'val': 2, 'test': 3}
  )
  config.optim.epochs = 1
