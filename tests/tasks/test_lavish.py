"""LAVISH in the tasks: its head and loss for AVE, what is trained, whose recipe it is."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import models, sharding, tree
from dgsct_jax import state as states
from dgsct_jax.models.listener import Listener
from dgsct_jax.tasks import ave, registry, views


def get_config(name: str, variant: str):
  return importlib.import_module(f'configs.{name}').get_config(variant)


def batch(b: int = 2, t: int = 3, c: int = 29) -> tuple[dict, dict]:
  rng = np.random.default_rng(0)
  label = rng.integers(c, size=(b, t)).astype(np.int32)
  label[0, 0] = c - 1
  logits = jnp.asarray(3 * rng.normal(size=(b, t, c)), jnp.float32)
  return {'logits': logits}, {'label': label, 'valid': jnp.ones(b)}


def test_the_loss_of_a_guess_is_the_stated_number():
  outputs, labels = batch()
  guess = {'logits': jnp.zeros_like(outputs['logits'])}
  assert float(ave.seconds_loss(guess, labels)[0]) == pytest.approx(0.149995, abs=1e-6)


def test_the_loss_is_the_binary_cross_entropy_of_a_softmax():
  outputs, labels = batch()
  p = views.softmax(outputs['logits'])
  y = np.eye(29)[labels['label']]
  wanted = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
  total, parts = ave.seconds_loss(outputs, labels)
  assert float(total) == pytest.approx(wanted, rel=1e-5) and set(parts) == {'class'}
  total, _ = ave.seconds_loss(outputs, labels, 'ce')
  assert float(total) == pytest.approx(-(y * np.log(p)).sum(-1).mean(), rel=1e-5)
  with pytest.raises(ValueError, match="head.loss is 'mse'; set 'bce_softmax' or 'ce'"):
    ave.seconds_loss(outputs, labels, 'mse')


def test_sure_of_a_wrong_class_the_loss_and_its_gradient_stay_finite():
  outputs, labels = batch()
  sure = jnp.zeros_like(outputs['logits']).at[..., 5].set(1e4)
  value, gradient = jax.value_and_grad(lambda x: ave.seconds_loss({'logits': x}, labels)[0])(sure)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert value == pytest.approx(200 / 29, rel=0.2)


def test_seconds_count_by_themselves():
  label = np.int32([[0, 0, 3], [1, 3, 3]])
  right = {'logits': 9.0 * np.eye(4)[label]}
  clip = lambda outputs: {
    name: float(np.mean(value)) for name, (value, _) in ave.seconds_metrics(outputs, clips).items()
  }
  clips = {'label': label}
  assert clip(right) == dict(accuracy=100, clip_accuracy=100, event_accuracy=100)
  wrong = {'logits': 9.0 * np.eye(4)[np.int32([[0, 3, 3], [2, 3, 3]])]}
  found = clip(wrong)
  assert found['accuracy'] == pytest.approx(100 * 4 / 6)
  assert found['clip_accuracy'] == 50
  assert found['event_accuracy'] == pytest.approx(100 * 5 / 6)


def test_background_is_one_of_the_classes_of_a_second():
  judged = ave.judge_seconds({'logits': np.log([[[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]]])})
  assert judged.predicted.tolist() == [[0, 2]] and judged.likeliest.tolist() == [[0, 0]]
  np.testing.assert_allclose(judged.event, [[0.6, 0.4]])
  np.testing.assert_allclose(judged.confidence, [[0.5, 0.3]])


def test_an_unknown_head_is_told():
  config = get_config('ave', 'tiny,lavish')
  config.model.head.kind = 'frames'
  with pytest.raises(ValueError, match="kind is 'frames'; choose one of localizer, seconds"):
    registry.build(config)


NAMES = ('ave', 'avqa', 'avs_s4', 'avs_ms3', 'avvp')


@pytest.mark.parametrize('name', NAMES)
def test_one_backbone_serves_both_streams_or_two_do(name):
  shared = models.build(get_config(name, 'tiny,lavish').model)
  assert isinstance(shared.audio, Listener) and shared.audio.backbone is shared.visual
  assert shared.split_audio and shared.norm_audio
  two = get_config(name, 'lavish_two').model
  assert two.adapter.name == 'lavish' and two.audio.kind == 'htsat'
  assert 'alpha' not in two.adapter and two.head == get_config(name, '').model.head


@pytest.mark.parametrize('name', NAMES)
def test_released_is_made_of_fields(name):
  default, released = (get_config(name, f'lavish{word}') for word in ('', ',released'))
  assert default.model.adapter.token_init == 'uniform' and default.model.adapter.audio_gate
  assert not default.model.adapter.gate_before_norm
  fields = released.model.adapter
  assert (fields.token_init == 'zeros') == (name not in ('ave', 'avvp'))
  assert fields.audio_gate == (not name.startswith('avs'))
  assert fields.gate_before_norm == name.startswith('avs')
  assert released.model.backbone_mode == 'train'


@pytest.mark.slow  # a minute: shapes of the models at full size
@pytest.mark.parametrize(
  'name, variant, parts',
  [
    ('ave', 'lavish', {'exchange': 8_447_808, 'classify': 1_588_253}),
    ('ave', 'vit', {'exchange': 2_064_480}),
    # 12,182,188 of the release, without the layers that it never reads.
    ('avqa', 'lavish', {'exchange': 8_835_264, 'visual': 81_024}),
    # Without 48 × 2 × 2 norms before, which are never applied; of 20,505,921 values of the decoder
    # the sound's layer and half of the coarsest fusion are never read.
    (
      'avs_s4',
      'lavish,released',
      {'exchange': 17_148_048 - 144_384, 'segment': 20_505_921 - 196_736 - 1_180_160},
    ),
  ],
)
def test_what_is_trained_has_the_released_size(name, variant, parts):
  config = get_config(name, variant)
  config.init.update({part: 'random' for part in config.init if part != 'all'})
  task = registry.build(config)
  layout = states.layout(task.model, task.inputs.spec, config, sharding.make_mesh((-1, 1)))
  sizes = {path: leaf.size for path, leaf in tree.flatten(states.abstract(layout).params).items()}
  for part, size in parts.items():
    found = sum(x for path, x in sizes.items() if path.removeprefix('encoder/').startswith(part))
    assert found == size, part
