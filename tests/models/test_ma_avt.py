"""MA-AVT: what meets and what does not, tokens, positions, folding, sizes."""

import functools

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.models import ma_avt, vit
from dgsct_jax.models.ma_avt import MAAVT
from dgsct_jax.models.vit import ViT
from tests.models import filled

B, T, CLASSES = 2, 2, 3


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


BATCH = {'video': normal(B, T, 16, 16, 3), 'wave': normal(B, T, 16, 16, seed=1)}
VIT = ViT(image=16, patch=8, width=16, depths=(1, 1), heads=2, mlp_ratio=2.0)


def model(**fields) -> MAAVT:
  sizes = dict(classes=CLASSES, prompts=2, shared_prompts=3, features=8)
  return MAAVT(VIT, lambda picture: picture, **sizes | fields)


@pytest.fixture(scope='module')
def values() -> dict:
  return filled.variables(model(), BATCH)


@pytest.fixture(scope='module')
def run():
  apply = jax.jit(model().apply)
  return lambda *args: jax.device_get(apply(*args))


@pytest.fixture(scope='module')
def outputs(values, run) -> dict:
  return run(values, BATCH)


def test_outputs_lead_with_clips_and_segments(outputs):
  assert {name: x.shape for name, x in outputs.items()} == {
    'logits': (B, T, CLASSES),
    'unimodal_logits': (B, T, 2, CLASSES),
    'background_logits': (B, T),
    'visual_features': (B, T, 2, 8),
    'audio_features': (B, T, 2, 8),
    'visual_map': (B, T, 5),
    'audio_map': (B, T, 5),
  }


def test_what_both_streams_say_adds_up(outputs):
  np.testing.assert_allclose(outputs['unimodal_logits'].sum(2), outputs['logits'], atol=1e-5)


def test_features_have_unit_length_and_maps_are_shares_of_the_patches(outputs):
  np.testing.assert_allclose(np.linalg.norm(outputs['visual_features'], axis=-1), 1, rtol=1e-5)
  for name in ('visual_map', 'audio_map'):
    np.testing.assert_allclose(outputs[name].sum(-1), 1, rtol=1e-5)
    assert not outputs[name][..., 0].any()


def test_streams_meet_in_the_heads_alone(outputs, values, run):
  other = run(values, BATCH | {'wave': -BATCH['wave']})
  for name in ('visual_features', 'visual_map'):
    np.testing.assert_array_equal(other[name], outputs[name])
  np.testing.assert_array_equal(
    other['unimodal_logits'][:, :, 0], outputs['unimodal_logits'][:, :, 0]
  )
  assert np.abs(other['audio_features'] - outputs['audio_features']).max() > 1e-2


def test_segments_do_not_meet(outputs, values, run):
  swapped = run(values, {name: x[:, ::-1] for name, x in BATCH.items()})
  for name, x in outputs.items():
    np.testing.assert_allclose(swapped[name][:, ::-1], x, atol=1e-5)


def test_folded_it_is_the_same_model(outputs, values):
  folded = {'params': jax.jit(ma_avt.fold)(values['params'])}
  small = model(lsa=False, contrast='none')
  shapes = jax.eval_shape(small.init, jax.random.key(0), BATCH)
  assert jax.tree.map(np.shape, folded) == jax.tree.map(np.shape, shapes)
  found = jax.jit(small.apply)(folded, BATCH)
  assert set(outputs) - set(found) == {'visual_features', 'audio_features'}
  for name, x in found.items():
    np.testing.assert_allclose(x, outputs[name], atol=1e-6)


def position(positions: str) -> np.ndarray:
  """Of all tokens but prompts: what is left where patches, class and background token are zero."""
  whole = model(positions=positions)
  values = filled.variables(whole, BATCH)
  table = values['params']['vit']['pos_embed']
  zeros = jax.tree.map(np.zeros_like, values)
  zeros['params']['vit']['pos_embed'] = table
  embed = jax.jit(functools.partial(whole.apply, method=MAAVT.embed))
  return np.asarray(table), np.asarray(embed(zeros, np.zeros((1, 16, 16, 3), np.float32)))[0]


def test_positions_are_those_of_the_patches_or_as_released_blends_of_two():
  table, found = position('exact')
  np.testing.assert_array_equal(found, np.pad(table, ((0, 1), (0, 0))))
  table, found = position('flat')
  share = ((np.arange(1, 5) + 0.5) / 6)[:, None]
  blend = (1 - share) * table[1:] + share * table[:-1]
  np.testing.assert_allclose(found, np.concatenate([table[:1], blend, table[4:]]), atol=1e-6)


def test_as_released_streams_are_judged_by_each_others_weights():
  visual, audio = normal(2, 4), normal(2, 4, seed=1)
  values = jax.device_get(filled.variables(ma_avt.PairClassifier(3), visual, audio))
  own, other = (jax.jit(ma_avt.PairClassifier(3, swapped).apply) for swapped in (False, True))
  kernel, bias = values['params']['kernel'], values['params']['bias']
  logits, unimodal = jax.device_get(other(values, visual, audio))
  np.testing.assert_allclose(logits, own(values, visual, audio)[0])
  np.testing.assert_allclose(unimodal[:, 0], visual @ kernel[4:] + bias / 2, atol=1e-6)
  np.testing.assert_allclose(unimodal[:, 1], audio @ kernel[:4] + bias / 2, atol=1e-6)


