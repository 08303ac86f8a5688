"""A build is complete or not there, keeps its order, and says everything that is wrong."""

import contextlib
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dgsct_jax import whole
from dgsct_jax.data import records


@dataclasses.dataclass(frozen=True)
class Entry:
  id: str
  fault: str = ''


@dataclasses.dataclass(frozen=True)
class Read:
  """Fails for a fault that the folder does not yet name as repaired; notes every reading."""

  folder: Path

  def __call__(self, entry):
    with open(self.folder / 'log', 'a') as log:
      log.write(f'{entry.id}\n')
    if entry.fault and not (self.folder / f'repaired-{entry.id}').exists():
      if entry.fault == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
      if entry.fault == 'short':
        warnings.warn('was short', records.Remark)
      else:
        raise ValueError(entry.fault)
    number = int(entry.id[1:])
    frames = [bytes([number, i]) for i in range(3)]
    return {'id': entry.id, 'frames': frames, 'wave': np.full(5, -number, np.int16)}

  def log(self):
    return (self.folder / 'log').read_text().split()


DEADLY = [Entry(f't{i}', 'kill' if i == 9 else '') for i in range(10)]


def run(code, folder):
  """Runs code in a process of its own, with this module as `t`; gives its exit status."""
  code = (
    'import pathlib, sys; from tests.data import test_records as t; '
    f'folder = pathlib.Path(sys.argv[1]); {code}'
  )
  root = Path(__file__).parents[2]
  return subprocess.run([sys.executable, '-c', code, folder], cwd=root, timeout=120).returncode


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(records, 'SHARD', 4)


def make(folder, train, val=(Entry('v0'), Entry('v1'))):
  features = {'id': tfds.features.Text(), 'frames': records.IMAGES, 'wave': records.wave(5)}
  return records.Recipe('toy', '1.0.0', features, {'train': train, 'val': val}, Read(folder))


def test_records_come_back_in_the_order_of_the_recipe_over_several_files(tmp_path, small_shards):
  recipe = make(tmp_path, [Entry(f't{i}') for i in range(10)])
  folder = records.write(recipe, tmp_path / 'out')
  assert len(list(folder.glob('toy-train.array_record-*'))) == 3
  source = records.load(tmp_path / 'out', 'toy', 'train')
  assert source.ids == [source[i]['id'] for i in range(len(source))] == [f't{i}' for i in range(10)]
  record = pickle.loads(pickle.dumps(source))[7]
  assert record['frames'] == [b'\x07\x00', b'\x07\x01', b'\x07\x02']
  np.testing.assert_array_equal(record['wave'], np.full(5, -7, np.int16))
  assert record['wave'].dtype == np.int16


def test_all_bad_clips_are_listed_and_nothing_can_be_read(tmp_path, small_shards):
  recipe = make(
    tmp_path,
    [Entry('t0'), Entry('t1', 'has no sound'), Entry('t2'), Entry('t3')],
    [Entry('v0'), Entry('v1', 'is 3 s long')],
  )
  with pytest.raises(ValueError, match=r'(?s)2 clips.*t1: has no sound.*v1: is 3 s long.*skip_bad'):
    records.write(recipe, tmp_path / 'out')
  with pytest.raises(ValueError, match="no data set 'toy'"):
    records.load(tmp_path / 'out', 'toy', 'train')


def test_the_rest_is_built_on_request_and_says_what_was_left_out(tmp_path, small_shards):
  recipe = make(tmp_path, [Entry('t0'), Entry('t1', 'has no sound'), Entry('t2')])
  folder = records.write(recipe, tmp_path / 'out', skip_bad=True)
  source = records.load(tmp_path / 'out', 'toy', 'train')
  assert source.ids == [source[i]['id'] for i in range(len(source))] == ['t0', 't2']
  assert 't1: has no sound' in (folder / 'skipped.json').read_text()


def test_what_was_made_good_is_noted(tmp_path):
  folder = records.write(make(tmp_path, [Entry('t0'), Entry('t1', 'short')]), tmp_path / 'out')
  assert len(records.load(tmp_path / 'out', 'toy', 'train')) == 2
  assert json.loads((folder / 'remarks.json').read_text()) == ['t1: was short']


