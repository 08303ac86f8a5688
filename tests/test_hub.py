"""Files by name: paths, folders, and addresses of the hub, whose client is stood in for."""

import sys
import types

import pytest

from dgsct_jax import hub


def stand_in(monkeypatch, files, error=None):
  """Stands in for huggingface_hub, which cannot reach its server here."""
  client = types.ModuleType('huggingface_hub')
  client.errors = types.SimpleNamespace(
    HfHubHTTPError=type('HfHubHTTPError', (Exception,), {}),
    HFValidationError=type('HFValidationError', (ValueError,), {}),
  )
  asked = []

  def download(repo, file):
    if error:
      raise error
    asked.append((repo, file))
    return f'/cache/{file}'

  client.hf_hub_download, client.list_repo_files = download, lambda repo: files
  monkeypatch.setitem(sys.modules, 'huggingface_hub', client)
  return asked


@pytest.mark.parametrize(
  'address, files, file',
  [
    (
      'hf://timm/swinv2',
      ['README.md', 'pytorch_model.bin', 'model.safetensors'],
      'model.safetensors',
    ),
    ('hf://timm/swinv2', ['pytorch_model.bin'], 'pytorch_model.bin'),
    ('hf://timm/swinv2/folder/x.pt', [], 'folder/x.pt'),
  ],
)
def test_hub_addresses_name_a_file_or_the_usual_one(monkeypatch, address, files, file):
  asked = stand_in(monkeypatch, files)
  assert str(hub.fetch(address)) == f'/cache/{file}' and asked == [('timm/swinv2', file)]


def test_hub_failures_are_one_clear_error(monkeypatch):
  stand_in(monkeypatch, ['config.json'])
  with pytest.raises(ValueError, match='config.json; write hf://timm/x/FILE'):
    hub.fetch('hf://timm/x')
  with pytest.raises(ValueError, match='names no repository'):
    hub.fetch('hf://timm')
  stand_in(monkeypatch, ['model.safetensors'], ConnectionError('no route'))
  with pytest.raises(ValueError, match='cannot be downloaded: no route'):
    hub.fetch('hf://timm/x')


def test_a_path_is_that_of_a_file_or_of_a_folder_with_weights(tmp_path):
  with pytest.raises(ValueError, match='is not a file'):
    hub.fetch(str(tmp_path / 'no.pt'))
  with pytest.raises(ValueError, match='is not a file; give a checkpoint, a folder with'):
    hub.fetch(str(tmp_path))
  for name in ('pytorch_model.bin', 'model.safetensors'):
    (tmp_path / name).write_bytes(b'')
    assert hub.fetch(str(tmp_path)) == tmp_path / name


def test_what_lies_beside_weights_is_found(monkeypatch, tmp_path):
  (tmp_path / 'clap.pt').write_bytes(b'')
  assert hub.beside(str(tmp_path), 'tokenizer.json') == str(tmp_path)
  assert hub.beside(str(tmp_path / 'clap.pt'), 'tokenizer.json') == str(tmp_path)
  asked = stand_in(monkeypatch, [])
  assert hub.beside('hf://laion/clap/weights.pt', 'tokenizer.json') == '/cache'
  assert asked == [('laion/clap', 'tokenizer.json')]
