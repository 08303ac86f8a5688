import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from configs import ave as ave_config
from configs import avqa as avqa_config
from configs import avqa_grounding as grounding_config
from dgsct_jax import evaluate, models, train
from dgsct_jax.convert import run as run_part
from dgsct_jax.data import pipeline, records
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.datasets import music_avqa
from dgsct_jax.data.questions import KINDS, Asked
from dgsct_jax.scenes.dataset import CLASSES
from dgsct_jax.scenes.questions import vocabulary
from dgsct_jax.tasks import avqa, registry
from dgsct_jax.tasks.task import check_fields


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def config(folder, module=avqa_config, variant='tiny'):
  values = module.get_config(variant)
  values.data.dir = str(folder)
  values.optim.epochs = 1
  return values


def answers(n=64, seed=0, q=3):
  """Outputs and a batch of `n` clips with `q` questions about each."""
  rng = np.random.default_rng(seed)
  batch = {
    'answer': rng.integers(0, 3, (n, q)),
    'kind': rng.integers(0, len(KINDS), (n, q)),
    'valid': np.ones(n, np.float32),
  }
  logits = rng.normal(size=(n, q, 3))
  return {'logits': logits, 'match_logits': rng.normal(size=(n, 2, 4, 2))}, batch


def on_device(*dicts):
  return jax.tree.map(jnp.asarray, dicts)


def mean(weighted):
  value, weight = weighted
  return np.sum(value * weight) / np.sum(weight)


def test_accuracy_is_over_questions_whatever_their_type():
  outputs, batch = answers()
  found = avqa.metrics(outputs, batch)
  right = 100 * (outputs['logits'].argmax(-1) == batch['answer'])
  assert mean(found['accuracy']) == pytest.approx(right.mean())
  for i, (group, kind) in enumerate(KINDS):
    name = f'{group}_{kind}'.lower().replace('-', '_')
    assert mean(found[name]) == pytest.approx(right[batch['kind'] == i].mean())
  assert mean(found['audio']) == pytest.approx(right[batch['kind'] < 2].mean())
  assert mean(found['visual']) == pytest.approx(
    right[(batch['kind'] == 2) | (batch['kind'] == 3)].mean()
  )
  assert mean(found['audio_visual']) == pytest.approx(right[batch['kind'] > 3].mean())
  assert len(found) == 1 + 3 + 9


def test_types_that_nobody_asked_about_are_left_out():
  assert avqa.of_kinds_asked({'accuracy': 50.0, 'audio': float('nan')}) == {'accuracy': 50.0}


def test_the_first_frame_of_each_second_is_the_one_that_matches():
  outputs, batch = answers(4)
  rows = outputs['match_logits'].transpose(0, 2, 1, 3).reshape(-1, 2)  # own, other, own, other, ...
  label = np.arange(len(rows)) % 2 == 0
  wanted = optax.softmax_cross_entropy_with_integer_labels(rows, label.astype(int)).mean()
  total, parts = avqa.loss(*on_device(outputs, batch))
  assert parts['match'] == pytest.approx(0.5 * float(wanted), rel=1e-5)
  assert total == pytest.approx(float(parts['answer'] + parts['match']), rel=1e-6)
  assert avqa.loss(*on_device(outputs, batch), 0.0)[1]['match'] == 0


def test_padding_changes_neither_loss():
  outputs, batch = answers(4)
  more = {name: np.concatenate([x, x[::-1]]) for name, x in (outputs | batch).items()}
  more['valid'][4:] = 0
  for loss in (avqa.loss, avqa.grounding_loss):
    assert loss(*on_device(more, more))[0] == pytest.approx(
      float(loss(*on_device(outputs, batch))[0]), rel=1e-6
    )


def test_the_pre_stage_counts_both_frames():
  logits = np.zeros((3, 2, 1, 2))
  logits[:, 0, 0, 1] = [1, 1, -1]  # own
  logits[:, 1, 0, 1] = [-1, 1, 1]  # of another clip
  value, weight = avqa.grounding_metrics({'match_logits': logits}, {})['accuracy']
  assert value.tolist() == [100, 50, 0] and weight.tolist() == [1, 1, 1]


def test_questions_bring_frames_of_other_clips_in_training_alone(folder):
  task = registry.build(config(folder))
  for split, fields in (('train', {'negative'}), ('test', set())):
    with pipeline.evaluate(task.data(split), batch=4) as batches:
      batch = next(batches)
      if split == 'train':
        check_fields(batch, task.inputs.spec)
      assert batch.keys() == fields | {
        'video',
        'wave',
        'question',
        'answer',
        'kind',
        'index',
        'valid',
      }


def test_nothing_is_seen_or_heard_where_only_the_question_is_given(folder):
  values = config(folder, variant='tiny,blind')
  with pipeline.evaluate(registry.build(values).data('train'), batch=4) as batches:
    batch = next(batches)
  assert not batch['video'].any() and not batch['wave'].any() and not batch['negative'].any()
  assert batch['question'].any()


