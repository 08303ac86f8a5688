"""Questions about composed clips with exact answers: MUSIC-AVQA's nine types, templates and format.

The templates are those of the released test file, without "Where is the performance?", which
composed clips cannot answer. Ambiguous words are defined here as follows:
  louder: by 2 dB or more. Playing longer: in more seconds. More rhythmic: in more separate runs of
    seconds. First, second, last, before, after: in the order in which they start to sound.
  voiceover: a sound whose source is never seen. Did not sound from beginning to end: never sounds.
  left, middle, right: thirds of the picture, by the mean place of the object; objects near a border
    between two thirds have no such name. On the left of: the only object further left.
A question is asked only if it has exactly one answer.
"""

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from dgsct_jax.data.questions import KINDS, PAD, Question

NUMBERS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
PLACES = ('left', 'middle', 'right')
ORDER = ('first', 'second', 'third', 'fourth', 'fifth')
NEAR = 0.03  # of the picture's width: how far apart two places are that have two names
LOUDER = 2.0  # dB

Candidate = tuple[tuple[str, ...], str]  # the values of the slots; the answer


class Thing(NamedTuple):
  """An object, or the sound off screen."""

  name: str
  x: float  # mean place over the picture's width; nan: not in the picture
  on: Bool[np.ndarray, 't']
  level: float  # dB

  @property
  def place(self) -> str:
    """'left', 'middle', 'right', or '' near a border."""
    near = np.abs(self.x - np.array([1.0, 2.0]) / 3).min() < NEAR
    return '' if np.isnan(self.x) or near else PLACES[min(2, int(self.x * 3))]

  @property
  def sounds(self) -> bool:
    """Whether it sounds at all."""
    return bool(self.on.any())

  @property
  def start(self) -> int:
    """The first second in which it sounds."""
    return int(self.on.argmax())

  @property
  def seconds(self) -> int:
    """The number of seconds in which it sounds."""
    return int(self.on.sum())

  @property
  def runs(self) -> int:
    """The number of separate runs of seconds in which it sounds."""
    return int((np.diff(self.on.astype(int), prepend=0) == 1).sum())


class Facts(NamedTuple):
  """All facts of a clip that questions refer to."""

  classes: tuple[str, ...]
  objects: tuple[Thing, ...]
  offscreen: tuple[Thing, ...]

  @property
  def sources(self) -> tuple[Thing, ...]:
    """Whatever sounds, seen or not."""
    return tuple(thing for thing in self.objects + self.offscreen if thing.sounds)

  @property
  def playing(self) -> tuple[Thing, ...]:
    """The objects that sound."""
    return tuple(thing for thing in self.objects if thing.sounds)


Maker = Callable[[Facts], Iterator[Candidate]]  # all that a template can ask of a clip


def facts(record: Mapping[str, np.ndarray], classes: Sequence[str], width: int) -> Facts:
  """Facts of a record of `dataset.py`, whose pictures are `width` pixels wide."""
  things = []
  sources, boxes = record['sources'], record['boxes']
  for i in np.flatnonzero(sources >= 0):
    on, level, x = record['sounding'][:, i], float(record['level'][i]), np.nan
    if i < len(sources) - 1:
      shown = boxes[boxes[:, i].any(-1), i]
      x = float(shown[:, [0, 2]].mean() / width)
    things.append(Thing(classes[sources[i]], x, on, level))
  split = len(things) - int(sources[-1] >= 0)
  return Facts(tuple(classes), tuple(things[:split]), tuple(things[split:]))


def about(
  record: Mapping[str, np.ndarray],
  classes: Sequence[str],
  width: int,
  video: str,
  rng: np.random.Generator,
  each: int = 1,
) -> list[Question]:
  """Up to `each` questions of each type that the clip permits.

  All answers that a template can have are equally likely.
  """
  known = facts(record, classes, width)
  questions: dict[tuple[tuple[str, str], str, tuple[str, ...]], Question] = {}
  for kind in KINDS:
    askable = [
      (text, candidates)
      for *given, text, make in TEMPLATES
      if tuple(given) == kind and (candidates := list(make(known)))
    ]
    for _ in range(each if askable else 0):
      text, candidates = askable[rng.integers(len(askable))]
      answers = sorted({answer for _, answer in candidates})
      answer = answers[rng.integers(len(answers))]
      slots = [values for values, given in candidates if given == answer]
      values = slots[rng.integers(len(slots))]
      questions.setdefault(
        (kind, text, values),
        Question(
          video_id=video,
          question_id=len(questions),
          type=json.dumps(kind),
          question_content=text,
          templ_values=json.dumps(values),
          question_deleted=0,
          anser=answer,
        ),
      )
  return list(questions.values())


