"""Golden cases of LAVISH: the front end, its adapter, the whole AVE model."""

from typing import Any

import jax

from dgsct_jax.models.kaldi import Fbank, fbank
from tests.parity.golden import Case


def run_front_end(case: Case) -> dict[str, jax.Array]:
  inputs = case.inputs()
  wave, long = inputs['wave'][None], inputs['wave_long'][None]
  got: dict[str, Any] = {
    'fbank_192': fbank(wave, 16000, 192, 83),
    'image_192': Fbank().apply({}, wave),
    'fbank_128': fbank(wave, 16000, 128, 160),
    'fbank_224': fbank(wave, 16000, 224, 70),
    'fbank_192_long': fbank(long, 16000, 192, 160),
  }
  return {name: x[0] for name, x in got.items()}
