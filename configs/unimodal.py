"""Small encoders for the quickstart, each trained on one modality alone: to name all objects in a picture, or all sounds.

python -m dgsct_jax.main --config=configs/unimodal.py:visual,shapes,single
python -m dgsct_jax.convert run runs/unimodal_visual_shapes_single single.safetensors --part backbone
python -m dgsct_jax.main --config=configs/unimodal.py:visual,shapes --config.init.backbone=single.safetensors
python -m dgsct_jax.convert run runs/unimodal_visual_shapes visual_shapes.safetensors --part backbone --dtype float16

`visual` or `audio`, then `shapes` or `stamps`; `single` is of pictures with one object, where the visual encoder starts: from
nothing it learned little of several. The weights of shapes in dgsct_jax/weights were made so, that of sounds without the first
step; those of stamps are of single objects and sounds alone, as there are too few photographs and recordings for more. All that
learned from single ones did so by softmax cross entropy, which this task had before it named several (git show e765f86, ed2fd45).
"""

from configs import common

# Patches of 8: 8×8 tokens, then 4×4. All attention is global at this size.
VISUAL = {
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
CLASSES = {'shapes': 8, 'stamps': 13}
# (seconds to learn from, epochs). Drawn shapes never run out; there are few photographs of each class.
LENGTHS = {
  'visual,shapes,single': (40000, 10),
  'visual,shapes': (24000, 10),
  'audio,shapes': (24000, 6),
  'visual,stamps,single': (12000, 14),
  'audio,stamps,single': (12000, 3),
}


def get_config(variant: str = 'visual,shapes'):
  if variant not in LENGTHS:
    raise ValueError(
      f'configs/unimodal.py has no variant {variant!r}; choose from {" ".join(LENGTHS)}.'
    )
  stream, source, *single = variant.split(',')
  clips, epochs = LENGTHS[variant]
  config = common.get_config()
  config.task = 'unimodal'
  config.seed = 0
  config.init = {'backbone': 'random', 'all': ''}
  config.trainable = ('.*',)

  config.model = {
    'stream': stream,
    'visual': VISUAL,
    'audio': AUDIO,
    'classes': CLASSES[source],
    'backbone_mode': 'train',
    'spec_augment': True,
    'dtype': 'float32',
    'remat': 'none',
  }
  config.data = {
    'name': '_'.join(['unimodal', source, *single]),
    'dir': 'data',
    'batch': 64,
    'workers': 0,
    'source': source,
    'media': '',  # stamps: the folder into which the Debian packages were unpacked
    # One to four objects, one to four sounds.
    'knobs': {
      'segments': 1,
      'size': 64,
      'sample_rate': 8000,
      'events': (1, 3),
      'distractors': (0, 1),
      'offscreen': 0.5,
      'heard': 1.0,
      'seen': 1.0,
      'scale': (0.25, 0.8),
      'level': (-14.0, 0.0),
    },
    'clips': {'train': clips, 'val': 400, 'test': 400},
    'seed': 1,
  }
  if single:
    config.data.knobs.update(
      events=(1, 1), distractors=(0, 0), offscreen=0.0, scale=(0.3, 0.95), level=(-8.0, 0.0)
    )
  config.optim.name = 'adamw'
  config.optim.weight_decay = 0.02
  config.optim.lr = 1.5e-3
  config.optim.schedule = 'cosine'
  config.optim.epochs = epochs
  config.optim.warmup_steps = 100
  config.optim.patience = 0
  config.eval_epochs = 3
  config.log_steps = 50
  return config
