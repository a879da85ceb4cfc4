import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from sbi_core.diagnostics import judge_sbc, sbc_ranks, sbc_uniformity
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError
from sbi_core.estimators import load_estimator
from sbi_core.estimators.flows import MafEstimator
from sbi_core.estimators.ordinal import OrdinalConfig, OrdinalEstimator, OrdinalHead, _log1mexp
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream


def trained(problem, config=None, **options):
    estimator = OrdinalEstimator(config or OrdinalConfig(components=3, hidden=(32, 32)))
    estimator.fit(problem.training(**options), IdentityEmbedding())
    return estimator


@pytest.fixture(scope="module")
def fitted(integer_of):
    problem = integer_of()
    return problem, trained(problem)


def data(problem, n=300, seed=3):
    return problem.observe(problem.simulate(n, stream(seed)), stream(seed + 1))


@pytest.mark.parametrize(
    "values", [np.arange(3, 9.0), np.arange(1, 401.0), np.array([0, 1, 5, 70.0])]
)
@pytest.mark.parametrize("scale", ["auto", "linear", "log"])
@pytest.mark.parametrize("ends", ["open", "truncated"])
def test_probabilities_of_any_network_sum_to_one(values, scale, ends):
    head = OrdinalHead(2, [values], (8,), components=5, scale=scale, ends=ends)
    for p in head.parameters():
        p.data *= 20
    h = torch.randn(6, 2)
    places = torch.arange(len(values), dtype=torch.float32)[:, None, None].expand(-1, 6, 1)
    assert_allclose(head.log_prob(places, h).exp().sum(0).detach(), 1, atol=1e-4)


@pytest.mark.parametrize("ends", ["open", "truncated"])
def test_gradients_are_finite_in_open_and_closed_bins(ends):
    head = OrdinalHead(2, [np.arange(4.0)], (8,), components=2, scale="linear", ends=ends)
    h = torch.randn(4, 2)
    head.log_prob(torch.arange(4.0)[:, None], h).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@pytest.mark.parametrize("ends", ["open", "truncated"])
def test_draws_have_the_probabilities_of_any_network(ends):
    head = OrdinalHead(2, [np.arange(1, 41.0)], (8,), components=3, scale="log", ends=ends)
    for p in head.parameters():
        p.data *= 4
    h = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    places = torch.arange(40.0)[:, None, None].expand(-1, 3, 1)
    pmf = head.log_prob(places, h).exp().T.detach().double().numpy()
    noise = torch.randn(40_000, 3, 2, generator=torch.Generator().manual_seed(2))
    drawn = head.draw(noise, h)[..., 0]
    counts = np.stack([(drawn == v).double().mean(0).numpy() for v in range(40)], 1)
    error = np.sqrt(pmf * (1 - pmf) / 40_000)
    assert (np.abs(counts - pmf) < 5 * error + 1e-4).all()  # 120 tests at 5 sigma


def test_truncated_ends_take_no_more_than_their_neighbours():
    # a flat distribution far wider than the range, as of data without information
    shares = []
    for ends in ("open", "truncated"):
        head = OrdinalHead(2, [np.arange(2, 101.0)], (8,), components=1, scale="log", ends=ends)
        raw = torch.tensor([0.0, 4.0, 3.0])
        shares.append(head.log_pmf(0, raw, torch.tensor([97, 98])).exp())
    assert shares[0][1] > 5 * shares[0][0]
    assert_allclose(shares[1][1], shares[1][0], rtol=0.1)


def test_log1mexp_is_accurate_at_both_ends():
    x = torch.tensor([1e-6, 0.1, 0.69, 0.7, 30.0], dtype=torch.float64)
    want = [np.log(-np.expm1(-v)) for v in x[:4].tolist()] + [-np.exp(-30.0)]
    assert_allclose(_log1mexp(x), want, rtol=1e-9)


def test_it_recovers_the_exact_probabilities(fitted):
    problem, estimator = fitted
    batch = data(problem)
    got, want = estimator.pmf(batch), problem.pmf(batch)
    assert got.shape == want.shape == (300, 12)
    assert_allclose(got.sum(1), 1)
    # a small training: total variation measured 0.03
    assert 0.5 * np.abs(got - want).sum(1).mean() < 0.08


