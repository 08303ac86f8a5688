"""HTS-AT: windows, halves of blocks, the tagging head and what training changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from dgsct_jax import tree
from dgsct_jax.models import htsat, mel
from dgsct_jax.models.htsat import HTSAT
from tests.models import filled, tiny


def normal(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def waves(b: int = 2, samples: int = 32 * 63) -> np.ndarray:
  """As many samples as give the image's 64 frames of 16 mel bins."""
  return normal(b, samples)


@pytest.fixture(scope='session')
def variables() -> tree.Tree:
  return filled.variables(tiny.htsat(), waves(), method=HTSAT.tag)


@functools.partial(jax.jit, static_argnums=(0, 3))
def steps(model: HTSAT, variables: tree.Tree, x: jax.Array, train: bool = False) -> dict:
  rngs = {'drop_path': jax.random.key(0), 'augment': jax.random.key(1)}
  return model.apply(variables, x, train, rngs=rngs, mutable='batch_stats', method=tiny.steps)


@pytest.fixture(scope='session')
def seen(variables) -> dict:
  return {name: np.asarray(x) for name, x in steps(tiny.htsat(), variables, waves())[0].items()}


@pytest.fixture(scope='session')
def touched(variables) -> dict[str, set[tuple[int, int]]]:
  """Tokens (row, column) of the 8×8 grid that the first one reaches, after each half."""
  halves = [(j, half) for j in (0, 1) for half in ('attend', 'feed_forward')]

  def run(model, tokens):
    seen = {}
    for j, half in halves:
      tokens = seen[f'{half}_{j}'] = getattr(model.stages[0].blocks[j], half)(tokens, False)
    return seen

  tokens = np.repeat(normal(1, 64, 8), 2, 0)
  tokens[1, 0] += np.arange(8)
  apply = jax.jit(functools.partial(tiny.htsat().apply, method=run))
  seen = jax.device_get(apply(variables, tokens))
  return {
    name: {divmod(int(i), 8) for i in np.flatnonzero((x[0] != x[1]).any(-1))}
    for name, x in seen.items()
  }


def square(start: int, stop: int) -> set[tuple[int, int]]:
  return {(i, j) for i in range(start, stop) for j in range(start, stop)}


def test_attention_stays_within_its_window(touched):
  assert touched['attend_0'] == touched['feed_forward_0'] == square(0, 4)


def test_shifted_attention_reaches_the_neighbours_but_not_around_the_border(touched):
  assert touched['attend_1'] == touched['feed_forward_1'] == square(0, 6)


def test_shapes_halve_and_widths_double(seen):
  shapes = {name: x.shape[1:] for name, x in seen.items()}
  assert shapes['stem'] == shapes['feed_forward_0_1'] == (64, 8)
  assert shapes['downsample_0'] == shapes['downsample_1'] == shapes['norm'] == (16, 16)


def test_the_halves_in_order_are_the_whole_model(seen, variables):
  whole = jax.jit(tiny.htsat().apply)(variables, waves(1))
  np.testing.assert_allclose(whole, seen['norm'][:1], atol=2e-5)


def test_branches_are_normalised_before():
  """Blocks add what they make of the normalised tokens: scaling the tokens leaves it as it is."""
  block = htsat.HTSATBlock(heads=2, grid=(4, 4), window=4, shift=0)
  x = normal(1, 16, 8)
  values = filled.variables(block, x, train=False)
  for half in (block.attend, block.feed_forward):
    add = jax.jit(lambda x: block.apply(values, x, False, method=half) - x)
    added = add(x)
    np.testing.assert_allclose(add(100 * x), added, atol=1e-3)
    assert np.abs(added).max() > 0.1


def test_attention_equals_its_formula():
  model = htsat.WindowAttention(heads=2, window=(2, 3))
  x, mask = normal(1, 2, 6, 8), np.where(normal(2, 6, 6) < -0.5, np.float32(-100), 0)
  values = filled.variables(model, x, mask)
  ours = jax.jit(model.apply)(values, x, mask)

  p = jax.device_get(values['params'])
  place = [divmod(i, 3) for i in range(6)]
  out = np.zeros((2, 6, 8))
  for w in range(2):
    q, k, v = np.split(x[0, w] @ p['qkv']['kernel'] + p['qkv']['bias'], 3, -1)
    for head in range(2):
      at = slice(4 * head, 4 * head + 4)
      logits = q[:, at] @ k[:, at].T / 2 + mask[w]
      for i, (row, column) in enumerate(place):
        for j, (other_row, other_column) in enumerate(place):
          offset = (row - other_row + 1) * 5 + column - other_column + 2
          logits[i, j] += p['relative_position_bias_table'][offset, head]
      out[w, :, at] = softmax(logits, -1) @ v[:, at]
  expected = out @ p['proj']['kernel'] + p['proj']['bias']
  np.testing.assert_allclose(ours[0], expected, atol=1e-5)


