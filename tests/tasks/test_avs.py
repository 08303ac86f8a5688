"""AVS as a task: losses and metrics of the release, and what padding and batches cannot move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from configs import avs_ms3, avs_s4
from dgsct_jax import tree
from dgsct_jax.data import pipeline
from dgsct_jax.data.clips import Clip
from dgsct_jax.models.heads.avs import under
from dgsct_jax.tasks import avs, registry


def waves(shape: tuple[int, ...], a: float, b: float) -> np.ndarray:
  """X of the specification."""
  return np.sin(a * np.arange(np.prod(shape)) + b).reshape(shape)


def released_frames() -> tuple[np.ndarray, np.ndarray]:
  """Logits and masks of F9 [10 224 224]."""
  logits = 3 * waves((10, 224, 224), 0.001, 0.2)
  return logits.astype(np.float32), (waves((10, 224, 224), 0.0007, 0.1) > 0.3).astype(np.float32)


def clips(b: int = 6, t: int = 3, side: int = 12, seed: int = 0) -> tuple[dict, dict]:
  """Outputs and masks; in the last clip nothing sounds, in the first not in the first second."""
  rng = np.random.default_rng(seed)
  masks = (rng.random((b, t, side, side)) < 0.3).astype(np.float32)
  masks[-1] = masks[0, 0] = 0
  logits = rng.normal(size=masks.shape).astype(np.float32) + 2 * (masks - 0.5).astype(np.float32)
  draw = lambda: rng.normal(size=(b, t, 2, 5)).astype(np.float32)
  outputs = {'mask_logits': logits, 'seen': draw(), 'heard': draw()}
  return outputs, {'masks': masks, 'valid': np.ones(b, np.float32)}


def rows(tree: dict, at) -> dict:
  return {name: x[at] for name, x in tree.items()}


def means(outputs: dict, batch: dict) -> dict[str, np.ndarray]:
  """As evaluate.py takes them: Σ value·weight / Σ weight over the clips that count."""
  found = {}
  for name, (value, weight) in avs.metrics(outputs, batch).items():
    weight = weight * batch['valid']
    total = np.tensordot(weight, value, 1)
    found[name] = np.asarray(total / weight.sum() if weight.sum() else np.nan * total)
  return found


def loss(outputs: dict, batch: dict, **fields) -> tuple[float, dict[str, float]]:
  total, parts = jax.jit(lambda o, b: avs.loss(o, b, **fields))(outputs, batch)
  return float(total), {name: float(part) for name, part in parts.items()}


# Losses.


def test_the_losses_of_both_tasks_are_the_stated_numbers():  # F9
  logits, masks = (x.reshape(2, 5, 224, 224) for x in released_frames())
  batch = {'masks': masks[:, :1], 'valid': np.ones(2, np.float32)}
  total, _ = loss({'mask_logits': logits}, batch)
  np.testing.assert_allclose(total, 1.104225950335599, rtol=1e-6)

  heard = np.stack([waves((2, 5, 8), 0.3 * (i + 1), 0.2) for i in range(4)], 2)
  seen = []
  for i, side in enumerate((56, 28, 14, 7)):
    x = np.maximum(waves((10, 8, side, side), 0.01 * (i + 1), 0.4), 0)
    x = jnp.moveaxis(x.reshape(2, 5, 8, side, side), 2, -1).astype(jnp.float32)
    seen.append(under(x, jnp.asarray(logits)))
  outputs = {'mask_logits': logits, 'seen': np.stack(seen, 2), 'heard': heard.astype(np.float32)}
  for frames in (0, 10):  # the batch has ten
    total, parts = loss(
      outputs, batch | {'masks': masks}, matching_weight=0.5, matching_frames=frames
    )
    np.testing.assert_allclose(parts['mask'], 1.1489395702788683, rtol=1e-5)
    np.testing.assert_allclose(parts['matching'], 0.5 * 1.754501392672245, rtol=1e-5)
    np.testing.assert_allclose(total, 2.0261902666149907, rtol=1e-5)


def test_only_the_released_matching_grows_with_the_batch():
  outputs, batch = clips()
  twice = [{name: np.concatenate([x, x]) for name, x in tree.items()} for tree in (outputs, batch)]
  for frames, factor in ((10, 1), (0, 2)):
    fields = dict(matching_weight=0.5, matching_frames=frames)
    once, more = loss(outputs, batch, **fields)[1], loss(*twice, **fields)[1]
    np.testing.assert_allclose(more['matching'], factor * once['matching'], rtol=1e-5)
    np.testing.assert_allclose(more['mask'], once['mask'], rtol=1e-5)


@pytest.mark.parametrize('frames', [0, 10])
def test_padding_does_not_move_the_loss(frames):
  outputs, batch = clips()
  fields = dict(matching_weight=0.5, matching_frames=frames)
  expected = loss(rows(outputs, slice(4)), rows(batch, slice(4)), **fields)
  batch['valid'][4:] = 0
  found = loss(outputs, batch, **fields)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


def test_masks_of_another_size_than_the_frames_are_told():
  outputs, batch = clips()
  batch['masks'] = batch['masks'][:, :, :10]
  with pytest.raises(ValueError, match='masks have 10×12 pixels, the frames 12×12; set config'):
    loss(outputs, batch)


# Metrics.


def test_a_released_batch_has_the_stated_metrics():  # F10
  logits, masks = released_frames()
  masks[[3, 7]] = 0
  found = avs.released(means({'mask_logits': logits[None]}, {'masks': masks[None], 'valid': [1.0]}))
  np.testing.assert_allclose(found['miou'], 32.91206955909729, rtol=1e-6)
  np.testing.assert_allclose(found['f_score'], 46.45507037639618, rtol=1e-6)


def test_a_curve_is_the_f_measure_at_each_threshold():
  outputs, batch = clips(b=1, t=2)
  found = avs.f_curves(outputs['mask_logits'], batch['masks'])
  probability = expit(outputs['mask_logits'])
  for k in (0, 1, 100, 200, 254):
    predicted, true = probability >= np.float32(k / 254), batch['masks'] > 0
    hits = (predicted & true).sum((2, 3))
    precision = hits / np.maximum(predicted.sum((2, 3)), 1)
    recall = hits / np.maximum(true.sum((2, 3)), 1)
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)
    np.testing.assert_allclose(found[:, :, k], f, atol=1e-6)


def test_the_metrics_of_a_split_do_not_depend_on_its_batches():
  outputs, batch = clips()
  whole = avs.summarize(means(outputs, batch))
  sums = {}
  for at in (slice(0, 1), slice(1, 4), slice(4, 6)):
    for name, (value, weight) in avs.metrics(rows(outputs, at), rows(batch, at)).items():
      total, count = sums.get(name, (0, 0))
      sums[name] = total + np.tensordot(weight, value, 1), count + weight.sum()
  parts = avs.summarize({name: np.asarray(total / count) for name, (total, count) in sums.items()})
  assert parts.keys() == whole.keys()
  for name in whole:
    np.testing.assert_allclose(parts[name], whole[name], err_msg=name)


def test_the_released_f_score_depends_on_them_and_flatters_where_something_sounds_in_all_frames():
  outputs, batch = clips(b=4)
  batch['masks'][:, :, 0] = 1
  batches = [avs.released(means(rows(outputs, [i]), rows(batch, [i])))['f_score'] for i in range(4)]
  assert np.mean(batches) > avs.summarize(means(outputs, batch))['f_score'] + 0.1


def test_where_nothing_sounds_the_share_of_rightly_dark_pixels_counts():
  masks = np.zeros((1, 2, 4, 4), np.float32)
  logits = np.full((1, 2, 4, 4), -1, np.float32)
  logits[0, 0, 0] = 1
  found = means({'mask_logits': logits}, {'masks': masks, 'valid': np.ones(1)})
  np.testing.assert_allclose(found['miou'], (75 + 100) / 2)
  assert found['empty_frames'] == 100 and found['empty_right'] == 50
  assert np.isnan(found['sounding_miou']) and np.isnan(found['f_curve']).all()
  assert avs.released(found)['f_score'] == 0
  assert avs.summarize(found).keys() == {'miou', 'empty_frames', 'empty_right'}


def test_frames_without_sound_are_counted_apart():
  outputs, batch = clips()
  found = avs.summarize(means(outputs, batch))
  sounding = [(i, j) for i in range(6) for j in range(3) if batch['masks'][i, j].any()]
  overlap = avs.iou(outputs['mask_logits'], batch['masks'])
  np.testing.assert_allclose(
    found['sounding_miou'], 100 * np.mean([overlap[at] for at in sounding])
  )
  np.testing.assert_allclose(found['empty_frames'], 100 * 4 / 18)
  np.testing.assert_allclose(found['j_and_f'], (found['miou'] + found['f_score']) / 2)


# The configs.


@pytest.mark.parametrize('file', [avs_s4, avs_ms3])
def test_released_is_what_the_release_does_and_the_default_repairs_it(file):
  config, released = file.get_config(), file.get_config('released')
  assert (config.select_on, released.select_on) == ('val', 'test')
  assert (config.model.backbone_mode, released.model.backbone_mode) == ('eval', 'train')
  assert 'encoder/audio/.*' not in config.trainable
  assert ('encoder/audio/.*' in released.trainable) == (file is avs_s4)
  assert config.model.adapter.audio_gate and not released.model.adapter.audio_gate
  assert released.model.adapter.gate_before_norm and not released.model.adapter.norm_before
  assert released.model.head.matching_frames == 0


@pytest.mark.slow
@pytest.mark.parametrize(
  'file, millions, masks', [(avs_s4, 164.94, (1, 224, 224)), (avs_ms3, 225.56, (5, 224, 224))]
)
def test_the_release_trains_as_many_parameters(file, millions, masks):
  config = file.get_config('released')
  task = registry.build(config)
  spec = task.inputs.spec
  assert spec['masks'].shape == masks and spec['video'].shape == (5, 224, 224, 3)
  batch = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in spec.items()}
  shapes = jax.eval_shape(lambda b: task.model.init(jax.random.key(0), b, False), batch)['params']
  trainable, _ = tree.split(shapes, config.trainable)
  assert round(tree.count(trainable) / 1e6, 2) == millions


def test_data_without_masks_is_told():
  config = avs_s4.get_config()
  config.data.kind = 'ave'
  with pytest.raises(ValueError, match="'ave', a data set without masks; choose avsbench_s4"):
    registry.build(config).data('train')


def test_only_the_first_seconds_have_masks_in_training(tmp_path):
  config = avs_s4.get_config('tiny')
  config.data.update(dir=str(tmp_path), masked=1)
  data = registry.build(config).data
  train, val = (
    pipeline.train(data('train'), batch=4, seed=0),
    pipeline.evaluate(data('val'), batch=1),
  )
  assert next(train)['masks'].shape == (4, 1, 32, 32) and next(val)['masks'].shape == (1, 2, 32, 32)


# Views.


def test_a_view_tells_how_much_of_each_second_sounds():
  task = registry.build(avs_s4.get_config('tiny'))
  logits = np.full((1, 2, 32, 32), -3, np.float32)
  logits[0, 1, :16] = 3
  outputs = {
    'mask_logits': logits,
    'visual_map': np.full((1, 2, 64), 1 / 64, np.float32),
    'audio_map': np.full((1, 2, 64), 1 / 64, np.float32),
  }
  frames, wave = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 1000), np.float32)
  clip = Clip('clip', (0, 1), frames, wave, known={'masks': (logits[0] > 0).astype(np.float32)})
  view = task.show(clip, outputs)
  assert view.record == {'sounding': [0.0, 0.5]} and view.title == 'clip: overlap 1.00'
  assert view.lines[1] == '0:01   50% of the picture sounds'
  assert view.overlay.probability.shape == (2, 32, 32)