def test_the_numbers_of_words_and_answers_are_those_of_the_questions(folder):
  for source in ('shapes', 'stamps'):
    words, names = vocabulary(CLASSES[source])
    assert (avqa_config.WORDS[source], avqa_config.ANSWERS[source]) == (len(words), len(names))
  full = avqa_config.get_config().model.head
  assert (full.words, full.answers) == (len(music_avqa.WORDS), len(music_avqa.ANSWERS))
  values = config(folder)
  values.model.head.words = 5
  with pytest.raises(ValueError, match="'words': 5.*set these numbers"):
    registry.build(values)


def test_without_data_the_folder_and_the_remedy_are_named(tmp_path):
  values = avqa_config.get_config()
  values.data.dir = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match=r'nowhere.*data\.prepare music_avqa(.|\n)*avqa\.py:scenes'):
    registry.build(values).data('train')


def test_the_release_differs_in_the_repairs_alone():
  def leaves(values):
    flat = jax.tree_util.tree_leaves_with_path(
      values.to_dict(), is_leaf=lambda x: not isinstance(x, dict)
    )
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}

  released, repaired = leaves(avqa_config.get_config('released')), leaves(avqa_config.get_config())
  assert released.keys() == repaired.keys()
  assert {name for name in released if released[name] != repaired[name]} == {
    "['model']['adapter']['token_init']",
    "['model']['adapter']['audio_gate']",
    "['model']['head']['adapt_negatives']",
    "['model']['backbone_mode']",
    "['model']['audio']['mixup']",
    "['data']['negatives']",
  }


# What is shown.


def perceived(q: int, t: int = 3):
  """Outputs for one clip and `q` questions, of which question i has answer i."""
  looks = np.full((1, t, 16), 0.05, np.float32)
  looks[:, :, 6] = 0.25  # second row, third column
  seen = np.full((1, q, t), 1 / t, np.float32)
  heard = np.zeros((1, q, t), np.float32)
  heard[..., -1] = 1
  return {
    'logits': 5 * np.eye(7, dtype=np.float32)[None, :q],
    'looks': looks,
    'audio_map': np.full((1, t, 16), 1 / 16, np.float32),
    'visual_seconds': seen,
    'audio_seconds': heard,
  }


def shown(clip, outputs, asked=None):
  encoder = models.build(ave_config.get_config('tiny').model)
  names = ('yes', 'no', 'two', 'left', 'tuba', 'pipa', 'one')
  return avqa.show(clip, outputs, answers=names, encoder=encoder, asked=lambda: asked)


def film(**fields):
  frames, wave = np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 4000), np.float32)
  return Clip('a.mp4', (0, 6, 13), frames, wave, **fields)


def test_every_question_has_its_five_best_answers_and_what_they_rest_on():
  view = shown(film(asked=('Is it?', 'Who is it?')), perceived(2))
  told = view.record['questions']
  assert [found['question'] for found in told] == ['Is it?', 'Who is it?']
  assert [found['answers'][0]['answer'] for found in told] == ['yes', 'no']
  share = np.exp(5) / (np.exp(5) + 6)
  for found in told:
    assert len(found['answers']) == 5
    assert found['answers'][0]['confidence'] == pytest.approx(share)
    assert [second['second'] for second in found['seconds']] == [0, 6, 13]
    assert [second['heard'] for second in found['seconds']] == [0, 0, 1]
  assert [look['second'] for look in view.record['looks']] == [0, 6, 13]
  assert all(look['region'] == [0.5, 0.25, 0.75, 0.5] for look in view.record['looks'])
  assert view.lines[::2] == ('Is it?', 'Who is it?') and view.lines[1].startswith('  yes 0.96, ')
  assert view.title.endswith('seconds at 0, 6, 13') and view.captions == ()
  names = [track.name for track in view.tracks]
  assert names[-4:] == ['seen for Q1', 'heard for Q1', 'seen for Q2', 'heard for Q2']
  assert view.overlay is view.tracks[1]


def test_one_question_stands_in_the_film():
  view = shown(film(asked=('Is it?',)), perceived(1))
  assert view.captions == ('Is it? yes',) * 3
  assert [track.name for track in view.tracks[-2:]] == ['seen for it', 'heard for it']
  np.testing.assert_allclose(view.tracks[-2].values, 1)  # over the largest share
  assert view.tracks[-2].line == pytest.approx(1) and view.tracks[-1].line == pytest.approx(1 / 3)


def test_of_a_known_question_the_true_answer_stands_beside():
  question = {
    'question_id': 5,
    'video_id': 'clip',
    'type': '["Audio", "Counting"]',
    'question_content': 'Is the <Object> loud?',
    'templ_values': '["tuba"]',
    'anser': 'no',
  }
  asked = Asked([{}], [question], [0], ['<pad>', 'Is', 'the', 'tuba', 'loud'], ['yes', 'no'])
  view = shown(film(known={'index': np.int32(0)}), perceived(1), asked)
  found = {name: x for name, x in view.record.items() if name not in ('questions', 'looks')}
  share = float(np.exp(5) / (np.exp(5) + 6))
  assert found == {
    'question_id': 5,
    'video_id': 'clip',
    'type': ['Audio', 'Counting'],
    'question': 'Is the tuba loud',
    'answer': 'no',
    'predicted': 'yes',
    'confidence': round(share, 4),
  }
  assert 'Is the tuba loud? yes 0.96 (true: no)' in view.title
  json.dumps(view.record)


