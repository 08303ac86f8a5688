"""The fault of torch 2.13 that the golden gradients carry, and the gradients without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import dgsct, table
from dgsct_jax.models.adapters import DGSCTAdapter
from tests.parity import golden
from tests.parity.torch_fault import misread

torch = pytest.importorskip('torch')


def test_torch_takes_a_transposed_gradient_for_another():
  rng = np.random.default_rng(0)
  x, grad = (rng.standard_normal((3, 16, 32)).astype(np.float32) for _ in range(2))  # [b n d]
  norm = torch.nn.BatchNorm2d(32).eval()
  norm.weight.data.uniform_(0.5, 1.5)
  theirs = torch.tensor(x.swapaxes(1, 2)[..., None].copy(), requires_grad=True)
  norm(theirs).backward(torch.tensor(grad).permute(0, 2, 1)[..., None])
  theirs = theirs.grad.numpy()[..., 0].swapaxes(1, 2)

  scale = norm.weight.detach().numpy() / np.sqrt(np.float32(1 + 1e-5))
  right = grad * scale
  if np.allclose(theirs, right, atol=1e-6):
    pytest.skip(f'torch {torch.__version__} reads the gradient as it is')

  @jax.jit
  def backward(x, grad):
    return jax.vjp(lambda x: misread(x * scale), x)[1](grad)

  np.testing.assert_allclose(theirs, misread_by_hand(grad) * scale, atol=1e-6)
  np.testing.assert_allclose(theirs, backward(x, grad)[0], atol=1e-6)


def misread_by_hand(grad):
  wrong = np.empty_like(grad)
  for row, memory in zip(wrong, grad):
    row[:] = memory.ravel().reshape(grad.shape[2], grad.shape[1]).T
  return wrong


@pytest.mark.parametrize('train', [False, True])
def test_adapter_gradients_are_those_of_the_formulas_in_float64(train):
  b, n, d, m, e = 3, 16, 32, 36, 24
  rng = np.random.default_rng(1)
  shapes = (b, n, d), (b, m, e), (b, n, d), (b, 1, n)
  x, y, cotangent, map_cotangent = (rng.standard_normal(shape) for shape in shapes)
  model = DGSCTAdapter(tokens=5)
  shapes = table.targets(model, x, y, train=train)
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  state = golden.weights(
    {name: x.shape for name, x in table.export(empty, dgsct.ADAPTER).items()}, seed=3
  )
  variables = tree.unflatten(table.convert(state, dgsct.ADAPTER, shapes))

  def scalar(params, x, y):
    (out, pooling), _ = model.apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      x,
      y,
      train,
      mutable=['batch_stats'],
    )
    return jnp.sum(out * cotangent) + jnp.sum(pooling * map_cotangent)

  with jax.default_matmul_precision('highest'):
    grads, *inputs = jax.device_get(
      jax.jit(jax.grad(scalar, (0, 1, 2)))(variables['params'], np.float32(x), np.float32(y))
    )
  got = table.export(tree.flatten({'params': grads}), dgsct.ADAPTER) | dict(zip('xy', inputs))

  w = {
    name: torch.tensor(value, dtype=torch.float64, requires_grad='running' not in name)
    for name, value in (state | {'x': np.float32(x), 'y': np.float32(y)}).items()
  }
  out, pooling = formulas(w, train)
  (
    torch.sum(out * torch.tensor(cotangent)) + torch.sum(pooling * torch.tensor(map_cotangent))
  ).backward()
  for name, ours in got.items():
    want = w[name].grad.numpy()
    if (
      train and name == 'ln_before.bias'
    ):  # zero in exact arithmetic: batch norm takes a constant away
      assert golden.rms(ours) < 1e-5
      continue
    # Single against double precision; the gate's gradient is one sum over all values.
    assert golden.rms(ours - want) <= 3e-5 * golden.rms(want), name


def formulas(w, train):
  """specs/core_ave_avqa.md, 3.3, in explicit arithmetic."""
  linear = lambda name, x: x @ w[name + '.weight'].T + w[name + '.bias']

  def layer_norm(name, x):
    x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    return x * w[name + '.weight'] + w[name + '.bias']

  def batch_norm(name, x):
    mean = x.mean((0, 1)) if train else w[name + '.running_mean']
    var = x.var((0, 1), unbiased=False) if train else w[name + '.running_var']
    return (x - mean) / torch.sqrt(var + 1e-5) * w[name + '.weight'] + w[name + '.bias']

  def grouped(name, x, groups=2):
    parts = zip(x.chunk(groups, -1), w[name + '.weight'][:, :, 0, 0].chunk(groups))
    return torch.cat([part @ weight.T for part, weight in parts], -1)

  x, y = w['x'], w['y']
  c = linear('fc', w['conv_adapter.weight'][:, :, 0, 0] @ y + w['conv_adapter.bias'][:, None])
  tokens = w['my_tokens'] + torch.softmax(w['my_tokens'] @ c.mT, -1) @ c
  z = x + w['gate_av'] * (torch.softmax(x @ tokens.mT, -1) @ tokens)
  g = c.mean(1, keepdim=True)
  q = (
    torch.relu(linear('fc_affine_audio_1', g)) * torch.relu(linear('fc_affine_video_1', z))
  ).mean(1, keepdim=True)
  channel = torch.sigmoid(
    linear('fc_affine_v_c_att', torch.relu(linear('fc_affine_bottleneck', q)))
  )
  own = torch.relu(linear('fc_affine_video_2', z * (1 + channel)))
  s = linear('fc_affine_v_s_att', own * torch.relu(linear('fc_affine_audio_2', g)))
  h = layer_norm('ln_before', z * (0.3 * channel + 0.05 * torch.sigmoid(s) + 0.7))
  h = torch.relu(batch_norm('bn1', grouped('down_sampler', h)))
  h = layer_norm('ln_post', batch_norm('bn2', grouped('up_sampler', h)))
  return w['gate'] * h, torch.softmax(torch.tanh(s), 1).mT
