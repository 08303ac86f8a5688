"""AVSBench S4: five seconds of video with the masks of one object that sounds, 23 categories.

Read from the folder of the AVSBench and DG-SCT releases (`s4_meta_data.csv`, `s4_data/
visual_frames`, `gt_masks`, `wave`), or from the list, gt_masks and videos `<name>.mp4`.
"""

import functools
import os
from pathlib import Path
from typing import Any

from dgsct_jax.data import cut, files, kind, records, rules
from dgsct_jax.data.datasets import avsbench

CATEGORIES = (
  'baby_laughter',
  'female_singing',
  'male_speech',
  'dog_barking',
  'cat_meowing',
  'lions_roaring',
  'horse_clip-clop',
  'coyote_howling',
  'mynah_bird_singing',
  'playing_acoustic_guitar',
  'playing_tabla',
  'playing_violin',
  'playing_piano',
  'playing_ukulele',
  'playing_glockenspiel',
  'helicopter',
  'race_car',
  'driving_buses',
  'ambulance_siren',
  'typing_on_computer_keyboard',
  'chainsawing_trees',
  'cap_gun_shooting',
  'lawn_mowing',
)


def recipe(
  source: str | os.PathLike, *, rate: int = 32000, side: int = 256, frames_like: str = rules.RELEASE
) -> records.Recipe:
  """The data set in a folder. In the training split, only the first second has a mask.

  Raises:
    ValueError: the folder has neither layout, its list an unknown category or split, or
      `frames_like` is no rule that applies.
  """
  root = cut.find_root(source, 'AVSBench_data/Single-source', 's4_meta_data.csv')
  folder, videos = avsbench.find_media(root, 's4_data')
  entries: dict[str, list[avsbench.Entry]] = {split: [] for split in avsbench.SPLITS}
  for row in rows(root / 's4_meta_data.csv'):
    name, category, split = row['name'], row['category'], row['split']
    inside = Path(split, category, name)
    numbers = range(1, avsbench.SECONDS + 1)
    video = videos.get(name, folder / 'raw_videos' / split / category / f'{name}.mp4')
    waves = folder / 'wave' / split / category / 'AVS.npy'
    pictures = tuple(str(folder / 'visual_frames' / inside / f'{name}_{i}.png') for i in numbers)
    masked = numbers[:1] if split == 'train' else numbers
    entries[split].append(
      avsbench.Entry(
        id=f'{category}/{name}',
        frames=() if videos else pictures,
        video=str(video) if videos else '',
        masks=tuple(str(folder / 'gt_masks' / inside / f'{name}_{i}.png') for i in masked),
        waves='' if videos else str(waves),
        sound=f'{name}.wav',
        start=row['start'],
        category=CATEGORIES.index(category),
      )
    )
  found = functools.partial(cut.find_videos_below, folder)
  return avsbench.recipe('avsbench_s4', root, entries, rate, side, frames_like, found, CATEGORIES)


def rows(path: Path) -> list[dict[str, Any]]:
  """The `name`, `start` (seconds, or None), `category` and `split` of each clip.

  Names and starts are the first two columns.
  """
  clips = []
  for row in files.table(path, ('category', 'split')):
    category, split = row.fields['category'], row.fields['split']
    if category not in CATEGORIES or split not in avsbench.SPLITS:
      raise row.fail(f'{category!r}, {split!r} is an unknown category or split')
    name, text, *_ = row.fields.values()
    start = float(text) if text.replace('.', '', 1).isdigit() else None
    clips.append({'name': name, 'start': start, 'category': category, 'split': split})
  return clips


KIND = kind.Kind(
  classes=lambda fields: CATEGORIES,
  windows=avsbench.windows,
  recipe=recipe,
  published={'train': 3452, 'val': 740, 'test': 740},
  masks=avsbench.masks,
)
