"""A video that means nothing, for measurements."""

from pathlib import Path

import av
import numpy as np

SIZE, FPS, RATE = (360, 640), 25, 44100


def make(path: Path, seconds: int) -> None:
  """A video whose pictures move and whose sound is noise."""
  rng = np.random.default_rng(0)
  texture = rng.integers(0, 256, (*SIZE, 3), np.uint8)
  texture = np.repeat(np.repeat(texture[::8, ::8], 8, 0), 8, 1)[: SIZE[0], : SIZE[1]]
  with av.open(str(path), 'w') as file:
    pictures = file.add_stream('h264', FPS)
    pictures.height, pictures.width, pictures.pix_fmt = *SIZE, 'yuv420p'
    sound = file.add_stream('aac', RATE)
    for second in range(seconds):
      for i in range(FPS):
        shown = np.roll(texture, 4 * (FPS * second + i), 1)
        file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown))))
      wave = rng.uniform(-0.3, 0.3, (2, RATE)).astype(np.float32)
      heard = av.AudioFrame.from_ndarray(wave, format='fltp', layout='stereo')
      heard.rate, heard.pts = RATE, second * RATE
      file.mux(sound.encode(heard))
    file.mux(pictures.encode())
    file.mux(sound.encode())
