"""Clips on disk: written once to ArrayRecord files by TFDS, read by position."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds

from dgsct_jax import lock, whole
from dgsct_jax.data import readers, rules

SHARD = 128  # clips in one file: the unit in which an interrupted build continues

Record = dict[str, Any]


class Remark(UserWarning):
  """A clip could be used only after a correction."""


@runtime_checkable
class Entry(Protocol):
  """A clip as a data set lists it, which `Recipe.read` turns into a record.

  A small picklable value with a complete repr.
  """

  @property
  def id(self) -> str:
    """Its name, which need not be unique."""


AnyEntry = TypeVar('AnyEntry', bound=Entry)


@dataclasses.dataclass(frozen=True)
class Recipe(Generic[AnyEntry]):
  """One data set before it is built: its clips in the order of the files, and how to read one."""

  name: str
  version: str  # of the rules by which clips are cut: new rules, new version
  features: Mapping[str, tfds.features.FeatureConnector]
  splits: Mapping[str, Sequence[AnyEntry]]
  # A function or a frozen dataclass; raises ValueError or OSError for a clip that cannot be used.
  read: Callable[[AnyEntry], Record]
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # stored with it: name -> text
  remarks: Sequence[str] = ()  # on oddities of the label files that do not prevent their use
  root: str | os.PathLike = ''  # the folder of its files, for messages
  frames_like: str = ''  # by which of the rules pictures are taken from videos; '': they are stored
  # Clips whose pictures are stored and whose videos are there, too; for the doctor.
  pairs: Callable[[], Sequence[rules.Pair]] = tuple


# Pictures are stored as encoded files. Not as tfds.features.Image: without TensorFlow a sequence of
# those can only be read with all its pictures decoded, and then no error can name the record of a
# broken one.
IMAGE = tfds.features.Tensor(shape=(), dtype=np.str_)
IMAGES = tfds.features.Sequence(IMAGE)


def wave(samples: int) -> tfds.features.Tensor:
  """An int16 waveform, stored as bytes: a list of integers may take five times the space."""
  return tfds.features.Tensor(shape=(samples,), dtype=np.int16, encoding='bytes')


def write(
  recipe: Recipe,
  out: str | os.PathLike,
  *,
  workers: int = 0,
  skip_bad: bool = False,
  beam_runner: str | None = None,
  beam_options: str = '',
) -> Path:
  """Builds a data set in `out/<name>/<version>`, unless it exists, and returns that folder.

  The files that an interrupted build has finished are kept beside it and used by the next one. The
  folder gets its name only when everything is written, the manifest last. While another process
  builds it, this one waits.

  Args:
    workers: processes that read clips; with 0, this one does.
    skip_bad: leave out the clips that cannot be read; `skipped.json` in the folder lists them.
    beam_runner: name of an Apache Beam runner that reads and writes the files instead.
    beam_options: what it is told, as 'name=value,name=value'.

  Raises:
    ValueError: clips cannot be read (all are listed), a split is empty, the folder holds something
      else or is damaged, or Beam is not installed, not named, or its runner cannot start.
    OSError: the disk is full; what was finished is kept.
  """
  if beam_options and not beam_runner:
    raise ValueError(
      f'--beam_options={beam_options} is for a runner of Apache Beam: name it by --beam_runner.'
    )
  if beam_runner and not importlib.util.find_spec('apache_beam'):
    raise ValueError(
      f"--beam_runner={beam_runner} needs Apache Beam: pip install 'dgsct_jax[beam]'."
    )
  for split, clips in recipe.splits.items():
    if not clips:
      named = f'{recipe.name} in {recipe.root}' if recipe.root else recipe.name
      raise ValueError(f'{named} has no clips in the split {split!r}; nothing was written.')
  folder = Path(out) / recipe.name / recipe.version
  fingerprint, rule = _fingerprint(recipe), recipe.frames_like
  if not _is_built(folder, fingerprint, rule):
    with lock.held(folder.parent / f'.{recipe.version}.lock', f'builds {folder}'):
      if not _is_built(folder, fingerprint, rule):  # by the process that held the lock
        _build(recipe, folder, fingerprint, workers, skip_bad, beam_runner, beam_options)
  return folder


def _is_built(folder: Path, fingerprint: str, frames_like: str) -> bool:
  """Whether the folder exists. Raises ValueError if it holds another data set or is damaged."""
  if not folder.exists():
    return False
  try:
    built = json.loads((folder / 'recipe.json').read_text())
    found, rule = built['fingerprint'], built.get('frames_like', frames_like and rules.RELEASE)
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    found, rule = '', frames_like
  if found != fingerprint:
    differs = f' (frames_like={rule!r} there, {frames_like!r} now)' if rule != frames_like else ''
    raise ValueError(
      f'{folder} was built from other clips or settings{differs}; remove it, or choose '
      'another output folder.'
    )
  _check_whole(folder)
  return True


def _check_whole(folder: Path) -> None:
  """Raises ValueError if a built folder is no longer what it was."""
  if (folder / whole.MANIFEST).exists():
    fault = whole.fault(folder)
  else:  # from before there were manifests
    names = ('ids.json', 'skipped.json', 'remarks.json')
    fault = next((f'{name} is missing' for name in names if not (folder / name).exists()), '')
  if fault:
    raise ValueError(f'{folder} is damaged: {fault}. Remove the folder and build it again.')


def _build(
  recipe: Recipe,
  folder: Path,
  fingerprint: str,
  workers: int,
  skip_bad: bool,
  beam_runner: str | None,
  beam_options: str,
) -> None:
  kept = folder.parent / f'unfinished-{recipe.version}-{fingerprint[:12]}'
  built = kept / recipe.name / recipe.version
  shutil.rmtree(built.parent, ignore_errors=True)  # of a killed build
  kept.mkdir(parents=True, exist_ok=True)
  for report in kept.glob('*.json'):
    if json.loads(report.read_text())['bad']:  # may have been repaired since
      report.with_suffix('').unlink(missing_ok=True)
  pool: concurrent.futures.Executor | None = None
  if workers and not beam_runner:
    pool = readers.pool(workers)
  quiet = contextlib.redirect_stdout(io.StringIO())  # TFDS prints about a download
  with tempfile.TemporaryDirectory() as downloads, pool or contextlib.nullcontext(), quiet:
    config = tfds.download.DownloadConfig()
    if beam_runner:
      config.beam_runner, config.beam_options = beam_runner, _beam_options(beam_options)
    builder = _Builder(recipe, kept, fingerprint, skip_bad, pool)
    try:
      builder.download_and_prepare(download_dir=downloads, download_config=config)
    except (RuntimeError, NotImplementedError) as error:
      if not beam_runner:
        raise
      raise ValueError(
        f'--beam_runner={beam_runner} failed: {error}\nDirectRunner needs neither a network nor'
        ' Docker, nor does --workers=N without Beam; others are told where they run by'
        ' --beam_options=NAME=VALUE,...'
      ) from error
  whole.seal(built)
  built.rename(folder)
  for done in [
    *folder.parent.glob(f'unfinished-{recipe.version}-*'),
    *folder.parent.glob(f'incomplete.*_{recipe.version}'),  # of early versions
  ]:
    shutil.rmtree(done)


def _beam_options(text: str) -> Any:
  """What Beam is told: 'a=b,c' as --a=b --c. Otherwise it would read the flags of our command."""
  from apache_beam.options import pipeline_options  # an extra

  return pipeline_options.PipelineOptions([f'--{part}' for part in text.split(',') if part])


def load(directory: str | os.PathLike, name: str, split: str) -> 'Records':
  """Opens one split of a built data set, its newest version.

  Raises:
    ValueError: it does not exist; the message says how to build it. Or it is damaged.
  """
  newest = _newest(directory, name)
  _check_whole(newest)
  builder = tfds.builder_from_directory(newest)
  if split not in builder.info.splits:
    raise ValueError(f'{newest} has no split {split!r}, only {sorted(builder.info.splits)}.')
  return Records(builder, split)


def _newest(directory: str | os.PathLike, name: str) -> Path:
  folders = [path.parent for path in Path(directory, name).glob('*.*.*/dataset_info.json')]
  if not folders:
    raise ValueError(
      f'There is no data set {name!r} under {str(directory)!r}; build it with '
      f'`python -m dgsct_jax.data.prepare {name} --source=... --out={directory}`.'
    )
  return max(folders, key=lambda path: tfds.core.Version(path.name))


def class_names(directory: str | os.PathLike, name: str) -> tuple[str, ...]:
  """The names in the classes.txt of a built data set. Raises ValueError as `load`."""
  path = _newest(directory, name) / 'classes.txt'
  return tuple(path.read_text(encoding='utf-8').splitlines())


class Records:
  """Random access to the records of one split; may be sent to other processes.

  `ids`: the names of all records. `folder`: that of the data set and its other files; if it has
  `<split>.order.txt`, the records are in the order of the ids in that file.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self._source = builder.as_data_source(split=split)
    self.folder = Path(builder.data_path)
    self.ids = json.loads((self.folder / 'ids.json').read_text())[split]
    self._places: Sequence[int] = range(len(self.ids))
    if (order := self.folder / f'{split}.order.txt').exists():
      place = dict(zip(self.ids, self._places))
      self.ids = [name for name in order.read_text(encoding='utf-8').splitlines() if name in place]
      self._places = [place[name] for name in self.ids]
    features = builder.info.features
    self._texts = [key for key in features if isinstance(features[key], tfds.features.Text)]

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> Record:
    record = self._source[self._places[index]]
    return record | {key: record[key].decode() for key in self._texts}


