"""Tables and subtitles say what the tracks of a view say, second by second."""

import csv
import io

import numpy as np
import pytest

from dgsct_jax import seconds
from dgsct_jax.tasks.task import View
from dgsct_jax.tracks import Bars, Steps

NAMES = ('Dog', 'Bell')


def view(*tracks, captions=()):
  return View('events', 'title', {}, tracks=tracks, captions=captions)


def test_a_table_has_a_row_for_each_second_and_a_column_for_each_name():
  bars = Bars('heard', np.array([0, 0, 2]), NAMES), Bars('heard', np.array([2, 1, 1]), NAMES)
  steps = Steps('event', np.array([0.5, 0.25, 1.0]), 0.5)
  table = seconds.table(
    view(*bars, steps, captions=('1:05  Dog', '1:06  both', 'Bell')), (65, 66, 67)
  )
  assert table.header == ('second', 'heard', 'event', 'caption')
  assert table.rows == [
    (65, 'Dog', '0.5000', 'Dog'),
    (66, 'Dog; Bell', '0.2500', 'both'),
    (67, 'Bell', '1.0000', 'Bell'),
  ]


def test_a_table_is_read_back_from_its_csv():
  table = seconds.table(
    view(Bars('seen', np.array([0, 1]), ('a, "b"', 'line\nbreak'))), starts=(0, 1)
  )
  rows = list(csv.reader(io.StringIO(seconds.csv(table), newline='')))
  assert rows == [['second', 'seen'], ['0', 'a, "b"'], ['1', 'line\nbreak']]


def test_an_event_is_one_subtitle_as_long_as_it_lasts():
  one = Bars('predicted', np.array([2, 0, 0, 1]), NAMES)
  assert seconds.cues(view(one), range(4), 4) == [(1, 3, 'Dog'), (3, 4, 'Bell')]
  two = seconds.cues(view(one, Bars('seen', np.array([0, 0, 0, 0]), NAMES)), range(4), 4)
  assert two == [(0, 4, 'seen: Dog'), (1, 3, 'predicted: Dog'), (3, 4, 'predicted: Bell')]


def test_a_second_lasts_until_the_next_one_that_the_model_gets():
  starts, captions = (0, 0, 6, 12), ('x', 'y', 'y', 'z')
  assert seconds.cues(view(captions=captions), starts, 20) == [(0, 12, 'y'), (12, 20, 'z')]
  assert seconds.cues(view(), starts, 20) == []


def test_subtitles_hold_no_markup_of_names():
  text = seconds.webvtt([seconds.Cue(59, 3661, 'a <b> --> & "c"\n\nd')])
  assert text == 'WEBVTT\n\n00:00:59.000 --> 01:01:01.000\na &lt;b&gt; --&gt; &amp; "c" d\n'


def test_captions_must_be_as_many_as_seconds():
  with pytest.raises(ValueError):
    seconds.table(view(captions=('a',)), (0, 1))
