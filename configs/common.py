"""What every run has; a config of a task starts from here and adds `model` and its data."""

from collections.abc import Callable

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Defaults of every field but the model's."""
  config = ml_collections.ConfigDict()
  config.task = ''  # a name of dgsct_jax.tasks.registry
  config.seed = 43
  config.model = ml_collections.ConfigDict()

  # Files of `python -m dgsct_jax.convert`, 'package:NAME.safetensors', or 'random' by name. Each
  # fills the part of the model that `parts` gives its name; `all` fills everything instead.
  config.init = ml_collections.ConfigDict(dict(visual='', audio='', all=''))
  config.parts = ml_collections.ConfigDict(dict(visual='encoder/visual', audio='encoder/audio'))
  config.trainable = ('.*',)  # regular expressions over whole paths a/b/c; the rest is frozen
  config.frozen_dtype = 'float32'  # or 'bfloat16', of the kernels that are not trained

  config.data = ml_collections.ConfigDict()
  config.data.kind = ''  # a name of dgsct_jax.data.datasets
  config.data.name = ''  # of the folder in `dir`
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


def variant(
  config: ml_collections.ConfigDict, text: str, **words: Callable[[ml_collections.ConfigDict], None]
) -> ml_collections.ConfigDict:
  """The config changed by the words of a variant, as in FILE.py:shapes,none.

  They act in the order of `words`, whatever their order in the text.

  Args:
    text: words with commas in between.
    words: what each word changes.

  Raises:
    ValueError: a word is unknown or stands twice.
  """
  given = text.split(',') if text else []
  unknown = sorted(set(given) - set(words))
  repeated = sorted({word for word in given if given.count(word) > 1})
  if unknown or repeated:
    raise ValueError(
      f'The variant {text!r} has unknown words {unknown} and repeats {repeated}; choose from'
      f' {", ".join(words)}.'
    )
  for word, change in words.items():
    if word in given:
      change(config)
  return config


def without_adapters(config: ml_collections.ConfigDict) -> None:
  """The frozen encoders and the head alone."""
  exchange = 'encoder/exchange_.*'
  config.model.adapter = {'name': 'none'}
  config.trainable = tuple(rule for rule in config.trainable if rule != exchange)
  config.optim.lr_by_path = tuple(rule for rule in config.optim.lr_by_path if rule[0] != exchange)
