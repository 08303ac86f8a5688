"""The losses of matching with words, against golden numbers and formulas, and names of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

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


def test_the_class_of_a_clip_is_its_first_event():
  np.testing.assert_array_equal(matching.clip_target(np.array([3, 3, 1, 3]), 3), [0, 1, 0])
  assert not matching.clip_target(np.array([3, 3]), 3).any()


def test_what_learns_is_what_the_release_trains():
  shapes = jax.eval_shape(
    lambda clips: model(dgsct()).init(jax.random.key(0), clips, train=False), batch()
  )
  trained, frozen = tree.split(shapes['params'], matching.TRAINABLE)
  assert set(trained) == {'encoder', 'prompt', 'visual_adapter', 'text_adapter', 'contrast'}
  assert set(frozen) == {'clip', 'clap'}


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('roberta')
  bpe = tokenizers.ByteLevelBPETokenizer()
  bpe.train_from_iterator(['The sounds of'], 300, special_tokens=['<s>', '<pad>', '</s>'])
  bpe.save_model(str(folder))
  return folder


def test_names_become_prompts_of_both_towers(vocabulary):
  classes = matching.tokenize(('Frying_(food)', 'Baby_cry_infant_cry'), vocabulary)
  assert classes.lengths == (4, 4)
  assert classes.clip[0][:10] == (49406, 343, 343, 343, 343, 38516, 263, 1559, 1818, 49407)
  spaced = matching.tokenize(('Frying (food)', 'Baby cry infant cry'), vocabulary)
  assert spaced.clip == classes.clip and spaced.clap != classes.clap


@pytest.mark.parametrize(
  'names, told',
  [
    ((), 'no classes'),
    (('dog', 'cat', 'Dog'), "stand twice.*'dog', 'Dog'"),
    (('dog bark', 'dog_bark'), "'dog bark', 'dog_bark'"),
    (('dog', ' '), r"empty.*\[' '\]"),
    (('dog', 'very ' * 80), 'holds 77 tokens'),
  ],
)
def test_names_that_tell_no_class_are_refused(vocabulary, names, told):
  with pytest.raises(ValueError, match=told):
    matching.tokenize(names, vocabulary)
