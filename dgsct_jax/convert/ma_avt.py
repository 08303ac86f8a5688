"""Checkpoints of the released MA-AVT training: ViT, prompts and heads in one state dict."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dgsct_jax import tree
from dgsct_jax.convert import dgsct, lavish, table
from dgsct_jax.convert import vit as vit_source
from dgsct_jax.convert.dgsct import NEVER_READ
from dgsct_jax.convert.table import DENSE, RAW, Plan, State, Table, below, nest
from dgsct_jax.models import ma_avt, vit
from dgsct_jax.models.adapters import Exchange, NoExchange
from dgsct_jax.models.lavish import LavishAdapter
from dgsct_jax.models.variants import Partial

IMAGE_CLASSES = 21843

ONE: Table = (  # contrast 'final' and 'blocks_shared'
  ('vis_proj', 'visual_proj_0', DENSE),
  ('audio_proj', 'audio_proj_0', DENSE),
)
EACH: Table = (  # 'blocks'
  ('vis_proj.#', 'visual_proj_#', DENSE),
  ('audio_proj.#', 'audio_proj_#', DENSE),
)
REST: Table = (
  nest(vit_source.TABLE, 'ViT.v.', 'vit/')
  + dgsct.exchanges((*dgsct.ADAPTER, ('gate_tk', 'read_gate', RAW)))
  + (
    ('visual_tokens', 'visual_tokens', RAW),
    ('audio_tokens', 'audio_tokens', RAW),
    ('shared_tokens', 'shared_tokens', RAW),
    ('bg_cls_token', 'background_token', RAW),
    ('visual_attn.qkv', 'visual_attn/qkv', DENSE),
    ('visual_attn.proj', 'visual_attn/proj', DENSE),
    ('audio_attn.qkv', 'audio_attn/qkv', DENSE),
    ('audio_attn.proj', 'audio_attn/proj', DENSE),
    ('shared_attn.qkv', 'shared_attn/qkv', DENSE),
    ('shared_attn.proj', 'shared_attn/proj', DENSE),
    ('fg_class', 'classify', DENSE),
    ('bg_class', 'detect', DENSE),
    ('logit_scale', None, NEVER_READ),
  )
)
TABLE: Table = EACH + REST


def plan(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of MA-AVT; `hint` is not needed."""
  del hint
  names = 'shared_tokens', 'ViT.v.pos_embed', 'fg_class.bias'
  state = dgsct.recognise(state, 'MA-AVT', *names)
  rows = (ONE if 'audio_proj.weight' in state else EACH) + REST
  return Plan('ma-avt', vit_source.variant(sizes(state)), state, rows, shapes(state))


def sizes(state: State) -> dict[str, Any]:
  """The fields of `ViT` that shapes tell."""
  return vit_source.sizes(below(state, 'ViT.v.'))


def model(state: State, listen: Callable[[Any], Any], **fields: Any) -> ma_avt.MAAVT:
  """A model whose variables have the sizes of a state dict.

  Args:
    listen: its front end, of which no shape tells.
    fields: of `MAAVT`, that change no variable.
  """
  own = sizes(state)
  exchange: Any = NoExchange
  if 'audio_adapter_blocks_p1.0.my_tokens' in state:
    exchange = Partial(Exchange, adapter(state, 'vis'), adapter(state, 'audio'))
  projections = {'blocks': 'audio_proj.0.bias', 'final': 'audio_proj.bias'}
  contrast: Any = next((name for name, bias in projections.items() if bias in state), 'none')
  return ma_avt.MAAVT(
    vit.build('custom', heads=max(own['width'] // 64, 1), **own),
    listen,
    classes=len(state['fg_class.bias']),
    prompts=len(state['audio_tokens']),
    shared_prompts=len(state['shared_tokens']),
    lsa='shared_attn.qkv.weight' in state,
    background='bg_class.bias' in state,
    contrast=contrast,
    features=len(state.get(projections.get(contrast, ''), ())),
    exchange=exchange,
    **fields,
  )


def adapter(state: State, stream: str) -> Partial[LavishAdapter]:
  """Makes adapters of the sizes that the first one of a stream has."""
  first = below(state, f'{stream}_adapter_blocks_p1.0.')
  return Partial(LavishAdapter, token_gate='gate_tk' in first, **lavish.fields(first))


def shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the model whose sizes a state dict tells."""
  whole = model(state, lambda picture: picture)
  side = whole.vit.image
  video = jax.ShapeDtypeStruct((1, 1, side, side, 3), np.float32)
  wave = jax.ShapeDtypeStruct((1, 1, side, side), np.float32)
  return table.targets(whole, {'video': video, 'wave': wave})


def export(ours: State) -> State:
  """State dict of the release from our tensors, but for the prefix 'module.'.

  Names that the released network holds and never reads get stand-ins: the ImageNet classifier is 0,
  temperatures are as initialised.
  """
  one = 'params/audio_proj_0/bias' in ours and 'params/audio_proj_1/bias' not in ours
  state = table.export(ours, (ONE if one else EACH) + REST)
  temperature = np.float32(math.log(1 / 0.07))
  scales = [name for name in state if name.startswith('audio_proj.') and name.endswith('.bias')]
  unread: dict[str, Any] = {
    name.replace('audio_proj', 'logit_scale')[:-5]: temperature for name in scales
  }
  if one:
    unread = {'logit_scale': temperature}
  head = np.zeros((IMAGE_CLASSES, ours['params/vit/cls_token'].shape[1]), np.float32)
  unread |= {'ViT.v.head.weight': head, 'ViT.v.head.bias': head[:, 0]}
  return state | {name: np.asarray(x) for name, x in unread.items()}


def export_folded(ours: State) -> State:
  """The same without LSA and projections, for a network that is built without them; see `fold`."""
  params = tree.unflatten(ours)
  folded = jax.device_get(ma_avt.fold(jax.device_put(params['params'])))
  return export(tree.flatten(params | {'params': folded}))
