"""A score is of the clips, whatever the batches; released numbers that are not have other names."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from dgsct_jax import evaluate, sharding, train, trained, tree
from dgsct_jax import state as states
from tests import processes, toy


def untrained(batch=8, task=None, **changes):
  """The model with its initial values."""
  config = toy.config(**{'data.batch': batch} | changes)
  task, mesh = task or toy.task(), sharding.make_mesh(config.mesh)
  variables = states.fill(states.layout(task.model, task.inputs.spec, config, mesh))
  forward = trained.compile_forward(task, mesh)
  return trained.Trained(config, task, mesh, 0, {}, variables, forward)


def score(batch, task=None, split='test'):
  model = untrained(batch, task)
  return evaluate.evaluate(model, model.task, split, model.config)


def outputs(clips):
  """The logits of the untrained model, one clip after the other."""
  model = untrained()
  batch = [toy.DropStrings().map(toy.Clips('test', 13)[i]) for i in range(clips)]
  batch = {name: np.stack([clip[name] for clip in batch]) for name in batch[0]}
  params, batch_stats, frozen = model.variables
  variables = {'params': tree.merge(params, frozen), 'batch_stats': batch_stats}
  found = model.task.model.apply(variables, batch, False)
  return np.asarray(found['logits']), batch['label']


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
    model = untrained(**{'eval_batch': size})
    found = evaluate.evaluate(model, model.task, 'test', model.config)
    np.testing.assert_allclose(found['accuracy_batch_mean'], np.mean(means), rtol=1e-6)
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


def curves(outputs, batch):
  """A curve for each clip, whose mean has its maximum where no clip has its own."""
  label = batch['label'].astype(float)
  values = np.stack([label == 0, label == 1, label == 2, np.full(len(label), 0.5)], 1)
  return {'curve': (values, 1.0 + label)}


@pytest.mark.parametrize('batch', [1, 5, 13])
def test_a_metric_may_be_a_curve_whose_mean_is_summarised_over_the_split(batch):
  task = toy.task(
    metrics=curves,
    summarize=lambda means: {'best': float(means['curve'].max())},
    released=lambda means: {'best': float(means['curve'].max())},
    primary='best',
  )
  label = np.arange(13) % 3
  weight = 1.0 + label
  found = score(batch, task)
  shares = [weight[label == i].sum() / weight.sum() for i in range(3)]
  assert found['best'] == pytest.approx(max(0.5, *shares))
  parts = [slice(i, i + batch) for i in range(0, 13, batch)]
  best = [
    max(0.5, *(weight[p][label[p] == i].sum() / weight[p].sum() for i in range(3))) for p in parts
  ]
  assert found['best_batch_mean'] == pytest.approx(np.mean(best))


@pytest.mark.parametrize('batch', [1, 4, 13])
def test_every_clip_is_recorded_and_eight_are_drawn_whatever_the_batch(tmp_path, batch):
  model = untrained(batch)
  evaluate.finish(model, tmp_path)
  rows = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
  assert [row['index'] for row in rows] == list(range(13))
  np.testing.assert_allclose([row['logits'] for row in rows], outputs(13)[0], atol=1e-5)
  drawn = sorted(path.name for path in (tmp_path / 'figures').glob('clip_*.png'))
  assert drawn == [f'clip_{i}.png' for i in range(8)]
  with Image.open(tmp_path / 'figures/clip_0.png') as drawn:
    assert drawn.size[0] > 300


def test_clips_that_have_names_are_recorded_by_them(tmp_path):
  class Named(toy.Clips):
    ids = [f'clip{i}' for i in range(13)]

  plain = toy.task()
  data = lambda split: plain.data(split)._replace(source=Named(split, 13))
  evaluate.finish(untrained(5, toy.task(data=data)), tmp_path)
  rows = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
  assert [row['id'] for row in rows] == Named.ids


def test_a_task_that_shows_nothing_is_scored_all_the_same(tmp_path):
  metrics = evaluate.finish(untrained(4, toy.task(show=None)), tmp_path)
  assert metrics == pytest.approx(score(4))
  assert not (tmp_path / 'predictions.jsonl').exists() and (tmp_path / 'metrics.json').exists()


def test_the_evaluation_of_a_run_gives_its_final_metrics_again(tmp_path, capsys):
  config = toy.config(**{'optim.epochs': 2})
  metrics = train.train(config, tmp_path, toy.task())
  before = (tmp_path / 'metrics.json').read_text()
  (tmp_path / 'metrics.json').unlink()
  capsys.readouterr()
  found = evaluate.run(toy.config(**{'optim.lr': 1.0, 'eval_batch': 5}), tmp_path, toy.task())
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
  sums = [
    {'accuracy': (np.asarray(1e9 + 0.25), 3.0), 'curve': (np.arange(3.0), 2.0)} for _ in range(2)
  ]
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  twice = lambda bits: np.stack([bits, bits])
  monkeypatch.setattr(evaluate.multihost_utils, 'process_allgather', twice)
  found = evaluate._over_hosts(sums)
  jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(lambda x: 2 * x, sums))


def test_records_of_hosts_are_put_in_the_order_of_the_data(monkeypatch):
  mine = [{'index': i, 'text': 'ü' * i} for i in (0, 1, 4, 5)]
  others = json.dumps([{'index': i, 'text': 'more'} for i in (2, 3, 6)]).encode()

  def gather(x):  # first the lengths, then the padded texts
    longest = max(len(json.dumps(mine).encode()), len(others))
    if not x.ndim:
      return np.array([x, len(others)])
    assert len(x) == longest
    return np.stack([x, np.frombuffer(others.ljust(longest, b'\0'), np.uint8)])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(evaluate.multihost_utils, 'process_allgather', gather)
  found = evaluate._of_all_hosts(mine)
  assert [record['index'] for record in found] == list(range(7)) and found[4] == mine[2]


def test_two_processes_compose_clips_once_and_write_one_file_of_predictions(tmp_path):
  changes = {'data.dir': str(tmp_path / 'data'), 'data.clips.test': 5, 'mesh': (1, -1)}
  run = tmp_path / 'run'
  both = processes.train('tests.tiny:lavish', run, hosts=2, **changes)
  assert [process.returncode for process in both] == [0, 0], both[1].stderr[-3000:]
  said = ''.join(process.stderr for process in both)
  for split, count in {'train': 6, 'val': 2, 'test': 5}.items():
    assert said.count(f'{split}: clips 1-{count} of {count}: ') == 1
  assert not list((tmp_path / 'data').rglob('*incomplete*'))
  lines = (run / 'predictions.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [(row['index'], row['id']) for row in rows] == [(i, f'test_{i:06d}') for i in range(5)]
  assert not list(run.glob('predictions_*'))
  seconds = [second for row in rows for second in row['timeline']]
  right = [second['event'] == second['true'] for second in seconds]
  found = json.loads((run / 'metrics.json').read_text())['test']
  assert len(right) == 5 * 3 and found['accuracy'] == pytest.approx(100 * np.mean(right))
  drawn = sorted(path.name for path in (run / 'figures').glob('clip_*.png'))
  assert len(drawn) == 3  # of the first process, which has clips 0, 1 and 4
