"""Audio-visual question answering: a word in answer to a question about a clip."""

from typing import Any

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from jaxtyping import Array, Float, Int

from dgsct_jax.models.drop import Dropout
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.layers import Dense, LayerNorm, unit
from dgsct_jax.models.temporal import LSTM, Attention

Outputs = dict[str, Float[Array, '...']]


class Matching(nn.Module):
  """Locates the source of a sound in pictures, and judges whether they match the sound.

  Each second has p pictures: its own first, then perhaps one of another clip. (Released `fc_a1` to
  `fc4`.)
  """

  hidden: tuple[int, ...] = (512, 256, 128)

  @nn.compact
  def __call__(self, audio: Float[Array, 'b t e'], pictures: Float[Array, 'b p t n d']) -> Outputs:
    """The features of the sound, `heard` [b t d], and of the pictures, `seen` [b p t d].

    Also the spatial attention `looks` [b p t n], and `match_logits` [b p t 2], whose class 1 is a
    match.
    """
    d = pictures.shape[-1]
    heard = Dense(d, name='audio_fc_1')(nn.relu(Dense(d, name='audio_fc_0')(audio)))
    tokens = unit(pictures)
    looks = nn.softmax(jnp.einsum('bptnd,btd->bptn', tokens, unit(heard)))
    grounded = jnp.einsum('bptn,bptnd->bptd', looks, tokens)  # As released: of unit tokens.
    both = jnp.concatenate([pictures.mean(-2), grounded], -1)
    seen = Dense(d, name='visual_fc')(jnp.tanh(both))
    x = jnp.concatenate([repeat(heard, 'b t d -> b p t d', p=pictures.shape[1]), seen], -1)
    for i, width in enumerate(self.hidden):
      x = nn.relu(Dense(width, name=f'match_{i}')(x))
    match = Dense(2, name=f'match_{len(self.hidden)}')(x)
    return {'heard': heard, 'seen': seen, 'looks': looks, 'match_logits': match}


class QuestionEncoder(nn.Module):
  """Encodes a question by an LSTM over all its words, including the padding.

  forget_bias: as in `LSTM`; by default the LSTM has forgotten most of the early words by the end of
    the padding.
  """

  words: int = 93
  forget_bias: float = 0.0

  @nn.compact
  def __call__(self, question: Int[Array, 'b q l'], width: int) -> Float[Array, 'b q d']:
    """Features of `width` channels from the l indices of words of each question."""
    embed = nn.Embed(self.words, width, embedding_init=nn.initializers.normal(1.0), name='words')
    read = jnp.tanh(embed(rearrange(question, 'b q l -> (b q) l')))
    _, out, cell = LSTM(width, forget_bias=self.forget_bias, name='lstm')(read)
    x = Dense(width, name='out')(jnp.tanh(jnp.concatenate([out, cell], -1)))
    return rearrange(x, '(b q) d -> b q d', b=len(question))


class Recall(nn.Module):
  """Questions attend to the seconds of one stream."""

  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, question: Float[Array, 'b q d'], memory: Float[Array, 'b t d'], train: bool
  ) -> tuple[Float[Array, 'b q d'], Float[Array, 'b q t']]:
    """What each question reads of the memory, and its attention over the seconds."""
    drop = Dropout(self.dropout)
    # As released: there is no residual from the question.
    x, weights = Attention(dropout=self.dropout, name='attn').attend(question, memory, train)
    hidden = drop(nn.relu(Dense(x.shape[-1], name='linear1')(x)), train)
    x = LayerNorm(name='norm')(x + drop(Dense(x.shape[-1], name='linear2')(hidden), train))
    return x, weights.mean(1)


class Answerer(nn.Module):
  """Logits of the answers, from questions and the features of both streams in each second."""

  answers: int = 42
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self,
    question: Float[Array, 'b q d'],
    heard: Float[Array, 'b t d'],
    seen: Float[Array, 'b t d'],
    train: bool,
  ) -> Outputs:
    """Returns `logits` [b q c] and the attention over the seconds.

    The latter are `audio_seconds` and `visual_seconds`, both [b q t].
    """
    audio, audio_seconds = Recall(self.dropout, name='audio')(question, heard, train)
    visual, visual_seconds = Recall(self.dropout, name='visual')(question, seen, train)
    both = jnp.concatenate(
      [audio + heard.mean(1, keepdims=True), visual + seen.mean(1, keepdims=True)], -1
    )
    fused = Dense(question.shape[-1], name='fusion')(jnp.tanh(both))
    logits = Dense(self.answers, name='answer')(jnp.tanh(fused * question))
    return {'logits': logits, 'audio_seconds': audio_seconds, 'visual_seconds': visual_seconds}


