"""The PyTorch model that is timed beside ours computes what the released one does."""

import functools
import math
import re

import numpy as np
import pytest

from configs import ave as ave_config
from dgsct_jax import models
from tests.parity import backbones, golden

torch = pytest.importorskip('torch')

from benchmarks import torch_backbones, torch_dgsct  # noqa: E402  (they need torch)

# What the release carries, but never uses or whose results it throws away.
UNUSED = (
  r'swin\.head\..*|htsat\.(norm|tscam_conv|head)\..*|adapter_token_downsampler\..*|.*\.gate_tk'
  r'|temporal_attn\..*\.(encoder_layer|decoder_layer|decoder\.layers\.0\.self_attn)\..*'
  r'|CMBS\.(AVInter|VAInter|video_norm|audio_norm)\..*'
)
COUNTERS = r'.*\.num_batches_tracked'  # of batch norms: no golden case lists them


def build(settings):
  """A model of the sizes of a golden case."""
  names = torch_backbones.Sizes._fields
  visual = backbones.swin_fields(settings['visual'])
  audio = backbones.htsat_fields(settings['audio'])
  audio['image'] = audio['size']
  visual, audio = (
    torch_backbones.Sizes(*(fields[name] for name in names)) for fields in (visual, audio)
  )
  adapter = functools.partial(torch_dgsct.Adapter, **backbones.adapter_fields(settings))
  return torch_dgsct.AVE(visual, audio, adapter, gamma=settings['temporal_gamma'])


def load(name, dtype=torch.float32):
  """A case, its model in evaluation mode, its clips and labels."""
  case = golden.Case(golden.FOLDER / f'{name}.json')
  model = build(case.settings).to(dtype)
  state = {key: torch.from_numpy(x) for key, x in case.weights().items()}
  missing, surplus = model.load_state_dict(state, strict=False)
  assert all(re.fullmatch(COUNTERS, key) for key in missing)
  assert all(re.fullmatch(UNUSED, key) for key in surplus)
  inputs = {key: torch.from_numpy(np.array(x)) for key, x in case.inputs().items()}
  label = torch.where(inputs['segment'] > 0, inputs['event'][:, None], 28).long()
  return case, model.eval(), (inputs['frames'].to(dtype), inputs['wave'].to(dtype)), label


def compare(case, got):
  """By the rule of tests/golden/README.md; returns the name that is closest to its limit."""
  wanted, shares = case.wanted(), {}
  for name, output in case.outputs.items():
    ours = golden.thin(np.asarray(got[name]), output)
    want = wanted[name].reshape(ours.shape)
    limit = 20 * output['float32_vs_float64']['max_abs'] + 1e-5 * np.abs(want)
    shares[name] = float(np.max(np.abs(ours - want) / limit))
  worst = max(shares, key=shares.get)
  print(f'{case.name}: {len(shares)} outputs; {worst} is off by {shares[worst]:.2g} of its limit')
  assert shares[worst] <= 1, {name: share for name, share in shares.items() if share > 1}


def watch(model, seen):
  """Keeps what the golden cases store of the encoder, as the model runs."""

  def keep(module, name, of=lambda args, out: out):
    module.register_forward_hook(lambda _, args, out: seen.update({name: of(args, out)}))

  pooling = lambda args, out: torch.tanh(out[1]).softmax(1).mT
  keep(model.temporal_attn, 'visual_pooled', lambda args, out: args[0])
  keep(model.temporal_attn, 'audio_pooled', lambda args, out: args[1])
  keep(model.swin.norm, 'visual_tokens')
  for stream, backbone in (('visual', model.swin), ('audio', model.htsat)):
    keep(backbone.patch_embed, f'{stream}_patches')
    for i, stage in enumerate(backbone.layers):
      keep(stage.downsample, f'{stream}_stage{i}', lambda args, out: args[0])
    for half in ('p1', 'p2'):
      adapters = getattr(model, f'{stream.replace("visual", "vis")}_adapter_blocks_{half}')
      keep(adapters[0], f'{stream}_adapter_{half}_0', lambda args, out: out[0])
    keep(adapters[-1], f'{stream}_spatial_map', pooling)


@pytest.mark.parametrize('name', ['ave_small', 'ave_small_even'])
def test_outputs_are_those_of_the_release(name):
  case, model, clips, label = load(name)
  seen = {}
  watch(model, seen)
  with torch.inference_mode():
    outputs = model(*clips)
    parts = torch_dgsct.losses(outputs, label)
  compare(
    case,
    seen
    | {
      'audio_tokens': seen['audio_stage3'],
      'is_event_scores': outputs['event_logits'].T[..., None],
      'audio_visual_gate': outputs['gate'].T[..., None],
      'event_scores': outputs['logits'],
      'av_score': outputs['activation_logits'],
      'loss': sum(parts.values()),
      'loss_is_event': parts['event'],
      'loss_gate': parts['gate'],
      'loss_cas': parts['activation'],
      'loss_event_class': parts['class'],
    },
  )


