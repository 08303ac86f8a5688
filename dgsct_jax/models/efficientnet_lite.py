"""EfficientNet-Lite0, a small convolutional image classifier, as a backbone.

Tan and Le, 2019, without squeeze-and-excitation and with ReLU6, as TensorFlow published it. Trained
on ImageNet-1k.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from dgsct_jax.models.conv import ConvNorm, GridBlock, on_grid, relu6
from dgsct_jax.models.layers import Dense, Stage, run_stages
from dgsct_jax.models.remat import Remat

# (size of the filter, stride, expansion, width) of each block.
LITE0 = (
  (3, 1, 1, 16),
  *((3, stride, 6, 24) for stride in (2, 1)),
  *((5, stride, 6, 40) for stride in (2, 1)),
  *((3, stride, 6, 80) for stride in (2, 1, 1)),
  *((5, 1, 6, 112) for _ in range(3)),
  *((5, stride, 6, 192) for stride in (2, 1, 1, 1)),
  (3, 1, 6, 320),
)
# Blocks of each stage. The first block of all belongs to the stem and the last one to the head:
# with other widths than their neighbours they are no place for an exchange.
DEPTHS = (2, 2, 6, 4)
PIXELS = (127 / 255,) * 3, (128 / 255,) * 3


class Block(GridBlock):
  """An inverted bottleneck: expand, filter each channel, project; a residual where shapes agree."""

  inputs: int  # width
  size: int
  stride: int
  expansion: int
  width: int
  dtype: Any = jnp.float32

  def setup(self) -> None:
    """Makes the layers."""
    inner = self.inputs * self.expansion
    if self.expansion > 1:
      self.expand = ConvNorm(inner, 1, dtype=self.dtype)
    self.depthwise = ConvNorm(inner, self.size, self.stride, True, dtype=self.dtype)
    self.project = ConvNorm(self.width, 1, dtype=self.dtype)

  def run(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b H W d']:
    """The block on a grid."""
    y = relu6(self.expand(x)) if self.expansion > 1 else x
    y = self.project(relu6(self.depthwise(y)))
    return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
  """Pictures -> tokens of the last grid, 7×7 with 1280 channels for 224 pixels.

  pixels: mean and standard deviation of the normalisation of pictures. classes: of `classify`.
  """

  image: int = 224
  classes: int = 1000
  pixels: tuple[tuple[float, ...], tuple[float, ...]] = PIXELS
  dtype: Any = jnp.float32

  depths = DEPTHS

  def setup(self) -> None:
    """Makes the layers. Raises ValueError for pictures that 32 does not divide."""
    if self.image % 32:
      raise ValueError(f'Pictures of {self.image} pixels do not divide by 32; choose a multiple.')
    widths = (32, *(width for *_, width in LITE0))
    strides = np.cumprod([2, *(stride for _, stride, _, _ in LITE0)])
    block = lambda i: Block(self.image // int(strides[i]), widths[i], *LITE0[i], self.dtype)
    starts = 1 + np.cumsum((0, *DEPTHS))
    stage = lambda start, depth: Stage(depth, lambda j: block(int(start) + j))
    self.entry = ConvNorm(32, 3, 2, dtype=self.dtype)
    self.first, self.last = block(0), block(len(LITE0) - 1)
    self.stages = [stage(*of) for of in zip(starts, DEPTHS)]
    self.head = ConvNorm(1280, 1, dtype=self.dtype)
    self.classifier = Dense(self.classes, dtype=self.dtype)

  def stem(self, x: Float[Array, 'b height width 3'], train: bool = False) -> Float[Array, 'b n d']:
    """Tokens of pictures that are normalised by `pixels`."""
    return self.first(rearrange(relu6(self.entry(x)), 'b h w c -> b (h w) c'), train)

  def body(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b m e']:
    """All stages, from the stem's tokens to the last ones."""
    return run_stages(self.stages, x, train)

  def norm(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n e']:
    """What comes after the stages: the last block and the head."""
    head = lambda grid: relu6(self.head(grid))
    return on_grid(head, self.last(x, False), self.image // 32)

  def __call__(
    self, x: Float[Array, 'b height width 3'], train: bool = False
  ) -> Float[Array, 'b n d']:
    """Tokens of the head."""
    return self.norm(self.body(self.stem(x, train), train))

  def classify(self, tokens: Float[Array, 'b n d']) -> Float[Array, 'b c']:
    """Logits of the classes of ImageNet, of which a picture has one."""
    return self.classifier(tokens.mean(1))

  @nn.nowrap
  def place(self, weights: Float[np.ndarray, 't n']) -> Float[np.ndarray, 't y x']:
    """Weights of tokens where these lie in the picture."""
    return rearrange(weights, 't (y x) -> t y x', y=self.image // 32)


def build(
  variant: str = 'lite0', remat: Remat = None, drop_path: float = 0.0, **fields: Any
) -> EfficientNetLite:
  """The network of that name; it is small, so that `remat` is not needed, and has no drop-path.

  Raises:
    ValueError: there is no such network.
  """
  if variant != 'lite0':
    raise ValueError(f"Unknown EfficientNet {variant!r}; there is 'lite0'.")
  del remat, drop_path
  return EfficientNetLite(**fields)
