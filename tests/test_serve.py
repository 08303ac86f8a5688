"""The page gives what `predict` gives, within its limits, and keeps nothing of those who left.

The tests in a browser are slow, and need `pip install 'dgsct-jax[serve]' playwright` and Debian's
package chromium.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from configs import avs_s4
from dgsct_jax import predict, serve, served
from dgsct_jax.served import Limits, Served, Sessions, answer
from tests import clips, tiny
from tests.test_predict import left_sounds, stand

ROOT = Path(__file__).parents[1]
ROOM = Limits(megabytes=10, seconds=60)
ZERO_SHOT = 'configs/zero_shot.py:tiny'


@pytest.fixture(scope='module')
def truck(tmp_path_factory):
  return tiny.ave_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp('video') / 'clip.mp4'
  return clips.write(path, clips.counter(40, step=2), np.arange(40) / 10, clips.tone(32000, 4))


@pytest.fixture(scope='module')
def model(truck):
  return served.load([str(truck)], [])[str(truck)]


def test_a_run_answers_as_predict_does(model, truck, video, tmp_path):
  shares = []
  result = answer(model, ROOM, video, tmp_path, tell=lambda share, what: shares.append(share))
  assert predict.main([f'--workdir={truck}', f'--out={tmp_path / "out"}', str(video)]) == 0
  names = {path.name for path in (tmp_path / 'out' / 'clip.mp4').iterdir()}
  assert {path.name for path in result.files} == names
  assert names == {'events.json', 'events.csv', 'events.vtt', 'film.mp4', 'timeline.png'}
  records = [
    json.loads((folder / 'events.json').read_text())
    for folder in (tmp_path, tmp_path / 'out' / 'clip.mp4')
  ]
  assert records[0] == records[1] | {'file': 'clip.mp4'}
  for name in ('events.csv', 'events.vtt'):
    assert (tmp_path / name).read_bytes() == (tmp_path / 'out' / 'clip.mp4' / name).read_bytes()
  assert '00:00:00.000 --> 00:00:04.000\nTruck\n' in (tmp_path / 'events.vtt').read_text()
  assert [row[0] for row in result.table.rows] == [0, 1, 2, 3]
  assert result.report.startswith('clip.mp4: 4 s') and str(video.parent) not in result.report
  assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 0.8


def test_masks_come_as_pictures_and_in_one_file(video, tmp_path):
  config = avs_s4.get_config('tiny')
  segments = Served(None, 'stand', config, {(): stand(config, left_sounds)})
  result = answer(segments, ROOM, video, tmp_path)
  assert [mask.name for mask in result.masks] == [f'clip_{i}.png' for i in range(4)]
  with zipfile.ZipFile(tmp_path / 'masks.zip') as archive:
    assert archive.namelist() == [mask.name for mask in result.masks]
    with archive.open('clip_3.png') as stream:
      assert np.asarray(Image.open(stream)).max() == 255
  assert tmp_path / 'masks.zip' in result.files


def test_names_of_classes_are_read_anew_and_weights_are_not(video, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  (words,) = served.load([], [ZERO_SHOT]).values()
  assert words.named and not words.loaded  # there are no names yet
  with pytest.raises(ValueError, match='There are no classes; give at least one name'):
    answer(words, ROOM, video, tmp_path)
  probabilities = lambda model, names: answer(model, ROOM, video, tmp_path, names=names).table.rows
  first = probabilities(words, ['dog', 'bell'])
  monkeypatch.setattr(predict, 'load', None)  # nothing is read from now on
  second = probabilities(words, ['a saw', 'rain', 'bell'])
  assert probabilities(words, ['dog', 'bell']) == first and len(words.loaded) == 2
  models = list(words.loaded.values())
  assert models[0].variables is models[1].variables
  monkeypatch.undo()
  monkeypatch.chdir(ROOT)
  (fresh,) = served.load([], [ZERO_SHOT]).values()
  assert probabilities(fresh, ['a saw', 'rain', 'bell']) == second


def test_names_that_are_long_not_used_are_forgotten(monkeypatch):
  monkeypatch.chdir(ROOT)
  (words,) = served.load([], [ZERO_SHOT]).values()
  for i in range(served.KEPT + 3):
    words.model([f'name {i}'])
  assert len(words.loaded) == served.KEPT and (f'name {served.KEPT + 2}',) in words.loaded


def test_what_predict_prints_is_told_in_the_same_words(model, video, tmp_path, capfd):
  text = tmp_path / 'text.mp4'
  text.write_text('no video\n' * 20)
  with pytest.raises(ValueError) as error:
    answer(model, ROOM, text, tmp_path / 'out')
  predict.main([f'--workdir={model.workdir}', f'--out={tmp_path / "x"}', str(text)])
  assert f'error: {error.value}\n' in capfd.readouterr().err
  assert 'cannot be read as video or sound' in str(error.value)
  with pytest.raises(ValueError, match='This model takes no questions'):
    answer(model, ROOM, video, tmp_path / 'out', questions=['Is it?'])
  with pytest.raises(ValueError, match='There is no file yet'):
    answer(model, ROOM, None, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_too_much_is_refused_before_it_is_read(model, video, tmp_path):
  with pytest.raises(ValueError, match=r'clip.mp4 has \S+ MB; this page takes at most 0.001'):
    answer(model, ROOM._replace(megabytes=0.001), video, tmp_path)
  with pytest.raises(ValueError, match='clip.mp4 is 4 s long; this page takes at most 3 '):
    answer(model, ROOM._replace(seconds=3), video, tmp_path)
  assert not list(tmp_path.iterdir())


def test_nothing_is_kept_of_those_who_left(tmp_path):
  sessions = Sessions(tmp_path)
  shared, own = tmp_path / 'hash1' / 'a.mp4', tmp_path / 'hash2' / 'b.mp4'
  for path in (shared, own):
    path.parent.mkdir()
    path.touch()
  for session, path in (('one', shared), ('two', shared), ('one', own), ('one', None)):
    sessions.give(session, path and str(path))
  first = sessions.results('one')
  (first / 'film.mp4').touch()
  second = sessions.results('one')
  assert not first.exists() and second.is_dir() and second != first
  sessions.end('one')
  assert shared.exists() and not own.parent.exists() and not (tmp_path / 'one').exists()
  assert 'one' in sessions.left  # a job that still runs removes what it writes
  sessions.end('two')
  sessions.end('nobody')
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_served_is_told_at_the_start(truck, tmp_path, monkeypatch, capfd):
  monkeypatch.setitem(sys.modules, 'gradio', type(sys)('gradio'))
  for given, told in (
    ([], 'There is nothing to serve; give --workdir or --config'),
    ([f'--workdir={tmp_path / "none"}'], 'There is no checkpoint in'),
    (['--config=configs/nowhere.py'], 'there is no file configs/nowhere.py'),
    ([f'--config={ROOT}/configs/ave.py:tiny'], 'This config trains'),
    ([f'--workdir={truck}', '--init=nothing=x'], 'give NAME=FILE, NAME one of'),
  ):
    with pytest.raises(SystemExit) as stop:
      serve.main(given)
    assert stop.value.code == 1 and told in capfd.readouterr().err


def test_without_gradio_the_command_says_how_to_get_it(monkeypatch, capfd):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  with pytest.raises(SystemExit) as stop:
    serve.main(['--workdir=run'])
  assert stop.value.code == 1
  told = capfd.readouterr().err
  assert told == "error: The page needs gradio: pip install 'dgsct-jax[serve]'.\n"


# In a browser.


def free_port():
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """The address of tests/pages.py, which is another process, and its folder of temporary files."""
  folder = tmp_path_factory.mktemp('site')
  pytest.importorskip('gradio', reason="pip install 'dgsct-jax[serve]'")
  port, temporary = free_port(), folder / 'temporary'
  temporary.mkdir()
  command = [sys.executable, '-m', 'tests.pages', str(port)]
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'TMPDIR': str(temporary)}
  with (folder / 'log').open('w') as log:
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
  try:
    for _ in range(300):
      with contextlib.suppress(OSError):
        urllib.request.urlopen(f'http://127.0.0.1:{port}').close()
        break
      assert process.poll() is None, (folder / 'log').read_text()
      time.sleep(1)
    yield f'http://127.0.0.1:{port}', temporary
  finally:
    process.send_signal(signal.SIGHUP)  # as when its terminal is closed; SIGTERM does the same
    process.wait(30)
  assert not list(temporary.glob('dgsct_jax_*'))
  assert 'Traceback' not in (folder / 'log').read_text()


@pytest.fixture(scope='module')
def browser():
  playwright = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
  chromium = shutil.which('chromium')
  if not chromium:
    pytest.skip('there is no chromium; on Debian: apt-get install chromium')
  with playwright.sync_playwright() as tool:
    # A camera that shows a clock and a microphone that beeps, and nobody to ask for them.
    fake = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
    started = tool.chromium.launch(executable_path=chromium, args=['--no-sandbox', *fake])
    yield started
    started.close()


@pytest.fixture
def visit(browser, site, tmp_path):
  """Opens the page as another user; all that it loads comes from its own server.

  What was last seen is kept as a picture in pytest's folder.
  """
  users, foreign = [], []

  def open_page():
    users.append(browser.new_context(viewport={'width': 1300, 'height': 1000}))
    page = users[-1].new_page()
    page.set_default_timeout(100_000)
    page.on('request', lambda request: foreign.append(request.url))
    page.goto(site[0])
    page.get_by_role('button', name='Look and listen').wait_for()
    return page

  yield open_page
  for i, user in enumerate(users):
    for page in user.pages:
      page.screenshot(path=tmp_path / f'user_{i}.png', full_page=True)
    user.close()
  assert all(url.startswith((site[0], 'data:', 'blob:')) for url in foreign)


def choose(page, name):
  page.locator(f'label:has-text("{name}")').first.click()


def give(page, path):
  if page.locator('#given [aria-label="Clear"]').count():
    page.locator('#given [aria-label="Clear"]').click()
  page.set_input_files('#given input[type=file]', str(path))
  page.locator(f'#given >> text={path.stem}').first.wait_for()


def look(page):
  page.get_by_role('button', name='Look and listen').click()


def report(page, text):
  """What is found, once it holds a text."""
  found = "text => document.querySelector('#report textarea').value.includes(text)"
  page.wait_for_function(found, arg=text)
  return page.input_value('#report textarea')


@pytest.mark.slow
def test_a_video_is_given_and_its_results_are_shown_and_downloaded(visit, video, site):
  page = visit()
  choose(page, 'events')
  page.get_by_label('Questions').wait_for(state='hidden')
  give(page, video)
  look(page)
  assert '0:03  ' in report(page, 'clip.mp4: 4 s')
  page.locator('#film video').wait_for()
  size = 'document.querySelector("#film video").readyState >= 2'
  page.wait_for_function(size)
  page.locator('#timeline img').wait_for()
  assert 'predicted' in page.locator('#table').inner_text()
  links = page.locator('a[download]').evaluate_all('all => all.map(a => [a.download, a.href])')
  written = dict(link for link in links if link[0].startswith('events'))
  assert set(written) == {'events.json', 'events.csv', 'events.vtt'}
  told = page.request.get(written['events.json']).json()
  assert told['file'] == 'clip.mp4' and len(told['timeline']) == 4
  assert page.request.get(written['events.vtt']).text().startswith('WEBVTT')


@pytest.mark.slow
@pytest.mark.parametrize('recorder', ['camera', 'microphone'])
def test_a_recording_is_made_and_looked_at(visit, recorder):
  page = visit()
  choose(page, 'events')
  page.get_by_text('Record one').click()
  if recorder == 'camera':
    page.locator('#camera').get_by_text('Click to Access Webcam').click()
    start, stop = (
      page.locator(f'#camera button:has-text("{word}")') for word in ('Record', 'Stop')
    )
  else:
    start, stop = (page.locator(f'#microphone button.{word}-button') for word in ('record', 'stop'))
  start.click()
  time.sleep(3)
  stop.click()
  page.locator('#given .file-name, #given [aria-label="Clear"]').first.wait_for()
  look(page)
  found = report(page, '0:01  ')
  assert ('no video track' in found) == (recorder == 'microphone'), found
  assert 'no sound' not in found


@pytest.mark.slow
def test_masks_are_shown_and_downloaded(visit, video):
  page = visit()
  choose(page, 'masks')
  give(page, video)
  look(page)
  report(page, '0:03   25% of the picture sounds')
  page.locator('#masks img').nth(3).wait_for()
  assert 'masks.zip' in page.locator('a[download]').evaluate_all('all => all.map(a => a.download)')


@pytest.mark.slow
def test_a_question_is_asked_and_names_are_given(visit, video):
  page = visit()
  choose(page, 'answers')
  give(page, video)
  look(page)
  page.locator('#error textarea').wait_for()
  assert 'This model answers questions' in page.input_value('#error textarea')
  page.get_by_label('Questions').fill('How many?')
  look(page)
  assert 'How many?' in report(page, 'clip.mp4: 4 s')
  page.locator('#error').wait_for(state='hidden')
  choose(page, 'words')
  page.get_by_label('Names of classes').fill('dog, bell')
  look(page)
  assert re.search('seen (dog|bell)', report(page, '0:03  seen'))


@pytest.mark.slow
def test_what_is_no_video_or_too_long_is_told(visit, video, tmp_path):
  page = visit()
  choose(page, 'events')
  text = tmp_path / 'text.mp4'
  text.write_text('<b>no video</b>\n' * 20)
  long = tmp_path / 'long.flac'
  soundfile.write(long, clips.tone(8000, 40)[0], 8000)
  for path, told in (
    (text, 'text.mp4 cannot be read as video or sound (Invalid data found'),
    (long, 'long.flac is 40 s long; this page takes at most 30 (--max_seconds).'),
  ):
    give(page, path)
    look(page)
    page.wait_for_function(
      "text => document.querySelector('#error textarea')?.value.startsWith(text)", arg=told
    )
    assert not page.locator('#film video').is_visible()
  large = tmp_path / 'large.mp4'
  large.write_bytes(bytes(6_000_000))
  page.locator('#given [aria-label="Clear"]').click()
  page.set_input_files('#given input[type=file]', str(large))
  page.get_by_text('exceed').first.wait_for()


@pytest.mark.slow
def test_two_users_at_once_get_their_own_and_leave_nothing(visit, video, tmp_path, site):
  other = clips.write(tmp_path / 'other.mp4', clips.counter(20), np.arange(20) / 10)
  pages = {visit(): video, visit(): other, visit(): video}  # two give the same
  for page, path in pages.items():
    choose(page, 'events')
    give(page, path)
  for page in pages:
    look(page)
  for page, path in pages.items():
    assert report(page, f'{path.name}: ').count('0:0') == (4 if path == video else 2)
  first, *others = pages
  first.context.close()
  look(others[-1])  # the file that both gave is still there
  others[-1].locator('#report textarea').wait_for()
  assert 'clip.mp4: 4 s' in report(others[-1], 'clip.mp4: ')
  for page in others:
    page.context.close()
  for _ in range(60):
    left = [path for path in site[1].rglob('*') if path.is_file() and path.stat().st_size]
    if not left:
      break
    time.sleep(1)
  assert not left
