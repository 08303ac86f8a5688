"""Label and frame files as users have them are read right, or refused by file and row."""

import codecs
import os
import threading

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import cut, files, questions
from dgsct_jax.data.datasets import avsbench, music_avqa

TEXT = 'name,split\naé,train\nb,test\n'


@pytest.mark.parametrize(
  'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32']
)
@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_the_byte_order_mark_decides(tmp_path, encoding, ending):
  marks = {'utf-16-le': codecs.BOM_UTF16_LE, 'utf-16-be': codecs.BOM_UTF16_BE}
  content = marks.get(encoding, b'') + TEXT.replace('\n', ending).encode(encoding)
  (tmp_path / 'a.csv').write_bytes(content)
  rows = files.table(tmp_path / 'a.csv', ('name', 'split'))
  assert [list(row.fields.values()) for row in rows] == [['aé', 'train'], ['b', 'test']]
  assert [row.line for row in rows] == [2, 3]


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
  (tmp_path / 'a.csv').write_bytes(b'name,split\nb\xe9,train\n')
  with pytest.raises(ValueError, match=r'a.csv, line 2: byte 12 is not utf-8; save'):
    files.table(tmp_path / 'a.csv', ())


@pytest.mark.parametrize('text', [TEXT + '\n\n', '\n' + TEXT, TEXT.replace('b,', '\n , \nb,')])
def test_blank_lines_do_not_count_and_lines_keep_their_numbers(tmp_path, text):
  (tmp_path / 'a.csv').write_text(text)
  rows = files.table(tmp_path / 'a.csv', ('name',))
  lines = text.splitlines()
  assert [row.fields['name'] for row in rows] == ['aé', 'b']
  assert all(lines[row.line - 1].startswith(row.fields['name']) for row in rows)
  assert [line for _, line in files.lines(tmp_path / 'a.csv')][-1] == 'b,test'


@pytest.mark.parametrize(
  'text, message',
  [
    (
      'name;split\na;train\n',
      r"columns name, split, separated by ','.*seem to be separated by ';'",
    ),
    ('name\tsplit\na\ttrain\n', r"seem to be separated by '\\t'"),
    ('id,split\na,train\n', r"first line \['id', 'split'\] lacks name"),
    ('', 'lacks name, split'),
    ('name,split\na,train\nb\n', 'line 3: 1 fields, but the header has 2'),
    ('name,split\n"a,train\nb,test\n', 'line 2: a quotation mark is not closed'),
  ],
)
def test_a_table_that_is_none_is_refused_by_file_and_row(tmp_path, text, message):
  (tmp_path / 'a.csv').write_text(text)
  with pytest.raises(ValueError, match=f'(?s)a.csv.*{message}'):
    files.table(tmp_path / 'a.csv', ('name', 'split'))


@pytest.mark.parametrize(
  'text, value', [('3', 3), ('3.0', 3), (' 3 ', 3), ('3.5', ''), ('x', ''), ('11', ''), ('nan', '')]
)
def test_whole_numbers_may_be_written_as_decimals(tmp_path, text, value):
  (tmp_path / 'a.csv').write_text(f'onset\n{text}\n')
  (row,) = files.table(tmp_path / 'a.csv', ('onset',))
  if value:
    assert row.whole('onset', 0, 10) == value
  else:
    with pytest.raises(ValueError, match='a.csv, line 2: onset is '):
      row.whole('onset', 0, 10)


def draw(folder, *names):
  folder.mkdir(exist_ok=True)
  for name in names:
    Image.new('RGB', (4, 4)).save(folder / name, 'png' if name.lower().endswith('png') else 'jpeg')


@pytest.mark.parametrize(
  'names',
  [
    [f'{i}.jpg' for i in range(1, 13)],
    [f'{i:08d}.jpg' for i in range(1, 13)],
    [f'{i:02d}.JPG' if i % 2 else f'{i}.Jpeg' for i in range(1, 13)],
    [f'clip2_{i}.PNG' for i in range(12)],
  ],
)
def test_pictures_come_in_the_order_of_their_numbers(tmp_path, names):
  draw(tmp_path / 'a', *names)
  (tmp_path / 'a/notes.txt').write_text('')
  assert [path.name for path in files.pictures(tmp_path / 'a')] == names


