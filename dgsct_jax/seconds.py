"""What a view tells second by second: a table (CSV) and subtitles (WebVTT)."""

import csv as comma
import html
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dgsct_jax.tasks.task import View
from dgsct_jax.tracks import Bars, Steps, clock


class Table(NamedTuple):
  """Rows under the names of their columns."""

  header: tuple[str, ...]
  rows: list[tuple[str | int | float, ...]]


class Cue(NamedTuple):
  """A line of text from one second of a file to another."""

  start: int
  end: int
  text: str


def table(view: View, starts: Sequence[int]) -> Table:
  """A row for each second: its start, every track of classes or values, and the caption.

  Tracks of one name share a column; '; ' stands between what they say.

  Args:
    starts: the second of the file at which each second of the view begins.
  """
  columns: dict[str, list[list[str]]] = {}
  for track in view.tracks:
    if isinstance(track, Bars | Steps):
      column = columns.setdefault(track.name, [[] for _ in starts])
      for cell, told in zip(column, _told(track), strict=True):
        cell += [told] if told else []
  if view.captions:
    columns['caption'] = [[text] for text in _captions(view, starts)]
  rows = zip(starts, *(['; '.join(cell) for cell in column] for column in columns.values()))
  return Table(('second', *columns), list(rows))


def cues(view: View, starts: Sequence[int], seconds: int) -> list[Cue]:
  """The events of a view, or its captions if it has none, each as long as it stays the same.

  A second that the model gets lasts until the next one that it gets, as in the film.

  Args:
    seconds: of the file.
  """
  tracks = [track for track in view.tracks if isinstance(track, Bars)]
  several = len({track.name for track in tracks}) > 1
  found: list[Cue] = []
  for track in tracks:
    texts = [f'{track.name}: {name}' if several and name else name for name in _told(track)]
    found += _runs(texts, starts, seconds)
  if not tracks and view.captions:
    found = list(_runs(_captions(view, starts), starts, seconds))
  return sorted(found, key=lambda cue: cue[:2])


def csv(table: Table) -> str:
  """As RFC 4180 has it."""
  stream = io.StringIO(newline='')
  comma.writer(stream).writerows([table.header, *table.rows])
  return stream.getvalue()


def webvtt(cues: Sequence[Cue]) -> str:
  """As W3C's WebVTT has it."""
  blocks = [
    f'{_time(cue.start)} --> {_time(cue.end)}\n{html.escape(" ".join(cue.text.split()), False)}\n'
    for cue in cues
  ]
  return '\n'.join(['WEBVTT\n', *blocks])


def _told(track: Bars | Steps) -> list[str]:
  """Each second of a track as text; '' for no class."""
  if isinstance(track, Steps):
    return [f'{value:.4f}' for value in track.values]
  return [(*track.names, '')[label] for label in track.labels]


def _captions(view: View, starts: Sequence[int]) -> list[str]:
  """Without the time that they begin with."""
  return [
    text.removeprefix(clock(t)).strip() for t, text in zip(starts, view.captions, strict=True)
  ]


def _runs(texts: Sequence[str], starts: Sequence[int], seconds: int) -> Iterator[Cue]:
  """Equal texts after each other as one; empty ones are left out."""
  bounds = [*starts, max(seconds, starts[-1] + 1)]
  changes = [i for i, text in enumerate(texts) if not i or text != texts[i - 1]]
  for i, end in zip(changes, [*changes[1:], len(texts)]):
    if texts[i] and bounds[i] < bounds[end]:
      yield Cue(bounds[i], bounds[end], texts[i])


def _time(second: int) -> str:
  minutes, rest = divmod(second, 60)
  return f'{minutes // 60:02}:{minutes % 60:02}:{rest:02}.000'
