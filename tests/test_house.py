"""The house holds a task that it does not know: which seconds of a clip sound.

A task of the package is these files: `models/heads/NAME.py` (here `Ear`), `tasks/NAME.py` (`build`
and what is below it), one line in `tasks/registry.py`, `configs/NAME.py` (`get_config`); with data
of its own also `data/datasets/NAME.py` (`Clips`, `KIND`) and one line in
`data/datasets/__init__.py`. Nothing else: here the two lines are `register`, and the package is as
it was.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from configs import common
from dgsct_jax import evaluate, predict, train
from dgsct_jax.data import clips, datasets, media, transforms
from dgsct_jax.data.kind import Kind
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.tasks import registry, views
from dgsct_jax.tasks.task import Inputs, Task, View, floats, integers, mean_over_clips, share
from dgsct_jax.tracks import Frames, Spectrum, Steps
from tests import clips as made

T, SIZE, RATE = 3, 16, 2000


# The task.


class Ear(nn.Module):
  """A logit for each second, from how loud it is and how bright its picture."""

  @nn.compact
  def __call__(self, batch, train=False):
    level = jnp.log(jnp.square(batch['wave']).mean(-1) + 1e-6) / 10
    x = jnp.stack([level, batch['video'].mean((2, 3, 4))], -1)
    return {'logits': nn.Dense(1, name='head')(nn.tanh(nn.Dense(8, name='hear')(x)))[..., 0]}


def build(config):
  kind, fields = datasets.of(config.data), config.data
  decode = transforms.DecodeFrames(SIZE, (0.0,) * 3, (1.0,) * 3), transforms.DecodeWave(T, RATE)
  keep = transforms.Keep(('video', 'wave', 'label'))
  return Task(
    model=Ear(),
    loss=loss,
    metrics=metrics,
    data=lambda split: Dataset(kind.load(fields, split), (*decode, keep)),
    primary='accuracy',
    inputs=Inputs(
      spec={'video': floats(T, SIZE, SIZE, 3), 'wave': floats(T, RATE), 'label': integers(T)},
      windows=functools.partial(kind.windows, fields),
      decode=decode,
      rate=RATE,
    ),
    show=show,
  )


def loss(outputs, batch):
  parts = {'sounds': optax.sigmoid_binary_cross_entropy(outputs['logits'], batch['label']).mean(1)}
  return mean_over_clips(parts, batch['valid'])


def metrics(outputs, batch):
  right = (outputs['logits'] > 0) == batch['label']
  return {'accuracy': share(right, np.ones_like(right))}


def show(clip, outputs):
  sounds = views.sigmoid(clip.join(outputs['logits']))
  return View(
    name='sounds',
    title=clip.title,
    record={'sounds': sounds.tolist()},
    lines=tuple(f'{views.clock(second)}  {p:.2f}' for second, p in zip(clip.seconds, sounds)),
    tracks=(
      Frames('frames', clip.frames),
      Spectrum('sound', clip.wave),
      Steps('sounds', sounds, 0.5),
    ),
  )


# Its data.


@dataclasses.dataclass(frozen=True)
class Clips:
  """Noise before noise: some seconds are silent."""

  count: int

  @property
  def ids(self):
    return [f'clip{i}' for i in range(self.count)]

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    rng = np.random.default_rng(i)
    label = rng.integers(0, 2, T).astype(np.int32)
    wave = 9000 * label[:, None] * rng.normal(size=(T, RATE)).clip(-3, 3)
    frames = rng.integers(0, 256, (T, SIZE, SIZE, 3), dtype=np.uint8)
    return {
      'id': self.ids[i],
      'frames': [media.jpeg(frame, SIZE) for frame in frames],
      'wave': wave.astype(np.int16).reshape(-1),
      'label': label,
    }


KIND = Kind(
  classes=lambda fields: (),
  windows=lambda fields, length: clips.consecutive(length, clips.middles(T)),
  load=lambda fields, split: Clips({'train': 32, 'val': 5, 'test': 11}[split]),
)


def get_config():
  config = common.get_config()
  config.task = config.data.kind = config.data.name = 'sounds'
  config.init = {'ear': 'random', 'all': ''}
  config.parts = {'ear': 'hear'}
  config.trainable = ('head/.*',)
  config.model = {}
  config.optim.update(lr=0.1, epochs=12)
  return config


def register(tasks=registry.TASKS, kinds=datasets.KINDS):
  tasks['sounds'], kinds['sounds'] = build, KIND


# The house.


@pytest.fixture(scope='module', autouse=True)
def registered():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(registry, 'TASKS', dict(registry.TASKS))
    patch.setattr(datasets, 'KINDS', dict(datasets.KINDS))
    register(registry.TASKS, datasets.KINDS)
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return workdir, train.train(get_config(), workdir)


def test_it_learns(run):
  assert run[1]['accuracy'] > 95


def test_it_is_evaluated_recorded_and_drawn(run):
  workdir, metrics = run
  assert evaluate.run(get_config(), workdir) == pytest.approx(metrics)
  rows = [json.loads(line) for line in (workdir / 'predictions.jsonl').read_text().splitlines()]
  assert [row['id'] for row in rows] == Clips(11).ids
  right = [(np.array(row['sounds']) > 0.5) == Clips(11)[row['index']]['label'] for row in rows]
  assert 100 * np.mean(right) == pytest.approx(metrics['accuracy'])
  assert len(list((workdir / 'figures').glob('clip_*.png'))) == evaluate.FIGURES
  assert 'clip_0' in (workdir / 'index.html').read_text()


def test_it_is_asked_about_a_file(run, tmp_path, capsys):
  workdir, _ = run
  sound = made.tone(32000, 4)
  sound[:, 32000:64000] = 0
  path = made.write(tmp_path / 'a.mkv', made.counter(40), np.arange(40) / 10, sound)
  assert predict.main([f'--workdir={workdir}', str(path)]) == 0
  told = json.loads((workdir / 'predictions/a.mkv/sounds.json').read_text())
  assert [p > 0.5 for p in told['sounds']] == [True, False, True, True]
  assert told['notes'] == [] and told['seconds'] == 4
  assert f'0:03  {told["sounds"][3]:.2f}' in capsys.readouterr().out
  for name in ('timeline.png', 'film.mp4'):
    assert (workdir / 'predictions/a.mkv' / name).stat().st_size > 1000


def test_it_is_timed():
  code = """
      from absl import app
      from benchmarks import step_time
      from dgsct_jax.tasks import registry
      from tests import test_house
      test_house.register()
      config = test_house.get_config()
      measure = lambda argv: step_time.measure(config, registry.build(config))
      app.run(measure, ['step_time', '--clips=2', '--repeats=1'])
  """
  timed = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code)],
    capture_output=True,
    text=True,
    timeout=240,
    cwd=Path(__file__).parents[1],
  )
  assert timed.returncode == 0, timed.stderr[-3000:]
  assert 'forward: ' in timed.stdout and 'training step: ' in timed.stdout
