"""Audio-visual video parsing: what is heard, what is seen, and in which seconds."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.drop import DropPath
from dgsct_jax.models.dual import DualEncoder, pool_segments
from dgsct_jax.models.layers import Dense, LayerNorm, gelu
from dgsct_jax.models.temporal import Attention, BiLSTM, TemporalEncoder

Outputs = dict[str, Float[Array, '...']]
Assign = Literal['soft', 'hard']

# As released: these layers are drawn otherwise than torch draws them; biases are 0.
INIT = nn.initializers.normal(0.02)
Linear = functools.partial(nn.Dense, kernel_init=INIT)


class Mlp(nn.Module):
  """Linear, exact GELU, linear; `layers.Mlp` with the initial values of this head."""

  hidden: int

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    """New features."""
    return Linear(x.shape[-1], name='fc2')(gelu(Linear(self.hidden, name='fc1')(x)))


class Block(nn.Module):
  """Self-attention and an MLP, each of normalised tokens and added to them."""

  heads: int = 8
  drop_path: float = 0.1

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d'], train: bool) -> Float[Array, 'b n d']:
    """New tokens."""
    drop = DropPath(self.drop_path)
    y = LayerNorm(name='norm1')(x)
    x = x + drop(Attention(self.heads, 0.0, INIT, name='attn')(y, y, train), train)
    y = LayerNorm(name='norm2')(x)
    return x + drop(Mlp(4 * x.shape[-1], name='mlp')(y), train)


class Groups(NamedTuple):
  """What groups have gathered of the seconds."""

  features: Float[Array, 'b g d']
  logits: Float[Array, 'b g t']  # of each second's choice of a group
  weights: Float[Array, 'b g t']  # the choice: shares of 1 over the groups


class Grouping(nn.Module):
  """Groups look at the seconds, each second chooses among the groups, groups gather their seconds.

  (Released `GroupingBlock`.) assign: a second belongs to all groups in shares, 'soft', or to one,
  'hard': in training by a draw (Gumbel), else to the likeliest, with the gradient of 'soft'.
  """

  assign: Assign
  heads: int = 8

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t d'], groups: Float[Array, 'b g d'], train: bool
  ) -> Groups:
    """What the groups gather, and which second chooses which."""
    d = x.shape[-1]
    groups, x = LayerNorm(name='norm_groups')(groups), LayerNorm(name='norm_x')(x)
    mixed = Mlp(d // 2, name='mix')(rearrange(groups, 'b g d -> b d g'))
    p = LayerNorm(name='norm_mixed')(rearrange(mixed, 'b d g -> b g d'))
    p = p + Attention(self.heads, 0.0, INIT, name='attn')(p, x, train)
    p = p + Mlp(4 * d, name='mlp')(LayerNorm(name='norm2')(p))
    p = LayerNorm(name='norm_post')(p)
    query, key = Linear(d, name='query')(p), Linear(d, name='key')(x)
    logits = jnp.einsum('bgd,btd->bgt', query, key) / math.sqrt(d)
    weights = self.choose(logits, train)
    share = weights / (weights.sum(-1, keepdims=True) + 1)
    gathered = jnp.einsum('bgt,btd->bgd', share, Linear(d, name='value')(x))
    p = p + Linear(d, name='out')(gathered)
    p = p + Mlp(4 * d, name='mlp_out')(LayerNorm(name='norm_out')(p))
    return Groups(p, logits, weights)

  def choose(self, logits: Float[Array, 'b g t'], train: bool) -> Float[Array, 'b g t']:
    """The groups of each second."""
    if self.assign == 'soft':
      return nn.softmax(logits, axis=1)
    if train:
      logits = logits + jax.random.gumbel(self.make_rng('dropout'), logits.shape, logits.dtype)
    soft = nn.softmax(logits, axis=1)
    hard = jax.nn.one_hot(soft.argmax(1), logits.shape[1], axis=1, dtype=soft.dtype)
    return hard + (soft - jax.lax.stop_gradient(soft))


class ClassGroups(nn.Module):
  """Class tokens and seconds attend to each other, then the classes gather their seconds.

  (Released `ModalityTrans`.) other_assign: the assignment by which seconds of the other stream
  first gather those of this one; 'none': they do not.
  """

  depth: int
  assign: Assign = 'soft'
  other_assign: Assign | Literal['none'] = 'none'
  heads: int = 8
  drop_path: float = 0.1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b t d'],
    tokens: Float[Array, 'b c d'],
    other: Float[Array, 'b t d'] | None,
    train: bool,
  ) -> tuple[Groups, Float[Array, 'b t d']]:
    """The classes, and the seconds before they were gathered."""
    t, x = x.shape[1], jnp.concatenate([x, tokens], 1)
    for i in range(self.depth):
      x = Block(self.heads, self.drop_path, name=f'blocks_{i}')(x, train)
    seconds, tokens = x[:, :t], x[:, t:]
    x = seconds
    if other is not None and self.other_assign != 'none':
      # As released: what is read below as second i of this stream is what the i-th second of the
      # other one has gathered, after an MLP has mixed those seconds over time.
      x = Grouping(self.other_assign, self.heads, name='other')(x, other, train).features
    return Grouping(self.assign, self.heads, name='grouping')(x, tokens, train), seconds


class TemporalGate(nn.Module):
  """Weighs the seconds of one stream by what is going on in the other, x·(1 + γ·gate).

  Half of the released `TemporalAttention`: the gated sound is thrown away there, so nothing that
  leads to it is here.
  """

  gamma: float = 0.05
  width: int = 64

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t d'], guide: Float[Array, 'b t e'], train: bool
  ) -> Float[Array, 'b t d']:
    """The seconds, weighed by those of the other stream."""
    read = BiLSTM(self.width, name='rnn')(guide)
    memory = TemporalEncoder(self.width, name='encoder')(read, train)
    return x * (1 + self.gamma * nn.sigmoid(Dense(1, name='gate')(memory)))


class Parser(nn.Module):
  """Class logits of a clip and probabilities of its seconds, of what is heard and what is seen.

  (Released `MGN`.) From the pooled features of both streams and, unless `motion` is 'none', R(2+1)D
  features of the seconds; c classes.

  Returns for the clip `logits`, `audio_logits` and `visual_logits` [b c]; for the seconds
  `audio_probability` and `visual_probability` [b t c], and their choice of a class,
  `audio_attention` and `visual_attention` [b t c]; `audio_token_logits` and `visual_token_logits`
  [b c c], of what each class token stands for, the same for all clips.

  *_depth: blocks of attention in each stream, and over both streams' classes.
  assign, joint_assign, other_assign: see `Grouping`: of seconds to classes; of classes heard to
    classes seen; of seconds heard to seconds seen. As released the last is hard where `assign` is
    soft, and soft where it is hard.
  seconds: how a second gets its probability. 'released': the clip's times a factor, which in soft
    assignment is 1 + a softmax over time of a softmax over classes: from 1.04 to 1.23 where a clip
    has ten seconds, so it hardly changes with time and may exceed 1. 'own': by a linear layer of
    its own, which learns from the clip's label through attention over time (as in Tian et al.
    2020); then there are `*_second_logits` [b t c], and `*_pooled` [b c], the clip's probability
    by them.
  """

  classes: int = 25
  width: int = 128
  audio_depth: int = 3
  visual_depth: int = 3
  joint_depth: int = 6
  heads: int = 8
  drop_path: float = 0.1
  gamma: float = 0.05
  gate_width: int = 64
  assign: Assign = 'soft'
  joint_assign: Assign = 'soft'
  other_assign: Assign = 'hard'
  seconds: Literal['released', 'own'] = 'released'
  motion: Literal['r2plus1d_18', 'none'] = 'r2plus1d_18'

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'b t d'],
    audio: Float[Array, 'b t e'],
    motion: Float[Array, 'b t 512'] | None,
    train: bool,
  ) -> Outputs:
    """Probabilities of the clip and of each second."""
    audio = Linear(self.width, name='audio_fc')(audio)
    visual = Linear(self.width, name='visual_fc')(visual)
    visual = TemporalGate(self.gamma, self.gate_width, name='temporal')(visual, audio, train)
    if self.motion != 'none':
      moving = Linear(self.width, name='motion_fc')(motion)
      visual = Linear(self.width, name='fusion')(jnp.concatenate([visual, moving], -1))
    # As released: all tokens start at zero, and the loss of what they stand for sets them apart.
    token = lambda name: self.param(name, nn.initializers.zeros, (self.classes, self.width))
    tokens = {'audio': token('audio_tokens'), 'visual': token('visual_tokens')}
    every = {name: repeat(x, 'c d -> b c d', b=len(audio)) for name, x in tokens.items()}
    groups = functools.partial(ClassGroups, heads=self.heads, drop_path=self.drop_path)
    seen, visual_seconds = groups(self.visual_depth, self.assign, name='visual_groups')(
      visual, every['visual'], None, train
    )
    heard, audio_seconds = groups(
      self.audio_depth, self.assign, self.other_assign, name='audio_groups'
    )(audio, every['audio'], visual, train)
    both, _ = groups(self.joint_depth, self.joint_assign, name='joint_groups')(
      heard.features, seen.features, None, train
    )
    found = {'logits': Linear(1, name='joint_class')(both.features)[..., 0]}
    name_of = Linear(self.classes, name='token_class')  # one for the tokens of both streams
    for stream, classes, x in (('audio', heard, audio_seconds), ('visual', seen, visual_seconds)):
      logits = Linear(1, name=f'{stream}_class')(classes.features)[..., 0]
      found[f'{stream}_logits'] = logits
      found[f'{stream}_token_logits'] = name_of(every[stream])
      found[f'{stream}_attention'] = rearrange(classes.weights, 'b c t -> b t c')
      if self.seconds == 'own':
        own = Linear(self.classes, name=f'{stream}_seconds')(x)
        found |= own_seconds(stream, own, classes.logits)
      else:
        probability = nn.sigmoid(logits)[..., None] * second_factor(classes, self.assign)
        found[f'{stream}_probability'] = rearrange(probability, 'b c t -> b t c')
    return found


def second_factor(groups: Groups, assign: Assign) -> Float[Array, 'b c t']:
  """By what the probability of a clip is multiplied for each of its seconds."""
  if assign == 'hard':
    return groups.weights
  # As released: a softmax of a softmax; and nothing keeps the product below 1.
  return 1 + nn.softmax(nn.softmax(groups.logits, axis=1), axis=-1)


def own_seconds(
  stream: str, logits: Float[Array, 'b t c'], attention: Float[Array, 'b c t']
) -> Outputs:
  """The probabilities of seconds, and that of the clip by attention over them."""
  probability = nn.sigmoid(logits)
  share = nn.softmax(rearrange(attention, 'b c t -> b t c'), axis=1)
  return {
    f'{stream}_second_logits': logits,
    f'{stream}_probability': probability,
    f'{stream}_pooled': (share * probability).sum(1),
  }


class AVVP(nn.Module):
  """Dual encoder and parser.

  Takes `video` [b t h w 3], `wave` [b t s] and, unless the parser's `motion` is 'none', `motion`
  [b t 512]; returns the parser's outputs, `visual_map` [b t n] and `audio_map` [b t m].
  """

  encoder: DualEncoder
  parse: Parser

  def __call__(self, batch: dict[str, Any], train: bool = False) -> Outputs:
    """The outputs of the parser, and where the encoder looks and listens."""
    visual, audio, maps = pool_segments(self.encoder, batch, train)
    return self.parse(visual, audio, self.motion_of(batch), train) | maps

  def motion_of(self, batch: dict[str, Any]) -> Float[Array, 'b t 512'] | None:
    """The motion features of a batch, or None where the model takes none."""
    if self.parse.motion == 'none':
      return None
    if 'motion' not in batch:
      raise ValueError(
        "The model has motion='r2plus1d_18', and the batch has no 'motion' [b t 512]; add R(2+1)D"
        " features to the data (docs/avvp.md) or set config.model.head.motion='none'."
      )
    return batch['motion']
