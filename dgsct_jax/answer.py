"""What an AVQA model answers about any video: python -m dgsct_jax.predict ... --question TEXT

For each file there is a folder with

  answers.json    the five best answers to every question, which seconds they rest on, and where in
                  them the sound is looked for
  question_1.png  frames, sound and attention on one axis of time; one for each question
  film.mp4        the video with what is looked at drawn over it, and its sound

A model hears and sees as many seconds as in training, spread over the file by the rule by which the
data set is built. What is looked at depends on the sound, not on the question; which seconds the
answer rests on depends on the question.
"""

import dataclasses
import difflib
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Int, UInt8

from dgsct_jax import figures, film, predict, tree
from dgsct_jax.data import cut, datasets, media, scene_questions, transforms
from dgsct_jax.data.datasets import music_avqa
from dgsct_jax.data.questions import LENGTH

BEST = 5  # answers
Outputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model and what it is asked."""

  config: ml_collections.ConfigDict
  workdir: Path
  step: int  # of the checkpoint
  answers: Sequence[str]
  audio: Any  # the audio backbone
  perceive: Callable[[np.ndarray, np.ndarray], Outputs]  # video, wave -> all but the answer
  reply: Callable[[Outputs, np.ndarray], Outputs]  # to questions

  @property
  def seconds(self) -> int:
    """That the model takes."""
    return self.config.data.segments


def read_questions(path: Path) -> list[str]:
  """The lines of a file that are not empty."""
  return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def prepare(
  workdir: Path, init: Sequence[str], asked: Sequence[str]
) -> Callable[[Path, Path], None]:
  """Restores a run that answers these questions about (file, folder for results).

  Raises:
    ValueError: it is no run of AVQA, or a question is one that it cannot know.
  """
  config = predict.read_config(workdir)
  if config.task != 'avqa':
    raise ValueError(f'{workdir} is a run of the task {config.task!r}, which takes no questions.')
  words, answers = vocabulary(config)
  numbers = [encode(text, words) for text in asked]  # before the model is read, which takes longer
  model = predict.restore(workdir, init)
  net = model.task.model
  variables = {'params': tree.merge(model.params, model.frozen), 'batch_stats': model.batch_stats}

  def run(method: str) -> Callable[..., Outputs]:
    apply = jax.jit(functools.partial(net.apply, method=method))
    return lambda *args: jax.device_get(apply(variables, *args))

  ready = Run(
    model.config, workdir, model.step, answers, net.encoder.audio, run('perceive'), run('reply')
  )
  return functools.partial(answer, ready, list(zip(asked, numbers)))


def vocabulary(config: ml_collections.ConfigDict) -> tuple[Sequence[str], Sequence[str]]:
  """The words and answers that a model knows."""
  if 'source' in config.data:
    return scene_questions.vocabulary(datasets.class_names(config.data.name, config.data.source))
  return music_avqa.WORDS, music_avqa.ANSWERS


def encode(text: str, words: Sequence[str]) -> Int[np.ndarray, '14']:
  """The numbers of the words of a question as someone types it.

  Raises:
    ValueError: there are none or too many, or some are unknown; known ones like them are named.
  """
  typed = text.strip().rstrip('?？').split()
  known = {word.lower(): word for word in reversed(words[1:])}
  found = [word if word in words[1:] else known.get(word.lower()) for word in typed]
  unknown = [word for word, place in zip(typed, found) if place is None]
  if unknown:
    near = (
      '{!r} (near to it: {})'.format(
        word,
        ', '.join(known[name] for name in difflib.get_close_matches(word.lower(), known, 3, 0)),
      )
      for word in unknown
    )
    raise ValueError(f'The model does not know {"; ".join(near)} in {text!r}.')
  if not 0 < len(found) <= LENGTH:
    raise ValueError(f'{text!r} has {len(found)} words; a question has 1 to {LENGTH}.')
  numbers = [words.index(word) for word in found]
  return np.int32(numbers + [0] * (LENGTH - len(numbers)))


def answer(run: Run, asked: Sequence[tuple[str, np.ndarray]], path: Path, folder: Path) -> None:
  """Prints the answers to questions about a file, and writes them as JSON, figures and a film.

  Raises:
    MediaError, ValueError, OSError, av.FFmpegError: the file cannot be used, or a result written.
  """
  clip = predict.open_clip(path, run.config)
  starts = cut.spread(max(1, int(clip.length.seconds)), run.seconds)
  print(
    f'{path}: {clip.seconds} s, of which the model gets the seconds at '
    f'{", ".join(map(str, starts))}'
  )
  for note in clip.notes:
    print(f'  note: {note}')
  frames, batch = example(run, clip, starts)
  perceived = run.perceive(batch['video'][None], batch['wave'][None])
  folder.mkdir(parents=True, exist_ok=True)
  looks, told = perceived['looks'][0], []
  replies = run.reply(perceived, np.stack([numbers for _, numbers in asked])[None])
  for i, (text, _) in enumerate(asked):
    best = likeliest(replies['logits'][0, i], run.answers)
    line = ', '.join(f'{found["answer"]} {found["confidence"]:.2f}' for found in best)
    print(f'  {text}\n    {line}', flush=True)
    seen, heard = replies['visual_seconds'][0, i], replies['audio_seconds'][0, i]
    told.append(
      {
        'question': text,
        'answers': best,
        'seconds': [
          {'second': start, 'seen': float(v), 'heard': float(a)}
          for start, v, a in zip(starts, seen, heard)
        ],
      }
    )
    wave = batch['wave']
    figures.clip(
      frames,
      wave,
      {},
      (),
      visual_map=looks,
      shares={'seen for it': seen, 'heard for it': heard},
      audio_map=figures.unfold(perceived['audio_map'][0], wave.shape[1], run.audio),
      title=f'{path.name}: {text} {best[0]["answer"]} {best[0]["confidence"]:.2f} · seconds at '
      f'{", ".join(map(str, starts))}',
    ).savefig(folder / f'question_{i + 1}.png')
  (folder / 'answers.json').write_text(
    json.dumps(
      {
        'file': str(path),
        'seconds': clip.seconds,
        'notes': clip.notes,
        'workdir': str(run.workdir),
        'step': run.step,
        'questions': told,
        'looks': [
          {'second': start, 'region': region(weights)} for start, weights in zip(starts, looks)
        ],
      },
      indent=2,
      ensure_ascii=False,
    )
    + '\n',
    encoding='utf-8',
  )
  if clip.length.pictures:
    nearest = [int(np.abs(np.array(starts) - second).argmin()) for second in range(clip.seconds)]
    caption = f'{asked[0][0]} {told[0]["answers"][0]["answer"]}' if len(asked) == 1 else ''
    film.draw(
      path,
      folder / 'film.mp4',
      clip.length.seconds,
      clip.length.rate,
      looks[nearest],
      [caption] * clip.seconds,
    )


def example(
  run: Run, clip: predict.Clip, starts: Sequence[int]
) -> tuple[UInt8[np.ndarray, 't h w 3'], dict[str, np.ndarray]]:
  """The seconds of a file that the model gets: to look at, and as in training."""
  config = run.config
  side = config.data.knobs.size if 'knobs' in config.data else 256  # of stored frames
  pictures = dict(enumerate(itertools.islice(clip.pictures, max(starts) + 1)))
  pictures = [pictures[start] for start in starts]
  example = {
    'frames': [media.jpeg(picture, side) for picture in pictures],
    'wave': clip.wave[list(starts)].reshape(-1),
  }
  for transform in (
    transforms.DecodeFrames(config.model.visual.image),
    transforms.DecodeWave(run.seconds, config.model.audio.sample_rate),
  ):
    example = transform.map(example)
  return np.stack([predict.thumbnail(picture) for picture in pictures]), example


def likeliest(logits: Float[np.ndarray, 'c'], answers: Sequence[str]) -> list[dict[str, Any]]:
  """The best answers, best first, and how sure the model is of each."""
  share = np.exp(np.float64(logits) - logits.max())
  share /= share.sum()
  return [{'answer': answers[i], 'confidence': float(share[i])} for i in np.argsort(-share)[:BEST]]


def region(weights: Float[np.ndarray, 'n']) -> list[float]:
  """Left, top, right, bottom, in shares of the picture, of where most is looked at."""
  side = figures.square(weights).shape[0]
  row, column = divmod(int(weights.argmax()), side)
  return [round(x / side, 3) for x in (column, row, column + 1, row + 1)]
