"""CLIP's layouts: the same weights under every name, and transformers' CLIPModel as an oracle."""

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import clip, table
from dgsct_jax.models import clip as clip_model
from tests.parity import golden

VISUAL = dict(
  image=32, patch=8, width=128, depths=(2, 2, 6, 2), heads=2, mlp_ratio=2.0, features=24
)
TEXT = dict(vocabulary=99, context=11, width=64, depth=3, heads=1, mlp_ratio=2.0, features=24)


def openai():
  """Random weights under OpenAI's names, with what its archives hold besides."""
  rows, shapes = clip.table(VISUAL['depths']), clip.shapes(VISUAL, TEXT)
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  names = {name: x.shape for name, x in table.export(empty, rows).items()}
  return golden.weights(names, seed=0) | {'input_resolution': np.zeros((), np.int64)}


def converted(state):
  plan = clip.plan(state)
  return plan, table.convert(plan.state, plan.table, plan.targets)


@pytest.fixture(scope='module')
def ours():
  return converted(openai())


def test_openais_names_give_the_sizes_of_both_towers(ours):
  plan, tensors = ours
  assert (plan.layout, plan.variant) == ('openai', 'custom')
  assert tensors['params/visual/projection/kernel'].shape == (128, 24)
  assert tensors['params/visual/stages_2/blocks_5/mlp/fc1/kernel'].shape == (128, 256)
  np.testing.assert_array_equal(
    tensors['params/visual/stages_3/blocks_1/norm2/scale'],
    plan.state['visual.transformer.resblocks.11.ln_2.weight'],
  )


def test_open_clips_text_tower_may_be_a_module_of_its_own(ours):
  state = openai()
  inside = ('token_embedding', 'positional_embedding', 'ln_final', 'text_projection', 'transformer')
  state = {(f'text.{name}' if name.startswith(inside) else name): x for name, x in state.items()}
  _, tensors = converted(state)
  assert tensors.keys() == ours[1].keys()
  assert all(np.array_equal(tensors[name], x) for name, x in ours[1].items())


def test_all_of_it_goes_back_under_its_names(ours):
  plan, tensors = ours
  back = table.export(tensors, plan.table)
  assert back.keys() == plan.state.keys() - {'input_resolution'}
  assert all(np.array_equal(x, plan.state[name]) for name, x in back.items())


def test_the_image_tower_alone_is_a_backbone(ours):
  plan = clip.plan_vision(openai())
  tensors = table.convert(plan.state, plan.table, plan.targets)
  assert 'params/projection/kernel' not in tensors
  assert tensors.keys() == {
    name.replace('/visual/', '/')
    for name in ours[1]
    if '/visual/' in name and '/projection/' not in name
  }


def test_a_resnet_is_refused():
  with pytest.raises(ValueError, match='No CLIP with a vision transformer'):
    clip.plan({'visual.layer1.0.conv1.weight': np.zeros(3), 'token_embedding.weight': np.zeros(3)})


@pytest.mark.parametrize(
  'name, fields',
  [
    ('B/32', dict(image=224, patch=32, width=768, depths=(2, 2, 6, 2), heads=12, features=512)),
    ('L/14', dict(image=224, patch=14, width=1024, depths=(4, 4, 12, 4), heads=16, features=768)),
  ],
)
def test_released_towers_are_named_by_their_sizes(name, fields):
  assert clip.variant(fields) == name
  assert clip.variant(fields | {'image': 28 * 8}) == name
  assert clip.variant(fields | {'image': 448}) == 'custom'


@pytest.mark.parametrize('activation', ['quick_gelu', 'gelu'])
def test_our_towers_are_those_of_transformers(activation):
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  shared = dict(hidden_act=activation, projection_dim=24)
  oracle = transformers.CLIPModel(
    transformers.CLIPConfig(
      vision_config=dict(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        **shared,
      ),
      text_config=dict(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=11,
        eos_token_id=98,
        **shared,
      ),
      projection_dim=24,
    )
  ).eval()
  state = {
    name: np.asarray(golden.fill().tensor(name, tuple(x.shape), 3))
    if x.is_floating_point()
    else x.numpy()
    for name, x in oracle.state_dict().items()
  }
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
  plan, tensors = converted(state)
  assert (plan.layout, plan.variant) == ('transformers', 'custom')

  rng = np.random.default_rng(0)
  pictures = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
  ids = rng.integers(1, 98, (3, 11))
  ids[:, -1] = 98
  ids[0, 4], ids[0, 5:] = 98, 0  # a short text, with OpenAI's padding
  sizes = VISUAL | {'depths': (2,)}, TEXT | {'depth': 2}
  model = clip_model.build('custom', *(fields | {'activation': activation} for fields in sizes))
  with jax.default_matmul_precision('highest'):
    seen, read = jax.jit(model.apply)(tree.unflatten(tensors), pictures, ids)
  with torch.no_grad():
    want = oracle(
      input_ids=torch.from_numpy(ids),
      pixel_values=torch.from_numpy(np.moveaxis(pictures, -1, 1).copy()),
    )
  unit = lambda x: np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)
  for got, expected in ((seen, want.image_embeds), (read, want.text_embeds)):
    assert golden.rms(unit(got) - expected.numpy()) < 1e-5 * golden.rms(expected.numpy())
  scale = np.exp(tensors['params/logit_scale'])
  np.testing.assert_allclose(
    scale * unit(seen) @ unit(read).T, want.logits_per_image.numpy(), rtol=1e-4, atol=1e-4
  )
