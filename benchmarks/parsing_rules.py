"""What the scores of AVVP are worth: rules without any model, on the real annotations of LLP.

python -m benchmarks.parsing_rules --annotations=DIR [--split=test]

DIR holds the files AVVP_*.csv. Prints markdown: the five numbers by seconds and by events, first
with clips without true or predicted events counted as right, as released, then without them.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from dgsct_jax.data.datasets import llp
from dgsct_jax.tasks import avvp

ANNOTATIONS = flags.DEFINE_string('annotations', None, 'Folder of the label files.', required=True)
SPLIT = flags.DEFINE_string('split', 'test', 'val or test.')

NAMES = ('audio', 'visual', 'audio_visual', 'type', 'event')


def main(argv: list[str]) -> None:
  """Prints the scores of every rule."""
  del argv
  clips = llp.labels(Path(ANNOTATIONS.value))[SPLIT.value]
  print(f'{len(clips)} clips of {SPLIT.value}\n')
  print(f'| rule | empty clips | level | {" | ".join(NAMES)} |')
  print(f'| --- | --- | --- |{" --- |" * len(NAMES)}')
  for rule in rules(clips):
    means = score(clips, rule)
    for empty, told in (('', 'count as right'), (avvp.EMPTY, 'left out')):
      for level in avvp.LEVELS:
        cells = [f'{means[f"{level}_{name}{empty}"]:.1f}' for name in NAMES]
        print(f'| {rule} | {told} | {level} | {" | ".join(cells)} |')


def truth(clips: list[llp.Entry]) -> dict[str, np.ndarray]:
  """What is heard and seen, as a batch has it."""
  return {
    'audio': np.stack([llp.raster(clip.heard) for clip in clips]),
    'visual': np.stack([llp.raster(clip.seen) for clip in clips]),
  }


def rules(clips: list[llp.Entry]) -> dict[str, dict[str, np.ndarray]]:
  """What each rule hears and sees, from 0 to 1."""
  nothing = np.zeros((len(clips), llp.SECONDS, len(llp.CLASSES)))
  speech, weak = nothing.copy(), nothing.copy()
  speech[..., llp.CLASSES.index('Speech')] = 1
  for i, clip in enumerate(clips):
    weak[i, :, list(clip.events)] = 1
  return {
    'nothing': {'audio': nothing, 'visual': nothing},
    'speech, heard and seen': {'audio': speech, 'visual': speech},
    'speech, heard only': {'audio': speech, 'visual': nothing},
    'the label of the clip, heard and seen': {'audio': weak, 'visual': weak},
  }


def score(clips: list[llp.Entry], rule: str) -> dict[str, float]:
  """The metrics of the task, of a rule on all clips."""
  found = rules(clips)[rule]
  outputs = {f'{stream}_probability': on for stream, on in found.items()}
  outputs['logits'] = np.ones((len(clips), len(llp.CLASSES)))
  scored = avvp.metrics(outputs, truth(clips))
  return avvp.summarize({name: np.average(x, weights=w) for name, (x, w) in scored.items()})


if __name__ == '__main__':
  app.run(main)
