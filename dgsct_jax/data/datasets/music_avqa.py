"""MUSIC-AVQA: questions about videos of musicians, with one-word answers.

Read from the folder of the DG-SCT release (`json/avqa-*.json`, `frames/<id>/*.jpg`,
`audio_wave/<id>.npy`), or from the same label files and a folder of videos `<id>.mp4`. Videos are
stored once; `load` adds the questions. docs/data/music_avqa.md has the rules of cutting.
"""

import dataclasses
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Float32, Int16

from dgsct_jax.data import clips, cut, files, kind, questions, records, rules

VERSION = '1.0.0'
SECONDS = 10  # of the sixty of a video
SPLITS = ('train', 'val', 'test')
# Label files: those of the first publication, which the released systems use, and corrected ones.
ANNOTATIONS = {'original': ('json', '.'), 'update': ('json_update', 'update')}
SUBSETS = ('all', 'real', 'synthetic')

# In the order of their first appearance in the training questions, which the weights follow.
WORDS = tuple(
  """
<pad> How many instruments are sounding in the video What kind of instrument is leftest musical it
did not sound from beginning to end Is on left louder than right guzheng types accordion always
playing clarinet there a voiceover this cello violin flute pipa piano Which that sounds at same time
as acoustic_guitar Where first electric_bass drum more rhythmic ukulele banjo saxophone trumpet erhu
middle congas entire tuba bagpipe loudest comes xylophone bassoon suona second appeared performance
rightest coming third last Are and makes before after lowest fourth longer fifth were heard
throughout""".split()
)
ANSWERS = (
  'two',
  'cello',
  'congas',
  'zero',
  'no',
  'pipa',
  'six',
  'yes',
  'one',
  'four',
  'three',
  'seven',
  'five',
  'ukulele',
  'right',
  'piano',
  'left',
  'accordion',
  'clarinet',
  'guzheng',
  'more than ten',
  'nine',
  'indoor',
  'saxophone',
  'drum',
  'violin',
  'middle',
  'outdoor',
  'bagpipe',
  'bassoon',
  'acoustic_guitar',
  'banjo',
  'electric_bass',
  'ten',
  'eight',
  'flute',
  'simultaneously',
  'trumpet',
  'erhu',
  'xylophone',
  'tuba',
  'suona',
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A video."""

  id: str
  files: str  # the video, or the released folder


@dataclasses.dataclass(frozen=True)
class Read:
  """How a video becomes a record."""

  rate: int  # of the stored sound
  side: int  # maximum of the shorter side of frames taken from videos
  frame_at: float  # time of a frame in its second, for frames taken from videos
  usual: int = dataclasses.field(default=0, repr=False)  # pictures in a folder
  frames_like: str = dataclasses.field(default=rules.RELEASE, repr=False)

  def __call__(self, entry: Entry) -> records.Record:
    """Raises ValueError or OSError if the video cannot be used."""
    path = Path(entry.files)
    if path.is_dir():
      folder = path / 'frames' / entry.id
      frames = cut.frame_files(folder, SECONDS, self.usual)
      wave = _wave(path / 'audio_wave' / f'{entry.id}.npy', len(files.pictures(folder)), self.rate)
      return {'id': entry.id, 'frames': frames, 'wave': wave}
    sound = cut.sound_of(path, self.rate)
    starts = seconds(cut.length_of(path, least=SECONDS - 1) or len(sound) / self.rate)
    times = rules.Taken(1, starts, self.frame_at).times(self.frames_like)
    frames = cut.video_frames(path, times, self.side)
    wave = _pieces(sound, starts, self.rate, f'the sound of {path}')
    return {'id': entry.id, 'frames': frames, 'wave': wave}


def _wave(path: Path, pictures: int, rate: int) -> Int16[np.ndarray, 's']:
  """A stored wave of ten seconds; or, from a wave of the whole video, the seconds of the frames.

  Args:
    pictures: the number of pictures of the whole video, evenly spread over it.
  """
  wave = cut.read_wave(path, SECONDS, rate)
  if wave.size < 2 * SECONDS * rate:
    return cut.wave_file(path, SECONDS, rate)
  length = wave.size // rate
  starts = [place * length // pictures for place in cut.spread(pictures, SECONDS)]
  return _pieces(wave, starts, rate, str(path))


def _pieces(
  sound: Float32[np.ndarray, 'r'], starts: Sequence[int], rate: int, name: str
) -> Int16[np.ndarray, 's']:
  """The seconds of a sound from each of `starts` on; it may end within the last one."""
  sound = np.pad(sound, (0, rate))
  wave = np.concatenate([sound[i * rate : (i + 1) * rate] for i in starts])
  return cut.fit(wave, SECONDS, rate, name)


def seconds(length: float | int) -> tuple[int, ...]:
  """The starts of the ten seconds that represent a video of a length in seconds, as released."""
  return clips.spread(length, SECONDS).seconds


def recipe(
  source: str | os.PathLike,
  *,
  rate: int = 32000,
  side: int = 256,
  frame_at: float = 0.5,
  frames_like: str = rules.RELEASE,
) -> records.Recipe:
  """All videos that the label files ask about, and the label files.

  Raises:
    ValueError: the folder has neither layout, its training questions have another vocabulary, or
      `frames_like` is no rule that applies.
  """
  root = cut.find_root(source, 'AVQA', 'json/avqa-test.json', 'avqa-test.json')
  labels = label_files(root)
  if train := labels.get('original-train.json'):
    if questions.vocabulary(json.loads(train)) != (list(WORDS), list(ANSWERS)):
      raise ValueError(
        f'The words or answers of avqa-train.json under {root} are not the known 93 '
        'and 42 in their order, which the weights of trained models follow.'
      )
  names = dict.fromkeys(
    questions.video_name(q['video_id']) for text in labels.values() for q in json.loads(text)
  )
  released = (root / 'frames').is_dir() and (root / 'audio_wave').is_dir()
  rules.check(frames_like, stored=released)
  if frame_at != 0.5 and frames_like != rules.RELEASE:
    raise ValueError(f'frame_at={frame_at:g} is of no use with frames_like={frames_like!r}.')
  places = [root, *sorted(root.glob('*[vV]ideo*'))]
  videos = {} if released else cut.find_videos(places)
  if not (released or videos):
    raise ValueError(
      f'{root} has neither the folders frames and audio_wave, nor videos in itself '
      'or in a folder with "video" in its name.'
    )
  usual = cut.usual_count(root / 'frames' / name for name in names) if released else 0
  minute = rules.Taken(1, cut.spread(60, SECONDS), frame_at)
  missing = str(root / 'videos' / '{}.mp4')  # the file that the error names
  entries = [
    Entry(name, str(root if released else videos.get(name, missing.format(name)))) for name in names
  ]
  features = {
    'id': tfds.features.Text(),
    'frames': records.IMAGES,
    'wave': records.wave(SECONDS * rate),
  }
  return records.Recipe(
    'music_avqa',
    VERSION,
    features,
    {'videos': entries},
    Read(rate, side, frame_at, usual, frames_like),
    labels,
    root=root,
    frames_like='' if released else frames_like,
    pairs=lambda: rules.pairs(cut.find_videos(places), root / 'frames', minute, 60),
  )


def label_files(root: Path) -> dict[str, str]:
  """The texts of the existing label files, by names like 'original-train.json'."""
  texts = {}
  for annotations, folders in ANNOTATIONS.items():
    for split in SPLITS:
      paths = [root / folder / f'avqa-{split}.json' for folder in folders]
      for path in [path for path in paths if path.exists() and path.stat().st_size][:1]:
        text = files.read_text(path)
        if split != 'train':  # its words and answers are compared as a whole
          questions.read(text, str(path), WORDS, ANSWERS)
        texts[f'{annotations}-{split}.json'] = text
  return texts


def load(
  directory: str | os.PathLike, split: str, *, annotations: str = 'original', subset: str = 'all'
) -> questions.Asked:
  """The questions of 'train', 'val' or 'test', each with its video, in the order of the file.

  `clips` of the result are the videos of the questions, each once.

  Args:
    annotations: 'original' or 'update'.
    subset: 'all', or only those about 'real' or 'synthetic' videos.

  Raises:
    ValueError: the data set or the label file does not exist.
  """
  videos = records.load(directory, 'music_avqa', 'videos')
  path = videos.folder / f'{annotations}-{split}.json'
  if not path.exists() or subset not in SUBSETS:
    there = sorted(p.stem for p in videos.folder.glob('*-*.json'))
    raise ValueError(
      f'There are no {subset} {annotations}-{split} questions in {videos.folder}, '
      f'only {there}, each with the subsets {SUBSETS}.'
    )
  asked = [
    q
    for q in questions.read(path.read_text(encoding='utf-8'), str(path), WORDS, ANSWERS)
    if subset == 'all' or (subset == 'real') == q['video_id'].isdigit()
  ]
  stored = {name: i for i, name in enumerate(videos.ids)}
  usable = [q for q in asked if q['video_id'] in stored]
  if len(usable) < len(asked):
    logging.warning(
      '%d of %d %s questions are about videos that %s lacks (see skipped.json): left out.',
      len(asked) - len(usable),
      len(asked),
      split,
      videos.folder,
    )
  names = list(dict.fromkeys(q['video_id'] for q in usable))
  place = {name: i for i, name in enumerate(names)}
  return questions.Asked(
    records.Selection(videos, tuple(stored[name] for name in names)),
    usable,
    [place[q['video_id']] for q in usable],
    list(WORDS),
    list(ANSWERS),
  )


def ask(fields: Any, split: str) -> questions.Asked:
  """The questions of a split of `config.data`. Raises ValueError if there are none."""
  try:
    return load(fields.dir, split, annotations=fields.annotations, subset=fields.subset)
  except ValueError as error:
    raise ValueError(
      f'config.data.dir={fields.dir!r}: {error}\nconfigs/avqa.py:scenes needs no data: it uses'
      ' composed clips and questions.'
    ) from error


def totals(recipe: records.Recipe, usable: Mapping[str, Collection[str]]) -> kind.Totals:
  """The numbers of questions in each label file, and of those about usable videos."""
  there, rows = set().union(*usable.values()), []
  for name, text in recipe.files.items():
    asked = [questions.video_name(question['video_id']) in there for question in json.loads(text)]
    rows.append((name.removesuffix('.json'), len(asked), sum(asked)))
  return rows


KIND = kind.Kind(
  classes=lambda fields: (),
  windows=lambda fields, length: [clips.spread(length, SECONDS)],
  recipe=recipe,
  published={'original-val': 4595, 'original-test': 9185, 'update-val': 4568, 'update-test': 9129},
  totals=totals,
  vocabulary=lambda fields: (list(WORDS), list(ANSWERS)),
  questions=ask,
)