def test_what_a_user_types_is_a_part_of_the_input(folder):
  task = registry.build(config(folder))
  asked = task.ask(['Is there a disc sound?', 'how many disc are in the entire video'])
  assert asked['question'].shape == (2, 14) and asked['question'].dtype == np.int32
  with pytest.raises(ValueError, match="does not know 'violin'"):
    task.ask(['Is there a violin sound?'])


# Runs.


@pytest.fixture(scope='module')
def ground(folder, tmp_path_factory):
  """The file of a trained pre-stage."""
  workdir = tmp_path_factory.mktemp('ground')
  values = config(folder, grounding_config)
  metrics = train.train(values, workdir)
  assert metrics == pytest.approx(evaluate.run(values, workdir))
  frames = 2 * 3 * 2  # of two clips of three seconds, the own one and another
  right = frames * metrics['accuracy'] / 100
  assert right == pytest.approx(round(right))
  run_part.convert(workdir, workdir / 'ground.safetensors', 'matching')
  return workdir / 'ground.safetensors'


def test_a_run_starts_from_the_pre_stage_and_answers_questions(folder, ground, tmp_path):
  values = config(folder)
  values.init.ground = str(ground)
  metrics = train.train(values, tmp_path)
  assert {'accuracy', 'audio_visual'} < metrics.keys()
  assert metrics == pytest.approx(evaluate.run(values, tmp_path))
  rows = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
  asked = avqa.questions(values, 'test')
  drawn = len(list((tmp_path / 'figures').glob('clip_*.png')))
  assert drawn == min(len(rows), evaluate.FIGURES)
  assert [row['question_id'] for row in rows] == [q['question_id'] for q in asked.questions]
  assert [row['answer'] for row in rows] == [q['anser'] for q in asked.questions]
  right = [row['answer'] == row['predicted'] for row in rows]
  assert 100 * np.mean(right) == pytest.approx(metrics['accuracy'])
  assert all(1 / len(asked.answers) <= row['confidence'] <= 1 for row in rows)


def test_the_pre_stage_is_asked_for_by_name(folder, tmp_path):
  values = config(folder)
  values.init.ground = ''
  with pytest.raises(ValueError, match='config.init.ground is not given'):
    train.train(values, tmp_path)


def released_folder(root, videos=8, rate=1000):
  """A folder as the release has it, with questions that use every word and every answer."""
  words, names = list(music_avqa.WORDS[1:]), list(music_avqa.ANSWERS)
  asked = [
    {
      'video_id': f'{i % videos:08d}',
      'question_id': i,
      'type': json.dumps(KINDS[i % 9]),
      'question_content': ' '.join(words[14 * (i % 7) : 14 * (i % 7 + 1)]) + '?',
      'templ_values': '[]',
      'question_deleted': 0,
      'anser': name,
    }
    for i, name in enumerate(names)
  ]
  (root / 'json').mkdir(parents=True)
  for split, some in (('train', asked), ('val', asked[:9]), ('test', asked[9:20])):
    (root / 'json' / f'avqa-{split}.json').write_text(json.dumps(some))
  (root / 'audio_wave').mkdir()
  rng = np.random.default_rng(0)
  for i in range(videos):
    folder = root / 'frames' / f'{i:08d}'
    folder.mkdir(parents=True)
    for j in range(1, 13):
      pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(folder / f'{j:08d}.jpg')
    wave = rng.uniform(-1, 1, 10 * rate).astype(np.float32)
    np.save(root / 'audio_wave' / f'{i:08d}.npy', wave)
  return root


@pytest.mark.slow
def test_the_users_command_runs_on_a_released_folder(tmp_path):
  music_avqa_folder = released_folder(tmp_path / 'released')
  records.write(music_avqa.recipe(music_avqa_folder, rate=1000), tmp_path / 'built')
  tiny, values = avqa_config.get_config('tiny'), avqa_config.get_config()
  values.model.visual, values.model.audio = tiny.model.visual, tiny.model.audio
  values.model.audio.mixup = True
  values.model.adapter.update(reduction=2, groups=2)
  values.model.head.matching = tiny.model.head.matching
  values.init.update(visual='random', audio='random', ground='random')
  values.data.update(dir=str(tmp_path / 'built'), workers=0)
  values.optim.epochs = 1
  metrics = train.train(values, tmp_path / 'run')
  assert len(metrics) == 1 + 3 + 9 and 0 <= metrics['accuracy'] <= 100
  lines = (tmp_path / 'run/predictions.jsonl').read_text().splitlines()
  assert [json.loads(line)['question_id'] for line in lines] == list(range(9, 20))
