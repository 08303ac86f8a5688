"""Pixels are those of torch; a record that cannot be used is named."""

import io

import numpy as np
import pytest
from PIL import Image

from dgsct_jax.data import transforms


def encode(pixels, format='png', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format, **options)
  return file.getvalue()


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
  'size, new',
  [
    ((256, 256), (192, 192)),
    ((360, 640), (192, 192)),
    ((97, 131), (192, 192)),
    ((5, 4), (7, 3)),
    ((1, 1), (3, 3)),
    ((64, 48), (64, 48)),
    ((1080, 1920), (224, 224)),
  ],
)
def test_resize_is_that_of_torch(size, new):
  torch = pytest.importorskip('torch')
  image = noise(*size, 3)
  expected = (
    torch.nn.functional.interpolate(
      torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255,
      size=new,
      mode='bicubic',
      align_corners=False,
    )[0]
    .permute(1, 2, 0)
    .numpy()
  )
  # Both round positions to float32, but not alike; one pixel of noise differs from the next by 1.
  position = 2 * max(size) * np.finfo(np.float32).eps
  np.testing.assert_allclose(
    transforms.resize(image, *new) / 255, expected, rtol=0, atol=3e-6 + position
  )


def test_resize_gives_the_published_numbers():
  """specs/core_ave_avqa.md, Q12: the ramp 0..15 as 4x4 to 3x3; avvp_avs.md F12: rows of squares."""
  ramp = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
  first = transforms.resize(ramp, 3, 3)[0, :, 0]
  np.testing.assert_allclose(first, [0.63079, 2.00463, 3.37847], atol=1e-5)
  row = np.float32([[0, 1, 4, 9, 16, 25]])[..., None]
  np.testing.assert_allclose(
    transforms.resize(row, 1, 7)[0, :, 0],
    [-0.04619169, 0.51211735, 2.48578717, 6.125, 11.38520408, 18.40661443, 25.41572522],
    rtol=1e-5,
  )


def test_an_image_of_the_wanted_size_keeps_its_pixels():
  image = noise(6, 9, 3)
  np.testing.assert_array_equal(transforms.resize(image, 6, 9), image)


def test_resize_leaves_the_range_at_an_edge():
  edge = np.zeros((8, 8, 3), np.uint8)
  edge[:, 4:] = 255
  resized = transforms.resize(edge, 12, 12)
  assert resized.min() < 0 and resized.max() > 255


def test_frames_are_normalised_as_for_imagenet():
  grey = np.full((10, 12, 3), [0, 128, 255], np.uint8)
  example = {'id': 'x', 'frames': [encode(grey)] * 3}
  video = transforms.DecodeFrames(4).map(example)['video']
  assert video.shape == (3, 4, 4, 3) and video.dtype == np.float32
  expected = (np.array([0, 128, 255]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(video, np.broadcast_to(expected, video.shape), atol=2e-6)
  assert 'frames' in example  # the record itself is left alone


@pytest.mark.parametrize(
  'pixels, options', [(noise(8, 8), {}), (noise(8, 8, 4), {}), (noise(8, 8, 3), {'format': 'jpeg'})]
)
def test_grey_transparent_and_jpeg_pictures_are_read_as_rgb(pixels, options):
  video = transforms.DecodeFrames(4).map({'frames': [encode(pixels, **options)]})['video']
  assert video.shape == (1, 4, 4, 3)


@pytest.mark.parametrize(
  'broken',
  [
    b'',
    b'not a picture',
    encode(noise(64, 64, 3), 'jpeg')[:900],
    encode(noise(64, 64, 3))[:900],
    b'\x89PNG\r\n\x1a\n' + bytes(40),
  ],
)
def test_a_broken_picture_is_named(broken):
  good = encode(noise(8, 8, 3))
  with pytest.raises(ValueError, match=r"record 'clip7': frame 1 is not a readable picture"):
    transforms.DecodeFrames(4).map({'id': 'clip7', 'frames': [good, broken]})


def test_masks_become_zeros_and_ones_of_their_own_size():
  mask = np.zeros((5, 7), np.uint8)
  mask[1:3, 2] = 255
  masks = transforms.DecodeMasks().map({'masks': [encode(mask), encode(0 * mask)]})['masks']
  assert masks.dtype == np.float32
  np.testing.assert_array_equal(masks, [mask / 255, 0 * mask])
  with pytest.raises(ValueError, match="record 'clip7': mask 1 is not a readable picture"):
    transforms.DecodeMasks().map({'id': 'clip7', 'masks': [encode(mask), b'x']})


def test_int16_waves_become_segments_between_minus_one_and_one():
  wave = np.array([-32768, -1, 0, 1, 2, 32767], np.int16)
  out = transforms.DecodeWave(2, 3).map({'id': 'x', 'wave': wave})['wave']
  assert out.dtype == np.float32
  np.testing.assert_allclose(out * 32768, [[-32768, -1, 0], [1, 2, 32767]])


@pytest.mark.parametrize('length', [0, 5, 7])
def test_a_wave_of_another_length_is_named(length):
  with pytest.raises(ValueError, match=rf"record 'clip7'.*\({length},\).*2 segments of 3 .* = 6"):
    transforms.DecodeWave(2, 3).map({'id': 'clip7', 'wave': np.zeros(length, np.int16)})


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_wave_with_a_sample_that_is_no_number_is_named(value):
  wave = np.zeros(6, np.float32)
  wave[4] = value
  with pytest.raises(ValueError, match=r"record 'clip7'.*not finite"):
    transforms.DecodeWave(2, 3).map({'id': 'clip7', 'wave': wave})


def test_keep_leaves_what_it_names_and_what_the_pipeline_adds():
  record = {'id': 'x', 'row': 3, 'label': 1, 'valid': 1.0, 'index': 2}
  assert transforms.Keep(('label',)).map(record) == {'label': 1, 'valid': 1.0, 'index': 2}
  with pytest.raises(ValueError, match=r"record 'x' has no \['wave'\], only .*'label'"):
    transforms.Keep(('label', 'wave')).map(record)
