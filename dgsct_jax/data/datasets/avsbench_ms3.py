"""AVSBench MS3: five seconds of video with the masks of all objects that sound.

Read from the folder of the AVSBench and DG-SCT releases (`ms3_meta_data.csv`, `ms3_data/
visual_frames`, `gt_masks`, `wave`), or from the list, gt_masks and videos `<name>.mp4`.
"""

import functools
import os
from pathlib import Path

from dgsct_jax.data import cut, files, kind, records, rules
from dgsct_jax.data.datasets import avsbench


def recipe(
  source: str | os.PathLike, *, rate: int = 32000, side: int = 256, frames_like: str = rules.RELEASE
) -> records.Recipe:
  """The data set in a folder.

  Raises:
    ValueError: the folder has neither layout, its list an unknown split, or `frames_like` is no
      rule that applies.
  """
  root = cut.find_root(source, 'AVSBench_data/Multi-sources', 'ms3_meta_data.csv')
  folder, videos = avsbench.find_media(root, 'ms3_data')
  entries: dict[str, list[avsbench.Entry]] = {split: [] for split in avsbench.SPLITS}
  for name, split in rows(root / 'ms3_meta_data.csv'):
    numbers = range(1, avsbench.SECONDS + 1)
    masks = folder / 'gt_masks' / split / name
    pictures = folder / 'visual_frames' / name
    entries[split].append(
      avsbench.Entry(
        id=name,
        frames=() if videos else tuple(str(pictures / f'{name}.mp4_{i}.png') for i in numbers),
        video=str(videos.get(name, folder / 'raw_videos' / f'{name}.mp4')) if videos else '',
        masks=tuple(str(masks / f'{name}_{i}.png') for i in numbers),
        waves='' if videos else str(folder / 'wave' / split / 'AVS.npy'),
        sound=f'{name}.wav',
        start=None if videos else 0.0,  # the list has none
      )
    )
  found = functools.partial(cut.find_videos_below, folder)
  return avsbench.recipe('avsbench_ms3', root, entries, rate, side, frames_like, found)


def rows(path: Path) -> list[tuple[str, str]]:
  """(name, split) of each clip: the first two columns."""
  clips = []
  for row in files.table(path, ()):
    name, split, *_ = (*row.fields.values(), '')
    if split not in avsbench.SPLITS:
      raise row.fail(f'the split {split!r} is none of {", ".join(avsbench.SPLITS)}')
    clips.append((name, split))
  return clips


KIND = kind.Kind(
  classes=lambda fields: (),
  windows=avsbench.windows,
  recipe=recipe,
  published={'train': 296, 'val': 64, 'test': 64},
  masks=avsbench.masks,
)
