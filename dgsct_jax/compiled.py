"""Compiled programs are kept for the next start, in the user's cache folder."""

import functools

import jax

from dgsct_jax import hub

SAVED = '/jax/compilation_cache/compile_time_saved_sec'
_saved: list[float] = []  # seconds, of each program that was read and not compiled


def keep() -> None:
  """Keeps compiled programs in `compiled` of our folder, or in JAX_COMPILATION_CACHE_DIR."""
  if not _folder():
    jax.config.update('jax_compilation_cache_dir', str(hub.folder() / 'compiled'))
  listen()


@functools.cache
def listen() -> None:
  """Counts from now on what is saved."""

  def note(event: str, duration_secs: float, **_: str | int) -> None:
    if event == SAVED:
      _saved.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(note)


def saved() -> str:
  """What was saved since the last call, to be added to a line of text; '' if nothing was."""
  seconds, found = sum(_saved), bool(_saved)
  _saved.clear()
  if not found:
    return ''
  verb = 'saved' if seconds >= 0 else 'cost'
  return f': read from {_folder()}, which {verb} {abs(seconds):.1f} s'


def _folder() -> str | None:
  return jax.config.values['jax_compilation_cache_dir']
