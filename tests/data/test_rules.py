"""The rules by which pictures are taken from videos, against FFmpeg's own filter."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dgsct_jax.data import media, records, rules, transforms
from dgsct_jax.data.datasets import ave, avsbench, cremad, llp, music_avqa, vggsound, vggsound_avel
from tests import clips

RATES = (12.5, 15, Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 60)


def numbered(count):
  """Pictures that tell their numbers up to 1023: red is the rest of 32, green the whole part."""
  i = np.arange(count)
  colours = np.stack([i % 32 * 8, i // 32 * 8, 0 * i], 1).astype(np.uint8)
  return np.broadcast_to(colours[:, None, None], (count, 16, 16, 3))


def number(pixels):
  red, green, _ = np.round(pixels.mean((0, 1)) / 8).astype(int).tolist()
  return red + 32 * green


def video(path, rate, seconds=10):
  times = [float(i / Fraction(rate)) for i in range(int(seconds * rate))]
  return clips.write(path, numbered(len(times)), times, clips.tone(8000, seconds), 8000)


def by_ffmpeg(path, rate):
  """What `ffmpeg -vf fps=RATE` writes."""
  with av.open(str(path)) as container:
    stream, graph = container.streams.video[0], av.filter.Graph()
    graph.link_nodes(
      graph.add_buffer(template=stream), graph.add('fps', f'fps={rate}'), graph.add('buffersink')
    ).configure()
    for frame in itertools.chain(container.decode(stream), [None]):
      graph.push(frame)
      try:
        while True:
          yield graph.pull().to_ndarray(format='rgb24')
      except (av.error.BlockingIOError, av.error.EOFError):
        pass


@pytest.mark.parametrize('rate', RATES)
def test_ffmpegs_rule_takes_the_pictures_of_its_filter(tmp_path, rate):
  path = video(tmp_path / 'a.mkv', rate, seconds=4)
  for per_second in (1, 16):
    expected = [number(frame) for frame in by_ffmpeg(path, per_second)]
    assert len(expected) in (4 * per_second, 4 * per_second - 1)
    taken = rules.Taken(per_second, range(len(expected)))
    found = media.frames(path, taken.times(rules.FFMPEG_FPS))
    assert [number(frame) for frame in found] == expected


@pytest.mark.parametrize(
  'page, taken, rate, release, ffmpeg_fps',
  [
    (
      'ave',
      ave.taken(16),
      25,
      [0, 26, 54, 82, 109, 137, 165, 192, 220, 248],
      [0, 27, 55, 83, 110, 138, 166, 192, 221, 249],
    ),
    (
      'ave',
      ave.taken(16),
      30,
      [0, 31, 65, 99, 131, 165, 198, 230, 264, 298],
      [0, 32, 66, 100, 132, 165, 199, 231, 265, 299],
    ),
    ('avsbench', avsbench.TAKEN, 25, [23, 48, 73, 98, 123], [24, 49, 74, 99, 124]),
    ('avsbench', avsbench.TAKEN, 30, [28, 58, 88, 118, 148], [29, 59, 89, 119, 149]),
    ('llp', llp.TAKEN, 25, [12, 37, 62, 87], [12, 37, 62, 87]),
    ('llp', llp.TAKEN, Fraction(30000, 1001), [15, 44, 74, 104], [14, 44, 74, 104]),
    ('llp', llp.TAKEN, 30, [15, 45, 75, 105], [14, 44, 74, 104]),
    ('vggsound', vggsound.TAKEN, 30, [15, 45, 75, 105], [14, 44, 74, 104]),
    ('cremad', cremad.TAKEN, Fraction(30000, 1001), [15, 44, 74], [14, 44, 74]),
    (
      'music_avqa',
      rules.Taken(1, (0, 6, 13, 19), 0.5),
      25,
      [12, 162, 337, 487],
      [12, 162, 337, 487],
    ),
    (
      'music_avqa',
      rules.Taken(1, (0, 6, 13, 19), 0.5),
      30,
      [15, 195, 405, 585],
      [14, 194, 404, 584],
    ),
  ],
)
def test_the_pictures_of_each_rule_are_those_of_the_data_sets_page(
  tmp_path, page, taken, rate, release, ffmpeg_fps
):
  text = (Path(__file__).parents[2] / f'docs/data/{page}.md').read_text()
  path = video(tmp_path / 'a.mkv', rate, seconds=20 if page == 'music_avqa' else 10)
  for name, expected in zip(rules.NAMES, (release, ffmpeg_fps), strict=True):
    found = [number(frame) for frame in media.frames(path, taken.times(name))]
    assert found[: len(expected)] == expected
    assert f'| {" ".join(map(str, expected))} |' in text


@pytest.mark.parametrize(
  'rate, numbers, read, entry',
  [
    (
      16,
      ave.taken(16).numbers,
      lambda like: ave.Read(800, 64, 16, frames_like=like),
      lambda path: ave.Entry('a', 0, 0, 0, 10, path),
    ),
    (
      1,
      range(10),
      lambda like: llp.Read(800, 64, like),
      lambda path: llp.Entry('aaaaaaaaaaa_0_10', (), (), (), path, False),
    ),
    (
      1,
      range(10),
      lambda like: vggsound.Read(800, 64, like),
      lambda path: vggsound.Entry('a', 0, 0, path, '', ''),
    ),
    (
      1,
      range(10),
      lambda like: vggsound_avel.Read(800, 64, frames_like=like),
      lambda path: vggsound_avel.Entry('a', 0, (0,) * 10, 1, path),
    ),
    (
      1,
      range(3),
      lambda like: cremad.Read(800, 64, like),
      lambda path: cremad.Entry('a', 0, path, '', path),
    ),
    (
      1,
      range(10),
      lambda like: music_avqa.Read(800, 64, 0.5, frames_like=like),
      lambda path: music_avqa.Entry('a', path),
    ),
    (
      16,
      avsbench.TAKEN.numbers,
      lambda like: avsbench.Read(800, 64, like),
      lambda path: avsbench.Entry('a', (), path, (), '', ''),
    ),
  ],
)
def test_every_data_set_takes_what_ffmpeg_writes_if_asked(tmp_path, rate, numbers, read, entry):
  path = video(tmp_path / 'a.mkv', 30)
  written = [number(frame) for frame in by_ffmpeg(path, rate)]
  taken = {}
  for name in rules.NAMES:
    record, _ = records.Attempt(read(name))(entry(str(path)))
    taken[name] = [number(transforms.decode_image(frame)) for frame in record['frames']]
  assert taken[rules.FFMPEG_FPS] == [written[i] for i in numbers] != taken[rules.RELEASE]


def test_a_rule_is_known_and_applies():
  assert rules.check('release') == 'release' and rules.check('ffmpeg_fps') == 'ffmpeg_fps'
  assert rules.check('release', stored=True) == 'release'
  with pytest.raises(ValueError, match="frames_like='fps'; choose one of release, ffmpeg_fps"):
    rules.check('fps')
  with pytest.raises(ValueError, match="frames_like='ffmpeg_fps' is a rule for videos, but here"):
    rules.check('ffmpeg_fps', stored=True)
