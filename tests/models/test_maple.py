"""Deep prompts: what stands where before each block, and what pictures have from texts."""

import functools

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import clip
from dgsct_jax.models.heads.matching import Prompts
from dgsct_jax.models.maple import DeepPrompts
from tests.models import filled

DEEP = DeepPrompts(tokens=2, depth=2, width=8, seen_width=12)
TEXT = clip.CLIPText(19, 10, 8, depth=3, heads=2, features=6)
PICTURES = clip.CLIPVision(16, 8, 12, (1, 2), heads=2, features=6, prompts=DEEP)
IDS = np.int32([[17, 1, 2, 5, 6, 18, 0], [17, 1, 2, 7, 18, 0, 0]])
END = np.array([5, 4])


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope='module')
def prompts():
  params = {f'written_{i}': random(2, 8, seed=i) for i in (0, 1)}
  layer = lambda seed: {'kernel': random(8, 12, seed=seed), 'bias': random(12, seed=seed + 1)}
  return params | {f'couple_{i}': layer(2 + 2 * i) for i in (0, 1)}


@functools.partial(jax.jit, static_argnums=(0, 2))
def place(where, prompts, block, x):
  return DEEP.apply({'params': prompts}, block, x, method=where)


def test_a_text_has_the_prompt_of_the_block_behind_its_start(prompts):
  x = random(2, 7, 8)
  for block in (0, 1):
    out = np.asarray(place('in_texts', prompts, block, x))
    want = np.broadcast_to(prompts[f'written_{block}'], (2, 2, 8))
    np.testing.assert_array_equal(out[:, 1:3], want)
    np.testing.assert_array_equal(out[:, [0, 3, 4, 5, 6]], x[:, [0, 3, 4, 5, 6]])
  np.testing.assert_array_equal(place('in_texts', prompts, 2, x), x)


def test_a_picture_has_what_a_linear_layer_makes_of_the_prompt_of_texts(prompts):
  x = random(3, 5, 12)
  first = np.asarray(place('in_pictures', prompts, 0, x))
  assert first.shape == (3, 7, 12)
  np.testing.assert_array_equal(first[:, :5], x)
  second = np.asarray(place('in_pictures', prompts, 1, first))
  np.testing.assert_array_equal(second[:, :5], x)
  for block, out in enumerate((first, second)):
    layer = prompts[f'couple_{block}']
    want = prompts[f'written_{block}'] @ layer['kernel'] + layer['bias']
    np.testing.assert_allclose(out[1, 5:], want, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(place('in_pictures', prompts, 2, second), second)


def test_in_the_first_block_alone_a_text_is_read_as_with_learned_words(prompts):
  x = random(2, 7, 8)
  one = DeepPrompts(tokens=2, depth=1, width=8, seen_width=12)
  deep = {'written_0': prompts['written_0']}
  variables = filled.variables(TEXT, IDS)

  @jax.jit
  def run(variables, deep, x):
    encode = functools.partial(TEXT.apply, variables, method='encode')
    words = Prompts(2).apply({'params': {'context': deep['written_0']}}, x, (2, 1))
    return encode(x, END, one.bind({'params': deep})), encode(words, END)

  got, want = run(variables, deep, x)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_every_prompt_counts_and_those_that_are_replaced_do_not(prompts):
  """What the block before has made of a prompt is lost; the last block keeps what it is given."""
  variables = filled.variables(TEXT, IDS)

  @jax.jit
  @jax.grad
  def slope(prompts, variables, ids):
    text = TEXT.bind(variables)
    return text.encode(text.embed(ids), END, DEEP.bind({'params': prompts})).sum()

  moved = slope(prompts, variables, IDS)
  for block in (0, 1):
    assert np.abs(moved[f'written_{block}']).max() > 0
  assert not any(np.any(x) for name, x in tree.flatten(moved).items() if 'couple' in name)


def test_pictures_are_seen_through_the_prompts_of_texts():
  x = random(2, 16, 16, 3)
  variables = filled.variables(PICTURES, x)
  paths = tree.flatten(variables['params'])
  assert {path.split('/')[1] for path in paths if path.startswith('prompts/')} == {
    'written_0',
    'written_1',
    'couple_0',
    'couple_1',
  }

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def slope(params, x):
    tokens = PICTURES.apply({'params': params}, x)
    return tokens[:, 0].sum(), tokens

  moved, tokens = slope(variables['params'], x)
  assert tokens.shape == (2, 1 + 4 + 2, 12)
  moved = moved['prompts']
  assert all(np.abs(moved[f'written_{block}']).max() > 0 for block in (0, 1))


def test_prompts_have_no_place_in_the_picture():
  weights = np.arange(7, dtype=np.float32)[None]
  np.testing.assert_array_equal(PICTURES.place(weights)[0], [[1, 2], [3, 4]])
