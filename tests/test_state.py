"""The state is made once, from files and a seed; what does not fit is said all at once."""

import hashlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dgsct_jax import optim, sharding, tree, weights
from dgsct_jax import state as states
from tests import toy

CLIP = toy.DropStrings().map(toy.Clips('train', 3)[0])
BATCH = {name: np.stack([value] * 4) for name, value in CLIP.items()}
MODEL = toy.Model(4)
SPLIT = jax.sharding.AbstractMesh((2, 4), ('data', 'fsdp'))


def layout(model=MODEL, mesh=None, **changes):
  mesh = mesh or sharding.make_mesh((-1, 1))
  return states.layout(model, toy.INPUTS.spec, toy.config(**changes), mesh)


def variables(model=MODEL, **changes):
  return states.fill(layout(model, **changes))


def leaves(found):
  """All variables by path, as the model has them."""
  return {
    path: np.asarray(leaf)
    for path, leaf in tree.flatten(
      {'params': tree.merge(found.params, found.frozen), 'batch_stats': found.batch_stats}
    ).items()
  }


def expected():
  key = jax.random.key(43)
  return {
    path: np.asarray(leaf)
    for path, leaf in tree.flatten(MODEL.init(key, jax.tree.map(jnp.asarray, BATCH), False)).items()
  }


def write(path, tensors, **header):
  tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
  save_file(tensors, path, header or None)
  return str(path)


def part(prefix, scale=2.0):
  """The tensors of one backbone as a file has them."""
  return {
    path.replace(f'{prefix}/', '', 1): scale * value + 1
    for path, value in expected().items()
    if f'/{prefix}/' in path
  }


def test_random_weights_are_those_of_the_seed():
  found = leaves(variables())
  assert found.keys() == expected().keys()
  for path, value in expected().items():
    np.testing.assert_array_equal(found[path], value, err_msg=path)
  other = leaves(variables(seed=44))
  assert (other['params/head/kernel'] != found['params/head/kernel']).any()


def test_files_replace_what_they_name_and_nothing_else(tmp_path):
  files = {
    f'init.{name}': write(tmp_path / f'{name}.safetensors', part(f'encoder/{name}'))
    for name in ('visual', 'audio')
  }
  made = layout(**files)
  found = leaves(states.fill(made))
  for path, value in expected().items():
    from_file = '/encoder/visual/' in path or '/encoder/audio/' in path
    np.testing.assert_array_equal(found[path], 2 * value + 1 if from_file else value, err_msg=path)
  for name, path in files.items():
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert made.weights[name.removeprefix('init.')] == f'sha256 {digest}'


def test_one_file_may_hold_everything(tmp_path):
  everything = {path: value + 3 for path, value in expected().items()}
  file = write(tmp_path / 'all.safetensors', everything)
  found = leaves(variables(**{'init.visual': '', 'init.audio': '', 'init.all': file}))
  for path, value in everything.items():
    np.testing.assert_array_equal(found[path], value)


def test_packaged_weights_go_by_name(tmp_path, monkeypatch):
  monkeypatch.setattr(weights, 'PACKAGED', tmp_path)
  write(tmp_path / 'tiny.safetensors', part('encoder/visual'))
  found = leaves(variables(**{'init.visual': 'package:tiny.safetensors'}))
  path = 'params/encoder/visual/stem/kernel'
  np.testing.assert_array_equal(found[path], 2 * expected()[path] + 1)


def test_all_faults_of_all_files_are_named_at_once(tmp_path):
  visual, audio = part('encoder/visual'), part('encoder/audio')
  del visual['params/stem/kernel']
  visual['params/stem/extra'] = np.zeros(2)
  audio['batch_stats/bn0/mean'] = np.zeros(5)
  visual = write(tmp_path / 'v.safetensors', visual, variant='base')
  audio = write(tmp_path / 'a.safetensors', audio)
  with pytest.raises(ValueError) as error:
    variables(**{'init.visual': visual, 'init.audio': audio, 'model.visual': {'variant': 'large'}})
  for fault in (
    'v.safetensors: it holds the variant base, the config asks for large',
    'v.safetensors: missing params/encoder/visual/stem/kernel (8, 4)',
    'v.safetensors: surplus params/encoder/visual/stem/extra (2,)',
    'a.safetensors: batch_stats/encoder/audio/bn0/mean is (5,), the model has (4,)',
    'python -m dgsct_jax.convert',
  ):
    assert fault in str(error.value)


@pytest.mark.parametrize(
  'given, message',
  [
    (
      '',
      r'config.init.visual is not given: the 52 values of encoder/visual come from .*'
      r'python -m dgsct_jax.convert .* --config.init.visual=random',
    ),
    (
      'gone.safetensors',
      r'config.init.visual=gone.safetensors: gone.safetensors is not a file.*\n.*convert',
    ),
    ('package:gone.safetensors', r'weights/gone.safetensors is not a file;'),
    (__file__, r'test_state.py is no checkpoint by its name.*\nOr make it with'),
  ],
)
def test_weights_are_never_random_unless_asked_by_name(given, message):
  with pytest.raises(ValueError, match=message):
    variables(**{'init.visual': given})


