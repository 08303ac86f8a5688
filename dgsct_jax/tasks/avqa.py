"""Audio-visual question answering (MUSIC-AVQA): a word in answer to a question about a clip."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float

from dgsct_jax import models
from dgsct_jax.data import datasets, negatives, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.pipeline import Dataset
from dgsct_jax.data.questions import KINDS, LENGTH, Asked, type_in, words
from dgsct_jax.data.transforms import Example
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import avqa as head
from dgsct_jax.tasks import views
from dgsct_jax.tasks.inputs import audio_visual
from dgsct_jax.tasks.task import (
  Batch,
  Inputs,
  Means,
  Outputs,
  Scalars,
  Task,
  View,
  Weighted,
  floats,
  integers,
  mean_over_clips,
  share,
)
from dgsct_jax.tracks import Steps

BEST = 5  # answers


def build(config: ml_collections.ConfigDict) -> Task:
  """The task of `config.model.head`.

  How many words and answers, widths of the matching, its weight, initial bias of the LSTM.
  """
  fields = config.model.head
  vocabulary, answers = datasets.of(config.data).vocabulary(config.data)
  _check_vocabulary(config, vocabulary, answers)
  encoder = models.build(config.model)
  t, q, image = config.data.segments, config.data.questions_at_once, config.model.visual.image
  inputs = audio_visual(
    config,
    encoder,
    negative=floats(t, image, image, 3),
    question=integers(q, LENGTH),
    answer=integers(q),
    kind=integers(q),
  )
  model = head.AVQA(
    encoder,
    head.Matching(tuple(fields.matching)),
    head.QuestionEncoder(fields.words, fields.forget_bias),
    head.Answerer(fields.answers, fields.dropout),
    fields.adapt_negatives,
  )
  return Task(
    model=model,
    loss=functools.partial(loss, match_weight=fields.match_weight),
    metrics=metrics,
    data=functools.partial(data, config, inputs.decode),
    primary='accuracy',
    inputs=inputs,
    show=functools.partial(
      show,
      answers=answers,
      encoder=encoder,
      asked=functools.cache(lambda: questions(config, 'test')),
    ),
    ask=functools.partial(ask, vocabulary=vocabulary),
    summarize=of_kinds_asked,
  )


def build_grounding(config: ml_collections.ConfigDict) -> Task:
  """The pre-stage: plain encoders, and the matching to be learned."""
  matching = head.Matching(tuple(config.model.head.matching))
  encoder = models.build(config.model)
  size, rate = config.model.visual.image, config.model.audio.sample_rate
  decode = (transforms.DecodeFrames(size, *encoder.visual.pixels), transforms.DecodeWave(1, rate))
  kind = datasets.of(config.data)
  return Task(
    model=head.Grounding(encoder, matching),
    loss=grounding_loss,
    metrics=grounding_metrics,
    data=functools.partial(grounding_data, config, decode),
    primary='accuracy',
    inputs=Inputs(
      spec={'video': floats(2, size, size, 3), 'wave': floats(1, rate)},
      windows=functools.partial(kind.windows, config.data),
      decode=decode,
      side=kind.side(config.data),
      pixels=encoder.visual.pixels,
    ),
  )


def loss(
  outputs: Outputs, batch: Batch, match_weight: float = 0.5
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the answer, and `match_weight` times that of which frames match the sound."""
  answer = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], batch['answer']).mean(
    1
  )
  match = match_weight * match_loss(outputs['match_logits'])
  return mean_over_clips({'answer': answer, 'match': match}, batch['valid'])


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


def of_kinds_asked(means: Means) -> Scalars:
  """Without the types of which there is no question."""
  return {name: float(value) for name, value in means.items() if not np.isnan(value)}


def ask(texts: Sequence[str], vocabulary: Sequence[str]) -> Example:
  """Questions as someone types them, as the model takes them. Raises ValueError; see `type_in`."""
  return {'question': np.stack([type_in(text, vocabulary) for text in texts])}


