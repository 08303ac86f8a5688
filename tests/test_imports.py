"""Imports point one way: docs/design.md, section 3."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ('dgsct_jax', 'configs')

# What a module may import besides the standard library; the first prefix that covers it decides.
LEAVES = {'numpy', 'jaxtyping', 'einops'}
MEDIA = {'PIL', 'av', 'soundfile', 'soxr'}
NETS = LEAVES | {'jax', 'flax', 'dgsct_jax.cubic'}
BASICS = NETS | {'dgsct_jax.models.layers', 'dgsct_jax.models.windows', 'dgsct_jax.models.mel'}
TREES = LEAVES | {'jax', 'flax', 'optax', 'ml_collections', 'dgsct_jax.tree', 'dgsct_jax.sharding'}
ALLOWED = {
  'configs': {'ml_collections', 'configs'},
  'dgsct_jax.cubic': LEAVES,
  'dgsct_jax.data': LEAVES
  | MEDIA
  | {'grain', 'tensorflow_datasets', 'h5py', 'absl', 'dgsct_jax.cubic', 'dgsct_jax.data'},
  'dgsct_jax.models.layers': NETS,
  'dgsct_jax.models.windows': NETS,
  'dgsct_jax.models.mel': NETS | {'dgsct_jax.models.layers'},
  'dgsct_jax.models.lazy': NETS,
  'dgsct_jax.models.kaldi': NETS,
  'dgsct_jax.models.dual': BASICS | {'dgsct_jax.models.adapters'},
  'dgsct_jax.models.lavish': BASICS | {'dgsct_jax.models.adapters'},
  'dgsct_jax.models.ma_avt': BASICS
  | {'dgsct_jax.models.adapters', 'dgsct_jax.models.swin_v2', 'dgsct_jax.models.vit'},
  'dgsct_jax.models.heads': BASICS | {'dgsct_jax.models'},
  'dgsct_jax.models.': BASICS,
  'dgsct_jax.models': NETS | {'ml_collections', 'dgsct_jax.models'},
  'dgsct_jax.tasks': NETS
  | {
    'optax',
    'ml_collections',
    'dgsct_jax.data',
    'dgsct_jax.models',
    'dgsct_jax.figures',
    'dgsct_jax.tasks',
  },
  'dgsct_jax.tree': TREES,
  'dgsct_jax.optim': TREES,
  'dgsct_jax.sharding': TREES,
  'dgsct_jax.writer': TREES | {'tensorboardX'},
  'dgsct_jax.checkpoint': TREES | {'orbax', 'grain', 'etils'},
  'dgsct_jax.state': TREES | {'safetensors', 'dgsct_jax.models.lazy'},
}
# Who alone may import something.
RESERVED = {
  'torch': {'dgsct_jax.convert.read'},
  'orbax': {'dgsct_jax.checkpoint'},
  'tensorflow': set(),
  'dgsct_jax.train': {'dgsct_jax.main'},
  'dgsct_jax.main': set(),
}


def name_of(path: Path) -> str:
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(path): path for folder in OURS for path in sorted((ROOT / folder).rglob('*.py'))}


def imports(nodes: list[ast.AST]) -> Iterator[str]:
  """Names of the modules that some statements import; of ours the module, not what is in it."""
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'a relative import'
      for alias in node.names:
        inner = f'{node.module}.{alias.name}'
        yield inner if inner in FILES else node.module


def covers(prefix: str, name: str) -> bool:
  return name == prefix or name.startswith(prefix.rstrip('.') + '.')


@pytest.mark.parametrize('name', FILES)
def test_a_module_imports_only_what_lies_below_it(name):
  tree = ast.parse(FILES[name].read_text())
  found = set(imports(list(ast.walk(tree))))
  found = {x for x in found if x.split('.')[0] not in sys.stdlib_module_names}
  allowed = next((ALLOWED[prefix] for prefix in ALLOWED if covers(prefix, name)), None)
  if allowed is not None:
    assert not {x for x in found if not any(covers(prefix, x) for prefix in allowed)}
  for module, users in RESERVED.items():
    assert name in users or not any(covers(module, x) for x in found), f'{name} imports {module}'


def test_no_module_needs_itself_to_be_imported():
  graph = {
    name: set(imports(ast.parse(path.read_text()).body)) & FILES.keys()
    for name, path in FILES.items()
  }
  try:
    TopologicalSorter(graph).prepare()
  except CycleError as error:
    pytest.fail(' needs '.join(error.args[1]))
