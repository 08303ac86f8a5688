"""What is written is whole or not there, and a sealed folder tells what has changed in it."""

import concurrent.futures
import json
import os
import resource

import pytest

from dgsct_jax import whole


def test_a_text_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
  file = tmp_path / 'a.txt'
  whole.write(file, 'old')
  whole.write(file, 'new \udcff')
  assert file.read_bytes() == b'new \xff'

  def full(path, text, **kwargs):
    path.touch()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(type(file), 'write_text', full)
  with pytest.raises(OSError, match='No space'):
    whole.write(file, 'newer')
  assert file.read_bytes() == b'new \xff' and os.listdir(tmp_path) == ['a.txt']


def test_text_is_added_whole_or_not_at_all(tmp_path):
  file = tmp_path / 'a.txt'
  whole.append(file, 'one\n')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
  try:
    with pytest.raises(OSError, match='File too large'):
      whole.append(file, 'a long line\n')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert file.read_text() == 'one\n'
  whole.append(file, 'two\n')
  assert file.read_text() == 'one\ntwo\n'


def test_several_threads_add_whole_lines(tmp_path):
  file = tmp_path / 'a.txt'
  lines = [f'{i} {"x" * i}\n' for i in range(200)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda line: whole.append(file, line), lines))
  assert sorted(file.read_text().splitlines(True)) == sorted(lines)


def test_a_folder_gets_all_files_or_none_and_keeps_its_own(tmp_path):
  folder = tmp_path / 'a'
  with whole.beside(folder) as part:
    (part / 'one').write_text('1')
  with pytest.raises(OSError), whole.beside(folder) as part:
    (part / 'one').write_text('2')
    raise OSError
  assert (folder / 'one').read_text() == '1'
  with whole.beside(folder) as part:
    (part / 'two').write_text('2')
  assert sorted(os.listdir(folder)) == ['one', 'two'] and os.listdir(tmp_path) == ['a']


def test_what_a_killed_process_left_is_not_taken_over(tmp_path):
  (tmp_path / '.a.part').mkdir()
  (tmp_path / '.a.part/half').touch()
  with whole.beside(tmp_path / 'a') as part:
    (part / 'one').touch()
  assert os.listdir(tmp_path / 'a') == ['one'] and os.listdir(tmp_path) == ['a']


@pytest.fixture
def sealed(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in/a').write_text('aaaa')
  (tmp_path / 'b').write_text('bb')
  whole.seal(tmp_path)
  assert not whole.fault(tmp_path, ('in', 'b'))
  return tmp_path


def test_a_sealed_folder_names_what_is_missing_cut_or_changed(sealed):
  (sealed / 'in/a').write_text('aaba')
  assert whole.fault(sealed) == whole.fault(sealed, ('b',)) == ''  # the sizes are right
  assert whole.fault(sealed, ('in',)) == 'in/a is not what was written'
  (sealed / 'in/a').write_text('aa')
  assert whole.fault(sealed) == 'in/a has 2 bytes of 4'
  (sealed / 'in/a').unlink()
  assert whole.fault(sealed) == 'in/a is missing'


@pytest.mark.parametrize('text', ['', '[]', '{"b":', '{"b": 3}', '{"b": {}}', 'null', '"b"'])
def test_a_manifest_that_is_none_is_a_fault(sealed, text):
  (sealed / whole.MANIFEST).write_text(text)
  assert whole.fault(sealed).startswith('manifest.json cannot be read')


def test_what_a_manifest_lists_is_on_the_disk_before_it(tmp_path, monkeypatch):
  for name in 'ab':
    (tmp_path / name).write_text(name)
  synced = []
  monkeypatch.setattr(os, 'fsync', lambda file: synced.append(os.fstat(file).st_ino))
  whole.seal(tmp_path)
  assert synced == [(tmp_path / name).stat().st_ino for name in ('a', 'b', 'manifest.json')]
  assert list(json.loads((tmp_path / 'manifest.json').read_text())) == ['a', 'b']
