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
BASICS = NETS | {
  f'dgsct_jax.models.{name}'
  for name in (
    'conv',
    'drop',
    'layers',
    'windows',
    'mel',
    'products',
    'pure',
    'remat',
    'resize',
    'transformer',
    'variants',
  )
}
TREES = LEAVES | {'jax', 'flax', 'optax', 'ml_collections', 'dgsct_jax.tree', 'dgsct_jax.sharding'}
DATA = (
  LEAVES
  | MEDIA
  | {'grain', 'tensorflow_datasets', 'h5py', 'absl'}
  | {'dgsct_jax.data', 'dgsct_jax.lock', 'dgsct_jax.whole'}
)
TASKS = NETS | {'optax', 'ml_collections', 'grain', 'dgsct_jax.data', 'dgsct_jax.models'}
TASK = {'dgsct_jax.tasks.task', 'dgsct_jax.tracks'}
# What runs a task, whichever it is: the types and the registry, but none of the tasks.
RUNS = TREES | {
  'dgsct_jax.checkpoint',
  'dgsct_jax.compiler',
  'dgsct_jax.published',
  'dgsct_jax.settings',
  'dgsct_jax.state',
  'dgsct_jax.tasks.registry',
  'dgsct_jax.tasks.task',
  'dgsct_jax.trained',
  'dgsct_jax.whole',
  'dgsct_jax.writer',
}
DRAWING = LEAVES | {'PIL', 'matplotlib', 'dgsct_jax.figures', 'dgsct_jax.tracks'}
ALLOWED = {
  'configs': {'ml_collections', 'configs'},
  'dgsct_jax.cubic': LEAVES,
  'dgsct_jax.lock': set(),
  'dgsct_jax.whole': set(),
  # A command that runs models; no other module imports it.
  'dgsct_jax.data.pseudo': RUNS | DATA | {'dgsct_jax.evaluate'},
  'dgsct_jax.data.pseudo_labels': DATA,
  'dgsct_jax.data.inspect': DATA
  | {'dgsct_jax.figures', 'dgsct_jax.page', 'dgsct_jax.tracks'},  # a command, not for workers
  'dgsct_jax.data.transforms': DATA | {'cv2'},
  'dgsct_jax.data.datasets': DATA | {'dgsct_jax.scenes.dataset'},
  'dgsct_jax.data.records': DATA | {'apache_beam'},
  'dgsct_jax.data': DATA,
  'dgsct_jax.tokenizers': LEAVES | {'tokenizers', 'dgsct_jax.tokenizers'},
  'dgsct_jax.scenes.unimodal': TASKS | TASK | {'dgsct_jax.scenes.dataset'},
  'dgsct_jax.scenes': DATA | {'dgsct_jax.scenes'},
  'dgsct_jax.tracks': LEAVES,
  'dgsct_jax.models.cached': BASICS | {'dgsct_jax.models.adapters', 'dgsct_jax.models.dual'},
  'dgsct_jax.models.drop': NETS,
  'dgsct_jax.models.remat': NETS,
  'dgsct_jax.models.products': NETS | {'dgsct_jax.models.remat'},
  'dgsct_jax.models.layers': NETS | {'dgsct_jax.models.products'},
  'dgsct_jax.models.conv': NETS | {'dgsct_jax.models.layers'},
  'dgsct_jax.models.windows': NETS,
  'dgsct_jax.models.mel': NETS | {'dgsct_jax.models.layers'},
  'dgsct_jax.models.transformer': NETS
  | {'dgsct_jax.models.drop', 'dgsct_jax.models.layers', 'dgsct_jax.models.products'},
  'dgsct_jax.models.clip': BASICS | {'dgsct_jax.models.maple'},
  'dgsct_jax.models.clap': BASICS | {'dgsct_jax.models.htsat'},
  'dgsct_jax.models.lazy': NETS,
  'dgsct_jax.models.pure': NETS,
  'dgsct_jax.models.repeat': BASICS,
  'dgsct_jax.models.kaldi': NETS | {'dgsct_jax.models.variants'},
  'dgsct_jax.models.variants': LEAVES,
  'dgsct_jax.models.dual': BASICS | {'dgsct_jax.models.adapters', 'dgsct_jax.models.repeat'},
  'dgsct_jax.models.adapters': BASICS | {'dgsct_jax.models.guides'},
  'dgsct_jax.models.lavish': BASICS | {'dgsct_jax.models.adapters', 'dgsct_jax.models.guides'},
  'dgsct_jax.models.side': BASICS
  | {'dgsct_jax.models.adapters', 'dgsct_jax.models.dual', 'dgsct_jax.models.guides'},
  'dgsct_jax.models.ma_avt': BASICS
  | {'dgsct_jax.models.adapters', 'dgsct_jax.models.swin_v2', 'dgsct_jax.models.vit'},
  'dgsct_jax.models.heads': BASICS | {'dgsct_jax.models'},
  'dgsct_jax.models.': BASICS,
  'dgsct_jax.models': NETS | {'ml_collections', 'dgsct_jax.models'},
  'dgsct_jax.tasks.registry': {
    'ml_collections',
    'dgsct_jax.settings',
    'dgsct_jax.tasks',
    'dgsct_jax.scenes.unimodal',
  },
  'dgsct_jax.settings': {'ml_collections', 'flax'},
  'dgsct_jax.tasks.task': TASKS | {'dgsct_jax.tracks'},
  'dgsct_jax.tasks.prompts': {'numpy', 'dgsct_jax.hub', 'dgsct_jax.models', 'dgsct_jax.tokenizers'},
  'dgsct_jax.tasks.matching': TASKS
  | TASK
  | {'dgsct_jax.tasks.inputs', 'dgsct_jax.tasks.prompts', 'dgsct_jax.tasks.views'},
  'dgsct_jax.tasks.tags': TASKS
  | TASK
  | {'dgsct_jax.hub', 'dgsct_jax.tasks.inputs', 'dgsct_jax.tasks.views'},
  'dgsct_jax.tasks': TASKS | TASK | {'dgsct_jax.tasks.inputs', 'dgsct_jax.tasks.views'},
  'dgsct_jax.tree': TREES,
  'dgsct_jax.optim': TREES,
  'dgsct_jax.sharding': TREES,
  'dgsct_jax.writer': TREES | {'tensorboardX', 'dgsct_jax.whole'},
  'dgsct_jax.checkpoint': TREES | {'orbax', 'dgsct_jax.whole'},
  'dgsct_jax.hub': {'huggingface_hub'},
  'dgsct_jax.compiled': {'jax', 'dgsct_jax.hub'},
  'dgsct_jax.compiler': {'jax'},
  'dgsct_jax.coordinator': {'jax', 'jaxlib'},
  'dgsct_jax.hosts': {'jax', 'dgsct_jax.coordinator'},
  'dgsct_jax.published': {'dgsct_jax.hub', 'dgsct_jax.whole'},
  'dgsct_jax.weights': {'safetensors', 'dgsct_jax.convert', 'dgsct_jax.hub'},
  'dgsct_jax.state': TREES | {'safetensors', 'dgsct_jax.models.lazy', 'dgsct_jax.weights'},
  'dgsct_jax.figures': DRAWING | {'dgsct_jax.models.mel'},
  'dgsct_jax.film': DRAWING | {'av', 'dgsct_jax.data'},
  'dgsct_jax.page': LEAVES | {'matplotlib'},
  'dgsct_jax.report': DRAWING | {'dgsct_jax.page', 'dgsct_jax.writer', 'dgsct_jax.features'},
  'dgsct_jax.features': RUNS
  | DRAWING
  | {'sklearn', 'dgsct_jax.data.datasets', 'dgsct_jax.evaluate', 'dgsct_jax.models'},
  'dgsct_jax.kept': {
    'numpy',
    'dgsct_jax.convert',
    'dgsct_jax.hosts',
    'dgsct_jax.hub',
    'dgsct_jax.tree',
  },
  'dgsct_jax.trained': RUNS | {'dgsct_jax.kept'},
  'dgsct_jax.seconds': TASK,
  'dgsct_jax.evaluate': RUNS | {'dgsct_jax.data', 'dgsct_jax.figures', 'dgsct_jax.report'},
  'dgsct_jax.cached': RUNS
  | {'grain', 'tensorflow_datasets', 'dgsct_jax.data'}
  | {f'dgsct_jax.models.{name}' for name in ('adapters', 'cached', 'dual')},
  'dgsct_jax.train': RUNS
  | {'dgsct_jax.data', 'dgsct_jax.evaluate', 'dgsct_jax.lock', 'dgsct_jax.optim'}
  | {'dgsct_jax.cached', 'dgsct_jax.compiled', 'dgsct_jax.hosts', 'dgsct_jax.report'},
  'dgsct_jax.predict': RUNS
  | {
    'av',
    'PIL',
    'tqdm',
    'dgsct_jax.data',
    'dgsct_jax.figures',
    'dgsct_jax.film',
    'dgsct_jax.tracks',
  }
  | {'dgsct_jax.seconds'},
  'dgsct_jax.served': RUNS
  | {'dgsct_jax.data', 'dgsct_jax.predict', 'dgsct_jax.published', 'dgsct_jax.seconds'}
  | {'dgsct_jax.tracks'},
  'dgsct_jax.serve': {'av', 'gradio', 'dgsct_jax.served'},
  'dgsct_jax.command_line': {'absl', 'ml_collections', 'dgsct_jax.settings', 'dgsct_jax.trained'},
  'dgsct_jax.main': {'absl', 'ml_collections'}
  | {'dgsct_jax.command_line', 'dgsct_jax.train', 'dgsct_jax.evaluate'}
  | {'dgsct_jax.compiled', 'dgsct_jax.hosts', 'dgsct_jax.settings'},
  'dgsct_jax.chips': set(),
  'dgsct_jax.hlo': {'numpy'},
  'dgsct_jax.profile': {'jax', 'matplotlib', 'dgsct_jax.hlo', 'dgsct_jax.writer'},
  'dgsct_jax.plan': RUNS
  | {'absl', 'dgsct_jax.chips', 'dgsct_jax.command_line', 'dgsct_jax.hlo', 'dgsct_jax.optim'}
  | {'dgsct_jax.train'},
}
# Who alone may import something.
RESERVED = {
  'torch': {'dgsct_jax.convert.read'},
  'orbax': {'dgsct_jax.checkpoint'},
  'tensorflow': set(),
  'dgsct_jax.train': {'dgsct_jax.main', 'dgsct_jax.plan'},
  'dgsct_jax.main': set(),
  'dgsct_jax.data.pseudo': set(),
}
# Packages of which only registries know: what else is to know of them goes by a name in a config.
BEHIND_REGISTRIES = {'dgsct_jax.scenes': {'dgsct_jax.data.datasets', 'dgsct_jax.tasks.registry'}}


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


@pytest.mark.parametrize('package', BEHIND_REGISTRIES)
def test_a_package_behind_registries_is_imported_by_them_alone(package):
  users = {
    name
    for name, path in FILES.items()
    if any(covers(package, x) for x in imports(list(ast.walk(ast.parse(path.read_text())))))
  }
  assert {name for name in users if not covers(package, name)} == BEHIND_REGISTRIES[package]


def test_no_module_needs_itself_to_be_imported():
  graph = {
    name: set(imports(ast.parse(path.read_text()).body)) & FILES.keys()
    for name, path in FILES.items()
  }
  try:
    TopologicalSorter(graph).prepare()
  except CycleError as error:
    pytest.fail(' needs '.join(error.args[1]))
