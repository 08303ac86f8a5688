"""What every run has; a config of a task starts from here and adds `model` and its data."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Defaults of every field but the model's."""
  config = ml_collections.ConfigDict()
  config.task = ''  # a name of dgsct_jax.tasks
  config.seed = 43
  config.model = ml_collections.ConfigDict()

  # Files of `python -m dgsct_jax.convert`, 'package:NAME.safetensors', or 'random' by name.
  # `visual` and `audio` fill encoder/visual and encoder/audio; `all` fills everything instead.
  config.init = ml_collections.ConfigDict(dict(visual='', audio='', all=''))
  config.trainable = ('.*',)  # regular expressions over whole paths a/b/c; the rest is frozen
  config.frozen_dtype = 'float32'  # or 'bfloat16', of the kernels that are not trained

  config.data = ml_collections.ConfigDict()
  config.data.name = ''
  config.data.dir = ''
  config.data.batch = 8  # clips over all devices and hosts
  config.data.workers = 0  # processes that decode; 0: in the training process

  config.optim = ml_collections.ConfigDict()
  config.optim.name = 'adam'  # or 'adamw'
  config.optim.lr = 5e-4
  # 'step': lr * decay_rate^floor((epoch - 1) / decay_epochs); 'cosine': to 0 at the end; 'constant'
  config.optim.schedule = 'step'
  config.optim.warmup_steps = 0  # batches in which the rate rises to lr, whatever the schedule
  config.optim.decay_epochs = 3
  config.optim.decay_rate = 0.35
  config.optim.epochs = 50
  config.optim.patience = 20  # stop after so many epochs worse than the best one; 0: never
  # Batches whose mean gradient makes one update. 'released' takes that of every second batch and of
  # the last one of an epoch, and throws the others away.
  config.optim.accumulate = ml_collections.FieldReference(1, field_type=object)
  config.optim.clip_norm = 0.0  # 0: no clipping
  config.optim.weight_decay = 0.0  # adamw only
  config.optim.lr_by_path = ()  # (regular expression, multiplier) pairs, first match wins

  config.select_on = 'val'  # the split that picks the best checkpoint; the releases took 'test'
  config.log_steps = 20
  config.eval_epochs = 1
  config.save_steps = 500  # besides after every evaluation
  config.keep = 2  # latest checkpoints, besides the best
  config.mesh = (-1, 1)  # devices over ('data', 'fsdp'); -1: all that are left
  config.profile = ()  # (first, last) step of an XLA trace in workdir/profile
  return config
