"""Recurrent and attention layers over the segments of a clip, as torch computes them."""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.layers import Dense, LayerNorm, check_divides, fan_in_uniform


class LSTM(nn.Module):
  """One direction of torch's LSTM: gates in the order input, forget, cell, output, and two biases.

  The function uses only the sum of the two biases, but Adam moves each of them as far as it would
  move the sum.

  forget_bias: added to the initial value of the forget gate's first bias. At 0, as in torch, half
    of the cell is forgotten in each step; at 6, 0.2 % (Gers et al. 2000, Jozefowicz et al. 2015).
  """

  features: int
  reverse: bool = False
  forget_bias: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t i']
  ) -> tuple[Float[Array, 'b t h'], Float[Array, 'b h'], Float[Array, 'b h']]:
    """The outputs of all steps, the last output and the last cell; `reverse` starts at the end."""
    init, h = fan_in_uniform(self.features), self.features
    kernel_ih = self.param('kernel_ih', init, (x.shape[-1], 4 * h))
    kernel_hh = self.param('kernel_hh', init, (h, 4 * h))
    remembering = lambda key, shape: init(key, shape).at[h : 2 * h].add(self.forget_bias)
    bias = self.param('bias_ih', init, (4 * h,)) + self.param('bias_hh', remembering, (4 * h,))

    def step(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
      out, cell = carry
      i, f, g, o = jnp.split(gates + out @ kernel_hh, 4, -1)
      cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
      out = nn.sigmoid(o) * jnp.tanh(cell)
      return (out, cell), out

    zeros = jnp.zeros((x.shape[0], h), x.dtype)
    gates = rearrange(x @ kernel_ih + bias, 'b t g -> t b g')
    (out, cell), outputs = jax.lax.scan(step, (zeros, zeros), gates, reverse=self.reverse)
    return rearrange(outputs, 't b h -> b t h'), out, cell


class BiLSTM(nn.Module):
  """Forward and backward LSTM side by side."""

  features: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b t i']) -> Float[Array, 'b t 2*{self.features}']:
    """The outputs of both directions, in the order of the segments."""
    forward, *_ = LSTM(self.features, name='forward')(x)
    backward, *_ = LSTM(self.features, reverse=True, name='backward')(x)
    return jnp.concatenate([forward, backward], -1)


class Attention(nn.Module):
  """Multi-head attention with torch's packed projections.

  kernel_init: of all projections; torch's own if None.
  """

  heads: int = 4
  dropout: float = 0.1
  kernel_init: nn.initializers.Initializer | None = None

  def __call__(
    self, query: Float[Array, 'b t d'], memory: Float[Array, 'b s d'], train: bool
  ) -> Float[Array, 'b t d']:
    """What t queries read of s memories."""
    return self.attend(query, memory, train)[0]

  @nn.compact
  def attend(
    self, query: Float[Array, 'b t d'], memory: Float[Array, 'b s d'], train: bool
  ) -> tuple[Float[Array, 'b t d'], Float[Array, 'b k t s']]:
    """What is read of the memory, and the attention weights before dropout."""
    d = query.shape[-1]
    project = PackedDense(d, self.kernel_init or nn.initializers.xavier_uniform(), name='in_proj')
    q, k, v = project(query, 0), project(memory, 1), project(memory, 2)
    check_divides(q.shape[-1], self.heads, 'heads')
    q, k, v = (rearrange(x, 'b t (k c) -> b k t c', k=self.heads) for x in (q, k, v))
    weights = nn.softmax(jnp.einsum('bkqc,bknc->bkqn', q / math.sqrt(d // self.heads), k))
    kept = Dropout(self.dropout)(weights, train)
    x = rearrange(jnp.einsum('bkqn,bknc->bkqc', kept, v), 'b k t c -> b t (k c)')
    init = self.kernel_init or fan_in_uniform(d)
    return nn.Dense(d, kernel_init=init, name='out_proj')(x), weights


class PackedDense(nn.Module):
  """Query, key and value projections in the columns of one matrix."""

  features: int
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: Float[Array, 'b t d'], part: int) -> Float[Array, 'b t d']:
    """Projects by part 0, the query's, 1, the key's, or 2, the value's."""
    d = self.features
    kernel = self.param('kernel', self.kernel_init, (d, 3 * d))
    bias = self.param('bias', nn.initializers.zeros, (3 * d,))
    columns = slice(part * d, (part + 1) * d)
    return x @ kernel[:, columns] + bias[columns]


class TransformerLayer(nn.Module):
  """Attention to a memory and an MLP, each normalised after its residual, with ReLU."""

  hidden: int = 1024
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t d'], memory: Float[Array, 'b s d'], train: bool
  ) -> Float[Array, 'b t d']:
    """The segments x after attending to the memory."""
    drop = Dropout(self.dropout)
    attended = Attention(dropout=self.dropout, name='attn')(x, memory, train)
    x = LayerNorm(name='norm1')(x + drop(attended, train))
    hidden = drop(nn.relu(Dense(self.hidden, name='linear1')(x)), train)
    return LayerNorm(name='norm2')(x + drop(Dense(x.shape[-1], name='linear2')(hidden), train))


class TemporalEncoder(nn.Module):
  """Self-attention over the segments of one stream (released `InternalTemporalRelationModule`)."""

  width: int = 256
  depth: int = 2

  @nn.compact
  def __call__(self, x: Float[Array, 'b t i'], train: bool) -> Float[Array, 'b t d']:
    """Maps segments to `width` channels and relates them to each other."""
    x = Dense(self.width, name='affine')(x)
    for i in range(self.depth):
      x = TransformerLayer(name=f'layers_{i}')(x, x, train)
    return x


class TemporalDecoder(nn.Module):
  """One stream's segments attend to the other's and to their own.

  (Released `CrossModalRelationAttModule`.)
  """

  width: int = 256

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t i'], memory: Float[Array, 'b t d'], train: bool
  ) -> Float[Array, 'b t d']:
    """Maps the segments x to `width` channels; `memory` holds the other stream's."""
    query = Dense(self.width, name='affine')(x)
    return TransformerLayer(name='layer')(query, jnp.concatenate([memory, query], 1), train)


class TemporalAttention(nn.Module):
  """Relates the segments of both streams and gates each stream by the other.

  (Released `TemporalAttention`; γ·G + 1 in the paper.)
  """

  gamma: float = 0.1
  width: int = 256
  dropout: float = 0.2

  def setup(self) -> None:
    """Makes the layers of both streams."""
    half = self.width // 2
    self.visual_fc, self.audio_fc = Dense(2 * self.width), Dense(half)
    self.visual_rnn, self.audio_rnn = BiLSTM(self.width), BiLSTM(half)
    self.visual_encoder = TemporalEncoder(self.width)
    self.audio_encoder = TemporalEncoder(self.width)
    self.visual_decoder = TemporalDecoder(self.width)
    self.audio_decoder = TemporalDecoder(self.width)
    self.visual_gate, self.audio_gate = Dense(1), Dense(1)
    self.drop = Dropout(self.dropout)

  def __call__(
    self, visual: Float[Array, 'b t d'], audio: Float[Array, 'b t e'], train: bool
  ) -> tuple[Float[Array, 'b t f'], Float[Array, 'b t f'], Float[Array, 'b t']]:
    """The visual and audio features, and the product of the two gates."""
    visual = self.drop(nn.relu(self.visual_fc(visual)), train)
    visual, audio = self.visual_rnn(visual), self.audio_rnn(self.audio_fc(audio))
    visual_memory = self.visual_encoder(visual, train)
    audio_memory = self.audio_encoder(audio, train)
    visual = self.visual_decoder(visual, audio_memory, train)
    audio = self.audio_decoder(audio, visual_memory, train)
    visual_gate = nn.sigmoid(self.visual_gate(visual_memory))
    audio_gate = nn.sigmoid(self.audio_gate(audio_memory))
    visual, audio = visual * (1 + self.gamma * audio_gate), audio * (1 + self.gamma * visual_gate)
    return visual, audio, (visual_gate * audio_gate)[..., 0]
