"""ViT layouts: the same weights under every name, and transformers' model as an oracle."""

import jax
import numpy as np
import pytest

from dgsct_jax import tree
from dgsct_jax.convert import read, table, vit
from dgsct_jax.models.vit import ViT
from tests.parity import golden

FIELDS = dict(image=32, patch=8, width=16, depths=(2,), heads=4, mlp_ratio=2.0)
BLOCK = 'Transformer/encoderblock_#/'
AUGREG = {  # timm's name: theirs, and its shape with 4 heads of 4
  'cls_token': ('cls', (1, 1, 16)),
  'pos_embed': ('Transformer/posembed_input/pos_embedding', (1, 17, 16)),
  'norm.weight': ('Transformer/encoder_norm/scale', (16,)),
  'norm.bias': ('Transformer/encoder_norm/bias', (16,)),
}


def timm(seed=0):
  """Random weights under timm's names."""
  shapes = table.targets(ViT(**FIELDS), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
  empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  names = {name: x.shape for name, x in table.export(empty, vit.TABLE).items()}
  return golden.weights(names, seed) | {'head.weight': np.zeros((5, 16), np.float32)}


def augreg(state):
  """The same as a JAX checkpoint has them."""
  new = {'head/kernel': state['head.weight'].T}
  for name, (theirs, shape) in AUGREG.items():
    new[theirs] = state[name].reshape(shape)
  new['embedding/kernel'] = state['patch_embed.proj.weight'].transpose(2, 3, 1, 0)
  new['embedding/bias'] = state['patch_embed.proj.bias']
  for i in range(2):
    own, block = BLOCK.replace('#', str(i)), f'blocks.{i}.'
    for theirs, name in (('LayerNorm_0', 'norm1'), ('LayerNorm_2', 'norm2')):
      new[f'{own}{theirs}/scale'] = state[f'{block}{name}.weight']
      new[f'{own}{theirs}/bias'] = state[f'{block}{name}.bias']
    for j, name in enumerate(('fc1', 'fc2')):
      new[f'{own}MlpBlock_3/Dense_{j}/kernel'] = state[f'{block}mlp.{name}.weight'].T
      new[f'{own}MlpBlock_3/Dense_{j}/bias'] = state[f'{block}mlp.{name}.bias']
    attention = own + 'MultiHeadDotProductAttention_1/'
    kernels = np.split(state[f'{block}attn.qkv.weight'], 3)
    biases = np.split(state[f'{block}attn.qkv.bias'], 3)
    for part, kernel, bias in zip(('query', 'key', 'value'), kernels, biases):
      new[f'{attention}{part}/kernel'] = kernel.T.reshape(16, 4, 4)
      new[f'{attention}{part}/bias'] = bias.reshape(4, 4)
    new[f'{attention}out/kernel'] = state[f'{block}attn.proj.weight'].T.reshape(4, 4, 16)
    new[f'{attention}out/bias'] = state[f'{block}attn.proj.bias']
  return new


def transformers_4(state):
  """As `ViTForImageClassification` has them, in files of transformers 4."""
  new = {}
  for name, x in state.items():
    if '.attn.qkv.' in name:
      block, leaf = name.replace('blocks.', 'vit.encoder.layer.').split('.attn.qkv.')
      for part, third in zip(('query', 'key', 'value'), np.split(x, 3)):
        new[f'{block}.attention.attention.{part}.{leaf}'] = third
      continue
    for theirs, ours in (
      ('head', 'classifier'),
      ('blocks.', 'vit.encoder.layer.'),
      ('attn.proj', 'attention.output.dense'),
      ('mlp.fc1', 'intermediate.dense'),
      ('mlp.fc2', 'output.dense'),
      ('norm1', 'layernorm_before'),
      ('norm2', 'layernorm_after'),
      ('cls_token', 'vit.embeddings.cls_token'),
      ('pos_embed', 'vit.embeddings.position_embeddings'),
      ('patch_embed.proj', 'vit.embeddings.patch_embeddings.projection'),
    ):
      name = name.replace(theirs, ours)
    new[f'vit.layer{name}' if name.startswith('norm.') else name] = x
  return new


def converted(state):
  plan = vit.plan(state)
  return plan, table.convert(plan.state, plan.table, plan.targets)


@pytest.mark.parametrize('rename, layout', [(augreg, 'augreg'), (transformers_4, 'transformers')])
def test_every_layout_gives_the_same_weights(rename, layout):
  plan, want = converted(timm())
  assert plan.layout == 'timm' and plan.variant == 'custom'
  plan, got = converted(rename(timm()))
  assert plan.layout == layout and got.keys() == want.keys()
  assert all((got[name] == x).all() for name, x in want.items())


def test_an_optimiser_around_the_weights_of_augreg_does_not_matter(tmp_path):
  state = {f'opt/target/{name}': x for name, x in augreg(timm()).items()}
  np.savez(tmp_path / 'vit.npz', **state)
  _, want = converted(timm())
  _, got = converted(read.read(tmp_path / 'vit.npz'))
  assert all((got[name] == x).all() for name, x in want.items())


def test_a_damaged_archive_is_refused(tmp_path):
  (tmp_path / 'vit.npz').write_bytes(b'PK no archive')
  with pytest.raises(ValueError, match='not a whole .npz'):
    read.read(tmp_path / 'vit.npz')
  np.savez(tmp_path / 'code.npz', x=np.array([{}], object))
  with pytest.raises(ValueError, match='of plain arrays'):
    read.read(tmp_path / 'code.npz')


def test_variants_are_named_by_sizes():
  base = dict(image=224, patch=16, width=768, depths=(12,))
  assert vit.variant(base) == 'base_patch16_224'
  assert vit.variant(base | dict(image=384)) == 'base_patch16_384'
  assert vit.variant(base | dict(width=1024, depths=(24,))) == 'large_patch16_224'
  assert vit.variant(base | dict(width=1024)) == 'custom'


def test_another_model_is_refused():
  with pytest.raises(ValueError, match='No ViT in this file'):
    vit.plan({'conv1.weight': np.zeros(3)})


def test_missing_surplus_and_misshapen_tensors_are_all_named():
  state = timm()
  del state['blocks.1.norm2.bias']
  state |= {'reg_token': np.zeros((1, 4, 16)), 'norm.bias': np.zeros(3, np.float32)}
  with pytest.raises(ValueError) as error:
    converted(state)
  for fault in ('blocks.1.norm2.bias: missing', 'reg_token: (1, 4, 16)', 'norm.bias: (3,)'):
    assert fault in str(error.value)


def test_our_vit_is_that_of_transformers():
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  torch.manual_seed(0)
  config = transformers.ViTConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    image_size=32,
    patch_size=8,
    layer_norm_eps=1e-6,
  )
  oracle = transformers.ViTModel(config, add_pooling_layer=False).eval()
  shapes = {name: tuple(x.shape) for name, x in oracle.state_dict().items()}
  state = golden.weights(shapes, seed=1)
  oracle.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
  _, ours = converted(state)
  x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
  with jax.default_matmul_precision('highest'):
    got = jax.jit(ViT(**FIELDS).apply)(tree.unflatten(ours), x)
  with torch.no_grad():
    want = oracle(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).last_hidden_state.numpy()
  assert golden.rms(got - want) < 1e-5 * golden.rms(want)
