"""Runs a model on any video or sound file.

python -m dgsct_jax.predict --workdir=RUN clip.mp4 [more files] [--question TEXT ...]
python -m dgsct_jax.predict --config=configs/zero_shot.py --classes "dog, church bell" clip.mp4

The model is that of a run, or of a config that trains nothing. The prediction is printed, and
written to a folder for each file, by default RUN/predictions/clip.mp4 or predictions/clip.mp4:

  NAME.json     the prediction, with notes on the file; NAME depends on the task: events, answers
  NAME.csv      what is told of each second, for a spreadsheet
  NAME.vtt      the events as subtitles (WebVTT)
  timeline.png  frames, sound, attention and prediction on one time axis
  film.mp4      the video with its sound, the visual attention drawn over it

and to a line of predictions.jsonl beside these folders. A FILE may be a folder: it stands for the
videos and sounds in it. With --resume, files that have their JSON already are left out. --jobs=2
reads and draws one file while the model looks at another.

A model that answers questions needs --question or --questions; one of segmentation writes its masks
with --masks DIR. Files may have any length: the model
gets windows as long as its training clips, cut by the same rule; beyond the end of a file they are
filled up with its last picture and silence.
"""

import argparse
import ast
import concurrent.futures
import json
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import av
import ml_collections
import numpy as np
from PIL import Image
from tqdm import tqdm

from dgsct_jax import figures, film, published, seconds, trained, whole
from dgsct_jax.data import clips, files, media
from dgsct_jax.data.cut import VIDEOS
from dgsct_jax.data.transforms import Example
from dgsct_jax.tasks import registry
from dgsct_jax.tasks.task import Task, View
from dgsct_jax.tracks import Mask
from dgsct_jax.trained import Trained

Done = TypeVar('Done')
SOUNDS = ('.wav', '.mp3', '.flac', '.ogg', '.opus', '.m4a', '.aac')
MEDIA = (*VIDEOS, *SOUNDS)
_masks = threading.Lock()  # of several files at a time all masks go to one folder


def look(
  model: Trained,
  path: Path,
  asked: Sequence[str] = (),
  question: Example | None = None,
  tell: Callable[[float], None] = lambda share: None,
) -> tuple[clips.File, View]:
  """Runs the model on a file: the file as the model gets it, and the view of the outputs.

  Args:
    asked: what the user typed.
    question: the part of the model's input that `ask` makes of it.
    tell: gets the share of the file that is done, after each batch.

  Raises:
    MediaError, ValueError, OSError: the file cannot be used.
  """
  assert model.task.show is not None
  inputs = model.task.inputs
  file = clips.open_file(path, inputs.rate, inputs.windows)
  outputs: list[dict[str, np.ndarray]] = []
  thumbnails: list[np.ndarray] = []
  for batch, pictures in _batches(model, file, question or {}):
    real = batch['valid'] > 0
    outputs.append({name: values[real] for name, values in model(batch).items()})
    thumbnails += pictures
    tell(len(thumbnails) / len(file.windows))
  joined = {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
  return file, model.task.show(file.shown(thumbnails, asked), joined)


def ask(task: Task, asked: Sequence[str]) -> Example:
  """The part of a model's input that a user types.

  Raises:
    ValueError: the model cannot take what was typed, takes nothing, or needs something.
  """
  if bool(asked) != bool(task.ask):
    raise ValueError(
      'This model answers questions: give --question or --questions.'
      if task.ask
      else 'This model takes no questions.'
    )
  return task.ask(asked) if task.ask else {}


def _batches(
  model: Trained, file: clips.File, question: Example
) -> Iterator[tuple[dict[str, np.ndarray], list[np.ndarray]]]:
  """The windows of a file as batches, one window for each device, and their pictures."""
  inputs, size = model.task.inputs, model.mesh.size
  windows = list(file.windows)
  examples = file.examples(inputs.side)
  for start in range(0, len(windows), size):
    rows, pictures = [], []
    for _, (example, thumbnails) in zip(windows[start : start + size], examples):
      for transform in inputs.decode:
        example = transform.map(example)
      arrays = {name: x for name, x in example.items() if isinstance(x, np.ndarray)}
      rows.append(arrays | question | {'valid': np.float32(1)})
      pictures.append(thumbnails)
    rows += [rows[-1] | {'valid': np.float32(0)}] * (size - len(rows))
    yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}, pictures


