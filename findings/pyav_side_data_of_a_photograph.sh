#!/bin/bash
# PyAV 18.1.0: VideoFrame.side_data raises ValueError for every photograph that has EXIF.
#
# Expected: side_data holds what PyAV knows, such as the display matrix, and leaves out what it does not.
# Real: `ValueError: 31 is not a valid Type` when the property is read, so that the display matrix, known
#   to PyAV, cannot be had either. 31 is FFmpeg's AV_FRAME_DATA_EXIF. The same picture without EXIF is read.
# Source: av.sidedata.sidedata.Type is an enum without that member, and all entries of a frame are looked up
#   in it at once. https://github.com/PyAV-Org/PyAV/pull/2392 completes the table; 18.1.0 is without it.
# Who is hurt: readers of photographs (JPEG, PNG) that ask how these are to be shown.
# Exit 0: as described. 1: something else was seen. Needs python3 with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 pillow==12.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import av
from PIL import Image


def side_data(path):
  with av.open(path) as container:
    frame = next(container.decode(video=0))
    try:
      return f'{len(frame.side_data)} entries'
    except ValueError as error:
      return f'ValueError: {error}'


exif = Image.Exif()
exif[0x010F] = 'the maker of a camera'
seen = {}
for suffix in 'jpg', 'png':
  Image.new('RGB', (64, 48)).save(f'plain.{suffix}')
  Image.new('RGB', (64, 48)).save(f'exif.{suffix}', exif=exif)
  for name in f'plain.{suffix}', f'exif.{suffix}':
    seen[name] = side_data(name)
    print(f'{name}: {seen[name]}')
raised = {name for name, what in seen.items() if what == 'ValueError: 31 is not a valid Type'}
raise SystemExit(0 if raised == {'exif.jpg', 'exif.png'} else 1)
PYTHON
