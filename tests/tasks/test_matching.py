"""Matching with words: losses, against golden numbers and formulas; metrics, views, what learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import few_shot
from dgsct_jax import tree
from dgsct_jax.tasks import matching
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
  return outputs, {'target': target, 'valid': np.array([1.0, 1.0, 0.0])}


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
