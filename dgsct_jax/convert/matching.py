"""Checkpoints of the released few-shot and pre-training models.

CLIP, CLAP and the adapters between them.
"""

import jax
import numpy as np

from dgsct_jax.convert import clap, clip, dgsct, htsat
from dgsct_jax.convert.table import (
  DENSE,
  RAW,
  Drop,
  Plan,
  State,
  Table,
  below,
  nest,
  targets,
  unwrap,
)
from dgsct_jax.convert.table import export as export_table
from dgsct_jax.models import clip as clip_model
from dgsct_jax.models.adapters import Exchange
from dgsct_jax.models.heads.matching import Classes, Matching, Prompts
from dgsct_jax.models.variants import Partial

DEPTHS = (2, 2, 6, 2)  # of the image tower, in the stages of the audio tower
DEAD = Drop('never called')
WORDS = Drop('embedded names of classes; they are looked up again')


MATCHING: Table = (
  nest(clip.vision(DEPTHS), 'ViT.', 'clip/visual/')
  + nest(clip.TEXT, 'text_encoder.', 'clip/text/')
  + nest(clip.WORDS, '', 'clip/text/')
  + nest(clip.SCALE, '', 'clip/')
  + nest(clap.audio_tower(htsat.TABLE), 'htsat.', 'clap/audio/')
  + nest(clap.ROBERTA, 'clap_text_encoder.text_branch.', 'clap/text/')
  + nest(clap.projection(('0', '2'), 'audio_projection'), 'audio_projection.', 'clap/')
  + nest(
    clap.projection(('0', '2'), 'text_projection'), 'clap_text_encoder.text_projection.', 'clap/'
  )
  + nest(clap.SCALES, '', 'clap/')
  + nest(dgsct.exchanges(dgsct.ADAPTER + dgsct.UNUSED['fewshot']), '', 'encoder/')
  + (
    ('clip_adapter.fc.0', 'visual_adapter/down', DENSE),
    ('clip_adapter.fc.2', 'visual_adapter/up', DENSE),
    ('clip_adapter_text.fc.0', 'text_adapter/down', DENSE),
    ('clip_adapter_text.fc.2', 'text_adapter/up', DENSE),
    ('audio_visual_contrastive_learner.fc_a1', 'contrast', DENSE),
    ('prompt_learner.ctx', 'prompt/context', RAW),
    ('prompt_learner.token_prefix', None, WORDS),
    ('prompt_learner.token_suffix', None, WORDS),
    ('prompt_learner.meta_net', None, DEAD),
    ('clap_text_encoder.text_transform', None, DEAD),
    ('CMBS', None, DEAD),
    ('audio_adapter', None, DEAD),
  )
)


def borrow(state: State) -> State:
  """What a checkpoint lacks, from the CLAP file of its audio tower. Raises ValueError."""
  state = unwrap(state)
  if missing := [name for name, _, _ in clap.SCALES if name not in state]:
    raise ValueError(f'No CLAP: {", ".join(missing)} missing among {len(state)} tensors.')
  return {name: state[name] for name, _, _ in clap.SCALES}


def plan(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint, to which `borrow` has given what it lacks; `hint` is not needed."""
  del hint
  state = dgsct.recognise(
    state,
    'few-shot',
    'ViT.class_embedding',
    'prompt_learner.ctx',
    'audio_adapter_blocks_p1.0.my_tokens',
  )
  built = model(state)
  shape = jax.ShapeDtypeStruct
  side = built.clip.visual.image
  batch = {
    'video': shape((1, 1, side, side, 3), np.float32),
    'wave': shape((1, 1, 32000), np.float32),
  }
  return Plan('dgsct', 'matching', state, MATCHING, targets(built, batch))


def model(state: State) -> Matching:
  """A model whose variables have the sizes of a state dict, with one class of no name."""
  openai = {f'visual.{name}': x for name, x in below(state, 'ViT.').items()}
  openai |= below(state, 'text_encoder.') | {clip.OPENAI.words: state[clip.OPENAI.words]}
  towers = clip.sizes(openai, clip.OPENAI, state['ViT.proj'].shape[1])
  words = len(state['prompt_learner.ctx'])
  audio, text = (
    source.sizes(below(state, prefix))
    for source, prefix in ((htsat, 'htsat.'), (clap, 'clap_text_encoder.text_branch.'))
  )
  grid = int(len(state['audio_adapter_blocks_p1.0.conv_adapter.bias']) ** 0.5)
  visual, heard = (Partial(dgsct.adapter(state, stream), gamma=1.0) for stream in ('vis', 'audio'))
  return Matching(
    None,
    clip_model.build('custom', *towers),
    clap.build(
      audio | {'size': grid * audio['patch']}, text, len(state['audio_projection.2.bias'])
    ),
    Classes(((0, *[0] * words, 1, 2),), (1,), ((0, 3, 2),)),
    Partial(Exchange, visual, heard),
    Partial(Prompts, words),
  )


def export(ours: State) -> State:
  """The released names of all that the model has; the release loads them with `strict=False`.

  Names of classes and what is never called are not among them, nor CLAP's factors, which its code
  takes from CLAP's own file.
  """
  state = export_table(ours, MATCHING)
  return {name: x for name, x in state.items() if not name.startswith('logit_scale_')}
