"""The engine: every name used or dropped, every target filled, all faults at once.

And the way back.
"""

import numpy as np
import pytest

from dgsct_jax.convert import table
from dgsct_jax.convert.table import DENSE, GROUPED, MATRIX, RAW, TOKEN_MAP, Drop, Leaf

TABLE = (
  ('layers.#.blocks.#.fc', 'stages_#/blocks_#/fc', DENSE),
  ('gate', 'gate', RAW),
  ('layers.#.mask', None, Drop('computed')),
  ('head', None, Drop('classifier')),
)
TARGETS = {
  'params/stages_0/blocks_1/fc/kernel': (2, 3),
  'params/stages_0/blocks_1/fc/bias': (3,),
  'params/gate': (1,),
}


def state():
  rng = np.random.default_rng(0)
  shapes = {
    'layers.0.blocks.1.fc.weight': (3, 2),
    'layers.0.blocks.1.fc.bias': (3,),
    'gate': (1,),
    'layers.0.mask': (4, 4),
    'head.weight': (5, 2),
    'head.extra.bias': (5,),
  }
  return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_every_tensor_finds_its_place():
  source = state()
  ours = table.convert(source, TABLE, TARGETS)
  assert {name: x.shape for name, x in ours.items()} == TARGETS
  np.testing.assert_array_equal(
    ours['params/stages_0/blocks_1/fc/kernel'], source['layers.0.blocks.1.fc.weight'].T
  )


def test_export_gives_back_every_used_tensor_exactly():
  source = state()
  back = table.export(table.convert(source, TABLE, TARGETS), TABLE)
  assert back.keys() == source.keys() - table.dropped(TABLE, source).keys()
  for name, x in back.items():
    np.testing.assert_array_equal(x, source[name])


def test_dropped_names_come_with_their_reason():
  assert table.dropped(TABLE, state()) == {
    'layers.0.mask': 'computed',
    'head.weight': 'classifier',
    'head.extra.bias': 'classifier',
  }


def test_all_faults_are_told_at_once_from_both_sides():
  source = state()
  del source['gate']
  source['layers.0.blocks.1.fc.bias'] = np.zeros(4, np.float32)
  source['layers.0.blocks.1.fc.weight'][0, 0] = np.nan
  source['surplus'] = np.zeros(7, np.float32)
  with pytest.raises(ValueError) as error:
    table.convert(source, TABLE, TARGETS | {'params/other': (1,)})
  told = str(error.value)
  for part in (
    '5 faults',
    'gate: missing in the file',
    'fc.bias: (4,) in the file, (3,) wanted',
    'fc.weight: NaN or infinite',
    'surplus: (7,) in the file, neither used nor dropped',
    'params/other: no row of the table fills it',
  ):
    assert part in told, part


@pytest.mark.parametrize(
  'wrong', [np.zeros(3, np.int64), np.zeros((), np.float32), np.zeros((3, 1), np.float32)]
)
def test_wrong_types_and_ranks_are_refused(wrong):
  with pytest.raises(ValueError, match='fc.bias'):
    table.convert(state() | {'layers.0.blocks.1.fc.bias': wrong}, TABLE, TARGETS)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e39, -3.5e38])
def test_values_that_float32_does_not_hold_are_refused(value):
  for name in ('layers.0.blocks.1.fc.bias', 'head.weight'):  # used; dropped
    source = state()
    source[name] = source[name].astype(np.float64)
    source[name].flat[1] = value
    with pytest.raises(ValueError, match=f'{name}: NaN or infinite values in float32'):
      table.convert(source, TABLE, TARGETS)


def test_messages_are_short_and_each_fault_is_one_line():
  source = state() | {f'a\nb{i}\udcff' + 'x' * 5000: np.zeros(1, np.float32) for i in range(100)}
  with pytest.raises(ValueError, match='100 faults') as error:
    table.convert(source, TABLE, TARGETS)
  told = str(error.value)
  assert len(told.splitlines()) == 62 and len(told) < 60 * 310 + 200
  assert told.isascii() and '... and 40 more' in told


