"""Losses and metrics of MA-AVT."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from scipy.special import expit, log_softmax

from configs.composed import TINY_VISUAL
from configs.ma_avt import IMAGENET, get_config
from dgsct_jax.data import pipeline, records
from dgsct_jax.data.background import Mismatch
from dgsct_jax.data.clips import Clip
from dgsct_jax.tasks import ma_avt, registry

compiled_contrast = jax.jit(ma_avt.contrast)
compiled_loss = jax.jit(ma_avt.loss, static_argnames=('classes', 'contrast_weight'))
compiled_modulation = jax.jit(ma_avt.modulation)


def unit(*shape: int, seed: int = 0) -> np.ndarray:
  x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrast(visual, audio, weight=None) -> float:
  weight = np.ones(len(visual), np.float32) if weight is None else np.float32(weight)
  return float(compiled_contrast(visual, audio, weight))


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
  run = jax.jit(jax.value_and_grad(ma_avt.contrast))
  loss, gradient = jax.device_get(run(visual, audio, np.zeros(3, np.float32)))
  assert loss == 0 and not gradient.any()


def test_what_a_device_cannot_differentiate_makes_the_gradient_smaller_by_their_number():
  """The release on four devices: the others' features are constants, gradients are averaged."""
  visual, audio, weight = unit(8, 2, 8), unit(8, 2, 8, seed=1), np.ones(8, np.float32)

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


def outputs(b: int, t: int, classes: int = 3) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    'logits': normal(b, t, classes),
    'unimodal_logits': normal(b, t, 2, classes),
    'background_logits': normal(b, t),
    'visual_features': unit(b, t, 2, 4),
    'audio_features': unit(b, t, 2, 4, seed=1),
  }


LABEL = np.int32([[0, 3], [2, 1], [3, 3]])  # 3 is background
VALID = np.float32([1, 1, 1])


def parts(outputs, label=LABEL, valid=VALID, **fields) -> dict[str, float]:
  total, found = jax.device_get(
    compiled_loss(outputs, {'label': label, 'valid': valid}, 3, **fields)
  )
  assert total == pytest.approx(float(sum(found.values())), rel=1e-6)
  return {name: float(x) for name, x in found.items()}


def test_the_parts_of_the_loss_are_means_over_those_they_concern():
  found, out = parts(outputs(3, 2)), outputs(3, 2)
  log = log_softmax(out['logits'], -1)
  wanted = -np.mean([log[0, 0, 0], log[1, 0, 2], log[1, 1, 1]])
  assert found['class'] == pytest.approx(wanted, rel=1e-5)
  target = np.float32(LABEL == 3)
  p = expit(out['background_logits'])
  wanted = -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))
  assert found['background'] == pytest.approx(wanted, rel=1e-5)
  flat = lambda name: out[name].reshape(6, 2, 4)[[0, 2, 3]]
  wanted = contrast(flat('visual_features'), flat('audio_features'))
  assert found['contrast'] == pytest.approx(wanted, rel=1e-5)


def test_of_several_visual_vectors_the_nearest_counts():
  several, audio = unit(6, 2, 5, 4), unit(6, 2, 4, seed=1)
  logits = np.einsum('mknp,jkp->kmjn', several, audio).max(-1) / ma_avt.TEMPERATURE
  ways = (log_softmax(x, -1) for x in (logits, logits.swapaxes(1, 2)))
  wanted = -np.mean([np.diagonal(x, axis1=1, axis2=2) for x in ways])
  one = np.ones(6, np.float32)
  assert contrast(several, audio, one) == pytest.approx(wanted, rel=1e-5)
  same = np.repeat(several[:, :, :1], 3, 2)
  wanted = contrast(several[:, :, 0], audio, one)
  assert contrast(same, audio, one) == pytest.approx(wanted, rel=1e-6)


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


def modulation(*given) -> np.ndarray:
  return np.asarray(compiled_modulation(*given))


def test_the_stronger_stream_is_slowed_down():
  strong, weak = np.float32([4, 0, 0]), np.float32([0, 0, 0])
  logits = np.stack([strong, weak])[None, None]
  label, valid = np.int32([[0]]), np.ones(1, np.float32)
  ratio = np.exp(4) / (np.exp(4) + 2) * 3
  visual, audio = modulation(logits, label, valid)
  assert visual == pytest.approx(1 - np.tanh(0.1 * ratio), rel=1e-5) and audio == 1
  visual, audio = modulation(logits[:, :, ::-1], label, valid)
  assert audio == pytest.approx(1 - np.tanh(0.1 * ratio), rel=1e-5) and visual == 1


