"""Encoders of one stream, trained to name all objects in a picture, or all sounds."""

import numpy as np
import pytest

from configs import avqa, unimodal
from dgsct_jax import train
from dgsct_jax.scenes import unimodal as unimodal_task

TINY = avqa.get_config('tiny')


@pytest.mark.parametrize('stream', ['visual', 'audio'])
def test_a_tiny_run_ends_with_an_accuracy(stream, tmp_path):
  config = unimodal.get_config(f'{stream},shapes')
  config.model.visual, config.model.audio = TINY.model.visual, TINY.model.audio
  config.data.dir = str(tmp_path / 'data')
  config.data.batch = 4
  config.data.knobs.update(size=32, sample_rate=1000)
  config.data.clips = {'train': 8, 'val': 4, 'test': 4}
  config.optim.epochs = config.eval_epochs = 1
  assert 0 <= train.train(config, tmp_path / 'run')['accuracy'] <= 100


def test_of_k_classes_those_among_the_k_likeliest_are_right():
  logits = np.array([[[3.0, 2, 1, 0], [0, 1, 2, 3]], [[1, 2, 3, 0], [0, 0, 0, 0]]])
  there = np.array([[[1, 0, 1, 0], [0, 0, 0, 1]], [[1, 0, 0, 0], [0, 0, 0, 0]]], bool)
  value, weight = unimodal_task.metrics({'logits': logits}, {'seen': there}, 'seen')['accuracy']
  np.testing.assert_allclose(value, [100 * 2 / 3, 0])
  assert weight.tolist() == [3, 1]


def test_unknown_variants_are_refused():
  with pytest.raises(ValueError, match='no variant .*; choose from visual,shapes,single'):
    unimodal.get_config('audio,shapes,single')
  with pytest.raises(ValueError, match=r"unknown words \['boxes'\]"):
    unimodal.get_config('visual,boxes')
