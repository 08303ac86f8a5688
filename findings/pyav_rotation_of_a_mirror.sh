#!/bin/bash
# PyAV 18.1.0: VideoFrame.rotation is -180 degrees for a picture that is to be mirrored and not turned.
#
# Expected: a frame whose display matrix mirrors left and right is not turned at all: 0, or an error, or
#   some sign of the mirror. Who turns by `rotation`, as the docs of the property invite to, is right for
#   all of EXIF's orientations 1, 3, 6, 8.
# Real: orientation 2 (mirrored) reads -180, as 3 (turned upside down) does; orientation 4 (upside down and
#   mirrored) reads 0, as 1 (nothing) does. Turned by `rotation`, a mirrored picture or video stands on its
#   head, silently.
# Source: VideoFrame.rotation calls FFmpeg's av_display_rotation_get, which takes the angle from the first
#   row of the matrix alone; the sign of the determinant says whether to mirror first.
# Who is hurt: readers of telephone photographs and selfie videos that turn frames by `rotation`.
# Exit 0: as described. 1: something else was seen. Needs python3 with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.2.6 pillow==12.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import av
import numpy as np
from PIL import Image, ImageOps

pixels = np.zeros((48, 64, 3), np.uint8)
pixels[:24, :32] = 255  # white at the top left
seen, right = {}, {}
for orientation in 1, 2, 3, 4:
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(pixels).save('a.jpg', exif=exif, quality=95)
  with av.open('a.jpg') as container:
    frame = next(container.decode(video=0))
  seen[orientation] = round(frame.rotation)
  turned = np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90))
  with Image.open('a.jpg') as image:
    wanted = np.asarray(ImageOps.exif_transpose(image), int)
  right[orientation] = bool(np.abs(turned - wanted).mean() < 5)
  print(f'orientation {orientation}: rotation {seen[orientation]:4}, then right: {right[orientation]}')
same = {o: abs(r) for o, r in seen.items()} == {1: 0, 2: 180, 3: 180, 4: 0}
raise SystemExit(0 if same and right == {1: True, 2: False, 3: True, 4: False} else 1)
PYTHON
