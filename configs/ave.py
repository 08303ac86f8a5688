"""AVE with DG-SCT at full size: Swin-V2-L (192 px) × HTS-AT, event localisation.

python -m dgsct_jax.main --config=configs/ave.py --config.data.dir=DIR \
    --config.init.visual=swin.safetensors --config.init.audio=htsat.safetensors

DIR: `python -m dgsct_jax.data.prepare ave --source FOLDER --out DIR`. Weights:
`python -m dgsct_jax.convert`, see README.
Paper: 82.2 % segment accuracy on the test split (selected on the test split, one run). Verified
here: every module and the whole model agree with the released code on stand-in weights
(tests/parity). Not verified: the accuracy, for want of the data and the weights.

`configs/ave.py:released` trains as the release does, including its mistakes: half of the batches
discarded, selection on the test split, active drop-path, SpecAugment and moving `bn0` statistics in
the frozen backbones.
`configs/ave.py:weak` learns from the class of each clip alone.
`configs/ave.py:tiny` is the same model at toy size with random weights, for tests.
"""

from configs import common, composed


def get_config(variant: str = ''):
  config = common.get_config()
  config.task = 'ave'
  config.seed = 43
  config.trainable = ('encoder/exchange_.*', 'temporal/.*', 'localize/.*')
  config.init = {'visual': '', 'audio': '', 'all': ''}

  config.model = {
    'visual': {'kind': 'swin_v2', 'variant': 'large_window12_192', 'image': 192},
    # Each second is repeated ten times, as released.
    'audio': {'kind': 'htsat', 'variant': 'audioset', 'tile': 10, 'sample_rate': 32000},
    'adapter': {
      'name': 'dgsct',
      'alpha': 0.3,
      'beta': 0.05,
      'tokens': 32,
      'reduction': 8,
      'groups': 2,
    },
    'head': {'classes': 28, 'weak': False, 'gamma': 0.1, 'width': 256, 'gate_loss': 'logits'},
    'backbone_mode': 'eval',
    'spec_augment': False,
    'dtype': 'float32',
    'remat': 'blocks',  # a fifth of the memory
  }
  config.data = {
    'kind': 'ave',
    'name': 'ave',
    'dir': '',
    'batch': 8,
    'workers': 2,
    'segments': 10,
    'blank': (),
  }
  config.optim.lr = 5e-4
  config.optim.schedule = 'step'
  config.optim.decay_epochs = 3
  config.optim.decay_rate = 0.35
  config.optim.epochs = 50
  config.optim.patience = 20
  config.optim.accumulate = 1

  return common.variant(config, variant, released=released, weak=weak, tiny=tiny)


def released(config):
  config.model.backbone_mode = 'train'
  config.optim.accumulate = 'released'
  config.select_on = 'test'


def weak(config):
  config.model.head.weak = True


def tiny(config):
  config.init.visual = config.init.audio = 'random'
  config.model.visual = composed.TINY_VISUAL | {'depths': (1, 2), 'heads': (1, 2)}
  config.model.audio = composed.TINY_AUDIO | {
    'depths': (1, 1),
    'heads': (1, 2),
    'sample_rate': 4000,
    'n_fft': 128,
    'hop': 64,
    'fmax': 2000.0,
  }
  config.model.remat = 'none'
  config.model.adapter.tokens = 2
  config.model.adapter.reduction = 2
  config.model.head.width = 16
  config.data.batch = 2
  config.data.workers = 0
  config.optim.epochs = 1
