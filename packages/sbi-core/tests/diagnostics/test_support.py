"""Support score: one percent of good objects flagged, strange ones always."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.diagnostics.support import SupportScale, more_than_chance, support_percentile

N = 4000


@pytest.fixture
def simulated(rng):
    """A bent, correlated cloud: a Gaussian would not describe it."""
    u = rng.normal(size=(20_000, 2))
    x = np.stack([u[:, 0], u[:, 0] ** 2 + 0.3 * u[:, 1], u[:, 1], u.sum(1)], 1)
    return Batch(x=x)


def observe(simulated, rng, n=N, error=0.2, missing=0.0):
    x = simulated.x[-n:].numpy()
    err = np.full(x.shape, error)
    mask = rng.random(x.shape) >= missing
    mask[:, 0] |= ~mask.any(1)
    noisy = np.where(mask, x + err * rng.normal(size=x.shape), np.nan)
    return Batch(x=noisy, x_err=np.where(mask, err, np.nan), mask=mask)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("error", [0.02, 0.2, 2.0])
def test_one_percent_of_well_specified_objects_are_flagged(error, missing, simulated, rng):
    observed = observe(simulated, rng, error=error, missing=missing)
    got = support_percentile(observed, simulated[:-N], rng, references=8000)
    assert got.shape == (N,)
    assert ((got >= 0) & (got <= 100)).all()
    # sd of binomial(4000, 0.01): 0.16 %; of the threshold, from 5333 references: 0.14 %
    assert 0.001 < (got > 99).mean() < 0.019  # 4 sigma: false alarm 6e-5


def test_percentiles_of_well_specified_objects_are_uniform(simulated, rng):
    got = support_percentile(observe(simulated, rng), simulated[:-N], rng)
    counts, _ = np.histogram(got, bins=10, range=(0, 100))
    assert np.abs(counts / N - 0.1).max() < 0.03


@pytest.mark.parametrize("distance", [6.0, 50.0, 1e4, 1e12])
def test_a_far_outlier_is_flagged(distance, simulated, rng):
    observed = observe(simulated, rng, n=10)
    x = observed.x.clone()
    x[3, 2] += distance
    got = support_percentile(observed.with_(x=x), simulated[:-N], rng)
    assert got[3] > 99


def test_a_hole_of_the_cloud_is_flagged(simulated, rng):
    """Inside every marginal range and near the mean, but where no simulation lies."""
    hole = np.array([[1.5, -0.5, 0.0]])
    observed = Batch(x=hole, x_err=np.full((1, 3), 0.05))
    assert support_percentile(observed, Batch(x=simulated.x[:, :3]), rng)[0] > 99


def test_an_outlier_in_a_missing_element_does_not_count(simulated, rng):
    observed = observe(simulated, rng, n=500, missing=0.3)
    x = torch.where(observed.mask, observed.x, torch.tensor(1e9, dtype=observed.x.dtype))
    err = torch.where(observed.mask, observed.x_err, torch.tensor(1e-9, dtype=observed.x.dtype))
    seed = np.random.default_rng
    one = support_percentile(observed, simulated, seed(1))
    two = support_percentile(observed.with_(x=x, x_err=err), simulated, seed(1))
    assert_array_equal(one, two)


def test_objects_without_errors_or_mask_are_fine(simulated, rng):
    got = support_percentile(Batch(x=simulated.x[-50:]), simulated[:-50], rng)
    assert np.isfinite(got).all()


def test_one_object_with_one_element_is_fine(simulated, rng):
    mask = np.array([[True, False, False, False]])
    for value, flagged in ((0.1, False), (30.0, True)):
        x = np.array([[value, np.nan, np.nan, np.nan]])
        observed = Batch(x=x, x_err=np.where(mask, 0.1, np.nan), mask=mask)
        assert (support_percentile(observed, simulated, rng)[0] > 99) == flagged


def test_no_objects_have_no_score(simulated, rng):
    assert support_percentile(Batch(x=np.empty((0, 4))), simulated, rng).shape == (0,)


@pytest.mark.parametrize("shape", [(100,), (2, 8, 8)])
def test_long_data_and_images_are_compared_in_components(shape, rng):
    basis = rng.normal(size=(3, int(np.prod(shape))))
    clean = (rng.normal(size=(3000, 3)) @ basis).reshape(3000, *shape)
    x = clean[-200:] + 0.5 * rng.normal(size=(200, *shape))
    x[7] += 40.0 * rng.normal(size=shape)
    got = support_percentile(Batch(x=x, x_err=np.full(x.shape, 0.5)), Batch(x=clean[:-200]), rng)
    assert got[7] > 99
    assert (got > 99).sum() <= 10  # 2 expected of 199: false alarm 1e-4


def test_one_column_is_fine(rng):
    got = support_percentile(
        Batch(x=[[0.0], [100.0]], x_err=[[0.1], [0.1]]), Batch(x=rng.normal(size=(2000, 1))), rng
    )
    assert got[0] < 99 < got[1]


def test_a_column_that_never_varies_is_fine(rng):
    cloud = np.concatenate([rng.normal(size=(2000, 2)), np.full((2000, 1), 3.0)], 1)
    x = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 9.0]])
    got = support_percentile(Batch(x=x, x_err=np.full((2, 3), 0.1)), Batch(x=cloud), rng)
    assert got[0] < 99 < got[1]


def test_the_same_seed_gives_the_same_score(simulated, rng):
    observed = observe(simulated, rng, n=20)
    one, two = (support_percentile(observed, simulated, np.random.default_rng(1)) for _ in "ab")
    assert_allclose(one, two, rtol=0)


@pytest.mark.parametrize(
    ("outside", "n", "many"),
    [(0, 5, False), (1, 1, True), (10, 1000, False), (3, 100, False), (4, 100, True)],
)
def test_a_catalogue_is_reported_when_chance_does_not_explain_its_share(outside, n, many):
    assert more_than_chance(outside, n) == many


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_perfect_catalogues_are_rarely_reported(missing, simulated, rng):
    observed = observe(simulated, rng, missing=missing)
    percentile, far = SupportScale(observed, simulated[:-N], rng).compare(observed)
    catalogues = (percentile > 99).reshape(40, 100).sum(1)
    # P(4 or more of 100) = 1.8 %: 8 or more of 40 catalogues with probability 1e-6
    assert sum(more_than_chance(int(k), 100) for k in catalogues) < 8
    assert not far.any()


@pytest.mark.parametrize(
    ("shift", "is_far"), [(0.0, False), (3.0, False), (60.0, True), (1e12, True)]
)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_only_objects_beyond_three_times_the_largest_distance_are_far(
    shift, is_far, missing, simulated, rng
):
    observed = observe(simulated, rng, n=100, missing=missing)
    x, mask = observed.x.clone(), observed.mask.clone()
    x[3], mask[3] = simulated.x[-1], True
    x[3, 2] += shift
    err = torch.full_like(x, 0.2)
    objects = observed.with_(x=x, mask=mask, x_err=err)
    far = SupportScale(objects, simulated[:-N], rng).compare(objects)[1]
    assert far[3] == is_far
    assert far.sum() == is_far


def test_threads_do_not_change_the_numbers(simulated):
    observed = observe(simulated, np.random.default_rng(2))
    one, two = (
        SupportScale(observed, simulated[:-N], np.random.default_rng(3), threads=n).compare(
            observed
        )
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_noise_that_is_not_gaussian_is_that_of_the_simulator():
    """Counts are like the simulations, though these are noise-free and have no errors."""
    rng = np.random.default_rng(4)
    rates = Batch(x=torch.as_tensor(rng.uniform(0.2, 3, (6000, 2)), dtype=torch.float32))

    def counted(batch):
        counts = rng.poisson(batch.x.numpy())
        return batch.with_(x=torch.as_tensor(counts, dtype=torch.float32))

    observed = counted(rates[-1000:])
    scale = SupportScale(observed, rates[:-1000], rng, observe=counted)
    percentile, far = scale.compare(observed)
    assert 0 <= (percentile > 99).mean() < 0.03
    assert not far.any()
    assert scale.compare(observed.with_(x=observed.x + 30))[1].all()


@pytest.mark.parametrize(("error", "outside"), [(0.05, False), (0.11, True), (0.008, True)])
def test_errors_that_do_not_occur_in_training_are_told(error, outside, simulated, rng):
    trained = observe(simulated, rng)
    spread = torch.as_tensor(rng.uniform(0.01, 0.09, trained.x.shape), dtype=torch.float32)
    trained = trained.with_(x_err=torch.where(trained.observed, spread, torch.nan))
    objects = trained[:20].with_(x_err=torch.where(trained[:20].observed, 0.05, torch.nan))
    objects.x_err[3, objects.observed[3].nonzero()[0]] = error
    scale = SupportScale(objects, simulated[:-N], rng, trained=trained)
    assert scale.errors_outside(objects).tolist() == [outside and k == 3 for k in range(20)]
    # one of twenty is not more than 5 %, unless its error is so small that it outweighs the others
    assert scale.errors_matter(objects) == (error == 0.008)
    silent = SupportScale(objects, simulated[:-N], rng)
    assert not silent.errors_outside(objects).any()