def test_pictures_without_numbers_come_by_name(tmp_path):
  draw(tmp_path / 'a', 'b.png', 'a.jpg')
  assert [path.name for path in files.pictures(tmp_path / 'a')] == ['a.jpg', 'b.png']


@pytest.mark.parametrize(
  'names, message',
  [
    (['1.jpg', '01.jpg', '2.jpg'], '01.jpg and 1.jpg are both picture 1'),
    (['1.jpg', '1.PNG'], '1.PNG and 1.jpg are both picture 1'),
    (['1.jpg', '2.jpg', '4.jpg'], 'has the pictures 1 to 4, without 1 .*first 3'),
    (['5.jpg', '6.jpg'], 'has the pictures 5 to 6, without 4 .*first 1'),
    ([], 'has no pictures'),
  ],
)
def test_a_folder_with_doubts_is_refused(tmp_path, names, message):
  draw(tmp_path / 'a', *names)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    files.pictures(tmp_path / 'a')


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
  draw(tmp_path / 'a', '1.jpg')
  os.mkfifo(tmp_path / 'a/2.jpg')
  os.mkfifo(tmp_path / 'list.csv')
  with pytest.raises(ValueError, match='2.jpg is no regular file'):
    files.pictures(tmp_path / 'a')
  with pytest.raises(ValueError, match='list.csv is no regular file'):
    files.read_text(tmp_path / 'list.csv')


def test_a_list_that_a_user_names_may_be_a_pipe(tmp_path):
  os.mkfifo(tmp_path / 'list')
  with pytest.raises(ValueError, match='list is no regular file'):
    files.lines(tmp_path / 'list')
  writer = threading.Thread(target=(tmp_path / 'list').write_text, args=['a\n\n b \n'])
  writer.start()
  assert files.lines(tmp_path / 'list', pipe=True) == [(1, 'a'), (3, 'b')]
  writer.join()


def test_a_folder_with_half_of_the_usual_pictures_does_not_show_the_clip(tmp_path):
  for name, count in (('a', 16), ('b', 16), ('c', 8), ('d', 15)):
    draw(tmp_path / name, *(f'{i}.jpg' for i in range(1, count + 1)))
  usual = cut.usual_count(tmp_path / name for name in 'abcdx')
  assert usual == 16 and cut.usual_count([]) == 0
  assert len(cut.frame_files(tmp_path / 'd', 10, usual)) == 10
  with pytest.raises(cut.WrongLength, match='c has 8 pictures, where the folders of this data set'):
    cut.frame_files(tmp_path / 'c', 10, usual)


@pytest.mark.parametrize('rate', [8000, 16000, 22050, 44100, 48000])
def test_a_wave_of_another_rate_is_told_with_the_flag(tmp_path, rate):
  np.save(tmp_path / 'a.npy', np.zeros(rate * 10, np.float32))
  with pytest.raises(cut.WrongLength, match=rf'10 s of sound at {rate} Hz .* give --rate={rate}\.'):
    cut.wave_file(tmp_path / 'a.npy', 10, 32000)
  assert len(cut.wave_file(tmp_path / 'a.npy', 10, rate)) == 10 * rate


def test_an_archive_is_no_wave(tmp_path):
  np.savez(tmp_path / 'a.npz', np.zeros(9))
  (tmp_path / 'a.npz').rename(tmp_path / 'a.npy')
  with pytest.raises(ValueError, match='a.npy is an archive of arrays'):
    cut.wave_file(tmp_path / 'a.npy', 1, 9)


def quarter(mode):
  """A mask on the upper left quarter of 8 × 8 pixels, in one of the ways that people save it."""
  on = np.zeros((8, 8), bool)
  on[:4, :4] = True
  grey = Image.fromarray(on * np.uint8(255))
  if mode == 'alpha':
    image = Image.new('RGBA', (8, 8), (0, 0, 0, 0))
    image.putalpha(grey)
    return image
  if mode == 'white and alpha':
    image = Image.new('RGBA', (8, 8), (255, 255, 255, 255))
    image.putalpha(grey)
    return image
  if mode.startswith('palette'):
    image = Image.fromarray((on if mode == 'palette' else ~on).astype(np.uint8), 'P')
    colours = [0, 0, 0, 200, 0, 0] if mode == 'palette' else [255, 255, 255, 0, 0, 0]
    image.putpalette(colours)
    return image
  return grey.convert(mode)


