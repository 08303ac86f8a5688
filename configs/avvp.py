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
`configs/avvp.py:lavish` has one Swin-V2-L for both streams and LAVISH's adapters, `lavish_two`
these between the two backbones; both combine with `scenes` (docs/lavish.md).
`configs/avvp.py:light` has lighter adapters, `late` adapters in the last stages alone, `side` a
ladder beside the frozen encoders (docs/performance.md).
`configs/avvp.py:tiny` is smaller still, with random weights, for tests.
"""

from configs import common, composed

# Like the clips of LLP (dgsct_jax/scenes/labels.py), at the size of the small encoders.
LLP = {
  'segments': 10,
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
    'visual': {'kind': 'swin_v2', 'variant': 'large_window12_192', 'image': 192},
    # Each second is heard ten times, as released.
    'audio': {
      'kind': 'htsat',
      'variant': 'audioset',
      'tile': 10,
      'sample_rate': 32000,
      'mixup': False,
    },
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
    'scan_layers': False,
  }
  config.loss = {'audio_smoothing': 0.0, 'visual_smoothing': 0.1, 'pseudo_weight': 1.0}
  config.data = {
    'kind': 'llp',
    'name': 'llp',
    'dir': '',
    'batch': 8,
    'workers': 2,
    'segments': 10,
    'pseudo': '',  # folder of pseudo labels to learn from besides
    'blank': (),  # 'video', 'wave': what the model is not shown
    'cache_features': '',
  }
  config.optim.lr = 3e-4
  config.optim.schedule = 'step'
  config.optim.decay_epochs = 10
  config.optim.decay_rate = 0.1
  config.optim.epochs = 40
  config.optim.patience = 0

  return common.variant(
    config,
    variant,
    light=common.light,
    lavish=lavish,
    late=common.late,
    lavish_two=common.lavish_two,
    side=common.side,
    released=released,
    scenes=scenes,
    shapes=lambda config: None,  # what scenes are of unless they are of stamps
    stamps=lambda config: scenes(config, 'stamps'),
    tiny=tiny,
    dgsct=lambda config: None,
    none=common.without_adapters,
    audio=lambda config: alone(config, 'video'),
    video=lambda config: alone(config, 'wave'),
  )


def lavish(config):
  """LAVISH has no AVVP; these are its adapters as for AVE, under the head and recipe of DG-SCT."""
  adapter = {'reduction': 8, 'groups': 2, 'tokens': 2, 'batch_norm': True}
  common.lavish(config, adapter, {'variant': 'lavish_ave'})


def released(config):
  config.model.backbone_mode = 'train'
  if config.model.audio.kind == 'htsat':
    config.model.audio.mixup = True


def scenes(config, source='shapes'):
  clips = {'train': 600, 'val': 40, 'test': 120}
  composed.use(config, source, 'parsing', LLP, clips, seed=4)
  common.shrink(config, tokens=8, reduction=4, groups=2, width=64)
  config.model.head.update(
    classes=composed.CLASSES[source],
    width=64,
    audio_depth=1,
    visual_depth=1,
    joint_depth=2,
    gate_width=32,
    seconds='own',
    motion='none',
  )
  config.data.batch = 4
  config.optim.lr = 1e-3
  config.optim.lr_by_path = (('encoder/exchange_.*', 0.1),)  # at the head's they do harm
  config.optim.schedule = 'cosine'
  config.optim.clip_norm = 1.0
  config.optim.epochs = 8


def alone(config, blank):
  common.without_adapters(config)
  config.data.blank = (blank,)


def tiny(config):
  scenes(config)
  composed.make_tiny(config)
  config.data.clips = {'train': 4, 'val': 2, 'test': 3}
  config.data.batch = 2
  common.shrink(config, tokens=2, reduction=2, width=8, stages=1)
  config.model.head.update(
    width=16, audio_depth=1, visual_depth=1, joint_depth=1, heads=2, gate_width=8
  )