def test_training_with_everything_off_is_evaluation(variables, seen):
  trained, moved = steps(tiny.htsat(), variables, waves(), True)
  np.testing.assert_allclose(trained['norm'], seen['norm'], atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, moved['batch_stats'], variables['batch_stats'])


def test_the_released_training_moves_statistics_masks_and_drops(variables, seen):
  live = tiny.htsat(batch_stats=True, spec_augment=True, drop_path=0.5)
  trained, moved = jax.device_get(steps(live, variables, np.repeat(waves(1), 16, 0), True))
  assert not np.allclose(
    moved['batch_stats']['mel']['bn0']['mean'], variables['batch_stats']['mel']['bn0']['mean']
  )
  assert trained['stem'].std(0).max() > 0.01  # the same wave, masked row by row
  last = trained['feed_forward_1_0'] - trained['attend_1_0']
  assert 0 < (last == 0).all((1, 2)).sum() < 16


def test_drop_path_rates_are_the_released_ones():
  stages = htsat.build().bind({}).stages
  rates = [block.drop_path for stage in stages for block in stage.blocks]
  np.testing.assert_allclose(rates, np.arange(12) / 110, atol=1e-9)


def test_windows_are_the_released_ones():
  stages = htsat.build().bind({}).stages
  found = [
    [(block.grid[0], block.windows[0][0], block.windows[1][0]) for block in stage.blocks]
    for stage in stages
  ]
  assert found == [
    [(64, 8, 0), (64, 8, 4)],
    [(32, 8, 0), (32, 8, 4)],
    [(16, 8, 0), (16, 8, 4)] * 3,
    [(8, 8, 0)] * 2,
  ]


@pytest.mark.parametrize('variant, classes', [('audioset', 527), ('esc50', 50), ('scv2', 35)])
def test_variants_have_the_released_number_of_parameters(variant, classes):
  model = htsat.build(variant)
  wave = jax.ShapeDtypeStruct((1, model.sample_rate), jnp.float32)
  shapes = jax.eval_shape(functools.partial(model.init, method=HTSAT.tag), jax.random.key(0), wave)
  head, tagging = 527 * 528, 768 * 6 + 1  # of the released, which nothing reads; per class
  assert tree.count(shapes['params']) == 31_325_143 - head + (classes - 527) * tagging


def test_the_final_norm_and_the_tagging_head_exist_only_where_used():
  def body(model, wave):
    return model.body(model.stem(wave))

  alone = filled.variables(tiny.htsat(), waves(), method=body)['params']
  normed = filled.variables(tiny.htsat(), waves())['params']
  tagged = filled.variables(tiny.htsat(), waves(), method=HTSAT.tag)['params']
  assert set(normed) - set(alone) == {'norm'}
  assert set(tagged) - set(normed) == {'tscam_conv'}


@pytest.fixture(scope='session')
def tag(variables):
  apply = jax.jit(functools.partial(tiny.htsat().apply, method=HTSAT.tag))
  return functools.partial(apply, variables)


def test_tags_are_clip_logits_and_a_logit_per_frame_of_the_image(tag):
  tags = tag(waves())
  assert tags['clip_logits'].shape == (2, 3) and tags['frame_logits'].shape == (2, 64, 3)
  # Eight frames share a column of tokens, and the clip is the mean over time.
  columns = np.asarray(tags['frame_logits']).reshape(2, 8, 8, 3)
  np.testing.assert_array_equal(columns, np.broadcast_to(columns[:, :, :1], columns.shape))
  np.testing.assert_allclose(tags['clip_logits'], columns[:, :, 0].mean(1), atol=1e-6)


def test_a_sound_is_tagged_when_it_happens():
  """Without attention tokens hear only themselves, so the tags must be in the order of time."""
  model = tiny.htsat(depths=(1, 1))
  values = filled.variables(model, waves(), method=HTSAT.tag)
  for i in (0, 1):
    proj = values['params'][f'stages_{i}']['blocks_0']['attn']['proj']
    proj.update(jax.tree.map(np.zeros_like, dict(proj)))
  log_mel = np.zeros((9, 64, 16), np.float32)  # the last one is silent
  for row in range(8):
    log_mel[row, 8 * row : 8 * row + 8] = normal(8, 16)

  def tag_mel(model, mel):
    return model.tag_image(model.mel.image(mel))

  tags = jax.jit(functools.partial(model.apply, method=tag_mel))(values, log_mel)
  columns = np.asarray(tags['frame_logits'])[:, ::8]
  changed = np.abs(columns[:8] - columns[8]).max(-1) > 1e-5  # rows of a batch round apart
  reach = np.abs(np.arange(8)[:, None] - np.arange(8)) <= 1  # the kernel is three columns wide
  np.testing.assert_array_equal(changed, reach)


