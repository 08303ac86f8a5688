"""Checkpoints of the released MUSIC-AVQA model and of its grounding pre-stage."""

import jax
import numpy as np

from dgsct_jax.convert import dgsct
from dgsct_jax.convert.dgsct import NEVER_READ
from dgsct_jax.convert.table import (
  DENSE,
  MHA,
  NORM,
  ONE_WAY_LSTM,
  RAW,
  Drop,
  Plan,
  State,
  Table,
  nest,
  side,
  targets,
)
from dgsct_jax.models.heads import avqa

FROZEN = Drop('frozen, as they were: convert the file that it came from')

MATCHING: Table = (
  ('fc_a1', 'audio_fc_0', DENSE),
  ('fc_a2', 'audio_fc_1', DENSE),
  ('fc_gl', 'visual_fc', DENSE),
  ('fc1', 'match_0', DENSE),
  ('fc2', 'match_1', DENSE),
  ('fc3', 'match_2', DENSE),
  ('fc4', 'match_3', DENSE),
)
# Below `matching`: the file is for config.init.ground.
GROUNDING: Table = (*MATCHING, ('swin', None, FROZEN), ('htsat', None, FROZEN))
HEAD: Table = nest(MATCHING, '', 'matching/') + (
  ('question_encoder.word2vec.weight', 'ask/words/embedding', RAW),
  ('question_encoder.lstm', 'ask/lstm', ONE_WAY_LSTM),
  ('question_encoder.fc', 'ask/out', DENSE),
  ('attn_v', 'answer/visual/attn', MHA),
  ('linear11', 'answer/visual/linear1', DENSE),
  ('linear12', 'answer/visual/linear2', DENSE),
  ('norm1', 'answer/visual/norm', NORM),
  ('attn_a', 'answer/audio/attn', MHA),
  ('linear21', 'answer/audio/linear1', DENSE),
  ('linear22', 'answer/audio/linear2', DENSE),
  ('norm2', 'answer/audio/norm', NORM),
  ('fc_fusion', 'answer/fusion', DENSE),
  ('fc_ans', 'answer/answer', DENSE),
  ('fc_a1_pure', None, NEVER_READ),
  ('fc_a2_pure', None, NEVER_READ),
  ('norm3', None, NEVER_READ),
)
AVQA: Table = nest(dgsct.encoder('avqa'), '', 'encoder/') + HEAD


def plan(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of the released AVQA task; `hint` is not needed."""
  del hint
  state = dgsct.recognise(
    state,
    'AVQA',
    'audio_adapter_blocks_p1.0.my_tokens',
    'swin.patch_embed.proj.weight',
    'question_encoder.word2vec.weight',
  )
  return Plan('dgsct', 'avqa', state, AVQA, shapes(state))


def plan_grounding(state: State, hint: str = '') -> Plan:
  """Recognises a checkpoint of the grounding pre-stage; `hint` is not needed."""
  del hint
  state = dgsct.recognise(state, 'grounding', 'fc_gl.weight', 'fc4.weight')
  return Plan('dgsct', 'avqa_grounding', state, GROUNDING, matching_shapes(state))


def shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the AVQA model whose sizes a state dict tells."""
  encoder, image = dgsct.model(state)
  ask = avqa.QuestionEncoder(side(state, 93, ('question_encoder.word2vec.weight', 0, 2)))
  answer = avqa.Answerer(side(state, 42, ('fc_ans.bias', 0, 1)))
  model = avqa.AVQA(encoder, matching(state), ask, answer)
  return targets(
    model,
    {
      'video': jax.ShapeDtypeStruct((1, 2, image, image, 3), np.float32),
      'wave': jax.ShapeDtypeStruct((1, 2, 32000), np.float32),
      'question': jax.ShapeDtypeStruct((1, 1, 2), np.int32),
    },
  )


def matching_shapes(state: State) -> dict[str, tuple[int, ...]]:
  """Targets of the matching alone."""
  seen, heard = side(state, 512, ('fc_gl.bias', 0, 1)), side(state, 768, ('fc_a1.weight', 1, 2))
  return targets(
    matching(state),
    jax.ShapeDtypeStruct((1, 1, heard), np.float32),
    jax.ShapeDtypeStruct((1, 1, 1, 1, seen), np.float32),
  )


def matching(state: State) -> avqa.Matching:
  """The matching head with the sizes of a state dict."""
  hidden = zip(('fc1', 'fc2', 'fc3'), (512, 256, 128))
  return avqa.Matching(tuple(side(state, width, (f'{name}.bias', 0, 1)) for name, width in hidden))
