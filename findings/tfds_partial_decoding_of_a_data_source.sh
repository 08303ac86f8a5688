#!/bin/bash
# tensorflow-datasets 4.9.10: as_data_source refuses the partial decoding that its guide describes.
#
# Expected: `as_data_source(decoders=tfds.decode.PartialDecoding({'label': True}))` reads the labels
#   alone, as `as_dataset` does with the same argument. Its docstring refers for `decoders` to the guide on
#   decoding, whose section on partial decoding makes no exception for data sources.
# Real: building the source works; reading a record raises ValueError, "FeaturesDict received a non dict
#   item". A dict of decoders is taken, but then all features are decoded.
# Source: as_dataset unwraps a PartialDecoding into fewer features; data sources hand it on to
#   FeaturesDict as it is.
# Who is hurt: those who read ArrayRecords with Grain and want labels or names without decoding pictures
#   and sound, for instance to draw a balanced subset. What works: the source with RAW_BYTES, and
#   deserialize_example_np of a FeaturesDict of the wanted features.
# Exit 0: as described. 1: something else was seen. Needs python3 with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow-datasets==4.9.10 array-record==0.8.3 numpy==2.2.6
cd "$folder"
cat > made.py <<'PYTHON'
import numpy as np
import tensorflow_datasets as tfds


class Made(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  url_infos = {}

  def _info(self):
    wave = tfds.features.Tensor(shape=(8,), dtype=np.float32)
    features = tfds.features.FeaturesDict({'label': tfds.features.Scalar(np.int64), 'wave': wave})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(3):
      yield i, {'label': i, 'wave': np.full(8, i, np.float32)}


builder = Made(data_dir='data', file_format='array_record')
builder.download_and_prepare()
print('whole record:', sorted(builder.as_data_source('train')[0]))
partial = builder.as_data_source('train', decoders=tfds.decode.PartialDecoding({'label': True}))
try:
  print('with PartialDecoding:', sorted(partial[0]))
  refused = False
except ValueError as error:
  print('with PartialDecoding:', type(error).__name__, str(error)[:120])
  refused = 'non dict item' in str(error)
raw = builder.as_data_source('train', deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
features = tfds.features.FeaturesDict({'label': tfds.features.Scalar(np.int64)})
labels = [int(features.deserialize_example_np(raw[i])['label']) for i in range(3)]
print('by raw bytes:', sorted(labels))
raise SystemExit(0 if refused and sorted(labels) == [0, 1, 2] else 1)
PYTHON
venv/bin/python made.py 2>/dev/null
