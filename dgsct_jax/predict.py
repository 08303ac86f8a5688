"""python -m dgsct_jax.predict --workdir=RUN clip.mp4 [more files]
python -m dgsct_jax.predict --workdir=RUN clip.mp4 --question "How many instruments are sounding in the video?"

With questions, what an AVQA model answers (answer.py tells what is written). Else what an AVE model
sees and hears in each second of videos. It is printed, and for each file there is a folder, RUN/predictions/clip.mp4 if --out is not given, with

  events.json   the same, with notes on the file
  timeline.png  frames, sound, attention and events on one axis of time
  film.mp4      the video with the attention drawn over it, and its sound

Files may have any length: the model gets windows as long as its training clips, the last one filled
up with its last frame and silence. A rest of less than half a second is left out.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import jax
import ml_collections
import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from dgsct_jax import checkpoint, evaluate, figures, film, sharding, tasks
from dgsct_jax import state as states
from dgsct_jax.data import cut, media, transforms
from dgsct_jax.data.questions import LENGTH
from dgsct_jax.tasks import ave

SILENT = 1e-4  # root mean square of a second without sound, full scale 1
THUMBNAIL = 160  # pixels: height of the frames in timeline.png

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model that answers for so many windows at a time."""

  config: ml_collections.ConfigDict
  workdir: Path
  step: int  # of the checkpoint
  names: tuple[str, ...]  # of the classes
  audio: Any  # the audio backbone
  windows: int
  ask: Callable[[Batch], dict[str, np.ndarray]]

  @property
  def seconds(self) -> int:
    """Of a window, as of the clips of the training."""
    return self.config.data.segments


@dataclasses.dataclass(frozen=True)
class Clip:
  """A file as the model will get it: whole windows, of which `seconds` are real."""

  length: film.Length
  seconds: int
  pictures: Iterator[UInt8[np.ndarray, 'h w 3']]  # one for each second of all windows
  wave: Int16[np.ndarray, 'r s']
  notes: list[str]  # what a user should know of the file


@dataclasses.dataclass(frozen=True)
class Restored:
  """The best checkpoint of a run, with all that it needs."""

  config: ml_collections.ConfigDict
  task: tasks.Task
  mesh: Any
  step: int
  params: Any  # the trainable half
  batch_stats: Any
  frozen: Any


def read_config(workdir: Path) -> ml_collections.ConfigDict:
  """Of a run. Raises ValueError if there is no checkpoint."""
  manager = checkpoint.find(workdir, '')
  return checkpoint.config_of(checkpoint.read_run(manager, manager.latest_step()))


def restore(workdir: Path, init: Sequence[str] = ()) -> Restored:
  """The best checkpoint of a run.

  Args:
    init: 'NAME=FILE' replaces `config.init.NAME`; the file must be the same, wherever it lies.

  Raises:
    ValueError: there is no checkpoint; or its frozen weights are missing or others.
  """
  config = read_config(workdir)
  for name, _, file in (given.partition('=') for given in init):
    if name not in config.init or not file:
      raise ValueError(
        f'--init={name}={file}: give NAME=FILE, NAME one of {", ".join(config.init)}.'
      )
    config.init[name] = file
  task, mesh = tasks.build(config), sharding.make_mesh((-1, 1))
  seconds, size = config.data.segments, config.model.visual.image
  wave = seconds, config.model.audio.sample_rate
  shapes = {'video': (seconds, size, size, 3), 'wave': wave, 'mask': ()}
  empty = {name: np.zeros((mesh.size, *shape), np.float32) for name, shape in shapes.items()}
  empty['question'] = np.zeros((mesh.size, 1, LENGTH), np.int32)
  variables = states.variables(task.model, empty, config, mesh)
  manager = checkpoint.find(workdir, task.primary)
  step, _ = checkpoint.best(manager)
  run = checkpoint.identity(config, variables.weights)
  params, batch_stats = checkpoint.restore_model(
    manager, step, variables.params, variables.batch_stats, run
  )
  return Restored(config, task, mesh, step, params, batch_stats, variables.frozen)


def load(workdir: Path, init: Sequence[str] = ()) -> Run:
  """A run of AVE, ready to be asked; see `restore`.

  Raises:
    ValueError: as `restore`; or the run is not of a task that localises events.
  """
  name = read_config(workdir).task
  if name != 'ave':
    raise ValueError(
      f'{workdir} is a run of the task {name!r}; prediction knows ave, and avqa '
      'with --question or --questions.'
    )
  model = restore(workdir, init)
  predict = evaluate.predictor(model.task, model.mesh)

  def ask(batch: Batch) -> dict[str, np.ndarray]:
    outputs = predict(
      model.params, model.batch_stats, model.frozen, sharding.global_batch(batch, model.mesh)
    )
    return jax.tree.map(sharding.local, outputs)

  return Run(
    model.config,
    workdir,
    model.step,
    ave.class_names(model.config),
    model.task.model.encoder.audio,
    model.mesh.size,
    ask,
  )


