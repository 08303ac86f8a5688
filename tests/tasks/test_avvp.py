"""AVVP as a task: losses, the scores of the release, data, and what the scores are worth."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from benchmarks import parsing_rules
from configs import avvp as avvp_config
from dgsct_jax import evaluate, figures, train
from dgsct_jax.data import pipeline
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.datasets import llp
from dgsct_jax.data.motion import Motion
from dgsct_jax.data.pseudo_labels import PseudoLabels
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tasks import avvp, registry
from tests import annotations
from tests.models import tiny

T, C = 10, 25
FIVE = ('audio', 'visual', 'audio_visual', 'type', 'event')


def clips(n=6, seed=0):
  """Outputs and a batch of `n` clips; the last has no event in truth and none predicted."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  on = lambda: (rng.random((n, T, C)) < 0.1).astype(np.float32)
  probability = lambda: rng.random((n, T, C)).astype(np.float32)
  outputs = {'logits': draw(n, C), 'audio_logits': draw(n, C), 'visual_logits': draw(n, C)}
  outputs |= {f'{stream}_token_logits': draw(n, C, C) for stream in avvp.STREAMS}
  outputs |= {f'{stream}_probability': probability() for stream in avvp.STREAMS}
  batch = {'audio': on(), 'visual': on(), 'valid': np.ones(n, np.float32), 'index': np.arange(n)}
  batch['label'] = np.maximum(batch['audio'], batch['visual']).max(1)
  outputs['logits'][-1] = -1
  batch['audio'][-1] = batch['visual'][-1] = 0
  return outputs, batch


def own_seconds(n=6, seed=1):
  """What is added where seconds have logits of their own and there are pseudo labels."""
  rng = np.random.default_rng(seed)
  outputs, batch = {}, {}
  for stream in avvp.STREAMS:
    outputs[f'{stream}_second_logits'] = rng.normal(size=(n, T, C)).astype(np.float32)
    outputs[f'{stream}_pooled'] = rng.uniform(0.1, 0.9, (n, C)).astype(np.float32)
    batch[f'pseudo_{stream}'] = (rng.random((n, T, C)) < 0.1).astype(np.float32)
  return outputs, batch


def loss(outputs, batch, **fields):
  total, parts = avvp.loss(*jax.tree.map(jnp.asarray, (outputs, batch)), **fields)
  return float(total), {name: float(part) for name, part in parts.items()}


def reduce(found, mask):
  means = {
    name: np.sum(value * weight * mask) / np.sum(weight * mask)
    for name, (value, weight) in found.items()
  }
  return avvp.summarize(means)


def binary(p, target):
  return -target * np.log(p) - (1 - target) * np.log(1 - p)


# Losses.


def test_the_loss_is_the_sum_of_the_five_released_ones():
  outputs, batch = clips()
  label = batch['label']
  tokens = lambda x: (np.log(np.exp(x).sum(-1)) - x[:, np.arange(C), np.arange(C)]).mean()
  expected = {
    'joint': binary(expit(outputs['logits']), label).mean(),
    'audio': binary(expit(outputs['audio_logits']), label).mean(),
    'audio_tokens': tokens(outputs['audio_token_logits']),
    'visual': binary(expit(outputs['visual_logits']), 0.9 * label + 0.05).mean(),
    'visual_tokens': tokens(outputs['visual_token_logits']),
  }
  total, parts = loss(outputs, batch)
  assert parts == pytest.approx(expected, rel=1e-5)
  assert total == pytest.approx(sum(expected.values()), rel=1e-5)


def test_pseudo_labels_of_seconds_stand_for_the_label_of_their_stream():
  outputs, batch = clips()
  more_outputs, more = own_seconds()
  outputs |= more_outputs
  without, weak = loss(outputs, batch)[1], batch['label']
  np.testing.assert_allclose(
    without['visual_pooled'], binary(outputs['visual_pooled'], 0.9 * weak + 0.05).mean(), rtol=1e-5
  )
  found = loss(outputs, batch | more, pseudo_weight=2.0)[1]
  heard = more['pseudo_audio']
  expected = {
    'audio': binary(expit(outputs['audio_logits']), heard.max(1)).mean(),
    'audio_pooled': binary(outputs['audio_pooled'], heard.max(1)).mean(),
    'audio_pseudo': 2 * binary(expit(outputs['audio_second_logits']), heard).mean(),
  }
  assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
  assert found['joint'] == without['joint'] and found['audio'] != without['audio']


