"""What is computed once from fixed weights, kept in the user's cache folder."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping

import numpy as np

from dgsct_jax import hosts, hub, tree
from dgsct_jax.convert import read


def arrays(about: Mapping[str, str], make: Callable[[], tree.Tree]) -> tree.Tree:
  """A tree of arrays, from the cache folder if it was made from the same things before.

  Args:
    about: all that it is made from; the versions of jax and of this package are added here.
    make: computes it. A folder that cannot be written costs time only.
  """
  facts = json.dumps({**about, **hosts.versions()}, sort_keys=True)
  path = hub.folder() / f'kept-{hashlib.sha256(facts.encode()).hexdigest()}.safetensors'
  with contextlib.suppress(ValueError):  # None is there, or it is damaged.
    return tree.unflatten(dict(read.read(path)))
  made = make()
  leaves = {name: np.asarray(leaf) for name, leaf in tree.flatten(made).items()}
  with contextlib.suppress(ValueError, OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    read.write(path, leaves, {})
  return made