def write(
  file: clips.File,
  view: View,
  folder: Path,
  about: dict[str, Any],
  lines: Path | None = None,
  with_film: bool = True,
) -> dict[str, Any]:
  """Writes tables, the timeline, for a video the film, and last the JSON: then all is there.

  All of it or nothing: an error leaves what was there before.

  Args:
    about: fields of the JSON that describe the model.
    lines: a file that gets the contents of the JSON, too, as one more line.
    with_film: of a video; it takes longer than all the rest.

  Returns:
    The contents of the JSON.

  Raises:
    OSError, av.FFmpegError: a result cannot be written.
  """
  table, cues = seconds.table(view, file.starts), seconds.cues(view, file.starts, file.seconds)
  record = {'file': media.printable(file.path), 'seconds': file.seconds, 'notes': file.notes}
  record |= about | view.record
  with whole.beside(folder) as part:
    (part / f'{view.name}.csv').write_text(seconds.csv(table), encoding='utf-8')
    (part / f'{view.name}.vtt').write_text(seconds.webvtt(cues), encoding='utf-8')
    if view.tracks:
      figures.draw(view.tracks, view.title).savefig(part / 'timeline.png')
    if file.length.pictures and with_film:
      film.draw(file.path, part / 'film.mp4', file.length, file.starts, view.overlay, view.captions)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (part / f'{view.name}.json').write_text(f'{text}\n', encoding='utf-8')
    if lines:
      whole.append(lines, json.dumps(record, ensure_ascii=False) + '\n')
  return record


def write_masks(file: clips.File, view: View, folder: Path) -> None:
  """Writes PNGs of 0 and 255, one for every second, of the size of the video: NAME_0.png and so on.

  Raises:
    ValueError: the model makes no masks, or the file has no pictures.
    OSError: they cannot be written; then none is.
  """
  if not isinstance(view.overlay, Mask) or not file.length.pictures:
    raise ValueError(f'{file.path}: --masks needs a model of segmentation and a video.')
  height, width = next(media.each_frame(file.path, [0.0])).shape[:2]
  with _masks, whole.beside(folder) as part:
    for second, probability in enumerate(view.overlay.probability):
      image = Image.fromarray(np.asarray(probability, np.float32))
      enlarged = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
      mask = (enlarged > 0.5) * np.uint8(255)
      Image.fromarray(mask).save(part / f'{file.path.stem}_{second}.png')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; the exit status is 1 if a file failed. The other files are still done."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.predict',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('files', nargs='+', type=_path, metavar='FILE')
  model_of = parser.add_mutually_exclusive_group(required=True)
  model_of.add_argument(
    '--workdir', metavar='RUN', help='the folder of a run or of a published model, hf://owner/name'
  )
  model_of.add_argument('--config', metavar='FILE[:VARIANT]', help='a config that trains nothing')
  parser.add_argument(
    '--from', type=int, dest='step', metavar='STEP', help='checkpoint; by default the best one'
  )
  parser.add_argument('--out', type=_path, help='where results go')
  parser.add_argument('--resume', action='store_true', help='leave out files that are done')
  parser.add_argument('--without_film', action='store_true', help='tables and timeline alone')
  parser.add_argument(
    '--jobs', type=_jobs, default=1, metavar='N', help='files at a time: one is read beside another'
  )
  parser.add_argument(
    '--question', action='append', default=[], metavar='TEXT', help='may be repeated'
  )
  parser.add_argument('--questions', type=_path, metavar='FILE', help='one question in each line')
  parser.add_argument(
    '--init',
    action='append',
    default=[],
    metavar='NAME=FILE',
    help='where the converted weights are now; NAME is a field of config.init',
  )
  parser.add_argument(
    '--masks', type=_path, metavar='DIR', help='of a model of segmentation: a PNG for every second'
  )
  parser.add_argument(
    '--classes', metavar='NAMES', help='of a model that matches names: "dog barking, church bell"'
  )
  parser.add_argument('--classes_from', type=_path, metavar='FILE', help='one name in each line')
  parser.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='FIELD=VALUE',
    help='of the config, as in --set "model.head.picture=a drawing of a {}."',
  )
  given = parser.parse_args(argv)
  try:
    asked = given.question + (_lines(given.questions) if given.questions else [])
    if given.workdir:
      given.workdir = published.fetch(given.workdir)
    config = settings(given.workdir, given.config, given.init, given.set, given.step)
    if given.classes or given.classes_from:
      name_classes(
        config, _lines(given.classes_from) if given.classes_from else given.classes.split(',')
      )
    task = registry.build(config)
    question = ask(task, asked)  # before the weights are read, which takes longer
    paths = [path for path in given.files for path in in_folder(path)]
    if given.masks:
      _check_stems(paths)
    if given.step is not None and not given.workdir:
      raise ValueError(f'--from={given.step} is the step of a run: give its --workdir.')
    model, about = load(given.workdir, given.config, config, task, given.step)
  except (OSError, ValueError) as error:
    parser.exit(1, f'error: {error}\n')
  of_run = given.workdir and not published.is_one(given.workdir)
  out, failed = given.out or (given.workdir if of_run else Path()) / 'predictions', False
  lines = out / 'predictions.jsonl'
  if not given.resume:
    lines.unlink(missing_ok=True)

  def predict(i: int, path: Path, folder: Path) -> tuple[str, str]:
    """What is to be told of a file, and its error or nothing."""
    told = [f'{i + 1} of {len(paths)}'] * (len(paths) > 1)
    try:
      file, view = look(model, path, asked, question)
      told += report(file, view)
      if given.masks:
        write_masks(file, view, given.masks)
      write(file, view, folder, about, lines, not given.without_film)
      return '\n'.join([*told, f'  {media.printable(folder)}']), ''
    except (OSError, ValueError, av.FFmpegError) as error:
      return '\n'.join(told), f'error: {media.printable(str(error))}'

  work = [
    (i, path, folder)
    for i, (path, folder) in enumerate(zip(paths, _folders(paths, out)))
    if not (given.resume and any(folder.glob('*.json')))
  ]
  for told, fault in each(predict, work, given.jobs):
    tqdm.write(told)
    if fault:
      tqdm.write(fault, file=sys.stderr)
      failed = True
  return int(failed)