def test_background_and_filling_have_no_say_in_who_is_stronger():
  logits = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
  label = np.int32([[1, 3], [0, 2]])
  found = modulation(logits, label, np.float32([1, 0]))
  alone = modulation(logits[:1, :1], label[:1, :1], np.ones(1, np.float32))
  np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_modulation_scales_what_belongs_to_one_stream():
  ones = lambda: np.ones((400, 4), np.float32)
  gradients = {
    'visual_tokens': ones(),
    'audio_attn': {'qkv': {'kernel': ones()}},
    'shared_tokens': ones(),
    'exchange_attn_0': {'audio': {'tokens': ones(), 'gate': np.ones(1, np.float32)}},
    'vit': {'cls_token': ones()},
  }
  run = jax.jit(ma_avt.modulate, static_argnames='noise')
  scale = lambda noise: jax.device_get(
    run(gradients, np.float32([0.5, 0.25]), jax.random.key(0), noise=noise)
  )
  found = scale(False)
  assert (found['visual_tokens'] == 0.5).all()
  assert (found['audio_attn']['qkv']['kernel'] == 0.25).all()
  assert (found['exchange_attn_0']['audio']['tokens'] == 0.25).all()
  assert found['exchange_attn_0']['audio']['gate'] == 1
  assert (found['shared_tokens'] == 1).all() and (found['vit']['cls_token'] == 1).all()
  gradients['visual_tokens'] = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)
  noisy = scale(True)['visual_tokens'] - 0.5 * gradients['visual_tokens']
  assert noisy.std() == pytest.approx(float(gradients['visual_tokens'].std()), rel=0.1)


# Accuracy as the release totals it.


def test_the_total_is_mixed_as_released():
  means = {'accuracy': 50.0, 'background_accuracy': 80.0, 'joint_accuracy': 1.0, 'foreground': 75.0}
  assert ma_avt.summarize(means)['total_accuracy'] == pytest.approx(0.75 * 50 + 0.25 * 80)
  means |= {'foreground': 100.0}
  assert ma_avt.summarize(means)['total_accuracy'] == 50
  nothing = means | {'foreground': 0.0, 'accuracy': np.nan}
  found = ma_avt.summarize(nothing)
  assert found['total_accuracy'] == 80 and 'accuracy' not in found
  assert ma_avt.summarize({'accuracy': 3.0}) == {'accuracy': 3.0}


# The task.


def task(variant: str, **changes):
  config = get_config(variant)
  config.update_from_flattened_dict(changes)
  return registry.build(config), config


def test_the_release_is_made_of_fields():
  config = get_config('vggsound,lavish,released')
  assert (config.model.head.positions, config.model.head.swapped) == ('flat', True)
  assert (config.data.bg_mode, config.loss.contrast_weight) == ('label_only', 0.25)
  assert config.model.visual.pixels == IMAGENET and config.select_on == 'test'
  assert not config.model.adapter.audio_gate and config.data.hold_out == 0
  assert get_config('ave,released').data.bg_prob == 0
  assert get_config('cremad,released').data.picture == 'first'


def test_other_encoders_are_refused():
  with pytest.raises(ValueError, match="visual.kind='swin_v2' and audio.kind='shared'; MA-AVT is"):
    task('tiny', **{'model.visual': TINY_VISUAL, 'model.visual.image': 32})


@pytest.mark.parametrize(
  'adapter', [dict(name='side', width=8, tokens=2, stages=1), dict(name='dgsct', stages=1)]
)
def test_adapters_elsewhere_than_in_every_block_are_refused(adapter):
  name = adapter['name']
  with pytest.raises(ValueError, match=f"name='{name}' and stages=1, and MA-AVT's streams meet in"):
    task('tiny', **{'model.adapter': adapter})


def vggsound(folder: Path, clips: int = 8, rate: int = 16):
  """Clips of grey 20·label + second, of two classes, and their config."""

  def read(clip):
    i = int(clip.id)
    frames = [clip_frame(100 * (i % 2) + j) for j in range(10)]
    return {
      'id': clip.id,
      'frames': frames,
      'wave': np.arange(10 * rate, dtype=np.int16),
      'label': np.int32(i % 2),
    }

  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(10 * rate),
    'label': tfds.features.Scalar(np.int32),
  }
  numbered = [SimpleNamespace(id=f'{i}') for i in range(clips)]
  splits = {'train': numbered, 'test': numbered[:2]}
  recipe = records.Recipe(
    'vggsound', '1.0.0', features, splits, read, {'classes.txt': 'bark\nmeow'}
  )
  records.write(recipe, folder)
  config = get_config('vggsound')
  config.data.update(dir=str(folder), batch=4, workers=0, hold_out=4)
  config.model.visual.update(variant='custom', image=16, patch=8, width=8, depths=(1,), heads=2)
  config.model.audio.update(sample_rate=rate, n_fft=30, hop=5)
  config.model.head.update(classes=2, features=4)
  return config


