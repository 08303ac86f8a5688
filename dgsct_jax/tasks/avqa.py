"""Audio-visual question answering (MUSIC-AVQA): a word in answer to a question about a clip."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax import figures, models
from dgsct_jax.data import datasets, negatives, transforms
from dgsct_jax.data.datasets import music_avqa, scene_questions
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.questions import KINDS, Asked, words
from dgsct_jax.models.heads import avqa as head
from dgsct_jax.tasks import Batch, Outputs, Scalars, Task, Weighted, mean_over_clips, share


def build(config: ml_collections.ConfigDict) -> Task:
  """`config.model.head`: how many words and answers, widths of the matching, its weight, initial bias of the LSTM."""
  fields = config.model.head
  model = head.AVQA(
    models.build(config.model),
    head.Matching(tuple(fields.matching)),
    head.QuestionEncoder(fields.words, fields.forget_bias),
    head.Answerer(fields.answers, fields.dropout),
    fields.adapt_negatives,
  )
  asked = functools.cache(lambda: questions(config, 'test'))
  return Task(
    model=model,
    loss=functools.partial(loss, match_weight=fields.match_weight),
    metrics=metrics,
    data=functools.partial(data, config),
    primary='accuracy',
    summarize=of_kinds_asked,
    rows=functools.partial(rows, asked=asked),
    figures=functools.partial(draw, asked=asked, audio=model.encoder.audio),
  )


def build_grounding(config: ml_collections.ConfigDict) -> Task:
  """The pre-stage: plain encoders, and the matching to be learned."""
  matching = head.Matching(tuple(config.model.head.matching))
  return Task(
    model=head.Grounding(models.build(config.model), matching),
    loss=grounding_loss,
    metrics=grounding_metrics,
    data=functools.partial(grounding_data, config),
    primary='accuracy',
  )


def loss(
  outputs: Outputs, batch: Batch, match_weight: float = 0.5
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the answer, and `match_weight` times that of which frames match the sound."""
  answer = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], batch['answer']).mean(
    1
  )
  match = match_weight * match_loss(outputs['match_logits'])
  return mean_over_clips({'answer': answer, 'match': match}, batch['mask'])


def match_loss(match_logits: Float[Array, 'b p t 2']) -> Float[Array, 'b']:
  """Mean cross entropy over the frames of a clip; the first of every second is its own."""
  own = jnp.arange(match_logits.shape[1])[:, None] == 0
  own = jnp.broadcast_to(own, match_logits.shape[:-1]).astype(jnp.int32)
  return optax.softmax_cross_entropy_with_integer_labels(match_logits, own).mean((1, 2))


def metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Share of right answers, in percent: of all questions, of three groups, of nine types."""
  right = np.argmax(outputs['logits'], -1) == np.asarray(batch['answer'])
  of = lambda *kinds: share(right, np.isin(batch['kind'], kinds))
  found = {'accuracy': of(*range(len(KINDS)))}
  for group in dict.fromkeys(group for group, _ in KINDS):
    found[metric_name(group)] = of(*(i for i, name in enumerate(KINDS) if name[0] == group))
  return found | {metric_name(*name): of(i) for i, name in enumerate(KINDS)}


def metric_name(*words: str) -> str:
  return '_'.join(words).lower().replace('-', '_')


def of_kinds_asked(means: Scalars) -> Scalars:
  """Without the types of which there is no question."""
  return {name: value for name, value in means.items() if not math.isnan(value)}


def rows(outputs: Outputs, batch: Batch, asked: Callable[[], Asked]) -> list[dict[str, Any]]:
  """The most likely answer to each question, beside what is known of it."""
  found = []
  alone = np.asarray(outputs['logits'], np.float64)[:, 0]  # the test questions come one by one
  for index, logits in zip(batch['index'], alone):
    question, best = asked().questions[index], int(np.argmax(logits))
    found.append(
      {
        'question_id': question['question_id'],
        'video_id': question['video_id'],
        'type': json.loads(question['type']),
        'question': ' '.join(words(question)),
        'answer': question['anser'],
        'predicted': asked().answers[best],
        'confidence': round(float(1 / np.exp(logits - logits[best]).sum()), 4),
      }
    )
  return found


def draw(
  outputs: Outputs, batch: Batch, folder: Path, asked: Callable[[], Asked], audio: nn.Module
) -> None:
  """Draws each question's clip, what of it was attended to, and the answer."""
  for i, row in enumerate(rows(outputs, batch, asked)):
    wave = np.asarray(batch['wave'][i])
    figures.clip(
      figures.pixels(np.asarray(batch['video'][i])),
      wave,
      {},
      (),
      visual_map=np.asarray(outputs['looks'][i]),
      audio_map=figures.unfold(np.asarray(outputs['audio_map'][i]), wave.shape[1], audio),
      shares={
        'seen for it': np.asarray(outputs['visual_seconds'][i, 0]),
        'heard for it': np.asarray(outputs['audio_seconds'][i, 0]),
      },
      title='{question}? {predicted} {confidence:.2f} (true: {answer})'.format(**row),
    ).savefig(folder / f'question_{i}.png')


