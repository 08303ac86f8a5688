"""The released AVE checkpoint: every name of it, there and back."""

import ast
import csv
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from dgsct_jax.convert import __main__ as convert
from dgsct_jax.convert import dgsct, htsat, read, release, table
from tests.parity import golden

KEYS = Path(__file__).with_name(
  'keys_ave.tsv'
)  # name, shape, type, kind: what `state_dict` of the release lists


def released():
  """A state dict of every released name.

  Each tensor has one value, so that the whole takes no memory.
  """
  state = {}
  for i, (name, shape, dtype, _) in enumerate(
    csv.reader(KEYS.read_text().splitlines(), delimiter='\t')
  ):
    state[name] = np.broadcast_to(
      np.dtype(dtype.removeprefix('torch.')).type(i), ast.literal_eval(shape)
    )
  return state


def small():
  """Random weights of a small AVE model, with the names that golden cases leave out."""
  case = min(
    (case for case in golden.cases() if case.kind == 'ave'), key=lambda case: len(case.shapes)
  )
  return case.weights() | {f'htsat.{name}': x for name, x in htsat.front_end().items()}


@pytest.fixture(scope='module')
def converted():
  plan = dgsct.plan_ave(released())
  return plan, table.convert(plan.state, plan.table, plan.targets)


@pytest.fixture(scope='module')
def plan():
  """How the small model converts; tests must not change its state dict."""
  return dgsct.plan_ave({f'module.{name}': x for name, x in small().items()})


def test_every_released_name_is_used_or_dropped_with_a_reason(converted):
  plan, ours = converted
  used = table.export(ours, plan.table)
  dropped = table.dropped(plan.table, plan.state)
  assert len(plan.state) == 2646 == len(used) + len(dropped) and not used.keys() & dropped.keys()
  assert len(ours) == len(used)


def test_the_model_goes_back_to_every_released_name_shape_and_type(converted):
  plan, ours = converted
  back = release.export_ave(ours)
  assert {name: (x.shape, x.dtype) for name, x in back.items()} == {
    name: (x.shape, x.dtype) for name, x in plan.state.items()
  }
  lines = '\n'.join(sorted(f'{name}\t{x.shape}' for name, x in back.items()))
  assert hashlib.sha256(lines.encode()).hexdigest().startswith('55b5e0c3d5687752cbd66efb519fcf6f')


def test_a_round_trip_changes_nothing_that_is_read(converted):
  plan, ours = converted
  back = release.export_ave(ours)
  dropped = table.dropped(plan.table, plan.state)
  assert all((x == plan.state[name]).all() for name, x in back.items() if name not in dropped)
  again = table.convert(back, plan.table, plan.targets)
  assert again.keys() == ours.keys() and all((again[name] == x).all() for name, x in ours.items())


def test_a_round_trip_of_random_weights_is_exact(plan):
  state = small()
  assert plan.state.keys() == state.keys()
  ours = table.convert(plan.state, plan.table, plan.targets)
  back = release.export_ave(ours, window=6, image_classes=3, sound_classes=2)
  dropped = table.dropped(plan.table, back)
  for name, x in back.items():
    assert name in dropped or np.array_equal(x, state[name]), name
  assert state.keys() - dropped.keys() <= back.keys()
  again = table.convert(back, plan.table, plan.targets)
  assert all(np.array_equal(again[name], x) for name, x in ours.items())


def test_batch_statistics_of_the_front_end_come_from_the_checkpoint(plan):
  state = plan.state
  ours = table.convert(plan.state, plan.table, plan.targets)
  np.testing.assert_array_equal(
    ours['batch_stats/encoder/audio/mel/bn0/mean'], state['htsat.bn0.running_mean']
  )


def test_a_missing_a_surplus_and_a_misshapen_tensor_are_told_together(plan):
  state = plan.state | {
    'vis_adapter_blocks_p2.3.gate': np.zeros(2, np.float32),
    'CMBS.extra.weight': np.zeros(3, np.float32),
  }
  del state['temporal_attn.a_fc.bias']
  with pytest.raises(ValueError) as error:
    table.convert(state, plan.table, plan.targets)
  assert all(
    part in str(error.value)
    for part in (
      '3 faults',
      'temporal_attn.a_fc.bias: missing',
      'vis_adapter_blocks_p2.3.gate: (2,)',
      'CMBS.extra.weight',
    )
  )


def test_backbones_alone_are_no_ave_checkpoint():
  with pytest.raises(
    ValueError, match='No released AVE checkpoint: audio_adapter_blocks_p1.0.my_tokens, CMBS'
  ):
    dgsct.plan_ave({'swin.patch_embed.proj.weight': np.zeros((2, 3, 4, 4), np.float32)})


