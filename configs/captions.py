"""Trains the toy towers of CLIP and CLAP: pictures with their captions, or sounds with theirs.

python -m dgsct_jax.main --config=configs/captions.py:visual --workdir=runs/clip
python -m dgsct_jax.convert run runs/clip clip_shapes.safetensors --part clip --dtype float16
python -m dgsct_jax.main --config=configs/captions.py:audio --workdir=runs/clap
python -m dgsct_jax.convert run runs/clap clap_shapes.safetensors --part clap --dtype float16

Each example is one second with one drawn object, or its sound, and is matched with the captions of
all classes. The weights in dgsct_jax/scenes/weights that configs/few_shot.py:scenes starts from
were trained so.
`tiny` is for tests.
"""

from configs import common, composed, few_shot, unimodal

CLIPS = {'train': 40000, 'val': 400, 'test': 400}


def get_config(variant: str = 'visual'):
  config = few_shot.get_config()
  composed.use_towers(config)
  composed.clips_of(config, 'shapes', 'captions', unimodal.ONE, CLIPS, seed=3)
  config.model.head.update(target='clip', background=False, exp_audio_scale=True)
  config.data.shots = 0
  config.data.batch = 64
  config.optim.name = 'adamw'
  config.optim.weight_decay = 0.02
  config.optim.lr = 1e-3
  config.optim.schedule = 'cosine'
  config.optim.epochs = 10
  config.optim.warmup_steps = 100
  config.optim.clip_norm = 1.0
  config.optim.patience = 0
  config.eval_epochs = 1
  config.log_steps = 50
  return common.variant(config, variant, visual=visual, audio=audio, tiny=tiny)


def visual(config):
  few_shot.baseline(config, 'visual')
  config.trainable = ('clip/.*',)


def audio(config):
  few_shot.baseline(config, 'audio')
  config.trainable = ('clap/.*',)
  config.optim.epochs = 1


def tiny(config):
  few_shot.tiny(config)
  config.data.clips = {'train': 4, 'val': 2, 'test': 2}
  config.data.shots = 0
