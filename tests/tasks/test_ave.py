"""AVE as a task: losses and metrics that padding cannot move, and the model at its full size."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from configs import ave as config
from dgsct_jax import models, tree
from dgsct_jax.data.clips import Clip
from dgsct_jax.models import lazy
from dgsct_jax.tasks import ave, registry, views
from dgsct_jax.tasks.task import Task, View

CLASSES = 28


def clips(n: int = 6, seed: int = 0) -> tuple[dict, dict]:
  """Outputs and a batch of `n` clips, the last of which is all background."""
  rng = np.random.default_rng(seed)
  foreground = rng.random((n, 10)) < 0.6
  foreground[-1] = False
  label = np.where(foreground, rng.integers(1, CLASSES, (n, 1)), CLASSES).astype(np.int32)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  outputs = {
    'event_logits': draw(n, 10),
    'gate': rng.random((n, 10)).astype(np.float32),
    'logits': draw(n, CLASSES),
    'activation_logits': draw(n, CLASSES),
    'clip_logits': draw(n, CLASSES + 1),
  }
  return outputs, {'label': label, 'valid': np.ones(n, np.float32)}


def rows(tree_: dict, at) -> dict:
  return {name: x[at] for name, x in tree_.items()}


def reduce(found: dict, mask: np.ndarray) -> dict[str, float]:
  return {
    name: np.sum(value * weight * mask) / np.sum(weight * mask)
    for name, (value, weight) in found.items()
  }


# Losses.


def loss(outputs: dict, batch: dict, function=ave.loss, **fields) -> tuple[float, dict[str, float]]:
  total, parts = function(*jax.tree.map(jnp.asarray, (outputs, batch)), **fields)
  return float(total), {name: float(part) for name, part in parts.items()}


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
  shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -shifted[np.arange(len(label)), label]


def binary(p: np.ndarray, label: np.ndarray) -> np.ndarray:
  return -np.where(label, np.log(p), np.log(1 - p))


@pytest.mark.parametrize('gate_loss', ['logits', 'probability'])
def test_the_loss_is_the_sum_of_the_four_released_ones(gate_loss):
  outputs, batch = clips()
  label = batch['label']
  event = np.where(label < CLASSES, label, 0).max(1)
  gate = expit(outputs['gate']) if gate_loss == 'logits' else outputs['gate']
  expected = {
    'event': binary(expit(outputs['event_logits']), label < CLASSES).mean(),
    'gate': binary(gate, label < CLASSES).mean(),
    'class': cross_entropy(outputs['logits'], event).mean(),
    'activation': cross_entropy(outputs['activation_logits'], event).mean(),
  }
  total, parts = loss(outputs, batch, gate_loss=gate_loss)
  assert parts == pytest.approx(expected, rel=1e-5)
  assert total == pytest.approx(sum(expected.values()), rel=1e-5)


def test_the_gate_loss_of_probabilities_can_reach_zero_and_that_of_logits_cannot():
  outputs, batch = clips()
  right = outputs | {'gate': (batch['label'] < CLASSES).astype(np.float32)}
  assert loss(right, batch, gate_loss='probability')[1]['gate'] < 1e-5
  assert loss(right, batch, gate_loss='logits')[1]['gate'] > math.log(1 + math.exp(-1))


def test_saturated_gates_have_finite_gradients():
  outputs, batch = jax.tree.map(jnp.asarray, clips())
  wrong = (batch['label'] >= CLASSES).astype(jnp.float32)
  total = lambda gate: ave.loss(outputs | {'gate': gate}, batch, gate_loss='probability')[0]
  assert jnp.isfinite(jax.grad(total)(wrong)).all()


def test_the_weak_loss_is_the_cross_entropy_of_the_clip():
  outputs, batch = clips()
  event = np.where(batch['label'] < CLASSES, batch['label'], 0).max(1)
  expected = cross_entropy(outputs['clip_logits'], event).mean()
  total, parts = loss(outputs, batch, ave.weak_loss)
  assert parts == {'clip': total} and total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('function', [ave.loss, ave.weak_loss])
def test_padded_clips_count_in_no_loss(function):
  outputs, batch = clips()
  half = loss(rows(outputs, slice(3)), rows(batch, slice(3)), function)
  batch['valid'][3:] = 0
  whole = loss(outputs, batch, function)
  assert whole[0] == pytest.approx(half[0], rel=1e-6)
  assert whole[1] == pytest.approx(half[1], rel=1e-6)


def test_a_clip_of_background_alone_has_class_0():
  label = jnp.array([[28, 28], [28, 5], [5, 5]])
  np.testing.assert_array_equal(ave.clip_class(label, CLASSES), [0, 5, 5])


# Metrics.


def test_seconds_are_background_unless_their_event_is_likely():
  logits = np.eye(CLASSES)[[3, 7]]
  predicted = ave.predict({'logits': logits, 'event_logits': np.array([[-1.0, 0.1], [0.0, 9.0]])})
  np.testing.assert_array_equal(predicted, [[28, 3], [28, 7]])


def test_a_predicted_background_class_is_not_an_event():
  """The weak localizer has a logit for background."""
  logits = np.zeros((1, CLASSES + 1))
  logits[0, CLASSES], logits[0, 4] = 9, 1
  assert ave.predict({'logits': logits, 'event_logits': np.ones((1, 2))}).tolist() == [[4, 4]]


def test_right_predictions_score_100_and_wrong_ones_0():
  outputs, batch = clips()
  batch = rows(batch, slice(5))
  event = batch['label'].min(1)
  likely = np.where(batch['label'] < CLASSES, 1, -1)
  right = {'logits': np.eye(CLASSES)[event], 'event_logits': likely}
  assert set(reduce(ave.metrics(right, batch), batch['valid']).values()) == {100}
  wrong = {'logits': np.eye(CLASSES)[event - 1], 'event_logits': -likely}
  assert set(reduce(ave.metrics(wrong, batch), batch['valid']).values()) == {0}


def test_accuracy_is_the_share_of_seconds():
  outputs, batch = clips()
  hits = ave.predict(outputs) == batch['label']
  assert 0 < hits.mean() < 1
  found = reduce(ave.metrics(outputs, batch), batch['valid'])
  assert found['accuracy'] == pytest.approx(100 * hits.mean())


@pytest.mark.parametrize('sizes', [(6,), (4, 2), (1, 5), (1,) * 6])
def test_metrics_do_not_depend_on_the_split_into_batches_or_padding(sizes):
  outputs, batch = clips()
  expected = reduce(ave.metrics(outputs, batch), batch['valid'])
  parts, start = [], 0
  for size in sizes:
    at = np.minimum(np.arange(start, start + max(sizes)), 5)  # padded with the last clip
    padded = rows(batch, at) | {'valid': (np.arange(max(sizes)) < size).astype(np.float32)}
    parts.append((ave.metrics(rows(outputs, at), padded), padded['valid']))
    start += size
  mask = np.concatenate([mask for _, mask in parts])
  together = {
    name: tuple(np.concatenate(x) for x in zip(*(found[name] for found, _ in parts)))
    for name in expected
  }
  assert reduce(together, mask) == pytest.approx(expected)


# What is shown.


def told(outputs: dict, names: tuple[str, ...]) -> list[dict]:
  judged = ave.judge(outputs, len(names))
  flat = views.Judged(*(x.reshape(-1) for x in judged))
  return views.timeline(flat, names, tuple(range(len(flat.event))))


def test_confidence_is_that_of_an_event_and_of_its_class():
  outputs = {
    'logits': np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]),
    'event_logits': np.array([[2.0, -1.0], [0.1, 9.0]]),
  }
  found = told(outputs, ('dog', 'bell', 'horse'))
  assert [f['event'] for f in found] == ['dog', None, 'horse', 'horse']
  assert [f['likeliest'] for f in found] == ['dog', 'dog', 'horse', 'horse']
  np.testing.assert_allclose(
    [f['confidence'] for f in found],
    [0.5 * expit(2), 0.5 * expit(-1), 0.8 * expit(0.1), 0.8 * expit(9)],
  )


def test_logits_of_background_are_no_class():
  outputs = {'logits': np.array([[0.0, 1.0, 9.0]]), 'event_logits': np.array([[50.0]])}
  (second,) = told(outputs, ('dog', 'bell'))  # the weakly supervised head has one more
  assert second['event'] == 'bell' and second['confidence'] == pytest.approx(expit(1))


NAMES = ('dog', 'bell', 'horse')


def shown(clip: Clip, logits, event_logits) -> View:
  """Of windows of two seconds."""
  w = len(logits)
  outputs = {
    'logits': np.array(logits),
    'event_logits': np.array(event_logits),
    'visual_map': np.full((w, 2, 16), 1 / 16),
    'audio_map': np.full((w, 2, 16), 1 / 16),
  }
  encoder = models.build(config.get_config('tiny').model)
  judge = functools.partial(ave.judge, classes=len(NAMES))
  return ave.show(clip, outputs, names=NAMES, encoder=encoder, judge=judge)


def film(seconds: int, **fields) -> Clip:
  frames, wave = np.zeros((seconds, 16, 16, 3), np.uint8), np.zeros((seconds, 4000), np.float32)
  return Clip('a.mp4', tuple(range(seconds)), frames, wave, **fields)


def test_a_file_is_told_second_by_second_up_to_its_end():
  view = shown(film(3), [[9.0, 0, 0], [0, 9.0, 0]], [[1.0, -1.0], [2.0, 3.0]])
  timeline = view.record['timeline']
  assert [(s['second'], s['event']) for s in timeline] == [(0, 'dog'), (1, None), (2, 'bell')]
  assert view.record['classes'] == list(NAMES) and 'true' not in timeline[0]
  assert view.lines == view.captions and view.lines[0].startswith('0:00  dog 0.')
  assert view.lines[1].startswith('0:01  – (dog ')
  assert [track.name for track in view.tracks] == [
    'frames', 'looks at', 'sound', 'listens to', 'event', 'predicted'
  ]  # fmt: skip
  assert all(len(track[1]) == 3 for track in view.tracks)
  np.testing.assert_array_equal(view.tracks[-1].labels, [0, 3, 1])
  np.testing.assert_allclose(view.tracks[4].values, expit(np.array([1.0, -1.0, 2.0])))
  assert view.overlay is view.tracks[1] and view.title == 'a.mp4'


def test_what_is_made_up_stands_in_the_title():
  assert shown(film(2, notes=('silence',)), [[1.0, 0, 0]], [[1.0, 1.0]]).title == 'a.mp4 · silence'


def test_of_a_known_clip_the_true_events_stand_beside():
  clip = film(2, known={'label': np.array([0, 3])})
  view = shown(clip, [[9.0, 0, 0]], [[1.0, 1.0]])
  assert [s['true'] for s in view.record['timeline']] == ['dog', None]
  assert view.title == 'a.mp4: 1 of 2 seconds right'
  assert [track.name for track in view.tracks[-2:]] == ['true', 'predicted']
  json.dumps(view.record)


# The model.


def batch_shapes(values, b: int = 1, t: int = 2) -> dict:
  image, rate = values.model.visual.image, values.model.audio.sample_rate
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  return {'video': array(b, t, image, image, 3), 'wave': array(b, t, rate)}


def shapes(task: Task, batch: dict) -> tuple[dict, tree.Tree]:
  """Of the outputs and of the variables."""
  return jax.eval_shape(task.model.init_with_output, jax.random.key(0), batch)


@pytest.fixture(scope='module')
def full() -> tree.Tree:
  """Parameters of the full-size model."""
  values = config.get_config()
  return shapes(registry.build(values), batch_shapes(values, t=1))[1]['params']


def count(params: tree.Tree, *rules: str) -> int:
  return tree.count(tree.split(params, rules)[0])


@pytest.mark.parametrize(
  'rule, released',
  [
    ('encoder/visual/.*', 195_202_932),  # without the 22k-way head
    ('encoder/audio/.*', 31_325_143 - 2_708_735),  # without norm, tagging and head
    ('encoder/exchange_attn_.*/visual/.*', 60_573_432 - 12),  # each less a gate that nothing reads
    ('encoder/exchange_mlp_.*/visual/.*', 60_573_432 - 12),
    ('encoder/exchange_attn_.*/audio/.*', 33_696_000 - 12),
    ('encoder/exchange_mlp_.*/audio/.*', 33_696_000 - 12),
    ('(temporal|localize)/.*', 7_881_687),
  ],
)
def test_the_full_model_has_the_released_number_of_parameters(full, rule, released):
  assert count(full, rule) == released


def test_trainable_and_frozen_are_everything_in_the_released_proportion(full):
  trainable, frozen = tree.split(full, config.get_config().trainable)
  assert tree.count(trainable) == 196_420_503
  assert tree.count(trainable) + tree.count(frozen) == tree.count(full)
  assert tree.flatten(tree.merge(trainable, frozen)).keys() == tree.flatten(full).keys()
  assert set(frozen) == {'encoder'} and set(frozen['encoder']) == {'visual', 'audio'}


def test_adapters_sit_at_twelve_pairs_of_blocks(full):
  found = {name for name in full['encoder'] if name.startswith('exchange')}
  assert found == {f'exchange_{half}_{k}' for half in ('attn', 'mlp') for k in range(12)}
  maps = [full['encoder'][f'exchange_mlp_{k}']['visual']['token_map'] for k in range(12)]
  sizes = [(4096, 2304)] * 2 + [(1024, 576)] * 2 + [(256, 144)] * 6 + [(64, 36)] * 2
  assert [x['kernel'].shape for x in maps] == sizes


@functools.cache
def tiny(variant: str = 'tiny', **changes) -> tuple[Task, dict, tree.Tree]:
  """The task at toy size, and shapes: of outputs for two clips of three seconds, of variables."""
  values = config.get_config(variant)
  values.update_from_flattened_dict({name.replace('__', '.'): x for name, x in changes.items()})
  task = registry.build(values)
  return task, *shapes(task, batch_shapes(values, 2, 3))


MAPS = {'visual_map': (2, 3, 16), 'audio_map': (2, 3, 16)}


@pytest.mark.parametrize(
  'variant, expected',
  [
    ('tiny', {'event_logits': (2, 3), 'logits': (2, 28), 'activation_logits': (2, 28)}),
    ('weak,tiny', {'event_logits': (2, 3), 'logits': (2, 29), 'clip_logits': (2, 29)}),
  ],
)
def test_outputs_have_the_shapes_that_losses_and_metrics_expect(variant, expected):
  task, outputs, _ = tiny(variant)
  assert {name: x.shape for name, x in outputs.items()} == expected | {'gate': (2, 3)} | MAPS
  batch = {'label': np.array([[1, 28, 1], [28, 28, 28]]), 'valid': np.ones(2, np.float32)}
  total, parts = jax.eval_shape(task.loss, outputs, batch)
  assert total.shape == () and all(part.shape == () for part in parts.values())
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), outputs)
  found = task.metrics(zeros, batch)
  assert all(value.shape == weight.shape == (2,) for value, weight in found.values())
  assert task.primary in found and task.released({'accuracy': 4.0, 'x': 5.0}) == {'accuracy': 4.0}


def test_bfloat16_ends_at_the_pooled_tokens_and_changes_no_parameter():
  _, outputs, variables = tiny(model__dtype='bfloat16')
  assert {name for name, x in outputs.items() if x.dtype == jnp.bfloat16} == set(MAPS)
  assert {x.dtype for x in outputs.values()} == {jnp.dtype('float32'), jnp.dtype('bfloat16')}
  same = lambda x, y: x.shape == y.shape and x.dtype == y.dtype
  assert jax.tree.all(jax.tree.map(same, variables, tiny()[2]))


def test_rematerialisation_changes_no_parameter():
  values = config.get_config('tiny')
  values.model.remat = 'blocks'
  drawn = lazy.init(
    registry.build(values).model, jax.random.key(0), batch_shapes(values, 2, 3), train=False
  )
  assert tree.flatten(drawn).keys() == tree.flatten(tiny()[2]).keys()


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'model.head.gate_loss': 'sigmoid'}, "gate_loss is 'sigmoid'; set 'logits' or 'probability'"),
    ({'model.head.classes': 5}, 'classes is 5; the data set ave has 28'),
    ({'task': 'dance'}, "config.task is 'dance'; choose one of .*ave,"),
  ],
)
def test_settings_that_fit_nothing_are_refused(changes, message):
  values = config.get_config('tiny')
  values.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    registry.build(values)
