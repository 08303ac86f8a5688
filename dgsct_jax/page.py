"""HTML pages in one file each, with their pictures and sounds, that need no network."""

import base64
import html
import io
import wave as wav
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16
from matplotlib.figure import Figure


def page(title: str, *parts: str) -> str:
  """The HTML of a page: its title, and below it the parts, which are HTML."""
  title = html.escape(title)
  return PAGE.format(title=title, parts='\n'.join([f'<h1>{title}</h1>', *parts]))


def text(words: str, tag: str = 'p') -> str:
  """An element with a text."""
  return f'<{tag}>{html.escape(words)}</{tag}>'


def table(rows: Sequence[Sequence[str]]) -> str:
  """A table; the first text of each row names it."""
  lines = (text(name, 'th') + ''.join(text(cell, 'td') for cell in cells) for name, *cells in rows)
  return f'<table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def picture(png: bytes, name: str) -> str:
  """A PNG file."""
  encoded = base64.b64encode(png).decode()
  return f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}"></figure>'


def drawing(figure: Figure, name: str) -> str:
  """A figure of Matplotlib."""
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return picture(file.getvalue(), name)


def sound(wave: Int16[np.ndarray, 's'], rate: int) -> str:
  """A player of a sound; `rate` in Hz."""
  file = io.BytesIO()
  with wav.open(file, 'wb') as out:
    out.setnchannels(1)
    out.setsampwidth(2)
    out.setframerate(rate)
    out.writeframes(wave.astype('<i2').tobytes())
  encoded = base64.b64encode(file.getvalue()).decode()
  return f'<audio controls src="data:audio/wav;base64,{encoded}"></audio>'


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
  body {{ font: 15px/1.45 system-ui, sans-serif; color: #222 }}
  body {{ max-width: 1510px; margin: 2em auto; padding: 0 1em }}
  table {{ border-collapse: collapse }}
  th, td {{ padding: .2em 1.6em .2em 0; border-bottom: 1px solid #e9e9e9; text-align: right }}
  th {{ text-align: left; font-weight: 400 }}
  tr:first-child td {{ color: #777 }}
  figure {{ margin: 2em 0 }}
  img {{ max-width: 100% }}
</style>
{parts}
</html>
"""