def test_a_rerun_after_a_repair_reads_only_the_file_that_was_bad(tmp_path, small_shards):
  recipe = make(tmp_path, [Entry(f't{i}', 'broken' if i == 5 else '') for i in range(10)])
  with pytest.raises(ValueError, match='t5: broken'):
    records.write(recipe, tmp_path / 'out')
  assert len(recipe.read.log()) == 12
  (tmp_path / 'repaired-t5').touch()
  folder = records.write(recipe, tmp_path / 'out')
  assert recipe.read.log()[12:] == ['t4', 't5', 't6', 't7']
  assert len(records.load(tmp_path / 'out', 'toy', 'train')) == 10
  assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']
  assert records.write(recipe, tmp_path / 'out') == folder
  assert len(recipe.read.log()) == 16


def test_a_killed_build_leaves_nothing_to_read_and_the_next_continues(tmp_path, small_shards):
  code = 't.records.SHARD = 4; t.records.write(t.make(folder, t.DEADLY), folder / "out")'
  assert run(code, tmp_path) == -signal.SIGKILL
  with pytest.raises(ValueError, match='no data set'):
    records.load(tmp_path / 'out', 'toy', 'train')
  (tmp_path / 'repaired-t9').touch()
  recipe = make(tmp_path, DEADLY)
  records.write(recipe, tmp_path / 'out')
  assert recipe.read.log()[8:] == ['t8', 't9', 't8', 't9', 'v0', 'v1']
  source = records.load(tmp_path / 'out', 'toy', 'train')
  assert [source[i]['id'] for i in range(10)] == [f't{i}' for i in range(10)]
  assert sorted(path.name for path in (tmp_path / 'out/toy').iterdir()) == ['1.0.0']


@dataclasses.dataclass(frozen=True)
class Large:
  """100 kB of noise for each clip."""

  def __call__(self, entry):
    noise = np.random.default_rng(int(entry.id[1:])).bytes(100_000)
    return {'id': entry.id, 'frames': [noise], 'wave': np.zeros(5, np.int16)}


