"""Audio-visual question answering (MUSIC-AVQA): one-word answers to questions about clips."""

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

BEST = 5  # answers that are shown


def build(config: ml_collections.ConfigDict) -> Task:
  """The task with the head of `config.model.head`.

  Its fields are the numbers of `words` and `answers`, the widths of the `matching` and the weight
  of its loss, `forget_bias` of the LSTM, `dropout`, `adapt_negatives` and `width`.
  """
  fields = config.model.head
  kind = datasets.of(config.data)
  if kind.vocabulary is None:
    raise ValueError(
      f'config.data.kind is {config.data.kind!r}, which has no questions; choose music_avqa or'
      ' scene_questions.'
    )
  vocabulary, answers = kind.vocabulary(config.data)
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
    fields.get('width', 0),
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
  """The pre-stage: encoders without adapters, and the matching, which is trained."""
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
      rate=rate,
    ),
  )


def loss(
  outputs: Outputs, batch: Batch, match_weight: float = 0.5
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the answers, plus `match_weight` times that of the matching."""
  answer = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], batch['answer']).mean(
    1
  )
  match = match_weight * match_loss(outputs['match_logits'])
  return mean_over_clips({'answer': answer, 'match': match}, batch['valid'])


def match_loss(match_logits: Float[Array, 'b p t 2']) -> Float[Array, 'b']:
  """Mean cross entropy of the matching over the frames of a clip.

  The first frame of every second is the clip's own.
  """
  own = jnp.arange(match_logits.shape[1])[:, None] == 0
  own = jnp.broadcast_to(own, match_logits.shape[:-1]).astype(jnp.int32)
  return optax.softmax_cross_entropy_with_integer_labels(match_logits, own).mean((1, 2))


def metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Accuracy in percent over all questions, over three groups and over nine types of them."""
  right = np.argmax(outputs['logits'], -1) == np.asarray(batch['answer'])
  of = lambda *kinds: share(right, np.isin(batch['kind'], kinds))
  accuracies = {'accuracy': of(*range(len(KINDS)))}
  for group in dict.fromkeys(group for group, _ in KINDS):
    accuracies[metric_name(group)] = of(*(i for i, name in enumerate(KINDS) if name[0] == group))
  return accuracies | {metric_name(*name): of(i) for i, name in enumerate(KINDS)}


def metric_name(*words: str) -> str:
  """('Audio-Visual', 'Counting') -> 'audio_visual_counting'."""
  return '_'.join(words).lower().replace('-', '_')


def of_kinds_asked(means: Means) -> Scalars:
  """The metrics without those of question types that the split does not have."""
  return {name: float(value) for name, value in means.items() if not np.isnan(value)}


def ask(texts: Sequence[str], vocabulary: Sequence[str]) -> Example:
  """Encodes questions as users type them. Raises ValueError; see `type_in`."""
  return {'question': np.stack([type_in(text, vocabulary) for text in texts])}


def show(
  clip: Clip,
  outputs: Outputs,
  *,
  answers: Sequence[str],
  encoder: DualEncoder,
  asked: Callable[[], Asked],
) -> View:
  """The five best answers to each question, and the attention over seconds and over places.

  The attention over the seconds depends on the question; that over the picture depends on the sound
  only.

  Args:
    asked: returns the questions of the test split, to which the index of a known clip refers.
  """
  texts: tuple[str, ...] = clip.asked
  known: dict[str, Any] = {}
  if 'index' in clip.known:
    asked_here = [asked().questions[i] for i in asked().groups[int(clip.known['index'])]]
    texts = tuple(f'{" ".join(words(question))}?' for question in asked_here)
    known = _known(asked_here[0])
  looks = clip.join(outputs['looks'])
  replies: list[dict[str, Any]] = []
  rows: list[Steps] = []
  tracks = views.perception(clip, encoder, looks, clip.join(outputs['audio_map']))
  for i, text in enumerate(texts):
    best = likeliest(outputs['logits'][0, i], answers)
    seen, heard = outputs['visual_seconds'][0, i], outputs['audio_seconds'][0, i]
    seconds = [
      {'second': start, 'seen': float(v), 'heard': float(a)}
      for start, v, a in zip(clip.seconds, seen, heard)
    ]
    replies.append({'question': text, 'answers': best, 'seconds': seconds})
    which = f'Q{i + 1}' if len(texts) > 1 else 'it'
    for name, weights in ((f'seen for {which}', seen), (f'heard for {which}', heard)):
      rows.append(Steps(name, weights / weights.max(), float(1 / (weights.size * weights.max()))))
  top = [reply['answers'][0] for reply in replies]
  summaries = [f'{text} {t["answer"]} {t["confidence"]:.2f}' for text, t in zip(texts, top)]
  if known:
    known |= {'predicted': top[0]['answer'], 'confidence': round(top[0]['confidence'], 4)}
    summaries[0] += f' (true: {known["answer"]})'
  regions = [
    {'second': second, 'region': region(weights)}
    for second, weights in zip(clip.seconds, tracks[1].weights)
  ]
  where = f'seconds at {", ".join(map(str, clip.seconds))}'
  return View(
    name='answers',
    title=' · '.join([f'{clip.title}: {" · ".join(summaries)}', where, *clip.notes]),
    record=known | {'questions': replies, 'looks': regions},
    lines=tuple(line for reply in replies for line in _lines(reply)),
    tracks=(*tracks, *rows),
    overlay=tracks[1],
    captions=(f'{texts[0]} {top[0]["answer"]}',) * len(clip.seconds) if len(texts) == 1 else (),
  )


def likeliest(logits: Float[np.ndarray, 'c'], answers: Sequence[str]) -> list[dict[str, Any]]:
  """The most probable answers, best first, with their probabilities."""
  probability = views.softmax(logits)
  return [
    {'answer': answers[i], 'confidence': float(probability[i])}
    for i in np.argsort(-probability)[:BEST]
  ]


def region(weights: Float[np.ndarray, 'y x']) -> list[float]:
  """The cell with most attention: left, top, right, bottom, as shares of the picture's sides."""
  height, width = weights.shape
  row, column = divmod(int(weights.argmax()), width)
  edges = (column / width, row / height, (column + 1) / width, (row + 1) / height)
  return [round(edge, 3) for edge in edges]


def _known(question: Any) -> dict[str, Any]:
  """The fields of a question in the label file."""
  return {
    'question_id': question['question_id'],
    'video_id': question['video_id'],
    'type': json.loads(question['type']),
    'question': ' '.join(words(question)),
    'answer': question['anser'],
  }


def _lines(reply: dict[str, Any]) -> tuple[str, str]:
  best = ', '.join(f'{a["answer"]} {a["confidence"]:.2f}' for a in reply['answers'])
  return reply['question'], f'  {best}'


def data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Questions of `config.data`, with the frames and sounds of their clips.

  The training split has frames of other clips too. `blank` names the fields that are replaced by
  zeros, 'video', 'wave' or both; with both, answers can only be guessed from the question.
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
    ValueError: there are none, or the model has another number of words or answers.
  """
  kind = datasets.of(config.data)
  assert kind.questions is not None  # as `build` has checked
  asked = kind.questions(config.data, split)
  _check_vocabulary(config, asked.words, asked.answers)
  return asked


def _check_vocabulary(
  config: ml_collections.ConfigDict, words: Sequence[str], answers: Sequence[str]
) -> None:
  sizes = {'words': len(words), 'answers': len(answers)}
  known = {name: config.model.head[name] for name in sizes}
  if known != sizes:
    raise ValueError(
      f'config.model.head has {known}, the questions of {config.data.name!r} have {sizes}; set'
      ' these numbers.'
    )


def grounding_data(
  config: ml_collections.ConfigDict, decode: tuple[grain.transforms.Map, ...], split: str
) -> Dataset:
  """Single seconds of the clips; the second frame of `video` [2 h w 3] is of another clip."""
  seconds = negatives.Seconds(questions(config, split).clips, config.data.segments)
  keep = transforms.Keep(('video', 'wave'))
  return Dataset(seconds, (negatives.OtherFrame(seconds), *decode, keep))


def grounding_loss(
  outputs: Outputs, batch: Batch
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Cross entropy of the matching."""
  return mean_over_clips({'match': match_loss(outputs['match_logits'])}, batch['valid'])


def grounding_metrics(outputs: Outputs, batch: Batch) -> dict[str, Weighted]:
  """Accuracy in percent over the two frames: the clip's own, and that of another clip."""
  own = np.argmax(outputs['match_logits'], -1)[..., 0] == np.array([1, 0])
  return {'accuracy': (100 * own.mean(1), np.ones(len(own)))}