def test_padded_clips_count_in_no_loss():
  outputs, batch = clips()
  more_outputs, more = own_seconds()
  outputs, batch = outputs | more_outputs, batch | more
  half = loss(*({name: x[:3] for name, x in part.items()} for part in (outputs, batch)))
  batch['valid'][3:] = 0
  whole = loss(outputs, batch)
  assert whole[0] == pytest.approx(half[0], rel=1e-6)
  assert whole[1] == pytest.approx(half[1], rel=1e-6)


# Scores.


def check_case():
  """Single clips of the specs, F11."""

  def on(shift, height):
    c, t = np.mgrid[:25, :10]
    return np.sin(0.9 * c + 0.35 * t + shift) > height

  predicted = {'audio': on(0, 0.6), 'visual': on(0.4, 0.6)}
  true = {'audio': on(0.2, 0.55), 'visual': on(0.9, 0.55)}
  for clip in (predicted, true):
    clip['audio'][5:9] = False
    clip['visual'][20] = False
  predicted['audio'][12] = False
  as_batch = lambda clip: {stream: x.T[None] for stream, x in clip.items()}
  return as_batch(predicted), as_batch(true)


def test_scores_are_the_check_values():
  predicted, true = check_case()
  wanted = {
    'segment': (0.7335115864527628, 0.6124891774891775, 0.7788844830861638, 0.41741071428571425),
    'event': (0.7647058823529411, 0.65, 0.7777777777777777, 0.5),
  }
  for level, scores in wanted.items():
    found = avvp.f_scores(predicted, true, level)
    got = [found[name][0][0] for name in ('audio', 'visual', 'event', 'audio_visual')]
    assert got == pytest.approx(scores, abs=1e-12)


def test_nothing_predicted_of_nothing_is_right_or_does_not_count():
  nothing = {stream: np.zeros((1, T, C), bool) for stream in avvp.STREAMS}
  for level in avvp.LEVELS:
    for score, counted in avvp.f_scores(nothing, nothing, level).values():
      assert score == [1] and not counted.any()
  outputs, batch = clips()
  found = avvp.metrics(outputs, batch)
  for level, name in itertools.product(avvp.LEVELS, FIVE[:3] + FIVE[4:]):
    value, weight = found[f'{level}_{name}']
    skipped, counted = found[f'{level}_{name}_skip_empty']
    np.testing.assert_array_equal(value, skipped)
    assert value[-1] == 100 and weight.all() and not counted[-1] and counted[0]


def test_all_runs_of_a_row_are_its_events():
  for row in itertools.product([False, True], repeat=6):
    found = avvp.spans(np.array(row))
    again = np.zeros(6, bool)
    for start, stop in found:
      assert start < stop and not again[max(start - 1, 0) : stop + 1].any()
      again[start:stop] = True
    assert again.tolist() == list(row)


@pytest.mark.parametrize(
  'predicted, true, found',
  [
    ('1100000000', '1111000000', (1, 0, 0)),  # half of the union is enough
    ('1000000000', '1110000000', (0, 1, 1)),
    ('1101100000', '1111100000', (0, 2, 1)),
    ('1110111000', '1110000111', (1, 1, 1)),
    ('0000000000', '0110011000', (0, 0, 2)),
    ('0110011000', '0000000000', (0, 2, 0)),
  ],
)
def test_events_match_where_they_share_half_of_their_union(predicted, true, found):
  on = lambda row: np.array([x == '1' for x in row])
  assert avvp.count_events(on(predicted), on(true)) == found


def test_scores_depend_neither_on_the_batch_nor_on_padding():
  outputs, batch = clips(12)
  whole = reduce(avvp.metrics(outputs, batch), batch['valid'])
  sums = {}
  for i in range(0, 12, 5):
    at = np.minimum(np.arange(i, i + 5), 11)  # the last batch is filled up with its last clip
    mask = np.arange(i, i + 5) < 12
    part = avvp.metrics(*({name: x[at] for name, x in d.items()} for d in (outputs, batch)))
    for name, (value, weight) in part.items():
      total = sums.setdefault(name, [0, 0])
      total[0] += np.sum(value * weight * mask)
      total[1] += np.sum(weight * mask)
  parts = avvp.summarize({name: total / weight for name, (total, weight) in sums.items()})
  assert parts == pytest.approx(whole)