@pytest.mark.parametrize(
  'names, depths',
  [
    (['layers.0.blocks.0.a', 'layers.0.blocks.1.a', 'layers.1.blocks.0.a'], (2, 1)),
    (['layers.0.blocks.2.a', 'layers.0.blocks.0.a'], (3,)),
    (['layers.0.blocks.5000.a', 'layers.0.blocks.0.a'], (1,)),
    (['layers.5000.blocks.0.a', 'layers.0.blocks.0.a'], (1,)),
    (['layers.5000.blocks.5000.a'], (1,)),
    ([f'layers.{i}.blocks.0.a' for i in range(99)], (1,) * 6),
    (['layers.1.blocks.0.a'], (1, 1)),
  ],
)
def test_depths_are_bound_by_what_the_file_holds(names, depths):
  assert table.depths(names) == depths


def test_a_file_without_blocks_says_so():
  with pytest.raises(ValueError, match='no blocks in it, layers.0.blocks.0'):
    table.depths(['layers.x.blocks.0.a'])


def test_wrappers_are_taken_off_only_from_all_names():
  a, b = np.zeros(1), np.ones(1)
  assert table.unwrap({'module._orig_mod.a': a, 'module._orig_mod.b': b}) == {'a': a, 'b': b}
  assert table.unwrap({'module.a': a, 'b': b}) == {'module.a': a, 'b': b}
  assert table.unwrap({}) == {}


def test_a_drop_covers_whole_names_only():
  with pytest.raises(ValueError, match='headline.weight'):
    table.convert(state() | {'headline.weight': np.zeros(1, np.float32)}, TABLE, TARGETS)


def test_parts_are_stacked_and_split_again():
  rows = (('attn', 'attn', (Leaf(('.q.weight', '.k.weight'), '/kernel', MATRIX),)),)
  source = {
    'attn.q.weight': np.ones((2, 3), np.float32),
    'attn.k.weight': np.zeros((2, 3), np.float32),
  }
  ours = table.convert(source, rows, {'params/attn/kernel': (3, 4)})
  np.testing.assert_array_equal(ours['params/attn/kernel'], [[1, 1, 0, 0]] * 3)
  back = table.export(ours, rows)
  assert all((back[name] == x).all() and back[name].shape == x.shape for name, x in source.items())


def test_kernels_do_what_torch_convolutions_do():
  torch = pytest.importorskip('torch')
  x = torch.randn(2, 6, 5, 1)  # [b c n 1]
  grouped, tokens = torch.nn.Conv2d(6, 4, 1, groups=2, bias=False), torch.nn.Conv2d(5, 3, 1)
  rows = (('down', 'down', GROUPED), ('map', 'map', TOKEN_MAP))
  source = {
    'down.weight': grouped.weight.detach().numpy(),
    'map.weight': tokens.weight.detach().numpy(),
    'map.bias': tokens.bias.detach().numpy(),
  }
  shapes = {'params/down/kernel': (2, 3, 2), 'params/map/kernel': (5, 3), 'params/map/bias': (3,)}
  ours = table.convert(source, rows, shapes)
  y = x[..., 0].mT.numpy()  # [b n c]
  down = np.einsum('bngi,gio->bngo', y.reshape(2, 5, 2, 3), ours['params/down/kernel']).reshape(
    2, 5, 4
  )
  np.testing.assert_allclose(down, grouped(x)[..., 0].mT.detach().numpy(), atol=1e-6)
  mapped = np.einsum('bnc,nm->bmc', y, ours['params/map/kernel']) + ours['params/map/bias'][:, None]
  np.testing.assert_allclose(mapped, tokens(x.transpose(1, 2))[..., 0].detach().numpy(), atol=1e-6)
  back = table.export(ours, rows)
  assert all((back[name] == x).all() and back[name].shape == x.shape for name, x in source.items())
