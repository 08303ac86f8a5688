"""What the page of serve.py stands on: models, limits, results, and the files of its users."""

import collections
import contextlib
import dataclasses
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from dgsct_jax import predict, published, seconds, trained
from dgsct_jax.data import clips
from dgsct_jax.tasks import registry
from dgsct_jax.tracks import Mask
from dgsct_jax.trained import Trained

KEPT = 8  # lists of names of which the features of texts are kept
Tell = Callable[[float, str], None]  # gets the share that is done, and of what


class Limits(NamedTuple):
  """What the page takes."""

  megabytes: float
  seconds: float

  def check(self, path: Path) -> None:
    """Raises ValueError, MediaError or OSError if a file is too large, too long or unreadable."""
    size = path.stat().st_size / 1e6
    if size > self.megabytes:
      raise ValueError(
        f'{path.name} has {size:.1f} MB; this page takes at most {self.megabytes:g} (--max_mb).'
      )
    length = clips.measure(path).seconds
    if length > self.seconds:
      raise ValueError(
        f'{path.name} is {length:.0f} s long; this page takes at most {self.seconds:g}'
        ' (--max_seconds).'
      )


@dataclasses.dataclass
class Served:
  """A model of the page."""

  workdir: Path | None
  name: str  # of its config, or the run
  config: ml_collections.ConfigDict
  loaded: dict[tuple[str, ...], Trained] = dataclasses.field(default_factory=dict)  # by classes
  about: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def named(self) -> bool:
    """Whether it takes names of classes."""
    return 'classes' in self.config.data

  @property
  def asked(self) -> bool:
    """Whether it takes questions, known once it is loaded."""
    return any(model.task.ask is not None for model in self.loaded.values())

  def model(self, names: Sequence[str] = ()) -> Trained:
    """The model, with its weights, for these names of classes if it takes any.

    Raises:
      ValueError: weights are missing, or the names cannot be used.
    """
    config = ml_collections.ConfigDict(self.config)
    if self.named and names:
      predict.name_classes(config, names)
    key = tuple(config.data.classes) if self.named else ()
    if key not in self.loaded:
      task = registry.build(config)
      if self.loaded:
        model = trained.renewed(next(iter(self.loaded.values())), config, task)
      else:
        model, self.about = predict.load(self.workdir, self.name, config, task)
      self.loaded[key] = model
      if len(self.loaded) > KEPT:
        del self.loaded[next(iter(self.loaded))]
    return self.loaded[key]


def load(
  workdirs: Sequence[str],
  names: Sequence[str],
  init: Sequence[str] = (),
  fields: Sequence[str] = (),
) -> dict[str, Served]:
  """The models of runs and of configs that train nothing, by the names that were given.

  Raises:
    ValueError: there are none, or one cannot be loaded.
  """
  models = {}
  for name, is_run in (*((x, True) for x in workdirs), *((x, False) for x in names)):
    workdir = published.fetch(name) if is_run else None
    served = Served(workdir, name, predict.settings(workdir, name, init, fields))
    if not served.named or served.config.data.classes:
      served.model()
      print(f'{name}: loaded', flush=True)
    models[name] = served
  if not models:
    raise ValueError('There is nothing to serve; give --workdir or --config.')
  return models


class Result(NamedTuple):
  """What is shown of a file, and the folder with all that was written."""

  report: str
  table: seconds.Table
  folder: Path

  @property
  def masks(self) -> list[Path]:
    """The masks in the order of the seconds."""
    found = (self.folder / 'masks').glob('*.png')
    return sorted(found, key=lambda path: int(path.stem.rpartition('_')[2]))

  def file(self, name: str) -> Path | None:
    """One that was written, or None."""
    return path if (path := self.folder / name).is_file() else None

  @property
  def files(self) -> list[Path]:
    """All that can be downloaded."""
    return sorted(path for path in self.folder.iterdir() if path.is_file())


def answer(
  served: Served,
  limits: Limits,
  path: Path | None,
  folder: Path,
  questions: Sequence[str] = (),
  names: Sequence[str] = (),
  tell: Tell = lambda share, what: None,
) -> Result:
  """What a model makes of a file; all that is written goes to `folder`.

  Raises:
    ValueError, MediaError, OSError, av.FFmpegError: as `predict` prints them.
  """
  if path is None:
    raise ValueError('There is no file yet: drop a video or a sound, or record one.')
  limits.check(path)
  tell(0, 'the model')
  model = served.model(names)
  question = predict.ask(model.task, questions)
  tell(0, 'looking and listening')  # the first time the model is also compiled
  looking = lambda share: tell(0.8 * share, 'looking and listening')
  file, view = predict.look(model, path, questions, question, looking)
  tell(0.8, 'drawing')
  if isinstance(view.overlay, Mask) and file.length.pictures:
    predict.write_masks(file, view, folder / 'masks')
    with zipfile.ZipFile(folder / 'masks.zip', 'w') as archive:
      for mask in sorted((folder / 'masks').iterdir()):
        archive.write(mask, mask.name)
  predict.write(file, view, folder, served.about | {'file': path.name})
  report = '\n'.join(predict.report(file, view)).replace(str(path), path.name)
  return Result(report, seconds.table(view, file.starts), folder)


class Sessions:
  """Where the files of users lie until they leave: all in one folder.

  Files that users give lie where the page's server has put them, once for all users who give the
  same; each user's results lie in a folder of their own, those of the last job alone.
  """

  def __init__(self, root: Path) -> None:
    self.root = root
    self.given: dict[str, set[Path]] = collections.defaultdict(set)
    self.left: set[str] = set()

  def give(self, session: str, path: str | None) -> None:
    """Notes that a user has given a file."""
    if path:
      self.given[session].add(Path(path))

  def results(self, session: str) -> Path:
    """An empty folder for the results of a job."""
    self.left.discard(session)
    own = self.root / session
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    return Path(tempfile.mkdtemp(dir=own))  # another name, so that no browser shows old results

  def end(self, session: str | None) -> None:
    """Removes what one user has given and got."""
    if session:
      self.left.add(session)
      shutil.rmtree(self.root / session, ignore_errors=True)
      given = self.given.pop(session, set())
      for path in given.difference(*self.given.values()):
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others may have given the same under another name
          path.parent.rmdir()
