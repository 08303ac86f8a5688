"""A page of models that need no training, for a browser: python -m tests.pages PORT."""

import sys

from configs import ave, avqa, avs_s4, zero_shot
from dgsct_jax import serve
from dgsct_jax.served import Limits, Served
from tests.test_predict import hear, left_sounds, reply, stand


def question_answering():
  """Of the vocabulary of MUSIC-AVQA, with the encoders of the tiny AVE model."""
  config, small = avqa.get_config(), ave.get_config('tiny').model
  config.model.visual, config.model.audio = small.visual, small.audio
  return config


if __name__ == '__main__':
  models = {
    name: Served(None, name, config, {(): stand(config, forward)})
    for name, config, forward in (
      ('events', ave.get_config('tiny'), hear),
      ('answers', question_answering(), reply),
      ('masks', avs_s4.get_config('tiny'), left_sounds),
    )
  }
  models['words'] = Served(None, 'words', zero_shot.get_config('tiny'))
  serve.launch(models, Limits(5, 30), '127.0.0.1', int(sys.argv[1]))
