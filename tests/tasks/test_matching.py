"""Matching with words: losses, against golden numbers and formulas; metrics, views, what learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import composed, few_shot
from dgsct_jax import tree
from dgsct_jax.data import clips as shown_clips
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.tasks import matching
from dgsct_jax.tracks import Bars
from tests.models.heads.test_matching import batch, dgsct, model
from tests.parity import golden


def parts_of(case):
  inputs = case.inputs()
  target = np.eye(29, dtype=np.float32)[inputs['class']]
  scores = inputs['event_scores'].reshape(2, 10, 29)
  event = np.mean(matching.cross_entropy(scores, target))
  both = (inputs[name] for name in ('audio_image', 'image_audio'))
  return event, *(np.mean(matching.own_is_found(x, np.ones(2))) for x in both)


def test_the_few_shot_loss_is_golden():
  (case,) = (case for case in golden.cases() if case.name == 'losses_misc')
  parts = parts_of(case)
  total = lambda epoch: matching.total_loss(*parts, epoch, weights='fixed')
  got = np.array([total(10.0), total(11.0), *parts])
  np.testing.assert_allclose(got, case.wanted()['fewshot_loss'], rtol=2e-6)


@pytest.mark.parametrize('epoch', [1.0, 3.0])
def test_shares_weigh_as_the_formulas_of_the_release_say(epoch):
  event, audio, visual = parts = np.array([2.0, 0.5, 0.25])
  all_, sum_ = epoch + parts.sum(), parts.sum()
  np.testing.assert_allclose(
    matching.total_loss(*parts, epoch), np.square(parts).sum() / all_ + sum_ / epoch, rtol=1e-6
  )
  np.testing.assert_allclose(
    matching.total_loss(*parts, epoch, weights='shares_released'),
    (event**2 + audio**2) / all_ + sum_ / epoch + visual**2 / epoch + visual * sum_,
    rtol=1e-6,
  )
  with pytest.raises(ValueError, match="weighed by 'other'"):
    matching.total_loss(*parts, epoch, weights='other')


def test_gradients_pass_through_the_weights():
  slope = jax.grad(lambda event: matching.total_loss(event, 0.0, 0.0, 1.0))(2.0)
  np.testing.assert_allclose(slope, (2 * 2 * 3 - 4) / 9 + 1, rtol=1e-6)


def scored():
  rng = np.random.default_rng(0)
  outputs = {'logits': rng.normal(size=(3, 4, 5)), 'contrast': rng.normal(size=(3, 3))}
  target = np.eye(5)[rng.integers(0, 5, (3, 4))]
  return outputs, {'target': target, 'valid': jnp.array([1.0, 1.0, 0.0])}


def test_padding_is_no_other_clip():
  outputs, clips = scored()
  first = matching.loss_parts(outputs, clips)
  fewer = {'logits': outputs['logits'][:2], 'contrast': outputs['contrast'][:2, :2]}
  second = matching.loss_parts(fewer, {name: x[:2] for name, x in clips.items()})
  for name in first:
    np.testing.assert_allclose(first[name][:2], second[name], rtol=1e-5)
  assert not first['audio'][2] and not first['visual'][2]


def test_a_batch_of_one_clip_has_nothing_to_tell_apart():
  assert matching.own_is_found(jnp.ones((1, 1)), jnp.ones(1)) == 0


def test_a_target_of_the_clip_is_compared_with_the_mean_score():
  outputs, clips = scored()
  clips['target'] = clips['target'][:, 0]
  want = matching.cross_entropy(outputs['logits'].mean(1), clips['target'])
  np.testing.assert_allclose(matching.loss_parts(outputs, clips)['event'], want)


def test_what_learns_is_what_the_release_trains():
  shapes = jax.eval_shape(
    lambda clips: model(dgsct()).init(jax.random.key(0), clips, train=False), batch()
  )
  trained, frozen = tree.split(shapes['params'], few_shot.LEARNED)
  assert set(trained) == {'encoder', 'prompt', 'visual_adapter', 'text_adapter', 'contrast'}
  assert set(frozen) == {'clip', 'clap'}


def judged(target):
  """Outputs for two clips of three seconds and four classes, and the batch with their targets."""
  best = np.array([[0, 1, 3], [2, 2, 1]])
  seen, heard = np.roll(best, 1, 1), np.full_like(best, 2)
  rows = lambda classes: np.eye(4)[classes] * 9
  outputs = {'logits': rows(best), 'visual_logits': rows(seen), 'audio_logits': rows(heard)}
  return outputs, {'target': np.asarray(target, np.float32)}


def means(found):
  return {name: np.sum(value * weight) / weight.sum() for name, (value, weight) in found.items()}


@pytest.mark.parametrize('background', [True, False])
def test_seconds_are_right_where_their_class_is_and_background_only_where_it_has_a_name(background):
  """True: 0 1 background, 2 1 1; predicted: 0 1 3, 2 2 1."""
  target = np.eye(4)[[[0, 1, 3], [2, 1, 1]]]
  outputs, batch = judged(target if background else target * [1, 1, 1, 0])
  found = means(matching.metrics(outputs, batch, background))
  np.testing.assert_allclose(found['accuracy'], 100 * (5 if background else 4) / 6)
  np.testing.assert_allclose(found['foreground_accuracy'], 100 * 4 / 5)
  np.testing.assert_allclose(found['possible'], 100 * (6 if background else 5) / 6)
  assert found['visual_accuracy'] == 0
  np.testing.assert_allclose(found['audio_accuracy'], 100 * 1 / 6)
  assert 'any_accuracy' not in found


def test_a_clip_has_the_class_of_its_mean_scores_and_several_classes_count_by_the_first():
  outputs, batch = judged([[0, 1, 1, 0], [0, 0, 1, 0]])
  outputs['logits'][0] = [0, 1, 2, 0]
  found = means(matching.metrics(outputs, batch, False))
  assert found['accuracy'] == 50 and found['any_accuracy'] == 100
  assert found.keys() == {'accuracy', 'any_accuracy', 'visual_accuracy', 'audio_accuracy'}


def test_a_ladder_may_stand_beside_both_towers():
  config = few_shot.get_config('tiny')
  config.model.tokenizer.clap = 'letters'
  config.model.adapter = dict(name='side', width=8, tokens=2, stages=1)
  task = matching.build(config)
  clips = {
    name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in task.inputs.spec.items()
  }
  init = lambda clips: task.model.init(jax.random.key(0), clips, train=False)
  trained, _ = tree.split(jax.eval_shape(init, clips)['params'], config.trainable)
  assert set(trained['encoder']) == {'exchange_side'}


def test_a_clip_without_a_class_does_not_count():
  outputs, batch = judged([[0, 0, 0, 0], [0, 0, 1, 0]])
  assert means(matching.metrics(outputs, batch, False))['accuracy'] == 100


def test_without_a_contrast_the_classes_are_all_that_is_learned():
  outputs, clips = scored()
  del outputs['contrast']
  total, parts = matching.loss(outputs, clips, 'fixed')
  assert parts.keys() == {'event'} and total == parts['event']


# Views.

NAMES = ('dog', 'bell', 'rain', 'voice')


@pytest.fixture(scope='module')
def clip():
  """Three seconds: a picture and a sound; no picture; no sound."""
  frames = np.full((3, 8, 8, 3), 90, np.uint8)
  frames[1] = 0
  wave = np.tile(np.sin(np.arange(100.0)).astype(np.float32), (3, 1))
  wave[2] = 0
  return shown_clips.Clip('clip', (4, 5, 6), frames, wave)


class Row(nn.Module):
  """A backbone whose tokens lie in a row."""

  @nn.nowrap
  def place(self, weights):
    return weights[:, None]


def view(clip, outputs):
  encoder = DualEncoder(Row(), Row())
  maps = {name: np.ones((1, 3, 4)) / 4 for name in ('visual_map', 'audio_map')}
  outputs = {name: x[:1] for name, x in outputs.items()} | maps
  return matching.show(clip, outputs, names=NAMES, encoder=encoder)


def test_each_second_is_seen_and_heard_and_what_is_not_there_has_no_class(clip):
  shown = view(clip, judged(np.zeros((2, 4)))[0])
  rows = shown.record['timeline']
  told = [[row[name] and row[name]['class'] for name in ('seen', 'heard', 'both')] for row in rows]
  assert told == [['voice', 'rain', 'dog'], [None, 'rain', 'rain'], ['bell', None, 'bell']]
  assert [row['second'] for row in rows] == [4, 5, 6]
  assert shown.lines[1] == '0:05  seen – · heard rain 1.00 · both rain 1.00'
  assert rows[0]['both']['probabilities'].keys() == set(NAMES)
  bars = {track.name: track.labels.tolist() for track in shown.tracks if isinstance(track, Bars)}
  assert bars == {'seen': [3, 4, 1], 'heard': [2, 2, 4], 'both': [0, 2, 1]}


@pytest.mark.parametrize(
  'target, true',
  [(np.eye(4)[[0, 1, 3]], [0, 1, 3]), (np.array([0, 0, 1, 1]), [2, 2, 2]), (np.zeros(4), [4] * 3)],
)
def test_the_truth_is_shown_where_it_is_known(clip, target, true):
  shown = view(clip._replace(known={'target': target}), judged(np.zeros((2, 4)))[0])
  (bars,) = (track for track in shown.tracks if isinstance(track, Bars) and track.name == 'true')
  assert bars.labels.tolist() == true


# What a config may ask for.


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'model.head.target': 'frames'}, "target is 'frames'; choose 'seconds', 'clip' or 'set'"),
    ({'model.head.target': 'clip'}, "background is True and .target is 'clip'"),
    ({'model.head.target': 'set', 'model.head.background': False}, 'have one class each'),
    ({'model.visual': composed.TINY_VISUAL}, "visual.kind is 'swin_v2'.*set 'clip'"),
    ({'data.classes': ('dog', 'Dog')}, 'stand twice'),
    ({'data.kind': 'words'}, 'There are no classes'),
  ],
)
def test_what_does_not_fit_is_told_at_the_start(changes, told):
  config = few_shot.get_config('tiny')
  for name, value in changes.items():
    config.update_from_flattened_dict({name: value})
  if 'model.visual' in changes:
    config.model.visual = dict(changes['model.visual'])
  with pytest.raises(ValueError, match=told):
    matching.build(config)


def test_named_classes_are_for_predictions():
  config = few_shot.get_config('tiny')
  config.data.classes = ('dog', 'bell')
  task = matching.build(config)
  assert task.inputs.spec['target'].shape == (10, 3)  # with background
  with pytest.raises(ValueError, match='names 2 classes, the data set ave has others'):
    task.data('train')