def test_type_is_the_mean_of_what_is_heard_seen_and_both():
  outputs, batch = clips()
  found = reduce(avvp.metrics(outputs, batch), batch['valid'])
  for level, rule in itertools.product(avvp.LEVELS, ('', '_skip_empty')):
    three = [found[f'{level}_{name}{rule}'] for name in FIVE[:3]]
    assert found[f'{level}_type{rule}'] == pytest.approx(np.mean(three))


def test_a_second_is_on_where_it_and_its_clip_reach_one_half():
  outputs = {
    'logits': np.array([[0.0, -0.1, 3.0]]),
    'audio_probability': np.array([[[0.5, 1.2, 0.49]]]),
    'visual_probability': np.array([[[1.2, 1.2, 1.2]]]),
  }
  found = avvp.predict(outputs)
  assert found['audio'].tolist() == [[[True, False, False]]]
  assert found['visual'].tolist() == [[[True, False, True]]]


def cat(*spans):
  return [{'event': 'Cat', 'start': start, 'end': end} for start, end in spans]


def test_a_view_has_the_spans_of_what_is_heard_seen_and_both():
  probability = np.zeros((2, 3, 2))  # two windows of three seconds, of which five are real
  outputs = {'logits': np.ones((2, 2)), 'audio_probability': probability}
  outputs['visual_probability'] = probability.copy()
  outputs['audio_probability'].reshape(6, 2)[[0, 1, 3, 5], 1] = 1
  outputs['visual_probability'].reshape(6, 2)[1:, 1] = 1
  outputs |= {'visual_map': np.ones((2, 3, 16)), 'audio_map': np.ones((2, 3, 16))}
  clip = Clip(
    'a.mp4', (0, 1, 2, 3, 4), np.zeros((5, 8, 8, 3), np.uint8), np.zeros((5, 100), np.float32)
  )
  encoder = DualEncoder(tiny.swin(), tiny.htsat())
  view = avvp.show(clip, outputs, names=('Dog', 'Cat'), encoder=encoder)
  assert view.record == {
    'heard': cat((0, 2), (3, 4)),
    'seen': cat((1, 5)),
    'both': cat((1, 2), (3, 4)),
  }
  assert (
    view.lines[3] == '0:03  heard Cat · seen Cat' and view.lines[4] == '0:04  heard – · seen Cat'
  )
  known = clip._replace(known={name: np.eye(2)[[0, 0, 1, 1, 1]] for name in avvp.STREAMS})
  told = avvp.show(known, outputs, names=('Dog', 'Cat'), encoder=encoder)
  assert told.record['true_seen'][1] == {'event': 'Cat', 'start': 2, 'end': 5}
  figures.draw(told.tracks, told.title)


# The real annotations.


@pytest.fixture(scope='module')
def annotated():
  return llp.labels(annotations.folder('llp'))


def test_the_truth_scores_100_on_all_annotated_clips(annotated):
  for split, count in (('val', 649), ('test', 1200)):
    truth = parsing_rules.truth(annotated[split])
    assert len(truth['audio']) == count
    outputs = {f'{stream}_probability': on for stream, on in truth.items()}
    outputs['logits'] = np.ones((count, C))
    assert set(reduce(avvp.metrics(outputs, truth), np.ones(count)).values()) == {100}


def test_who_predicts_nothing_is_right_about_clips_without_events_alone(annotated):
  test = annotated['test']
  truth = parsing_rules.truth(test)
  found = parsing_rules.score(test, 'nothing')
  both = truth['audio'] * truth['visual']
  for name, on in (*truth.items(), ('audio_visual', both)):
    silent = 100 * np.mean(~on.any((1, 2)))
    assert found[f'segment_{name}'] == pytest.approx(silent)
    assert found[f'event_{name}'] == pytest.approx(silent)
    assert found[f'segment_{name}_skip_empty'] == 0
  assert found['segment_type'] == pytest.approx(8.4, abs=0.05)


def test_the_label_of_the_clip_alone_beats_the_published_score(annotated):
  found = parsing_rules.score(annotated['test'], 'the label of the clip, heard and seen')
  assert found['segment_type'] == pytest.approx(63.0, abs=0.05)
  assert found['event_type'] == pytest.approx(54.5, abs=0.05)


# Data.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def config(folder, variant='tiny'):
  values = avvp_config.get_config(variant)
  values.data.dir = str(folder)
  return values


def first(values, split):
  with pipeline.evaluate(registry.build(values).data(split), batch=2) as batches:
    return next(batches)


