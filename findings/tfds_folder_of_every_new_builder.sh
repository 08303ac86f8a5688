#!/bin/bash
# tensorflow-datasets 4.9.10: a builder whose data was not built yet leaves an empty folder in the
# temporary directory, each time one is made.
#
# Expected: making a builder leaves nothing outside data_dir; building leaves its data alone.
# Real: DatasetBuilder.__init__ calls info.initialize_from_bucket() where there is no data yet, which
#   makes a temporary folder first and then asks whether a public bucket has information on the data
#   set. By default it has none, as access to the bucket is off, and the folder stays, empty.
# Source: initialize_from_bucket in core/dataset_info.py: mkdtemp comes before the return.
# Who is hurt: those who make builders often, for instance in tests, in sweeps over data sets, or on
#   nodes that share a temporary directory and stay up: folders pile up (a thousand after a day of
#   one test suite) until inodes or a listing of the directory are slow or short. What works: a DatasetInfo
#   of one's own whose initialize_from_bucket does nothing, for data that no bucket has.
# Exit 0: as described. 1: something else was seen. Needs python3 with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow-datasets==4.9.10 array-record==0.8.3 numpy==2.2.6
cd "$folder"
mkdir temporary
cat > made.py <<'PYTHON'
import os
import tempfile

import numpy as np
import tensorflow_datasets as tfds


class Info(tfds.core.DatasetInfo):
  def initialize_from_bucket(self):
    pass


class Made(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  url_infos = {}
  info_of = tfds.core.DatasetInfo

  def _info(self):
    return self.info_of(
      builder=self, features=tfds.features.FeaturesDict({'label': tfds.features.Scalar(np.int64)})
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield 0, {'label': 0}


left = lambda: len(os.listdir(tempfile.gettempdir()))
counts = {'before': left()}
for i in range(3):
  Made(data_dir=f'data{i}', file_format='array_record')
counts['three builders'] = left()
Made(data_dir='data0', file_format='array_record').download_and_prepare()
counts['a fourth, which builds'] = left()
Made(data_dir='data0', file_format='array_record')
counts['a fifth, whose data is there'] = left()
Made.info_of = Info
Made(data_dir='data5', file_format='array_record').download_and_prepare()
counts['a sixth, whose information asks nobody'] = left()
print(counts)
raise SystemExit(0 if list(counts.values()) == [0, 3, 4, 4, 4] else 1)
PYTHON
TMPDIR="$folder/temporary" venv/bin/python made.py 2>/dev/null
