"""Two backbones in step, with an exchange between the streams at each half of a block."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models import repeat
from dgsct_jax.models.adapters import NoExchange
from dgsct_jax.models.layers import last_stages

STREAMS = ('visual', 'audio')


class Encoded(NamedTuple):
  """What the dual encoder computes from a batch of segments."""

  visual: Float[Array, 'b n d']  # tokens after the visual backbone's final norm
  audio: Float[Array, 'b m e']  # tokens of the last audio block; see `norm_audio`
  visual_map: Float[Array, 'b 1 n']  # pooling weights of the last exchange
  audio_map: Float[Array, 'b 1 m']
  # Tokens of every stage before its patch merging; none of a stage that was not kept (cached.py).
  visual_pyramid: tuple[Float[Array, 'b _ _'], ...]
  audio_pyramid: tuple[Float[Array, 'b _ _'], ...]


class Meeting(NamedTuple):
  """The modules from one exchange of the streams to the next."""

  visual: Sequence[Any]  # blocks, of which the last one meets the audio block
  audio: Any
  attn: nn.Module  # the exchanges at both halves of the blocks
  mlp: nn.Module


def pair(visual: Sequence[Any], audio: Sequence[Any]) -> Iterator[tuple[Sequence[Any], Any]]:
  """Splits the visual blocks evenly over the audio blocks: those up to a meeting, and with whom."""
  k, rest = divmod(len(visual), len(audio))
  if rest or not k:
    raise ValueError(
      f'{len(visual)} visual blocks do not split evenly over {len(audio)} audio blocks; choose'
      ' depths whose visual stages are multiples of the audio stages.'
    )
  for i, block in enumerate(audio):
    yield tuple(visual[i * k : (i + 1) * k]), block


class DualEncoder(nn.Module):
  """Runs two backbones side by side; an exchange adds residuals to both.

  A backbone has `depths`, `stem(x, train)`, `stages[i].blocks[j].attend(x, train)` and
  `.feed_forward(x, train)`, each with its own residual, `stages[i].downsample(x)` and `norm`; this
  class uses nothing else of it.

  read: 'before': each exchange reads the streams before a half of the block, and is added behind
    it. 'between' (few-shot): both read them between the halves, where the first is added, too; the
    second is added behind the second half.
  split_audio: run one half of the audio block in each half of the visual block (LAVISH); otherwise,
    as released with DG-SCT, the whole audio block runs in the first half.
  stages: that have exchanges, from the last one; None: all. What comes before the first of them is
    run forward only.
  norm_audio: apply the audio backbone's final norm, too (LAVISH); DG-SCT leaves it out.
  scan_layers: run the meetings of a stage by one loop where they are alike (models/repeat.py).
  side: what comes between the streams and the head, from `Encoded` to `Encoded` (models/side.py).
  """

  visual: nn.Module
  audio: nn.Module  # the same instance as `visual` shares its weights (LAVISH)
  exchange: Callable[[], nn.Module] = NoExchange
  stages: int | None = None
  read: Literal['before', 'between'] = 'before'
  split_audio: bool = False
  norm_audio: bool = False
  scan_layers: bool = False
  side: Callable[[], nn.Module] | None = None

  def setup(self) -> None:
    """Makes two exchanges for each audio block of the last `stages`.

    Raises ValueError if the stages do not pair up, or there are fewer.
    """
    if len(self.visual.depths) != len(self.audio.depths):
      raise ValueError(
        'The backbones meet stage by stage, but their depths are'
        f' {tuple(self.visual.depths)} (visual) and {tuple(self.audio.depths)} (audio); choose'
        ' backbones with as many stages each.'
      )
    depths = self.audio.depths
    late = last_stages(len(depths) if self.stages is None else self.stages, len(depths))
    kinds = [
      self.exchange if i in late else NoExchange for i, n in enumerate(depths) for _ in range(n)
    ]
    self.exchange_attn = [kind() for kind in kinds]
    self.exchange_mlp = [kind() for kind in kinds]
    if self.side:
      self.exchange_side = self.side()

  def __call__(
    self, video: Float[Array, 'b height width c'], wave: Float[Array, 'b ...'], train: bool = False
  ) -> Encoded:
    """Encodes b segments: a picture and a waveform each."""
    encoded = self.streams(video, wave, train)
    return self.exchange_side(encoded) if self.side else encoded

  def streams(
    self, video: Float[Array, 'b height width c'], wave: Float[Array, 'b ...'], train: bool
  ) -> Encoded:
    """What the backbones and the exchanges make of them."""
    v, a = self.visual.stem(video, train), self.audio.stem(wave, train)
    exchanges = zip(self.exchange_attn, self.exchange_mlp)
    visual_pyramid, audio_pyramid = [], []
    for i, (v_stage, a_stage) in enumerate(zip(self.visual.stages, self.audio.stages)):
      seen, heard = (functools.partial(named, f'{stream}/stages_{i}') for stream in STREAMS)
      meetings = [
        Meeting(*blocks, *next(exchanges)) for blocks in pair(v_stage.blocks, a_stage.blocks)
      ]
      meet = functools.partial(self.meet, seen, heard, train)
      (v, a), (v_map, a_map) = repeat.each(meet, meetings, (v, a), self.scan_layers)
      visual_pyramid.append(v)
      audio_pyramid.append(a)
      v, a = seen(v_stage.downsample)(v), heard(a_stage.downsample)(a)
    visual_pyramid[-1] = v = named('visual', self.visual.norm)(v)
    if self.norm_audio:
      audio_pyramid[-1] = a = named('audio', self.audio.norm)(a)
    return Encoded(v, a, v_map, a_map, tuple(visual_pyramid), tuple(audio_pyramid))

  @nn.nowrap
  def meet(
    self,
    seen: Callable[..., Any],
    heard: Callable[..., Any],
    train: bool,
    meeting: Meeting,
    streams: tuple[Array, Array],
  ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Both streams through the blocks and the exchanges of a meeting, and its last maps.

    `seen` and `heard` name the scope of the stage.
    """
    v, a = streams
    *alone, v_block = meeting.visual
    for block in alone:
      v = seen(block)(v, train)
    v_first, v_second = seen(v_block.attend), seen(v_block.feed_forward)
    a_first, a_second = (
      (heard(meeting.audio.attend), heard(meeting.audio.feed_forward))
      if self.split_audio
      else (heard(meeting.audio), same)
    )
    if self.read == 'between':
      v, a = v_first(v, train), a_first(a, train)
      v_first = a_first = same
    v, a, _ = exchange(v_first, a_first, meeting.attn, v, a, train)
    v, a, maps = exchange(v_second, a_second, meeting.mlp, v, a, train)
    return (v, a), maps


