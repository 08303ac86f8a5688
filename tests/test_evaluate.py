"""A score is of the clips, whatever the batches; released numbers that are not go by other names."""

import json

import jax
import numpy as np
import pytest

from dgsct_jax import evaluate, sharding, train, tree
from dgsct_jax import state as states
from tests import toy


def score(batch, task=None, split='test'):
  config = toy.config(**{'data.batch': batch})
  task, mesh = task or toy.task(), sharding.make_mesh(config.mesh)
  with evaluate.batches(task, split, config) as examples:
    found = states.variables(task.model, next(examples), config, mesh)
  model = found.params, found.batch_stats, found.frozen
  return evaluate.evaluate(evaluate.predictor(task, mesh), model, task, split, config, mesh)


def outputs(clips):
  """The logits of the untrained model, one clip after the other."""
  config = toy.config()
  task, mesh = toy.task(), sharding.make_mesh(config.mesh)
  batch = [toy.DropStrings().map(toy.Clips('test', 13)[i]) for i in range(clips)]
  batch = {name: np.stack([clip[name] for clip in batch]) for name in batch[0]}
  found = states.variables(task.model, batch, config, mesh)
  variables = {'params': tree.merge(found.params, found.frozen), 'batch_stats': found.batch_stats}
  return np.asarray(task.model.apply(variables, batch, False)['logits']), batch['label']


def test_metrics_are_weighted_means_over_clips():
  logits, label = outputs(13)
  found = score(4)
  right = logits.argmax(-1) == label
  np.testing.assert_allclose(found['accuracy'], 100 * right.mean(), rtol=1e-6)
  np.testing.assert_allclose(
    found['margin'], np.average(logits.max(-1), weights=1.0 + label), rtol=1e-5
  )


def test_metrics_do_not_depend_on_batch_size_or_padding():
  scores = [score(batch) for batch in (1, 4, 5, 13, 16)]
  for found in scores[1:]:
    for name in ('accuracy', 'margin'):
      np.testing.assert_allclose(found[name], scores[0][name], rtol=1e-6)


def test_the_mean_of_batch_means_is_there_beside_under_its_own_name():
  logits, label = outputs(13)
  right = 100.0 * (logits.argmax(-1) == label)
  for size in (4, 8):
    means = [right[i : i + size].mean() for i in range(0, 13, size)]
    np.testing.assert_allclose(score(size)['accuracy_batch_mean'], np.mean(means), rtol=1e-6)
  assert 'margin_batch_mean' not in score(4)


def test_a_clip_without_weight_does_not_count_even_if_its_value_is_not_a_number():
  def metrics(outputs, batch):
    asked = batch['label'] == 1
    values = np.where(asked, 3.0, np.nan)
    return {'accuracy': (values, asked), 'none': (values, 0 * asked)}

  found = score(4, toy.task(metrics=metrics))
  assert found['accuracy'] == found['accuracy_batch_mean'] == 3.0 and np.isnan(found['none'])


def test_summaries_are_made_from_the_means():
  found = score(4, toy.task(summarize=lambda means: {'accuracy': means['accuracy'] / 100}))
  plain = score(4)
  assert found == {
    'accuracy': plain['accuracy'] / 100,
    'accuracy_batch_mean': plain['accuracy_batch_mean'],
  }


def test_a_primary_that_is_no_metric_is_named():
  with pytest.raises(ValueError, match="by 'f1', which is none of its metrics accuracy, margin"):
    score(4, toy.task(primary='f1'))


@pytest.mark.parametrize('batch', [1, 4, 13])
def test_eight_clips_are_drawn_whatever_the_batch(tmp_path, batch):
  drawn = []

  def figures(outputs, batch, folder):
    drawn.append((outputs, batch))

  config = toy.config(**{'data.batch': batch})
  task, mesh = toy.task(figures=figures), sharding.make_mesh(config.mesh)
  with evaluate.batches(task, 'test', config) as examples:
    found = states.variables(task.model, next(examples), config, mesh)
  model = found.params, found.batch_stats, found.frozen
  evaluate.draw(evaluate.predictor(task, mesh), model, task, config, tmp_path, mesh)
  ((logits, clips),) = drawn
  assert clips['index'].tolist() == list(range(8))
  np.testing.assert_allclose(logits['logits'], outputs(8)[0], atol=1e-5)


def test_the_evaluation_of_a_run_gives_its_final_metrics_again(tmp_path, capsys):
  config = toy.config(**{'optim.epochs': 2})
  metrics = train.train(config, tmp_path, toy.task())
  before = (tmp_path / 'metrics.json').read_text()
  (tmp_path / 'metrics.json').unlink()
  capsys.readouterr()
  found = evaluate.run(toy.config(**{'optim.lr': 1.0, 'data.batch': 5}), tmp_path, toy.task())
  for name in ('accuracy', 'margin'):
    np.testing.assert_allclose(found[name], metrics[name], rtol=1e-6)
  again = json.loads((tmp_path / 'metrics.json').read_text())
  assert again.keys() == json.loads(before).keys()
  lines = capsys.readouterr().out.splitlines()
  assert ['accuracy', f'{metrics["accuracy"]:.4f}'] in [line.split() for line in lines]
  assert json.loads(next(line for line in lines if line.startswith('{')))['test'] == found


def test_without_a_checkpoint_there_is_nothing_to_evaluate(tmp_path):
  with pytest.raises(ValueError, match='There is no checkpoint in .*train first'):
    evaluate.run(toy.config(), tmp_path, toy.task())


def test_a_checkpoint_over_other_frozen_weights_is_not_evaluated(tmp_path):
  train.train(toy.config(**{'optim.epochs': 1}), tmp_path, toy.task())
  with pytest.raises(
    ValueError, match="weights.visual: 'random, seed 43' in .* 'random, seed 7' now"
  ):
    evaluate.run(toy.config(seed=7), tmp_path, toy.task())


def test_scores_of_hosts_are_added_in_double_precision(monkeypatch):
  pairs = np.array([[[1e9 + 0.25, 3.0]]])
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  twice = lambda bits: np.stack([bits, bits])
  monkeypatch.setattr(evaluate.multihost_utils, 'process_allgather', twice)
  np.testing.assert_array_equal(evaluate._over_hosts(pairs), 2 * pairs)
