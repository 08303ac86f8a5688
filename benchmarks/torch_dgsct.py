"""DG-SCT for AVE in PyTorch, to be timed beside ours.

python -m benchmarks.step_time --config=configs/ave.py --torch_module=benchmarks/torch_dgsct.py:ave

Or `:ave_bf16`, under autocast, or `:ave_compiled`, with torch.compile besides. It runs on a CUDA
device where there is one.

It computes what the released code does, under the names of the released state dict
(tests/test_torch_dgsct.py), but was written from a description of both. It is faster than the
release in these: position biases of frozen weights are computed once, not in every step; a tiled
second is transformed once; adapters mix tokens on the side with fewer channels; what the release
computes and throws away is left out. As in configs/ave.py, and unlike the release, the frozen
backbones are in evaluation mode throughout.

The backbones are in torch_backbones.py. Letters of shapes are those of
dgsct_jax/models/__init__.py.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchmarks.torch_backbones import HTSAT, Sizes, SwinV2, Tokens

Segments = Float[Tensor, 'b t d']
Outputs = dict[str, Tensor]
Timed = tuple[Callable[[], Any], Callable[[], Any]]  # forward pass, training step

SWIN_V2_L = Sizes(192, 192, (2, 2, 18, 2), (6, 12, 24, 48), 12)
HTSAT_AUDIOSET = Sizes(256, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
LEARNING_RATE = 5e-4


def pointwise(conv: nn.Conv2d, x: Float[Tensor, 'b n i']) -> Float[Tensor, 'b n o']:
  """A 1×1 convolution without bias over the channels of tokens.

  As products, one for each group, it needs no copy with the channels first.
  """
  weight = conv.weight.view(conv.groups, -1, conv.weight.shape[1])
  return torch.einsum('bngi,goi->bngo', x.unflatten(-1, (conv.groups, -1)), weight).flatten(2)


class Adapter(nn.Module):
  """DG-SCT's adapter of n tokens of width d, guided by m tokens of width e of the other stream.

  In the released names `video` is the adapted stream and `audio` the other one, in both.
  """

  def __init__(
    self,
    own: tuple[int, int],
    other: tuple[int, int],
    tokens: int = 32,
    reduction: int = 8,
    groups: int = 2,
    alpha: float = 0.3,
    beta: float = 0.05,
  ):
    super().__init__()
    (n, d), (m, e) = own, other
    self.alpha, self.beta = alpha, beta
    self.conv_adapter = nn.Conv2d(m, n, 1)
    self.fc = nn.Linear(e, d)
    self.my_tokens = nn.Parameter(torch.rand(tokens, d))
    self.gate_av, self.gate = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    self.fc_affine_audio_1, self.fc_affine_video_1 = nn.Linear(d, d), nn.Linear(d, d)
    self.fc_affine_bottleneck, self.fc_affine_v_c_att = nn.Linear(d, d // 2), nn.Linear(d // 2, d)
    self.fc_affine_audio_2, self.fc_affine_video_2 = nn.Linear(d, d // 2), nn.Linear(d, d // 2)
    self.fc_affine_v_s_att = nn.Linear(d // 2, 1)
    self.ln_before, self.ln_post = nn.LayerNorm(d), nn.LayerNorm(d)
    self.down_sampler = nn.Conv2d(d, d // reduction, 1, groups=groups, bias=False)
    self.up_sampler = nn.Conv2d(d // reduction, d, 1, groups=groups, bias=False)
    self.bn1, self.bn2 = nn.BatchNorm1d(d // reduction), nn.BatchNorm1d(d)

  def forward(self, x: Tokens, y: Float[Tensor, 'b m e']) -> tuple[Tokens, Float[Tensor, 'b n 1']]:
    """The residual for x, and the logits of the spatial attention."""
    guide = self.bring(y)
    x = x + self.gate_av * self.read_latents(x, guide)
    guide = guide.mean(1, keepdim=True)
    channel = self.channel_gate(x, guide)
    own = F.relu(self.fc_affine_video_2(x * (1 + channel)))
    logits = self.fc_affine_v_s_att(own * F.relu(self.fc_affine_audio_2(guide)))
    x = x * (self.alpha * channel + self.beta * torch.sigmoid(logits) + (1 - self.alpha))
    return self.gate * self.ln_post(self.bottleneck(self.ln_before(x))), logits

  def bring(self, y: Float[Tensor, 'b m e']) -> Tokens:
    """The other stream's tokens as n tokens of width d, by two maps that commute.

    Tokens are mixed on the narrower side.
    """
    tokens, channels = self.conv_adapter, self.fc
    assert tokens.bias is not None
    mix = tokens.weight.flatten(1)  # [n m]
    if channels.in_features <= channels.out_features:
      return channels(F.linear(y.mT, mix, tokens.bias).mT)
    y = F.linear(F.linear(y, channels.weight).mT, mix).mT
    return y + torch.addcmul(channels.bias, tokens.bias[:, None], channels.weight.sum(1))

  def read_latents(self, x: Tokens, guide: Tokens) -> Tokens:
    """Latent tokens attend to the guide, and x attends to them: one head, no scale."""
    weights = F.linear(guide, self.my_tokens).softmax(1)
    latents = self.my_tokens + weights.mT @ guide
    return (x @ latents.mT).softmax(-1) @ latents

  def channel_gate(self, x: Tokens, guide: Float[Tensor, 'b 1 d']) -> Float[Tensor, 'b 1 d']:
    """The gate of each channel, from the means of both streams."""
    query = F.relu(self.fc_affine_video_1(x)).mean(1, keepdim=True)
    query = query * F.relu(self.fc_affine_audio_1(guide))
    return torch.sigmoid(self.fc_affine_v_c_att(F.relu(self.fc_affine_bottleneck(query))))

  def bottleneck(self, x: Tokens) -> Tokens:
    """Down to fewer channels and up again."""
    down = self.bn1(pointwise(self.down_sampler, x).flatten(0, 1))
    up = pointwise(self.up_sampler, F.relu(down).unflatten(0, x.shape[:2]))
    return self.bn2(up.flatten(0, 1)).view_as(x)


class DecoderLayer(nn.Module):
  """Attention and MLP, each normalised after its residual."""

  def __init__(self, width: int, heads: int = 4, hidden: int = 1024, dropout: float = 0.1):
    super().__init__()
    self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
    self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
    self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    self.drop = nn.Dropout(dropout)

  def forward(self, memory: Float[Tensor, 'b 2*t d']) -> Segments:
    """The second half of the memory, after it attended to all of it."""
    x = memory[:, memory.shape[1] // 2 :]
    attended, _ = self.multihead_attn(x, memory, memory, need_weights=False)
    x = self.norm1(x + self.drop(attended))
    hidden = self.drop(F.relu(self.linear1(x)))
    return self.norm2(x + self.drop(self.linear2(hidden)))


class Decoder(nn.Module):
  """One stream's segments attend to the other's and to their own, in one layer."""

  def __init__(self, inputs: int, width: int):
    super().__init__()
    self.affine_matrix = nn.Linear(inputs, width)
    self.decoder = nn.ModuleDict({'layers': nn.Sequential(DecoderLayer(width))})

  def forward(self, x: Float[Tensor, 'b t i'], other: Segments) -> Segments:
    """Of the segments x."""
    return self.decoder['layers'](torch.cat([other, self.affine_matrix(x)], 1))


class Encoder(nn.Module):
  """The segments of a stream attend to each other, in two layers."""

  def __init__(self, inputs: int, width: int):
    super().__init__()
    self.affine_matrix = nn.Linear(inputs, width)
    layer = nn.TransformerEncoderLayer(width, 4, 1024, dropout=0.1, batch_first=True)
    self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

  def forward(self, x: Float[Tensor, 'b t i']) -> Segments:
    """Of the segments x."""
    return self.encoder(self.affine_matrix(x))


class TemporalAttention(nn.Module):
  """Relates the segments of both streams and gates each stream by the other."""

  def __init__(self, visual: int, audio: int, gamma: float = 0.1, width: int = 256):
    super().__init__()
    self.gamma = gamma
    self.v_fc, self.a_fc = nn.Linear(visual, 2 * width), nn.Linear(audio, width // 2)
    rnn = functools.partial(nn.LSTM, batch_first=True, bidirectional=True)
    visual_rnn, audio_rnn = rnn(2 * width, width), rnn(width // 2, width // 2)
    self.audio_visual_rnn_layer = nn.ModuleDict({'audio_rnn': audio_rnn, 'visual_rnn': visual_rnn})
    self.video_encoder, self.audio_encoder = Encoder(2 * width, width), Encoder(width, width)
    self.video_decoder, self.audio_decoder = Decoder(2 * width, width), Decoder(width, width)
    self.video_gated, self.audio_gated = (
      nn.Sequential(nn.Linear(width, 1), nn.Sigmoid()) for _ in range(2)
    )
    self.drop = nn.Dropout(0.2)

  def forward(
    self, visual: Segments, audio: Float[Tensor, 'b t e']
  ) -> tuple[Float[Tensor, 'b t f'], Float[Tensor, 'b t f'], Float[Tensor, 'b t']]:
    """The features of both streams, and the product of their gates."""
    rnn = self.audio_visual_rnn_layer
    visual, _ = rnn['visual_rnn'](self.drop(F.relu(self.v_fc(visual))))
    audio, _ = rnn['audio_rnn'](self.a_fc(audio))
    seen, heard = self.video_encoder(visual), self.audio_encoder(audio)
    visual, audio = self.video_decoder(visual, heard), self.audio_decoder(audio, seen)
    seen, heard = self.video_gated(seen), self.audio_gated(heard)
    visual, audio = visual * (1 + self.gamma * heard), audio * (1 + self.gamma * seen)
    return visual, audio, (seen * heard)[..., 0]


class Localizer(nn.Module):
  """Event logit per second, and class logits per clip (released `CMBS`)."""

  def __init__(self, width: int, classes: int, top: int = 4, weight: float = 0.3):
    super().__init__()
    self.top, self.weight = top, weight
    self.video_cas, self.audio_cas = nn.Linear(width, classes), nn.Linear(width, classes)
    self.localize_module = nn.ModuleDict(
      {'classifier': nn.Linear(width, 1), 'event_classifier': nn.Linear(width, classes)}
    )

  def forward(self, visual: Segments, audio: Segments) -> Outputs:
    """`event_logits` [b t], `logits` [b c] and `activation_logits` [b c]."""
    activations = self.video_cas(visual), self.audio_cas(audio)
    activation = sum(x.topk(self.top, 1).values.mean(1) for x in activations) / 2
    fused = (visual + audio) / 2
    event = self.localize_module['classifier'](fused)[..., 0]
    logits = self.localize_module['event_classifier'](fused.amax(1)) + self.weight * activation
    return {'event_logits': event, 'logits': logits, 'activation_logits': activation}


class AVE(nn.Module):
  """Both backbones in step with adapters between their blocks, temporal attention, localiser."""

  def __init__(
    self,
    swin: Sizes = SWIN_V2_L,
    htsat: Sizes = HTSAT_AUDIOSET,
    adapter: Callable[..., Adapter] = Adapter,
    classes: int = 28,
    gamma: float = 0.1,
    width: int = 256,
  ):
    super().__init__()
    self.swin, self.htsat = SwinV2(swin), HTSAT(htsat)
    self.swin.requires_grad_(False)
    self.htsat.requires_grad_(False)
    for half in ('p1', 'p2'):
      visual, audio = nn.ModuleList(), nn.ModuleList()
      for seen, heard, stage in zip(self.swin.grids, self.htsat.grids, self.htsat.layers):
        visual.extend(adapter(seen, heard) for _ in stage.blocks)
        audio.extend(adapter(heard, seen) for _ in stage.blocks)
      self.add_module(f'vis_adapter_blocks_{half}', visual)
      self.add_module(f'audio_adapter_blocks_{half}', audio)
    visual_width, audio_width = self.swin.grids[-1][1], self.htsat.grids[-1][1]
    self.temporal_attn = TemporalAttention(visual_width, audio_width, gamma, width)
    self.CMBS = Localizer(width, classes)
    self.train()

  def train(self, mode: bool = True) -> 'AVE':
    """Training mode of all but the backbones."""
    super().train(mode)
    self.swin.eval()
    self.htsat.eval()
    return self

  def forward(self, video: Float[Tensor, 'b t 3 h w'], wave: Float[Tensor, 'b t s']) -> Outputs:
    """The outputs of `Localizer` and the `gate` [b t]."""
    segments = video.shape[:2]
    v, a, v_logits, a_logits = self.encode(video.flatten(0, 1), wave.flatten(0, 1))
    visual, audio = (
      (torch.tanh(logits).softmax(1).mT @ x)[:, 0].unflatten(0, segments)
      for logits, x in ((v_logits, v), (a_logits, a))
    )
    visual, audio, gate = self.temporal_attn(visual, audio)
    return self.CMBS(visual, audio) | {'gate': gate}

  def encode(
    self, video: Float[Tensor, 'b 3 h w'], wave: Float[Tensor, 'b s']
  ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tokens of both streams, [b n d] and [b m e], and the last adapters' spatial logits."""
    v, a = self.swin.stem(video), self.htsat.stem(wave)
    adapters = zip(
      *(
        cast(nn.ModuleList, getattr(self, f'{stream}_adapter_blocks_{half}'))
        for half in ('p1', 'p2')
        for stream in ('vis', 'audio')
      )
    )
    for v_stage, a_stage in zip(self.swin.layers, self.htsat.layers):
      every = len(v_stage.blocks) // len(a_stage.blocks)
      for j, a_block in enumerate(a_stage.blocks):
        *alone, v_block = v_stage.blocks[j * every : (j + 1) * every]
        for block in alone:
          v = block(v)
        v_first, a_first, v_second, a_second = next(adapters)
        (dv, _), (da, _) = v_first(v, a), a_first(a, v)
        v, a = v_block.attend(v) + dv, a_block(a) + da
        (dv, v_logits), (da, a_logits) = v_second(v, a), a_second(a, v)
        v, a = v_block.feed_forward(v) + dv, a + da
      v, a = v_stage.downsample(v), a_stage.downsample(a)
    return self.swin.norm(v), a, v_logits, a_logits


