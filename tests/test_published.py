"""A published model says what the run says, by itself; what was changed in it is refused."""

import json
import shutil

import numpy as np
import pytest

from dgsct_jax import predict, published, train, trained, whole
from dgsct_jax.convert import __main__ as convert
from tests import clips, tiny
from tests.test_trained import clip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return tiny.ave_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def folder(run):
  out = run.parent / 'dogs_and_trucks'
  assert convert.main(['publish', str(run), str(out)]) == 0
  return out


def test_it_gives_the_outputs_of_the_run(run, folder):
  expected = trained.load(run, trained.read_config(run))
  found = trained.load(folder, trained.read_config(folder))
  assert found.step == expected.step > 0
  batch = clip()
  for name, values in found(batch).items():
    np.testing.assert_array_equal(values, expected(batch)[name], err_msg=name)


def test_it_holds_all_that_it_needs_and_nothing_of_the_machine(run, folder, tmp_path):
  assert {path.name for path in folder.iterdir()} == {*published.FILES, whole.MANIFEST}
  assert (folder / 'classes.txt').read_text().splitlines()[0] == 'Church bell'
  about = published.read(folder)
  assert about['config']['trainable'] == [] and about['weights'].keys() == {'visual', 'audio'}
  for path in folder.iterdir():
    assert str(run.parent).encode() not in path.read_bytes(), path.name
  moved = shutil.copytree(folder, tmp_path / 'elsewhere')
  assert trained.load(moved, trained.read_config(moved)).step == about['step']


def test_the_card_tells_data_scores_and_frozen_weights(run, tmp_path):
  copy = shutil.copytree(run, tmp_path / 'scored')
  scores = {'chosen': 'best accuracy on val', 'test': {'accuracy': 51.25}}
  (copy / 'metrics.json').write_text(json.dumps(scores))
  assert convert.main(['publish', str(copy), str(tmp_path / 'out')]) == 0
  text = (tmp_path / 'out' / 'README.md').read_text()
  for part in ('`ave`', 'best accuracy on val', '| accuracy | 51.25 |', '`visual`: random, seed'):
    assert part in text
  assert convert.main(['publish', str(copy), str(tmp_path / 'half'), '--dtype', 'float16']) == 0
  sizes = [(tmp_path / name / published.WEIGHTS).stat().st_size for name in ('out', 'half')]
  assert sizes[1] < 0.7 * sizes[0]
  trained.load(tmp_path / 'half', trained.read_config(tmp_path / 'half'))


def test_the_command_line_takes_it_in_place_of_a_run(folder, tmp_path, monkeypatch, capsys):
  video = clips.write(tmp_path / 'a.mp4', clips.counter(5), range(5), clips.tone(32000, 5))
  monkeypatch.chdir(tmp_path)
  assert predict.main([f'--workdir={folder}', str(video)]) == 0
  record = json.loads((tmp_path / 'predictions' / 'a.mp4' / 'events.json').read_text())
  assert record['workdir'] == str(folder) and record['step'] > 0
  assert not (folder / 'predictions').exists()


def test_a_model_of_the_hub_is_fetched_by_its_manifest(folder, monkeypatch):
  asked = []

  def beside(given, name):
    asked.append((given, name))
    return str(folder)

  monkeypatch.setattr(published.hub, 'beside', beside)
  assert published.fetch('hf://me/dogs') == folder
  assert {name for _, name in asked} == {*published.FILES, whole.MANIFEST}
  assert published.fetch('~/dogs').is_absolute()


@pytest.mark.parametrize('name', published.FILES)
def test_what_was_damaged_or_lost_is_refused(folder, tmp_path, name, capfd):
  for change, told in (
    (lambda path: path.write_bytes(path.read_bytes()[:-1] + b'?'), 'is not what was written'),
    (lambda path: path.unlink(), 'is missing'),
  ):
    copy = shutil.copytree(folder, tmp_path / told.replace(' ', '_'))
    change(copy / name)
    with pytest.raises(ValueError, match=told):
      trained.read_config(copy)
  with pytest.raises(SystemExit):
    predict.main([f'--workdir={copy}', 'clip.mp4'])
  assert f'{name} is missing' in capfd.readouterr().err


@pytest.mark.parametrize(
  'text', ['', '[]', '{}', '{"config.json": 0, "model.safetensors": 0, "../README.md": 0}']
)
def test_a_manifest_lists_known_files_alone(folder, tmp_path, text):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  (copy / whole.MANIFEST).write_text(text)
  with pytest.raises(
    ValueError, match=r'manifest\.json (cannot be read|lists).*Fetch the folder again'
  ):
    trained.read_config(copy)


def test_a_folder_is_written_once_and_of_a_run_alone(run, folder, tmp_path, capsys):
  assert convert.main(['publish', str(run), str(folder)]) == 1
  assert convert.main(['publish', str(tmp_path), str(tmp_path / 'out')]) == 1
  told = capsys.readouterr().err
  assert 'exists; name a new folder' in told and 'There is no checkpoint in' in told
  assert not (tmp_path / 'out').exists()


def test_it_cannot_be_trained_on(folder, tmp_path):
  with pytest.raises(ValueError, match='there is nothing to train'):
    train.train(trained.read_config(folder), tmp_path)
