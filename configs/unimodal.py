"""Trains the small encoders, each on one modality: to classify all objects, or all sounds.

python -m dgsct_jax.main --config=configs/unimodal.py:visual,shapes,single --workdir=runs/single
python -m dgsct_jax.convert run runs/single single.safetensors --part backbone
python -m dgsct_jax.main --config=configs/unimodal.py:visual,shapes --workdir=runs/visual \
    --config.init.backbone=single.safetensors
python -m dgsct_jax.convert run runs/visual visual_shapes.safetensors --part backbone \
    --dtype float16

The variants are `visual` or `audio`, with `shapes` or `stamps`. `single` has one object in each
picture: the visual encoder is trained on those first, because from random weights it learned little
from pictures of several objects. The weights of shapes in dgsct_jax/scenes/weights were trained so,
those of the audio encoder without the first step. Those of stamps were trained on single objects
and sounds only, as there are too few photographs and recordings. Training on single ones used
softmax cross entropy, the former loss of this task (git show e765f86, ed2fd45).
"""

from configs import common, composed

# (stream, source, single) -> (seconds of training data, epochs). Drawn shapes are unlimited; there
# are few photographs of each class.
LENGTHS = {
  ('visual', 'shapes', True): (40000, 10),
  ('visual', 'shapes', False): (24000, 10),
  ('audio', 'shapes', False): (24000, 6),
  ('visual', 'stamps', True): (12000, 14),
  ('audio', 'stamps', True): (12000, 3),
}
# One to four objects, one to four sounds; or one of each.
SEVERAL = {
  'segments': 1,
  'events': (1, 3),
  'distractors': (0, 1),
  'offscreen': 0.5,
  'heard': 1.0,
  'seen': 1.0,
  'scale': (0.25, 0.8),
  'level': (-14.0, 0.0),
}
ONE = SEVERAL | {
  'events': (1, 1),
  'distractors': (0, 0),
  'offscreen': 0.0,
  'scale': (0.3, 0.95),
  'level': (-8.0, 0.0),
}


def get_config(variant: str = 'visual,shapes'):
  given = variant.split(',')
  stream = 'audio' if 'audio' in given else 'visual'
  source = 'stamps' if 'stamps' in given else 'shapes'
  single = 'single' in given
  if (stream, source, single) not in LENGTHS:
    known = (','.join((*names, 'single')[: 2 + alone]) for *names, alone in LENGTHS)
    raise ValueError(
      f'configs/unimodal.py has no variant {variant!r}; choose from {" ".join(known)}.'
    )
  clips, epochs = LENGTHS[stream, source, single]
  config = common.get_config()
  config.task = 'unimodal'
  config.seed = 0
  config.trainable = ('.*',)
  config.model = {
    'stream': stream,
    'classes': composed.CLASSES[source],
    'backbone_mode': 'train',
    'spec_augment': True,
    'dtype': 'float32',
  }
  composed.use(
    config,
    source,
    'unimodal_single' if single else 'unimodal',
    ONE if single else SEVERAL,
    {'train': clips, 'val': 400, 'test': 400},
    seed=1,
  )
  config.init = {'backbone': 'random', 'all': ''}
  config.parts = {'backbone': 'backbone'}
  config.data.batch = 64
  config.optim.name = 'adamw'
  config.optim.weight_decay = 0.02
  config.optim.lr = 1.5e-3
  config.optim.schedule = 'cosine'
  config.optim.epochs = epochs
  config.optim.warmup_steps = 100
  config.optim.patience = 0
  config.eval_epochs = 3
  config.log_steps = 50
  words = ('visual', 'audio', 'shapes', 'stamps', 'single')
  return common.variant(config, variant, **{word: lambda config: None for word in words})
