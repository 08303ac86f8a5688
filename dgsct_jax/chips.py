"""Data sheets of accelerators, and topologies by name."""

import math
import re
from typing import NamedTuple

TPU = 'https://docs.cloud.google.com/tpu/docs'
NVIDIA = 'https://www.nvidia.com/en-us/data-center'


class Chip(NamedTuple):
  """Peak numbers of one chip, as its maker states them.

  flops: bfloat16 operations a second.
  memory: bytes of HBM; GB is taken as 10^9 bytes, which is on the safe side.
  bandwidth: bytes a second between HBM and the chip.
  link: bytes a second to other chips over all links, sent and received together.
  devices: what jax calls a device and the compiler gives a program to; most chips are one.
  """

  flops: float
  memory: float
  bandwidth: float
  link: float
  source: str
  devices: int = 1


CHIPS = {
  'v5e': Chip(197e12, 16e9, 819e9, 400e9, f'{TPU}/v5e'),
  'v5p': Chip(459e12, 95e9, 2765e9, 1200e9, f'{TPU}/v5p'),
  'v6e': Chip(918e12, 32e9, 1638e9, 800e9, f'{TPU}/v6e'),
  'tpu7x': Chip(2307e12, 192e9, 7380e9, 1200e9, f'{TPU}/tpu7x', devices=2),
  'gpu:h100': Chip(989e12, 80e9, 3350e9, 900e9, f'{NVIDIA}/h100'),
  'gpu:h200': Chip(989e12, 141e9, 4800e9, 900e9, f'{NVIDIA}/h200'),
}


class Topology(NamedTuple):
  """Chips that are connected. name: as given; shape: how many in each direction."""

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def devices(self) -> int:
    """How many devices jax has there."""
    return math.prod(self.shape) * self.chip.devices

  @property
  def is_gpu(self) -> bool:
    """Whether these are GPUs, for which there is no compiler without one."""
    return self.name.startswith('gpu:')


def topology(name: str) -> Topology:
  """The topology v5e:4x4 or gpu:h100x8. Raises ValueError if the name is not understood."""
  known = '|'.join(map(re.escape, CHIPS))
  found = re.fullmatch(rf'({known})[:x]([1-9]\d*(?:x[1-9]\d*)*)', name)
  if not found:
    raise ValueError(
      f'--topology={name}: give CHIP:SHAPE as in v5e:4x4, v5p:2x2x1 or gpu:h100x8; the chips are'
      f' {", ".join(CHIPS)}.'
    )
  shape = tuple(int(size) for size in found[2].split('x'))
  return Topology(name, CHIPS[found[1]], shape)