class AVQA(nn.Module):
  """Dual encoder, matching, question encoder and answerer.

  Takes `video` [b t h w 3], `wave` [b t s], q questions about each clip, `question` [b q l], and in
  training `negative`, frames of other clips, of the shape of `video`. Returns the outputs of the
  parts without `heard` and `seen`: `looks` [b t n] is the attention over the clip's own frames,
  `audio_map` [b t m] that over its sound.

  width: of the linear layer that pictures go through first (LAVISH); 0: there is none.
  adapt_negatives: send the frames of other clips through the adapters too, with the sound that does
    not belong to them. Otherwise, as released, only the clip's own frames go through the adapters,
    by which the matching can tell them apart.
  """

  encoder: DualEncoder
  matching: Matching
  ask: QuestionEncoder
  answer: Answerer
  adapt_negatives: bool = False
  width: int = 0

  def setup(self):
    """Makes the layer of the pictures."""
    self.project = Dense(self.width) if self.width else lambda x: x

  def __call__(self, batch: dict[str, Any], train: bool = False) -> Outputs:
    """The outputs of a batch."""
    negative = batch['negative'] if train else None
    clip = self.perceive(batch['video'], batch['wave'], negative, train)
    return self.reply(clip, batch['question'], train) | {
      name: clip[name] for name in ('looks', 'audio_map', 'match_logits')
    }

  def perceive(
    self,
    video: Float[Array, 'b t h w 3'],
    wave: Float[Array, 'b t s'],
    negative: Float[Array, 'b t h w 3'] | None = None,
    train: bool = False,
  ) -> Outputs:
    """The outputs that do not depend on the question."""
    adapted = [video] if negative is None or not self.adapt_negatives else [video, negative]
    p, t = len(adapted), video.shape[1]
    encoded = self.encoder(
      rearrange(adapted, 'p b t h w c -> (b p t) h w c'),
      repeat(wave, 'b t s -> (b p t) s', p=p),
      train,
    )
    unfold = lambda x: rearrange(x, '(b p t) n d -> b p t n d', p=p, t=t)
    pictures, audio = unfold(encoded.visual), unfold(encoded.audio_map @ encoded.audio)
    if negative is not None and not self.adapt_negatives:
      other = self.encoder.visual(rearrange(negative, 'b t h w c -> (b t) h w c'), train)
      other = rearrange(other, '(b t) n d -> b 1 t n d', t=t)
      pictures = jnp.concatenate([pictures, other], 1)
    # As released: a sound is pooled by the attention of the last adapter, a picture is not.
    pictures = self.project(pictures.astype(jnp.float32))
    matched = self.matching(audio[:, 0, :, 0].astype(jnp.float32), pictures)
    own = {
      'seen': matched['seen'][:, 0],
      'looks': matched['looks'][:, 0],
      'audio_map': unfold(encoded.audio_map)[:, 0, :, 0],
    }
    return matched | own

  def reply(self, clip: Outputs, question: Int[Array, 'b q l'], train: bool = False) -> Outputs:
    """The answers to questions about clips, of which `clip` has the outputs of `perceive`."""
    question = self.ask(question, clip['seen'].shape[-1])
    return self.answer(question, clip['heard'], clip['seen'], train)


class Grounding(nn.Module):
  """The pre-stage of AVQA: encoders without adapters and the matching, on single seconds.

  Takes `video` [b 2 h w 3], a frame of the sound's second and one of another clip, and `wave`
  [b 1 s]; returns `match_logits` [b 2 1 2] and `looks` [b 2 1 n].
  """

  encoder: DualEncoder
  matching: Matching

  def __call__(self, batch: dict[str, Any], train: bool = False) -> Outputs:
    """The outputs of a batch."""
    video = rearrange(batch['video'], 'b p h w c -> (b p) h w c')
    pictures = rearrange(self.encoder.visual(video, train), '(b p) n d -> b p 1 n d', p=2)
    audio = self.encoder.audio
    sound = audio.body(audio.stem(batch['wave'][:, 0], train), train).mean(1)
    matched = self.matching(sound[:, None].astype(jnp.float32), pictures.astype(jnp.float32))
    return {name: matched[name] for name in ('match_logits', 'looks')}
