"""Support score by noise: one percent of good objects at every error, strange ones at each."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.diagnostics.support_by_noise import SupportByNoise, typical_error

DIM = 6


def signal(n, rng):
    """A curve in six dimensions."""
    t = rng.normal(size=(n, 1))
    return np.concatenate([t, t**2, np.sin(t), 0.3 * t, -t, t + 1], 1)


def observed(n, rng, least=0.05, most=0.05, shift=0.0):
    """Noisy signals whose errors lie between two values."""
    err = 10 ** rng.uniform(np.log10(least), np.log10(most), (n, 1)) * np.ones(DIM)
    x = signal(n, rng) + shift * np.array([0, 0, 0, 1, 0, 0]) + err * rng.normal(size=(n, DIM))
    return Batch(x=x, x_err=err)


def scale(donors, rng):
    """Training has errors of 0.05 to 2."""
    trained = observed(12_000, rng, 0.05, 2.0)

    def alike(rows):
        err = donors.x_err.numpy()[rng.choice(rows, 4000)]
        return Batch(x=signal(4000, rng) + err * rng.normal(size=err.shape), x_err=err)

    return SupportByNoise(donors, trained, rng, observe=alike)


@pytest.mark.parametrize("error", [0.05, 0.3, 1.0, 2.0])
def test_at_every_error_at_most_one_percent_of_good_objects_are_flagged(error, rng):
    objects = observed(4000, rng, error, error)
    got = scale(objects, rng).compare(objects)[0]
    assert ((got >= 0) & (got <= 100)).all()
    assert (got > 99).mean() < 0.02  # 1 % +- 0.22 %: 4000 references and as many objects


def test_of_the_noisiest_objects_in_a_catalogue_one_percent_are_flagged(rng):
    objects = observed(6000, rng, 0.05, 2.0)
    scored = scale(objects, rng)
    noisiest = np.flatnonzero(typical_error(objects) > 1.6)
    assert len(noisiest) > 300
    assert (scored.compare(objects)[0][noisiest] > 99).mean() < 0.03
    # among simulations with the noise of training there were more than twice as many
    plain = objects.with_(x_err=None)
    assert (super(SupportByNoise, scored).compare(plain)[0][noisiest] > 99).mean() > 0.04


def test_strange_objects_are_flagged_whatever_their_error(rng):
    for error in (0.05, 0.3):
        objects = observed(200, rng, error, error, shift=30.0)
        percentile, far = scale(observed(200, rng, error, error), rng).compare(objects)
        assert (percentile > 99).all()
        assert far.all()


def test_noise_beyond_that_of_training_is_not_far_outside(rng):
    objects = observed(500, rng, 40.0, 40.0)
    scored = scale(objects, rng)
    percentile, far = scored.compare(objects)
    assert (percentile > 99).mean() < 0.03
    assert not far.any()
    assert super(SupportByNoise, scored).compare(objects.with_(x_err=None))[1].mean() > 0.5


def test_an_object_that_its_noise_explains_is_not_flagged(rng):
    noisy = observed(1, rng, 2.0, 2.0)
    x = signal(1, rng) + 2.0 * np.array([1.5, -1.5, 1.5, 1.5, -1.5, 1.5])  # chi2 of 13.5 for six
    odd = noisy.with_(x=x)
    assert scale(odd, rng).compare(odd)[0][0] < 99


def test_results_do_not_depend_on_how_objects_are_cut(rng):
    objects = observed(300, rng, 0.05, 2.0)
    scored = scale(objects, rng)
    whole = scored.compare(objects)[0]
    parts = [scored.compare(objects[np.arange(k, k + 100)])[0] for k in (0, 100, 200)]
    assert_array_equal(np.concatenate(parts), whole)
    assert scored.compare(objects[np.arange(0)])[0].shape == (0,)


def test_typical_error_is_that_of_the_observed_summaries():
    err = np.array([[0.1, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 0.0]])  # 0: not observed
    assert_allclose(typical_error(Batch(x=np.ones((2, 4)), x_err=err)), [0.2, 1.0])
