"""OpenAI's tokenizer.

The ids of reference names, its cleaning, and golden prompts of all AVE classes.
"""

import numpy as np
import pytest

from dgsct_jax.data.datasets import ave
from dgsct_jax.tokenizers import clip
from tests.parity import golden

END = 49407
NAMES = {  # specs/few_zero_shot.md, section 3.1: a prompt's ids after its placeholders
  'Speech': (4902, 269),
  'Frying (food)': (38516, 263, 1559, 1818),
  'Baby cry infant cry': (1794, 6290, 19192, 6290, 269),
  'Clapping': (940, 1682, 269),
  'Church bell': (2735, 3718, 269),
  'Male speech, man speaking': (2801, 4902, 267, 786, 3714, 269),
  'Fixed-wing aircraft, airplane': (9393, 268, 1340, 7706, 267, 16451, 269),
  'Rodents, rats, mice': (532, 1517, 267, 19043, 267, 19030, 269),
  'Shofar': (552, 684, 625, 269),
  'background': (5994, 269),
}


@pytest.mark.parametrize('name', NAMES)
def test_reference_names_have_their_ids(name):
  (ids,) = clip.encode([f'X X X X {name}.'])
  want = [49406, 343, 343, 343, 343, *NAMES[name], END]
  np.testing.assert_array_equal(ids, want + [0] * (77 - len(want)))
  assert ids.argmax() == len(want) - 1


def test_the_first_words_of_released_prompts():
  assert clip.words('a photo of a') == [320, 1125, 539, 320]


def test_prompts_of_all_ave_classes_are_golden():
  (case,) = (case for case in golden.cases() if case.name == 'fewshot_full')
  names = [*ave.CLASSES, 'background']
  ids = clip.encode([f'X X X X {name.replace("_", " ")}.' for name in names])
  np.testing.assert_array_equal(ids, case.wanted()['prompt_ids'].reshape(ids.shape))


@pytest.mark.parametrize(
  'written, meant',
  [
    ('Rock &amp; roll', 'rock & roll'),
    ('Rock &amp;amp; roll', 'rock & roll'),
    ('Dog’s bark', "dog's bark"),
    ('  a \n dog\t', 'a dog'),
    ('ﬁre ａｌａｒｍ', 'fire alarm'),
    ('Cafe\u0301', 'caf\u00e9'),
  ],
)
def test_texts_are_cleaned_as_openai_does(written, meant):
  assert clip.clean(written) == meant
  assert clip.words(written) == clip.words(meant)


def test_an_ampersand_in_html_is_one_token():
  assert len(clip.words('rock &amp; roll')) == 3


def test_a_typographic_apostrophe_begins_a_clitic():
  assert clip.words('dog’s')[-1:] == clip.words("'s") and len(clip.words('dog’s')) == 2


def test_a_literal_end_token_ends_the_text():
  (ids,) = clip.encode(['dog <|endoftext|> cat'])
  assert ids[2] == END and ids.argmax() == 2 and (ids == END).sum() == 2


def test_digits_stand_alone_and_other_scripts_are_bytes():
  assert clip.words('24') == clip.words('2') + clip.words('4')
  assert len(clip.words('Привет')) > 0 and len(clip.words('犬')) > 0


def test_a_name_that_is_too_long_is_told_and_never_cut():
  long = 'very ' * 80 + 'long'
  with pytest.raises(ValueError, match=r"holds 77 tokens.*too long: 'very very .*\(83\)"):
    clip.encode(['a dog', long])
  assert clip.encode(['very ' * 75]).shape == (1, 77)


def test_ids_are_those_of_transformers(tmp_path):
  transformers = pytest.importorskip('transformers')
  import gzip
  import json

  bpe = clip._bpe()
  (tmp_path / 'vocab.json').write_text(json.dumps(bpe.get_vocab()))
  merges = gzip.decompress(clip.MERGES.read_bytes()).decode()
  (tmp_path / 'merges.txt').write_text('#version: 0.2\n' + merges)
  theirs = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))
  for name in (*NAMES, "it's 24 o'clock!", 'Ålesund, naïve façade', 'rock & roll -- (live)'):
    assert theirs(name)['input_ids'][1:-1] == clip.words(name)