@contextlib.contextmanager
def full_disk(size):
  """No file can grow beyond this size."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_build_leaves_no_temporary_folder(tmp_path, monkeypatch):
  """TFDS does (findings/tfds_folder_of_every_new_builder.sh)."""
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
  recipe = make(tmp_path, [Entry('t0')])
  records.write(recipe, tmp_path / 'out')
  assert records.load(tmp_path / 'out', 'toy', 'train').ids == ['t0']
  assert not list(temporary.iterdir())


def test_a_full_disk_is_one_error_and_the_next_build_goes_on(tmp_path, small_shards):
  entries = [Entry(f't{i}') for i in range(6)]
  recipe = dataclasses.replace(make(tmp_path, entries), read=Large())
  with full_disk(150_000), pytest.raises(OSError, match='00000-of-00002 cannot be written.*room'):
    records.write(recipe, tmp_path / 'out')
  assert not list(tmp_path.rglob('*.part')) and not (tmp_path / 'out/toy/1.0.0').exists()
  folder = records.write(recipe, tmp_path / 'out')
  assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']
  source = records.load(tmp_path / 'out', 'toy', 'train')
  assert source[5]['frames'] == Large()(Entry('t5'))['frames']


@pytest.mark.parametrize(
  'place, name', [(tfds.core.DatasetInfo, 'write_to_directory'), (whole, 'seal')]
)
def test_a_full_disk_at_the_end_of_a_build_leaves_no_folder(tmp_path, monkeypatch, place, name):
  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(place, name, full)
  recipe = make(tmp_path, [Entry('t0')])
  with pytest.raises(OSError, match='No space left'):
    records.write(recipe, tmp_path / 'out')
  monkeypatch.undo()
  assert not (tmp_path / 'out/toy/1.0.0').exists()
  folder = records.write(recipe, tmp_path / 'out')
  assert recipe.read.log() == ['t0', 'v0', 'v1']  # what was read is kept
  assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']


def test_of_two_builders_at_once_one_waits_and_nothing_is_missing(tmp_path):
  code = (
    'import sys; from tests.data import test_records as t; from pathlib import Path;'
    't.records.SHARD = 4; folder = Path(sys.argv[1]);'
    't.records.write(t.make(folder, [t.Entry(f"t{i}") for i in range(40)]), folder / "out")'
  )
  command = [sys.executable, '-c', code, str(tmp_path)]
  both = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
  assert [process.wait(120) for process in both] == [0, 0]
  (folder,) = (tmp_path / 'out/toy').iterdir()
  assert json.loads((folder / 'skipped.json').read_text()) == [] and not whole.fault(folder)
  assert len((tmp_path / 'log').read_text().split()) == 42  # each clip was read once


def test_a_built_folder_says_what_is_missing_in_it(tmp_path):
  recipe = make(tmp_path, [Entry('t0')])
  folder = records.write(recipe, tmp_path / 'out')
  (folder / 'skipped.json').unlink()
  for call in (
    lambda: records.write(recipe, tmp_path / 'out'),
    lambda: records.load(tmp_path / 'out', 'toy', 'train'),
  ):
    with pytest.raises(ValueError, match='1.0.0 is damaged: skipped.json is missing. Remove'):
      call()
  (folder / whole.MANIFEST).unlink()
  with pytest.raises(ValueError, match='is damaged: skipped.json is missing'):
    records.write(recipe, tmp_path / 'out')


def test_a_folder_from_before_there_were_manifests_is_used(tmp_path):
  recipe = make(tmp_path, [Entry('t0')])
  folder = records.write(recipe, tmp_path / 'out')
  (folder / whole.MANIFEST).unlink()
  assert records.write(recipe, tmp_path / 'out') == folder
  assert len(records.load(tmp_path / 'out', 'toy', 'train')) == 1


def test_beam_without_beam_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"--beam_runner=x needs Apache Beam: pip .*\[beam\]'"):
    records.write(make(tmp_path, [Entry('t0')]), tmp_path / 'out', beam_runner='x')


def test_options_without_a_runner_are_refused(tmp_path):
  with pytest.raises(ValueError, match='--beam_options=direct_num_workers=2 .* --beam_runner'):
    records.write(
      make(tmp_path, [Entry('t0')]), tmp_path / 'out', beam_options='direct_num_workers=2'
    )


def test_processes_build_the_same_as_one(tmp_path):
  recipe = make(tmp_path, [Entry(f't{i}') for i in range(6)])
  for workers in (0, 2):
    records.write(recipe, tmp_path / str(workers), workers=workers)
  one, two = (records.load(tmp_path / str(n), 'toy', 'train') for n in (0, 2))
  assert [one[i]['frames'] for i in range(6)] == [two[i]['frames'] for i in range(6)]
  assert not multiprocessing.active_children()


@pytest.mark.parametrize(
  'options', ['', 'direct_num_workers=2,direct_running_mode=multi_threading']
)
def test_an_apache_beam_runner_builds_the_same(tmp_path, small_shards, options, monkeypatch):
  pytest.importorskip('apache_beam', reason='install the extra [beam]')
  monkeypatch.setattr(sys, 'argv', ['prepare', '--runner=nothing', '--workers=2'])  # not Beam's
  recipe = make(tmp_path, [Entry(f't{i}') for i in range(10)])
  for runner in (None, 'DirectRunner'):
    out = tmp_path / str(runner)
    records.write(recipe, out, beam_runner=runner, beam_options=options if runner else '')
  one, two = (records.load(tmp_path / str(n), 'toy', 'train') for n in (None, 'DirectRunner'))
  assert [one[i]['id'] for i in range(10)] == [two[i]['id'] for i in range(10)]
  faulty = make(tmp_path, [Entry('t0', 'has no sound'), Entry('t1')])
  with pytest.raises(ValueError, match='t0: has no sound'):
    records.write(faulty, tmp_path / 'bad', beam_runner='DirectRunner', beam_options=options)


@pytest.mark.parametrize(
  'runner, why', [('PortableRunner', 'failed: .*DirectRunner needs'), ('x', 'Unexpected .* x')]
)
def test_a_beam_runner_that_cannot_start_is_refused_with_one_that_can(tmp_path, runner, why):
  pytest.importorskip('apache_beam', reason='install the extra [beam]')
  with pytest.raises(ValueError, match=f'(?s){why}'):
    records.write(make(tmp_path, [Entry('t0')]), tmp_path / 'out', beam_runner=runner)


def test_other_clips_do_not_overwrite_a_built_set(tmp_path):
  records.write(make(tmp_path, [Entry('t0')]), tmp_path / 'out')
  with pytest.raises(ValueError, match='built from other clips or settings'):
    records.write(make(tmp_path, [Entry('t1')]), tmp_path / 'out')


def test_builds_from_before_entries_were_called_so_are_known(tmp_path):
  Clip = dataclasses.make_dataclass('Clip', [], bases=(Entry,), frozen=True)
  assert repr(Clip('t0')).startswith('Clip(')
  records.write(make(tmp_path, [Clip('t0')]), tmp_path / 'out')
  records.write(make(tmp_path, [Entry('t0')]), tmp_path / 'out')


def test_an_empty_split_is_an_error_before_and_after_reading(tmp_path):
  with pytest.raises(ValueError, match="split 'train'"):
    records.write(make(tmp_path, []), tmp_path / 'out')
  with pytest.raises(ValueError, match="split 'train', can be used"):
    records.write(make(tmp_path, [Entry('t0', 'broken')]), tmp_path / 'out', skip_bad=True)


def test_small_files_lie_with_the_records(tmp_path):
  recipe = dataclasses.replace(make(tmp_path, [Entry('t0')]), files={'questions.json': '[1, "？"]'})
  records.write(recipe, tmp_path / 'out')
  folder = records.load(tmp_path / 'out', 'toy', 'train').folder
  assert (folder / 'questions.json').read_text(encoding='utf-8') == '[1, "？"]'


def test_pictures_that_are_taken_by_two_rules_never_mix_in_a_folder(tmp_path):
  recipe = make(tmp_path, [Entry('t0')])
  by_name = [dataclasses.replace(recipe, frames_like=name) for name in ('release', 'ffmpeg_fps')]
  folder = records.write(recipe, tmp_path / 'stored')
  assert json.loads((folder / 'recipe.json').read_text())['frames_like'] == ''
  for there, now in (by_name, by_name[::-1]):
    folder = records.write(there, tmp_path / there.frames_like)
    assert records.write(there, tmp_path / there.frames_like) == folder
    assert json.loads((folder / 'recipe.json').read_text())['frames_like'] == there.frames_like
    names = f"frames_like='{there.frames_like}' there, '{now.frames_like}' now"
    with pytest.raises(ValueError, match=f'from other clips or settings .{names}.; remove it'):
      records.write(now, tmp_path / there.frames_like)


def test_a_folder_from_before_rules_had_names_is_one_of_the_release(tmp_path):
  recipe = dataclasses.replace(make(tmp_path, [Entry('t0')]), frames_like='release')
  folder = records.write(recipe, tmp_path / 'out')
  early = json.loads((folder / 'recipe.json').read_text())
  del early['frames_like']
  (folder / 'recipe.json').write_text(json.dumps(early))
  (folder / whole.MANIFEST).unlink()
  assert records.write(recipe, tmp_path / 'out') == folder
  with pytest.raises(ValueError, match="frames_like='release' there, 'ffmpeg_fps' now"):
    records.write(dataclasses.replace(recipe, frames_like='ffmpeg_fps'), tmp_path / 'out')


def test_records_come_in_another_order_if_a_file_says_so(tmp_path):
  recipe = make(tmp_path, [Entry(f't{i}', 'broken' * (i == 1)) for i in range(4)])
  recipe = dataclasses.replace(recipe, files={'train.order.txt': 't3\nt1\nt0\nt2'})
  records.write(recipe, tmp_path / 'out', skip_bad=True)
  source = records.load(tmp_path / 'out', 'toy', 'train')
  assert source.ids == [source[i]['id'] for i in range(len(source))] == ['t3', 't0', 't2']


def test_a_missing_split_names_those_there_are(tmp_path):
  records.write(make(tmp_path, [Entry('t0')]), tmp_path / 'out')
  with pytest.raises(ValueError, match=r"no split 'test', only \['train', 'val'\]"):
    records.load(tmp_path / 'out', 'toy', 'test')


def test_building_and_reading_need_neither_tensorflow_nor_jax(tmp_path):
  code = (
    't.records.write(t.make(folder, [t.Entry("t0")]), folder / "out"); '
    't.records.load(folder / "out", "toy", "train")[0]; '
    'assert not {"tensorflow", "jax"} & set(sys.modules)'
  )
  assert run(code, tmp_path) == 0
