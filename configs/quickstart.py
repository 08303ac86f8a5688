"""The whole of DG-SCT at toy size, on scenes composed here: a result in minutes on two CPU cores.

python -m dgsct_jax.main --config=configs/quickstart.py

Clips of ten seconds show up to four drawn objects; some move silently, some sound; one is the event. Frozen encoders
that know objects and sounds (configs/unimodal.py) are adapted to say which object it is, and when it is
both seen and heard. See the README for results and what they are worth.

`configs/quickstart.py:stamps` does the same on real photographs and recordings; give --config.data.media=DIR.
`none` (frozen encoders and the head alone), `audio` and `video` (one stream of input silenced) are for comparison, as in
configs/quickstart.py:stamps,none.
"""

from configs import common, unimodal

WORDS = ('shapes', 'stamps', 'dgsct', 'none', 'audio', 'video')

# Of drawn shapes there are as many as one likes, of photographs and recordings few.
CLIPS, EPOCHS = {'shapes': 1500, 'stamps': 600}, {'shapes': 3, 'stamps': 6}


def get_config(variant: str = ''):
  words = variant.split(',') if variant else []
  if unknown := set(words) - set(WORDS):
    raise ValueError(
      f'configs/quickstart.py:{variant} has unknown words {sorted(unknown)}; choose from {WORDS}.'
    )
  source = 'stamps' if 'stamps' in words else 'shapes'
  config = common.get_config()
  config.task = 'ave'
  config.seed = 0
  config.trainable = ('encoder/exchange_.*', 'temporal/.*', 'localize/.*')
  config.init.visual = f'package:visual_{source}.safetensors'
  config.init.audio = f'package:audio_{source}.safetensors'

  config.model = {
    'visual': unimodal.VISUAL,
    'audio': unimodal.AUDIO,
    'adapter': {
      'name': 'dgsct',
      'alpha': 0.3,
      'beta': 0.05,
      'tokens': 8,
      'reduction': 4,
      'groups': 2,
    },
    'head': {
      'classes': unimodal.CLASSES[source],
      'weak': False,
      'gamma': 0.1,
      'width': 64,
      'gate_loss': 'logits',
    },
    'backbone_mode': 'eval',
    'spec_augment': False,
    'dtype': 'float32',
    'remat': 'none',
  }
  config.data = {
    'name': f'quickstart_{source}',
    'dir': 'data',
    'batch': 8,
    'workers': 0,
    'segments': 10,
    'blank': (),
    'source': source,
    'media': '',
    'knobs': {
      'segments': 10,
      'size': 64,
      'sample_rate': 8000,
      'distractors': (0, 2),
      'scale': (0.35, 0.6),
    },
    'clips': {'train': CLIPS[source], 'val': 100, 'test': 300},
    'seed': 2,
  }
  config.optim.lr = 2e-3
  config.optim.schedule = 'cosine'
  config.optim.clip_norm = 1.0
  config.optim.epochs = EPOCHS[source]
  config.optim.patience = 0
  if {'none', 'audio', 'video'} & set(words):
    config.model.adapter = {'name': 'none'}
    config.trainable = ('temporal/.*', 'localize/.*')
  if 'audio' in words:
    config.data.blank = ('video',)
  if 'video' in words:
    config.data.blank = ('wave',)
  return config
