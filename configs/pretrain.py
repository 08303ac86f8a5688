"""Pre-training of DG-SCT between CLIP and CLAP on VGGSound-AVEL, for zero-shot use.

python -m dgsct_jax.main --config=configs/pretrain.py --config.data.dir=DIR \
    --config.init.clip=hf://openai/clip-vit-base-patch32 --config.init.clap=CLAP.pt

DIR: `python -m dgsct_jax.data.prepare vggsound_avel`. The result goes into
`configs/zero_shot.py:dgsct`: `python -m dgsct_jax.convert run runs/pretrain all.safetensors`.
The release weighs the scores of picture and sound by themselves, which lowers the score of a class
where its sound matches better, and has a pole; here they are added. `released` does as the release
does, in the settings of configs/few_shot.py:released, too.
`tiny` is for tests.
"""

from configs import common, few_shot


def get_config(variant: str = ''):
  config = few_shot.get_config()
  few_shot.pretrained(config)
  config.data.kind = config.data.name = 'vggsound_avel'
  config.data.shots = 0
  config.loss.weights = 'shares'
  return common.variant(config, variant, released=released, tiny=few_shot.tiny)


def released(config):
  few_shot.released(config)
  config.model.head.merge = 'released'