def exchange(
  v_half: Callable[..., Array],
  a_half: Callable[..., Array],
  adapters: nn.Module,
  v: Array,
  a: Array,
  train: bool,
) -> tuple[Array, Array, tuple[Array, Array]]:
  """Runs one half of both blocks and adds what the adapters make of their input."""
  (dv, da), maps = adapters(v, a, train)
  return v_half(v, train) + dv, a_half(a, train) + da, maps


def named(scope: str, function: Callable[..., Array]) -> Callable[..., Array]:
  """A function whose operations have this scope in profiles, where Flax names the block alone."""

  def run(*given: Any) -> Array:
    with jax.named_scope(scope):
      return function(*given)

  return run


def same(x: Array, train: bool) -> Array:
  """No half of a block."""
  return x


def pool_segments(
  encoder: DualEncoder, batch: dict[str, Any], train: bool
) -> tuple[Float[Array, 'b t d'], Float[Array, 'b t e'], dict[str, Float[Array, 'b t _']]]:
  """Each segment of `video` [b t h w 3] and `wave` [b t ...] as one vector of each stream.

  Tokens are pooled with the weights of the last exchange; these are the third result, `visual_map`
  [b t n] and `audio_map` [b t m].
  """
  video, wave = batch['video'], batch['wave']
  encoded = encoder(
    rearrange(video, 'b t h w c -> (b t) h w c'), rearrange(wave, 'b t ... -> (b t) ...'), train
  )
  split = lambda x: rearrange(x, '(b t) 1 n -> b t n', t=video.shape[1])
  maps = {'visual_map': encoded.visual_map, 'audio_map': encoded.audio_map}
  visual = split(encoded.visual_map @ encoded.visual).astype(jnp.float32)
  audio = split(encoded.audio_map @ encoded.audio).astype(jnp.float32)
  return visual, audio, {name: split(weights) for name, weights in maps.items()}
