"""The way back: a trained model under the released names, for `load_state_dict(strict=True)`."""

import numpy as np

from dgsct_jax.convert import avqa, avs, avvp, dgsct, htsat
from dgsct_jax.convert.table import State, below, export
from dgsct_jax.models import windows


def export_ave(
  ours: State, window: int = 12, image_classes: int = 21841, sound_classes: int = 527
) -> State:
  """State dict of the released AVE model from our tensors.

  Names that the released network holds and never reads get stand-ins: layer templates and skipped
  attention are copies of the layers in use, the classifiers of both backbones and the other dead
  weights are 0, dead norms and gates are as initialised, counters are 0. `window`: of the visual
  backbone, which no shape tells.
  """
  state = export(ours, dgsct.AVE)
  return (
    state
    | _buffers(state, window)
    | _copies(state)
    | _unread_ave(state)
    | _classifiers(state, image_classes, sound_classes)
  )


def export_avqa(
  ours: State, window: int = 12, image_classes: int = 21841, sound_classes: int = 527
) -> State:
  """State dict of the released AVQA model from our tensors, but for the prefix 'module.'.

  See `export_ave`.

  The second copy of the layers over sounds, which starts like the first and is never read, is as
  the first is now.
  """
  state = export(ours, avqa.AVQA)
  copies = {
    name.replace('.', '_pure.'): x
    for name, x in state.items()
    if name.startswith(('fc_a1.', 'fc_a2.'))
  }
  return (
    state
    | copies
    | _norm('norm3', len(state['norm1.bias']))
    | _buffers(state, window)
    | _classifiers(state, image_classes, sound_classes)
  )


def export_avvp(
  ours: State, window: int = 12, image_classes: int = 21841, sound_classes: int = 527
) -> State:
  """State dict of the released AVVP model from our tensors; see `export_ave`.

  The half of the temporal attention whose result is thrown away is a copy of the other half.
  """
  state = export(ours, avvp.AVVP)
  if 'fc_st.weight' not in state:
    raise ValueError(
      'The model has no layers for motion, which the released one has; train with'
      " config.model.head.motion='r2plus1d_18' what is to be exported."
    )
  return (
    state
    | _unheard_gate(state)
    | _buffers(state, window)
    | _unread_adapters(state)
    | _downsamplers(state)
    | _classifiers(state, image_classes, sound_classes)
  )


def export_grounding(ours: State) -> State:
  """The 14 tensors that the released AVQA training takes from its pre-stage, without 'module.'."""
  return export(ours, avqa.MATCHING)


def export_avs(ours: State) -> State:
  """What the released AVS networks, S4's and MS3's, read of their state dict.

  They hold a PVT and convolutions besides, which they never read and whose shapes nothing here
  tells: load it with `strict=False`, or take them from a released file (`--original`).
  """
  return export(ours, avs.TABLES['ms3'])


