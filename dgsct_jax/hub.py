"""Files by name: a path on this machine, or one of the Hugging Face hub."""

import os
from pathlib import Path

WHOLE = ('model.safetensors', 'pytorch_model.bin')  # what a repository calls its weights


def fetch(given: str) -> Path:
  """A local file for a path or `hf://owner/name[/file]`; huggingface_hub keeps the latter.

  A folder, or a repository without a file, stands for the weights in it.

  Raises:
    ValueError: there is no such file, or it cannot be downloaded.
  """
  if given.startswith('hf://'):
    return _download(given)
  path = Path(os.path.expanduser(given))
  if os.path.isdir(path):  # False, not an error, for any name
    path = next((path / name for name in WHOLE if (path / name).is_file()), path)
  if not os.path.isfile(path):
    raise ValueError(
      f'{path} is not a file; give a checkpoint, a folder with {" or ".join(WHOLE)}, or'
      ' hf://owner/name[/file].'
    )
  return path


def beside(weights: str, file: str) -> str:
  """The folder that has a file which lies beside weights, so named; of the hub, it is fetched.

  Raises:
    ValueError: it cannot be downloaded.
  """
  if weights.startswith('hf://'):
    owner, name, *_ = weights.removeprefix('hf://').split('/')
    return str(_download(f'hf://{owner}/{name}/{file}').parent)
  path = Path(os.path.expanduser(weights))
  return str(path if os.path.isdir(path) else path.parent)


def _download(given: str) -> Path:
  try:
    import huggingface_hub
  except ImportError as error:
    raise ValueError(f'{given} needs huggingface_hub: pip install "dgsct-jax[convert]".') from error
  owner, name, *rest = given.removeprefix('hf://').split('/', 2) + [''] * 2
  if not owner or not name:
    raise ValueError(
      f'{given!r} names no repository; write hf://owner/name or hf://owner/name/file.'
    )
  file = rest[0]
  try:
    if not file:
      files = huggingface_hub.list_repo_files(f'{owner}/{name}')
      file = next((file for file in WHOLE if file in files), '')
      if not file:
        raise ValueError(
          f'{given} has neither {" nor ".join(WHOLE)} but {", ".join(files)}; write'
          f' hf://{owner}/{name}/FILE.'
        )
    return Path(huggingface_hub.hf_hub_download(f'{owner}/{name}', file))
  except (
    OSError,
    huggingface_hub.errors.HfHubHTTPError,
    huggingface_hub.errors.HFValidationError,
  ) as error:
    raise ValueError(
      f'{given} cannot be downloaded: {error}\nWithout a network, fetch it elsewhere from'
      f' https://huggingface.co/{owner}/{name} and give the path of the file.'
    ) from error
