"""What is kept between starts: computed once, never of other things, never needed."""

import numpy as np
import pytest

from configs import few_shot
from dgsct_jax import kept, trained, tree
from dgsct_jax.convert import read

MADE = {'text': {'visual': np.arange(6.0, dtype=np.float32).reshape(2, 3)}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'dgsct_jax'


class Maker:
  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return MADE


def test_it_is_computed_once_for_the_same_things():
  make = Maker()
  for _ in range(2):
    found = kept.arrays({'model': 'a'}, make)
    np.testing.assert_array_equal(found['text']['visual'], MADE['text']['visual'])
  assert make.calls == 1
  kept.arrays({'model': 'b'}, make)
  assert make.calls == 2


def test_another_version_computes_anew(monkeypatch):
  make = Maker()
  kept.arrays({}, make)
  monkeypatch.setattr(kept.hosts, 'versions', lambda: {'source of dgsct_jax': 'another'})
  kept.arrays({}, make)
  assert make.calls == 2


@pytest.mark.parametrize('left', [b'', b'half of a file'])
def test_a_damaged_file_is_made_again(cache, left):
  make = Maker()
  kept.arrays({}, make)
  (file,) = cache.glob('kept-*')
  file.write_bytes(left)
  kept.arrays({}, make)
  kept.arrays({}, make)
  assert make.calls == 2


def test_a_folder_that_cannot_be_written_costs_time_only(cache):
  make = Maker()
  cache.parent.mkdir()
  cache.write_text('a file where the folder should be')
  assert kept.arrays({}, make) is MADE


def test_features_of_names_are_kept_for_these_names_and_weights(tmp_path, cache):
  """What predict asks of CLIP and CLAP: the text towers run once for each list of classes."""
  config = few_shot.get_config('tiny,clip')
  config.data.update(segments=2, classes=('dog', 'bell'))
  variables = trained.untrained(config).variables.joined
  for seed in (0, 1):
    tensors = {
      name.replace('params/clip/', 'params/'): np.asarray(x + seed)
      for name, x in tree.flatten(variables).items()
      if name.startswith('params/clip/')
    }
    read.write(tmp_path / f'clip_{seed}.safetensors', tensors, {})
  rest = {
    name.replace('/clap/', '/'): np.asarray(x)
    for name, x in tree.flatten(variables).items()
    if '/clap/' in name
  }
  read.write(tmp_path / 'clap.safetensors', rest, {})

  def features(classes, seed=0):
    config.data.classes = classes
    config.init.update(
      clip=f'{tmp_path}/clip_{seed}.safetensors', clap=f'{tmp_path}/clap.safetensors'
    )
    return trained.untrained(config).constants['text']

  count = lambda: len(list(cache.glob('kept-*')))
  first = features(('dog', 'bell'))
  (file,) = cache.glob('kept-*')
  written = file.stat().st_mtime_ns
  again = features(('dog', 'bell'))
  assert count() == 1 and file.stat().st_mtime_ns == written
  for name, x in first.items():
    np.testing.assert_array_equal(x, again[name])
  features(('dog', 'cat'))
  assert count() == 2
  features(('dog', 'bell'), seed=1)
  assert count() == 3