def show(
  clip: Clip,
  outputs: Outputs,
  *,
  answers: Sequence[str],
  encoder: DualEncoder,
  asked: Callable[[], Asked],
) -> View:
  """The five best answers to each question, which seconds they rest on, and what is looked at.

  What is looked at depends on the sound, not on the question; the seconds depend on the question.

  Args:
    asked: the questions of the test split, one of which is known by its index.
  """
  texts, known = clip.asked, {}
  if 'index' in clip.known:
    asked_here = [asked().questions[i] for i in asked().groups[int(clip.known['index'])]]
    texts = tuple(f'{" ".join(words(question))}?' for question in asked_here)
    known = _known(asked_here[0])
  looks, told, rows = clip.join(outputs['looks']), [], []
  tracks = views.perception(clip, encoder, looks, clip.join(outputs['audio_map']))
  for i, text in enumerate(texts):
    best = likeliest(outputs['logits'][0, i], answers)
    seen, heard = outputs['visual_seconds'][0, i], outputs['audio_seconds'][0, i]
    seconds = [
      {'second': start, 'seen': float(v), 'heard': float(a)}
      for start, v, a in zip(clip.seconds, seen, heard)
    ]
    told.append({'question': text, 'answers': best, 'seconds': seconds})
    which = f'Q{i + 1}' if len(texts) > 1 else 'it'
    for name, weights in ((f'seen for {which}', seen), (f'heard for {which}', heard)):
      rows.append(Steps(name, weights / weights.max(), float(1 / (weights.size * weights.max()))))
  best = [found['answers'][0] for found in told]
  said = [f'{t} {b["answer"]} {b["confidence"]:.2f}' for t, b in zip(texts, best)]
  if known:
    known |= {'predicted': best[0]['answer'], 'confidence': round(best[0]['confidence'], 4)}
    said[0] += f' (true: {known["answer"]})'
  regions = [
    {'second': second, 'region': region(weights)}
    for second, weights in zip(clip.seconds, tracks[1].weights)
  ]
  where = f'seconds at {", ".join(map(str, clip.seconds))}'
  return View(
    name='answers',
    title=' · '.join([f'{clip.title}: {" · ".join(said)}', where, *clip.notes]),
    record=known | {'questions': told, 'looks': regions},
    lines=tuple(line for found in told for line in _lines(found)),
    tracks=(*tracks, *rows),
    overlay=tracks[1],
    captions=(f'{texts[0]} {best[0]["answer"]}',) * len(clip.seconds) if len(texts) == 1 else (),
  )


def likeliest(logits: Float[np.ndarray, 'c'], answers: Sequence[str]) -> list[dict[str, Any]]:
  """The best answers, best first, and how sure the model is of each."""
  probability = views.softmax(logits)
  return [
    {'answer': answers[i], 'confidence': float(probability[i])}
    for i in np.argsort(-probability)[:BEST]
  ]


def region(weights: Float[np.ndarray, 'y x']) -> list[float]:
  """Left, top, right, bottom, in shares of the picture, of where most is looked at."""
  height, width = weights.shape
  row, column = divmod(int(weights.argmax()), width)
  edges = (column / width, row / height, (column + 1) / width, (row + 1) / height)
  return [round(edge, 3) for edge in edges]


def _known(question: Any) -> dict[str, Any]:
  """What the label file says of a question."""
  return {
    'question_id': question['question_id'],
    'video_id': question['video_id'],
    'type': json.loads(question['type']),
    'question': ' '.join(words(question)),
    'answer': question['anser'],
  }


def _lines(found: dict[str, Any]) -> tuple[str, str]:
  best = ', '.join(f'{a["answer"]} {a["confidence"]:.2f}' for a in found['answers'])
  return found['question'], f'  {best}'


def data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Questions of `config.data`, with the frames and sounds of their clips.

  In training with frames of other clips, too. `blank`: 'video', 'wave' or both are zeros; what is
  right with both is guessed from the question.
  """
  fields, asked = config.data, questions(config, split)
  steps, names, blank = [*decode], ['video', 'wave', 'question', 'answer', 'kind'], fields.blank
  if split == 'train':
    asked = dataclasses.replace(asked, at_once=fields.questions_at_once)
    steps.append(negatives.OtherFrames(asked, decode[0], fields.negatives))
    names.append('negative')
    blank += ('negative',) * ('video' in blank)
  return Dataset(asked, (*steps, transforms.Blank(blank), transforms.Keep(tuple(names))))


def questions(config: ml_collections.ConfigDict, split: str) -> Asked:
  """The questions of a split, each with its clip.

  Raises:
    ValueError: they are not there, or the model knows another number of words or answers.
  """
  asked = datasets.of(config.data).questions(config.data, split)
  _check_vocabulary(config, asked.words, asked.answers)
  return asked


def _check_vocabulary(
  config: ml_collections.ConfigDict, words: Sequence[str], answers: Sequence[str]
) -> None:
  found = {'words': len(words), 'answers': len(answers)}
  known = {name: config.model.head[name] for name in found}
  if known != found:
    raise ValueError(
      f'config.model.head has {known}, the questions of {config.data.name!r} have {found}; set'
      ' these numbers.'
    )


def grounding_data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Single seconds of the clips: `video` [2 h w 3], of which the second is of another clip."""
  seconds = negatives.Seconds(questions(config, split).clips, config.data.segments)
  keep = transforms.Keep(('video', 'wave'))
  return Dataset(seconds, (negatives.OtherFrame(seconds), *decode, keep))


def grounding_loss(
  outputs: Outputs, batch: Batch
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  return mean_over_clips({'match': match_loss(outputs['match_logits'])}, batch['valid'])


def grounding_metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Share of frames that are rightly taken for the clip's own or another's, in percent."""
  own = np.argmax(outputs['match_logits'], -1)[..., 0] == np.array([1, 0])
  return {'accuracy': (100 * own.mean(1), np.ones(len(own)))}
