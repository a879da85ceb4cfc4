"""Certification of the network for patterns of observed bands."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

from sbi_core import stream
from sbi_sedflow.certify import _COVERAGE, _MOCKS, MaskCheck, Masks
from sbi_sedflow.derived import DERIVED

ALL = np.ones(7, bool)


class Guess:
    """A posterior that ignores the data: the prior, shifted or narrowed."""

    def __init__(self, simulator, change=lambda theta: theta):
        self.space, self.change = simulator.parameters, change

    def sample(self, observations, draws, *, seed):
        n = len(observations)
        theta = self.space.sample(draws * n, stream(seed, "guess")).reshape(draws, n, -1)
        return SimpleNamespace(values=self.change(theta))


def test_a_calibrated_posterior_is_certified(toy):
    check = Masks(toy, Guess(toy))(ALL)
    assert check.certified
    assert check.quantities == toy.parameters.dim + len(DERIVED)
    assert check.share == pytest.approx(0.4, abs=0.02)


def narrow(theta):
    return theta.mean(0) + 0.7 * (theta - theta.mean(0))


def shifted(theta):
    theta[..., 0] += 0.3  # 0.2 standard deviations of log M
    return theta


@pytest.mark.parametrize("change", [narrow, shifted])
def test_a_posterior_that_is_too_narrow_or_off_is_not_certified(toy, change):
    check = Masks(toy, Guess(toy, change), mocks=2000)(ALL)
    assert not check.certified
    assert check.p < 1e-4


def test_a_pattern_that_training_hardly_has_is_not_tested(toy, monkeypatch):
    monkeypatch.setattr("sbi_sedflow.certify._RAREST", 0.01)
    only_f = np.array([True, *6 * [False]])
    masks = Masks(toy, Guess(toy), mocks=10)
    assert np.isnan(masks(only_f).p)
    assert not masks(only_f).certified
    assert masks.name(only_f) == "F"


def test_nothing_observed_is_the_prior_and_certified(toy):
    assert Masks(toy, Guess(toy), mocks=10)(~ALL).certified


def test_coverage_alone_can_fail():
    assert MaskCheck(0.1, 0.5, "x", 0.715, 17).certified
    assert not MaskCheck(0.1, 0.5, "x", 0.725, 17).certified
    assert not MaskCheck(0.1, 0.5, "x", 0.635, 17).certified


def test_a_calibrated_posterior_seldom_fails():
    """At most 1 % of patterns by each of the two tests, whatever the correlation of quantities."""
    quantities, half = 18, round(_COVERAGE * _MOCKS)
    centre = round(0.68 * _MOCKS)
    inside = binom(_MOCKS, 0.68)
    outside = inside.cdf(centre - half) + inside.sf(centre + half - 1)
    assert quantities * outside < 0.0125