def test_log_prob_and_draws_are_those_of_the_probabilities(fitted):
    problem, estimator = fitted
    batch = data(problem, 2)
    pmf = estimator.pmf(batch)
    theta = np.broadcast_to(problem.values[:, None, None], (12, 2, 1))
    assert_allclose(np.exp(estimator.log_prob(theta, batch)).T, pmf, rtol=1e-4, atol=1e-6)
    draws = estimator.sample(batch, 40_000, 1)[:, :, 0]
    counts = np.stack([(draws == v).mean(0) for v in problem.values], 1)
    error = np.sqrt(pmf * (1 - pmf) / 40_000)
    assert (np.abs(counts - pmf) < 5 * error + 1e-4).all()  # 24 tests at 5 sigma
    assert np.isin(draws, problem.values).all()


def test_what_is_not_a_value_has_no_probability(fitted):
    problem, estimator = fitted
    theta = np.array([[0.0], [1.0], [2.5], [13.0], [np.nan]])
    found = np.isfinite(estimator.log_prob(theta, data(problem, 5)))
    assert found.tolist() == [False, True, False, False, False]


def test_ranks_are_uniform(fitted):
    problem, estimator = fitted
    batch = data(problem, 400, seed=11)
    draws = estimator.sample(batch, 200, 2)
    ranks = sbc_ranks(draws, batch.theta.double().numpy(), stream(1))
    p = sbc_uniformity(ranks, 200)[0]
    assert judge_sbc("n", float(p)).level == "pass"


def test_wide_ranges_are_cut_in_the_logarithm(integer_of):
    problem = integer_of(1, 300, noise=0.3, log=True)
    estimator = trained(problem, n=6000)
    batch = data(problem)
    got, want = estimator.pmf(batch), problem.pmf(batch)
    mean = [(p * np.log(problem.values)).sum(1) for p in (got, want)]
    assert np.sqrt(np.mean((mean[0] - mean[1]) ** 2)) < 0.1
    assert 0.5 * np.abs(got - want).sum(1).mean() < 0.15


def test_values_without_probability_are_never_drawn(integer_of):
    pmf = np.array([0.5, 0.0, 0.25, 0.25])
    problem = integer_of(0, 3, pmf=pmf)
    estimator = trained(problem, n=500, epochs=2)
    batch = data(problem, 20)
    assert set(np.unique(estimator.sample(batch, 200, 1))) == {0.0, 2.0, 3.0}
    assert estimator.pmf(batch).shape == (20, 3)
    assert np.isneginf(estimator.log_prob(np.ones((20, 1)), batch)).all()


def test_several_parameters_have_a_joint_table(integer_of):
    space = ParameterSpace(
        tuple(
            Parameter(k, Prior("integer", {"low": 0, "high": h})) for k, h in (("a", 3), ("b", 4))
        )
    )
    problem = integer_of(0, 3)
    problem.space, problem.f = space, np.asarray
    training = problem.training(n=3000)
    x = training.batch.theta.sum(1, keepdim=True)
    from dataclasses import replace

    training = replace(training, batch=training.batch.with_(x=x), columns=(0, 1))
    estimator = OrdinalEstimator(OrdinalConfig(components=3, hidden=(32,)))
    estimator.fit(training, IdentityEmbedding())
    batch = training.batch.with_(x=torch.full((3000, 1), 3.0))[:2]
    pmf = estimator.pmf(batch)
    assert pmf.shape == (2, 4, 5)
    assert_allclose(pmf.sum((1, 2)), 1)
    likely = pmf[0] > 0.08
    assert likely[[0, 1, 2, 3], [3, 2, 1, 0]].all()  # a + b = 3
    draws = estimator.sample(batch, 20_000, 1)[:, 0].astype(int)
    counts = np.zeros((4, 5))
    np.add.at(counts, tuple(draws.T), 1 / 20_000)
    assert_allclose(counts, pmf[0], atol=0.02)


def test_a_saved_estimator_draws_the_same_bits(fitted, tmp_path):
    problem, estimator = fitted
    estimator.save(tmp_path)
    loaded, batch = load_estimator(tmp_path), data(problem, 5)
    assert_array_equal(loaded.sample(batch, 9, 1), estimator.sample(batch, 9, 1))
    assert_array_equal(loaded.pmf(batch), estimator.pmf(batch))


def test_kinds_of_parameters_that_do_not_fit_are_named(integer_of, gaussian):
    with pytest.raises(ConfigError, match="'n' is discrete.*use 'ordinal'"):
        MafEstimator().fit(integer_of().training(n=200), IdentityEmbedding())
    with pytest.raises(ConfigError, match=r"\['t0', 't1'\] are not: use 'maf'"):
        OrdinalEstimator().fit(gaussian.training(n=200), IdentityEmbedding())
    with pytest.raises(ValidationError):
        OrdinalConfig(scale="square")
