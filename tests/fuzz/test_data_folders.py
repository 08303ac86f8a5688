"""Folders of data sets as users have them: built as they are, or refused in one error.

What a text editor or a file manager may have done changes no record. Otherwise every record that
is built is whole, and the doctor calls those clips usable that are built. A failing input is made
again by its seed and number; the message tells what was done to the folder.
"""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

from dgsct_jax.data import datasets, doctor, records
from tests.data.datasets import (
  test_ave,
  test_avsbench,
  test_cremad,
  test_llp,
  test_music_avqa,
  test_vggsound,
)
from tests.fuzz import damage

pytestmark = pytest.mark.fuzz

INPUTS = 200
RATE = 800
MAKERS = {
  'ave': lambda root: test_ave.label_files(test_ave.released(root)),
  'avsbench_ms3': test_avsbench.ms3,
  'avsbench_s4': test_avsbench.s4,
  'cremad': test_cremad.released,
  'llp': lambda root: test_llp.released(root, motion=True),
  'music_avqa': test_music_avqa.released,
  'vggsound': lambda root: test_vggsound.released(root, soundfile),
}
LABELS = ('.txt', '.csv', '.json')
FIELDS = ('', '-1', '3.5', '1e9', 'nan', 'ten', 'x' * 3000, '"', '../..', 'Speech', '11', ' ', 'é')


def recipe(name, root):
  return datasets.KINDS[name].recipe(root, rate=RATE)


def contents(folder):
  """The records of each split of a built data set."""
  splits = json.loads((folder / 'ids.json').read_text())
  found = {}
  for split in splits:
    source = records.load(folder.parents[1], folder.parent.name, split)
    found[split] = [source[i] for i in range(len(source))]
  return found


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """For each data set its folder, and the records that are built of it."""
  made = {}
  for name, make in MAKERS.items():
    folder = tmp_path_factory.mktemp(name)
    make(folder / 'given')
    given = recipe(name, folder / 'given')
    made[name] = folder / 'given', contents(records.write(given, folder / 'built'))
  return made


def tables_of(root):
  """The label files in which something stands."""
  files = sorted(path for path in root.rglob('*') if path.is_file())
  return [path for path in files if path.suffix in LABELS and path.stat().st_size]


def edit(rng, root, told):
  """What changes nothing: a mark, line ends, blank lines; names and neighbours of frames."""
  tables = tables_of(root)
  if rng.random() < 0.6:
    path = tables[rng.integers(len(tables))]
    lines, mark, end = path.read_bytes().decode('utf-8-sig').splitlines(), '', '\n'
    match rng.integers(3):
      case 0:
        mark = '\ufeff'
      case 1:
        end = '\r\n'
      case _:
        lines.insert(int(rng.integers(len(lines) + 1)), '')
    path.write_bytes((mark + end.join([*lines, ''])).encode())
    told.append(f'{path.relative_to(root)}: mark {mark!r}, ends {end!r}, {lines.count("")} blank')
    return
  folders = sorted({path.parent for path in root.rglob('*.jpg')})
  if not folders:
    return
  folder = folders[rng.integers(len(folders))]
  match rng.integers(3):
    case 0:
      told.append(f'{folder.relative_to(root)}: numbers without zeros')
      for path in sorted(folder.glob('*.jpg')):
        path.rename(folder / f'{int(path.stem)}.jpg')
    case 1:
      told.append(f'{folder.relative_to(root)}: .JPG')
      for path in sorted(folder.glob('*.jpg')):
        path.rename(path.with_suffix('.JPG'))
    case _:
      told.append(f'{folder.relative_to(root)}: with Thumbs.db')
      (folder / 'Thumbs.db').write_bytes(rng.bytes(50))


def spoil(rng, root, told):
  """Damages a row of a label file, a file, or a folder."""
  files, tables = sorted(path for path in root.rglob('*') if path.is_file()), tables_of(root)
  if rng.random() < 0.5 and tables:
    path = tables[rng.integers(len(tables))]
    told.append(str(path.relative_to(root)))
    if path.suffix == '.json' or rng.random() < 0.2:
      damage.file(rng, path, told)
    else:
      rows(rng, path, told)
  elif rng.random() < 0.8:
    path = files[rng.integers(len(files))]
    told.append(str(path.relative_to(root)))
    damage.file(rng, path, told)
  else:
    path = files[rng.integers(len(files))].parent
    if path == root:
      return
    told.append(f'{path.relative_to(root)} removed')
    shutil.rmtree(path)


def rows(rng, path, told):
  """Changes a row of a table."""
  lines = path.read_bytes().decode('utf-8', 'replace').splitlines() or ['']
  i, j = (int(k) for k in rng.integers(len(lines), size=2))
  match rng.integers(6):
    case 0:
      told.append(f'line {i + 1} removed')
      del lines[i]
    case 1:
      told.append(f'line {i + 1} stands again before line {j + 1}')
      lines.insert(j, lines[i])
    case 2:
      told.append(f'lines {i + 1} and {j + 1} changed places')
      lines[i], lines[j] = lines[j], lines[i]
    case 3:
      told.append(f'line {i + 1} cut')
      lines[i] = lines[i][: rng.integers(len(lines[i]) + 1)]
    case _:
      delimiter = next((mark for mark in '&\t,' if mark in lines[i]), ' ')
      cells, new = lines[i].split(delimiter), FIELDS[rng.integers(len(FIELDS))]
      k = int(rng.integers(len(cells)))
      told.append(f'line {i + 1}, cell {k + 1} is {new!r}')
      cells[k] = new
      lines[i] = delimiter.join(cells)
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def check(found, given):
  """Every record is what a model can be trained on."""
  for split, clips in found.items():
    assert clips and split in given
    for record in clips:
      # Features of motion are left out where their folder is missing.
      assert given[split][0].keys() - record.keys() <= {'motion'}
      assert record['wave'].dtype == np.int16
      assert len(record['wave']) % RATE == 0
      for frame in record['frames']:
        assert np.asarray(Image.open(io.BytesIO(frame)).convert('RGB')).ndim == 3
      for name, value in record.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
          assert np.isfinite(value).all(), name


def test_a_folder_is_built_as_it_is_or_refused(tmp_path, seed, number, whole):
  rng, told = np.random.default_rng([seed, number]), []
  name = list(MAKERS)[rng.integers(len(MAKERS))]
  given, expected = whole[name]
  root = tmp_path / 'given'
  shutil.copytree(given, root)
  harmless = rng.random() < 0.3
  for _ in range(rng.integers(1, 3)):
    (edit if harmless else spoil)(rng, root, told)
  input_ = f'seed {seed}, number {number}: {name}: {"; ".join(told)}'

  cost, out = damage.Cost(), tmp_path / 'out'
  try:
    wanted = recipe(name, root)
    usable = {(f.split, f.id) for f in doctor.examine(wanted) if f.usable}
    folder = records.write(wanted, out, skip_bad=True)
    found = contents(folder)
    check(found, expected)
    if harmless:
      np.testing.assert_equal(found, expected)
    ids = json.loads((folder / 'ids.json').read_text())
    assert {(split, clip) for split, clips in ids.items() for clip in clips} == usable
  except (ValueError, OSError) as error:
    told_where = str(root) in str(error) or 'can be used' in str(error)  # no clip of a split
    assert told_where and len(str(error)) < 5000 and not harmless, f'{input_}: {error}'
    assert not list(out.glob('*/*/dataset_info.json')), input_
  except Exception as error:
    raise AssertionError(input_) from error
  cost.check(input_)
