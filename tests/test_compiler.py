import jax
import jax.numpy as jnp
import numpy as np

from dgsct_jax import compiler, sharding, trained
from dgsct_jax import state as states
from tests import toy


class Branches(toy.Model):
  """Wide layers side by side, of which one at a time need be held."""

  def __call__(self, batch, train=False):
    total = jnp.zeros(())
    for i in range(16):
      wide = jnp.sin((i * batch['wave'].mean(1)) @ jnp.ones((8, 10_000)))
      total += jnp.sum(wide @ jnp.ones((10_000, 8)))
    return {'logits': jnp.full((4, 3), total)}


def test_a_forward_pass_holds_no_more_than_it_must():
  mesh = sharding.make_mesh((-1, 1))
  forward = trained.compile_forward(toy.task(model=Branches()), mesh)
  given = (
    *states.Variables({}, {}, {}),
    {'wave': np.ones((4, 2, 8), np.float32), 'valid': np.ones(4, np.float32)},
  )

  def held(compiled):
    return compiled.memory_analysis().temp_size_in_bytes

  ours = forward.lower(*given).compile()
  as_it_is = jax.jit(forward.__wrapped__).lower(*given).compile()
  assert held(ours) < 0.5 * held(as_it_is)
  np.testing.assert_allclose(ours(*given)['logits'], as_it_is(*given)['logits'], rtol=1e-5)
  assert compiler.options(mesh) is compiler.CPU
