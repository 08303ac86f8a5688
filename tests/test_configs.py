"""Every config and variant builds its task, and every field of a config is read by someone."""

import contextlib
import functools
import importlib
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common, composed
from dgsct_jax import evaluate, optim, settings, sharding, train, trained, weights
from dgsct_jax import state as states
from dgsct_jax.data import records
from dgsct_jax.data.datasets import ave
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import check_fields
from tests import processes, tiny
from tests.data.datasets import test_ave

ROOT = Path(__file__).parents[1]
SHARED = ('__init__', 'common', 'composed')  # by all configs, themselves none
NAMES = [file.stem for file in sorted((ROOT / 'configs').glob('*.py')) if file.stem not in SHARED]
# Words that need others beside them.
NOT_ALONE = {'unimodal': {'stamps'}}
# Fields of every config that training itself reads, at a step that the test does not take.
OF_TRAINING = {
  *('select_on', 'log_steps', 'eval_epochs', 'save_steps', 'keep', 'profile'),
  'optim.patience',
  'data.cache_features',
}
# Fields that a config has because another one needs them, or that count when a clip is shown.
OF_ANOTHER = {
  'captions': {'data.draw'},
  'tags': {'data.seen', 'data.heard', 'data.least'},
  'zero_shot': {'data.draw', 'loss.weights'},
}


# What a user must give before a task can be built.
GIVEN = {
  'few_shot': {'model.tokenizer.clap': 'letters'},
  'pretrain': {'model.tokenizer.clap': 'letters', 'data.classes': ('dog', 'bell')},
  'zero_shot': {'model.tokenizer.clap': 'letters', 'data.classes': ('dog', 'bell')},
}


def get_config(name: str, *variant: str) -> ConfigDict:
  config = importlib.import_module(f'configs.{name}').get_config(*variant)
  config.update_from_flattened_dict(GIVEN.get(name, {}))
  return config


def words(name: str) -> list[str]:
  """Those that a config says it knows when it is given another one."""
  with pytest.raises(ValueError, match='choose from') as error:
    get_config(name, 'anything')
  return str(error.value).partition('choose from ')[2].rstrip('.').split(', ')


