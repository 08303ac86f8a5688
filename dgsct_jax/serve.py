"""A page in the browser: a video or a sound in, what a model makes of it out.

python -m dgsct_jax.serve --workdir=RUN [--workdir=RUN2 ...] [--config=configs/tags.py ...]

The models are those that `predict` takes, and so are the results: film, timeline, table of seconds,
masks, JSON, CSV, subtitles. All models are loaded at the start, one that matches names of classes
when the first names are given; other names later have only their texts read anew.

The page answers on this machine alone unless --host says otherwise. Jobs stand in a queue, one is
done at a time. What users give and get lies in a temporary folder: a user's part of it is removed
when the page is left, all of it when the command ends.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av

from dgsct_jax import served
from dgsct_jax.served import Limits, Served, Sessions

WAITING = 20  # jobs in the queue
LOCAL = ('127.0.0.1', 'localhost', '::1')


def page(models: dict[str, Served], limits: Limits, sessions: Sessions) -> Any:
  """The page, a gradio.Blocks."""
  import gradio as gr

  def show(name: str) -> list[Any]:
    chosen = models[name]
    names = ', '.join(chosen.config.data.classes) if chosen.named else ''
    return [gr.update(visible=chosen.asked), gr.update(visible=chosen.named, value=names)]

  def give(path: str | None, request: gr.Request) -> None:
    sessions.give(str(request.session_hash), path)

  def end(request: gr.Request) -> None:
    sessions.end(request.session_hash)

  def run(
    name: str,
    given: str | None,
    questions: str,
    names: str,
    request: gr.Request,
    progress: Any = gr.Progress(),  # noqa: B008  as gradio wants it
  ) -> list[Any]:
    session, chosen = str(request.session_hash), models[name]
    path, folder = Path(given) if given else None, sessions.results(session)
    asked, called = (
      _each((questions or '').splitlines()),
      _each((names or '').replace('\n', ',').split(',')),
    )
    try:
      got = served.answer(
        chosen,
        limits,
        path,
        folder,
        asked if chosen.asked else [],
        called if chosen.named else [],
        lambda share, what: progress(share, desc=what),
      )
    except (OSError, ValueError, av.FFmpegError) as error:
      told = str(error).replace(f'{path.parent}/', '') if path else str(error)
      cleared = [gr.update(value=None, visible=False)] * 5
      return [gr.update(value=told, visible=True), '', *cleared]
    finally:
      if session in sessions.left:
        sessions.end(session)
    shown = lambda value: gr.update(value=value, visible=bool(value))
    text = lambda path: str(path) if path else None
    return [
      gr.update(value='', visible=False),
      got.report,
      shown(text(got.file('film.mp4'))),
      shown(text(got.file('timeline.png'))),
      shown({'headers': list(got.table.header), 'data': [list(row) for row in got.table.rows]}),
      shown([(str(mask), mask.stem) for mask in got.masks]),
      shown([str(file) for file in got.files]),
    ]

  first = next(iter(models))
  asks, names = (update for update in show(first))
  with gr.Blocks(title='dgsct_jax', analytics_enabled=False, fill_width=True) as blocks:
    gr.Markdown(
      f'# What is seen and heard\nA video, a sound or a picture of at most {limits.megabytes:g} MB'
      f' and {limits.seconds:g} seconds. It is removed when you leave the page.'
    )
    with gr.Row():
      with gr.Column(scale=2, min_width=320):
        model = gr.Radio(list(models), value=first, label='Model')
        given = gr.File(label='Video or sound', type='filepath', elem_id='given')
        with gr.Accordion('Record one', open=False):
          camera = gr.Video(
            sources=['webcam'],
            include_audio=True,
            webcam_options=gr.WebcamOptions(mirror=False),
            label='Camera',
            elem_id='camera',
          )
          microphone = gr.Audio(
            sources=['microphone'], type='filepath', label='Microphone', elem_id='microphone'
          )
        questions = gr.Textbox(
          label='Questions', info='One in each line.', lines=2, visible=asks['visible']
        )
        classes = gr.Textbox(
          label='Names of classes',
          info='With commas between them.',
          lines=2,
          visible=names['visible'],
          value=names['value'],
        )
        button = gr.Button('Look and listen', variant='primary')
        files = gr.File(label='Downloads', visible=False, file_count='multiple', interactive=False)
      with gr.Column(scale=3, min_width=320):
        error = gr.Textbox(label='Error', visible=False, elem_id='error')
        film = gr.Video(label='Film', visible=False, interactive=False, elem_id='film')
        timeline = gr.Image(
          label='Timeline',
          show_label=False,
          visible=False,
          type='filepath',
          buttons=['download', 'fullscreen'],
          elem_id='timeline',
        )
        report = gr.Textbox(label='Found', interactive=False, max_lines=12, elem_id='report')
        masks = gr.Gallery(label='Masks', visible=False, columns=5, height='auto', elem_id='masks')
        table = gr.Dataframe(label='Seconds', visible=False, interactive=False, elem_id='table')
    model.change(show, model, [questions, classes], queue=False)
    for recorder in (camera, microphone):
      recorder.stop_recording(lambda path: path, recorder, given, queue=False)
    given.change(give, given, queue=False)
    outputs = [error, report, film, timeline, table, masks, files]
    button.click(
      run,
      [model, given, questions, classes],
      outputs,
      concurrency_limit=1,
      show_progress_on=report,  # the others may be hidden
    )
    blocks.unload(end)
  return blocks.queue(max_size=WAITING)


def launch(models: dict[str, Served], limits: Limits, host: str, port: int) -> None:
  """Serves the page until the process is interrupted or ended; then all files are removed."""
  import gradio as gr

  if host not in LOCAL:
    print(
      f'WARNING: the page is open to everybody who can reach {host}:{port}. It has no password, and'
      ' takes their files to this machine.',
      file=sys.stderr,
      flush=True,
    )
  for number in (signal.SIGTERM, signal.SIGHUP):  # so that the folder is removed then, too
    if signal.getsignal(number) != signal.SIG_IGN:  # as SIGHUP is under nohup
      signal.signal(number, lambda *_: sys.exit(0))
  with tempfile.TemporaryDirectory(prefix='dgsct_jax_') as root:
    os.environ['GRADIO_TEMP_DIR'] = root  # what users give lies there, too
    sans, mono = ('system-ui', 'sans-serif'), ('ui-monospace', 'monospace')
    page(models, limits, Sessions(Path(root))).launch(
      server_name=host,
      server_port=port,
      max_file_size=int(limits.megabytes * 1e6),
      theme=gr.themes.Default(font=sans, font_mono=mono),  # fonts that no other server has to send
      footer_links=[],
    )


def _each(texts: Iterable[str]) -> list[str]:
  return list(filter(None, map(str.strip, texts)))


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command until it is interrupted."""
  parser = argparse.ArgumentParser(
    prog='python -m dgsct_jax.serve',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  many: dict[str, Any] = {'action': 'append', 'default': []}
  parser.add_argument(
    '--workdir', **many, metavar='RUN', help='as predict takes it; may be repeated'
  )
  parser.add_argument('--config', **many, metavar='FILE[:VARIANT]', help='trains nothing; likewise')
  parser.add_argument(
    '--init', **many, metavar='NAME=FILE', help='of all models, as predict has it'
  )
  parser.add_argument('--set', **many, metavar='FIELD=VALUE', help='of all models, likewise')
  parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 opens the page to the network')
  parser.add_argument('--port', type=int, default=7860)
  parser.add_argument('--max_mb', type=float, default=200, help='the largest file')
  parser.add_argument('--max_seconds', type=float, default=180, help='the longest file')
  args = parser.parse_args(argv)
  try:
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')  # the page calls nobody
    import gradio  # noqa: F401
  except ImportError:
    parser.exit(1, "error: The page needs gradio: pip install 'dgsct-jax[serve]'.\n")
  try:
    models = served.load(args.workdir, args.config, args.init, args.set)
  except (OSError, ValueError) as error:
    parser.exit(1, f'error: {error}\n')
  launch(models, Limits(args.max_mb, args.max_seconds), args.host, args.port)
  return 0


if __name__ == '__main__':
  sys.exit(main())
