"""Recurrent and attention layers against torch's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import lazy, temporal
from tests.models import filled


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def torch() -> Any:
  return pytest.importorskip('torch')


def load(theirs: Any, **arrays: np.ndarray) -> None:
  """Fills all parameters of a torch module; matrices are ours, with inputs first."""
  import torch

  state = {
    name.replace('__', '.'): torch.tensor(np.asarray(x).T.copy()) for name, x in arrays.items()
  }
  theirs.load_state_dict(state, strict=True)


def numpy(x: Any) -> np.ndarray:
  return x.detach().numpy()


def lstm_state(params: dict, suffix: str = '_l0') -> dict[str, np.ndarray]:
  names = dict(kernel_ih='weight_ih', kernel_hh='weight_hh', bias_ih='bias_ih', bias_hh='bias_hh')
  return {f'{theirs}{suffix}': params[ours] for ours, theirs in names.items()}


def test_an_lstm_is_torchs_with_its_last_output_and_cell(torch):
  x = normal(2, 5, 3)
  model = temporal.LSTM(4)
  values = filled.variables(model, x)
  outputs, last, cell = jax.jit(model.apply)(values, x)
  theirs = torch.nn.LSTM(3, 4, batch_first=True)
  load(theirs, **lstm_state(values['params']))
  expected, (their_last, their_cell) = theirs(torch.tensor(x))
  np.testing.assert_allclose(outputs, numpy(expected), atol=1e-5)
  np.testing.assert_allclose(last, numpy(their_last[0]), atol=1e-5)
  np.testing.assert_allclose(cell, numpy(their_cell[0]), atol=1e-5)


def test_a_forget_bias_keeps_the_first_input_through_what_follows():
  waves = np.zeros((2, 14, 3), np.float32)
  waves[0, 0] = 1

  def left(forget_bias: float) -> float:
    model = temporal.LSTM(8, forget_bias=forget_bias)
    (_, _, cell), _ = jax.device_get(jax.jit(model.init_with_output)(jax.random.key(0), waves))
    return float(np.abs(cell[0] - cell[1]).max())

  assert left(4.0) > 10 * left(0.0)


def test_a_reversed_lstm_ends_at_the_first_segment():
  x = normal(2, 5, 3)
  model = temporal.LSTM(4, reverse=True)
  values = filled.variables(model, x)
  outputs, last, cell = jax.device_get(jax.jit(model.apply)(values, x))
  np.testing.assert_array_equal(last, outputs[:, 0])
  forward, *_ = jax.device_get(jax.jit(temporal.LSTM(4).apply)(values, x[:, ::-1]))
  np.testing.assert_allclose(forward[:, ::-1], outputs, atol=1e-6)


def test_a_bidirectional_lstm_is_torchs(torch):
  x = normal(2, 5, 3)
  model = temporal.BiLSTM(4)
  values = filled.variables(model, x)
  theirs = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True)
  p = values['params']
  load(theirs, **lstm_state(p['forward']), **lstm_state(p['backward'], '_l0_reverse'))
  expected, _ = theirs(torch.tensor(x))
  np.testing.assert_allclose(jax.jit(model.apply)(values, x), numpy(expected), atol=1e-5)


def test_an_lstm_starts_uniform_within_one_over_the_root_of_its_width():
  start = jax.device_get(lazy.init(temporal.LSTM(16), jax.random.key(0), normal(1, 2, 64)))
  for values in start['params'].values():
    assert 0.2 < np.abs(values).max() <= 0.25


def attention_state(params: dict, prefix: str = '') -> dict[str, np.ndarray]:
  return {
    f'{prefix}in_proj_weight': params['in_proj']['kernel'],
    f'{prefix}in_proj_bias': params['in_proj']['bias'],
    f'{prefix}out_proj__weight': params['out_proj']['kernel'],
    f'{prefix}out_proj__bias': params['out_proj']['bias'],
  }


def test_attention_to_a_longer_memory_is_torchs(torch):
  query, memory = normal(2, 3, 8), normal(2, 7, 8, seed=1)
  model = temporal.Attention(heads=4)
  values = filled.variables(model, query, memory, train=False)
  theirs = torch.nn.MultiheadAttention(8, 4, batch_first=True)
  load(theirs, **attention_state(values['params']))
  their_memory = torch.tensor(memory)
  expected, _ = theirs(torch.tensor(query), their_memory, their_memory)
  found = jax.jit(functools.partial(model.apply, train=False))(values, query, memory)
  np.testing.assert_allclose(found, numpy(expected), atol=1e-5)


def test_attention_starts_without_biases_in_its_packed_projections():
  x = normal(1, 2, 16)
  start = lazy.init(temporal.Attention(), jax.random.key(0), x, x, train=False)
  params = jax.device_get(start['params'])
  kernel = params['in_proj']['kernel']
  bound = np.sqrt(6 / (16 + 48))  # Xavier's of the packed matrix
  assert kernel.shape == (16, 48) and 0.95 * bound < np.abs(kernel).max() <= bound
  assert not params['in_proj']['bias'].any() and not params['out_proj']['bias'].any()


def test_a_transformer_layer_is_torchs_with_the_norms_after(torch):
  x = normal(2, 5, 8)
  model = temporal.TransformerLayer(hidden=16)
  values = filled.variables(model, x, x, train=False)
  theirs = torch.nn.TransformerEncoderLayer(8, 4, 16, batch_first=True).eval()
  p = values['params']
  norms = {
    f'{n}__{theirs}': p[n][ours]
    for n in ('norm1', 'norm2')
    for theirs, ours in (('weight', 'scale'), ('bias', 'bias'))
  }
  dense = {
    f'{n}__{theirs}': p[n][ours]
    for n in ('linear1', 'linear2')
    for theirs, ours in (('weight', 'kernel'), ('bias', 'bias'))
  }
  load(theirs, **attention_state(p['attn'], 'self_attn__'), **norms, **dense)
  with torch.no_grad():
    expected = theirs(torch.tensor(x))
  found = jax.jit(functools.partial(model.apply, train=False))(values, x, x)
  np.testing.assert_allclose(found, numpy(expected), atol=2e-5)


FEATURES = jax.device_put((normal(2, 4, 12), normal(2, 4, 6, seed=1)))
MODEL = temporal.TemporalAttention(width=8)


@functools.cache
def gates(audio: float = 0.0, visual: float = 0.0) -> tree.Tree:
  """Variables whose gates are shifted: ±100 opens and shuts them."""
  values = filled.variables(MODEL, *FEATURES, train=False)
  values['params']['audio_gate']['bias'] += audio
  values['params']['visual_gate']['bias'] += visual
  return values


@functools.partial(jax.jit, static_argnames='train')
def relate(values: tree.Tree, train: bool = False) -> tuple[jax.Array, ...]:
  return MODEL.apply(values, *FEATURES, train, rngs={'dropout': jax.random.key(0)})


def test_each_stream_is_scaled_by_the_gate_of_the_other():
  v, a, product = jax.device_get(relate(gates()))
  plain_v, plain_a, _ = jax.device_get(relate(gates(-100, -100)))
  assert v.shape == a.shape == (2, 4, 8) and product.shape == (2, 4)
  by_audio, by_visual = (v / plain_v - 1) / 0.1, (a / plain_a - 1) / 0.1
  for gate in (by_audio, by_visual):  # the same for all channels of a segment
    assert 0 < gate.min() and gate.max() < 1 and np.ptp(gate, -1).max() < 1e-3
  np.testing.assert_allclose(by_audio.mean(-1) * by_visual.mean(-1), product, rtol=1e-3)


def test_a_shut_audio_gate_is_felt_by_the_visual_stream_alone():
  v_open, a_open, _ = jax.device_get(relate(gates(audio=100)))
  v_shut, a_shut, product = jax.device_get(relate(gates(audio=-100)))
  np.testing.assert_allclose(v_open, 1.1 * v_shut, rtol=1e-5)
  np.testing.assert_array_equal(a_open, a_shut)
  np.testing.assert_allclose(product, 0, atol=1e-6)


def test_dropout_acts_in_training_only():
  model, x = temporal.TransformerLayer(hidden=16), normal(2, 3, 8)
  values = filled.variables(model, x, x, train=False)

  @functools.partial(jax.jit, static_argnums=2)
  def run(key, x, train):
    return model.apply(values, x, x, train, rngs={'dropout': jax.random.key(key)})

  evaluated, again = (np.asarray(run(key, x, False)) for key in (0, 1))
  trained, other = (np.asarray(run(key, x, True)) for key in (0, 1))
  np.testing.assert_array_equal(evaluated, again)
  assert np.abs(trained - evaluated).max() > 1e-2
  assert np.abs(trained - other).max() > 1e-2


def test_dropout_follows_the_visual_layer_and_acts_four_times_per_transformer_layer():
  def draws(train):
    with jax.disable_jit():  # so that the program is written out
      program = jax.make_jaxpr(lambda: relate(gates(), train=train))()
    return str(program).count('random_unwrap')

  assert draws(False) == 0
  assert draws(True) == 1 + 4 * 6


def test_a_decoder_reads_the_memory_and_its_own_segments():
  """A change of one segment of either reaches all outputs."""
  model = temporal.TemporalDecoder(width=8)
  x, memory = normal(1, 4, 6), normal(1, 4, 8, seed=1)
  values = filled.variables(model, x, memory, train=False)
  apply = jax.jit(functools.partial(model.apply, train=False))
  run = lambda *inputs: np.asarray(apply(values, *inputs))
  own, other = x.copy(), memory.copy()
  own[0, 0] += 1
  other[0, 0] += 1
  before = run(x, memory)
  for after in (run(own, memory), run(x, other)):
    assert (np.abs(after - before).max(-1) > 1e-5).all()


def test_the_released_widths_have_the_released_number_of_parameters():
  attention = 4 * 256 * 256 + 4 * 256
  layer = attention + 256 * 1024 + 1024 + 1024 * 256 + 256 + 4 * 256
  # Of the release nothing reads the templates of its layers nor the decoders' self-attention.
  unread = 4 * layer + 4 * attention
  visual, audio = (jax.ShapeDtypeStruct((1, 10, d), jnp.float32) for d in (1536, 768))
  init = functools.partial(temporal.TemporalAttention().init, train=False)
  count = tree.count(jax.eval_shape(init, jax.random.key(0), visual, audio)['params'])
  assert count == 12_071_554 - unread
