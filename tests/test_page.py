"""A page holds all it shows, and words are never markup."""

import base64
import html.parser
import io
import re
import wave

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dgsct_jax import page


def held(element, kind):
  return io.BytesIO(base64.b64decode(re.search(rf'data:{kind};base64,([^"]*)"', element)[1]))


def test_words_are_no_markup():
  text = page.page('<a>', page.text('b & c', 'h2'), page.table([['d<', '"e"']]))
  assert '<title>&lt;a&gt;</title>' in text and '<h1>&lt;a&gt;</h1>' in text
  assert '<h2>b &amp; c</h2>' in text
  assert '<table><tr><th>d&lt;</th><td>&quot;e&quot;</td></tr></table>' in text
  assert 'alt="&quot;f"' in page.picture(b'', '"f')
  html.parser.HTMLParser().feed(text)


def test_a_sound_comes_back():
  sound = np.arange(-3, 5, dtype=np.int16)
  with wave.open(held(page.sound(sound, 800), 'audio/wav')) as file:
    assert (file.getframerate(), file.getnchannels()) == (800, 1)
    np.testing.assert_array_equal(np.frombuffer(file.readframes(99), '<i2'), sound)


def test_a_figure_comes_back_as_a_picture():
  picture = Image.open(held(page.drawing(Figure((3, 2), dpi=50), 'name'), 'image/png'))
  assert picture.size == (150, 100)
