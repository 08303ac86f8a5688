"""Prediction gets any file as the training data would have it, and writes what the task shows."""

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import tokenizers
from PIL import Image

from configs import ave as ave_config
from configs import avqa as avqa_config
from configs import avs_s4
from dgsct_jax import predict, train, trained, whole
from dgsct_jax import state as states
from dgsct_jax.data import transforms
from dgsct_jax.data.clips import measure
from dgsct_jax.data.datasets import ave as dataset
from dgsct_jax.data.datasets import music_avqa
from dgsct_jax.tasks import registry
from tests import clips, tiny
from tests import media as real

ROOT = Path(__file__).parents[1]
T, RATE = 10, 4000  # seconds of a window, Hz
NONE = states.Variables({}, {}, {})


@dataclasses.dataclass(frozen=True)
class Stand(trained.Trained):
  """Stands for a trained model of a task; keeps the batches that it gets."""

  seen: list = dataclasses.field(default_factory=list)

  def __call__(self, batch):
    self.seen.append(batch)
    return self.forward(batch)


def stand(config, forward, windows=1):
  """One that takes so many windows at a time."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1] * windows)[:, None], ('data', 'fsdp'))
  return Stand(config, registry.build(config), mesh, 7, {}, NONE, forward)


def hear(batch):
  """Every second is the event of its window's mean brightness, if it is loud."""
  b, t = batch['wave'].shape[:2]
  bright = batch['video'].mean((1, 2, 3, 4))
  return {
    'logits': -np.square(np.arange(28) - 10 * bright[:, None] - 14),
    'event_logits': np.where(np.square(batch['wave']).mean(2) > 1e-3, 3.0, -3.0),
    'visual_map': np.ones((b, t, 16)),
    'audio_map': np.ones((b, t, 64)),
  }


@pytest.fixture(scope='module')
def model():
  return stand(ave_config.get_config('tiny'), hear)


def video(path, seconds, sound=None, rate=10):
  count = round(seconds * rate)
  sound = clips.tone(32000, seconds) if sound is None else sound
  return clips.write(path, clips.counter(count, step=2), np.arange(count) / rate, sound)


def size(path):
  with Image.open(path) as picture:
    return picture.size


def run(model, path, folder, asked=()):
  """What the command does with one file."""
  file, view = predict.look(model, path, asked, predict.ask(model.task, asked))
  print('\n'.join(predict.report(file, view)))
  predict.write(file, view, folder, {'workdir': 'runs/x', 'step': model.step})


def events(model, path, tmp_path):
  """What events.json holds; all files are there."""
  run(model, path, tmp_path / 'out')
  assert (tmp_path / 'out/film.mp4').exists() and size(tmp_path / 'out/timeline.png')[0]
  return json.loads((tmp_path / 'out/events.json').read_text())


def test_an_ave_clip_is_seen_and_heard_as_in_training(tmp_path):
  model = stand(ave_config.get_config('tiny'), hear)
  path = video(tmp_path / 'a.mp4', 10)
  record = dataset.Read(RATE, 256, 16)(dataset.Entry('a', 0, 2, 0, 10, str(path)))
  for transform in model.task.inputs.decode:
    record = transform.map(record)
  predict.look(model, path)
  (batch,) = model.seen
  np.testing.assert_array_equal(batch['video'][0], record['video'])
  np.testing.assert_array_equal(batch['wave'][0], record['wave'])
  spec = model.task.inputs.spec
  assert all(batch[name].shape[1:] == spec[name].shape for name in ('video', 'wave'))


def test_the_answer_does_not_depend_on_how_many_windows_are_asked_at_a_time(tmp_path):
  path, config = video(tmp_path / 'a.mkv', 25), ave_config.get_config('tiny')
  models = [stand(config, hear, n) for n in (1, 2, 4)]
  found = [events(model, path, tmp_path)['timeline'] for model in models]
  assert len(found[0]) == 25 and found[0] == found[1] == found[2]
  marks = [[batch['valid'].tolist() for batch in model.seen] for model in models]
  assert marks == [[[1], [1], [1]], [[1, 1], [1, 0]], [[1, 1, 1, 0]]]


