"""Small encoders for the quickstart, each trained on one modality alone: pictures of single objects, or single sounds.

python -m dgsct_jax.main --config=configs/unimodal.py:visual,shapes
python -m dgsct_jax.convert run runs/unimodal_visual_shapes visual_shapes.safetensors --part backbone --dtype float16

`visual` or `audio`, then `shapes` or `stamps`. The weights in dgsct_jax/weights were made so.
"""

from configs import common

# Patches of 8: 8×8 tokens, then 4×4. All attention is global at this size.
VISUAL = {'variant': 'custom', 'image': 64, 'patch': 8, 'width': 48, 'depths': (2, 2), 'heads': (2, 4), 'window': 8,
          'pretrained_windows': (0, 0), 'drop_path': 0.0}
AUDIO = {'variant': 'audioset', 'size': 64, 'patch': 8, 'mel_bins': 32, 'n_fft': 256, 'hop': 64, 'sample_rate': 8000,
         'fmax': 4000.0, 'width': 48, 'depths': (2, 2), 'heads': (2, 4), 'window': 8, 'drop_path': 0.0}
CLASSES = {'shapes': 8, 'stamps': 13}
# (pictures or sounds to learn from, epochs). Drawn shapes never run out; there are few photographs of each class.
LENGTHS = {'visual,shapes': (40000, 10), 'visual,stamps': (12000, 14), 'audio,shapes': (12000, 3), 'audio,stamps': (12000, 3)}


def get_config(variant: str = 'visual,shapes'):
  if variant not in LENGTHS:
    raise ValueError(f'configs/unimodal.py has no variant {variant!r}; choose from {", ".join(LENGTHS)}.')
  stream, source = variant.split(',')
  clips, epochs = LENGTHS[variant]
  config = common.get_config()
  config.task = 'unimodal'
  config.seed = 0
  config.init.all = 'random'
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
      'name': f'unimodal_{source}',
      'dir': 'data',
      'batch': 64,
      'workers': 0,
      'source': source,
      'media': '',  # stamps: the folder into which the Debian packages were unpacked
      # One object or one sound at a time.
      'knobs': {'segments': 1, 'size': 64, 'sample_rate': 8000, 'distractors': (0, 0), 'offscreen': 0.0, 'heard': 1.0,
                'seen': 1.0, 'scale': (0.3, 0.95)},
      'clips': {'train': clips, 'val': 400, 'test': 400},
      'seed': 1,
  }
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
