"""The pre-stage of MUSIC-AVQA: which frames and sounds belong together, with frozen encoders.

python -m dgsct_jax.main --config=configs/avqa_grounding.py --config.data.dir=DIR \
    --config.init.visual=swin.safetensors --config.init.audio=htsat.safetensors
python -m dgsct_jax.convert run runs/avqa_grounding ground.safetensors --part matching

The second command writes the file that configs/avqa.py takes as --config.init.ground. The best
checkpoint is selected on the val split; the release selects it on the training split.

The variants are those of configs/avqa.py.
"""

from configs import avqa, common


def get_config(variant: str = ''):
  main = avqa.get_config(variant)
  config = common.get_config()
  config.task = 'avqa_grounding'
  config.seed = 1
  config.trainable = ('matching/.*',)
  config.init = {name: main.init[name] for name in ('visual', 'audio', 'all')}
  config.model = main.model
  config.model.adapter = {'name': 'none'}
  for name in ('adapt_negatives', 'dropout', 'forget_bias', 'match_weight', 'width'):  # of answers
    del config.model.head[name]
  config.data = main.data
  for name in ('blank', 'cache_features', 'negatives', 'questions_at_once'):
    del config.data[name]
  if 'source' not in main.data:
    config.data.subset = 'real'
    config.data.batch = 128
  config.optim.lr = 3e-4
  config.optim.schedule = 'step'
  config.optim.decay_epochs = 8
  config.optim.decay_rate = 0.1
  config.optim.epochs = 30
  config.optim.patience = 0
  return config
