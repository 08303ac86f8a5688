import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from configs import avqa as avqa_config
from configs import avqa_grounding as grounding_config
from dgsct_jax import evaluate, tasks, train
from dgsct_jax.convert import run as run_part
from dgsct_jax.data import datasets, pipeline, records
from dgsct_jax.data.datasets import music_avqa
from dgsct_jax.data.questions import KINDS
from dgsct_jax.scenes.questions import vocabulary
from dgsct_jax.tasks import avqa


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
      assert next(batches).keys() == fields | {
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
    words, names = vocabulary(datasets.class_names('', source))
    assert (avqa_config.WORDS[source], avqa_config.ANSWERS[source]) == (len(words), len(names))
  full = avqa_config.get_config().model.head
  assert (full.words, full.answers) == (len(music_avqa.WORDS), len(music_avqa.ANSWERS))
  values = config(folder)
  values.model.head.words = 5
  with pytest.raises(ValueError, match="'words': 5.*set these numbers"):
    registry.build(values).data('train')


def test_without_data_the_folder_and_the_remedy_are_named(tmp_path):
  values = avqa_config.get_config()
  values.data.dir = str(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match=r'nowhere.*data\.prepare music_avqa(.|\n)*avqa\.py:scenes'):
    registry.build(values).data('train')


def test_fixed_differs_from_the_release_in_the_four_repairs():
  def leaves(values):
    flat = jax.tree_util.tree_leaves_with_path(
      values.to_dict(), is_leaf=lambda x: not isinstance(x, dict)
    )
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}

  released, fixed = leaves(avqa_config.get_config()), leaves(avqa_config.get_config('fixed'))
  assert {name for name in released if released[name] != fixed[name]} == {
    "['model']['adapter']['token_init']",
    "['model']['adapter']['audio_gate']",
    "['model']['head']['adapt_negatives']",
    "['data']['negatives']",
  }


@pytest.fixture(scope='module')
def ground(folder, tmp_path_factory):
  """The file of a trained pre-stage."""
  workdir = tmp_path_factory.mktemp('ground')
  metrics = train.train(config(folder, grounding_config), workdir)
  assert 0 <= metrics['accuracy'] <= 100
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
  drawn = len(list((tmp_path / 'figures').glob('question_*.png')))
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