def clip_frame(level: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(np.full((20, 20, 3), level, np.uint8)).save(file, 'PNG')
  return file.getvalue()


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  return vggsound(tmp_path_factory.mktemp('vggsound'))


def grey(video: np.ndarray) -> np.ndarray:
  return np.rint(127.5 * (video.mean((-3, -2, -1)) + 1)).astype(int)


def test_clips_with_one_label_become_segments_of_five_seconds(built):
  dataset = registry.build(built).data('test')
  with pipeline.evaluate(dataset, batch=2) as batches:
    batch = next(batches)
  assert {name: x.shape for name, x in batch.items() if name not in ('index', 'valid')} == {
    'video': (2, 1, 16, 16, 3),
    'wave': (2, 1, 80),
    'label': (2, 1),
  }
  np.testing.assert_array_equal(batch['label'], [[0], [1]])
  np.testing.assert_array_equal(grey(batch['video']), [[5], [105]])  # of the fifth second
  np.testing.assert_allclose(32768 * batch['wave'][0, 0], np.arange(48, 128))


def test_some_pairs_in_training_do_not_belong_together_and_none_later(built):
  task = registry.build(built)
  with pipeline.train(task.data('train'), batch=6, seed=0) as batches:
    seen = [next(batches) for _ in range(40)]
  joined = {name: np.concatenate([x[name] for x in seen]) for name in ('label', 'index', 'video')}
  label, shown = joined['label'][:, 0], grey(joined['video'])[:, 0] >= 100
  heard = np.array([1, 2, 3, 5, 6, 7])[joined['index']] % 2  # 0 and 4 are held out
  background = label == 2
  assert 0.12 < background.mean() < 0.28
  np.testing.assert_array_equal(shown[background], heard[background] == 0)
  np.testing.assert_array_equal(label[~background], heard[~background])
  np.testing.assert_array_equal(shown[~background], heard[~background] == 1)
  for split, ids in (('val', ['0', '4']), ('test', ['0', '1'])):
    source = task.data(split).source
    assert [source[i]['id'] for i in range(len(source))] == ids
    assert not any(isinstance(x, Mismatch) for x in task.data(split).transforms)


def outputs_of(w: int, t: int, n: int = 5) -> dict[str, np.ndarray]:
  return {
    'logits': np.log(np.tile([[[0.2, 0.8]]], (w, t, 1))),
    'background_logits': np.linspace(-1, 1, w * t).reshape(w, t),
    'visual_map': np.full((w, t, n), 1 / n),
    'audio_map': np.tile(np.arange(n) / 10, (w, t, 1)),
  }


def test_a_segment_of_a_known_clip_is_told_for_each_of_its_seconds(built):
  task = registry.build(built)
  wave, label = np.zeros((1, 80), np.float32), np.int32([1])
  known = {'index': np.int32(0), 'label': label}
  clip = Clip('clip 0', (0,), np.zeros((1, 16, 16, 3), np.uint8), wave, known=known)
  view = task.show(clip, outputs_of(1, 1))
  assert view.title == 'clip 0: 5 of 5 seconds right'
  assert [row['event'] for row in view.record['timeline']] == ['meow'] * 5
  assert all(len(track[1]) == 5 for track in view.tracks)
  assert view.tracks[2].wave.shape == (5, 16)


def test_a_file_is_cut_in_windows_and_told_up_to_its_end(built):
  task = registry.build(built)
  windows = task.inputs.windows(8.0)
  assert [window.seconds for window in windows] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
  example = {'wave': np.zeros(80, np.int16), 'frames': [clip_frame(j) for j in range(5)]}
  for transform in task.inputs.decode:
    example = transform.map(example)
  assert grey(example['video']).tolist() == [2] and example['wave'].shape == (1, 80)
  clip = Clip('a', tuple(range(8)), np.zeros((8, 9, 9, 3), np.uint8), np.zeros((8, 16)))
  view = task.show(clip, outputs_of(2, 1))
  events = [row['event'] for row in view.record['timeline']]
  assert events == ['meow'] * 5 + [None] * 3
  assert view.lines[0] == f'0:00  meow {0.8 / (1 + np.exp(-1)):.2f}'
  # Each second has its own part of the map, which is of five seconds.
  listens = view.tracks[3].weights
  np.testing.assert_array_equal(listens[0], [[0.1, 0.1], [0.3, 0.3]])
  np.testing.assert_array_equal(listens[2], [[0.1, 0.2], [0.3, 0.4]])
  np.testing.assert_array_equal(listens[4], [[0.2, 0.2], [0.4, 0.4]])
  json.dumps(view.record)


def test_modulation_is_a_field_and_touches_what_is_of_one_stream_alone():
  assert task('tiny')[0].modulate is None
  found, _ = task('tiny', **{'loss.modulation': 0.5, 'loss.modulation_noise': False})
  out = outputs(1, 2)
  batch = {'label': LABEL[:1], 'valid': VALID[:1]}
  strong = out | {'unimodal_logits': np.zeros((1, 2, 2, 3), np.float32)}
  strong['unimodal_logits'][..., 0, 0] = 9
  gradients = {
    name: np.ones(2, np.float32) for name in ('visual_tokens', 'audio_tokens', 'shared_tokens')
  }
  run = jax.jit(found.modulate)
  changed = jax.device_get(run(gradients, strong, batch, jax.random.key(0)))
  assert (changed['visual_tokens'] < 0.2).all()
  assert (changed['audio_tokens'] == 1).all() and (changed['shared_tokens'] == 1).all()
