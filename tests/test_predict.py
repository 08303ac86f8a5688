"""Prediction gets any file as the training data would have it, and says what it had to make up."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from configs import ave as config_file
from dgsct_jax import checkpoint, film, optim, predict, sharding, tasks
from dgsct_jax import state as states
from dgsct_jax.data import media, transforms
from dgsct_jax.data.datasets import ave as dataset
from tests import clips
from tests import media as real

T, RATE = 10, 4000  # seconds of a window, Hz


def ask(batch):
  """Stands for a model: every second is the event of its mean brightness, if it is loud."""
  b, t = batch['wave'].shape[:2]
  bright = batch['video'].mean((1, 2, 3, 4))
  return {
    'logits': -np.square(np.arange(28) - 10 * bright[:, None] - 14),
    'event_logits': np.where(np.square(batch['wave']).mean(2) > 1e-3, 3.0, -3.0),
    'visual_map': np.ones((b, t, 16)),
    'audio_map': np.ones((b, t, 64)),
  }


@pytest.fixture(scope='module')
def run():
  return predict.Run(
    config=config_file.get_config('tiny'),
    workdir=Path('runs/x'),
    step=7,
    names=dataset.CLASSES,
    audio=SimpleNamespace(size=32, mel_bins=16, tile=1, hop=64),
    windows=1,
    ask=ask,
  )


def video(path, seconds, sound=None, rate=10):
  count = round(seconds * rate)
  sound = clips.tone(32000, seconds) if sound is None else sound
  return clips.write(path, clips.counter(count, step=2), np.arange(count) / rate, sound)


def events(run, path, tmp_path):
  """What events.json holds; all files are there."""
  predict.predict(run, path, tmp_path / 'out')
  assert (tmp_path / 'out/film.mp4').exists() and Image.open(tmp_path / 'out/timeline.png').size[0]
  return json.loads((tmp_path / 'out/events.json').read_text())


def test_an_ave_clip_is_seen_and_heard_as_in_training(run, tmp_path):
  path = video(tmp_path / 'a.mp4', 10)
  record = dataset.Read(RATE, 256, 16)(dataset.Clip('a', 0, 2, 0, 10, str(path)))
  expected = transforms.DecodeWave(T, RATE).map(transforms.DecodeFrames(32).map(record))
  ((batch, _),) = predict.examples(predict.open_clip(path, run.config), run)
  np.testing.assert_array_equal(batch['video'][0], expected['video'])
  np.testing.assert_array_equal(batch['wave'][0], expected['wave'])


def test_frames_of_scenes_are_taken_in_the_middle_of_seconds(run):
  config = config_file.get_config('tiny')
  config.data.name = 'quickstart_shapes'
  assert predict.frame_times(config, 20)[9:12] == [9.5, 10.5, 11.5]


@pytest.mark.parametrize(
  'seconds, expected', [(0.4, 1), (1.4, 1), (3.6, 4), (10, 10), (10.3, 10), (12, 12)]
)
def test_a_file_has_as_many_seconds_as_fit_best(run, tmp_path, seconds, expected):
  assert predict.open_clip(video(tmp_path / 'a.mp4', seconds), run.config).seconds == expected


def test_padding_repeats_the_last_frame_in_silence(run, tmp_path):
  path = video(tmp_path / 'a.mkv', 3)
  ((batch, frames),) = predict.examples(predict.open_clip(path, run.config), run)
  assert batch['video'].shape == (1, T, 32, 32, 3) and batch['wave'].shape == (1, T, RATE)
  assert not batch['wave'][0, 3:].any() and batch['wave'][0, 2].any()
  np.testing.assert_array_equal(batch['video'][0, 3:], batch['video'][0, 3:4].repeat(T - 3, 0))
  assert frames.shape == (T, predict.THUMBNAIL, round(predict.THUMBNAIL * 64 / 48), 3)


def test_windows_go_on_where_the_one_before_ended(run, tmp_path):
  path = video(tmp_path / 'a.mkv', 12)
  batches = list(predict.examples(predict.open_clip(path, run.config), run))
  assert len(batches) == 2
  wave = np.concatenate([batch['wave'][0] for batch, _ in batches]).reshape(-1)
  expected = media.waveform(path, RATE)
  np.testing.assert_allclose(wave[: len(expected)], expected, atol=1e-4)
  brightness = np.concatenate([batch['video'][0] for batch, _ in batches]).mean((1, 2, 3))
  assert (np.diff(brightness[:12]) > 0).all()


def test_the_answer_does_not_depend_on_how_many_windows_are_asked_at_a_time(run, tmp_path):
  path, config = video(tmp_path / 'a.mkv', 5), config_file.get_config('tiny')
  config.data.segments = 2
  found = [
    events(dataclasses.replace(run, config=config, windows=n), path, tmp_path)['timeline']
    for n in (1, 2, 4)
  ]
  assert len(found[0]) == 5 and found[0] == found[1] == found[2]


def test_confidence_is_that_of_an_event_and_of_its_class():
  outputs = {
    'logits': np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]),
    'event_logits': np.array([[2.0, -1.0], [0.1, 9.0]]),
  }
  found = predict.judge(outputs, ('dog', 'bell', 'horse'))
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  assert [f['event'] for f in found] == ['dog', None, 'horse', 'horse']
  assert [f['likeliest'] for f in found] == ['dog', 'dog', 'horse', 'horse']
  np.testing.assert_allclose(
    [f['confidence'] for f in found],
    [0.5 * sigmoid(2), 0.5 * sigmoid(-1), 0.8 * sigmoid(0.1), 0.8 * sigmoid(9)],
  )


def test_logits_of_background_are_no_class():
  outputs = {'logits': np.array([[0.0, 1.0, 9.0]]), 'event_logits': np.array([[50.0]])}
  (second,) = predict.judge(outputs, ('dog', 'bell'))  # the weakly supervised head has one more
  assert second['event'] == 'bell' and second['confidence'] == pytest.approx(1 / (1 + np.exp(-1)))


def test_what_is_found_is_printed_and_written(run, tmp_path, capsys):
  wave = clips.tone(32000, 4)
  wave[:, :64000] *= 0.01
  found = events(run, video(tmp_path / 'a.mkv', 4, wave), tmp_path)
  assert [s['second'] for s in found['timeline']] == [0, 1, 2, 3]
  assert [s['event'] is None for s in found['timeline']] == [True, True, False, False]
  assert found['notes'] == [] and found['step'] == 7 and found['seconds'] == 4
  name, printed = found['timeline'][3]['event'], capsys.readouterr().out
  assert f'0:03  {name} 0.' in printed and '0:00  – (' in printed


def test_silence_is_said(run, tmp_path):
  wave = clips.tone(32000, 4)
  wave[:, :66000] = 0
  path = video(tmp_path / 'a.mkv', 4, wave)
  assert predict.open_clip(path, run.config).notes == ['silence in 2 of 4 seconds']
  path = video(tmp_path / 'b.mkv', 4, 0 * wave)
  assert predict.open_clip(path, run.config).notes == ['the audio track is silent']


def test_a_missing_sound_is_said(run, tmp_path):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(20), np.arange(20) / 10)
  found = events(run, path, tmp_path)
  assert found['notes'] == ['no audio track: silence stands in for it'] and found['seconds'] == 2


def test_a_still_picture_is_shown_for_a_window(run, tmp_path):
  path = tmp_path / 'a.jpg'
  Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(path)
  found = events(run, path, tmp_path)
  assert found['seconds'] == T
  assert found['notes'] == [
    'no audio track: silence stands in for it',
    'a still picture: it is shown for 10 seconds',
  ]
  assert film.measure(tmp_path / 'out/film.mp4').seconds == pytest.approx(T, abs=0.1)


def test_sound_alone_is_heard_and_gives_no_film(run, tmp_path):
  path = clips.write(tmp_path / 'a.mkv', sound=clips.tone(32000, 3))
  predict.predict(run, path, tmp_path / 'out')
  found = json.loads((tmp_path / 'out/events.json').read_text())
  assert found['seconds'] == 3 and found['notes'][0].startswith('no video track: black frames')
  files = sorted(file.name for file in (tmp_path / 'out').iterdir())
  assert files == ['events.json', 'timeline.png']


def test_samples_that_are_not_numbers_are_refused(run, tmp_path):
  wave = np.zeros(8000, np.float32)
  wave[100] = np.nan
  soundfile.write(tmp_path / 'a.wav', wave, 8000, 'FLOAT')
  with pytest.raises(ValueError, match='not finite'):
    predict.open_clip(tmp_path / 'a.wav', run.config)


def test_files_of_one_name_have_their_own_folders():
  files = [Path('a/x.mp4'), Path('b/x.mp4'), Path('x.avi'), Path('c/x.mp4')]
  assert [f.name for f in predict._folders(files, Path('out'))] == [
    'x.mp4',
    'x.mp4_2',
    'x.avi',
    'x.mp4_3',
  ]


@pytest.mark.parametrize(
  'name, seconds, notes',
  [
    ('obama_speech', 9, 0),
    ('park', 1, 0),
    ('shot_change', 5, 0),
    ('bigbuckbunny', 5, 0),
    ('bikes', 10, 1),
    ('VID_20191220_170832', 2, 0),
  ],
)
def test_real_clips_are_processed(run, tmp_path, name, seconds, notes):
  folders = real.short_clips(), real.odd_sound(), real.phone_and_screen()
  (path,) = (file for folder in folders for file in folder.rglob(f'{name}.mp4'))
  found = events(run, path, tmp_path)
  assert found['seconds'] == len(found['timeline']) == seconds
  assert len(found['notes']) == notes
  length = film.measure(path)
  assert film.measure(tmp_path / 'out/film.mp4').seconds == pytest.approx(length.seconds, abs=0.1)


CONTAINERS = '3g2 3gp asf avi f4v flv m4v mkv mov mp4 mpeg mpg rm swf vob webm wmv'.split()


@pytest.fixture(scope='module')
def rock_band(run, tmp_path_factory):
  return events(run, real.rock_band() / 'demo.mp4', tmp_path_factory.mktemp('mp4'))['timeline']


@pytest.mark.slow
@pytest.mark.parametrize('suffix', CONTAINERS)
def test_one_clip_in_many_containers_gives_the_same(run, rock_band, tmp_path, suffix):
  found = events(run, real.rock_band() / f'demo.{suffix}', tmp_path)
  assert found['seconds'] == 60
  same = np.mean([a['event'] == b['event'] for a, b in zip(found['timeline'], rock_band)])
  assert same > (0.5 if suffix.startswith('3g') else 0.9)  # AMR is sound of telephones


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of the tiny AVE model that sees a truck in everything."""
  workdir = tmp_path_factory.mktemp('run')
  config = config_file.get_config('tiny')
  config.data.segments = 4
  task, mesh = tasks.build(config), sharding.make_mesh((-1, 1))
  example = {
    'video': np.zeros((1, 4, 32, 32, 3), np.float32),
    'wave': np.zeros((1, 4, RATE), np.float32),
    'mask': np.ones(1, np.float32),
  }
  variables = states.variables(task.model, example, config, mesh)
  truck = np.zeros(28, np.float32)
  truck[dataset.CLASSES.index('Truck')] = 50
  head = variables.params['localize']
  head['event']['bias'] = sharding.put(truck, sharding.replicated(mesh))
  head['is_event']['bias'] = sharding.put(np.float32([9]), sharding.replicated(mesh))
  tx, _ = optim.build(config.optim, 2)
  manager = checkpoint.open(workdir, 1, task.primary)
  run = checkpoint.identity(config, variables.weights, 2)
  state = states.create(variables, tx, config.seed, mesh)
  checkpoint.save(manager, 1, state, {'batches': 1}, run, {'accuracy': 50.0})
  checkpoint.check(manager, wait=True)
  return workdir