def vocabulary(classes: Sequence[str]) -> tuple[list[str], list[str]]:
  """All words that questions can have, the padding first, and all answers."""
  text = (word for *_, text, _ in TEMPLATES for word in text[:-1].split(' ') if '<' not in word)
  values = (*PLACES, *ORDER, 'last', 'leftest', 'rightest', 'loudest', 'lowest', 'before', 'after')
  words = dict.fromkeys((PAD, *text, *values, *classes))
  answers = ('yes', 'no', *NUMBERS, *PLACES, 'simultaneously', *classes)
  return list(words), list(answers)


def _yes(value: bool) -> str:
  return 'yes' if value else 'no'


def _number(things: Collection[object]) -> str:
  return NUMBERS[len(things)] if len(things) < len(NUMBERS) else 'more than ten'


def _count(things: Callable[[Facts], Collection[object]]) -> Maker:
  """A question for a number, without slots."""
  return lambda known: iter([((), _number(things(known)))])


def _named(things: Sequence[Thing]) -> dict[str, Thing]:
  """The things that are the only ones of their class, by name."""
  names = [thing.name for thing in things]
  return {thing.name: thing for thing in things if names.count(thing.name) == 1}


def _placed(things: Sequence[Thing]) -> dict[str, Thing]:
  """The things that are alone in their third of the picture, by place."""
  if not all(thing.place for thing in things):
    return {}
  places = [thing.place for thing in things]
  return {thing.place: thing for thing in things if places.count(thing.place) == 1}


def _beside(known: Facts, thing: Thing) -> Iterator[tuple[str, Thing]]:
  """('left', the only object further left), and the same for the right."""
  others = [other for other in known.objects if other is not thing]
  if any(abs(other.x - thing.x) < NEAR for other in others):
    return
  for side, there in (('left', lambda o: o.x < thing.x), ('right', lambda o: o.x > thing.x)):
    neighbours = [other for other in others if there(other)]
    if len(neighbours) == 1:
      yield side, neighbours[0]


def _ends(things: Sequence[Thing]) -> Iterator[tuple[str, Thing]]:
  """('first', the one that starts before all others), ('last', the one that starts after them)."""
  if len(things) < 2:
    return
  starts = sorted(thing.start for thing in things)
  for thing in things:
    if thing.start == starts[0] < starts[1]:
      yield 'first', thing
    if thing.start == starts[-1] > starts[-2]:
      yield 'last', thing


def _louder(a: Thing, b: Thing) -> str:
  return '' if abs(a.level - b.level) < LOUDER else _yes(a.level > b.level)


def _rhythmic(a: Thing, b: Thing) -> str:
  return '' if a.runs == b.runs else _yes(a.runs > b.runs)


def _longer(a: Thing, b: Thing) -> str:
  return '' if a.seconds == b.seconds else _yes(a.seconds > b.seconds)


def _present(things: Callable[[Facts], Sequence[Thing]], count: int) -> Maker:
  """Whether all of `count` classes are among the things."""

  def make(known: Facts) -> Iterator[Candidate]:
    names = {thing.name for thing in things(known)}
    for values in itertools.permutations(known.classes, count):
      yield values, _yes(names.issuperset(values))

  return make


def _compare(answer: Callable[[Thing, Thing], str]) -> Maker:
  """Two sources by name."""

  def make(known: Facts) -> Iterator[Candidate]:
    for (a, first), (b, second) in itertools.permutations(_named(known.sources).items(), 2):
      if reply := answer(first, second):
        yield (a, b), reply

  return make


