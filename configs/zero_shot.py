"""Any video, any words: CLIP and CLAP compare each second with names, without any training.

python -m dgsct_jax.predict --config=configs/zero_shot.py --classes "dog barking, bell" clip.mp4

Weights are fetched from the Hugging Face hub, converted once and kept. Without a network, give
files or folders with --init=clip=FOLDER and --init=clap=FOLDER. Verified here: both towers agree
with `transformers` on random weights. Not verified: what the real weights say.

The variants `ave`, `ave_class` and `llp_class` score the same model on a test split:
--mode=evaluate. In AVE no name stands for background, so that no model can be right there:
`possible` is the share of the other seconds, 82.2 % in the paper's split.
With `dgsct` the model is the one that DG-SCT pre-trained on VGGSound (configs/pretrain.py):
--config.init.all=FILE of `convert dgsct-matching`. Paper: 64.7 % (AVE), 76.6 and 35.8 % (classes of
clips). The release evaluated it with adapters in training mode, so that clips of a batch changed
each other, and with a random prompt; here both are as they were trained.
`tiny` is for tests.
"""

from configs import common, few_shot


def get_config(variant: str = ''):
  config = few_shot.get_config()
  few_shot.baseline(config, 'fixed')
  few_shot.native(config)
  del config.model.visual.pixels  # CLIP's own
  config.trainable = ()
  config.init.clip = 'hf://openai/clip-vit-base-patch32'
  config.init.clap = 'hf://laion/clap-htsat-unfused'
  config.model.head.update(
    target='clip', background=False, exp_audio_scale=True, sound='The sound of {}'
  )
  config.data.update(kind='words', name='', shots=0, batch=1)
  return common.variant(
    config,
    variant,
    ave=lambda config: scored(config, 'ave', 'seconds'),
    ave_class=lambda config: scored(config, 'ave', 'clip'),
    llp_class=lambda config: scored(config, 'llp', 'set'),
    dgsct=dgsct,
    tiny=tiny,
  )


def scored(config, kind, target):
  config.data.kind = config.data.name = kind
  config.model.head.target = target


def dgsct(config):
  trained = few_shot.get_config()
  few_shot.pretrained(trained)
  head = config.model.head
  config.model = trained.model
  config.model.head.update(target=head.target, background=False, merge='released')
  config.model.audio.batch_stats = False
  config.init = {'clip': '', 'clap': '', 'all': ''}


def tiny(config):
  few_shot.tiny(config)
  config.data.shots = 0
  if not config.init.all:
    config.init.clip = config.init.clap = 'random'