@pytest.mark.parametrize(
  'mode',
  ['1', 'L', 'RGB', 'RGBA', 'LA', 'alpha', 'white and alpha', 'palette', 'palette, white first'],
)
def test_a_mask_is_what_is_not_black_or_not_transparent(tmp_path, mode):
  quarter(mode).save(tmp_path / 'a.png')
  (tmp_path / 'b.png').write_bytes(avsbench.binary_mask(tmp_path / 'a.png'))
  mask = np.asarray(Image.open(tmp_path / 'b.png'))
  assert mask[:4, :4].all() and mask.sum() == 16 * 255


def test_soft_edges_of_a_mask_are_cut_at_half(tmp_path):
  values = np.zeros((16, 16), np.uint8)
  values[:8, :8], values[8, :8], values[:8, 8] = 255, 200, 90
  Image.fromarray(values).save(tmp_path / 'a.png')
  with pytest.warns(UserWarning, match='a.png has soft edges'):
    (tmp_path / 'b.png').write_bytes(avsbench.binary_mask(tmp_path / 'a.png'))
  assert (np.asarray(Image.open(tmp_path / 'b.png')) > 0).sum() == 64 + 8


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
  Image.new('1', (15000, 15000)).save(tmp_path / 'a.png')
  for read in (avsbench.binary_mask, lambda path: cut.read_pictures([path])):
    with pytest.raises(ValueError, match='a.png .*(15000 × 15000 pixels|225000000 pixels)'):
      read(tmp_path / 'a.png')


QUESTION = {
  'video_id': '00000007',
  'question_id': 3,
  'type': '["Audio", "Counting"]',
  'question_content': 'How many instruments are sounding in the video?',
  'templ_values': '[]',
  'question_deleted': 0,
  'anser': 'two',
}


def ask(text, **changes):
  import json

  question = {k: v for k, v in (QUESTION | changes).items() if v is not ...}
  return questions.read(
    text or json.dumps([question]), 'a.json', music_avqa.WORDS, music_avqa.ANSWERS
  )


def test_a_sound_question_is_read_and_numbers_are_names():
  assert ask('')[0]['video_id'] == ask('', video_id=7)[0]['video_id'] == '00000007'


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'anser': 'theremin'}, "question 3: its answer 'theremin' is unknown"),
    ({'anser': ..., 'answer': 'two'}, r'question 3: it lacks anser \(it has answer\)'),
    ({'type': '["Audio", "Smell"]'}, 'question 3: its type .* is none of the nine'),
    ({'type': ['Audio', 'Counting']}, 'question 3: type is .* not a JSON list written as text'),
    *[
      ({name: {'a': 1}}, f"{name} is {{'a': 1}}, not ")
      for name in ('video_id', 'templ_values', 'question_content', 'anser', 'question_id')
    ],
    ({'video_id': None}, 'question 3: video_id is None, not the name or number of a video'),
    ({'anser': 2}, 'question 3: anser is 2, not a text'),
    ({'templ_values': '["x"]'}, 'question 3: .* slots'),
    ({'question_content': 'How many  instruments are sounding in the video?'}, 'question 3'),
    ({'question_content': 'How many instruments are sounding in the videos'}, 'does not end in a'),
    ({'question_content': 'How many theremins are sounding in the video?'}, 'theremins'),
    ({'question_id': ..., 'anser': 'theremin'}, 'question in place 0: it lacks question_id'),
  ],
)
def test_faulty_questions_are_named_by_number(changes, message):
  with pytest.raises(ValueError, match=f'(?s)a.json: 1 faulty questions.*{message}'):
    ask('', **changes)


@pytest.mark.parametrize(
  'text, message',
  [('{"a": 1}', 'holds dict, not a list'), ('[1]', 'list'), ('[{', 'line 1: no JSON')],
)
def test_what_is_no_list_of_questions_is_refused(text, message):
  with pytest.raises(ValueError, match=f'a.json.*{message}'):
    ask(text)