def test_tags_of_long_sounds_are_mean_probabilities_of_crops():
  model, wave = tiny.htsat(depths=(1,), heads=(2,)), waves(1, 32 * 99)  # 100 frames
  values = filled.variables(model, wave, method=HTSAT.tag)

  def crop(model, wave, start):
    mel = model.mel.normalise(model.mel.log_mel(wave), False)
    return model.tag_image(model.mel.image(jax.lax.dynamic_slice_in_dim(mel, start, 49, 1)))

  found = jax.jit(functools.partial(model.apply, method=HTSAT.tag))(values, wave)
  tag_crop = jax.jit(functools.partial(model.apply, method=crop))
  crops = jax.device_get([tag_crop(values, wave, start) for start in (0, 24, 48)])
  for name, logits in found.items():
    mean = sum(expit(crop[name]) for crop in crops) / 3
    np.testing.assert_allclose(expit(np.asarray(logits)), mean, atol=1e-5)


def test_a_tiled_wave_gives_the_tokens_of_the_plainly_tiled_one(variables):
  wave = waves(2, 32 * 21)

  def stem(wave, tile):
    model = tiny.htsat(tile=tile)
    return jax.jit(functools.partial(model.apply, method=HTSAT.stem))(variables, wave)

  np.testing.assert_allclose(stem(wave, 3), stem(np.tile(wave, (1, 3)), 1), atol=1e-4)


def test_unknown_variants_and_fields_are_refused():
  with pytest.raises(ValueError, match="'music'; choose one of audioset, esc50, scv2"):
    htsat.build('music')
  with pytest.raises(ValueError, match='no field rate; it has .*sample_rate'):
    htsat.build(rate=3)


def test_rematerialised_blocks_change_neither_names_nor_values(variables):
  model = tiny.htsat(remat='blocks')
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(filled.variables(model, waves(), method=HTSAT.tag)) == shapes(variables)
  np.testing.assert_allclose(
    jax.jit(model.apply)(variables, waves()),
    jax.jit(tiny.htsat().apply)(variables, waves()),
    atol=1e-6,
  )


def test_bfloat16_is_near_float32_and_keeps_float32_parameters(variables, seen):
  model = tiny.htsat(dtype=jnp.bfloat16)
  shapes = jax.eval_shape(model.init, jax.random.key(0), waves())
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
  low, high = jax.jit(model.apply)(variables, waves(1)), seen['norm'][:1]
  assert low.dtype == jnp.bfloat16
  error = np.asarray(low, np.float32) - high
  assert np.square(error).mean() ** 0.5 < 0.05 * np.square(high).mean() ** 0.5


# Where tokens lie in a second.

RATE = 4000


def placer(**fields) -> HTSAT:
  return HTSAT(size=32, mel_bins=16, sample_rate=RATE, **fields)


def heard_by_tokens(wave: np.ndarray, **fields) -> np.ndarray:
  """What lies under each of the 8 × 8 tokens of the model's own image of a waveform."""
  front = mel.LogMel(
    sample_rate=RATE, n_fft=128, mel_bins=16, fmin=50.0, fmax=2000.0, size=32, **fields
  )
  return np.asarray(image(front, wave)).reshape(8, 4, 8, 4).mean((1, 3)).reshape(1, 64)


@functools.partial(jax.jit, static_argnums=0)
def image(front: mel.LogMel, wave: jax.Array) -> jax.Array:
  return front.init_with_output(jax.random.key(0), wave, False)[0]


# Front ends that stretch a spectrogram, hear every second twice, or only its middle.
FRONT_ENDS = [dict(tile=1, hop=70), dict(tile=2, hop=126), dict(tile=1, hop=20)]


@pytest.mark.parametrize('fields', FRONT_ENDS)
@pytest.mark.parametrize('place', [0.38, 0.53, 0.63])
def test_attention_is_placed_where_the_sound_is(fields, place):
  wave = np.zeros((1, RATE), np.float32)
  wave[0, int(place * RATE)] = 1
  energy = heard_by_tokens(wave, **fields)
  bands = placer(**fields).place(energy - energy.min() + 1e-3)
  part = (np.nanargmax(bands[0].sum(0)) + 0.5) / bands.shape[-1]
  assert abs(part - place) < 0.09 * fields['tile']  # of 16 tokens of which each hears a tile


def test_placed_attention_starts_with_low_bands():
  wave = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)[None].astype(np.float32)
  energy = heard_by_tokens(wave, tile=1, hop=64)
  assert placer(tile=1, hop=64).place(energy)[0].mean(1).argmax() == 0


def test_moments_that_the_model_does_not_hear_have_no_attention():
  bands = placer(tile=1, hop=20).place(np.ones((2, 64)))  # 201 frames, of which 64 are held
  assert bands.shape == (2, 4, 16)
  known = np.isfinite(bands).all((0, 1))
  assert not known[:5].any() and known[6:10].all() and not known[11:].any()


def test_every_second_of_a_repeated_one_is_averaged():
  tokens = np.zeros((1, 2, 4, 8))  # chunk, band, part
  tokens[0, 0, :, :4] = 1  # the first of four repeats
  bands = placer(tile=4, hop=251).place(tokens.reshape(1, 64))  # 64 frames for four seconds
  np.testing.assert_allclose(bands, 0.25)