def _compare_places(answer: Callable[[Thing, Thing], str], named: bool) -> Maker:
  """Two sounding objects by place, with their names or without."""

  def make(known: Facts) -> Iterator[Candidate]:
    placed = {place: thing for place, thing in _placed(known.objects).items() if thing.sounds}
    for (a, first), (b, second) in itertools.permutations(placed.items(), 2):
      if reply := answer(first, second):
        yield (first.name, a, second.name, b) if named else (a, b), reply

  return make


def _how_many_seen(known: Facts) -> Iterator[Candidate]:
  for name in known.classes:
    yield (name,), _number([thing for thing in known.objects if thing.name == name])


def _how_many_sounding(known: Facts) -> Iterator[Candidate]:
  for name in {thing.name: None for thing in known.objects}:
    yield (name,), _number([thing for thing in known.playing if thing.name == name])


def _what_is_it(known: Facts) -> Iterator[Candidate]:
  if len(known.objects) == 1:
    yield (), known.objects[0].name


def _outermost(known: Facts) -> Iterator[Candidate]:
  ordered = sorted(known.objects, key=lambda thing: thing.x)
  for word, (end, next_) in (('leftest', (0, 1)), ('rightest', (-1, -2))):
    if len(ordered) > 1 and abs(ordered[end].x - ordered[next_].x) > NEAR:
      yield (word,), ordered[end].name


def _on_the_side(known: Facts) -> Iterator[Candidate]:
  for name, thing in _named(known.objects).items():
    for side, other in _beside(known, thing):
      yield (side, name), other.name


def _from_the_video(known: Facts) -> Iterator[Candidate]:
  yield (), _yes(not known.offscreen)


def _voiceover(known: Facts) -> Iterator[Candidate]:
  yield (), _yes(bool(known.offscreen))


def _always(known: Facts) -> Iterator[Candidate]:
  for name, thing in _named(known.objects).items():
    yield (name,), _yes(bool(thing.on.all()))


def _where_loudest(known: Facts) -> Iterator[Candidate]:
  ordered = sorted(known.playing, key=lambda thing: thing.level)
  for word, (end, next_) in (('loudest', (-1, -2)), ('lowest', (0, 1))):
    if len(ordered) > 1 and ordered[end].place and _louder(ordered[end], ordered[next_]):
      yield (word,), ordered[end].place


def _first_from_side(known: Facts) -> Iterator[Candidate]:
  placed = _placed(known.objects)
  for word, thing in _ends(known.sources):
    for place, other in placed.items():
      yield (word, place), _yes(thing is other)


def _beside_the_first(known: Facts) -> Iterator[Candidate]:
  for word, thing in _ends(known.playing):
    for side, other in _beside(known, thing):
      yield (side, word), other.name


def _same_time(known: Facts) -> Iterator[Candidate]:
  for name, thing in _named(known.sources).items():
    others = {
      other.name for other in known.sources if other is not thing and (other.on & thing.on).any()
    }
    if len(others) == 1:
      yield (name,), others.pop()


def _where_first(known: Facts) -> Iterator[Candidate]:
  for word, thing in _ends(known.playing):
    if thing.place:
      yield (word,), thing.place


def _comes_in(known: Facts) -> Iterator[Candidate]:
  starts = [thing.start for thing in known.sources]
  for word, thing in zip(ORDER, sorted(known.sources, key=lambda thing: thing.start)):
    if starts.count(thing.start) > 1:
      return
    yield (word,), thing.name


def _next_to_start(known: Facts) -> Iterator[Candidate]:
  """The one that starts right before or after another."""
  ordered = sorted(known.sources, key=lambda thing: thing.start)
  if len({thing.start for thing in ordered}) < len(ordered):
    return
  named = _named(known.sources)
  for a, b in itertools.pairwise(ordered):
    if b.name in named:
      yield ('before', b.name), a.name
    if a.name in named:
      yield ('after', a.name), b.name


def _which_first(known: Facts) -> Iterator[Candidate]:
  """Of several objects of one class, the place of the one that starts first or last."""
  for name in {thing.name: None for thing in known.playing}:
    group = [thing for thing in known.playing if thing.name == name]
    placed = set(_placed([thing for thing in known.objects if thing.name == name]))
    if len(group) < 2:
      continue
    for word, extreme in (('first', min), ('last', max)):
      start = extreme(thing.start for thing in group)
      together = [thing for thing in group if thing.start == start]
      if len(together) == len(group):
        yield (name, word), 'simultaneously'
      elif len(together) == 1 and together[0].place in placed:
        yield (name, word), together[0].place