def test_frozen_kernels_may_be_stored_in_half_and_nothing_else_is():
  found = variables(frozen_dtype='bfloat16')
  dtypes = {path: leaf.dtype for path, leaf in tree.flatten(found.frozen).items()}
  assert {path for path, dtype in dtypes.items() if dtype == jnp.bfloat16} == {
    'encoder/visual/stem/kernel',
    'encoder/audio/stem/kernel',
  }
  others = jax.tree.leaves((found.params, found.batch_stats))
  assert all(leaf.dtype == jnp.float32 for leaf in others)


def test_the_optimiser_holds_the_trainable_half_only():
  found = variables()
  mesh = sharding.make_mesh((-1, 1))
  state = states.create(found, optim.build(toy.config().optim, 5)[0], 43, mesh)
  moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
  assert sum(leaf.size for leaf in moments) == 2 * tree.count(state.params)
  frozen = tree.flatten(found.frozen).keys()
  assert frozen and not frozen & tree.flatten(state.params).keys()


def test_keys_are_a_function_of_seed_and_step():
  rng = lambda seed: jax.random.key_data(jax.random.key(seed))
  bits = lambda seed, step: jax.tree.map(
    lambda key: str(jax.random.key_data(key)), states.step_keys(rng(seed), jnp.int32(step))
  )
  assert bits(43, 7) == bits(43, 7)
  drawn = [key for at in ((43, 7), (43, 8), (44, 7)) for key in bits(*at).values()]
  assert len(set(drawn)) == 12


def test_a_model_without_an_audio_backbone_needs_no_audio_weights():
  class Visual(nn.Module):
    @nn.compact
    def __call__(self, batch, train=False):
      return {'logits': toy.Backbone(4, name='encoder')(batch['features'], train)}

  config = dict(trainable=('.*',), **{'init.audio': '', 'init.visual': ''})
  assert layout(Visual(), **config).weights == {}


def shapes(found):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), found)


def test_the_layout_tells_shape_type_and_place_of_every_variable_before_there_are_any():
  made = layout(frozen_dtype='bfloat16')
  assert shapes(states.abstract(made)) == shapes(states.fill(made))
  assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(states.abstract(made)))
  assert made.trainable == {f'params/{path}' for path in tree.flatten(states.abstract(made).params)}


def test_the_abstract_state_is_the_shape_of_the_one_that_training_starts_from():
  made, mesh = layout(), sharding.make_mesh((-1, 1))
  tx = optim.build(toy.config().optim, 5)[0]
  state = states.create(states.fill(made), tx, 43, mesh)
  assert shapes(states.abstract_state(states.abstract(made), tx, mesh)) == shapes(state)


def test_what_a_checkpoint_holds_is_neither_read_nor_drawn(tmp_path, monkeypatch):
  file = write(tmp_path / 'visual.safetensors', part('encoder/visual'))
  made = layout(**{'init.visual': file})
  drawn, init = [], states.lazy.init

  def spy(*args, keep, **kwargs):
    drawn.extend(path for path in made.leaves if keep(path))
    return init(*args, keep=keep, **kwargs)

  monkeypatch.setattr(states.lazy, 'init', spy)
  found = states.fill(made, frozen_only=True)
  assert found.params == {} and found.batch_stats == {}
  assert sorted(drawn) == ['params/encoder/audio/bn0/bias', 'params/encoder/audio/bn0/scale'] + [
    f'params/encoder/audio/stem/{name}' for name in ('bias', 'kernel')
  ]
  whole = tree.flatten(states.fill(made).frozen)
  assert tree.flatten(found.frozen).keys() == whole.keys()
  for path, leaf in tree.flatten(found.frozen).items():
    np.testing.assert_array_equal(leaf, whole[path])


def test_large_leaves_that_the_mesh_cannot_split_are_named():
  assert layout(toy.Model(1041), SPLIT).whole == [
    f'params/encoder/exchange_{i}/kernel' for i in (0, 1)
  ]
  assert layout(toy.Model(1040), SPLIT).whole == []  # four devices divide it
  assert layout(toy.Model(1041)).whole == []  # nothing is to be split


def test_a_file_for_a_part_that_the_config_does_not_name_is_refused():
  config = toy.config()
  config.init.ground = 'random'
  with pytest.raises(
    ValueError, match='config.init names ground; config.parts has audio, visual, all'
  ):
    states.layout(MODEL, toy.INPUTS.spec, config, sharding.make_mesh((-1, 1)))