def open_clip(path: Path, config: ml_collections.ConfigDict) -> Clip:
  """Raises MediaError or ValueError if a file cannot be used, OSError if it is not there."""
  rate, window, notes = config.model.audio.sample_rate, config.data.segments, []
  length = film.measure(path)
  try:
    wave = media.waveform(path, rate)
  except media.NoAudioTrack:
    wave = np.zeros(0, np.float32)
    notes.append('no audio track: silence stands in for it')
  seconds = max(1, round(max(length.seconds, len(wave) / rate)))
  if length.pictures == 1 and not len(wave):
    seconds = window
    length = length._replace(seconds=float(seconds))
    notes.append(f'a still picture: it is shown for {seconds} seconds')
  padded = -(-seconds // window) * window
  wave = np.pad(wave, (0, max(0, padded * rate - len(wave))))
  wave = cut.fit(wave, padded, rate, f'the sound of {path}').reshape(padded, rate)
  silent = np.sqrt(np.square(wave[:seconds] / 32768.0).mean(1)) < SILENT
  if not notes and silent.any():
    notes.append(
      f'silence in {silent.sum()} of {seconds} seconds'
      if not silent.all()
      else 'the audio track is silent'
    )
  if length.pictures:
    pictures = media.each_frame(path, frame_times(config, padded))
  else:
    pictures = itertools.repeat(np.zeros((256, 256, 3), np.uint8), padded)
    notes.append('no video track: black frames stand in for it, and there is no film')
  return Clip(length, seconds, pictures, wave, notes)


def frame_times(config: ml_collections.ConfigDict, seconds: int) -> list[float]:
  """When frames are taken in windows of training length: as in the training data."""
  window = config.data.segments
  if config.data.name == 'ave':
    within = [i / 16 for i in cut.spread(window * 16, window)]  # of 16 frames a second, as released
  else:
    within = [i + 0.5 for i in range(window)]
  return [start + time for start in range(0, seconds, window) for time in within]


def examples(clip: Clip, run: Run) -> Iterator[tuple[Batch, UInt8[np.ndarray, 't h w 3']]]:
  """Batches of windows as in training, and their frames as one wants to see them."""
  config, t = run.config, run.seconds
  side = config.data.knobs.size if 'knobs' in config.data else 256  # of stored frames
  decode = (
    transforms.DecodeFrames(config.model.visual.image),
    transforms.DecodeWave(t, config.model.audio.sample_rate),
  )
  starts = range(0, len(clip.wave), t)
  for group in (starts[i : i + run.windows] for i in range(0, len(starts), run.windows)):
    windows, thumbnails = [], []
    for start in group:
      pictures = list(itertools.islice(clip.pictures, t))
      thumbnails += [thumbnail(picture) for picture in pictures]
      example = {
        'frames': [media.jpeg(picture, side) for picture in pictures],
        'wave': clip.wave[start : start + t].reshape(-1),
      }
      for transform in decode:
        example = transform.map(example)
      windows.append(example | {'mask': np.float32(1)})
    windows += [windows[-1] | {'mask': np.float32(0)}] * (run.windows - len(windows))
    batch = {name: np.stack([window[name] for window in windows]) for name in windows[0]}
    yield batch, np.stack(thumbnails)


def judge(outputs: dict[str, np.ndarray], names: Sequence[str]) -> list[dict[str, Any]]:
  """For each second of windows: the event or none, and how sure the model is of the likeliest."""
  classes = len(names)
  logits = np.asarray(outputs['logits'], np.float64)[:, :classes]
  share = np.exp(logits - logits.max(1, keepdims=True))
  share = (share / share.sum(1, keepdims=True)).max(1)
  event = 1 / (1 + np.exp(-np.asarray(outputs['event_logits'], np.float64)))
  likeliest = np.repeat(logits.argmax(1), event.shape[1])
  found = ave.predict(outputs, classes).reshape(-1)
  confidence = (event * share[:, None]).reshape(-1)
  return [
    {
      'event': names[f] if f < classes else None,
      'likeliest': names[i],
      'confidence': float(c),
      'event_probability': float(p),
    }
    for f, i, c, p in zip(found, likeliest, confidence, event.reshape(-1))
  ]


def predict(run: Run, path: Path, folder: Path) -> None:
  """Prints the events of a file as they are found, then writes events.json, timeline and film.

  Raises:
    MediaError, ValueError, OSError, av.FFmpegError: the file cannot be used, or a result written.
  """
  clip = open_clip(path, run.config)
  print(f'{path}: {clip.seconds} s')
  for note in clip.notes:
    print(f'  note: {note}')
  seconds, frames, maps = [], [], {'visual_map': [], 'audio_map': []}
  for batch, thumbnails in examples(clip, run):
    outputs = run.ask(batch)
    count = min(int(batch['mask'].sum()) * run.seconds, clip.seconds - len(seconds))  # of real ones
    for second in judge(outputs, run.names)[:count]:
      seconds.append({'second': len(seconds)} | second)
      print(f'  {line(seconds[-1])}', flush=True)
    frames.append(thumbnails[:count])
    for name, found in maps.items():
      found.append(np.concatenate(outputs[name])[:count])
  maps = {name: np.concatenate(found) for name, found in maps.items()}

  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'events.json').write_text(
    json.dumps(
      {
        'file': str(path),
        'seconds': clip.seconds,
        'notes': clip.notes,
        'workdir': str(run.workdir),
        'step': run.step,
        'classes': run.names,
        'timeline': seconds,
      },
      indent=2,
      ensure_ascii=False,
    )
    + '\n',
    encoding='utf-8',
  )
  draw_timeline(run, clip, seconds, np.concatenate(frames), maps, path.name).savefig(
    folder / 'timeline.png'
  )
  if clip.length.pictures:
    film.draw(
      path,
      folder / 'film.mp4',
      clip.length.seconds,
      clip.length.rate,
      maps['visual_map'],
      [line(second) for second in seconds],
    )


