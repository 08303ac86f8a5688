"""Reads the label and frame files of data sets, as users have them.

Text may have a byte order mark, either line ending and blank lines; names of frames may have any
zero padding and extensions in any case. Errors name the file and the row.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PICTURES = ('.jpg', '.jpeg', '.png')
MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
  codecs.BOM_UTF32_LE: 'utf-32',
  codecs.BOM_UTF32_BE: 'utf-32',
  codecs.BOM_UTF8: 'utf-8-sig',
  codecs.BOM_UTF16_LE: 'utf-16',
  codecs.BOM_UTF16_BE: 'utf-16',
}


class Row(NamedTuple):
  """One row of a table."""

  path: Path
  line: int  # of the file, from 1
  fields: dict[str, str]

  def fail(self, why: str) -> ValueError:
    """A ValueError that names the row."""
    return ValueError(f'{self.path}, line {self.line}: {why}.')

  def whole(self, name: str, least: int, most: int) -> int:
    """A field as a whole number from `least` to `most`; 3.0 is one. Raises ValueError."""
    text = self.fields[name]
    try:
      number = float(text)
    except ValueError:
      raise self.fail(f'{name} is {text!r}, not a number') from None
    if not least <= number <= most or number != int(number):
      raise self.fail(f'{name} is {text}; it must be a whole number from {least} to {most}')
    return int(number)


def read_text(path: Path, pipe: bool = False) -> str:
  """The text of a file, in UTF-8 unless its byte order mark says otherwise.

  Args:
    pipe: it may be a pipe, too, as a file that the user names.

  Raises:
    ValueError: it is missing, not a regular file, or not text in that encoding.
  """
  if not (path.is_file() or pipe and path.is_fifo()):
    raise ValueError(f'{path} is {"no regular file" if path.exists() else "missing"}.')
  content = path.read_bytes()
  encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), 'utf-8')
  try:
    return content.decode(encoding)
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise ValueError(
      f'{path}, line {line}: byte {error.start} is not {encoding}; save the file as UTF-8.'
    ) from error


def lines(path: Path, pipe: bool = False) -> list[tuple[int, str]]:
  """The number, from 1, and the text of each line that is not blank. Raises as `read_text`."""
  numbered = enumerate(read_text(path, pipe).splitlines(), 1)
  return [(number, line.strip()) for number, line in numbered if line.strip()]


def table(path: Path, columns: Sequence[str], delimiter: str = ',') -> list[Row]:
  """The rows below a header that names at least `columns`.

  Raises:
    ValueError: a column is missing; or a row has more or fewer fields than the header.
  """
  (_, head), *rest = _split(path, delimiter) or [(1, [])]
  if missing := [name for name in columns if name not in head]:
    others = [name for name in ('\t', ',', ';', '&') if name in ''.join(head)]
    hint = f' The columns seem to be separated by {others[0]!r}.' if others else ''
    raise ValueError(
      f'{path} needs the columns {", ".join(columns)}, separated by {delimiter!r}; its first line'
      f' {head} lacks {", ".join(missing)}.{hint}'
    )
  rows = []
  for number, fields in rest:
    if len(fields) != len(head):
      raise ValueError(
        f'{path}, line {number}: {len(fields)} fields, but the header has {len(head)}: {fields}.'
      )
    rows.append(Row(path, number, dict(zip(head, fields))))
  return rows


def columns(path: Path, count: int, delimiter: str = ',') -> list[Row]:
  """The first fields of the rows of a file without a header, by position: '0', '1', ..."""
  rows = []
  for number, fields in _split(path, delimiter):
    if len(fields) < count:
      raise ValueError(f'{path}, line {number}: {len(fields)} fields instead of {count}: {fields}.')
    rows.append(Row(path, number, {str(i): field for i, field in enumerate(fields[:count])}))
  return rows


def pictures(folder: Path) -> list[Path]:
  """The pictures of a folder in the order of the last number in their names.

  Raises:
    FileNotFoundError: there are none.
    ValueError: two have the same number, a number is missing, or one is not a regular file.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f'{folder} is missing.')
  files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
  if not files:
    raise FileNotFoundError(f'{folder} has no pictures.')
  if odd := [path for path in files if not path.is_file()]:
    raise ValueError(f'{odd[0]} is no regular file.')
  numbers = {path: re.findall(r'\d+', path.stem) for path in files}
  if not all(numbers.values()):
    return files
  by_number: dict[int, Path] = {}
  for path in files:
    number = int(numbers[path][-1])
    if number in by_number:
      raise ValueError(f'{by_number[number]} and {path.name} are both picture {number}.')
    by_number[number] = path
  ordered = sorted(by_number)
  gaps = [n for n in range(min(1, ordered[0]), ordered[-1]) if n not in by_number]
  if gaps:
    raise ValueError(
      f'{folder} has the pictures {ordered[0]} to {ordered[-1]}, without {len(gaps)} of those from'
      f' {min(1, ordered[0])} on, first {gaps[0]}; cut the clip again.'
    )
  return [by_number[number] for number in ordered]


def _split(path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
  """The number of the first line and the fields of each row that is not blank."""
  reader, rows, start = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter), [], 1
  for fields in _rows(path, reader):
    if any('\n' in field for field in fields):
      raise ValueError(f'{path}, line {start}: a quotation mark is not closed in this line.')
    if any(field.strip() for field in fields):
      rows.append((start, [field.strip() for field in fields]))
    start = reader.line_num + 1
  return rows


def _rows(path: Path, reader: Any) -> Iterator[list[str]]:
  try:
    yield from reader
  except csv.Error as error:
    raise ValueError(f'{path}, line {reader.line_num}: {error}.') from error
