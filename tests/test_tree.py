"""Rules over paths, and the split that freezing rests on."""

import numpy as np
import pytest

from dgsct_jax import tree

PARAMS = {
  'encoder': {
    'visual': {'kernel': np.ones((2, 3)), 'bias': np.ones(3)},
    'exchange_0': {'gate': np.zeros(1)},
    'exchange_1': {'gate': np.zeros(1)},
  },
  'head': {'kernel': np.ones((3, 4))},
}


def test_split_then_merge_gives_the_tree_back():
  trainable, frozen = tree.split(PARAMS, ('encoder/exchange_.*', 'head/.*'))
  assert set(tree.flatten(frozen)) == {'encoder/visual/kernel', 'encoder/visual/bias'}
  merged = tree.merge(trainable, frozen)
  assert tree.flatten(merged).keys() == tree.flatten(PARAMS).keys()
  assert all(tree.flatten(merged)[p] is leaf for p, leaf in tree.flatten(PARAMS).items())


def test_everything_or_nothing_may_be_trainable():
  assert tree.split(PARAMS, ('.*',))[1] == {}
  assert tree.split(PARAMS, ())[0] == {}


def test_the_first_rule_that_matches_wins():
  found = tree.first_match(['a/x', 'a/y', 'b/x'], ['a/x', 'a/.*'], 'rules')
  assert found == {'a/x': 0, 'a/y': 1, 'b/x': None}


def test_a_rule_matches_the_whole_path():
  with pytest.raises(ValueError, match="'head' matches no parameter"):
    tree.split(PARAMS, ('head', 'encoder/.*'))


def test_all_rules_that_match_nothing_are_named_at_once():
  with pytest.raises(ValueError, match="config.trainable: 'temporal/.*'.*'localise/.*'"):
    tree.split(PARAMS, ('temporal/.*', 'head/.*', 'localise/.*'))


def test_a_rule_hidden_behind_earlier_ones_is_an_error():
  with pytest.raises(ValueError, match="'head/kernel' is never first: head/kernel already"):
    tree.split(PARAMS, ('head/.*', 'head/kernel'))


def test_a_broken_regular_expression_is_named():
  with pytest.raises(ValueError, match=r"config.trainable: 'head/\(' is not a regular"):
    tree.split(PARAMS, ('head/(',))


def test_the_table_counts_every_parameter_once():
  trainable, frozen = tree.split(PARAMS, ('encoder/exchange_.*', 'head/.*'))
  rows = {line.split()[0]: line.split()[1:] for line in tree.table(trainable, frozen).split('\n')}
  assert rows['encoder/exchange_*'] == ['2', '0', '2']
  assert rows['encoder/visual'] == ['0', '9', '9']
  assert rows['head'] == ['12', '0', '12']
  assert rows['total'] == ['14', '9', '23']
