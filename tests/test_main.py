"""The command line: what a user types, and what the machine answers."""

import json
import re
from pathlib import Path

import pytest

from dgsct_jax import command_line, evaluate, main, train, trained
from dgsct_jax.tasks import registry
from tests import forks, toy

ROOT = Path(__file__).parents[1]

CONFIG = """
from tests import toy

def get_config(variant=''):
  return toy.config(**{'optim.epochs': 2 if variant == 'long' else 1})
"""
# The command with the toy as its task: the others need real models.
TOY = """
from absl import app
from dgsct_jax import command_line, main
from dgsct_jax.tasks import registry
from tests import toy
registry.TASKS['toy'] = lambda config: toy.task(config.model.width)
app.run(main.main, flags_parser=command_line.parse_flags)
"""


@pytest.fixture
def command(tmp_path):
  (tmp_path / 'tiny.py').write_text(CONFIG)

  def call(*arguments, config=f'--config={tmp_path}/tiny.py'):
    return forks.command(TOY, *filter(None, [config]), *arguments).finish()

  return call


def test_one_command_trains_and_the_other_mode_scores(command, tmp_path):
  everything = '--config.trainable=(".*",)'
  trained = command(f'--workdir={tmp_path}/run', '--config.optim.lr=0.02', everything)
  assert trained.returncode == 0, trained.stderr
  assert 'lr 2.00e-02' in trained.stdout and 'step 6/6' in trained.stdout
  scored = command(f'--workdir={tmp_path}/run', '--mode=evaluate', everything)
  assert scored.returncode == 0, scored.stderr
  found = [
    [json.loads(line) for line in out.stdout.splitlines() if line.startswith('{')]
    for out in (trained, scored)
  ]
  assert len(found[0]) == 1 and found[0] == found[1]


def test_an_unknown_field_is_named_with_what_is_near(command, tmp_path):
  wrong = command(
    '--config.optim.learning_rate=1', '--config.optm.lr=2', f'--workdir={tmp_path}/run'
  )
  assert wrong.returncode == 1 and 'Traceback' not in wrong.stderr
  assert '--config.optim.learning_rate: the config has no such field; near to it:' in wrong.stderr
  assert '--config.optm.lr: the config has no such field; near to it: optim.lr' in wrong.stderr
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'arguments, config, message',
  [
    (('--config.optim.epochs=few',), True, 'flag --config.optim.epochs=few: invalid literal for'),
    (('--mode=test',), True, 'flag --mode=test: value should be one of <train|evaluate>'),
    (('optim.epochs=3',), True, 'optim.epochs=3 is no flag; fields of the config are given as --'),
    ((), False, 'Flag --config must have a value other than None'),
  ],
)
def test_a_wrong_command_line_is_a_short_error(command, arguments, config, message):
  wrong = command(*arguments, **({} if config else {'config': ''}))
  assert wrong.returncode == 1 and 'Traceback' not in wrong.stderr
  assert message in wrong.stderr
  assert wrong.stderr.startswith('error: ') and 'help' not in wrong.stderr + wrong.stdout


AVE = ROOT / 'configs/ave.py'


@pytest.mark.parametrize(
  'words, message',
  [
    ([f'--config={AVE}:nosuch'], r"ave.py:nosuch: ValueError: The variant 'nosuch' has unknown w"),
    ([f'--config={ROOT}/configs'], 'there is no file .*/configs.'),
    (['--config=nowhere.py'], 'there is no file nowhere.py'),
    ([f'--config={ROOT}/README.md'], 'README.md: SyntaxError: '),
    (['--config', f'{ROOT}/configs/common.py:x'], 'common.py:x: TypeError: get_config.. takes 0'),
  ],
)
def test_a_config_that_cannot_be_had_is_one_error(monkeypatch, words, message):
  with pytest.raises(SystemExit) as main_says:
    command_line.parse_flags(['main', *words])
  assert re.match(f'error: --config=.*{message}', main_says.value.code)
  with pytest.raises(ValueError, match=message):
    trained.from_file(words[-1].removeprefix('--config='))  # as predict does


@pytest.mark.parametrize('task', registry.TASKS)
@pytest.mark.parametrize('config', ['ave', 'avs_s4', 'few_shot', 'ma_avt', 'tags'])
def test_the_task_of_another_config_is_an_error_that_names_it(config, task):
  variant = '' if config == 'tags' else 'tiny'
  values = trained.from_file(f'{ROOT}/configs/{config}.py:{variant}')
  if values.task == task:
    return
  values.task = task
  with pytest.raises(ValueError, match='config'):
    registry.build(values)


@pytest.mark.parametrize('place', ['file', 'file/run'])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, place):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='--workdir=.* cannot be made .*choose another folder'):
    main.make(tmp_path / place)


def test_a_run_goes_on_from_the_step_that_is_asked_for(tmp_path):
  config = toy.config(**{'optim.epochs': 1})
  train.train(config, tmp_path, toy.task())
  (tmp_path / 'checkpoints/6/run/metadata').write_text('')
  for mode in (train.train, evaluate.run):
    with pytest.raises(ValueError, match='checkpoints/6 is damaged: .*step 4: with --from=4'):
      mode(config, tmp_path, toy.task())
  evaluate.run(config, tmp_path, toy.task(), 4)
  assert json.loads((tmp_path / 'metrics.json').read_text())['step'] == 4
  train.train(config, tmp_path, toy.task(), 4)
  assert json.loads((tmp_path / 'metrics.json').read_text())['step'] == 6
  assert (tmp_path / 'aside/6').is_dir()


@pytest.mark.parametrize(
  'config, workdir',
  [
    ('configs/avqa.py', 'runs/avqa'),
    ('configs/quickstart.py:stamps', 'runs/quickstart_stamps'),
    ('/far/away/ave.py:released,weak', 'runs/ave_released_weak'),
  ],
)
def test_the_default_folder_has_the_name_of_the_config(config, workdir):
  assert main.default_workdir(config) == Path(workdir)


def test_an_error_of_the_user_is_one_paragraph_and_debug_shows_where_it_is_from(command, tmp_path):
  wrong = f'--workdir={tmp_path}/run', '--config.optim.lr=-1.0'
  told = command(*wrong)
  assert told.returncode == 1 and 'Traceback' not in told.stderr
  assert 'config.optim.lr=-1.0; give a finite number above 0' in told.stderr
  shown = command(*wrong, '--debug')
  assert shown.returncode == 1 and 'Traceback' in shown.stderr
  nothing = command(f'--workdir={tmp_path}/run', '--config.trainable=()')
  assert 'error: config.trainable is empty: there is nothing to train; give' in nothing.stderr


def test_the_home_folder_is_found_in_flags(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = toy.config()
  config.data.dir = '~/clips'
  config.seed = 5
  found = command_line.at_home(config)
  assert found.data.dir == '/home/me/clips' and found.seed == 5
