"""What each field of a config may be. Checked at the start of a run, before any work is done."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
from flax import traverse_util


class Rule(NamedTuple):
  """What values a field may have, in words, and whether a value is one of them."""

  words: str
  holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Rule:
  """A whole number."""
  holds = lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most
  return Rule(f'a whole number from {least:,} to {most:,}', holds)


def real(least: float, most: float = math.inf, above: bool = False) -> Rule:
  """A finite number; `above`: not `least` itself."""

  def holds(x: Any) -> bool:
    number = isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
    return number and least <= x <= most and not (above and x == least)

  low = f'above {least:g}' if above else f'from {least:g}'
  return Rule(f'a finite number {low}' + (f' to {most:g}' if math.isfinite(most) else ''), holds)


def one_of(*values: Any) -> Rule:
  """One of some values, of the same type."""
  holds = lambda x: any(type(x) is type(value) and x == value for value in values)
  return Rule(f'one of {", ".join(map(repr, values))}', holds)


def each(rule: Rule, least: int = 0, most: int = 1 << 16) -> Rule:
  """A sequence of values of one rule."""
  counts = f'{least} or more' if most == 1 << 16 else str(least) if least == most else None
  words = f'a tuple of {counts or f"{least} to {most}"}, each {rule.words}'
  return Rule(
    words,
    lambda x: isinstance(x, tuple | list) and least <= len(x) <= most and all(map(rule.holds, x)),
  )


def pair(rule: Rule) -> Rule:
  """The two ends of a range, in order."""
  both = each(rule, 2, 2)
  return Rule(f'(least, most), each {rule.words}', lambda x: both.holds(x) and bool(x[0] <= x[1]))


def either(*rules: Rule) -> Rule:
  """What any of the rules permits."""
  words = ', or '.join(rule.words for rule in rules)
  return Rule(words, lambda x: any(rule.holds(x) for rule in rules))


def _compiles(text: Any) -> bool:
  try:
    return isinstance(text, str) and bool(re.compile(text))
  except re.error:
    return False


SHARE = real(0, 1)
FLAG = one_of(False, True)
EMPTY = Rule('()', lambda x: isinstance(x, tuple | list) and not x)
TEXT = Rule('a text', lambda x: isinstance(x, str))
PATTERN = Rule('a regular expression', _compiles)
COUNT = whole(1, 1 << 31)  # of clips, steps, epochs
SIZE = whole(1, 1 << 16)  # of an axis of an array
SIZES = each(SIZE, 1)
FACTOR = Rule(
  'a pair (regular expression, number from 0)',
  lambda x: (
    isinstance(x, tuple | list) and len(x) == 2 and PATTERN.holds(x[0]) and real(0).holds(x[1])
  ),
)

# The first rule whose name matches that of a field holds for it. A field without a rule is not
# checked: configs of tasks from elsewhere have fields that are not known here, and a text that
# names one of several things is compared with these where it is used.
RULES: tuple[tuple[str, Rule], ...] = (
  (r'seed|data\.seed', whole(0, (1 << 31) - 1)),
  (r'trainable', each(PATTERN)),
  (r'task|(init|parts)\..*', TEXT),
  (r'frozen_dtype|model\.dtype', one_of('float32', 'bfloat16')),
  (r'select_on', one_of('val', 'test')),
  (r'log_steps|save_steps|eval_epochs|keep', COUNT),
  (r'eval_batch', whole(0, 1 << 31)),
  (r'mesh', each(either(one_of(-1), COUNT), 2, 2)),
  (r'profile', either(EMPTY, pair(COUNT))),
  # The optimiser.
  (r'optim\.name', one_of('adam', 'adamw')),
  (r'optim\.lr', real(0, 1e3, above=True)),
  (r'optim\.schedule', one_of('step', 'cosine', 'constant')),
  (r'optim\.(warmup_steps|patience)', whole(0, 1 << 31)),
  (r'optim\.(decay_epochs|epochs)', COUNT),
  (r'optim\.decay_rate', real(0, 1, above=True)),
  (r'optim\.accumulate', either(COUNT, one_of('released', 'released_lavish'))),
  (r'optim\.(clip_norm|weight_decay)', real(0)),
  (r'optim\.lr_by_path', each(FACTOR)),
  # The data.
  (r'data\.(batch|questions_at_once)', COUNT),
  (r'data\.workers', whole(0, 1024)),
  (r'data\.segments|data\.knobs\.(segments|frames_per_second)', whole(1, 3600)),
  (r'data\.masked', whole(1, 3600)),
  (r'data\.size', whole(8, 8192)),
  (r'data\.clips\..*|data\.each\..*', COUNT),
  (r'data\.blank', each(one_of('video', 'wave'), 0, 2)),
  (r'data\.classes', each(TEXT)),
  (r'data\.(bg_prob|least)', SHARE),
  (r'data\.bg_mode', one_of('mismatch', 'label_only')),
  (r'data\.(crops)', FLAG),
  (r'data\.(draw|shots|hold_out)', whole(-1, 1 << 31)),
  (r'data\.source', one_of('shapes', 'stamps')),
  (r'data\.(kind|name|dir|media|pseudo|cache_features)', TEXT),
  (r'data\.knobs\.size', whole(8, 8192)),
  (r'data\.knobs\.(events)', pair(whole(1, 64))),
  (r'data\.knobs\.(distractors)', pair(whole(0, 64))),
  (r'data\.knobs\.scale', pair(real(0, 1, above=True))),
  (r'data\.knobs\.level', pair(real(-120, 60))),
  (r'data\.knobs\.grain', real(0, 255)),
  (r'data\.knobs\.(offscreen|repeats|heard|seen|hiss|.*_switching)', SHARE),
  (r'data\.knobs\.motion', real(0, 16)),
  (r'(data\.knobs|model\.audio)\.sample_rate', whole(8, 384000)),
  # The model.
  (r'model\.backbone_mode', one_of('eval', 'train')),
  (r'model\.remat', one_of('none', 'cheap', 'blocks')),
  (r'model\.(scan_layers|spec_augment|audio\.(batch_stats|mixup))', FLAG),
  (r'model\.audio\.n_fft', whole(2, 8192)),
  (r'model\.audio\.(tile|hop|mel_bins|frames|size|width|patch|window)', whole(1, 8192)),
  (r'model\.audio\.fmax', real(0, 192000, above=True)),
  (r'model\.audio\.(shift|seconds|std)', real(0, 1e4, above=True)),
  (r'model\.audio\.mean', real(-1e6, 1e6)),
  (r'model\.visual\.image', whole(8, 8192)),
  (r'model\.visual\.(width|patch|window|features)', whole(1, 8192)),
  (r'model\.(visual|audio)\.depths', SIZES),
  (r'model\.(visual|audio|adapter|head)\.(kind|variant|name)', TEXT),
  (r'model\.(visual|audio)\.heads', either(whole(1, 1024), SIZES)),
  (r'model\.visual\.pretrained_windows', each(whole(0, 8192), 1)),
  (r'model\.visual\.pixels', each(each(real(-1e6, 1e6), 1, 3), 2, 2)),
  (r'model\..*\.(drop_path|dropout)', real(0, 0.999)),
  (r'model\.adapter\.(reduction|groups|gate_reduction)', whole(1, 8192)),
  (r'model\.adapter\.(tokens|width|stages)', SIZE),
  (r'model\.adapter\.(alpha|beta|gamma)|model\.head\.gamma', real(-1e3, 1e3)),
  (r'model\.adapter\.token_init', one_of('uniform', 'zeros')),
  (r'model\.adapter\.token_map', one_of('linear', 'resize', 'keep')),
  (r'model\.adapter\..*(gate|norm).*', FLAG),
  (r'model\.head\.(matching|widths)', each(SIZE)),
  (r'model\.head\.(share|swapped_share)', SHARE),
  (r'model\.head\.(match_weight|matching_weight|matching_frames)|loss\..*_weight', real(0)),
  (r'loss\..*_smoothing', SHARE),
  (r'loss\.modulation', real(0)),
  (r'model\.head\.(gate_width|.*_depth|heads|classes|answers|words|features|deep)', SIZE),
  (r'model\.head\.(width|prompts|shared_prompts)', whole(0, 1 << 16)),
  (
    r'model\.head\.(adapt_negatives|background|contrastive|exp_audio_scale|follows|gates|learned|lsa|swapped|tpavi|weak)'
    r'|loss\.modulation_noise',
    FLAG,
  ),
  (r'model\.head\.compared', one_of('shared', 'class', 'patches', 'attention', 'nearest')),
  (r'model\.head\.forget_bias', real(-1e3, 1e3)),
  (r'model\.(text|roberta)\.(?!variant).*|model\.(classes|features)', SIZE),
)


def check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError that names every field outside of its rule, its value and the rule."""
  if faults := list(_faults(config)):
    raise ValueError('Settings that cannot be used:\n' + '\n'.join(faults))


def _faults(config: ml_collections.ConfigDict) -> Iterator[str]:
  for name, value in fields(config).items():
    rule = rule_of(name)
    if rule and not rule.holds(value):
      yield f'  config.{name}={value!r}; give {rule.words}.'


def fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The values of a config by their whole names, a.b.c."""
  return traverse_util.flatten_dict(config.to_dict(), sep='.')


def rule_of(name: str) -> Rule | None:
  """The rule of a field, or None."""
  return next((rule for pattern, rule in RULES if re.fullmatch(pattern, name)), None)
