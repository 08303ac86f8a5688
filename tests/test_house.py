"""The house holds a task, a backbone and a data set of files that it does not know.

The task: which seconds of a clip sound. A task of the package is these files:
`models/heads/NAME.py` (here `Ear`), `tasks/NAME.py` (`build` and what is below it), one line in
`tasks/registry.py`, `configs/NAME.py` (`get_config`); with data of its own also
`data/datasets/NAME.py` (`Clips`, `KIND`) and one line in `data/datasets/__init__.py`. Nothing else:
here the two lines are `register`, and the package is as it was. The backbone has a line in
`models.VISUAL` and one in `convert.sources.SOURCES`, the data set of files one in `KINDS`.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import tensorflow_datasets as tfds
from flax import linen as nn

from configs import ave, common
from dgsct_jax import evaluate, models, predict, train, trained, tree
from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import sources, table
from dgsct_jax.data import (
  clips,
  cut,
  datasets,
  doctor,
  files,
  inspect,
  media,
  prepare,
  records,
  transforms,
)
from dgsct_jax.data import kind as kinds
from dgsct_jax.data.kind import Kind
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.models.layers import Dense, LayerNorm, PatchEmbed, Stage, run_stages
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


# A backbone, and the files that its weights come from.


class MixerBlock(nn.Module):
  tokens: int
  width: int

  def setup(self):
    self.norm1, self.norm2 = LayerNorm(), LayerNorm()
    self.across, self.within = Dense(self.tokens), Dense(self.width)

  def attend(self, x, train):
    return x + self.across(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)

  def feed_forward(self, x, train):
    return x + self.within(self.norm2(x))

  def __call__(self, x, train):
    return self.feed_forward(self.attend(x, train), train)


class Mixer(nn.Module):
  """Patches of 8 pixels, one stage."""

  image: int = 32
  width: int = 8
  depths: tuple[int, ...] = (1,)
  pixels: tuple = ((0.5,) * 3, (0.5,) * 3)
  drop_path: float = 0.0
  remat: str | None = None
  dtype: str = 'float32'

  def setup(self):
    block = lambda i: MixerBlock((self.image // 8) ** 2, self.width)
    self.embed, self.norm = PatchEmbed(self.width, 8), LayerNorm()
    self.stages = [Stage(depth, block) for depth in self.depths]

  def stem(self, x, train=False):
    return self.embed(x)

  def body(self, x, train=False):
    return run_stages(self.stages, x, train)

  def __call__(self, x, train=False):
    return self.norm(self.body(self.stem(x, train), train))

  @nn.nowrap
  def place(self, weights):
    return weights.reshape(-1, self.image // 8, self.image // 8)


MIXER = (
  ('patches', 'embed/proj', table.CONV),
  ('patches_norm', 'embed/norm', table.NORM),
  ('mixer.#.norm1', 'stages_0/blocks_#/norm1', table.NORM),
  ('mixer.#.across', 'stages_0/blocks_#/across', table.DENSE),
  ('mixer.#.norm2', 'stages_0/blocks_#/norm2', table.NORM),
  ('mixer.#.within', 'stages_0/blocks_#/within', table.DENSE),
  ('norm', 'norm', table.NORM),
)
MIXER_SHAPES = table.targets(Mixer(), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))


def plan(state, hint=''):
  if 'patches.weight' not in state:
    raise ValueError('No Mixer in this file: it has no patches.weight.')
  return table.Plan('ours', 'custom', state, MIXER, MIXER_SHAPES)


def test_a_backbone_meets_the_sound_with_the_weights_of_its_file(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(models.VISUAL, 'mixer', lambda variant, **fields: Mixer(**fields))
  monkeypatch.setitem(sources.SOURCES, 'mixer', sources.Source(plan))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  rng = np.random.default_rng(0)
  ours = {name: rng.normal(size=x).astype(np.float32) for name, x in MIXER_SHAPES.items()}
  theirs = {name: np.array(x, order='C') for name, x in table.export(ours, MIXER).items()}
  safetensors.numpy.save_file(theirs, tmp_path / 'mixer.safetensors')
  config = ave.get_config('tiny')
  config.model.visual = {'kind': 'mixer', 'variant': 'custom', 'image': 32}
  config.model.audio.update(depths=(1,), heads=(2,))
  config.init.visual, config.trainable = str(tmp_path / 'mixer.safetensors'), ()
  model = trained.untrained(config)
  assert 'mixer, converted and kept' in capsys.readouterr().out
  found = tree.flatten(model.variables.joined['params']['encoder']['visual'])
  for name, x in ours.items():
    np.testing.assert_array_equal(found[name.removeprefix('params/')], x)
  spec = model.task.inputs.spec
  clip = {name: np.ones((1, *x.shape), x.dtype) for name, x in spec.items()}
  outputs = model(clip | {'valid': np.ones(1, np.float32)})
  assert outputs['visual_map'].shape == (1, 10, 16)
  assert model.task.model.encoder.visual.place(outputs['visual_map'][0]).shape == (10, 4, 4)
  del theirs['norm.bias']
  safetensors.numpy.save_file(theirs, tmp_path / 'less.safetensors')
  command = ['mixer', str(tmp_path / 'less.safetensors'), str(tmp_path / 'out.safetensors')]
  assert convert.main(command) == 1
  assert 'norm.bias: missing in the file' in capsys.readouterr().err


# A data set of files: clips/NAME.mkv, and their splits and classes in labels.csv.

EVENTS = ('beep', 'flash')


@dataclasses.dataclass(frozen=True)
class Entry:
  id: str
  event: int
  video: str


@dataclasses.dataclass(frozen=True)
class Read:
  rate: int

  def __call__(self, entry):
    frames, wave = cut.read_clip(entry.video, entry.id, clips.middles(T), self.rate, SIZE)
    return {
      'id': entry.id,
      'frames': frames,
      'wave': wave,
      'label': np.full(T, entry.event, np.int32),
    }


def recipe(source, *, rate=RATE):
  root = cut.find_root(source, 'beeps', 'labels.csv')
  splits = {}
  for row in files.columns(root / 'labels.csv', 3):
    name, split, event = row.fields.values()
    if event not in EVENTS:
      raise row.fail(f'{event!r} is none of the events {", ".join(EVENTS)}')
    entry = Entry(name, EVENTS.index(event), str(root / 'clips' / f'{name}.mkv'))
    splits.setdefault(split, []).append(entry)
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(T * rate),
    'label': tfds.features.Tensor(shape=(T,), dtype=np.int32),
  }
  listed = {'classes.txt': '\n'.join(EVENTS)}
  return records.Recipe('beeps', '1.0.0', features, splits, Read(rate), listed)


def test_a_data_set_is_examined_built_shown_and_read(tmp_path, monkeypatch, capsys):
  kind = dataclasses.replace(KIND, classes=lambda fields: EVENTS, recipe=recipe, load=kinds.load)
  monkeypatch.setitem(datasets.KINDS, 'beeps', kind)
  (tmp_path / 'clips').mkdir()
  rows = []
  for i, split in enumerate(('train', 'val', 'test')):
    path = tmp_path / f'clips/clip{i}.mkv'
    made.write(path, made.counter(30, step=3 + i), np.arange(30) / 10, made.tone(8000, T), 8000)
    rows.append(f'clip{i},{split},{EVENTS[i % 2]}')
  (tmp_path / 'labels.csv').write_text('\n'.join(rows))
  source = ['beeps', f'--source={tmp_path}', '--workers=0']
  assert doctor.main(source) == 0
  assert 'val: 1 listed, 1 usable' in capsys.readouterr().out
  assert prepare.main([*source, f'--out={tmp_path}']) == 0
  shown = ['beeps', f'--dir={tmp_path}', f'--rate={RATE}', f'--out={tmp_path}/page.html']
  assert inspect.main(shown) == 0
  config = get_config()
  config.data.update(kind='beeps', name='beeps', dir=str(tmp_path))
  with train.read_batches(registry.build(config).data('val'), config) as batches:
    assert next(batches)['label'].tolist() == [[1] * T] * config.data.batch
  (tmp_path / 'labels.csv').write_text('clip0,train,bang')
  assert doctor.main(source) == 1
  assert "labels.csv, line 1: 'bang' is none of the events" in capsys.readouterr().err
