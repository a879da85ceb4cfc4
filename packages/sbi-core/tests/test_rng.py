"""Streams: one root seed, a named stream for every use."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sbi_core.rng import as_generator, stream, torch_generator


def test_a_stream_is_a_function_of_seed_and_name():
    assert_array_equal(stream(1, "a", 2).random(5), stream(1, "a", 2).random(5))


@pytest.mark.parametrize("other", [(2, "a", 2), (1, "b", 2), (1, "a", 3), (1, 2, "a"), (1, "a")])
def test_any_other_name_is_another_stream(other):
    assert not np.isclose(stream(1, "a", 2).random(5), stream(*other).random(5)).any()


def test_streams_are_pinned():
    """A change here changes the numbers of every stored run: a results change."""
    assert stream(1, "simulate", 0).integers(0, 2**32, 2).tolist() == [2830380146, 2476437081]


def test_neighbouring_streams_are_not_correlated():
    """1000 shards of 100 numbers: correlation of neighbours, 5 sigma."""
    x = np.stack([stream(3, "simulate", k).standard_normal(100) for k in range(1000)])
    r = (x[1:] * x[:-1]).mean()
    assert abs(r) < 5 / np.sqrt(999 * 100)


def test_every_kind_of_source_is_accepted():
    gen = np.random.default_rng(1)
    assert as_generator(gen) is gen
    assert_array_equal(as_generator(5).random(3), as_generator(np.int64(5)).random(3))
    draws = [as_generator(torch.Generator().manual_seed(5)).random(3) for _ in range(2)]
    assert_array_equal(*draws)


@pytest.mark.parametrize("bad", [None, True, "5", 1.5])
def test_a_draw_that_could_not_be_repeated_is_refused(bad):
    with pytest.raises(TypeError, match="rng must be a numpy Generator, a torch Generator or an"):
        as_generator(bad)


def test_torch_generators_follow_the_source():
    one, two = (torch.rand(3, generator=torch_generator(5)) for _ in range(2))
    assert_array_equal(one, two)
    own = torch.Generator().manual_seed(1)
    assert torch_generator(own) is own