def _buffers(state: State, window: int) -> State:
  """Counters, shift masks and position indices, which PyTorch keeps although shapes tell them."""
  extra = {
    name.replace('running_mean', 'num_batches_tracked'): np.zeros((), np.int64)
    for name in state
    if name.endswith('.running_mean')
  }
  audio_window = htsat.sizes(below(state, 'htsat.'))['window']
  windows_of = (window, audio_window)
  for backbone, side, width in zip(('swin', 'htsat'), dgsct.grids(state), windows_of):
    blocks = [
      name.split('.')
      for name in state
      if name.startswith(f'{backbone}.layers') and '.norm1.weight' in name
    ]
    for _, _, i, _, j, *_ in blocks:
      block, grid = f'{backbone}.layers.{i}.blocks.{j}.', (side // 2 ** int(i),) * 2
      size, shift = windows.clamp(grid, width, width // 2 * (int(j) % 2))
      if any(shift):
        extra[block + 'attn_mask'] = np.asarray(windows.shift_mask(grid, size, shift))
      if backbone == 'htsat':
        extra[block + 'attn.relative_position_index'] = windows.relative_index(size).astype(
          np.int64
        )
  return extra


def _copies(state: State) -> State:
  """The templates of the temporal layers, and the attention that the decoder layers skip."""

  def copy(names, old, new):
    return {new + name: x for name, x in below(names, old).items()}

  extra: State = {}
  for stream in ('video', 'audio'):
    encoder, decoder = f'temporal_attn.{stream}_encoder.', f'temporal_attn.{stream}_decoder.'
    extra |= copy(state, encoder + 'encoder.layers.0.', encoder + 'encoder_layer.')
    extra |= copy(
      state, decoder + 'decoder.layers.0.multihead_attn.', decoder + 'decoder.layers.0.self_attn.'
    )
    extra |= copy(state | extra, decoder + 'decoder.layers.0.', decoder + 'decoder_layer.')
  return extra


def _unread_ave(state: State) -> State:
  """Weights of the AVE network that nothing in it depends on."""
  attention = below(state, 'temporal_attn.video_encoder.encoder.layers.0.self_attn.')
  shapes = {
    f'CMBS.{module}.video_multihead.{name}': x.shape
    for module in ('AVInter', 'VAInter')
    for name, x in attention.items()
  }
  extra = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  for norm in ('CMBS.AVInter.norm1', 'CMBS.VAInter.norm1', 'CMBS.video_norm', 'CMBS.audio_norm'):
    extra |= _norm(norm, state['CMBS.video_cas.weight'].shape[1])
  return extra | _downsamplers(state) | _token_gates(state)


def _unheard_gate(state: State) -> State:
  """The half of the AVVP model's temporal attention that gates its sound, and layer templates."""
  extra: State = {}
  rnn = 'audio_visual_rnn_layer'
  for heard, seen in (
    ('audio_encoder', 'video_encoder'),
    ('audio_gated', 'video_gated'),
    (f'{rnn}.audio_rnn', f'{rnn}.visual_rnn'),
  ):
    half = below(state, f'temporal_attn.{heard}.')
    extra |= {f'temporal_attn.{seen}.{name}': x for name, x in half.items()}
  layer = below(state, 'temporal_attn.audio_encoder.encoder.layers.0.')
  return extra | {
    f'temporal_attn.{stream}_encoder.encoder_layer.{name}': x
    for stream in ('video', 'audio')
    for name, x in layer.items()
  }


def _unread_adapters(state: State) -> State:
  """Weights of the AVVP adapters that nothing in them depends on."""
  extra = _token_gates(state)
  for name, x in state.items():
    if name.endswith('.my_tokens'):
      adapter, width = name.removesuffix('my_tokens'), x.shape[1]
      shapes = {
        'fc_caption.weight': (192, 512),
        'fc_caption.bias': (192,),
        'temporal_gated.0.weight': (1, width),
        'temporal_gated.0.bias': (1,),
      }
      extra |= {adapter + key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
  return extra


def _token_gates(state: State) -> State:
  """The gate of latent tokens that no adapter reads."""
  return {
    name.replace('gate_av', 'gate_tk'): np.ones(1, np.float32)
    for name in state
    if name.endswith('.gate_av')
  }


def _downsamplers(state: State) -> State:
  """Layers between the stages of the adapters, which are not called."""
  width = len(state['htsat.patch_embed.norm.weight'])
  return {
    f'adapter_token_downsampler.{i}.weight': np.zeros(
      (2**i * width // 2, 2**i * width // 4), np.float32
    )
    for i in range(3)
  }


def _classifiers(state: State, image_classes: int, sound_classes: int) -> State:
  """What the backbones have beyond what an encoder needs."""
  width, audio_width = (
    len(state['swin.norm.weight']),
    8 * len(state['htsat.patch_embed.norm.weight']),
  )
  shapes = {
    'swin.head.weight': (image_classes, width),
    'swin.head.bias': (image_classes,),
    'htsat.tscam_conv.weight': (sound_classes, audio_width, 2, 3),
    'htsat.tscam_conv.bias': (sound_classes,),
    'htsat.head.weight': (sound_classes, sound_classes),
    'htsat.head.bias': (sound_classes,),
  }
  return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | _norm(
    'htsat.norm', audio_width
  )


def _norm(name: str, size: int) -> State:
  """A norm as initialised."""
  return {f'{name}.weight': np.ones(size, np.float32), f'{name}.bias': np.zeros(size, np.float32)}
