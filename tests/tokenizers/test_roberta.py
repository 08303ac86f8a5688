"""RoBERTa's tokenizer over a small vocabulary learned here; transformers' is the oracle."""

import json

import numpy as np
import pytest
import tokenizers

from dgsct_jax.tokenizers import roberta

TEXTS = ['The sounds of Church bell', 'The sounds of Frying_(food)', "a dog's bark, 24 times!"]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('roberta')
  bpe = tokenizers.ByteLevelBPETokenizer()
  bpe.train_from_iterator(
    TEXTS * 3, 400, special_tokens=['<s>', '<pad>', '</s>', '<unk>', '<mask>'], min_frequency=1
  )
  bpe.save_model(str(folder))
  return folder


def test_ids_are_those_of_transformers(folder):
  transformers = pytest.importorskip('transformers')
  theirs = transformers.RobertaTokenizer.from_pretrained(str(folder))
  want = theirs(TEXTS, padding='max_length', max_length=77)['input_ids']
  np.testing.assert_array_equal(roberta.encode(TEXTS, folder), want)
  theirs.save_pretrained(folder / 'whole')
  np.testing.assert_array_equal(roberta.encode(TEXTS, folder / 'whole' / 'tokenizer.json'), want)


def test_a_single_text_is_a_batch_of_one(folder):
  ids = roberta.encode(TEXTS[:1], folder)
  assert ids.shape == (1, 77) and ids[0, 0] == 0 and 2 in ids[0] and ids[0, -1] == 1


def test_a_text_that_is_too_long_is_told_and_never_cut(folder):
  with pytest.raises(ValueError, match=r"holds 5 tokens.*'The sounds of Church bell'"):
    roberta.encode(TEXTS, folder, context=5)


def test_a_missing_or_foreign_vocabulary_is_refused(folder, tmp_path):
  with pytest.raises(ValueError, match='No vocabulary of RoBERTa at .*vocab.json'):
    roberta.encode(TEXTS, tmp_path)
  (tmp_path / 'tokenizer.json').write_text(json.dumps({'version': '1.0'}))
  with pytest.raises(ValueError, match='is no tokenizer.json'):
    roberta.encode(TEXTS, tmp_path)
  (tmp_path / 'tokenizer.json').unlink()
  (tmp_path / 'vocab.json').write_text(json.dumps({'<s>': 1, '<pad>': 0, '</s>': 2}))
  (tmp_path / 'merges.txt').write_text('')
  with pytest.raises(ValueError, match='is no vocabulary of RoBERTa'):
    roberta._load.__wrapped__(tmp_path)
