"""Adapters: small trainable modules that turn one stream into a residual for the other."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

from dgsct_jax.models import guides, pure
from dgsct_jax.models.layers import BatchNorm, Dense, LayerNorm, check_divides, fan_in_uniform
from dgsct_jax.models.products import matmul
from dgsct_jax.models.remat import POLICIES, Remat

Delta = Float[Array, 'b n d']
PoolingMap = Float[Array, 'b 1 n']
Exchanged = tuple[tuple[Delta, Float[Array, 'b m e']], tuple[PoolingMap, Float[Array, 'b 1 m']]]


class GroupedDense(nn.Module):
  """A linear layer over `groups` independent blocks of channels: a grouped 1×1 convolution.

  It has no bias.
  """

  features: int
  groups: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    """Maps the last axis from `i` channels to `features`, less what the groups leave over."""
    check_divides(x.shape[-1], self.groups, 'groups')
    if self.features < self.groups:
      raise ValueError(f'{self.features} channels are fewer than {self.groups} groups.')
    per_group = x.shape[-1] // self.groups
    kernel = self.param(
      'kernel', fan_in_uniform(per_group), (self.groups, per_group, self.features // self.groups)
    )
    # One product with zeros between the blocks: a product for each needs its channels apart, and
    # laying them so takes longer than the zeros do.
    return matmul(x.astype(self.dtype), block_diag(*kernel.astype(self.dtype)))


class DGSCTAdapter(nn.Module):
  """Dual-guided spatial-channel-temporal adapter (DG-SCT, section 3.2; released `VisualAdapter`).

  Own tokens x are guided by the other stream's tokens y. The fields span every released variant:

  alpha, beta, gamma: weights of the channel, spatial and temporal gates; at `gamma` 0 there is no
    temporal gate.
  reduction, groups: of the bottleneck. batch_norm: whether it has batch normalisation.
  tokens, token_init: number and initial values of the latent tokens; latent tokens that start from
    zeros stay equal to each other throughout training.
  gate: a learned scale of the residual, 0 at first. gate_before_norm: scale before the last
    normalisation, which cancels the scale (AVS). norm_before: normalise before the bottleneck.
  token_map: how the m tokens of y become n: by a learned `linear` map, or by a bicubic `resize` of
    their square grid. Not of the release is `keep`, to leave the m as they are, since nothing here
    needs n of them: latent tokens attend to them, and their mean guides the gates.
  gate_reduction: the layers within both gates have so many times fewer channels than released.
  formula: `released` α·Mc + β·Ms + γ·G + 1 − α, or `paper` (α·Mc + β·Ms + 1)(γ·G + 1).
  """

  alpha: float = 0.3
  beta: float = 0.05
  gamma: float = 0.0
  reduction: int = 8
  groups: int = 2
  tokens: int = 32
  token_init: Literal['uniform', 'zeros'] = 'uniform'
  batch_norm: bool = True
  gate: bool = True
  gate_before_norm: bool = False
  norm_before: bool = True
  token_map: Literal['linear', 'resize', 'keep'] = 'linear'
  gate_reduction: int = 1
  formula: Literal['released', 'paper'] = 'released'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], y: Float[Array, 'b m e'], train: bool
  ) -> tuple[Delta, PoolingMap]:
    """The residual for x, and the spatial weights that pool its tokens."""
    x, guide = self.attend_latents(x, self.bring(y, *x.shape[1:]))
    channel = self.channel_gate(x, guide)
    spatial_logits = self.spatial_logits(x * (1 + channel), guide)
    x = x * self.modulation(channel, nn.sigmoid(spatial_logits), guide).astype(self.dtype)
    pooling = nn.softmax(jnp.tanh(spatial_logits.astype(jnp.float32)), axis=1)
    return self.bottleneck(x, train), rearrange(pooling, 'b n 1 -> b 1 n').astype(self.dtype)

  def bring(self, y: Float[Array, 'b m e'], n: int, d: int) -> guides.Guide:
    """The other stream at this stream's width, with its n tokens unless its own `keep`."""
    _, m, e = y.shape
    guide: guides.Guide = guides.Tokens(y.astype(self.dtype))
    if self.token_map == 'linear':
      guide = guides.MappedTokens(guide, *guides.Map(m, n, self.dtype, name='token_map')())
    if self.token_map == 'resize':
      guide = guides.resized(guide, m, n)
    return guides.MappedChannels(guide, *guides.Map(e, d, self.dtype, name='channel_map')())

  def attend_latents(
    self, x: Float[Array, 'b n d'], guide: guides.Guide
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'b d']]:
    """Latent tokens attend to the guide, and the stream to the latent tokens; the guide's mean."""
    init = nn.initializers.zeros if self.token_init == 'zeros' else nn.initializers.uniform(1.0)
    latents = self.param('tokens', init, (self.tokens, x.shape[-1])).astype(self.dtype)
    gate = self.param('tokens_gate', nn.initializers.zeros, (1,)).astype(self.dtype)
    read, mean = guides.attend_and_mean(latents, guide)
    return x + gate * guides.attend(x, guides.Tokens(latents + read)), mean

  def channel_gate(
    self, x: Float[Array, 'b n d'], guide: Float[Array, 'b d']
  ) -> Float[Array, 'b 1 d']:
    """The channel gate Mc, in 0..1, from the pooled tokens of both streams."""
    d = x.shape[-1]
    width = self.gate_width(d)
    dense = functools.partial(Dense, dtype=self.dtype)
    own = nn.relu(dense(width, name='channel_own')(x)).mean(1)
    query = own * nn.relu(dense(width, name='channel_guide')(guide))
    query = nn.relu(dense(width // 2, name='channel_bottleneck')(query))
    return nn.sigmoid(dense(d, name='channel_out')(query))[:, None]

  def spatial_logits(
    self, x: Float[Array, 'b n d'], guide: Float[Array, 'b d']
  ) -> Float[Array, 'b n 1']:
    """The spatial gate Ms of each token, before its sigmoid."""
    half = self.gate_width(x.shape[-1]) // 2
    dense = functools.partial(Dense, dtype=self.dtype)
    own = nn.relu(dense(half, name='spatial_own')(x))
    query = own * nn.relu(dense(half, name='spatial_guide')(guide))[:, None]
    return dense(1, name='spatial_out')(query)

  @nn.nowrap
  def gate_width(self, d: int) -> int:
    """Channels within the gates of a stream of width d. Raises ValueError for fewer than two."""
    if d < 2 * self.gate_reduction:
      raise ValueError(
        f'gate_reduction={self.gate_reduction} leaves fewer than two of {d} channels; choose less.'
      )
    return d // self.gate_reduction

  def modulation(
    self, channel: Float[Array, 'b 1 d'], spatial: Float[Array, 'b n 1'], guide: Float[Array, 'b d']
  ) -> Float[Array, 'b n d']:
    """The factor of every token and channel: the gates combined by `formula`."""
    total = self.alpha * channel + self.beta * spatial
    temporal: float | Float[Array, 'b 1 1'] = 0.0
    if self.gamma:
      gate = Dense(1, dtype=self.dtype, name='temporal_gate')(guide)
      temporal = self.gamma * nn.sigmoid(gate)[:, None]
    if self.formula == 'paper':
      return (total + 1) * (temporal + 1)
    return total + temporal + 1 - self.alpha

  def bottleneck(self, x: Float[Array, 'b n d'], train: bool) -> Delta:
    """Down-projection to d / `reduction` channels, ReLU, up-projection, norms and gate."""
    if self.norm_before:
      x = LayerNorm(dtype=self.dtype, name='norm_before')(x)
    x = squeeze(self, nn.relu, x, train)
    norm = LayerNorm(dtype=self.dtype, name='norm_post')
    if not self.gate:
      return norm(x)
    gate = self.param('gate', nn.initializers.zeros, (1,)).astype(self.dtype)
    return norm(gate * x) if self.gate_before_norm else gate * norm(x)


def squeeze(
  adapter: nn.Module, activation: Callable[[Array], Array], x: Float[Array, 'b n d'], train: bool
) -> Float[Array, 'b n d']:
  """Down to fewer channels and up again, by layers of the adapter that calls this.

  The adapter has `reduction`, `groups`, `batch_norm` and `dtype`.
  """
  d = x.shape[-1]
  if d < adapter.reduction:
    raise ValueError(f'reduction={adapter.reduction} leaves none of {d} channels; choose less.')
  x = GroupedDense(d // adapter.reduction, adapter.groups, adapter.dtype, name='down')(x)
  if adapter.batch_norm:
    x = BatchNorm(dtype=adapter.dtype, name='bn_down')(x, train)
  x = GroupedDense(d, adapter.groups, adapter.dtype, name='up')(activation(x))
  return BatchNorm(dtype=adapter.dtype, name='bn_up')(x, train) if adapter.batch_norm else x


class Exchange(nn.Module):
  """Two adapters of one kind, one for each stream, guided by the other stream.

  `audio_adapter` differs from `adapter` where the release has no gate on the audio side (AVQA,
  AVS). `remat`: what the backward pass computes again instead of keeping it.
  """

  adapter: Callable[[], nn.Module]
  audio_adapter: Callable[[], nn.Module] | None = None
  remat: Remat = None

  def setup(self) -> None:
    """Makes both adapters."""
    self.visual = self.adapter()
    self.audio = (self.audio_adapter or self.adapter)()

  def __call__(self, v: Float[Array, 'b n d'], a: Float[Array, 'b m e'], train: bool) -> Exchanged:
    """The residuals for both streams, and the pooling maps of both."""
    if not self.remat or self.is_initializing():
      return self.both(v, a, train)

    def run(variables: Any, v: Array, a: Array) -> tuple[Exchanged, dict[str, Any]]:
      alone = pure.bind(self, variables)
      return alone.both(v, a, train), pure.changed(alone)

    again = jax.checkpoint(run, policy=POLICIES[self.remat])
    exchanged, changes = gradients_at_once(again)(self.variables, v, a)
    pure.store(self, changes)
    return exchanged

  def both(self, v: Float[Array, 'b n d'], a: Float[Array, 'b m e'], train: bool) -> Exchanged:
    """As `__call__`, without rematerialisation."""
    dv, v_map = self.visual(v, a, train)
    da, a_map = self.audio(a, v, train)
    return (dv, da), (v_map, a_map)


def gradients_at_once(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, with a barrier behind its backward pass.

  XLA then computes all gradients of an exchange before those of the one below. Without the barrier
  it computes the gradients of scales and biases at the end of the step, and keeps the activations
  that they need until then.
  """
  wrapped = jax.custom_vjp(function)
  wrapped.defvjp(
    lambda *inputs: jax.vjp(function, *inputs),
    lambda pull, cotangent: jax.lax.optimization_barrier(pull(cotangent)),
  )
  return wrapped


class NoExchange(nn.Module):
  """No exchange between the streams."""

  def __call__(self, v: Float[Array, 'b n d'], a: Float[Array, 'b m e'], train: bool) -> Exchanged:
    """Zero residuals and uniform pooling maps."""
    return (jnp.zeros_like(v), jnp.zeros_like(a)), (uniform(v), uniform(a))


def uniform(x: Float[Array, 'b n d']) -> Float[Array, 'b 1 n']:
  """Pooling weights that make the mean of the tokens."""
  return jnp.full((x.shape[0], 1, x.shape[1]), 1 / x.shape[1], x.dtype)
