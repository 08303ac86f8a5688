"""Matching pictures and sounds with the names of classes: few-shot, zero-shot, pre-training."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from dgsct_jax import models
from dgsct_jax.data import datasets, shots, targets, transforms
from dgsct_jax.data.clips import Clip
from dgsct_jax.data.kind import Kind
from dgsct_jax.data.pipeline import Dataset, Source
from dgsct_jax.models import clap, clip, htsat
from dgsct_jax.models.dual import DualEncoder
from dgsct_jax.models.heads import matching as head
from dgsct_jax.models.maple import DeepPrompts
from dgsct_jax.models.variants import Partial
from dgsct_jax.tasks import prompts, views
from dgsct_jax.tasks.inputs import audio_visual
from dgsct_jax.tasks.task import (
  Batch,
  Outputs,
  Task,
  View,
  Weighted,
  floats,
  mean_over_clips,
  share,
)
from dgsct_jax.tracks import Bars

Loss = Float[Array, ''] | float
BACKGROUND = 'background'
STREAMS = {'seen': 'visual_logits', 'heard': 'audio_logits', 'both': 'logits'}


def build(config: ml_collections.ConfigDict) -> Task:
  """CLIP and CLAP of `config.model`, `visual` with `text` and `audio` with `roberta`.

  `config.model.head`: `picture` and `sound`, the prompts; `learned`, words of the former are; their
  `start` and `name_at`, and `follows` if it is there (CoCoOp); `deep`, if it is there, how many
  blocks of CLIP have learned tokens of their own (MaPLe); `share`, `merge`, `exp_audio_scale`,
  `contrastive`, see `heads.matching`; `target`, what a clip is matched with: 'seconds', its classes
  second by second, 'clip', the class of the clip, or 'set', all classes of the clip; `background`,
  whether that is a class of seconds.
  `config.model.tokenizer`: see `prompts.of_clip` and `of_clap`. `config.loss.weights`: see
  `total_loss`. `config.data.classes`: names in place of the data set's.
  """
  fields, kind = config.model.head, datasets.of(config.data)
  names = tuple(config.data.classes) or kind.classes(config.data)
  if not names:
    raise ValueError(
      'There are no classes; give at least one name: --classes, or config.data.classes.'
    )
  make = functools.partial(make_target, kind, classes=len(names))
  target = make(fields.target, fields.background)
  if fields.background and fields.target != 'seconds':
    raise ValueError(
      f'config.model.head.background is True and .target is {fields.target!r}: only '
      "'seconds' may be background; set it to False."
    )
  of_clip = target if fields.target == 'set' else make('clip', False)
  names += (BACKGROUND,) * fields.background
  model = build_model(config, names)
  encoder = DualEncoder(model.clip.visual, model.clap.audio)
  shape = (config.data.segments,) * (fields.target == 'seconds') + (len(names),)
  inputs = audio_visual(config, encoder, target=floats(*shape))
  return Task(
    model=model,
    loss=functools.partial(loss, weights=config.loss.weights),
    metrics=functools.partial(metrics, background=fields.background),
    data=functools.partial(data, config.data, kind, inputs.decode, target, of_clip),
    primary='accuracy',
    inputs=inputs,
    constants=lambda variables: {'text': model.apply(variables, method='read')},
    show=functools.partial(show, names=names, encoder=encoder),
  )


def build_model(config: ml_collections.ConfigDict, names: Sequence[str]) -> head.Matching:
  """The model for classes of these names. Raises ValueError if the text towers cannot take them."""
  fields, dtype = config.model.head, jnp.dtype(config.model.dtype)
  text = clip.build_text(dtype=dtype, **config.model.text)
  roberta = clap.Roberta(dtype=dtype, **config.model.roberta)
  tokenizer = prompts.of_clip(config.model.tokenizer.clip, text.context)
  room = min(prompts.LONGEST, roberta.positions - clap.PADDING - 1)
  sounds = prompts.of_clap(config.model.tokenizer.clap, config.init.clap, room)
  classes = prompts.read(names, fields.picture, fields.sound, tokenizer, sounds)
  words = prompts.context(fields.picture, tokenizer)
  visual, audio = models.build_visual(config.model), models.build_audio(config.model)
  if not isinstance(visual, clip.CLIPVision) or not isinstance(audio, htsat.HTSAT):
    raise ValueError(
      f'config.model.visual.kind is {config.model.visual.kind!r} and .audio.kind is'
      f" {config.model.audio.kind!r}; names are matched by the towers of CLIP and CLAP: set 'clip'"
      " and 'htsat'."
    )
  deep = None
  if 'deep' in fields:
    deep = DeepPrompts(depth=fields.deep, width=text.width, seen_width=visual.width)
    if deep.tokens > words or deep.depth > min(text.depth, sum(visual.depths)):
      raise ValueError(
        f'config.model.head.deep is {deep.depth} and .picture {fields.picture!r}: CLIP has'
        f' {text.depth} blocks for texts and {sum(visual.depths)} for pictures, and {deep.tokens}'
        f' tokens take the place of the first words before the name, of which there are {words}.'
      )
    visual = visual.clone(prompts=deep)
  return head.Matching(
    deep,
    clip.CLIP(visual, text),
    clap.CLAP(audio, roberta, config.model.features, dtype),
    classes,
    models.build_exchange(config.model),
    Partial(head.Prompts, words, fields.name_at, fields.start, fields.get('follows', False))
    if fields.learned
    else None,
    fields.share,
    fields.merge,
    fields.exp_audio_scale,
    fields.contrastive,
    models.build_side(config.model),
    config.model.get('scan_layers', False),
  )


def make_target(
  kind: Kind, what: str, background: bool, *, classes: int
) -> tuple[grain.transforms.Map, ...]:
  """The transforms that give a record its `target`, see `build`.

  Raises:
    ValueError: there is no such target, or the data set has no labels for it.
  """
  match what:
    case 'seconds':
      return (targets.OfSeconds(classes, background),)
    case 'clip':
      return (targets.OfClip(classes),)
    case 'set':
      if kind.parsing is None:
        raise ValueError(
          "config.model.head.target is 'set'; the clips of this data set have one class each: set"
          " 'clip' or 'seconds'."
        )
      return (*kind.parsing, targets.OfSet())
  raise ValueError(f"config.model.head.target is {what!r}; choose 'seconds', 'clip' or 'set'.")


def data(
  fields: ml_collections.ConfigDict,
  kind: Kind,
  decode: tuple[grain.transforms.Map, ...],
  target: tuple[grain.transforms.Map, ...],
  of_clip: tuple[grain.transforms.Map, ...],
  split: str,
) -> Dataset:
  """Clips of `config.data` with their targets; in training `shots` of each class, if not 0.

  `draw`: the seed of their choice; −1: the first ones in the order of the data, as released.
  `of_clip`: the transforms that tell the classes of a clip, by which it is chosen.
  `blank` names the fields that are replaced by zeros.
  """
  if fields.classes and tuple(fields.classes) != kind.classes(fields):
    raise ValueError(
      f'config.data.classes names {len(fields.classes)} classes, the data set {fields.name} has'
      ' others; leave it empty to train or to score.'
    )
  records = kind.load(fields, split)
  chosen: Source = records
  if fields.shots and split == 'train':
    chosen = shots.choose(records, of_clip, fields.shots, None if fields.draw < 0 else fields.draw)
  keep = transforms.Keep(('video', 'wave', 'target'))
  return Dataset(chosen, (*decode, *target, transforms.Blank(tuple(fields.blank)), keep))


# Learning.


def loss(
  outputs: Outputs, batch: Batch, weights: Literal['fixed', 'shares', 'shares_released']
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """The losses of the valid clips, weighed as `total_loss` says, if there is more than `event`."""
  _, parts = mean_over_clips(loss_parts(outputs, batch), batch['valid'])
  if len(parts) == 1:
    return parts['event'], parts
  return jnp.asarray(total_loss(**parts, epoch=batch['epoch'], weights=weights)), parts


def loss_parts(outputs: Outputs, batch: Batch) -> dict[str, Float[Array, 'b']]:
  """The three losses of each clip.

  `event`: of the classes; where `batch['target']` is of every second, [b t c], the mean over these,
  and where it is of the clip alone, [b c], that of the mean score. `audio`: which of the pictures
  of the batch belong to the sound; `visual`: which of the sounds belong to the pictures; both of a
  contrastive model only.
  """
  target, logits = batch['target'], outputs['logits']
  if target.ndim == 2:
    event = cross_entropy(logits.mean(1), target)
  else:
    event = cross_entropy(logits, target).mean(1)
  if 'contrast' not in outputs:
    return {'event': event}
  contrast, valid = outputs['contrast'], batch['valid']
  return {
    'event': event,
    'audio': own_is_found(contrast, valid),
    'visual': own_is_found(contrast.T, valid),
  }


def cross_entropy(logits: Float[Any, '*n c'], target: Float[Any, '*n c']) -> Float[Array, '*n']:
  """−Σ target · log softmax; a target of zeros has no loss, as released."""
  return -jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), -1)


def own_is_found(logits: Float[Any, 'b b'], valid: Float[Any, 'b']) -> Float[Array, 'b']:
  """Cross entropy of finding the own one among all of a batch; padding is not among them."""
  logits = jnp.where(valid[None] > 0, logits, jnp.finfo(jnp.float32).min)
  return cross_entropy(logits, jnp.eye(len(logits))) * valid


def total_loss(
  event: Loss, audio: Loss, visual: Loss, epoch: Num[Any, ''] | float, weights: str = 'shares'
) -> Loss:
  """The mean losses of a batch as one.

  fixed: 500 event + 2 audio + 1.5 visual, from epoch 11 on 5 event (few-shot AVE).
  shares: each weighs its share of the sum of all and of the epoch, and 1 / epoch (LLP, pre-
  training).
  shares_released: the same, but for a misplaced parenthesis in the last weight (AVE
  classification).

  Args:
    event: of the classes.
    audio: of sounds with pictures.
    visual: of pictures with sounds.
    epoch: from 1 on.
    weights: which of the three. As released, gradients pass through them.
  """
  if weights == 'fixed':
    return jnp.where(epoch <= 10, 500.0, 5.0) * event + 2 * audio + 1.5 * visual
  if weights not in ('shares', 'shares_released'):
    raise ValueError(
      f"Losses cannot be weighed by {weights!r}; choose 'fixed', 'shares' or 'shares_released'."
    )
  sum_ = event + audio + visual
  share = lambda part: part / (epoch + sum_) + 1 / epoch
  last = share(visual)
  if weights == 'shares_released':
    last = visual / epoch + sum_ + 1 / epoch
  return share(event) * event + share(audio) * audio + last * visual


# Scores.


def metrics(outputs: Outputs, batch: Batch, background: bool) -> dict[str, Weighted]:
  """Accuracies in percent; of seconds or of clips, as the target is.

  accuracy: the likeliest class is right; of several classes of a clip the first, as released.
  visual_accuracy, audio_accuracy: the same by the scores of one stream alone.
  foreground_accuracy: of seconds that are not background. possible: seconds whose class has a name;
  background has none in zero-shot evaluation, and no model can be right there.
  any_accuracy: the likeliest class of a clip is one of its classes.
  """
  target = np.asarray(batch['target'])
  scores = {name: np.asarray(outputs[f'{name}logits']) for name in ('', 'visual_', 'audio_')}
  if target.ndim == 2:  # A clip is judged by its mean scores.
    scores = {name: of_seconds.mean(1, keepdims=True) for name, of_seconds in scores.items()}
    target = target[:, None]
  named = target.max(-1) > 0
  # A clip without any class does not count; a second does.
  counted = named if batch['target'].ndim == 2 else np.ones_like(named)
  best = {name: of_classes.argmax(-1) for name, of_classes in scores.items()}
  right = {name: named & np.equal(x, target.argmax(-1)) for name, x in best.items()}
  found = {f'{name}accuracy': share(x, counted) for name, x in right.items()}
  if batch['target'].ndim == 2:
    among = np.take_along_axis(target, best[''][..., None], -1)[..., 0] > 0
    return found | {'any_accuracy': share(among, counted)}
  events = target[..., : target.shape[-1] - background].max(-1) > 0
  return found | {
    'foreground_accuracy': share(right[''], events),
    'possible': share(named, counted),
  }


def show(clip: Clip, outputs: Outputs, *, names: tuple[str, ...], encoder: DualEncoder) -> View:
  """The likeliest class of each second, seen, heard and both, beside the truth if it is known."""
  there = views.present(clip)
  probability = {
    name: views.softmax(clip.join(np.asarray(outputs[field]))) for name, field in STREAMS.items()
  }
  timeline = [
    {'second': second} | judge({name: p[i] for name, p in probability.items()}, names, there[i])
    for i, second in enumerate(clip.seconds)
  ]
  index = lambda row, name: names.index(row[name]['class']) if row[name] else len(names)
  bars = [
    Bars(name, np.array([index(row, name) for row in timeline], int), names) for name in STREAMS
  ]
  if 'target' in clip.known:
    target = np.broadcast_to(clip.known['target'], (len(timeline), len(names)))
    bars.insert(0, Bars('true', np.where(target.any(-1), target.argmax(-1), len(names)), names))
  tracks = views.perception(
    clip, encoder, *(clip.join(outputs[name]) for name in ('visual_map', 'audio_map'))
  )
  lines = tuple(line(row) for row in timeline)
  return View(
    name='matches',
    title=' · '.join([clip.title, *clip.notes]),
    record={'classes': list(names), 'timeline': timeline},
    lines=lines,
    tracks=(*tracks, *bars),
    overlay=tracks[1],
    captions=lines,
  )


def judge(
  probability: Mapping[str, Float[np.ndarray, 'c']],
  names: tuple[str, ...],
  there: Bool[np.ndarray, '2'],
) -> dict[str, dict[str, Any] | None]:
  """The likeliest class of a second by each stream and by both, with all probabilities.

  They are shares among the named classes: they add up to 1 even where none of these fits. A stream
  in which there is nothing has none, and then both is what the other one says.
  """

  def likeliest(p: Float[np.ndarray, 'c']) -> dict[str, Any]:
    best = int(p.argmax())
    shares = {name: round(float(x), 4) for name, x in zip(names, p)}
    return {'class': names[best], 'probability': float(p[best]), 'probabilities': shares}

  seen, heard = (
    likeliest(probability[name]) if here else None for name, here in zip(STREAMS, there)
  )
  both = likeliest(probability['both']) if there.all() else seen or heard
  return {'seen': seen, 'heard': heard, 'both': both}


def line(row: dict[str, Any]) -> str:
  """A second as text: '1:07  seen dog 0.93 · heard church bell 0.41 · both dog 0.80'."""
  said = (
    f'{name} {row[name]["class"]} {row[name]["probability"]:.2f}' if row[name] else f'{name} –'
    for name in STREAMS
  )
  return f'{views.clock(row["second"])}  ' + ' · '.join(said)
