"""Matching pictures and sounds with words.

CLIP and CLAP with an exchange, for classes known by name alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Int

from dgsct_jax.models.adapters import NoExchange
from dgsct_jax.models.clap import CLAP, PADDING
from dgsct_jax.models.clip import CLIP
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.layers import Dense, unit
from dgsct_jax.models.maple import DeepPrompts

Outputs = dict[str, Float[Array, '...']]
Rows = tuple[tuple[int, ...], ...]
Merge = Literal['sum', 'released', 'fixed', 'visual', 'audio']


class Classes(NamedTuple):
  """The classes as the text towers read them: constants of a model.

  clip: ids of prompts such as 'a photo of a dog.'; learned words replace those before the name.
  lengths: of each name in `clip`, in tokens. clap: ids such as 'The sounds of dog'.
  """

  clip: Rows
  lengths: tuple[int, ...]
  clap: Rows


class Prompts(nn.Module):
  """Learned words around the names of classes, the same for all (CoOp, Zhou et al.

  2022; released `PromptLearner`).

  words: how many. name_at: the name follows them, stands in their midst, or before them.
  start: 'random' values take the place of the prompt's own words, whatever they are, as released;
    'words' learns what is added to these, from nothing.
  follows: a picture moves all words by what a bottleneck makes of its feature (CoCoOp, Zhou et al.
    2022, arXiv 2203.05557).
  """

  words: int = 4
  name_at: Literal['end', 'middle', 'front'] = 'end'
  start: Literal['random', 'words'] = 'random'
  follows: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'c l d'], lengths: Sequence[int], seen: Float[Array, '*n e'] | None = None
  ) -> Float[Array, '*n c l d']:
    """Prompts from embedded ones: a start token, `words` places, the name, the rest.

    seen: features of pictures, if the prompts follow them; each picture has prompts of its own.
    """
    d, fresh = x.shape[-1], self.start == 'random'
    init = nn.initializers.normal(0.02) if fresh else nn.initializers.zeros
    context = self.param('context', init, (self.words, d)).astype(x.dtype)
    if seen is not None:
      hidden = nn.relu(Dense(max(1, seen.shape[-1] // 16), name='down')(seen))
      context = context + Dense(d, name='up')(hidden)[..., None, None, :]
      x = jnp.broadcast_to(x, (*seen.shape[:-1], *x.shape))
    places = x.at[..., 1 : 1 + self.words, :]
    x = places.set(context) if fresh else places.add(context)
    if self.name_at == 'end':
      return x
    order = np.stack([self.order(length, x.shape[-2]) for length in lengths])
    return jnp.take_along_axis(x, np.broadcast_to(order[..., None], (*x.shape[:-1], 1)), -2)

  @nn.nowrap
  def order(self, name: int, length: int) -> Int[np.ndarray, 'l']:
    """Where the tokens of a prompt with a name of so many come from."""
    words, rest = np.arange(1, 1 + self.words), np.arange(1 + self.words + name, length)
    names = np.arange(1 + self.words, 1 + self.words + name)
    before = {'middle': self.words // 2, 'front': 0}[self.name_at]
    return np.concatenate([[0], words[:before], names, words[before:], rest])


class FeatureAdapter(nn.Module):
  """Blends a feature with what a bottleneck makes of it (CLIP-Adapter, Gao et al. 2021)."""

  share: float = 0.2
  reduction: int = 4

  @nn.compact
  def __call__(self, x: Float[Array, '... e']) -> Float[Array, '... e']:
    """The feature, and what the adapter adds."""
    e = x.shape[-1]
    hidden = nn.relu(Dense(e // self.reduction, use_bias=False, name='down')(x))
    made = nn.relu(Dense(e, use_bias=False, name='up')(hidden))
    return self.share * made + (1 - self.share) * x


def merge(visual: Float[Array, '*n'], audio: Float[Array, '*n'], how: str) -> Float[Array, '*n']:
  """One score per class from those of both streams.

  sum: 2v + 2a, of the few-shot release. released: v·v/(v+a) + a·a/(v+a), of its pre-training and
  zero-shot evaluation; it has a pole where v = −a, and while a < 0.41 v a better match of the sound
  *lowers* it. fixed: the mean, which lies between both and never falls where one of them rises.
  visual, audio: those of one stream alone.
  """
  match how:
    case 'visual':
      return visual
    case 'audio':
      return audio
    case 'sum':
      return 2 * visual + 2 * audio
    case 'released':
      return (jnp.square(visual) + jnp.square(audio)) / (visual + audio)
    case 'fixed':
      return (visual + audio) / 2
  known = ', '.join(get_args(Merge))
  raise ValueError(f'Scores cannot be merged by {how!r}; choose one of {known}.')


class Matching(nn.Module):
  """CLIP and CLAP that hear and see each other; every second is compared with the names of classes.

  Takes `video` [b t h w 3] and `wave` [b t s]. Returns `logits` [b t c]; those of the streams
  alone, `visual_logits` and `audio_logits` [b t c]; `contrast` [b b], scaled cosines of each clip's
  sound (rows) with each clip's pictures, if `contrastive`; and the attention of the last exchange,
  `visual_map` [b t n] and `audio_map` [b t m].

  prompts: makes the learned prompts; None leaves them as they are written.
  deep: learned tokens in both towers of CLIP; the same instance as `clip.visual.prompts`.
  share: of the adapters of CLIP's features; 0: there are none.
  merge: see there. exp_audio_scale: CLAP's factor of cosines is the exponential of what it stores,
    as CLAP was trained; else, as released, what it stores, so that a sound counts some 20 times
    less than a picture.
  side, scan_layers: see `DualEncoder`.
  """

  # The first field, so that its parameters lie below `deep`, not below the tower that has it, too.
  deep: DeepPrompts | None
  clip: CLIP
  clap: CLAP
  classes: Classes
  exchange: Callable[[], nn.Module] = NoExchange
  prompts: Callable[[], nn.Module] | None = Prompts
  share: float = 0.2
  merge: Merge = 'sum'
  exp_audio_scale: bool = False
  contrastive: bool = True
  side: Callable[[], nn.Module] | None = None
  scan_layers: bool = False

  def setup(self):
    """Makes the parts."""
    self.encoder = DualEncoder(
      self.clip.visual,
      self.clap.audio,
      self.exchange,
      read='between',
      scan_layers=self.scan_layers,
      side=self.side,
    )
    if self.prompts:
      self.prompt = self.prompts()
    if self.share:
      self.visual_adapter = FeatureAdapter(self.share)
      self.text_adapter = FeatureAdapter(self.share)
    if self.contrastive:
      self.contrast = Dense(self.clip.visual.features)

  def __call__(self, batch: dict[str, Any], train: bool = False) -> Outputs:
    """The outputs for clips, in training with dropout; `text` is what `read` gave, or nothing."""
    clip = self.perceive(batch['video'], batch['wave'], train)
    return self.compare(clip, batch.get('text') or self.read(train))

  def perceive(
    self, video: Float[Array, 'b t h w 3'], wave: Float[Array, 'b t s'], train: bool = False
  ) -> Outputs:
    """Features `visual` and `audio` [b t e], not of unit length, and the maps."""
    t = video.shape[1]
    encoded = self.encoder(
      rearrange(video, 'b t h w c -> (b t) h w c'), rearrange(wave, 'b t s -> (b t) s'), train
    )
    visual, audio = self.clip.visual.project(encoded.visual), self.clap.project(encoded.audio)
    unfold = lambda x: rearrange(x, '(b t) ... -> b t ...', t=t)
    return {
      'visual': unfold(visual).astype(jnp.float32),
      'audio': unfold(audio).astype(jnp.float32),
      'visual_map': unfold(encoded.visual_map[:, 0]),
      'audio_map': unfold(encoded.audio_map[:, 0]),
    }

  def read(self, train: bool = False) -> Outputs:
    """Features of the classes, `visual` and `audio` [c e], not of unit length.

    They depend on no clip. Without `visual` if the prompts follow the pictures.
    """
    ids = np.asarray(self.classes.clap)
    audio = self.clap.read(jnp.asarray(ids[:, : (ids != PADDING).sum(1).max()]), train)
    text = {'audio': audio.astype(jnp.float32)}
    return text if self.prompts and self.prompt.follows else text | {'visual': self.prompted()}

  def prompted(self, seen: Float[Array, '*n e'] | None = None) -> Float[Array, '*n c e']:
    """Features of the classes that CLIP has, for each picture `seen` if the prompts follow it."""
    ids = np.asarray(self.classes.clip)
    end = ids.argmax(1)
    x = self.clip.text.embed(jnp.asarray(ids[:, : end.max() + 1]))
    if self.prompts:
      x = self.prompt(x, self.classes.lengths, seen)
    *n, c, length, d = x.shape
    found = self.clip.text.encode(x.reshape(-1, length, d), np.tile(end, math.prod(n)), self.deep)
    return found.reshape(*n, c, -1).astype(jnp.float32)

  def compare(self, clip: Outputs, text: Outputs) -> Outputs:
    """The outputs, from what `perceive` and `read` give."""
    seen = clip['visual']
    read = text['visual'] if 'visual' in text else self.prompted(unit(seen))
    if self.share:
      seen, read = self.visual_adapter(seen), self.text_adapter(read)
    scale = jnp.exp(self.clip.logit_scale)
    # As released: what CLAP stores is a logarithm, and it is taken as it is.
    audio_scale = self.clap.logit_scale_a
    if self.exp_audio_scale:
      audio_scale = jnp.exp(audio_scale)
    visual = scale * jnp.einsum('...e,...ce->...c', unit(seen), unit(read))
    audio = audio_scale * unit(clip['audio']) @ unit(text['audio']).T
    outputs = {
      'logits': merge(visual, audio, self.merge),
      'visual_logits': visual,
      'audio_logits': audio,
      'visual_map': clip['visual_map'],
      'audio_map': clip['audio_map'],
    }
    if self.contrastive:
      heard = unit(self.contrast(clip['audio']).mean(1))
      # As released: the factor was taken when the model was made and never learns.
      scale = jax.lax.stop_gradient(scale)
      outputs['contrast'] = scale * heard @ unit(clip['visual'].mean(1)).T
    return outputs
