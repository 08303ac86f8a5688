"""Names of classes as the text towers read them."""

import pytest
import tokenizers

from dgsct_jax.tasks import prompts

PICTURE, SOUND = 'a photo of a {}.', 'The sounds of {}'


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('roberta')
  bpe = tokenizers.ByteLevelBPETokenizer()
  bpe.train_from_iterator(['The sounds of'], 300, special_tokens=['<s>', '<pad>', '</s>'])
  bpe.save_model(str(folder))
  return folder


def read(names, vocabulary, picture=PICTURE):
  towers = prompts.of_clip('clip', 77), prompts.of_clap(str(vocabulary), '', 77)
  return prompts.read(names, picture, SOUND, *towers)


def test_names_become_prompts_of_both_towers(vocabulary):
  classes = read(('Frying_(food)', 'Baby_cry_infant_cry'), vocabulary)
  assert classes.lengths == (4, 4)
  assert classes.clip[0][:10] == (49406, 320, 1125, 539, 320, 38516, 263, 1559, 1818, 49407)
  spaced = read(('Frying (food)', 'Baby cry infant cry'), vocabulary)
  assert spaced.clip == classes.clip and spaced.clap != classes.clap


def test_as_many_words_are_learned_as_stand_before_the_name(vocabulary):
  tokenizer = prompts.of_clip('clip', 77)
  assert prompts.context(PICTURE, tokenizer) == 4
  assert prompts.context('{} in a film', tokenizer) == 0
  start = read(('dog',), vocabulary, 'X X X X {}.').clip[0][:7]
  assert start == (49406, 343, 343, 343, 343, 1929, 269)


@pytest.mark.parametrize(
  'names, told',
  [
    (('dog', 'cat', 'Dog'), "stand twice.*'dog', 'Dog'"),
    (('dog bark', 'dog_bark'), "'dog bark', 'dog_bark'"),
    (('dog', ' '), r"empty.*\[' '\]"),
    (('dog', 'very ' * 80), 'holds 77 tokens'),
  ],
)
def test_names_that_tell_no_class_are_refused(vocabulary, names, told):
  with pytest.raises(ValueError, match=told):
    read(names, vocabulary)


@pytest.mark.parametrize('prompt', ['a photo', '{} and {}', 'a {name}', '{', '{0}'])
def test_a_prompt_has_one_place_for_the_name(vocabulary, prompt):
  with pytest.raises(ValueError, match='config.model.head.picture is .*once'):
    read(('dog',), vocabulary, prompt)


def test_toy_towers_read_letters():
  towers = prompts.of_clip('letters', 12), prompts.of_clap('letters', '', 9)
  classes = prompts.read(('Ox', 'dog'), 'a {}.', '{}', *towers)
  a, d, g, o, x = (1 + ord(letter) for letter in 'adgox')
  space, stop = 1 + ord(' '), 1 + ord('.')
  assert classes.clip == (
    (257, a, space, o, x, stop, 258, *[0] * 5),
    (257, a, space, d, o, g, stop, 258, *[0] * 4),
  )
  assert classes.lengths == (2, 3)
  assert classes.clap[0] == (0, 3 + ord('O'), 3 + ord('x'), 2, *[1] * 5)
  with pytest.raises(ValueError, match="holds 9 tokens.*'hippopotamus'"):
    prompts.read(('hippopotamus',), '{}', '{}', prompts.of_clip('letters', 99), towers[1])


def test_a_tokenizer_that_is_not_there_is_named():
  with pytest.raises(ValueError, match="tokenizer.clip is 'bert'; set 'clip' or 'letters'"):
    prompts.of_clip('bert', 77)
  with pytest.raises(ValueError, match='tokenizer.clap is not given: name the tokenizer.json'):
    prompts.of_clap('', '', 77)


def test_the_vocabulary_lies_beside_the_weights(vocabulary):
  beside = prompts.of_clap('', str(vocabulary / 'clap.pt'), 77)
  named = prompts.of_clap(str(vocabulary), '', 77)
  assert (beside(['The sounds of']) == named(['The sounds of'])).all()
