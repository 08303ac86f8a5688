"""The adapter of LAVISH (Lin et al., CVPR 2023)."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models import guides
from dgsct_jax.models.adapters import Delta, PoolingMap, squeeze
from dgsct_jax.models.layers import LayerNorm


class LavishAdapter(nn.Module):
  """Latent tokens carry one stream's tokens to the other's (released `VisualAdapter`).

  It is the DG-SCT adapter without its gates, and parameters of one name do the same in both. Where
  the streams differ in width (LAVISH*, two backbones) the other's tokens are mapped first. It has
  no spatial attention: the pooling map is uniform. The fields span every released variant:

  reduction, groups: of the bottleneck. tokens, token_init: latent tokens; from zeros they stay
  equal for ever (AVQA, AVS). token_gate: a learned scale of what the latents read, from 1 (MA-AVT).
  batch_norm: in the bottleneck. gate: a learned scale of the result that starts at 0; without one
  there is a residual from the first step on. gate_before_norm: scale first, then normalise, so that
  the scale is without effect (AVS). norm_before (not AVS), norm_post: around the bottleneck.
  cross_modal: else a stream is adapted without the other. relu: in the bottleneck; the adapters of
  AVE and MA-AVT have none where they are not cross-modal.
  """

  reduction: int = 8
  groups: int = 2
  tokens: int = 2
  token_init: Literal['uniform', 'zeros'] = 'uniform'
  token_gate: bool = False
  batch_norm: bool = True
  gate: bool = True
  gate_before_norm: bool = False
  norm_before: bool = True
  norm_post: bool = True
  cross_modal: bool = True
  relu: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], y: Float[Array, 'b m e'], train: bool
  ) -> tuple[Delta, PoolingMap]:
    """What this stream gains from the other; a uniform map, since there is none."""
    b, n, d = x.shape
    uniform = jnp.full((b, 1, n), 1 / n, self.dtype)
    if self.cross_modal:
      x = self.attend_latents(x, self.bring(y, n, d))
    return self.bottleneck(x, train), uniform

  def bring(self, y: Float[Array, 'b m e'], n: int, d: int) -> guides.Guide:
    """The other stream at this stream's width."""
    _, m, e = y.shape
    guide: guides.Guide = guides.Tokens(y.astype(self.dtype))
    if e == d:
      return guide
    guide = guides.MappedTokens(guide, *guides.Map(m, n, self.dtype, name='token_map')())
    return guides.MappedChannels(guide, *guides.Map(e, d, self.dtype, name='channel_map')())

  def attend_latents(self, x: Float[Array, 'b n d'], guide: guides.Guide) -> Float[Array, 'b n d']:
    """Latent tokens read the guide, the stream reads them."""
    init = nn.initializers.zeros if self.token_init == 'zeros' else nn.initializers.uniform(1.0)
    latents = self.param('tokens', init, (self.tokens, x.shape[-1])).astype(self.dtype)
    gate = self.param('tokens_gate', nn.initializers.zeros, (1,)).astype(self.dtype)
    read = guides.attend(latents, guide)
    if self.token_gate:
      read *= self.param('read_gate', nn.initializers.ones, (1,)).astype(self.dtype)
    return x + gate * guides.attend(x, guides.Tokens(latents + read))

  def bottleneck(self, x: Float[Array, 'b n d'], train: bool) -> Delta:
    """Fewer channels and back, norms and gate."""
    if self.norm_before:
      x = LayerNorm(dtype=self.dtype, name='norm_before')(x)
    x = squeeze(self, nn.relu if self.relu else lambda x: x, x, train)
    gate = self.param('gate', nn.initializers.zeros, (1,)).astype(self.dtype) if self.gate else 1
    if self.gate_before_norm:
      x, gate = gate * x, 1
    if self.norm_post:
      x = LayerNorm(dtype=self.dtype, name='norm_post')(x)
    return gate * x