def each(
  function: Callable[..., Done], work: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[Done]:
  """The results of a function in the order of the work, of which `jobs` are done at a time.

  Beside them stands how much is done and how long the rest will take, on a terminal.
  """
  pool = concurrent.futures.ThreadPoolExecutor(jobs)
  results = pool.map(lambda given: function(*given), work)
  try:
    # None: only a terminal gets the bar.
    yield from tqdm(results, total=len(work), unit='file', disable=len(work) < 2 or None)
  finally:
    pool.shutdown(cancel_futures=True)


def in_folder(path: Path) -> list[Path]:
  """The videos and sounds in a folder, in the order of their names; of a file, itself.

  Raises:
    ValueError: there are none.
  """
  if not path.is_dir():
    return [path]
  found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in MEDIA]
  if not found:
    raise ValueError(f'{path} is a folder without videos and sounds ({", ".join(MEDIA)}).')
  return found


def settings(
  workdir: Path | None,
  name: str | None,
  init: Sequence[str] = (),
  fields: Sequence[str] = (),
  step: int | None = None,
) -> ml_collections.ConfigDict:
  """The config of a run, or the one of that name, with what is changed in it.

  Args:
    name: 'FILE[:VARIANT]', if there is no `workdir`.
    init: 'NAME=FILE', where converted weights are now. fields: 'FIELD=VALUE', of the config.
    step: of the checkpoint of a run; None: the latest.

  Raises:
    ValueError: there is no such config, or no such field in it.
  """
  if workdir:
    config = trained.read_config(workdir, step=step)
  else:
    config = trained.from_file(name or '')
  trained.set_init(config, init)
  for field, _, text in (field.partition('=') for field in fields):
    try:
      before = operator.attrgetter(field)(config)
      value = text if isinstance(before, str) else ast.literal_eval(text)
      config.update_from_flattened_dict({field: value})
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError) as error:
      raise ValueError(f'--set={field}={text}: {error}') from error
  return config


def name_classes(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
  """Sets the classes that a model matches. Raises ValueError if it has fixed ones."""
  if 'classes' not in config.data:
    raise ValueError('--classes: this model has fixed classes; one of matching takes any.')
  config.data.classes = tuple(filter(None, map(str.strip, names)))


def load(
  workdir: Path | None,
  name: str | None,
  config: ml_collections.ConfigDict,
  task: Task,
  step: int | None = None,
) -> tuple[Trained, dict[str, Any]]:
  """The model of a run, or of the config of that name, and the fields of a JSON that tell which.

  Raises:
    ValueError: there is no checkpoint, or weights are missing.
  """
  if workdir:
    model = trained.load(workdir, config, task, step=step)
    return model, {'workdir': str(workdir), 'step': model.step}
  return trained.untrained(config, task), {'config': name}


def _lines(path: Path) -> list[str]:
  return [line for _, line in files.lines(path, pipe=True)]


def _path(text: str) -> Path:
  """As the shell would have it, which leaves `--out=~/FOLDER` alone."""
  return Path(text).expanduser()


def _jobs(text: str) -> int:
  """A positive number."""
  if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
    raise argparse.ArgumentTypeError(f'{text} files at a time; give a whole number from 1 to 64.')
  return int(text)


def report(file: clips.File, view: View) -> list[str]:
  """What is printed of a file."""
  some = ', of which the model gets the seconds at ' + ', '.join(map(str, file.starts))
  whole = file.starts == tuple(range(file.seconds))
  notes = [f'  note: {note}' for note in file.notes]
  first = f'{media.printable(file.path)}: {file.seconds} s{"" if whole else some}'
  return [first, *notes, *(f'  {line}' for line in view.lines)]


def _check_stems(files: Sequence[Path]) -> None:
  """Raises ValueError if masks of one file would have the names of another's."""
  stems = [file.stem for file in files]
  if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
    raise ValueError(
      f'--masks: several files are called {", ".join(twice)}, and so would be their masks; give'
      ' them one by one, each with a folder of its own.'
    )


def _folders(files: Sequence[Path], out: Path) -> list[Path]:
  """A folder for each file, with the name of the file, numbered where names repeat."""
  names = [file.name for file in files]
  before = [names[:i].count(name) for i, name in enumerate(names)]
  return [out / (f'{name}_{n + 1}' if n else name) for name, n in zip(names, before)]


if __name__ == '__main__':
  sys.exit(main())
