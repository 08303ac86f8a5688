#!/bin/bash
# orbax-checkpoint 0.12.8, jax 0.10.2: a checkpoint saved in a folder with brackets in its name cannot be read back.
#
# Expected: a folder such as `lr=[1e-3]` is as good as any other, or saving in it fails.
# Real: saving succeeds. What each process has written is then looked for by a pattern that holds the path as it is; brackets
#   stand for one of the letters within them there, so nothing is found, nothing is merged, and a warning is
#   logged. Restoring fails.
# Source: etils.epath, Orbax's paths, whose `glob` takes the folder's own name for a part of the pattern, where pathlib's
#   does not. The documentation of Orbax has no rule for names of folders.
# Who is hurt: whoever names runs by their settings, or works below such a folder. Hours of training are lost without an error.
#   Choose another folder, and restore the first checkpoint of a run while it goes on.
# Exit 0: as described. 1: something else was seen. Needs Python 3.11 or newer with venv, and packages from an index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8 numpy==2.4.6
cd "$folder"
cat > save.py <<'PYTHON'
import pathlib

import jax.numpy as jnp
import orbax.checkpoint as ocp


def comes_back(name):
  folder = pathlib.Path(name).absolute()
  with ocp.CheckpointManager(folder) as manager:
    assert manager.save(1, args=ocp.args.StandardSave({'x': jnp.arange(4.0)}))
  try:
    with ocp.CheckpointManager(folder) as manager:
      return manager.restore(1, args=ocp.args.StandardRestore())['x'].tolist() == [0, 1, 2, 3]
  except Exception as error:
    print(f'{name}: {type(error).__name__}')
    return False


plain, bracketed = comes_back('lr=1e-3'), comes_back('lr=[1e-3]')
print(f'a checkpoint in lr=1e-3 comes back: {plain}; one in lr=[1e-3]: {bracketed}')
raise SystemExit(0 if plain and not bracketed else 1)
PYTHON
"$folder/venv/bin/python" save.py 2> log || { tail -5 log; exit 1; }
grep -m 1 -o 'No per-process OCDBT checkpoint subdirs found' log