class Misread(torch.autograd.Function):
  """The identity with the fault of the golden gradients: see tests/parity/torch_fault.py."""

  @staticmethod
  def forward(ctx, x, b):
    ctx.b = b
    return x.view_as(x)

  @staticmethod
  def backward(ctx, grad):
    memory = grad.contiguous().view(ctx.b, grad.shape[1], -1)
    return memory.mT.flatten(0, 1), None


def gradients(case, model, clips, label):
  """The loss and what the gradient cases store of its gradients."""
  for name, module in model.named_modules():
    if name.endswith('.bn2'):
      module.register_forward_hook(lambda _, args, out: Misread.apply(out, label.numel()))
  loss = torch_dgsct.loss(model(*clips), label)
  loss.backward()
  grads = {name: x.grad.numpy() for name, x in model.named_parameters() if x.requires_grad}
  assert set(grads) == set(case.grad_names)
  assert all(x.grad is None for x in (*model.swin.parameters(), *model.htsat.parameters()))
  gates = np.concatenate([grads[name] for name in case.json['gate_names']])
  return case.gradients(grads) | {'loss': loss.detach().numpy(), 'gate_grads': gates}


def test_gradients_are_those_of_the_release():
  case, *given = load('ave_small_grad')
  compare(case, gradients(case, *given))


def test_gradients_in_training_are_those_of_the_release():
  """In float64, since in float32 rounding decides the side of some ReLU (docs/parity.md)."""
  case, model, *given = load('ave_small_train', torch.float64)
  model.train()
  model.htsat.bn0.train()  # in the case, as in the release; not in what is timed
  for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
    if isinstance(module, torch.nn.MultiheadAttention):
      module.dropout = 0.0
  del case.outputs['adam_losses']
  got = gradients(case, model, *given)
  after = {f'after/{name}': x.numpy() for name, x in model.state_dict().items()}
  compare(case, got | after)


def test_names_and_shapes_are_those_of_the_release_at_full_size():
  with torch.device('meta'):
    model = torch_dgsct.AVE()
  shapes = {name: list(x.shape) for name, x in model.state_dict().items()}
  wanted = golden.Case(golden.FOLDER / 'ave_full.json').shapes
  assert {name: x for name, x in shapes.items() if not re.fullmatch(COUNTERS, name)} == {
    name: x for name, x in wanted.items() if not re.fullmatch(UNUSED, name)
  }


def test_sizes_and_rules_are_those_of_the_config():
  config = ave_config.get_config()
  ours = models.build(config.model)
  for theirs, backbone, side in (
    (torch_dgsct.SWIN_V2_L, ours.visual, ours.visual.image),
    (torch_dgsct.HTSAT_AUDIOSET, ours.audio, ours.audio.size),
  ):
    fields = side, backbone.width, backbone.depths, backbone.heads, backbone.window
    assert tuple(theirs) == fields
    assert torch_backbones.PATCH == backbone.patch and backbone.mlp_ratio == 4
  audio = ours.audio
  front_end = audio.sample_rate, audio.n_fft, audio.hop, audio.mel_bins, (audio.fmin, audio.fmax)
  assert front_end == tuple(
    getattr(torch_backbones, name) for name in ('RATE', 'N_FFT', 'HOP', 'MEL_BINS', 'HERTZ')
  )
  assert torch_backbones.TILE == audio.tile
  assert config.model.backbone_mode == 'eval' and config.model.head.gate_loss == 'logits'
  assert (config.optim.name, config.optim.lr) == ('adam', torch_dgsct.LEARNING_RATE)
  assert not config.optim.clip_norm and not config.optim.lr_by_path and config.data.segments == 10


@pytest.mark.parametrize('bf16', [False, True])
def test_a_timed_step_learns_and_leaves_the_backbones_alone(bf16):
  torch.manual_seed(0)
  visual = torch_backbones.Sizes(32, 8, (1, 2), (1, 2), 4)
  audio = torch_backbones.Sizes(64, 8, (1, 1), (1, 2), 4)
  adapter = functools.partial(torch_dgsct.Adapter, tokens=2, reduction=2)
  model = torch_dgsct.AVE(visual, audio, adapter)
  before = {name: x.clone() for name, x in model.state_dict().items()}
  video, wave = torch.randn(2, 4, 3, 32, 32), 0.1 * torch.randn(2, 4, 32000)
  label = torch.tensor([[3, 3, 28, 28], [28, 7, 7, 7]])
  forward, step = torch_dgsct.timed(model, video, wave, label, bf16=bf16)
  first, *_, last = (float(step()) for _ in range(8))
  assert math.isfinite(first) and last < first
  assert all(torch.isfinite(x).all() for x in forward().values())
  for name, x in model.state_dict().items():
    trained = not name.startswith(('swin.', 'htsat.'))
    assert torch.equal(x, before[name]) != trained, name