def test_what_is_found_is_printed_and_written(model, tmp_path, capsys):
  wave = clips.tone(32000, 4)
  wave[:, :64000] *= 0.01
  found = events(model, video(tmp_path / 'a.mkv', 4, wave), tmp_path)
  assert [s['second'] for s in found['timeline']] == [0, 1, 2, 3]
  assert [s['event'] is None for s in found['timeline']] == [True, True, False, False]
  assert found['notes'] == [] and found['step'] == 7 and found['seconds'] == 4
  name, printed = found['timeline'][3]['event'], capsys.readouterr().out
  assert f'0:03  {name} 0.' in printed and '0:00  – (' in printed


def test_what_was_made_up_is_printed_and_written(model, tmp_path, capsys):
  path = clips.write(tmp_path / 'a.mp4', clips.counter(20), np.arange(20) / 10)
  found = events(model, path, tmp_path)
  assert found['notes'] == ['no audio track: silence stands in for it'] and found['seconds'] == 2
  assert '  note: no audio track: silence stands in for it' in capsys.readouterr().out


def test_a_still_picture_becomes_a_film_as_long_as_a_window(model, tmp_path):
  path = tmp_path / 'a.jpg'
  Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(path)
  found = events(model, path, tmp_path)
  assert found['seconds'] == T and len(found['notes']) == 2
  assert measure(tmp_path / 'out/film.mp4').seconds == pytest.approx(T, abs=0.1)


def test_a_film_can_be_left_out(model, tmp_path):
  file, view = predict.look(model, video(tmp_path / 'a.mkv', 2))
  predict.write(file, view, tmp_path / 'out', {}, with_film=False)
  files = sorted(file.name for file in (tmp_path / 'out').iterdir())
  assert files == ['events.csv', 'events.json', 'events.vtt', 'timeline.png']


def test_sound_alone_is_heard_and_gives_no_film(model, tmp_path):
  path = clips.write(tmp_path / 'a.mkv', sound=clips.tone(32000, 3))
  run(model, path, tmp_path / 'out')
  found = json.loads((tmp_path / 'out/events.json').read_text())
  assert found['seconds'] == 3 and found['notes'][0].startswith('no video track: black frames')
  files = sorted(file.name for file in (tmp_path / 'out').iterdir())
  assert files == ['events.csv', 'events.json', 'events.vtt', 'timeline.png']