def test_a_run_is_asked_about_files_of_which_one_is_broken(trained, tmp_path, capfd):
  good, bad = video(tmp_path / 'good.mp4', 5), tmp_path / 'bad.mp4'
  bad.write_bytes(b'no video')
  assert predict.main([f'--workdir={trained}', str(bad), str(good)]) == 1
  printed = capfd.readouterr()
  assert 'error: ' in printed.err and 'bad.mp4 cannot be read as video or sound' in printed.err
  assert '0:04  Truck 1.00' in printed.out
  found = json.loads((trained / 'predictions/good.mp4/events.json').read_text())
  assert [second['event'] for second in found['timeline']] == ['Truck'] * 5
  assert not (trained / 'predictions/bad.mp4').exists()


def test_a_folder_without_a_run_is_refused(tmp_path, capfd):
  with pytest.raises(SystemExit) as stopped:
    predict.main([f'--workdir={tmp_path / "none"}', 'a.mp4'])
  assert stopped.value.code == 1
  assert 'There is no checkpoint in' in capfd.readouterr().err
  assert not (tmp_path / 'none').exists()


def test_weights_that_moved_can_be_named(trained):
  with pytest.raises(ValueError, match='there is no file /moved.safetensors'):
    predict.load(trained, ['visual=/moved.safetensors'])
  with pytest.raises(ValueError, match='NAME one of all, audio, visual'):
    predict.load(trained, ['vision=/moved.safetensors'])
