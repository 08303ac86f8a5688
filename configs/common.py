"""Fields of every config; the config of a task starts from them and adds its model and data."""

from collections.abc import Callable
from typing import Any

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Defaults of every field but the model's."""
  config = ml_collections.ConfigDict()
  config.task = ''  # a name of dgsct_jax.tasks.registry
  config.seed = 43
  config.model = ml_collections.ConfigDict()

  # Files of `python -m dgsct_jax.convert`, 'package:NAME.safetensors', or 'random'. Each fills the
  # part of the model whose path `parts` has under the same name; `all` fills the whole model.
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
  # A folder for what frozen encoders make of every clip, to train from it (docs/performance.md).
  config.data.cache_features = ''

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
  # Batches whose mean gradient makes one update. 'released' uses the gradient of every second batch
  # and of the last one of an epoch, and discards the others.
  config.optim.accumulate = ml_collections.FieldReference(1, field_type=object)
  config.optim.clip_norm = 0.0  # 0: no clipping
  config.optim.weight_decay = 0.0  # adamw only
  config.optim.lr_by_path = ()  # (regular expression, multiplier) pairs, first match wins

  config.select_on = 'val'  # the split that selects the best checkpoint; as released: 'test'
  config.log_steps = 20
  config.eval_epochs = 1
  config.eval_batch = 0  # clips in evaluation, over all devices and hosts; 0: as in training
  config.save_steps = 500  # in addition to a checkpoint after every evaluation
  config.keep = 2  # latest checkpoints, besides the best
  config.mesh = (-1, 1)  # devices over ('data', 'fsdp'); -1: the remaining ones
  config.profile = ()  # (first, last) step of an XLA trace in workdir/profile
  return config


def variant(
  config: ml_collections.ConfigDict, text: str, **words: Callable[[ml_collections.ConfigDict], None]
) -> ml_collections.ConfigDict:
  """Changes a config by the words of a variant, such as FILE.py:shapes,none.

  Changes are made in the order of `words`, not of the text.

  Args:
    text: words separated by commas.
    words: the change for each word.

  Raises:
    ValueError: a word is unknown or repeated.
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


def lavish(
  config: ml_collections.ConfigDict, adapter: dict[str, Any], audio: dict[str, Any]
) -> None:
  """Sets one visual backbone that looks at spectrograms, too, and the adapters of LAVISH.

  Args:
    adapter: fields of `LavishAdapter`. audio: of `kaldi.Fbank`, with its variant.
  """
  norms = {'token_init': 'uniform', 'norm_before': True, 'norm_post': True}
  gates = {'gate_before_norm': False, 'audio_gate': True}
  config.model.adapter = {'name': 'lavish'} | norms | gates | adapter
  config.model.audio = {'kind': 'shared', 'front_end': 'fbank', 'sample_rate': 16000} | audio
  config.model.scan_layers = True  # 18 of its 24 meetings are alike (docs/performance.md)


def light(config: ml_collections.ConfigDict) -> None:
  """The adapters of DG-SCT with a third of their parameters (docs/performance.md)."""
  config.model.adapter.update(token_map='keep', gate_reduction=2)


def late(config: ml_collections.ConfigDict) -> None:
  """Adapters in the last two stages alone; the others run forward only (docs/performance.md)."""
  config.model.adapter.stages = 2


def lavish_two(config: ml_collections.ConfigDict) -> None:
  """The adapters of LAVISH instead of DG-SCT's between the same two backbones (LAVISH*)."""
  # What theirs have none of.
  guided = ('name', 'alpha', 'beta', 'token_map', 'gate_reduction')
  kept = {name: x for name, x in config.model.adapter.items() if name not in guided}
  config.model.adapter = {'name': 'lavish'} | kept


def side(config: ml_collections.ConfigDict, stages: int = 2) -> None:
  """A ladder beside the frozen backbones instead of adapters within them (models/side.py).

  Args:
    stages: that it reads, from the last one.
  """
  config.model.adapter = {'name': 'side', 'width': 192, 'tokens': 32, 'stages': stages}
  within = ('encoder/visual/', 'encoder/audio/')  # where no gradient comes
  config.trainable = tuple(rule for rule in config.trainable if not rule.startswith(within))


def shrink(config: ml_collections.ConfigDict, **fields: int) -> None:
  """Sets smaller values of those fields that the adapter has."""
  adapter = config.model.adapter
  adapter.update({name: x for name, x in fields.items() if name in adapter})


def without_adapters(config: ml_collections.ConfigDict) -> None:
  """Removes the adapters: the frozen encoders and the head remain."""
  adapters = 'encoder/exchange_'
  config.model.adapter = {'name': 'none'}
  config.trainable = tuple(rule for rule in config.trainable if not rule.startswith(adapters))
  config.optim.lr_by_path = tuple(
    rule for rule in config.optim.lr_by_path if not rule[0].startswith(adapters)
  )