def losses(outputs: Outputs, label: Int[Tensor, 'b t']) -> Outputs:
  """Event and gate per second, class and class activation per clip.

  As released, the gate is taken for a logit, though it is a probability.
  """
  outputs = {name: x.float() for name, x in outputs.items()}
  seconds = label < outputs['logits'].shape[1]
  event = torch.where(seconds, label, 0).amax(1)
  return {
    'event': F.binary_cross_entropy_with_logits(outputs['event_logits'], seconds.float()),
    'gate': F.binary_cross_entropy_with_logits(outputs['gate'], seconds.float()),
    'class': F.cross_entropy(outputs['logits'], event),
    'activation': F.cross_entropy(outputs['activation_logits'], event),
  }


def loss(outputs: Outputs, label: Int[Tensor, 'b t']) -> Float[Tensor, '']:
  """The sum of all `losses`."""
  return torch.stack(list(losses(outputs, label).values())).sum()


# What is timed.


def timed(
  model: AVE,
  video: Float[Tensor, 'b t 3 h w'],
  wave: Float[Tensor, 'b t s'],
  label: Int[Tensor, 'b t'],
  bf16: bool = False,
  compiled: bool = False,
) -> Timed:
  """A forward pass in evaluation and a step of Adam; both return when they are computed."""
  if compiled:  # the fused encoder layers do not know autocast, and torch.compile takes them
    torch.backends.mha.set_fastpath_enabled(False)
  run = torch.compile(model) if compiled else model
  trained = [x for x in model.parameters() if x.requires_grad]
  adam = torch.optim.Adam(trained, LEARNING_RATE, fused=True)

  def outputs(train: bool) -> Outputs:
    if model.training != train:
      model.train(train)
    with torch.autocast(video.device.type, torch.bfloat16, enabled=bf16):
      return run(video, wave)

  def wait() -> None:
    if video.is_cuda:
      torch.cuda.synchronize()

  def forward() -> Outputs:
    with torch.inference_mode():
      found = outputs(False)
    wait()
    return found

  def step() -> Tensor:
    adam.zero_grad()
    value = loss(outputs(True), label)
    value.backward()
    adam.step()
    wait()
    return value.detach()

  return forward, step


def ave(clips: int, bf16: bool = False, compiled: bool = False) -> Timed:
  """The released model at full size, with random weights, on clips of noise."""
  cuda = torch.cuda.is_available()
  if cuda:
    torch.set_float32_matmul_precision('high')  # TF32, as XLA has it by default
    torch.backends.cudnn.benchmark = True  # as released
  with torch.device('cuda' if cuda else 'cpu'):
    model = AVE()
    video, wave = 0.1 * torch.randn(clips, 10, 3, 192, 192), 0.1 * torch.randn(clips, 10, 32000)
    label = torch.zeros(clips, 10, dtype=torch.int64)
  return timed(model, video, wave, label, bf16=bf16, compiled=compiled)


ave_bf16 = functools.partial(ave, bf16=True)
ave_compiled = functools.partial(ave, bf16=True, compiled=True)
