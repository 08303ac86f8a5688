"""What is seen and heard at a time does not depend on how the file stores it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from dgsct_jax.data import media
from tests import clips
from tests import media as real

READERS = (media.probe, lambda p: media.frames(p, [0]), lambda p: media.waveform(p, 8000))


def greys(frames, step=8):
  """The numbers of the pictures of clips.counter."""
  return np.round(frames.mean((1, 2, 3)) / step).astype(int).tolist()


def pitch(wave, rate):
  """The loudest frequency in Hz."""
  return np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_a_frame_is_the_one_shown_at_its_time(tmp_path, suffix):
  path = clips.write(tmp_path / f'a{suffix}', clips.counter(25), np.arange(25) / 12.5)
  times = [0, 0.07, 0.08, 0.081, 0.5, 1.0, 1.99]
  frames = media.frames(path, times)
  assert frames.shape == (7, 48, 64, 3) and frames.dtype == np.uint8
  assert greys(frames) == [0, 0, 1, 1, 6, 12, 24]


def test_pictures_of_varying_duration_stay_until_the_next(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(4), [0, 0.1, 0.5, 2.0])
  assert greys(media.frames(path, [0, 0.05, 0.1, 0.4, 0.5, 1.9, 2.0])) == [0, 0, 1, 1, 2, 2, 3]


def test_times_beyond_a_short_clip_get_its_last_picture(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(3), [0, 0.1, 0.2])
  assert greys(media.frames(path, [0, 5, 9])) == [0, 2, 2]
  assert len(list(media.each_frame(path, []))) == 0


def test_times_count_from_the_start_of_the_file(tmp_path):
  sound = clips.tone(32000, 1)
  path = clips.write(tmp_path / 'a.mkv', clips.counter(5), 7 + np.arange(5) / 5, sound)
  # The sound starts at 0 and the picture at 7 s ...
  assert greys(media.frames(path, [0, 7.3, 7.9])) == [0, 1, 4]
  path = clips.write(tmp_path / 'b.mkv', clips.counter(5), 7 + np.arange(5) / 5)
  # ... and here everything at 7 s.
  assert greys(media.frames(path, [0, 0.3, 0.9])) == [0, 1, 4]


def test_a_lying_telephone_video_is_turned(tmp_path):
  pictures = np.zeros((3, 48, 64, 3), np.uint8)
  pictures[:, :, :32] = 255  # the left half is white; clockwise that is the upper one
  path = clips.write(tmp_path / 'a.mp4', pictures, [0, 0.1, 0.2])
  assert media.frames(path, [0]).shape == (1, 48, 64, 3)
  frame = media.frames(clips.turn(path), [0.1])[0]
  assert frame.shape == (64, 48, 3)
  assert frame[:28].mean() > 240 and frame[36:].mean() < 15


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize('quarters', range(4))
def test_pictures_are_turned_and_mirrored_as_the_file_says(tmp_path, quarters, mirrored):
  corners = np.uint8([[0, 80], [160, 240]]).repeat(24, 0).repeat(32, 1)  # AB/CD
  pictures = np.broadcast_to(corners[None, :, :, None], (3, 48, 64, 3))
  path = clips.write(tmp_path / 'a.mp4', pictures, [0, 0.1, 0.2])
  clockwise, upside_down = np.array([[0, -1], [1, 0]]), np.diag([1, -1 if mirrored else 1])
  (a, c), (b, d) = (np.linalg.matrix_power(clockwise, quarters) @ upside_down).tolist()
  frame = media.frames(clips.show(path, a, b, c, d), [0.1])[0]
  expected = np.rot90(corners[::-1] if mirrored else corners, -quarters)
  assert frame.shape[:2] == expected.shape
  assert np.abs(frame.mean(-1) - expected).mean() < 5


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_photographs_are_shown_as_their_exif_says(tmp_path, orientation, suffix):
  corners = np.uint8([[0, 80], [160, 240]]).repeat(24, 0).repeat(32, 1)[..., None].repeat(3, 2)
  exif = Image.Exif()
  exif[0x0112] = orientation
  exif[0x010F] = 'the maker of a camera'
  path = tmp_path / f'a{suffix}'
  Image.fromarray(corners).save(path, exif=exif)
  with Image.open(path) as image:
    expected = np.asarray(ImageOps.exif_transpose(image), np.int16)
  frame = media.frames(path, [0])[0]
  assert frame.shape == expected.shape and np.abs(frame - expected).mean() < 3


@pytest.mark.parametrize(
  'matrix, expected',
  [
    ((0, 0, 0, 0), [[1, 2], [3, 4]]),  # says nothing
    ((2, 0, 0, 3), [[1, 2], [3, 4]]),  # a scale
    ((-0.98, -0.17, 0.17, -0.98), [[4, 3], [2, 1]]),  # 170 degrees
    ((0.17, 0.98, -0.98, 0.17), [[3, 1], [4, 2]]),  # 80 degrees
  ],
)
def test_other_display_matrices_mean_the_nearest_quarter(matrix, expected):
  a, b, c, d = (round(x * 65536) for x in matrix)
  pixels = np.uint8([[1, 2], [3, 4]])[..., None].repeat(3, 2)
  shown = media.displayed(pixels, np.int32([a, b, 0, c, d, 0, 0, 0, 1 << 30]))
  assert shown[..., 0].tolist() == expected


def test_the_waveform_has_the_pitch_level_and_length_of_the_sound(tmp_path):
  for rate in (8000, 22050, 44100, 48000):
    path = clips.write(tmp_path / f'{rate}.mkv', sound=clips.tone(rate, 1.5), rate=rate)
    wave = media.waveform(path, 32000)
    assert wave.dtype == np.float32 and abs(len(wave) - 48000) <= 1
    assert abs(pitch(wave, 32000) - 440) < 1
    np.testing.assert_allclose(np.abs(wave[8000:-8000]).max(), 0.5, atol=2e-3)


@pytest.mark.parametrize('channels', [2, 6])
def test_channels_are_averaged(tmp_path, channels):
  sound = clips.tone(32000, 0.5, channels=channels)
  sound[1:] = 0
  path = clips.write(tmp_path / 'a.mkv', sound=sound)
  expected = sound.mean(0)
  np.testing.assert_allclose(media.waveform(path, 32000), expected, atol=1e-4)


@pytest.mark.parametrize(
  'left, right, alone',
  [(1, -1, 1), (-0.9, 1, 1), (0.001, -0.001, 1), (1, 1, None), (1, 0, None), (1, -0.5, None)],
)
def test_channels_that_cancel_are_said_and_one_is_taken(tmp_path, left, right, alone):
  tone = clips.tone(32000, 0.5)
  path = clips.write(tmp_path / 'a.mkv', sound=np.concatenate([left * tone, right * tone]))
  sound = media.sound(path, 32000)
  if alone:
    assert f'the 2 channels cancel each other, their mean is all but silent: channel {alone}' in (
      sound.note
    )
    np.testing.assert_allclose(sound.wave, left * tone[0], atol=1e-4)
  else:
    assert not sound.note
    np.testing.assert_allclose(sound.wave, (left + right) / 2 * tone[0], atol=1e-4)


def test_six_channels_of_which_one_sounds_do_not_cancel(tmp_path):
  sound = np.zeros((6, 16000), np.float32)
  sound[2] = clips.tone(32000, 0.5)[0]
  read = media.sound(clips.write(tmp_path / 'a.mkv', sound=sound), 32000)
  assert not read.note
  np.testing.assert_allclose(read.wave, sound[2] / 6, atol=1e-4)


def test_silence_does_not_cancel(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', sound=np.zeros((2, 16000), np.float32))
  read = media.sound(path, 32000)
  assert not read.note and len(read.wave) == 16000 and not read.wave.any()


@pytest.mark.parametrize(
  'suffix, subtype',
  [
    ('wav', 'PCM_U8'),
    ('wav', 'PCM_24'),
    ('wav', 'PCM_32'),
    ('wav', 'FLOAT'),
    ('wav', 'DOUBLE'),
    ('flac', 'PCM_16'),
    ('ogg', 'VORBIS'),
    ('aiff', 'PCM_16'),
  ],
)
def test_sound_files_of_any_sample_type_are_read(tmp_path, suffix, subtype):
  soundfile = pytest.importorskip('soundfile')
  sound = clips.tone(16000, 0.5, channels=2)
  soundfile.write(tmp_path / f'a.{suffix}', sound.T, 16000, subtype=subtype)
  wave = media.waveform(tmp_path / f'a.{suffix}', 16000)
  atol = {'PCM_U8': 1e-2, 'VORBIS': 5e-2}.get(subtype, 1e-4)
  np.testing.assert_allclose(wave[: len(sound[0])], sound[0], atol=atol)


@pytest.mark.parametrize('sample', [np.nan, np.inf, 3e38])
def test_samples_that_are_no_sound_are_read_without_a_warning(tmp_path, sample):
  import soundfile

  wave = np.zeros((1600, 2))
  wave[7] = sample
  soundfile.write(tmp_path / 'a.wav', wave, 16000, subtype='FLOAT')
  read = media.waveform(tmp_path / 'a.wav', 16000)  # cut.fit refuses it, by its name
  assert not np.abs(read).max() < 2


def test_sound_that_begins_after_the_picture_is_preceded_by_silence(tmp_path):
  import av

  path = tmp_path / 'a.mkv'
  with av.open(str(path), 'w') as container:
    video = container.add_stream('ffv1', rate=10)
    video.width, video.height, video.pix_fmt = 64, 48, 'bgr0'
    audio = container.add_stream('pcm_s16le', rate=8000, layout='mono')
    for i, picture in enumerate(clips.counter(20)):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
      frame.pts = i
      container.mux(video.encode(frame))
    container.mux(video.encode())
    for start in (8000, 12000):  # from 1 s to 1.25 s, and from 1.5 s to 1.75 s
      sound = clips.tone(8000, 0.25)
      frame = av.AudioFrame.from_ndarray(sound, format='fltp', layout='mono')
      frame.sample_rate, frame.pts = 8000, start
      container.mux(audio.encode(frame))
    container.mux(audio.encode())
  wave = media.waveform(path, 8000)
  assert len(wave) == 14000
  loud = np.abs(wave).reshape(-1, 1000).max(1) > 0.1
  assert np.flatnonzero(loud).tolist() == [8, 9, 12, 13]


def test_missing_tracks_are_named(tmp_path):
  silent = clips.write(tmp_path / 'silent.mkv', clips.counter(3), [0, 0.1, 0.2])
  blind = clips.write(tmp_path / 'blind.mkv', sound=clips.tone(32000, 0.2))
  with pytest.raises(media.NoAudioTrack, match='silent.mkv has no audio track'):
    media.waveform(silent, 32000)
  with pytest.raises(media.NoVideoTrack, match='blind.mkv has no video track'):
    media.frames(blind, [0])
  for path, seconds, video in ((silent, 0.3, True), (blind, 0.2, False)):
    info = media.probe(path)
    assert abs(info.duration - seconds) < 0.1
    assert (info.has_video, info.has_audio) == (video, not video)


@pytest.mark.parametrize('content', [b'', b'no video', bytes(range(256)) * 40])
def test_what_is_no_media_file_is_said(tmp_path, content):
  path = tmp_path / 'a.mp4'
  path.write_bytes(content)
  for read in READERS:
    with pytest.raises(media.MediaError, match='a.mp4 cannot be read as video or sound'):
      read(path)
  with pytest.raises(FileNotFoundError, match='b.mp4'):
    media.probe(tmp_path / 'b.mp4')


def test_a_file_that_breaks_off_gives_what_there_is(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
  path = clips.write(tmp_path / 'a.mkv', noise, np.arange(20) / 10, clips.tone(32000, 2))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  assert media.frames(path, [0, 1.9]).shape == (2, 48, 64, 3)
  assert 0 < len(media.waveform(path, 32000)) < 64000
  path.write_bytes(data[:700])  # the header alone
  with pytest.raises(media.MediaError):
    media.frames(path, [0])


def test_a_picture_is_a_video_of_one_frame(tmp_path):
  Image.fromarray(clips.counter(2)[1]).save(tmp_path / 'a.png')
  assert greys(media.frames(tmp_path / 'a.png', [0, 3])) == [1, 1]


def test_frame_times_must_ascend(tmp_path):
  path = clips.write(tmp_path / 'a.mkv', clips.counter(3), [0, 0.1, 0.2])
  with pytest.raises(ValueError, match='ascend'):
    media.frames(path, [1, 0])


def test_int16_is_rounded_and_clipped():
  wave = np.float32([-2, -1, -0.6 / 32768, 0.4 / 32768, 0.6 / 32768, 1, 2])
  assert media.to_int16(wave).tolist() == [-32768, -32768, -1, 0, 1, 32767, 32767]


@pytest.mark.parametrize(
  'size, side, expected',
  [
    ((48, 64), None, (48, 64)),
    ((48, 64), 64, (48, 64)),
    ((48, 64), 24, (24, 32)),
    ((100, 30), 10, (33, 10)),
  ],
)
def test_jpeg_files_are_scaled_down_to_a_side(size, side, expected):
  pixels = np.full((*size, 3), 100, np.uint8)
  with Image.open(io.BytesIO(media.jpeg(pixels, side))) as image:
    assert image.size == expected[::-1]
    np.testing.assert_allclose(np.asarray(image), 100, atol=1)


@pytest.mark.parametrize(
  'size, expected',
  [
    ((1, 2000), (16, 640)),
    ((2000, 1), (640, 16)),
    ((1, 1), (16, 16)),
    ((49, 65), (48, 64)),
    ((1000, 30), (640, 20)),
    ((720, 1280), (360, 640)),
    ((321, 641), (320, 640)),
  ],
)
def test_pictures_of_any_size_fit_into_a_frame_that_encoders_take(size, expected):
  pixels = np.full((*size, 3), 200, np.uint8)
  boxed = media.letterbox(pixels, longest=640)
  assert boxed.shape == (*expected, 3)
  assert boxed[expected[0] // 2, expected[1] // 2].min() == 200


def test_pictures_that_are_too_large_are_refused_by_name(tmp_path, monkeypatch):
  monkeypatch.setattr(media, 'LARGEST', 48 * 64 - 1)
  path = clips.write(tmp_path / 'a.mkv', clips.counter(2), [0, 0.1])
  with pytest.raises(media.MediaError, match='a.mkv has pictures of 64×48'):
    media.frames(path, [0])


CONTAINERS = ('3g2 3gp asf avi f4v flv m4v mkv mov mp4 mpeg mpg rm swf vob webm wmv').split()


@pytest.mark.parametrize('suffix', CONTAINERS)
def test_one_clip_in_many_containers_looks_and_sounds_the_same(suffix):
  folder = real.rock_band()
  times, rate = [10, 30], 8000
  frames = media.frames(folder / f'demo.{suffix}', times)
  expected = media.frames(folder / 'demo.mp4', times)
  if suffix.startswith('3g'):  # twice as large
    frames = frames[:, ::2, ::2]
  assert frames.shape == expected.shape
  assert np.abs(frames.astype(int) - expected).mean() < 12
  wave, original = (media.waveform(folder / f'demo.{s}', rate) for s in (suffix, 'mp4'))
  assert abs(len(wave) - len(original)) < 0.2 * rate
  # The same course of loudness, wherever the encoder's delay of up to 50 ms has put it.
  loudness = [np.abs(w[: 59 * rate]).reshape(59 * 4, -1).mean(1) for w in (wave, original)]
  assert np.corrcoef(loudness)[0, 1] > (0.75 if suffix.startswith('3g') else 0.95)  # 3g: AMR


@pytest.mark.parametrize('suffix', ['ogg', 'ogv'])
def test_a_track_of_mostly_damaged_packets_is_refused(suffix):
  """FFmpeg reads only every fourth packet of these two."""
  path = real.rock_band() / f'demo.{suffix}'
  with pytest.raises(media.MediaError, match='packets of its video track cannot be decoded'):
    media.frames(path, [10])
  assert len(media.waveform(path, 8000)) > 60 * 8000


@pytest.mark.parametrize(
  'find, seconds, size',
  [
    (lambda: real.short_clips() / 'obama_speech.mp4', 8.71, (240, 320)),  # 11.9 frames a second
    (lambda: real.short_clips() / 'park.mp4', 0.55, (480, 640)),
    (lambda: real.short_clips() / 'shot_change.mp4', 4.93, (360, 640)),
    (lambda: real.odd_sound() / 'bigbuckbunny.mp4', 5.31, (720, 1280)),  # 5.1 sound
    (lambda: real.phone_and_screen() / 'movie1/VID_20191220_170832.mp4', 1.6, (1080, 1920)),
    (lambda: real.phone_and_screen() / 'movie2/movie-hello.mp4', 8.32, (720, 1280)),
  ],
)
def test_real_clips_are_read_to_their_length(find, seconds, size):
  path = find()
  info = media.probe(path)
  assert info.has_video and info.has_audio and abs(info.duration - seconds) < 0.02
  frames = media.frames(path, [0, seconds / 2, seconds + 5])
  assert frames.shape == (3, *size, 3)
  assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
  wave = media.waveform(path, 32000)
  assert abs(len(wave) / 32000 - seconds) < 0.05 and np.abs(wave).max() > 0.01


def test_real_clips_without_sound_say_so():
  for name in ('bikes.mp4', 'carphone_pristine.mp4'):
    with pytest.raises(media.NoAudioTrack, match=name):
      media.waveform(real.odd_sound() / name, 32000)