def test_training_knows_the_label_of_the_clip_and_tests_those_of_its_seconds(folder):
  values = config(folder)
  given = {'video', 'wave', 'label', 'index', 'valid'}
  assert first(values, 'train').keys() == given
  batch = first(values, 'test')
  assert batch.keys() == given | {'audio', 'visual'}
  assert batch['audio'].shape == batch['visual'].shape == (2, 3, 8)
  np.testing.assert_array_equal(batch['label'], np.maximum(batch['audio'], batch['visual']).max(1))


@pytest.mark.parametrize('word, blank', [('audio', 'video'), ('video', 'wave')])
def test_one_stream_alone_leaves_the_other_blank(folder, word, blank):
  batch = first(config(folder, f'tiny,{word}'), 'train')
  assert not batch[blank].any() and batch['wave' if blank == 'video' else 'video'].any()


def test_pseudo_labels_are_read_by_the_name_of_the_clip(folder, tmp_path):
  values = config(folder)
  values.data.pseudo = str(tmp_path)
  with pytest.raises(ValueError, match=r'no pseudo labels.*audio/train_000000\.npy'):
    first(values, 'train')
  for stream, i in itertools.product(avvp.STREAMS, range(4)):
    (tmp_path / stream).mkdir(exist_ok=True)
    np.save(tmp_path / stream / f'train_{i:06d}.npy', np.full((3, 8), i / 4))
  batch = first(values, 'train')
  np.testing.assert_array_equal(batch['pseudo_visual'][:, 0, 0], batch['index'] / 4)
  assert 'pseudo_visual' not in first(values, 'test')
  values.model.head.seconds = 'released'
  with pytest.raises(ValueError, match="config.data.pseudo is.*set 'own'"):
    registry.build(values)


@pytest.mark.parametrize('labels', [np.zeros((8, 3)), np.full((3, 8), 2.0)])
def test_pseudo_labels_of_another_shape_or_range_are_refused(tmp_path, labels):
  for stream in avvp.STREAMS:
    (tmp_path / stream).mkdir()
    np.save(tmp_path / stream / 'clip.npy', labels)
  with pytest.raises(ValueError, match=r'audio/clip.npy .*\(3, 8\) are needed'):
    PseudoLabels(str(tmp_path), (3, 8)).map({'id': 'clip'})


def test_a_clip_without_motion_or_with_another_length_is_named():
  step = Motion(10)
  assert step.map({'id': 'a', 'motion': np.ones((10, 512))})['motion'].dtype == np.float32
  for example in (
    {'id': 'clip a'},
    {'id': 'clip a', 'motion': np.ones((9, 512))},
    {'id': 'clip a', 'motion': np.full((10, 512), np.nan)},
  ):
    with pytest.raises(ValueError, match="(?s)'clip a'.*config.model.head.motion='none'"):
      step.map(example)


def test_wrong_fields_are_refused_with_what_is_right(folder):
  for name, value, told in (
    ('assign', 'firm', "head.assign is 'firm'; choose one of .'soft', 'hard'"),
    ('motion', True, "head.motion is True; choose one of .'r2plus1d_18', 'none'"),
    ('classes', 9, 'head.classes is 9; the data set scenes has 8 classes'),
  ):
    values = config(folder)
    values.model.head = values.model.head.to_dict() | {name: value}
    with pytest.raises(ValueError, match=told):
      registry.build(values)
  with pytest.raises(ValueError, match="unknown words .'tony'."):
    avvp_config.get_config('tony')


def test_released_differs_from_the_default_in_what_moves_frozen_backbones():
  default, released = avvp_config.get_config(), avvp_config.get_config('released')
  assert (released.model.backbone_mode, released.model.audio.mixup) == ('train', True)
  released.model.backbone_mode, released.model.audio.mixup = 'eval', False
  assert released.to_dict() == default.to_dict()


@pytest.mark.slow
def test_a_tiny_run_ends_with_five_scores_by_seconds_and_events(folder, tmp_path):
  """Slow by the compiling of its step."""
  values = config(folder)
  metrics = train.train(values, tmp_path)
  assert metrics.keys() == {
    f'{level}_{name}{rule}'
    for level, name, rule in itertools.product(avvp.LEVELS, FIVE, ('', '_skip_empty'))
  }
  assert metrics == pytest.approx(evaluate.run(values, tmp_path), nan_ok=True)
  rows = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
  assert [row['index'] for row in rows] == [0, 1, 2]
