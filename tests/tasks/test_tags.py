"""Tags: names of classes, and what is told of a second."""

import numpy as np
import pytest

from configs import composed
from configs import tags as tags_config
from dgsct_jax.data import clips
from dgsct_jax.tasks import tags
from dgsct_jax.tracks import Bars, Frames, Spectrum

NAMES = {'seen': ('zebra', 'suit', 'lake'), 'heard': ('Speech', 'Music')}


@pytest.mark.parametrize(
  'name, text',
  [
    ('names.csv', 'index,mid,display_name\n0,/m/a,Speech\n1,/m/b,"Child speech, kid speaking"\n'),
    (
      'names.py',
      "import nothing_like_this\nOTHER = 1\nIMAGENET_CLASSNAMES = ('Speech', "
      "'Child speech, kid speaking')\n",
    ),
    ('names.txt', 'Speech\n\nChild speech, kid speaking\n'),
  ],
)
def test_names_are_read_and_nothing_is_run(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  found = tags.names(str(tmp_path / name), 2)
  assert found == ('Speech', 'Child speech, kid speaking')
  with pytest.raises(ValueError, match=rf'{name} has 2 names; the classifier has 3 classes'):
    tags.names(str(tmp_path / name), 3)


@pytest.mark.parametrize(
  'text', ['IMAGENET_CLASSNAMES = [f()]', 'IMAGENET_CLASSNAMES = (', 'X = 1']
)
def test_a_python_file_without_names_is_refused(tmp_path, text):
  (tmp_path / 'names.py').write_text(text)
  with pytest.raises(ValueError, match='names.py (cannot be read|has 0 names)'):
    tags.names(str(tmp_path / 'names.py'), 2)


def shown(least=0.1):
  frames = np.full((3, 8, 8, 3), 90, np.uint8)
  frames[1] = 0
  wave = np.tile(np.sin(np.arange(100.0)).astype(np.float32), (3, 1))
  wave[2] = 0
  clip = clips.Clip('clip', (4, 5, 6), frames, wave)
  outputs = {
    'seen': np.log([[[0.9, 0.08, 0.02]] * 3]),
    'heard': np.array([[[3.0, -1.0], [-9.0, -9.0], [3.0, 3.0]]]),
  }
  return tags.show(clip, outputs, NAMES, least)


def test_a_second_has_the_tags_that_are_likely_enough_and_none_where_nothing_is():
  view = shown()
  rows = view.record['timeline']
  assert rows[0] == {
    'second': 4,
    'seen': [{'tag': 'zebra', 'probability': 0.9}],
    'heard': [{'tag': 'Speech', 'probability': 0.9526}, {'tag': 'Music', 'probability': 0.2689}],
  }
  assert rows[1]['seen'] == rows[1]['heard'] == []  # black; nothing likely
  assert rows[2]['heard'] == []  # silent
  assert view.lines == (
    '0:04  seen zebra 0.90 · heard Speech 0.95, Music 0.27',
    '0:05  seen – · heard –',
    '0:06  seen zebra 0.90 · heard –',
  )
  assert [type(track) for track in view.tracks] == [Frames, Bars, Spectrum, Bars]
  seen, heard = (track for track in view.tracks if isinstance(track, Bars))
  assert (seen.names, seen.labels.tolist()) == (('zebra',), [0, 1, 0])
  assert (heard.names, heard.labels.tolist()) == (('Speech',), [0, 1, 1])


def test_more_is_told_with_a_lower_limit():
  assert [tag['tag'] for tag in shown(0.01).record['timeline'][0]['seen']] == list(NAMES['seen'])


def test_an_encoder_without_a_classifier_is_refused():
  config = tags_config.get_config('tiny')
  config.model.audio = dict(composed.TINY_AUDIO)
  with pytest.raises(ValueError, match="audio.kind is 'htsat', which has no classifier"):
    tags.build(config)


def test_tags_are_neither_trained_nor_scored():
  task = tags.build(tags_config.get_config('tiny'))
  with pytest.raises(ValueError, match='neither trained nor scored'):
    task.loss({}, {})
  with pytest.raises(ValueError, match="config.data.kind is 'words': there is no split 'test'"):
    task.data('test')