def documented(name: str) -> set[str]:
  """The variants of a config that documents and docstrings speak of."""
  files = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/*.py')]
  text = '\n'.join(file.read_text() for file in files)
  return set(re.findall(rf'configs/{name}\.py:([a-z_0-9]+(?:,[a-z_0-9]+)*)', text))


def variants(name: str) -> list[str]:
  alone = set(words(name)) - NOT_ALONE.get(name, set())
  return sorted(alone | documented(name) | {''})


EVERY = [(name, variant) for name in NAMES for variant in variants(name)]


@pytest.mark.parametrize('name, variant', EVERY, ids=[f'{n}-{v or "default"}' for n, v in EVERY])
def test_every_variant_builds_its_task(name, variant):
  config = get_config(name, *filter(None, [variant]))
  task = registry.build(config)
  assert config.task in registry.TASKS and task.primary and task.inputs.spec
  assert config.optim.accumulate == 1 or 'released' in variant
  optim.build(config.optim, 10)
  again = registry.build(config).model  # equal, so that jax knows it again
  assert again == task.model and hash(again) == hash(task.model)


def test_documents_speak_of_variants():
  """Else `documented` has looked in vain."""
  assert {'released', 'weak', 'tiny'} <= documented('ave')
  assert {'scenes', 'scenes,none'} & documented('avqa')


@pytest.mark.parametrize('name', NAMES)
def test_unknown_and_repeated_words_are_refused_and_the_others_named(name):
  known = words(name)
  assert len(known) == len(set(known)) > 0
  word = sorted(set(known) - NOT_ALONE.get(name, set()))[0]
  with pytest.raises(ValueError, match=r"unknown words \['anything'\].*choose from"):
    get_config(name, f'{word},anything')
  with pytest.raises(ValueError, match=rf"repeats \['{word}'\]"):
    get_config(name, f'{word},{word}')


@pytest.mark.parametrize('name', NAMES)
def test_the_order_of_words_does_not_matter(name):
  for pair in itertools.combinations(words(name), 2):
    found = []
    for text in (','.join(pair), ','.join(pair[::-1])):
      try:
        found.append(get_config(name, text).to_dict())
      except ValueError:  # unimodal has no such pair
        found.append(None)
    assert found[0] == found[1], pair


def test_words_act_in_the_order_of_the_config():
  config, acted = common.get_config(), []
  common.variant(config, 'b,a', a=lambda _: acted.append('a'), b=lambda _: acted.append('b'))
  assert acted == ['a', 'b']


def test_released_is_always_asked_for_by_name():
  """Defaults are the repaired settings; see the README."""
  for name in NAMES:
    if 'released' in words(name):
      default, released = get_config(name), get_config(name, 'released')
      assert default.model.backbone_mode == 'eval' and released.model.backbone_mode == 'train'
      assert default.select_on == 'val' and default.optim.accumulate == 1


# What is read.


def small(name: str, folder: Path, *words: str) -> ConfigDict:
  """A config whose step compiles in seconds, and the data that it needs."""
  if name == 'quickstart':
    _, config = tiny.quickstart()
  elif name == 'unimodal':
    config = get_config(name)
    config.model.update(visual=dict(composed.TINY_VISUAL), audio=dict(composed.TINY_AUDIO))
    config.data.knobs.update(size=32, sample_rate=1000)
    config.data.update(batch=4, clips={'train': 8, 'val': 2, 'test': 2})
  else:
    config = get_config(name, ','.join(('tiny', *words)))
    for backbone in (config.model.visual, config.model.audio):
      if backbone.kind in ('swin_v2', 'htsat'):
        backbone.update(depths=(1,), heads=(2,))
  if name in ('pretrain', 'zero_shot'):
    config.data.update(kind='ave', name='ave', classes=())
  config.data.dir = str(folder / name)
  if config.data.kind == 'ave':
    rate = config.model.audio.sample_rate
    root = test_ave.released(folder / f'released_{name}')
    for path in root.glob('wave/*.npy'):
      np.save(path, np.linspace(-1, 0.99, 10 * rate, dtype=np.float32))
    records.write(ave.recipe(root, rate=rate), config.data.dir)
  return config


@contextlib.contextmanager
def noted(config: ConfigDict, monkeypatch: Any) -> Iterator[set[str]]:
  """The dotted names of the fields of a config that are read meanwhile."""
  places, read = {}, set()

  def walk(node: ConfigDict, prefix: str) -> None:
    places[id(node)] = prefix
    for key in node.keys():
      if isinstance(child := node[key], ConfigDict):
        walk(child, f'{prefix}{key}.')

  walk(config, '')
  get = ConfigDict.__getitem__

  def spy(node: ConfigDict, key: str) -> Any:
    if id(node) in places:
      read.add(f'{places[id(node)]}{key}')
    return get(node, key)

  with monkeypatch.context() as patch:
    patch.setattr(ConfigDict, '__getitem__', spy)
    patch.setattr(settings, 'check', lambda config: None)  # it looks at all fields
    yield read


def two_steps(config: ConfigDict) -> list[float]:
  """The losses of the first two batches; val and test are looked up, too."""
  task, mesh = registry.build(config), sharding.make_mesh(config.mesh)
  tx, schedule = optim.build(config.optim, 10)
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh))
  state, step, losses = states.create(variables, tx, config.seed, mesh), None, []
  with train.read_batches(task.data('train'), config) as batches:
    for _ in range(2):
      batch = next(batches)
      check_fields(batch, task.inputs.spec)
      batch = sharding.global_batch(batch, mesh)
      if not step:
        step, _ = train.compile_step(task, tx, schedule, state, variables.frozen, batch)
      state, scalars = step(state, variables.frozen, batch)
      losses.append(float(scalars['loss']))
  assert int(state.step) == 2
  assert all(len(task.data(split).source) for split in ('val', 'test'))
  return losses


def scores(config: ConfigDict) -> list[float]:
  """The metrics of a config that trains nothing."""
  task, mesh = registry.build(config), sharding.make_mesh(config.mesh)
  model = trained.untrained(config, task, mesh)
  if config.data.kind == 'words':  # there are no clips: the outputs for an invented one
    clip = {name: np.ones((1, *x.shape), x.dtype) for name, x in task.inputs.spec.items()}
    outputs = model(clip | {'valid': np.ones(1, np.float32)})
    return [float(values.mean()) for values in outputs.values()]
  return list(evaluate.evaluate(model, task, 'test', config).values())


@pytest.fixture(scope='module')
def read(tmp_path_factory):
  """For a config, its fields, those that were read in two steps, and the losses of these."""
  folder = tmp_path_factory.mktemp('data')

  @functools.cache
  def of(name: str) -> tuple[set[str], set[str], list[float]]:
    config = small(name, folder)
    with noted(config, patch) as names:
      losses = two_steps(config) if config.trainable else scores(config)
    own, seen = set(), set(names)
    for variant in variants(name):  # Some fields count in some variants only.
      other = get_config(name, *filter(None, [variant]))
      own |= settings.fields(other).keys()
      other.data.dir = str(folder / 'nowhere')
      with noted(other, patch) as names:
        task = registry.build(other)
        if 'source' not in other.data:  # else the whole data set would be composed
          with pytest.raises(ValueError):
            task.data('train')
        elif 'data.seed' not in seen:
          other.data.update(dir=str(folder / 'few'), clips={'train': 1, 'val': 1, 'test': 1})
          task.data('train')
      seen |= names
    return own, seen, losses

  with pytest.MonkeyPatch.context() as patch:
    yield of


@pytest.mark.parametrize('name', NAMES)
def test_two_steps_on_the_data_of_a_config_are_finite(read, name):
  _, _, losses = read(name)
  assert len(losses) > 1 and all(np.isfinite(losses))
  assert losses[0] != losses[1] or not get_config(name).trainable


@pytest.mark.parametrize(
  'name, system',
  [('ave', 'lavish'), ('ave', 'vit'), ('avqa', 'lavish'), ('avs_s4', 'lavish'), ('avvp', 'lavish')]
  + [(name, 'side') for name in ('ave', 'avqa', 'avs_s4', 'avvp')]
  + [('few_shot', 'cocoop'), ('few_shot', 'maple')],
)
def test_another_system_takes_two_steps_in_a_task(name, system, tmp_path):
  losses = two_steps(small(name, tmp_path, system))
  assert all(np.isfinite(losses)) and losses[0] != losses[1]


# Every encoder and adapter, and the decoder of masks.
IN_BFLOAT16 = [
  ('ave', 'tiny'),
  ('ave', 'tiny,lavish'),
  ('ave', 'tiny,side'),
  ('avs_s4', 'tiny'),
  ('few_shot', 'tiny'),
  ('ma_avt', 'tiny'),
]


@pytest.mark.slow
@pytest.mark.parametrize('name, variant', IN_BFLOAT16, ids=[f'{n}-{v}' for n, v in IN_BFLOAT16])
def test_a_step_in_bfloat16_is_finite(name, variant):
  """Of one clip, whose axis XLA leaves out; see `dgsct_jax/models/products.py`."""
  values = processes.one_step(
    'tests.tiny:noise',
    devices=1,
    rule='sgd',
    config_name=name,
    variant=variant,
    **{'model.dtype': 'bfloat16', 'frozen_dtype': 'bfloat16', 'data.batch': 1},
  )
  assert values
  for path, value in values.items():
    assert np.isfinite(value).all(), path


@pytest.mark.parametrize('name', NAMES)
def test_every_field_of_its_own_is_read(read, name):
  own, seen, _ = read(name)
  unread = own - seen - settings.fields(common.get_config()).keys() - OF_ANOTHER.get(name, set())
  assert not unread, f'nobody reads {sorted(unread)} of configs/{name}.py'


def test_every_field_that_all_have_is_read(read):
  seen = set().union(*(read(name)[1] for name in NAMES))
  assert settings.fields(common.get_config()).keys() - seen == OF_TRAINING


# The command of the README.


def readme_command() -> list[str]:
  """The arguments of the first command in the README that trains."""
  text = (ROOT / 'README.md').read_text()
  return re.search(r'python -m (dgsct_jax\.main [^\n`]*)', text)[1].split()


@pytest.mark.slow  # three minutes: the whole model of the quickstart is compiled
def test_the_command_of_the_readme_trains_two_steps(tmp_path):
  module, *arguments = readme_command()
  assert (module, arguments) == ('dgsct_jax.main', ['--config=configs/quickstart.py'])
  few = [f'--config.data.clips.{split}={n}' for split, n in dict(train=16, val=4, test=4).items()]
  given = [*few, '--config.optim.epochs=1', f'--config.data.dir={tmp_path}/data']
  run = subprocess.run(
    [sys.executable, '-m', module, *arguments, f'--workdir={tmp_path}/run', *given],
    capture_output=True,
    text=True,
    timeout=550,
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  assert run.returncode == 0, run.stderr[-3000:]
  assert '16 clips, 2 batches of 8 in an epoch' in run.stdout and 'accuracy' in run.stdout
  for name in ('index.html', 'metrics.json', 'predictions.jsonl', 'figures/clip_0.png'):
    assert (tmp_path / 'run' / name).is_file()


@pytest.mark.parametrize('name, variant', [('quickstart', ''), ('few_shot', 'scenes,maple')])
def test_packaged_weights_fit_their_models(name, variant):
  config = get_config(name, *filter(None, [variant]))
  task, mesh = registry.build(config), sharding.make_mesh(config.mesh)
  layout = states.layout(task.model, task.inputs.spec, config, mesh)
  drawn = layout.leaves.keys() - layout.sources.keys()
  assert {path for path in drawn if path.startswith('params/')} == layout.trainable
  assert all(value.startswith('sha256 ') for value in layout.weights.values())


def test_packaged_weights_are_there_and_packaged():
  given = {
    value.removeprefix('package:')
    for name, variant in EVERY
    for value in get_config(name, *filter(None, [variant])).init.to_dict().values()
    if value.startswith('package:')
  }
  assert given == {path.name for path in weights.PACKAGED.iterdir()} and len(given) == 6
  patterns = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']
  packaged = {
    path
    for package, globs in patterns['package-data'].items()
    for pattern in globs
    for path in (ROOT / package.replace('.', '/')).glob(pattern)
  }
  assert {weights.PACKAGED / name for name in given} <= packaged