def _types(things: Sequence[Thing]) -> set[str]:
  return {thing.name for thing in things}


A, V, AV = 'Audio', 'Visual', 'Audio-Visual'
TEMPLATES: tuple[tuple[str, str, str, Maker], ...] = (
  (A, 'Counting', 'Is there a <Object> sound?', _present(lambda k: k.sources, 1)),
  (A, 'Counting', 'Are there <Object> and <Object> sound?', _present(lambda k: k.sources, 2)),
  (
    A,
    'Counting',
    'How many musical instruments were heard throughout the video?',
    _count(lambda k: k.sources),
  ),
  (A, 'Comparative', 'Is the <Object> louder than the <Object>?', _compare(_louder)),
  (A, 'Comparative', 'Is the <Object> more rhythmic than the <Object>?', _compare(_rhythmic)),
  (A, 'Comparative', 'Is the <Object> playing longer than the <Object>?', _compare(_longer)),
  (V, 'Counting', 'Is there a <Object> in the entire video?', _present(lambda k: k.objects, 1)),
  (
    V,
    'Counting',
    'Are there <Object> and <Object> instruments in the video?',
    _present(lambda k: k.objects, 2),
  ),
  (
    V,
    'Counting',
    'How many types of musical instruments appeared in the entire video?',
    _count(lambda k: _types(k.objects)),
  ),
  (V, 'Counting', 'How many <Object> are in the entire video?', _how_many_seen),
  (V, 'Location', 'What kind of musical instrument is it?', _what_is_it),
  (V, 'Location', 'What kind of instrument is the <LRer> instrument?', _outermost),
  (V, 'Location', 'What is the instrument on the <LR> of <Object>?', _on_the_side),
  (AV, 'Existential', 'Is this sound from the instrument in the video?', _from_the_video),
  (AV, 'Existential', 'Is the <Object> in the video always playing?', _always),
  (AV, 'Existential', 'Is there a voiceover?', _voiceover),
  (AV, 'Counting', 'How many instruments are sounding in the video?', _count(lambda k: k.playing)),
  (
    AV,
    'Counting',
    'How many types of musical instruments sound in the video?',
    _count(lambda k: _types(k.playing)),
  ),
  (
    AV,
    'Counting',
    'How many instruments in the video did not sound from beginning to end?',
    _count(lambda k: [thing for thing in k.objects if not thing.sounds]),
  ),
  (AV, 'Counting', 'How many sounding <Object> in the video？', _how_many_sounding),
  (AV, 'Location', 'Where is the <LL> instrument?', _where_loudest),
  (AV, 'Location', 'Is the <FL> sound coming from the <LR> instrument?', _first_from_side),
  (
    AV,
    'Location',
    'What is the <LR> instrument of the <FL> sounding instrument?',
    _beside_the_first,
  ),
  (
    AV,
    'Location',
    'Which is the musical instrument that sounds at the same time as the <Object>?',
    _same_time,
  ),
  (
    AV,
    'Comparative',
    'Is the <Object> on the <LR> louder than the <Object> on the <LR>?',
    _compare_places(_louder, named=True),
  ),
  (
    AV,
    'Comparative',
    'Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?',
    _compare_places(_rhythmic, named=True),
  ),
  (
    AV,
    'Comparative',
    'Is the instrument on the <LR> louder than the instrument on the <LR>?',
    _compare_places(_louder, named=False),
  ),
  (
    AV,
    'Comparative',
    'Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?',
    _compare_places(_rhythmic, named=False),
  ),
  (AV, 'Temporal', 'Where is the <FL> sounding instrument?', _where_first),
  (AV, 'Temporal', 'What is the <TH> instrument that comes in?', _comes_in),
  (AV, 'Temporal', 'Which instrument makes sounds <BA> the <Object>?', _next_to_start),
  (AV, 'Temporal', 'Which <Object> makes the sound <FL>?', _which_first),
)
