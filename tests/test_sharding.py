"""Where arrays lie, decided from shapes; and what does not fit is said at the start."""

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dgsct_jax import sharding
from tests import processes


def test_the_default_mesh_takes_all_devices_for_data():
  mesh = sharding.make_mesh((-1, 1))
  assert dict(mesh.shape) == {'data': jax.device_count(), 'fsdp': 1}


@pytest.mark.parametrize('shape', [(3, 1), (0, -1), (-1,), (-1, 7), (-2, 1)])
def test_a_mesh_that_the_devices_do_not_fill_is_an_error(shape):
  with pytest.raises(ValueError, match=r'config.mesh=.* does not hold the 1 devices'):
    sharding.make_mesh(shape)


def test_a_batch_that_the_devices_do_not_divide_is_an_error():
  mesh = jax.sharding.AbstractMesh((4, 2), ('data', 'fsdp'))
  sharding.check_batch(16, mesh)
  with pytest.raises(ValueError, match='12 clips do not divide over 8 devices; set config.data.b'):
    sharding.check_batch(12, mesh)


def test_large_leaves_are_split_along_their_largest_dimension_that_fits():
  mesh = jax.sharding.AbstractMesh((2, 4), ('data', 'fsdp'))
  spec = lambda *shape: sharding.of_leaf(jax.ShapeDtypeStruct(shape, jnp.float32), mesh).spec
  assert spec(4096, 2304) == P('fsdp')
  assert spec(1000, 4096) == P(None, 'fsdp')
  assert spec(1025, 2050, 4) == P(None, None, 'fsdp')  # 1025 and 2050 do not divide by 4
  assert spec(1025, 2051) == P()
  assert spec(1024, 1024) == P()  # 4 MB, not over
  assert spec() == P()


def test_a_host_batch_comes_back_from_the_devices():
  mesh = sharding.make_mesh((-1, 1))
  batch = {
    'wave': np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
    'index': np.arange(4),
  }
  arrays = sharding.global_batch(batch, mesh)
  for name in batch:
    np.testing.assert_array_equal(sharding.local(arrays[name]), batch[name])


def test_a_step_on_eight_devices_gives_the_parameters_and_statistics_of_one():
  narrow, wide = ('tests.toy:build', 'adam'), ('tests.toy:build_wide', 'sgd')
  jobs = [(*narrow, 1, (-1, 1)), (*narrow, 8, (-1, 1)), (*wide, 1, (-1, 1)), (*wide, 8, (2, 4))]
  run = lambda job: processes.one_step(job[0], rule=job[1], devices=job[2], mesh=job[3])
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    one, eight, whole, split = pool.map(run, jobs)
  for expected, found in ((one, eight), (whole, split)):
    assert expected.keys() == found.keys()
    assert {name.split('/')[0] for name in found} == {'params', 'batch_stats'}
    for name in expected:
      np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_step_of_ave_on_eight_devices_gives_the_parameters_and_statistics_of_one():
  one, eight = (processes.one_step('tests.tiny:ave', rule='sgd', devices=n) for n in (1, 8))
  assert one.keys() == eight.keys() and len(one) > 300
  for name in one:
    np.testing.assert_allclose(eight[name], one[name], atol=1e-5, err_msg=name)


# Of every other task one config; MA-AVT's contrast is over the batch of all devices.
TASKS = ('avqa', 'avqa_grounding', 'avvp', 'avs_s4', 'few_shot', 'ma_avt')


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_a_step_on_eight_devices_gives_what_one_gives_in_every_task(name):
  one, eight = (
    processes.one_step('tests.tiny:noise', rule='sgd', devices=n, config_name=name, mesh=mesh)
    for n, mesh in ((1, (1, 1)), (8, (8, 1)))
  )
  assert one.keys() == eight.keys()
  for path in one:
    # Small values beside large ones are what is left of sums whose terms are as large as those.
    atol = max(2e-5, 5e-6 * np.abs(one[path]).max())
    np.testing.assert_allclose(eight[path], one[path], rtol=1e-4, atol=atol, err_msg=path)
