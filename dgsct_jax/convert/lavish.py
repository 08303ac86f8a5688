"""Checkpoints of the released LAVISH on AVE: one Swin V2, adapters and head in one state dict."""

from typing import Any

import jax
import numpy as np

from dgsct_jax.convert import dgsct
from dgsct_jax.convert import swin_v2 as swin_source
from dgsct_jax.convert.dgsct import NEVER_READ
from dgsct_jax.convert.table import DENSE, Plan, State, Table, below, nest, targets
from dgsct_jax.models import swin_v2
from dgsct_jax.models.adapters import Exchange
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads.lavish import Classifier, Seconds
from dgsct_jax.models.lavish import LavishAdapter
from dgsct_jax.models.variants import Partial

AVE: Table = (
  nest(swin_source.TABLE, 'swin.', 'encoder/visual/')
  + nest(dgsct.exchanges((*dgsct.ADAPTER, ('gate_tk', None, NEVER_READ))), '', 'encoder/')
  + (
    ('mlp_class', 'classify/hidden', DENSE),
    ('mlp_class_2', 'classify/out', DENSE),
    ('adapter_token_downsampler', None, NEVER_READ),
  )
)


def plan_ave(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of the released AVE training; `hint` is not needed."""
  del hint
  state = dgsct.recognise(
    state,
    'LAVISH AVE',
    'audio_adapter_blocks_p1.0.my_tokens',
    'swin.patch_embed.proj.weight',
    'mlp_class_2.bias',
  )
  return Plan('lavish', 'ave', state, AVE, ave_shapes(state))


def ave_shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the AVE model whose sizes a state dict tells."""
  sizes = swin_source.sizes(below(state, 'swin.'))
  side = sizes['patch'] * 2 ** (len(sizes['depths']) - 1)  # no parameter depends on the picture
  swin = swin_v2.build('custom', image=side, **sizes)
  exchange = Partial(Exchange, adapter(state, 'vis'), adapter(state, 'audio'))
  classify = Classifier(len(state['mlp_class_2.bias']), len(state['mlp_class.bias']))
  picture = jax.ShapeDtypeStruct((1, 1, side, side, 3), np.float32)
  encoder = DualEncoder(swin, swin, exchange, split_audio=True)
  return targets(Seconds(encoder, classify), {'video': picture, 'wave': picture})


def adapter(state: State, stream: str) -> Partial[LavishAdapter]:
  """Makes adapters of the sizes that the first one of a stream has."""
  return Partial(LavishAdapter, **fields(below(state, f'{stream}_adapter_blocks_p1.0.')))


def fields(first: State) -> dict[str, Any]:
  """What the tensors of an adapter tell of it."""
  width = first['my_tokens'].shape[1]
  return dict(
    reduction=width // len(first['down_sampler.weight']),
    groups=width // first['down_sampler.weight'].shape[1],
    tokens=len(first['my_tokens']),
    batch_norm='bn1.weight' in first,
    gate='gate' in first,
    norm_before='ln_before.weight' in first,
    norm_post='ln_post.weight' in first,
  )