@dataclasses.dataclass(frozen=True)
class Selection:
  """Some of the records of another source, in another order."""

  source: Records
  places: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> Record:
    return self.source[self.places[index]]

  @property
  def ids(self) -> list[str]:
    """The names of all records."""
    return [self.source.ids[place] for place in self.places]


class _Info(tfds.core.DatasetInfo):
  """What TFDS is to know of a recipe; no public bucket knows of it."""

  def initialize_from_bucket(self) -> None:
    """Asks none. TFDS leaves a temporary folder (findings/tfds_folder_of_every_new_builder.sh)."""


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A recipe as a TFDS builder.

  It writes shard by shard, in the order of the recipe. A GeneratorBasedBuilder (TFDS 4.9.10) would
  sort its records in files that it opens with TensorFlow as soon as a split exceeds a gigabyte.
  """

  # No downloads. Otherwise TFDS looks for them with a package that it does not require.
  url_infos: dict[str, Any] = {}

  def __init__(
    self,
    recipe: Recipe,
    kept: Path,
    fingerprint: str,
    skip_bad: bool,
    pool: concurrent.futures.Executor | None,
  ):
    self.name, self.VERSION = recipe.name, tfds.core.Version(recipe.version)
    self.recipe, self.kept, self.fingerprint = recipe, kept, fingerprint
    self.skip_bad, self.pool = skip_bad, pool
    super().__init__(data_dir=os.fspath(kept), file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(dict(self.recipe.features))
    return _Info(builder=self, features=features, disable_shuffling=True)

  def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list['_Shard']]:
    shards = {}
    for split, clips in self.recipe.splits.items():
      parts = [tuple(clips[i : i + SHARD]) for i in range(0, len(clips), SHARD)]
      name = f'{self.recipe.name}-{split}.array_record-{{:05d}}-of-{len(parts):05d}'
      shards[split] = [
        _Shard(
          f'{self.recipe.name} {split}: clips {i * SHARD + 1}-{i * SHARD + len(part)} of '
          f'{len(clips)}',
          self.kept / name.format(i),
          part,
          self.recipe.read,
          self.pool,
        )
        for i, part in enumerate(parts)
      ]
    return shards

  def _example_writer(self) -> '_KeepingWriter':
    return _KeepingWriter(self.info.file_format, self.kept)

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    super()._download_and_prepare(dl_manager, download_config)
    reports = {
      split: [
        json.loads(path.read_text())
        for path in sorted(self.kept.glob(f'{self.recipe.name}-{split}.array_record-*.json'))
      ]
      for split in self.recipe.splits
    }
    bad, remarks = (
      [
        f'{name}: {text}'
        for parts in reports.values()
        for part in parts
        for name, text in part[kind]
      ]
      for kind in ('bad', 'remarks')
    )
    if bad and not self.skip_bad:
      raise ValueError(
        '\n  '.join([f'{len(bad)} clips of {self.recipe.name} cannot be used:', *bad])
        + '\nRepair them and give the same command again (the rest is kept), or leave them out '
        'with --skip_bad.'
      )
    for split in self.info.splits.values():
      if not split.num_examples:
        raise ValueError(f'No clip of {self.recipe.name}, split {split.name!r}, can be used.')
    ids = {
      split: [name for part in parts for name in part['ids']] for split, parts in reports.items()
    }
    (self.data_path / 'ids.json').write_text(json.dumps(ids))
    (self.data_path / 'skipped.json').write_text(json.dumps(bad, indent=1))
    remarks = [*self.recipe.remarks, *remarks]
    (self.data_path / 'remarks.json').write_text(json.dumps(remarks, indent=1))
    for name, text in self.recipe.files.items():
      (self.data_path / name).write_text(text, encoding='utf-8')
    built = {'fingerprint': self.fingerprint, 'frames_like': self.recipe.frames_like}
    (self.data_path / 'recipe.json').write_text(json.dumps(built))


@dataclasses.dataclass(frozen=True)
class _Shard:
  """The clips of one file. TFDS calls it twice for (key, record) pairs: to write and to count."""

  title: str
  kept: Path
  entries: tuple[Entry, ...]
  read: Callable[[Any], Record]
  pool: concurrent.futures.Executor | None

  def __call__(self) -> Iterator[tuple[str, Record | None]]:
    report = self.kept.with_name(self.kept.name + '.json')
    if self.kept.exists():  # from an earlier run: the writer takes the file, TFDS only counts
      yield from ((name, None) for name in json.loads(report.read_text())['ids'])
      return
    started = time.monotonic()
    ids: list[str] = []
    bad: list[tuple[str, str]] = []
    remarks: list[tuple[str, str]] = []
    attempt = Attempt(self.read)
    results = self.pool.map(attempt, self.entries) if self.pool else map(attempt, self.entries)
    for i, (entry, result) in enumerate(zip(self.entries, results)):
      if sys.stderr.isatty():
        print(f'\r{self.title}: {i}', end='', file=sys.stderr, flush=True)
      if isinstance(result, Exception):
        bad.append((entry.id, str(result)))
        continue
      record, texts = result
      ids.append(entry.id)
      remarks += [(entry.id, text) for text in texts]
      yield entry.id, record
    whole.write(report, json.dumps({'ids': ids, 'bad': bad, 'remarks': remarks}))
    rate = len(self.entries) / (time.monotonic() - started)
    print(f'\r{self.title}: {rate:.1f} per second, {len(bad)} bad', file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Attempt:
  """Reads clips without raising; a class, to be sent to worker processes."""

  read: Callable[[Any], Record]

  def __call__(self, entry: Entry) -> tuple[Record, list[str]] | Exception:
    """The record and the remarks on it, or the error."""
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      try:
        record = self.read(entry)
      except (ValueError, OSError) as error:
        return error
    return record, [str(w.message) for w in caught if issubclass(w.category, Remark)]


class _KeepingWriter(tfds.core.dataset_builder.writer_lib.ExampleWriter):
  """Writes a file beside the build first, so that it is kept after an interruption."""

  def __init__(self, file_format: Any, kept: Path):
    super().__init__(file_format)
    self.kept = kept

  def write(self, path: Any, examples: Any) -> None:
    """Writes the records of a shard, or takes the file of an earlier build."""
    kept = self.kept / Path(path).name
    if not kept.exists():
      part = kept.with_name(kept.name + '.part')
      try:
        super().write(part, examples)
        with part.open('rb') as file:
          os.fsync(file.fileno())
        part.rename(kept)
      except RuntimeError as error:  # ArrayRecord's, of a full disk
        raise OSError(
          f'{kept.name} cannot be written ({error}). What was finished before it is kept: make'
          ' room, and give the same command again.'
        ) from error
      finally:
        part.unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)  # of an earlier attempt: Beam repeats failed ones
    try:
      os.link(kept, path)
    except OSError:  # a file system without links
      shutil.copyfile(kept, path)


def _fingerprint(recipe: Recipe) -> str:
  """A hash of everything that determines the records, except the media files themselves."""
  features = tfds.features.FeaturesDict(dict(recipe.features)).to_json_content()
  read = getattr(recipe.read, '__qualname__', repr(recipe.read))
  parts = [recipe.name, recipe.version, str(features), read, repr(sorted(recipe.files.items()))]
  for split, entries in recipe.splits.items():  # `Clip`: what an Entry was called in early builds
    parts += [f'{split}: {re.sub("^Entry", "Clip", repr(entry))}' for entry in entries]
  if recipe.frames_like not in ('', rules.RELEASE):  # which early builds did not name
    parts.append(f'frames_like: {recipe.frames_like}')
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()