def data(config: ml_collections.ConfigDict, split: str) -> Dataset:
  """Questions of `config.data`, with the frames and sounds of their clips.

  In training with frames of other clips, too. `blank`: 'video', 'wave' or both are zeros; what is
  right with both is guessed from the question.
  """
  fields, size = config.data, config.model.visual.image
  asked = questions(config, split)
  steps, names = [*_decode(config)], ['video', 'wave', 'question', 'answer', 'kind']
  if split == 'train':
    asked = dataclasses.replace(asked, at_once=fields.questions_at_once)
    steps.append(negatives.OtherFrames(asked, size, fields.negatives))
    names.append('negative')
  blank = fields.blank + ('negative',) * ('video' in fields.blank and split == 'train')
  return Dataset(asked, (*steps, transforms.Blank(blank), transforms.Keep(tuple(names))))


def questions(config: ml_collections.ConfigDict, split: str) -> Asked:
  """The questions of a split, each with its clip.

  Raises:
    ValueError: they are not there, or the model knows another number of words or answers.
  """
  fields = config.data
  if 'source' in fields:
    recipe = {name: fields[name] for name in ('source', 'media', 'seed')}
    recipe |= {name: fields[name].to_dict() for name in ('knobs', 'clips')}
    datasets.compose(fields.name, fields.dir, **recipe)
    classes = datasets.scene_source(fields.source, fields.media).classes
    asked = scene_questions.load(
      fields.dir, fields.name, split, classes, fields.knobs.size, fields.seed, fields.each[split]
    )
  else:
    try:
      asked = music_avqa.load(
        fields.dir, split, annotations=fields.annotations, subset=fields.subset
      )
    except ValueError as error:
      raise ValueError(
        f'config.data.dir={fields.dir!r}: {error}\nconfigs/avqa.py:scenes needs no '
        'data: it asks about clips that it composes.'
      ) from error
  found = {'words': len(asked.words), 'answers': len(asked.answers)}
  known = {name: config.model.head[name] for name in found}
  if known != found:
    raise ValueError(
      f'config.model.head has {known}, the questions of {fields.name!r} have '
      f'{found}; set these numbers.'
    )
  return asked


def grounding_data(config: ml_collections.ConfigDict, split: str) -> Dataset:
  """Single seconds of the clips: `video` [2 h w 3], of which the second is of another clip."""
  seconds = negatives.Seconds(questions(config, split).clips, config.data.segments)
  steps = negatives.OtherFrame(seconds), *_decode(config, segments=1)
  return Dataset(seconds, (*steps, transforms.Keep(('video', 'wave'))))


def grounding_loss(
  outputs: Outputs, batch: Batch
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  return mean_over_clips({'match': match_loss(outputs['match_logits'])}, batch['mask'])


def grounding_metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Share of frames that are rightly taken for the clip's own or another's, in percent."""
  own = np.argmax(outputs['match_logits'], -1)[..., 0] == np.array([1, 0])
  return {'accuracy': (100 * own.mean(1), np.ones(len(own)))}


def _decode(config: ml_collections.ConfigDict, segments: int = 0) -> tuple[Any, ...]:
  return (
    transforms.DecodeFrames(config.model.visual.image),
    transforms.DecodeWave(segments or config.data.segments, config.model.audio.sample_rate),
  )
