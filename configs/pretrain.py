"""Pre-training of DG-SCT between CLIP and CLAP on VGGSound-AVEL, for zero-shot use.

python -m dgsct_jax.main --config=configs/pretrain.py --config.data.dir=DIR \
    --config.init.clip=hf://openai/clip-vit-base-patch32 --config.init.clap=CLAP.pt

DIR: `python -m dgsct_jax.data.prepare vggsound_avel`. The result goes into
`configs/zero_shot.py:dgsct`: `python -m dgsct_jax.convert run runs/pretrain all.safetensors`.
The release weighs the scores of picture and sound by themselves, which lowers the score of a class
where its sound matches better, and has a pole; here they are added. `released` does as the release
does, in the settings of configs/few_shot.py:released, too.
`towers` trains toy CLIP and CLAP towers instead, each on its own, to name one drawn object and one
synthesised sound; configs/few_shot.py:scenes has them. `tiny` is for tests.
"""

from configs import common, composed, few_shot, unimodal


def get_config(variant: str = ''):
  config = few_shot.get_config()
  few_shot.pretrained(config)
  config.data.kind = config.data.name = 'vggsound_avel'
  config.data.shots = 0
  config.loss.weights = 'shares'
  return common.variant(config, variant, released=released, towers=towers, tiny=few_shot.tiny)


def released(config):
  few_shot.released(config)
  config.model.head.merge = 'released'


def towers(config):
  few_shot.baseline(config, 'sum')
  composed.use_towers(config, 'shapes')
  clips = {'train': 6000, 'val': 200, 'test': 500}
  composed.use_clips(config, 'shapes', 'unimodal_single', unimodal.ONE, clips, seed=0)
  config.init.clip = config.init.clap = 'random'
  config.trainable = ('.*',)
  config.model.head.update(background=False, exp_audio_scale=True)
  config.model.audio.batch_stats = True
  config.model.spec_augment = True
  config.loss.weights = 'streams'
  config.data.batch = 64
  config.optim.name = 'adamw'
  config.optim.weight_decay = 0.02
  config.optim.lr = 1e-3
  config.optim.schedule = 'cosine'
  config.optim.epochs = 12
  config.optim.warmup_steps = 100
  config.optim.patience = 0
  config.optim.clip_norm = 1.0
