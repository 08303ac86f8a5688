"""Losses and metrics of MA-AVT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax.tasks import ma_avt


def unit(*shape: int, seed: int = 0) -> np.ndarray:
  x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrast(visual, audio, weight=None) -> float:
  weight = np.ones(len(visual), np.float32) if weight is None else np.float32(weight)
  return float(jax.jit(ma_avt.contrast)(visual, audio, weight))


def test_the_contrast_of_orthonormal_pairs_is_nearly_nothing():
  features = np.eye(5, dtype=np.float32)[:, None]
  assert contrast(features, features) == pytest.approx(np.log(1 + 4 * np.exp(-1 / 0.07)), abs=2e-6)


def test_the_contrast_of_equal_pairs_is_that_of_guessing():
  features = np.broadcast_to(unit(8), (5, 2, 8))
  assert contrast(features, features) == pytest.approx(np.log(5), rel=1e-5)


def test_the_contrast_is_the_stated_formula_and_symmetric():
  visual, audio = unit(6, 3, 8), unit(6, 3, 8, seed=1)
  parts = []
  for k in range(3):
    s = visual[:, k] @ audio[:, k].T / 0.07
    log = lambda s: s - np.log(np.exp(s).sum(1, keepdims=True))
    parts.append(-(np.diag(log(s)).mean() + np.diag(log(s.T)).mean()) / 2)
  assert contrast(visual, audio) == pytest.approx(np.mean(parts), rel=1e-4)
  assert contrast(audio, visual) == pytest.approx(np.mean(parts), rel=1e-4)


def test_pairs_without_weight_are_as_if_they_were_not_there():
  visual, audio, weight = unit(6, 3, 8), unit(6, 3, 8, seed=1), [1, 0, 1, 1, 0, 1]
  kept = np.flatnonzero(weight)
  assert contrast(visual, audio, weight) == pytest.approx(
    contrast(visual[kept], audio[kept]), rel=1e-5
  )


def test_without_any_pair_loss_and_gradient_are_zero():
  visual, audio = unit(3, 2, 8), unit(3, 2, 8, seed=1)
  loss, gradient = jax.value_and_grad(ma_avt.contrast)(visual, audio, jnp.zeros(3))
  assert loss == 0 and not gradient.any()


def test_what_a_device_cannot_differentiate_makes_the_gradient_smaller_by_their_number():
  """The release on four devices: the others' features are constants, gradients are averaged."""
  visual, audio, weight = unit(8, 2, 8), unit(8, 2, 8, seed=1), jnp.ones(8)

  @jax.jit
  def both(visual, audio):
    total = jax.grad(ma_avt.contrast)(visual, audio, weight)

    def on_one(visual, device):
      mine = (jnp.arange(8) // 2 == device)[:, None, None]
      keep = lambda x: jnp.where(mine, x, jax.lax.stop_gradient(x))
      return ma_avt.contrast(keep(visual), keep(audio), weight)

    averaged = sum(jax.grad(on_one)(visual, device) for device in range(4)) / 4
    return total, averaged

  total, averaged = both(visual, audio)
  np.testing.assert_allclose(averaged, 0.25 * total, atol=1e-6)


def outputs(b: int, t: int, classes: int = 3) -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {
    'logits': normal(b, t, classes),
    'unimodal_logits': normal(b, t, 2, classes),
    'background_logits': normal(b, t),
    'visual_features': jnp.asarray(unit(b, t, 2, 4)),
    'audio_features': jnp.asarray(unit(b, t, 2, 4, seed=1)),
  }


LABEL = np.int32([[0, 3], [2, 1], [3, 3]])  # 3 is background
VALID = np.float32([1, 1, 1])


def parts(outputs, label=LABEL, valid=VALID, **fields) -> dict[str, float]:
  total, found = ma_avt.loss(outputs, {'label': label, 'valid': valid}, 3, **fields)
  assert total == pytest.approx(float(sum(found.values())), rel=1e-6)
  return {name: float(x) for name, x in found.items()}


def test_the_parts_of_the_loss_are_means_over_those_they_concern():
  found, out = parts(outputs(3, 2)), outputs(3, 2)
  log = jax.nn.log_softmax(out['logits'])
  wanted = -np.mean([log[0, 0, 0], log[1, 0, 2], log[1, 1, 1]])
  assert found['class'] == pytest.approx(wanted, rel=1e-5)
  target = np.float32(LABEL == 3)
  p = jax.nn.sigmoid(out['background_logits'])
  wanted = -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))
  assert found['background'] == pytest.approx(wanted, rel=1e-5)
  flat = lambda name: np.asarray(out[name]).reshape(6, 2, 4)[[0, 2, 3]]
  wanted = contrast(flat('visual_features'), flat('audio_features'))
  assert found['contrast'] == pytest.approx(wanted, rel=1e-5)


