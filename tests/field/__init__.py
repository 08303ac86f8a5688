"""Small files like those that users brought and that once failed; all are made for tests."""

import gzip
from pathlib import Path


def path(name):
  """Of a file in this folder."""
  return Path(__file__).with_name(name)


def unpacked(name, folder):
  """A gzipped file of this folder, without its suffix, in another."""
  made = folder / name.removesuffix('.gz')
  made.write_bytes(gzip.decompress(path(name).read_bytes()))
  return made