def left_sounds(batch):
  """The left quarter of every picture sounds."""
  b, t, height, width = batch['video'].shape[:4]
  logits = np.where(np.arange(width) < width // 4, 9.0, -9.0)
  return {
    'mask_logits': np.broadcast_to(logits, (b, t, height, width)),
    'visual_map': np.ones((b, t, 64)),
    'audio_map': np.ones((b, t, 64)),
  }


def test_masks_have_the_size_of_the_video_one_for_every_second(tmp_path):
  model = stand(avs_s4.get_config('tiny'), left_sounds)
  path = clips.write(tmp_path / 'a.mkv', clips.counter(30, (48, 80)), np.arange(30) / 10)
  file, view = predict.look(model, path)
  list(predict.each(predict.write_masks, [(file, view, tmp_path / 'masks')] * 4, jobs=4))
  names = sorted(path.name for path in (tmp_path / 'masks').iterdir())
  assert names == ['a_0.png', 'a_1.png', 'a_2.png']
  mask = Image.open(tmp_path / 'masks/a_2.png')
  assert mask.mode == 'L' and mask.size == (80, 48)
  wanted = np.broadcast_to(np.where(np.arange(80) < 20, 255, 0), (48, 80))
  np.testing.assert_array_equal(np.asarray(mask), wanted)
  assert view.record == {'sounding': [0.25, 0.25, 0.25]}


def test_masks_of_other_models_and_of_files_of_one_name_are_refused(model, tmp_path):
  file, view = predict.look(model, video(tmp_path / 'a.mkv', 2))
  with pytest.raises(ValueError, match='a.mkv: --masks needs a model of segmentation'):
    predict.write_masks(file, view, tmp_path)
  with pytest.raises(ValueError, match='several files are called a, and'):
    predict._check_stems([Path('x/a.mp4'), Path('b.mp4'), Path('a.mkv')])


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
def test_real_clips_are_processed(model, tmp_path, name, seconds, notes):
  folders = real.short_clips(), real.odd_sound(), real.phone_and_screen()
  (path,) = (file for folder in folders for file in folder.rglob(f'{name}.mp4'))
  found = events(model, path, tmp_path)
  assert found['seconds'] == len(found['timeline']) == seconds
  assert len(found['notes']) == notes
  length = measure(path)
  assert measure(tmp_path / 'out/film.mp4').seconds == pytest.approx(length.seconds, abs=0.1)


CONTAINERS = '3g2 3gp asf avi f4v flv m4v mkv mov mp4 mpeg mpg rm swf vob webm wmv'.split()


@pytest.fixture(scope='module')
def rock_band(model, tmp_path_factory):
  return events(model, real.rock_band() / 'demo.mp4', tmp_path_factory.mktemp('mp4'))['timeline']


@pytest.mark.slow
@pytest.mark.parametrize('suffix', CONTAINERS)
def test_one_clip_in_many_containers_gives_the_same(model, rock_band, tmp_path, suffix):
  found = events(model, real.rock_band() / f'demo.{suffix}', tmp_path)
  assert found['seconds'] == 60
  same = np.mean([a['event'] == b['event'] for a, b in zip(found['timeline'], rock_band)])
  assert same > (0.5 if suffix.startswith('3g') else 0.9)  # AMR is sound of telephones


@pytest.fixture(scope='module')
def truck(tmp_path_factory):
  return tiny.ave_run(tmp_path_factory.mktemp('run'))


def test_a_run_is_asked_about_files_of_which_one_is_broken(truck, tmp_path, capfd):
  good, bad = video(tmp_path / 'good.mp4', 5), tmp_path / 'bad.mp4'
  bad.write_bytes(b'no video')
  assert predict.main([f'--workdir={truck}', str(bad), str(good)]) == 1
  printed = capfd.readouterr()
  assert 'error: ' in printed.err and 'bad.mp4 cannot be read as video or sound' in printed.err
  assert '0:04  Truck 1.00' in printed.out
  found = json.loads((truck / 'predictions/good.mp4/events.json').read_text())
  assert [second['event'] for second in found['timeline']] == ['Truck'] * 5
  assert found['workdir'] == str(truck) and found['step'] == 1
  assert not (truck / 'predictions/bad.mp4').exists()


@pytest.mark.parametrize('full', ['film', 'lines'])
def test_a_full_disk_leaves_what_was_there(model, tmp_path, monkeypatch, full):
  path, out = video(tmp_path / 'a.mp4', 3), tmp_path / 'out'
  file, view = predict.look(model, path)
  write = lambda step: predict.write(file, view, out / 'a.mp4', {'step': step}, out / 'all.jsonl')
  write(1)

  def fail(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(*{'film': (predict.film, 'draw'), 'lines': (whole, 'append')}[full], fail)
  files = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
  with pytest.raises(OSError, match='No space left'):
    write(2)
  assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == files
  monkeypatch.undo()
  write(3)
  assert json.loads((out / 'a.mp4/events.json').read_text())['step'] == 3
  lines = (out / 'all.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 3]


def test_a_damaged_run_is_an_error_and_another_step_can_be_asked(truck, tmp_path, capfd):
  run = shutil.copytree(truck, tmp_path / 'run')
  shutil.copytree(run / 'checkpoints/1', run / 'checkpoints/2')
  (run / 'checkpoints/2/run/metadata').write_text('')
  with pytest.raises(SystemExit) as stopped:
    predict.main([f'--workdir={run}', 'a.mp4'])
  told = capfd.readouterr().err
  assert stopped.value.code == 1 and told.count('\n') == 1
  assert 'checkpoints/2 is damaged: run/metadata has 0 bytes' in told and '--from=1' in told
  clip = video(tmp_path / 'a.mp4', 2)
  assert predict.main([f'--workdir={run}', '--from=1', str(clip)]) == 0
  found = json.loads((run / 'predictions/a.mp4/events.json').read_text())
  assert found['step'] == 1
  with pytest.raises(SystemExit):
    predict.main([f'--workdir={run}', '--from=7', str(clip)])
  assert '--from=7: ' in capfd.readouterr().err


def test_a_model_that_takes_no_questions_says_so(truck, capfd):
  with pytest.raises(SystemExit):
    predict.main([f'--workdir={truck}', 'a.mp4', '--question', 'Is it?'])
  assert 'error: This model takes no questions.' in capfd.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path, capfd):
  with pytest.raises(SystemExit) as stopped:
    predict.main([f'--workdir={tmp_path / "none"}', 'a.mp4'])
  assert stopped.value.code == 1
  assert 'There is no checkpoint in' in capfd.readouterr().err
  assert not (tmp_path / 'none').exists()


# Questions.

WORDS = list(music_avqa.WORDS)


def reply(batch):
  """Answers by the number of a question's second word; looks at row 2, column 3."""
  b, q = batch['question'].shape[:2]
  looks = np.full((b, T, 16), 0.05, np.float32)
  looks[:, :, 6] = 0.25
  shares = np.zeros((b, q, T), np.float32)
  shares[..., 0] = 1
  return {
    'logits': 3 * np.eye(42, dtype=np.float32)[batch['question'][:, :, 1]],
    'looks': looks,
    'audio_map': np.ones((b, T, 64), np.float32),
    'visual_seconds': shares,
    'audio_seconds': shares[..., ::-1],
  }


@pytest.fixture
def asked():
  """Stands for a model of the vocabulary of MUSIC-AVQA, with the encoders of the tiny AVE model."""
  config, small = avqa_config.get_config(), ave_config.get_config('tiny').model
  config.model.visual, config.model.audio = small.visual, small.audio
  return stand(config, reply)


def test_the_model_gets_the_seconds_that_the_data_set_would_take(asked, tmp_path):
  path = clips.write(
    tmp_path / 'a.mkv',
    clips.counter(120, step=2),
    np.arange(120) / 5,
    clips.tone(32000, 24, 300) * np.linspace(0, 1, 32000 * 24, dtype=np.float32),
  )
  record = music_avqa.Read(RATE, 256, 0.5)(music_avqa.Entry('a', str(path)))
  expected = transforms.DecodeWave(T, RATE).map(asked.task.inputs.decode[0].map(record))
  predict.look(asked, path, ['Is it?'], predict.ask(asked.task, ['Is it?']))
  (batch,) = asked.seen
  np.testing.assert_array_equal(batch['video'][0], expected['video'])
  np.testing.assert_allclose(batch['wave'][0], expected['wave'], atol=2 / 32768)


def test_many_questions_take_one_look(asked, tmp_path, capsys):
  path = clips.write(
    tmp_path / 'a.mp4', clips.counter(60, step=2), np.arange(60) / 10, clips.tone(32000, 6)
  )
  file = tmp_path / 'questions.txt'
  file.write_text('How many?\n\nHow are they?\n', encoding='utf-8')
  assert predict._lines(file) == ['How many?', 'How are they?']
  run(asked, path, tmp_path / 'out', ['How many?', 'How are it?'])
  (batch,) = asked.seen
  assert batch['question'].shape == (1, 2, 14)
  told = json.loads((tmp_path / 'out/answers.json').read_text())
  assert [question['question'] for question in told['questions']] == ['How many?', 'How are it?']
  for question, word in zip(told['questions'], ('many', 'are')):
    best = question['answers']
    assert best[0]['answer'] == music_avqa.ANSWERS[WORDS.index(word)]
    assert len(best) == 5 and best[0]['confidence'] > best[1]['confidence']
    assert question['seconds'][0] == {'second': 0, 'seen': 1.0, 'heard': 0.0}
  assert told['looks'][0]['region'] == [0.5, 0.25, 0.75, 0.5]
  assert 'of which the model gets the seconds at 0, 0, 1' in capsys.readouterr().out
  assert size(tmp_path / 'out/timeline.png')[0] > 500
  assert (tmp_path / 'out/film.mp4').exists()


def test_a_trained_run_is_asked_from_the_command_line(tmp_path, capsys):
  config = avqa_config.get_config('tiny')
  config.data.dir = str(tmp_path / 'data')
  train.train(config, tmp_path / 'run')
  path = clips.write(
    tmp_path / 'a.mp4', clips.counter(40, step=2), np.arange(40) / 10, clips.tone(32000, 4)
  )
  ask = lambda text: predict.main([str(path), f'--workdir={tmp_path / "run"}', '--question', text])
  assert ask('How many disc are in the entire video?') == 0
  assert 'How many disc' in capsys.readouterr().out
  told = json.loads((tmp_path / 'run/predictions/a.mp4/answers.json').read_text())
  assert len(told['questions'][0]['answers']) == 5 and len(told['looks']) == 3
  with pytest.raises(SystemExit):
    ask('How many violin?')
  assert "does not know 'violin'" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    predict.main([str(path), f'--workdir={tmp_path / "run"}'])
  assert 'This model answers questions: give --question' in capsys.readouterr().err


# Any words, without a run.


@pytest.fixture(scope='module')
def towers(tmp_path_factory):
  """CLIP and CLAP at toy size with random weights, in the files of the Hugging Face hub."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  torch.manual_seed(0)
  folder = tmp_path_factory.mktemp('hub')
  text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
  clip = transformers.CLIPConfig(
    vision_config=text | dict(num_hidden_layers=12, image_size=32, patch_size=16),
    text_config=text | dict(vocab_size=49408, max_position_embeddings=77),
    projection_dim=8,
  )
  transformers.CLIPModel(clip).save_pretrained(folder / 'clip')
  stages = dict(depths=[1] * 4, num_attention_heads=[1, 2, 4, 8], hidden_size=64)
  clap = transformers.ClapConfig(
    text_config=text | dict(vocab_size=300, max_position_embeddings=66, projection_dim=8),
    audio_config=stages | dict(patch_embeds_hidden_size=8, num_mel_bins=64, projection_dim=8),
    projection_dim=8,
  )
  transformers.ClapModel(clap).save_pretrained(folder / 'clap')
  bpe = tokenizers.ByteLevelBPETokenizer()
  bpe.train_from_iterator(['The sound of'], 300, special_tokens=['<s>', '<pad>', '</s>'])
  bpe.save_model(str(folder / 'clap'))
  return folder


TOY = {
  'model.visual': {
    'kind': 'clip',
    'variant': 'custom',
    'image': 32,
    'patch': 16,
    'width': 16,
    'depths': (2, 2, 6, 2),
    'heads': 2,
    'features': 8,
  },
  'model.text': {'variant': 'custom', 'width': 16, 'depth': 1, 'heads': 2, 'features': 8},
  'model.audio.width': 8,
  'model.audio.depths': (1, 1, 1, 1),
  'model.audio.heads': (1, 2, 4, 8),
  'model.roberta': {'vocabulary': 300, 'positions': 66, 'width': 16, 'depth': 1, 'heads': 2},
  'model.features': 8,
}


def test_any_words_are_found_in_any_clip_without_a_run(towers, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.chdir(tmp_path)
  clips.write(tmp_path / 'clip.mp4', clips.counter(50), np.arange(50) / 25, clips.tone(32000, 2))
  (tmp_path / 'toy.py').write_text(
    'from configs import zero_shot\n'
    "def get_config(variant=''):\n"
    '  config = zero_shot.get_config(variant)\n'
    f'  config.update_from_flattened_dict({TOY!r})\n'
    '  return config\n'
  )
  names = ['dog barking', 'church_bell', 'Male speech, man speaking']
  (tmp_path / 'names.txt').write_text('\n'.join(names) + '\n\n')
  command = ['--config=toy.py', '--classes_from=names.txt', 'clip.mp4']
  command += [f'--init=clip={towers}/clip', f'--init=clap={towers}/clap']
  assert predict.main(command) == 0
  said = capsys.readouterr().out
  assert f'{towers}/clip: clip, converted and kept as {tmp_path}/cache/dgsct_jax/' in said
  assert f'{towers}/clap: clap, converted and kept as {tmp_path}/cache/dgsct_jax/' in said
  record = json.loads((tmp_path / 'predictions' / 'clip.mp4' / 'matches.json').read_text())
  assert record['classes'] == names and record['config'] == 'toy.py'
  assert [row['second'] for row in record['timeline']] == [0, 1]
  for row in record['timeline']:
    for stream in ('seen', 'heard', 'both'):
      shares = row[stream]['probabilities']
      assert list(shares) == names and abs(sum(shares.values()) - 1) < 1e-3
      assert row[stream]['class'] == max(shares, key=shares.get)
  for name in ('timeline.png', 'film.mp4'):
    assert (tmp_path / 'predictions' / 'clip.mp4' / name).is_file()

  others = [*command[:1], '--classes=dog, bell', *command[2:], '--set=model.head.picture=The {}']
  assert predict.main(others) == 0
  said = capsys.readouterr().out
  assert 'converted' not in said and '0:01  seen ' in said


@pytest.mark.parametrize(
  'given, told',
  [
    ([], 'There are no classes; give at least one name'),
    (['--classes=dog, Dog'], 'stand twice'),
    (['--classes=dog', '--set=model.head.nothing=1'], '--set=model.head.nothing=1: '),
    (['--classes=dog', '--set=model.head.share=much'], '--set=model.head.share=much: '),
    (['--classes=dog', '--init=visual=x'], 'give NAME=FILE, NAME one of'),
    (
      ['--classes=dog', '--init=clap=nowhere', '--set=model.tokenizer.clap=letters'],
      'config.init.clap=nowhere: nowhere is not a file',
    ),
    (['--classes=dog', '--question=What?'], 'This model takes no questions'),
  ],
)
def test_what_a_config_cannot_use_is_told_before_weights_are_read(towers, capfd, given, told):
  with pytest.raises(SystemExit) as stop:
    command = ['--config=configs/zero_shot.py', f'--init=clap={towers}/clap', 'clip.mp4']
    predict.main([*command, *given])
  assert stop.value.code == 1 and told in capfd.readouterr().err


def test_a_config_that_trains_needs_a_run(towers, capfd):
  for config, told in (
    ('configs/few_shot.py:tiny', 'This config trains encoder/exchange_.*; train it, and give'),
    ('configs/nowhere.py', 'there is no file configs/nowhere.py'),
    ('configs/zero_shot.py:other', "unknown words ['other']"),
  ):
    with pytest.raises(SystemExit):
      predict.main([f'--config={config}', '--classes=dog', 'clip.mp4'])
    assert told.partition('.*')[0] in capfd.readouterr().err


# Many files.


def test_a_folder_is_done_file_by_file_and_goes_on_where_it_was(tmp_path, monkeypatch, capfd):
  tones = tmp_path / 'tones'
  tones.mkdir()
  for name in ('b.WAV', 'a.wav', 'broken.mp4', 'notes.txt'):
    (tones / name).write_bytes(b'')
  for name in ('b.WAV', 'a.wav'):
    soundfile.write(tones / name, clips.tone(16000, 2)[0], 16000, format='WAV')
  monkeypatch.chdir(tmp_path)
  command = [f'--config={ROOT}/configs/tags.py:tiny', '--out=out', 'tones', '--set=data.least=0.0']
  names = {'seen': 1000, 'heard': 521}
  for stream, count in names.items():
    file = tmp_path / f'{stream}.txt'
    file.write_text(''.join(f'{stream} {i}\n' for i in range(count)))
    command.append(f'--set=data.{stream}={file}')
  assert predict.main(command) == 1
  told = capfd.readouterr()
  assert [line for line in told.out.splitlines() if ' of 3' in line] == [
    f'{i} of 3' for i in (1, 2, 3)
  ]
  assert 'broken.mp4' in told.err
  records = [json.loads(line) for line in Path('out/predictions.jsonl').read_text().splitlines()]
  assert [Path(record['file']).name for record in records] == ['a.wav', 'b.WAV']
  assert records[0] == json.loads(Path('out/a.wav/tags.json').read_text())
  assert len(records[0]['timeline']) == 2 and records[0]['timeline'][0]['heard']

  (Path('out/b.WAV') / 'tags.json').unlink()
  assert predict.main([*command, '--resume']) == 1
  told = capfd.readouterr().out
  assert '2 of 3' in told and '1 of 3' not in told
  assert len(Path('out/predictions.jsonl').read_text().splitlines()) == 3

  alone = {name: Path(f'out/{name}/tags.json').read_text() for name in ('a.wav', 'b.WAV')}
  assert predict.main([*command, '--jobs=3', '--without_film']) == 1
  told = capfd.readouterr()
  assert [line for line in told.out.splitlines() if ' of 3' in line] == [
    f'{i} of 3' for i in (1, 2, 3)
  ]
  assert (
    'broken.mp4' in told.err and len(Path('out/predictions.jsonl').read_text().splitlines()) == 2
  )
  assert alone == {name: Path(f'out/{name}/tags.json').read_text() for name in alone}


def test_so_many_files_are_worked_on_at_a_time_and_told_in_their_order():
  together = threading.Barrier(3)

  def work(number, jobs):
    if jobs == 3:
      together.wait(timeout=20)
    return number

  for jobs in (1, 3):
    work_of = [(number, jobs) for number in (3, 1, 2)]
    assert list(predict.each(work, work_of, jobs)) == [3, 1, 2]


def test_work_that_has_not_begun_is_left_when_one_fails_or_the_user_stops():
  begun = []

  def work(number):
    begun.append(number)
    if number == 0:
      raise KeyboardInterrupt
    time.sleep(0.05)

  with pytest.raises(KeyboardInterrupt):
    list(predict.each(work, [(i,) for i in range(100)], 1))
  assert len(begun) < 10


@pytest.mark.parametrize('jobs', ['0', '-1', '65', 'two', '1.5'])
def test_a_number_of_jobs_that_cannot_be_is_refused(jobs, capfd):
  with pytest.raises(SystemExit):
    predict.main(['--config=configs/tags.py:tiny', f'--jobs={jobs}', 'clip.mp4'])
  assert f'{jobs} files at a time; give a whole number from 1 to 64.' in capfd.readouterr().err


def test_a_folder_without_media_is_refused(tmp_path, capfd):
  with pytest.raises(SystemExit):
    predict.main(['--config=configs/tags.py:tiny', str(tmp_path)])
  assert 'is a folder without videos and sounds (.mp4, ' in capfd.readouterr().err
