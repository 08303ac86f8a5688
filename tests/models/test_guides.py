"""Guides: what latents ask and read of them is what they ask and read of tokens laid out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from dgsct_jax.cubic import cubic_matrix
from dgsct_jax.models import guides
from tests.models import filled

B, Q, N, M, D, E = 2, 5, 9, 4, 8, 12


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


TOKENS, QUERY = normal(B, M, E), normal(B, Q, D, seed=1)
TOKEN_MAP, TOKEN_BIAS = normal(M, N, seed=2), normal(N, seed=3)
CHANNEL_MAP, CHANNEL_BIAS = normal(E, D, seed=4), normal(D, seed=5)


MAPS = TOKEN_MAP, TOKEN_BIAS, CHANNEL_MAP, CHANNEL_BIAS


def through_both(tokens, token_map, token_bias, channel_map, channel_bias) -> guides.Guide:
  guide = guides.MappedTokens(guides.Tokens(tokens), token_map, token_bias)
  return guides.MappedChannels(guide, channel_map, channel_bias)


def laid_out(guide: guides.Guide, n: int) -> np.ndarray:
  """The n tokens of a guide, each read by itself."""
  return np.asarray(guide.read(jnp.broadcast_to(jnp.eye(n), (B, n, n))))


SIDE = cubic_matrix(2, 3)  # of grids of M and N tokens
GUIDES = {
  'tokens': (guides.Tokens(TOKENS), TOKENS),
  'other tokens': (
    guides.MappedTokens(guides.Tokens(TOKENS), TOKEN_MAP, TOKEN_BIAS),
    TOKEN_MAP.T @ TOKENS + TOKEN_BIAS[:, None],
  ),
  'resized': (guides.resized(guides.Tokens(TOKENS), M, N), np.kron(SIDE, SIDE) @ TOKENS),
  'other channels': (
    guides.MappedChannels(guides.Tokens(TOKENS), CHANNEL_MAP, CHANNEL_BIAS),
    TOKENS @ CHANNEL_MAP + CHANNEL_BIAS,
  ),
  'both': (
    through_both(TOKENS, *MAPS),
    (TOKEN_MAP.T @ TOKENS + TOKEN_BIAS[:, None]) @ CHANNEL_MAP + CHANNEL_BIAS,
  ),
}


@pytest.mark.parametrize('name', GUIDES)
def test_a_guide_reads_the_tokens_of_its_maps(name):
  guide, expected = GUIDES[name]
  np.testing.assert_allclose(laid_out(guide, expected.shape[1]), expected, atol=1e-5)


@pytest.mark.parametrize('name', GUIDES)
def test_what_is_asked_and_read_is_that_of_tokens_laid_out(name):
  guide, tokens = GUIDES[name]
  n = tokens.shape[1]
  query = normal(B, Q, tokens.shape[-1], seed=1)
  # A bias of channels adds the same to all that a query asks.
  difference = np.asarray(guide.match(query)) - query @ tokens.swapaxes(1, 2)
  np.testing.assert_allclose(difference, np.broadcast_to(difference[..., :1], (B, Q, n)), atol=1e-4)
  read = softmax(query @ tokens.swapaxes(1, 2), -1) @ tokens
  np.testing.assert_allclose(guides.attend(query, guide), read, atol=1e-4)
  found, mean = guides.attend_and_mean(query, guide)
  np.testing.assert_allclose(found, read, atol=1e-4)
  np.testing.assert_allclose(mean, tokens.mean(1), atol=1e-5)


def test_queries_of_all_clips_are_those_of_each():
  query = normal(Q, D)
  each = jnp.broadcast_to(query, (B, Q, D))
  found, expected = (guides.attend(asked, through_both(TOKENS, *MAPS)) for asked in (query, each))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_are_those_of_tokens_laid_out():
  """Those of the maps, of the tokens and of what asks."""

  def through(query, *given):
    return guides.attend_and_mean(query, through_both(*given))

  def plain(query, tokens, token_map, token_bias, channel_map, channel_bias):
    tokens = jnp.einsum('bme,mn->bne', tokens, token_map) + token_bias[:, None]
    tokens = tokens @ channel_map + channel_bias
    return jax.nn.softmax(query @ tokens.mT) @ tokens, tokens.mean(1)

  given = QUERY, TOKENS, *MAPS
  loss = lambda run: lambda given: sum(jnp.sum(jnp.sin(out)) for out in run(*given))
  found, expected = (jax.jit(jax.grad(loss(run)))(given) for run in (through, plain))
  near = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
  jax.tree.map(near, found, expected)


def test_a_guide_is_never_laid_out():
  """No array of its program, forward and backward, has all tokens with all channels."""

  def run(query, *given):
    return sum(out.sum() for out in guides.attend_and_mean(query, through_both(*given)))

  program = str(jax.make_jaxpr(jax.grad(run, range(6)))(QUERY, TOKENS, *MAPS))
  shapes = (f'{B},{N},{D}', f'{B},{N},{E}', f'{B},{M},{D}')
  assert f'[{B},{M},{E}]' in program  # the gradient of what the tokens are made of
  assert not [shape for shape in shapes if f'[{shape}]' in program]


# Resizing token grids.


@pytest.mark.parametrize('m, n', [(4, 8), (9, 8), (8, 9)])
def test_resizing_needs_square_token_grids(m, n):
  with pytest.raises(ValueError, match=f'needs square token grids; got {m} and {n} tokens'):
    guides.resized(guides.Tokens(normal(1, m, 3)), m, n)


@pytest.mark.parametrize('old, new', [(8, 6), (6, 8), (4, 4)])
def test_resizing_is_torchs_bicubic_without_antialiasing(old, new):
  torch = pytest.importorskip('torch')
  x = normal(B, old * old, 3)
  image = torch.tensor(np.asarray(x)).reshape(B, old, old, 3).permute(0, 3, 1, 2)
  expected = torch.nn.functional.interpolate(image, size=(new, new), mode='bicubic')
  expected = expected.permute(0, 2, 3, 1).reshape(B, new * new, 3)
  guide = guides.resized(guides.Tokens(x), old * old, new * new)
  np.testing.assert_allclose(laid_out(guide, new * new), expected, atol=1e-5)


def test_a_map_has_torchs_initial_values_and_the_dtype_asked_for():
  values = filled.variables(guides.Map(M, N))
  assert {name: x.shape for name, x in values['params'].items()} == {'kernel': (M, N), 'bias': (N,)}
  kernel, bias = guides.Map(M, N, jnp.bfloat16).apply(values)
  assert kernel.dtype == bias.dtype == jnp.bfloat16
  drawn = guides.Map(M, 1000).init(jax.random.key(0))['params']
  assert {x.dtype for x in drawn.values()} == {jnp.dtype('float32')}
  for x in drawn.values():
    assert 0.49 < np.abs(x).max() <= 0.5  # 1 / √M
