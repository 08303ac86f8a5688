"""MA-AVT (Mahmud et al., 2024): prompts that align two streams in one frozen ViT."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.adapters import NoExchange
from dgsct_jax.models.layers import Dense, fan_in_uniform, unit
from dgsct_jax.models.vit import SelfAttention, ViT, stretch

CONTRASTS = ('none', 'final', 'blocks', 'blocks_shared')
COMPARED = ('shared', 'class', 'patches', 'attention', 'nearest')
LSA_HEADS = 8
PROJECTIONS = ('visual_proj', 'audio_proj')


class PairClassifier(nn.Module):
  """Class logits of a pair of vectors, and what each of the two contributes.

  swapped: as released, the contributions, which gradient modulation compares, are read with the
    weights of the other stream.
  """

  classes: int
  swapped: bool = False

  @nn.compact
  def __call__(
    self, visual: Float[Array, 'b d'], audio: Float[Array, 'b d']
  ) -> tuple[Float[Array, 'b c'], Float[Array, 'b 2 c']]:
    """Logits of both streams together, and of each."""
    d = visual.shape[-1]
    init = fan_in_uniform(2 * d)
    kernel = self.param('kernel', init, (2 * d, self.classes))
    bias = self.param('bias', init, (self.classes,))
    logits = jnp.concatenate([visual, audio], -1) @ kernel + bias
    own, other = (kernel[d:], kernel[:d]) if self.swapped else (kernel[:d], kernel[d:])
    return logits, jnp.stack([visual @ own, audio @ other], 1) + bias / 2


class MAAVT(nn.Module):
  """A frame and a picture of sound go through one ViT, with learned prompts (released `MA_AVT`).

  The tokens of either are a class token, patches, a background token, prompts of its own and
  prompts that both share. The streams meet in the classifiers and in the contrast of the shared
  prompts, and in `exchange` where there is one. Segments do not meet.

  Takes `video` [b t h w 3] and `wave` [b t s]; returns
    `logits` [b t c] and `unimodal_logits` [b t 2 c], see `PairClassifier`,
    `background_logits` [b t],
    `visual_features` and `audio_features` [b t k p]: what the contrast compares after k blocks, of
      unit length; with compared='nearest' all patches, `visual_features` [b t k n p],
    `visual_map` and `audio_map` [b t 1+n]: how the class token attends to patches in the last
      block, with 0 to itself, for `ViT.place`.

  listen: front end, [b s] -> pictures [b h w]. prompts, shared_prompts: how many.
  lsa: attention among the prompts of a kind before they go in; see `fold`.
  background: a token and a classifier for pairs that do not belong together.
  contrast: 'blocks' has two projections per block, 'blocks_shared' the same two for all, 'final'
    the last block alone, 'none' no features.
  compared: 'shared', the mean of the shared prompts; or, as in the released ablations, 'class', the
    class token, 'patches', their mean, 'attention', their mean by the class token's attention,
    'nearest', of the sound the class token, of the frame the patch that is most like it.
  positions: 'exact' leaves patches theirs and gives the background token none. 'flat', as released,
    stretches the table over the row of tokens, background token included, so that each patch has a
    blend of its own position and of the one before.
  """

  vit: ViT
  listen: Callable[[Array], Array]
  classes: int
  prompts: int = 5
  shared_prompts: int = 5
  lsa: bool = True
  background: bool = True
  contrast: str = 'blocks'
  compared: str = 'shared'
  features: int = 512
  positions: str = 'exact'
  swapped: bool = False
  exchange: Callable[[], nn.Module] = NoExchange

  def setup(self):
    """Makes the parts."""
    if self.contrast not in CONTRASTS or self.positions not in ('exact', 'flat'):
      raise ValueError(
        f'contrast is {self.contrast!r}, positions is {self.positions!r}; set one of'
        f" {', '.join(CONTRASTS)}, and 'exact' or 'flat'."
      )
    if self.compared not in COMPARED:
      raise ValueError(f'compared is {self.compared!r}; set one of {", ".join(COMPARED)}.')
    if not self.shared_prompts and self.contrast != 'none' and self.compared == 'shared':
      raise ValueError(
        f"contrast={self.contrast!r} compares shared prompts, and shared_prompts is 0; set 'none',"
        ' or another compared.'
      )
    d, depth = self.vit.width, sum(self.vit.depths)
    tokens = lambda name, count: self.param(name, nn.initializers.normal(1.0), (count, d))
    self.visual_tokens = tokens('visual_tokens', self.prompts)
    self.audio_tokens = tokens('audio_tokens', self.prompts)
    self.shared_tokens = tokens('shared_tokens', self.shared_prompts)
    if self.lsa:
      attention = lambda: SelfAttention(d, LSA_HEADS, self.vit.dtype)
      self.visual_attn, self.audio_attn, self.shared_attn = attention(), attention(), attention()
    projections = {'none': 0, 'blocks': depth}.get(self.contrast, 1)
    self.visual_proj = [Dense(self.features) for _ in range(projections)]
    self.audio_proj = [Dense(self.features) for _ in range(projections)]
    self.exchange_attn = [self.exchange() for _ in range(depth)]
    self.exchange_mlp = [self.exchange() for _ in range(depth)]
    self.classify = PairClassifier(self.classes, self.swapped)
    if self.background:
      self.background_token = tokens('background_token', 1)
      self.detect = Dense(1)

  def __call__(self, batch: dict[str, Any], train: bool = False) -> dict[str, Float[Array, '...']]:
    """The outputs; `video` [b t h w 3] and `wave` [b t s] go in."""
    b, t = batch['video'].shape[:2]
    x = self.embed(self.pictures(batch))
    own = x.shape[1]  # the class token, patches and the background token
    x = jnp.concatenate([x, repeat(self.prompt(), 's n d -> (s r) n d', r=b * t)], 1)
    found = []
    for block, *exchanges in zip(self.vit.blocks, self.exchange_attn, self.exchange_mlp):
      before = x
      x = self.meet(block.attend, exchanges[0], x, own, train)
      x = self.meet(block.feed_forward, exchanges[1], x, own, train)
      looks = functools.partial(self.looks, block, before)
      found.append(gather(x, self.compared, looks, own - self.background, self.shared_prompts))
    attention = looks()
    visual, audio = jnp.split(self.vit.norm(x).astype(jnp.float32), 2)
    logits, unimodal = self.classify(visual[:, 0], audio[:, 0])
    outputs = {'logits': logits, 'unimodal_logits': unimodal}
    outputs |= dict(zip(('visual_map', 'audio_map'), jnp.split(attention, 2)))
    if self.background:
      pair = jnp.concatenate([visual[:, own - 1], audio[:, own - 1]], -1)
      outputs['background_logits'] = self.detect(pair)[:, 0]
    if self.contrast != 'none':
      features = jnp.stack(found, 1).astype(jnp.float32)
      outputs |= self.compare(features[:, -1:] if self.contrast == 'final' else features)
    return {name: rearrange(x, '(b t) ... -> b t ...', b=b) for name, x in outputs.items()}

  def pictures(self, batch: dict[str, Any]) -> Float[Array, '_ h w 3']:
    """All frames, then all spectrograms."""
    frames = rearrange(batch['video'], 'b t h w c -> (b t) h w c')
    sounds = self.listen(rearrange(batch['wave'], 'b t ... -> (b t) ...'))
    if frames.shape[1:3] != sounds.shape[1:]:
      raise ValueError(
        f'Frames are {frames.shape[1]}×{frames.shape[2]}, spectrograms'
        f' {sounds.shape[1]}×{sounds.shape[2]}; MA-AVT needs pictures of one size.'
      )
    return jnp.concatenate([frames, repeat(sounds, 'm h w -> m h w 3')])

  def embed(self, pictures: Float[Array, 'm h w 3']) -> Float[Array, 'm n d']:
    """The class token, patches and the background token, with their positions."""
    x = self.vit.tokens(pictures)
    position = self.vit.position(
      (pictures.shape[1] // self.vit.patch, pictures.shape[2] // self.vit.patch)
    )
    if self.background:
      token = jnp.broadcast_to(self.background_token, (len(x), 1, x.shape[-1]))
      x = jnp.concatenate([x, token.astype(x.dtype)], 1)
      if self.positions == 'flat':
        position = stretch(position, x.shape[1])
      else:
        position = jnp.pad(position, ((0, 1), (0, 0)))
    return x + position.astype(x.dtype)

  def prompt(self) -> Float[Array, '2 n d']:
    """The prompts of both streams. They depend on no input."""
    kinds = {name: getattr(self, f'{name}_tokens') for name in ('visual', 'audio', 'shared')}
    if self.lsa:
      kinds = {name: getattr(self, f'{name}_attn')(x[None])[0] for name, x in kinds.items()}
    both = [jnp.concatenate([kinds[name], kinds['shared']]) for name in ('visual', 'audio')]
    return jnp.stack(both).astype(self.vit.dtype)

  def meet(
    self,
    half: Callable[..., Array],
    exchange: nn.Module,
    x: Float[Array, 'm n d'],
    own: int,
    train: bool,
  ) -> Float[Array, 'm n d']:
    """Runs half a block and adds what the streams tell each other, which concerns no prompt."""
    (dv, da), _ = exchange(*jnp.split(x[:, :own], 2), train)
    delta = jnp.concatenate([dv, da])
    return half(x, train) + jnp.pad(delta, ((0, 0), (0, x.shape[1] - own), (0, 0)))

  def looks(self, block: nn.Module, x: Float[Array, 'm n d']) -> Float[Array, 'm _']:
    """How the class token attends to patches: softmax of the mean logits over all heads."""
    x = block.norm1(x)
    patches = x[:, 1 : x.shape[1] - self.background - self.prompts - self.shared_prompts]
    attention = nn.softmax(block.attn.logits(x[:, :1], patches).mean(1)[:, 0])
    return jnp.pad(attention, ((0, 0), (1, 0)))

  def compare(self, found: Float[Array, 'm k *n d']) -> dict[str, Float[Array, '...']]:
    """Projections of what was found after each block."""
    count = found.shape[1]
    visual, audio = jnp.split(found, 2)
    if self.compared == 'nearest':
      visual, audio = visual[:, :, 1:], audio[:, :, 0]

    def project(layers, x):
      layers = layers if self.contrast == 'blocks' else layers * count
      return unit(jnp.stack([layer(x[:, k]) for k, layer in enumerate(layers)], 1))

    return {
      'visual_features': project(list(self.visual_proj), visual),
      'audio_features': project(list(self.audio_proj), audio),
    }


def gather(
  x: Float[Array, 'm n d'],
  compared: str,
  looks: Callable[[], Float[Array, 'm p']],
  own: int,
  shared: int,
) -> Float[Array, 'm *n d']:
  """What stands for a picture in the contrast, of its tokens after a block.

  Args:
    looks: the attention of the class token, to itself (0) and to the patches behind it.
    own: how many of the first tokens these are.
    shared: how many of the last tokens are shared prompts.
  """
  match compared:
    case 'class':
      return x[:, 0]
    case 'nearest':
      return x[:, :own]
    case 'patches':
      return x[:, 1:own].mean(1)
    case 'attention':
      return (looks()[:, None] @ x[:, :own])[:, 0]
    case _:
      return x[:, x.shape[1] - shared :].mean(1)


def fold(params: dict[str, Any]) -> dict[str, Any]:
  """Parameters of the same model with `lsa=False` and `contrast='none'`.

  What attention makes of the prompts depends on no input, so it becomes the prompts; projections
  serve training alone. What is then left to train has 0.49 million values with 309 classes.
  """
  kept = {name: x for name, x in params.items() if not name.startswith(PROJECTIONS)}
  for name in ('visual', 'audio', 'shared'):
    attention, tokens = kept.pop(f'{name}_attn'), kept[f'{name}_tokens']
    model = SelfAttention(tokens.shape[-1], LSA_HEADS)
    kept[f'{name}_tokens'] = model.apply({'params': attention}, tokens[None])[0]
  return kept
