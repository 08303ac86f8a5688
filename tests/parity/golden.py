"""Golden cases: what the released PyTorch code computed, and how close ours has to come.

A case is `NAME.json` (settings, tables of weights and inputs, outputs) and `NAME.npz` in the folder
$GOLDEN_DIR.
Weights and inputs are not stored: the folder's `fill.py` derives them from names.
"""

import functools
import importlib.util
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = Path(os.environ.get('GOLDEN_DIR') or Path(__file__).parents[1] / 'golden')


@functools.cache
def fill() -> Any:
  """The folder's `fill.py`."""
  spec = importlib.util.spec_from_file_location('golden_fill', FOLDER / 'fill.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def weights(shapes: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
  """Its tensors of these names and shapes; scalars are arrays, too, as in files."""
  return {name: np.asarray(x) for name, x in fill().weights(shapes, seed).items()}


class Case:
  """One case; `kind` is read off its fields, so that other seeds.

  Sizes and names of the same kinds are recognised.
  """

  def __init__(self, path: Path):
    self.json = json.loads(path.read_text())
    self.name = path.stem
    self.settings = self.json['settings']
    self.outputs = {output['name']: output for output in self.json['outputs']}
    norms = self.json.get('grad_norms', {})
    self.grad_names = self.json.get('grad_names') or list(norms)
    if norms:  # beside the outputs in one case, among them in others
      self.outputs['grad_norms'] = {
        'name': 'grad_norms',
        'shape': [len(norms)],
        'value': list(norms.values()),
      }
    self.notes = ' '.join(self.json.get('notes', []))
    shapes = self.json['weights']
    if not shapes and (named := re.search(r'weights are those of (\w+)', self.notes)):
      other = json.loads(path.with_name(f'{named[1]}.json').read_text())
      shapes, self.seed = other['weights'], other['seed']
    else:
      self.seed = self.json['seed']
    self.shapes: dict[str, list[int]] = shapes

  @property
  def kind(self) -> str:
    inputs, settings = {item['name'] for item in self.json['inputs']}, self.settings
    if any(name.startswith('CMBS.') for name in self.shapes):
      whole = any(name.startswith('swin.') for name in self.shapes)
      if not whole:
        return 'ave_head'
      return (
        'ave' if 'is_event_scores' in self.outputs else 'ave_train' if self.training else 'ave_grad'
      )
    if 'prompt_learner.ctx' in self.shapes:
      return 'matching'
    if 'fc_gl.weight' in self.shapes:
      stage = 'avqa' if 'fc_ans.weight' in self.shapes else 'avqa_grounding'
      part = '' if any(name.startswith('swin.') for name in self.shapes) else '_head'
      return stage + part + ('_grad' if self.grad_names else '')
    if 'audio_cug.han_encoder.norm_x.bias' in self.shapes:
      part = '' if any(name.startswith('swin.') for name in self.shapes) else '_head'
      return 'avvp' + part + ('_grad' if self.grad_names else '')
    if 'layers.0.blocks.0.attn.logit_scale' in self.shapes:
      return 'swin_v2'
    if 'layers.0.blocks.0.attn.relative_position_bias_table' in self.shapes:
      return 'htsat'
    if self.shapes and all(name.startswith('bn0.') for name in self.shapes):
      return 'front_end'
    if {'variant', 'tokens_in'} <= settings.keys() and 'conv_adapter.weight' in self.shapes:
      return 'dgsct_adapter'
    if 'tpavi_b1.theta.weight' in self.shapes:
      return 'avs' if any(name.startswith('swin.') for name in self.shapes) else 'avs_head'
    if 'align_channel.weight' in self.shapes:
      return 'avs_tpavi'
    if {'logits_0', 'mask_0'} <= inputs and 'metric_0' in self.outputs:
      return 'avs_metrics'
    if 'shared_tokens' in self.shapes:
      return 'ma_avt'
    if 'mlp_class.weight' in self.shapes:
      return 'lavish_ave'
    if 'my_tokens' in self.shapes:
      return 'lavish_adapter'
    if 'preemphasis' in settings:
      return 'kaldi'
    if {'is_event_0', 'event_0', 'fg_0'} <= inputs and 'accuracy_0' in self.outputs:
      return 'ave_metrics'
    if {'true_audio_0', 'true_visual_0'} <= inputs and 'event_iou' in settings:
      return 'avvp_metrics'
    return 'unknown'

  @property
  def training(self) -> bool:
    return any(name.startswith('after/') for name in self.outputs)

  @property
  def size(self) -> int:
    """Number of weights."""
    return sum(math.prod(shape) for shape in self.shapes.values())

  def weights(self) -> dict[str, np.ndarray]:
    return weights(self.shapes, self.seed)

  def inputs(self, rounding: int = 0) -> dict[str, jax.Array]:
    """The inputs; with `rounding`.

    The floating ones moved at random by at most one unit of float32.
    """
    arrays = {
      i['name']: fill().array(i['name'], tuple(i['shape']), i['seed'], i['kind'])
      for i in self.json['inputs']
    }
    if not rounding:
      return jax.tree.map(jnp.asarray, arrays)
    rng, unit = np.random.default_rng(rounding), np.finfo(np.float32).eps
    return {
      name: jnp.asarray(
        x * (1 + rng.uniform(-unit, unit, x.shape).astype(np.float32))
        if x.dtype == np.float32
        else x
      )
      for name, x in arrays.items()
    }

  def gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients by their released names, and their norms, as the outputs of a case."""
    norms = [np.linalg.norm(np.asarray(grads[name], np.float64)) for name in self.grad_names]
    return {f'grad/{name}': x for name, x in grads.items()} | {'grad_norms': np.asarray(norms)}

  def wanted(self) -> dict[str, np.ndarray]:
    """The stored outputs.

    Large ones are thinned as `thin` does, single numbers stand in the JSON.
    """
    with np.load(FOLDER / f'{self.name}.npz') as stored:
      arrays = dict(stored)
    return {
      name: np.asarray(arrays[name] if name in arrays else output['value'])
      for name, output in self.outputs.items()
    }


def thin(x: np.ndarray, output: dict[str, Any]) -> np.ndarray:
  """An output as it is stored."""
  assert list(x.shape) == output['shape'], (
    f'{output["name"]}: {x.shape} here, {output["shape"]} in the case'
  )
  return x.reshape(-1)[:: output['sampled']['stride']] if 'sampled' in output else x


def rms(x: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0


def compare(case: Case, got: dict[str, Any], relative: float = 1e-5) -> str:
  """Compares every output of a case.

  Raises AssertionError with all that are too far, else tells the worst.

  The rms of the difference may be 10 times what the reference itself loses to float32, or
  `relative` of the wanted rms where the case does not say. A single number's own loss is one draw,
  at times far below what float32 can hold; there the folder's README allows 1e-5 of the number.
  """
  wanted, lines, failed = case.wanted(), [], []
  for name, output in case.outputs.items():
    if name not in got:
      failed.append(f'{name}: not computed')
      continue
    ours = thin(np.asarray(got[name]), output)
    want = wanted[name].reshape(ours.shape)
    if (
      name == 'logmel' and (quiet := want < -60).any()
    ):  # decibels of rounding noise, see specs Q22
      if not np.abs(ours - want)[quiet].max() <= 1:
        failed.append(f'{name}: quiet bins are more than 1 dB off')
      ours, want = ours[~quiet], want[~quiet]
    stated = output.get('float32_vs_float64', {}).get('rms')
    limit = 10 * stated if stated is not None else relative * rms(want)
    if stated is not None and want.size == 1:
      limit = max(limit, 1e-5 * rms(want))
    error = rms(ours.astype(np.float64) - want)
    line = f'{name}: rms of the difference {error:.2g}, {limit:.2g} allowed, '
    line += f'rms of the output {rms(want):.3g}'
    lines.append((error / max(limit, 1e-300), line))
    if not error <= limit:
      failed.append(line)
  assert not failed, (
    f'{case.name}: {len(failed)} of {len(case.outputs)} outputs are off:\n  ' + '\n  '.join(failed)
  )
  return f'{case.name}: {len(lines)} outputs; closest to its limit {max(lines)[1]}'


def compare_first(case: Case, attempts: Iterable[dict[str, Any]], relative: float) -> str:
  """`compare` for gradients, which jump where a ReLU's input crosses 0.

  Rounding decides the side for inputs that near 0. So a case holds if some rounding of its inputs
  gives all of its outputs within the limits that `compare` sets.
  """
  failures = []
  for attempt, got in enumerate(attempts):
    try:
      report = compare(case, got, relative)
    except AssertionError as error:
      failures.append(str(error))
      continue
    return report + (
      f'\n  with its inputs in rounding {attempt}, since as given {failures[0]}' if attempt else ''
    )
  raise AssertionError(failures[0])


def cases() -> list[Case]:
  if found := [Case(path) for path in sorted(FOLDER.glob('*.json'))]:
    return found
  raise ValueError(
    f'No golden cases in {FOLDER}; set GOLDEN_DIR to a folder with pairs of .json and .npz.'
  )
