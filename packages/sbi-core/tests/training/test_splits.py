import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.errors import TrainingError
from sbi_core.rng import stream
from sbi_core.training.splits import split_by_key


def test_equal_keys_stay_together_and_splits_are_disjoint():
    keys = stream(0).integers(-50, 50, 5000)
    splits = split_by_key(keys, seed=3)
    sides = [set(keys[rows]) for rows in splits[:3]]
    assert sum(len(side) for side in sides) == len(set(keys))
    assert_array_equal(np.sort(np.concatenate(splits[:3])), np.arange(5000))


def test_split_shares_are_as_asked():
    splits = split_by_key(np.arange(100_000), seed=1, val=0.2, test=0.05)
    # binomial: 5 standard deviations are 0.0063 and 0.0034
    assert_allclose(len(splits.val) / 1e5, 0.2, atol=0.0064)
    assert_allclose(len(splits.test) / 1e5, 0.05, atol=0.0035)


def test_a_row_keeps_its_side_when_rows_are_added_or_reordered():
    keys = np.arange(2000)
    few, many = split_by_key(keys[:1000], seed=1), split_by_key(keys, seed=1)
    assert_array_equal(few.test, many.test[many.test < 1000])
    back = split_by_key(keys[::-1], seed=1)
    assert_array_equal(np.sort(keys[::-1][back.test]), many.test)


def test_split_depends_on_the_seed_and_its_hash_says_so():
    a, b, again = (split_by_key(np.arange(1000), seed=s) for s in (1, 2, 1))
    assert a.hash != b.hash
    assert a.hash == again.hash


def test_an_empty_side_is_an_error():
    with pytest.raises(TrainingError, match="1 split key"):
        split_by_key(np.zeros(100, int), seed=0)


def test_negative_keys_name_the_side_themselves():
    keys = np.concatenate([np.arange(500), [-1] * 30, [-2] * 20, [-3] * 10])
    splits = split_by_key(keys, seed=2)
    alone = split_by_key(np.arange(500), seed=2)
    assert set(range(500, 530)) <= set(splits.train)
    assert set(range(530, 550)) <= set(splits.val)
    assert set(range(550, 560)) <= set(splits.test)
    assert_array_equal(splits.test[splits.test < 500], alone.test)