def test_the_command_line_converts_and_exports_whole_files(tmp_path, capsys):
  torch = pytest.importorskip('torch')
  state = small()
  torch.save({name: torch.from_numpy(x) for name, x in state.items()}, tmp_path / 'released.pt')
  ours, back, again = (
    tmp_path / 'ours.safetensors',
    tmp_path / 'back.pt',
    tmp_path / 'again.safetensors',
  )
  assert convert.main(['dgsct-ave', str(tmp_path / 'released.pt'), str(ours)]) == 0
  assert 'never read' in capsys.readouterr().out
  header = read.metadata(ours)
  assert (
    header['source'] == 'dgsct-ave'
    and header['variant'] == 'ave'
    and header['table'] == table.VERSION
  )
  assert header['sha256'] == hashlib.sha256((tmp_path / 'released.pt').read_bytes()).hexdigest()

  assert (
    convert.main(
      ['--export', 'dgsct-ave', str(ours), str(back), '--original', str(tmp_path / 'released.pt')]
    )
    == 0
  )
  exported = torch.load(back, weights_only=True)
  assert all(torch.equal(exported[name], torch.from_numpy(x)) for name, x in state.items())
  assert convert.main(['dgsct-ave', str(back), str(again)]) == 0
  first, second = read.read(ours), read.read(again)
  assert first.keys() == second.keys() and all(
    np.array_equal(first[name], second[name]) for name in first
  )


@pytest.mark.parametrize(
  'spoil, told',
  [
    (lambda state: state.pop('norm.weight'), 'norm.weight: missing'),
    (
      lambda state: state.update({'norm.weight': np.full(16, np.nan, np.float32)}),
      'norm.weight: NaN',
    ),
    (
      lambda state: state.update({'more': np.zeros(1, np.float32)}),
      'more: (1,) in the file, neither used',
    ),
  ],
)
def test_nothing_is_written_where_anything_is_wrong(tmp_path, capsys, spoil, told):
  from tests.convert.test_swin_v2 import timm_0612

  state = timm_0612()
  spoil(state)
  read.write(tmp_path / 'in.safetensors', state, {})
  assert (
    convert.main(['swin_v2', str(tmp_path / 'in.safetensors'), str(tmp_path / 'out.safetensors')])
    == 1
  )
  printed = capsys.readouterr()
  assert told in printed.err and 'Traceback' not in printed.err and not printed.out
  assert [path.name for path in tmp_path.iterdir()] == ['in.safetensors']


@pytest.mark.parametrize(
  'make, told',
  [
    (
      lambda folder: folder / ('x' * 250 + '.safetensors'),
      'cannot be written (File name too long)',
    ),
    (
      lambda folder: folder / ('x' * 5000 + '.safetensors'),
      'cannot be written (File name too long)',
    ),
    (lambda folder: folder / 'folder.safetensors', 'is a folder'),
    (lambda folder: folder / 'file.txt' / 'x.safetensors', 'OUT is a file'),
    (lambda folder: Path('/proc/x.safetensors'), 'cannot be written'),
  ],
)
def test_places_where_nothing_can_be_written_are_told_first(tmp_path, capsys, make, told):
  (tmp_path / 'folder.safetensors').mkdir()
  (tmp_path / 'file.txt').touch()
  before = sorted(tmp_path.rglob('*'))
  assert convert.main(['swin_v2', 'nowhere.pt', str(make(tmp_path))]) == 1
  error = capsys.readouterr().err
  assert told in error and 'nowhere.pt' not in error
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
  'name', ['x' * 300 + '.pt', 'a\0.pt', '~nobody-here/x.pt', '/dev/null', '.']
)
def test_names_that_no_checkpoint_has_are_one_error(tmp_path, capsys, name):
  assert convert.main(['swin_v2', name, str(tmp_path / 'out.safetensors')]) == 1
  assert 'is not a file' in capsys.readouterr().err


def test_names_that_are_no_text_are_read_and_written(tmp_path, capsys):
  pytest.importorskip('torch')
  from tests.convert.test_swin_v2 import timm_0612

  given, out = (tmp_path / os.fsdecode(b'\xff' + name) for name in (b'.pt', b'.safetensors'))
  read.write(given, timm_0612(), {})
  assert convert.main(['swin_v2', str(given), str(out)]) == 0
  assert '\\udcff.pt' in capsys.readouterr().out and out.exists()


def refused(ours: table.State, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
  """What is said of an export that cannot be."""
  given, out = folder / 'ours.safetensors', folder / 'x.pt'
  read.write(given, ours, {})
  assert convert.main(['--export', 'dgsct-ave', str(given), str(out)]) == 1
  assert not out.exists()
  return capsys.readouterr().err


def test_an_export_of_less_than_a_model_lists_what_is_missing(tmp_path, capsys):
  error = refused({'params/encoder/visual/norm/scale': np.ones(4, np.float32)}, tmp_path, capsys)
  assert 'ours.safetensors' in error and 'swin.patch_embed.proj.weight' in error


def test_a_model_without_some_adapters_has_no_released_form(plan, tmp_path, capsys):
  ours = table.convert(plan.state, plan.table, plan.targets)
  late = {name: x for name, x in ours.items() if not re.search('/exchange_(attn|mlp)_0/', name)}
  error = refused(late, tmp_path, capsys)
  assert 'audio_adapter_blocks_p1.0' in error and 'has no released form' in error


def test_bad_arguments_are_told_before_anything_is_read(tmp_path, capsys):
  for out in (tmp_path / 'out.npz', tmp_path / 'no' / 'out.safetensors'):
    assert convert.main(['swin_v2', 'nowhere.pt', str(out)]) == 1
    assert 'OUT is a file' in capsys.readouterr().err
  assert convert.main(['--export', 'htsat', 'nowhere.pt', str(tmp_path / 'out.pt')]) == 1
  assert 'cannot be exported' in capsys.readouterr().err