def draw_timeline(
  run: Run,
  clip: Clip,
  seconds: Sequence[dict[str, Any]],
  frames: UInt8[np.ndarray, 't h w 3'],
  maps: dict[str, np.ndarray],
  title: str,
) -> figures.Figure:
  """The events of a file on one axis of time with what was seen and heard."""
  wave = clip.wave[: clip.seconds] / np.float32(32768)
  found = [run.names.index(second['event'] or second['likeliest']) for second in seconds]
  events = np.where([second['event'] is None for second in seconds], len(run.names), found)
  return figures.clip(
    frames,
    wave,
    {'predicted': events},
    run.names,
    visual_map=maps['visual_map'],
    audio_map=figures.unfold(maps['audio_map'], wave.shape[1], run.audio),
    event=np.array([second['event_probability'] for second in seconds]),
    title=' · '.join([title, *clip.notes]),
  )


def line(second: dict[str, Any]) -> str:
  """'1:07  Bark 0.93', or of background '1:08  – (Bark 0.21)'."""
  minutes, rest = divmod(second['second'], 60)
  name = f'{second["likeliest"]} {second["confidence"]:.2f}'
  return f'{minutes}:{rest:02}  ' + (name if second['event'] else f'– ({name})')


def thumbnail(picture: UInt8[np.ndarray, 'y x 3']) -> UInt8[np.ndarray, 'h w 3']:
  width = max(1, round(picture.shape[1] * THUMBNAIL / picture.shape[0]))
  return np.asarray(Image.fromarray(picture).resize((width, THUMBNAIL), Image.Resampling.BILINEAR))


def main(argv: Sequence[str] | None = None) -> int:
  """1 if a file failed; the others were still done."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.predict',
    description=__doc__.partition('\n')[2],
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('files', nargs='+', type=Path, metavar='FILE')
  parser.add_argument('--workdir', type=Path, required=True, help='the folder of a run')
  parser.add_argument('--out', type=Path, help='where results go')
  parser.add_argument(
    '--question',
    action='append',
    default=[],
    metavar='TEXT',
    help='of an AVQA model; may be given again',
  )
  parser.add_argument('--questions', type=Path, metavar='FILE', help='a question in every line')
  parser.add_argument(
    '--init',
    action='append',
    default=[],
    metavar='NAME=FILE',
    help='where the converted weights lie now; NAME is visual, audio or all',
  )
  given = parser.parse_args(argv)
  from dgsct_jax import answer  # It is built on this module.

  try:
    if given.question or given.questions:
      asked = given.question + (answer.read_questions(given.questions) if given.questions else [])
      tell = answer.prepare(given.workdir, given.init, asked)
    else:
      tell = functools.partial(predict, load(given.workdir, given.init))
  except (OSError, ValueError) as error:
    parser.exit(1, f'error: {error}\n')
  out, failed = given.out or given.workdir / 'predictions', False
  for path, folder in zip(given.files, _folders(given.files, out)):
    try:
      tell(path, folder)
      print(f'  {folder}')
    except (OSError, ValueError, av.FFmpegError) as error:
      print(f'error: {error}', file=sys.stderr, flush=True)
      failed = True
  return int(failed)


def _folders(files: Sequence[Path], out: Path) -> list[Path]:
  """One for each file, named like it; numbered where names repeat."""
  names = [file.name for file in files]
  before = [names[:i].count(name) for i, name in enumerate(names)]
  return [out / (f'{name}_{n + 1}' if n else name) for name, n in zip(names, before)]


if __name__ == '__main__':
  sys.exit(main())
