"""What XLA is told when it compiles a model."""

import jax
from jax.sharding import Mesh

Options = dict[str, str | bool]

CPU: Options = {
  # The default order of operations needs half as much memory again and is not faster.
  'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'
}
if jax.__version_info__ < (0, 12):
  # This pass removes the barriers of rematerialisation before the order is chosen; from jax 0.12 on
  # as much memory is saved with it (tests/models/test_dual.py).
  CPU['xla_disable_hlo_passes'] = 'cse_barrier_expander'


def options(mesh: Mesh) -> Options | None:
  """What it is told for programs on these devices, which need not be there (`dgsct_jax.plan`)."""
  return CPU if mesh.devices.flat[0].platform == 'cpu' else None