def test_clips_that_fill_up_a_batch_do_not_count():
  out = outputs(3, 2)
  label = np.int32([[0, 3], [2, 1], [0, 0]])
  few = {name: x[:2] for name, x in out.items()}
  wanted = parts(few, LABEL[:2], VALID[:2])
  found = parts(out, label, np.float32([1, 1, 0]))
  assert found == pytest.approx(wanted, rel=1e-5)


def test_the_weight_of_the_contrast_is_a_factor():
  whole, quarter = parts(outputs(3, 2)), parts(outputs(3, 2), contrast_weight=0.25)
  assert quarter['contrast'] == pytest.approx(0.25 * whole['contrast'])
  assert quarter['class'] == whole['class']


def test_a_model_without_background_and_contrast_learns_classes():
  assert set(parts({'logits': outputs(3, 2)['logits']})) == {'class'}


def test_metrics_count_what_they_say():
  logits = np.zeros((2, 2, 3))
  logits[0, 0, 0] = logits[0, 1, 1] = logits[1, 0, 2] = logits[1, 1, 0] = 1
  label = np.int32([[0, 2], [2, 3]])
  background = np.float32([[-1, -1], [1, 1]])
  found = ma_avt.metrics(
    {'logits': logits, 'background_logits': background}, {'label': label}, classes=3
  )
  mean = {name: np.sum(x * w) / np.sum(w) for name, (x, w) in found.items()}
  assert mean['accuracy'] == pytest.approx(200 / 3)  # one of three foreground segments is wrong
  assert mean['background_accuracy'] == 75  # (1, 0) is taken for background
  assert mean['joint_accuracy'] == 50  # (0, 0) and (1, 1)
  assert set(ma_avt.metrics({'logits': logits}, {'label': label}, 3)) == {'accuracy'}


def test_the_stronger_stream_is_slowed_down():
  strong, weak = np.float32([4, 0, 0]), np.float32([0, 0, 0])
  logits = np.stack([strong, weak])[None, None]
  label, valid = np.int32([[0]]), np.ones(1, np.float32)
  ratio = np.exp(4) / (np.exp(4) + 2) * 3
  visual, audio = ma_avt.modulation(logits, label, valid)
  assert visual == pytest.approx(1 - np.tanh(0.1 * ratio), rel=1e-5) and audio == 1
  visual, audio = ma_avt.modulation(logits[:, :, ::-1], label, valid)
  assert audio == pytest.approx(1 - np.tanh(0.1 * ratio), rel=1e-5) and visual == 1


def test_background_and_filling_have_no_say_in_who_is_stronger():
  logits = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
  label = np.int32([[1, 3], [0, 2]])
  found = ma_avt.modulation(logits, label, np.float32([1, 0]))
  alone = ma_avt.modulation(logits[:1, :1], label[:1, :1], np.ones(1, np.float32))
  np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_modulation_scales_what_belongs_to_one_stream():
  ones = lambda: jnp.ones((400, 4))
  gradients = {
    'visual_tokens': ones(),
    'audio_attn': {'qkv': {'kernel': ones()}},
    'shared_tokens': ones(),
    'exchange_attn_0': {'audio': {'tokens': ones(), 'gate': jnp.ones(1)}},
    'vit': {'cls_token': ones()},
  }
  scale = lambda noise: ma_avt.modulate(gradients, jnp.array([0.5, 0.25]), jax.random.key(0), noise)
  found = scale(False)
  assert (found['visual_tokens'] == 0.5).all()
  assert (found['audio_attn']['qkv']['kernel'] == 0.25).all()
  assert (found['exchange_attn_0']['audio']['tokens'] == 0.25).all()
  assert found['exchange_attn_0']['audio']['gate'] == 1
  assert (found['shared_tokens'] == 1).all() and (found['vit']['cls_token'] == 1).all()
  gradients['visual_tokens'] = jax.random.normal(jax.random.key(1), (400, 4))
  noisy = scale(True)['visual_tokens'] - 0.5 * gradients['visual_tokens']
  assert noisy.std() == pytest.approx(float(gradients['visual_tokens'].std()), rel=0.1)
