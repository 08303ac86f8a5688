"""AVSBench MS3 with DG-SCT: the pixels of all things that sound. Full size, Swin-V2-L × HTS-AT.

python -m dgsct_jax.main --config=configs/avs_ms3.py --config.data.dir=DIR \
    --config.init.visual=swin.safetensors --config.init.audio=htsat.safetensors

DIR: `python -m dgsct_jax.data.prepare avsbench_ms3 --source FOLDER --out DIR`.
Weights: `python -m dgsct_jax.convert`, see README.
Reported by the release: M_J 53.5, M_F 64.2 on the test split (selected on it, one run). Verified
and not verified: as for configs/avs_s4.py, whose variants this has, too.

`config.model.head.gamma` is 0.1, with which the release trains; of its two files, that of
2023-05-13 is tested with 0.05.
"""

from configs import avs_s4

# What scenes are like (scenes/labels.py: MS3): up to three objects sound at times, also two of one
# class.
MS3 = {
  'segments': 5,
  'events': (1, 3),
  'distractors': (0, 2),
  'offscreen': 0.2,
  'repeats': 0.15,
  'heard': 0.7,
  'seen': 0.9,
}


def get_config(variant: str = ''):
  config = avs_s4.get_config()
  config.model.adapter.update(alpha=0.2, beta=0.1, token_map='linear', reduction=2)
  config.model.head.gamma = 0.1
  config.model.head.matching_weight = 0.5
  config.data.update(kind='avsbench_ms3', name='avsbench_ms3', batch=2, masked=5)
  config.optim.lr = 1.5e-4
  config.optim.epochs = 30
  return avs_s4.choose(config, variant, MS3)