def test_what_is_compared_is_of_the_tokens_it_names():
  x = normal(3, 9, 4)  # a class token, four patches, a background token, one prompt, two shared
  weights = np.float32([[0, 0.1, 0.2, 0.3, 0.4]] * 3)
  expected = {
    'class': x[:, 0],
    'patches': x[:, 1:5].mean(1),
    'attention': np.einsum('mp,mpd->md', weights[:, 1:], x[:, 1:5]),
    'shared': x[:, 7:].mean(1),
    'nearest': x[:, :5],
  }
  assert expected.keys() == set(ma_avt.COMPARED)

  @jax.jit
  def gather(x, weights):
    return {name: ma_avt.gather(x, name, lambda: weights, 5, 2) for name in expected}

  for compared, found in gather(x, weights).items():
    np.testing.assert_allclose(found, expected[compared], atol=1e-6)


def test_all_patches_of_a_frame_are_compared_with_the_class_token_of_a_sound(values):
  near = jax.device_get(jax.jit(model(compared='nearest').apply)(values, BATCH))
  token = jax.jit(model(compared='class').apply)(values, BATCH)
  np.testing.assert_allclose(near['audio_features'], token['audio_features'], atol=1e-6)
  patches = near['visual_map'].shape[-1] - 1
  assert near['visual_features'].shape == (B, T, 2, patches, 8)
  np.testing.assert_allclose(np.linalg.norm(near['visual_features'], axis=-1), 1, rtol=1e-5)


def test_other_features_need_no_shared_prompts(outputs, values):
  """And change nothing but the contrast."""
  for compared in ('class', 'patches', 'attention'):
    other = jax.jit(model(compared=compared).apply)(values, BATCH)
    np.testing.assert_allclose(other['logits'], outputs['logits'], atol=1e-5)
    assert np.abs(other['visual_features'] - outputs['visual_features']).max() > 1e-3
  jax.eval_shape(
    model(compared='class', shared_prompts=0).init_with_output, jax.random.key(0), BATCH
  )


@pytest.mark.parametrize(
  'contrast, projections', [('none', 0), ('final', 1), ('blocks_shared', 1), ('blocks', 2)]
)
def test_contrasts_differ_in_projections_and_in_blocks(contrast, projections):
  shapes = jax.eval_shape(model(contrast=contrast).init_with_output, jax.random.key(0), BATCH)
  found = {name for name in shapes[1]['params'] if name.startswith('visual_proj')}
  assert len(found) == projections
  blocks = {'none': None, 'final': 1}.get(contrast, 2)
  features = shapes[0].get('visual_features')
  assert (features and features.shape[2]) == blocks


@pytest.mark.parametrize('classes, count', [(309, 17_026_114), (28, 16_594_217), (6, 16_560_403)])
def test_what_is_trained_has_the_published_size(classes, count):
  """But for 12 temperatures that the release never reads."""
  params = base(classes, contrast='blocks')
  trained = {p: x for p, x in params.items() if not p.startswith('vit/') or p == 'vit/cls_token'}
  assert sum(x.size for x in trained.values()) == count - 12
  assert tree.count(tree.unflatten(params)['vit']) == 85_798_656
  folded = {
    path: x
    for path, x in trained.items()
    if not path.startswith(ma_avt.PROJECTIONS) and '_attn/' not in path
  }
  assert classes != 309 or sum(x.size for x in folded.values()) == 489_526


def base(classes: int, **fields) -> dict[str, jax.ShapeDtypeStruct]:
  whole = MAAVT(vit.build('base_patch16_224'), lambda picture: picture, classes, **fields)
  picture = jax.ShapeDtypeStruct((1, 1, 224, 224), np.float32)
  video = jax.ShapeDtypeStruct((1, 1, 224, 224, 3), np.float32)
  batch = {'video': video, 'wave': picture}
  return tree.flatten(jax.eval_shape(whole.init, jax.random.key(0), batch)['params'])


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(contrast='block'), "contrast is 'block', positions is 'exact'; set one of none, final"),
    (dict(positions='interp'), "positions is 'interp'; set one of .* and 'exact' or 'flat'"),
    (
      dict(compared='words'),
      "compared is 'words'; set one of shared, class, patches, attention, nearest",
    ),
    (dict(shared_prompts=0), "'blocks' compares shared prompts, and shared_prompts is 0"),
  ],
)
def test_settings_that_mean_nothing_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model(**fields).init, jax.random.key(0), BATCH)


def test_pictures_of_two_sizes_are_refused():
  with pytest.raises(ValueError, match='Frames are 16×16, spectrograms 24×16'):
    jax.eval_shape(model().init, jax.random.key(0), BATCH | {'wave': normal(B, T, 24, 16)})
