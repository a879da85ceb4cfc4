"""Combination by simulated moments, on posteriors with planted errors and on trained networks."""

import io

import numpy as np
import pytest
import sbi_toy
import torch
from biased import (
    SPACE,
    Biased,
    assert_few_objects_are_not_corrected,
    groups,
    z_rms,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import sbi_core
from sbi_core import Batch, Observations, Parameter, ParameterSpace, Prior, Simulator
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.moments import Gaussian
from sbi_core.combiners.simulated_moments import (
    SimulatedMomentsCombiner,
    SimulatedMomentsConfig,
    _controls,
    _Equation,
)
from sbi_core.components import Training
from sbi_core.errors import (
    ConfigError,
    DensityUnavailableError,
    PriorMismatchError,
    SimulationError,
)
from sbi_core.posterior import Posterior
from sbi_core.progress import Progress
from sbi_core.report.view import FLAGS
from sbi_core.training.config import TrainConfig

OTHER = {"errors": (0.2, 2.0), "missing": 0.3}


class BiasedScores(Biased):
    """The same, with the score of its normal density."""

    def score(self, value, batch):
        mean, cov = self.gaussian_moments(batch)
        return np.linalg.solve(cov, (mean - value)[..., None])[..., 0]

    def log_prob(self, theta, batch):
        mean, cov = self.gaussian_moments(batch)
        z = SPACE.to_unconstrained(theta.reshape(-1, 2)).reshape(theta.shape)
        off = np.linalg.solve(np.linalg.cholesky(cov), (z - mean)[..., None])[..., 0]
        log_q = -0.5 * (off**2).sum(-1) - 0.5 * np.linalg.slogdet(cov)[1]
        log_p = SPACE.log_prob(theta.reshape(-1, 2)).reshape(theta.shape[:-1])
        return log_q + log_p + 0.5 * (z**2).sum(-1)


class Nonlinear(BiasedScores):
    """Scores that are no scores: a distorted function of them."""

    def score(self, value, batch):
        return 3 * np.arctan(super().score(value, batch)) - value


class Useless(BiasedScores):
    """Scores without information: no search can rely on them."""

    def score(self, value, batch):
        return 3 * np.sin(50 * batch.x.double().numpy()[:, :2] * (1 + value))


def rule_for(simulator=None, **options):
    rule = SimulatedMomentsCombiner(SimulatedMomentsConfig(**options))
    rule.attach(simulator or sbi_toy.ToySimulator())
    return rule


@pytest.mark.parametrize(
    ("estimator", "sizes"),
    [(Biased, (3, 30, 400)), (BiasedScores, (3, 30, 400)), (Nonlinear, (40, 400))],
)
@pytest.mark.parametrize("like", [{}, OTHER], ids=["equal errors", "other errors and gaps"])
def test_the_planted_error_is_removed_for_data_of_any_quality(estimator, sizes, like, toy, rng):
    posterior = Posterior(estimator())
    mocks = list(groups(toy, rng, 40, 400, spread=1.0, **like))
    got = z_rms(rule_for(), posterior, mocks, sizes)
    # 40 groups of two parameters: 1 +- 0.08; 4 sigma
    assert all(0.68 < z < 1.32 for z in got.values()), got
    assert z_rms(GaussianCombiner(), posterior, mocks, (400,))[400] > 1.4


def test_the_result_is_hardly_wider_than_the_exact_one(toy, rng):
    exact = Posterior(sbi_toy.ExactEstimator())
    exact.estimator.space = SPACE
    mocks = list(groups(toy, rng, 5, 300, spread=1.0, **OTHER))
    for n_sim, limit in ((10, 1.1), (1, 1.6)):
        rule, ratios = rule_for(simulations=n_sim), []
        for group in mocks:
            want = GaussianCombiner().combine(exact, group)
            got = rule.combine(Posterior(BiasedScores()), group)
            ratios.append(got.sd / want.sd)
            assert got.diagnostics["information_ratio"] == pytest.approx(1, abs=0.5)
        assert np.min(ratios) > 0.9
        assert np.mean(ratios) < limit


def test_scores_that_lead_elsewhere_are_not_used(toy, rng):
    mocks = list(groups(toy, rng, 20, 100))
    rule, posterior = rule_for(), Posterior(Useless(bias=0.0))
    assert z_rms(rule, posterior, mocks, (100,))[100] < 1.4
    for group in mocks[:5]:
        want = GaussianCombiner().combine(posterior, group)
        assert (rule.combine(posterior, group).sd < 1.3 * want.sd).all()


class Drawn(BiasedScores):
    """Without closed-form moments: they come from draws."""

    most = 0

    def gaussian_moments(self, batch):
        raise DensityUnavailableError("draw them")

    def score(self, value, batch):
        raise DensityUnavailableError("none")

    def sample(self, batch, draws, rng):
        if len(batch) > 100:  # simulated ones
            Drawn.most = max(Drawn.most, draws)
        mean, cov = super().gaussian_moments(batch)
        gen = rng if isinstance(rng, np.random.Generator) else rng[0]
        noise = gen.standard_normal((draws, len(batch), 2))
        z = mean + np.einsum("sni,nji->snj", noise, np.linalg.cholesky(cov))
        return SPACE.from_unconstrained(z.reshape(-1, 2)).reshape(z.shape)


def test_without_closed_form_few_draws_of_each_object_suffice(toy, rng):
    mocks = list(groups(toy, rng, 20, 100, spread=1.0))
    assert z_rms(rule_for(), Posterior(Drawn()), mocks, (100,))[100] < 1.5
    assert 0 < Drawn.most <= 200


def test_few_simulations_are_part_of_the_width(toy, rng):
    group = next(groups(toy, rng, 1, 2000))
    posterior = Posterior(BiasedScores())
    rules = rule_for(max_simulations=500), rule_for(simulations=100)
    few, many = (rule.combine(posterior, group) for rule in rules)
    share = np.array([rule.diagnostics["simulation_share"] for rule in (few, many)])
    assert share[0] > 0.5 > 50 * share[1]
    assert (few.sd / many.sd).mean() == pytest.approx(
        np.sqrt((1 + share[0]) / (1 + share[1])), rel=0.1
    )


def test_noise_of_observations_costs_no_simulations(toy, rng):
    group = next(groups(toy, rng, 1, 1000))
    found = rule_for().combine(Posterior(BiasedScores()), group)
    assert found.diagnostics["simulated_objects"] < 10_000  # ten per object without
    assert found.diagnostics["simulation_share"] < 0.12


def test_known_means_of_local_parameters_hold_where_few_simulations_fail(rng):
    local = rng.standard_normal((400_000, 2))
    ok = local[:, 0] < 2.6  # 0.5 % fail
    mean = _controls(local, ok).mean(0)
    assert np.abs(mean).max() < 1e-12 + 5 / np.sqrt(len(local))
    assert np.abs(local[ok].mean(0))[0] > 5 / np.sqrt(len(local))
    assert _controls(local, local[:, 0] < 1).shape == ((local[:, 0] < 1).sum(), 0)


def test_few_objects_are_not_corrected(toy, rng):
    assert_few_objects_are_not_corrected(rule_for(), Posterior(Biased()), toy, rng)


def test_same_objects_same_numbers(toy, rng):
    group = next(groups(toy, rng, 1, 50))
    posterior = Posterior(BiasedScores())
    one, two = (rule_for().combine(posterior, group, rng=3) for _ in range(2))
    assert_array_equal(one.samples, two.samples)
    whole = rule_for().combine_subsets(posterior, group, [slice(10), slice(50)])
    assert_array_equal(whole[1].z_mean, one.z_mean)
    mean, cov = rule_for().subset_moments(posterior, group, [slice(50)])[0]
    assert_array_equal(mean, one.z_mean)
    assert_array_equal(cov, one.z_cov)


def test_the_order_of_objects_matters_less_than_the_error_bar(toy, rng):
    group = next(groups(toy, rng, 1, 50))
    posterior = Posterior(BiasedScores())
    one, two = (rule_for().combine(posterior, g) for g in (group, group[rng.permutation(50)]))
    assert_allclose(one.z_mean, two.z_mean, atol=1.2 * one.z_cov.diagonal().max() ** 0.5)


def test_failed_simulations_are_left_out(toy, rng):
    failing = sbi_toy.ToySimulator(sbi_toy.ToyConfig(failing=0.3))
    mocks = list(groups(toy, rng, 40, 200, spread=1.0))
    got = z_rms(rule_for(failing), Posterior(BiasedScores()), mocks, (10, 200))
    assert all(0.68 < z < 1.32 for z in got.values()), got


class SeveralColumns(sbi_toy.ToySimulator):
    """With further local parameters of two columns each, one of them without a density."""

    def __init__(self):
        super().__init__()
        without = Prior.of(stats.multivariate_t([0, 0], df=5))
        pair = Prior("mvnormal", {"mean": [0, 0], "cov": [[1, 0], [0, 1]]})
        further = (Parameter("pair", pair), Parameter("without", without))
        self.parameters = ParameterSpace((*sbi_toy.SPACE.parameters, *further))

    def simulate(self, theta, rng):
        return super().simulate(theta[:, : sbi_toy.SPACE.dim], rng).with_(theta=theta)


def test_local_parameters_of_several_columns(toy, rng):
    group = next(groups(toy, rng, 1, 100))
    found = rule_for(SeveralColumns()).combine(Posterior(BiasedScores()), group)
    want = rule_for().combine(Posterior(BiasedScores()), group)
    off = (found.z_mean - want.z_mean) / np.sqrt(np.diag(want.z_cov))
    assert (np.abs(off) < 0.7).all(), off


def test_without_any_valid_simulation_nothing_is_combined(toy, rng):
    failing = sbi_toy.ToySimulator(sbi_toy.ToyConfig(failing=1.0))
    group = next(groups(toy, rng, 1, 10))
    with pytest.raises(SimulationError, match=r"too few objects .*slope = .*: 0 of 10000$"):
        rule_for(failing).combine(Posterior(BiasedScores()), group)


class InBlocks(sbi_toy.ToySimulator):
    """All simulations of most calls fail; all of the others succeed, or few of them."""

    def __init__(self, period, share=1.0):
        super().__init__()
        self.period, self.share, self.calls = period, share, 0

    def simulate(self, theta, rng):
        ok = rng.random(len(theta)) < self.share * (rng.random() < 1 / self.period)
        batch, self.calls = super().simulate(theta, rng), self.calls + 1
        return batch.with_(ok=torch.as_tensor(ok), failure=torch.as_tensor(np.where(ok, 0, 3)))


@pytest.mark.parametrize(("period", "share"), [(1, 0.03), (4, 1.0)])
def test_empty_blocks_of_simulations_are_followed_by_further_ones(period, share, toy, rng):
    rare = InBlocks(period, share)
    mocks = list(groups(toy, rng, 10, 30, spread=1.0))
    got = z_rms(rule_for(rare), Posterior(BiasedScores()), mocks, (30,))
    assert got[30] < 1.64, got  # 1 +- 0.16; 4 sigma
    group = mocks[0]
    exact = rule_for().combine(Posterior(BiasedScores()), group)
    assert (rule_for(rare).combine(Posterior(BiasedScores()), group).sd < 1.6 * exact.sd).all()


def test_few_valid_simulations_of_very_many_are_refused(toy, rng):
    group = next(groups(toy, rng, 1, 10))
    with pytest.raises(SimulationError, match=r"too few objects .*: [1-4] of 10000$"):
        rule_for(InBlocks(1, 2e-4)).combine(Posterior(BiasedScores()), group)


def test_a_slow_combination_shows_its_objects_and_announces_a_long_time(
    toy, rng, monkeypatch, caplog
):
    group = next(groups(toy, rng, 1, 400))
    rule, out = rule_for(), io.StringIO()
    rule.progress = Progress(out, interval=0.0)
    rule.progress.start("combine", 1, "groups")
    with caplog.at_level("WARNING"):
        got = rule.combine(Posterior(BiasedScores()), group)
    lines = [line for line in out.getvalue().splitlines() if "simulated objects" in line]
    done = int(got.diagnostics["simulated_objects"])
    assert f"{done} of about {done} simulated objects" in lines[-1]
    assert " of about " in lines[0]
    assert not caplog.records
    monkeypatch.setattr("sbi_core.combiners.simulated_moments._LONG", 0.0)
    with caplog.at_level("WARNING"):
        rule_for().combine(Posterior(BiasedScores()), group)
    (record,) = caplog.records
    assert "the combination of 400 objects simulates about" in record.message


class Lenient(BiasedScores):
    """Takes objects without errors, too."""

    def gaussian_moments(self, batch):
        if batch.x_err is None:
            batch = batch.with_(x_err=torch.full_like(batch.x, sbi_toy.ERROR))
        return super().gaussian_moments(batch)


class OwnErrors(sbi_toy.ToySimulator):
    """Takes its own errors, or none, in place of those of the data."""

    factor: float | None = None

    def observe_like(self, batch, like, rng):
        if self.factor is None:
            return batch
        seen = self.observe(batch, rng)
        return seen.with_(x_err=self.factor * seen.x_err)


@pytest.mark.parametrize(("factor", "differs"), [(1.0, False), (0.4, True), (2.5, True)])
def test_simulated_errors_unlike_those_of_the_data_are_flagged(factor, differs, toy, rng):
    group = next(groups(toy, rng, 1, 50))
    other = OwnErrors()
    other.factor = factor
    got = rule_for(other).combine(Posterior(BiasedScores()), group)
    assert ("errors_not_simulated" in got.flags) is differs
    assert "errors_not_simulated" in FLAGS


def test_a_simulator_that_leaves_errors_out_is_refused(toy, rng):
    group = next(groups(toy, rng, 1, 50))
    with pytest.raises(SimulationError, match="observe_like of the simulator must take the errors"):
        rule_for(OwnErrors()).combine(Posterior(Lenient()), group)


def test_one_outlier_moves_the_result_by_a_bounded_amount(toy, rng):
    group = next(groups(toy, rng, 1, 200, spread=0.5))
    posterior, rule = Posterior(BiasedScores()), rule_for()
    x = group.batch.x.clone()
    x[0] = 300.0  # hundreds of sigma
    other = type(group)(group.batch.with_(x=x), group.id, group.group, group.observables)
    clean, spoiled = (rule.combine(posterior, g) for g in (group, other))
    assert (np.abs(spoiled.z_mean - clean.z_mean) < 1.5 * clean.z_cov.diagonal() ** 0.5).all()
    plain = [GaussianCombiner().combine(posterior, g) for g in (group, other)]
    assert (np.abs(plain[1].z_mean - plain[0].z_mean) > 5 * clean.z_cov.diagonal() ** 0.5).any()


def test_a_search_that_does_not_converge_is_flagged(toy, rng, monkeypatch):
    monkeypatch.setattr("sbi_core.combiners.simulated_moments._ROUNDS", 1)
    monkeypatch.setattr("sbi_core.combiners.simulated_moments._LONGEST", 1e-3)
    group = next(groups(toy, rng, 1, 400))
    got = rule_for().combine(Posterior(BiasedScores(bias=2.0)), group)
    assert "combination_not_converged" in got.flags
    assert "combination_not_converged" in FLAGS


@pytest.mark.parametrize("n", [3, 10, 100])
def test_objects_without_information_give_the_prior(n, toy, rng):
    group = next(groups(toy, rng, 1, n, missing=1.0))
    got = rule_for().combine(Posterior(BiasedScores()), group)
    # up to 30 objects from 4000 weighted draws: 0.016, 0.03; 4 sigma
    assert_allclose(got.z_mean, 0, atol=0.07)
    assert_allclose(got.z_cov, np.eye(2), atol=0.12)


class Singular(Biased):
    """Covariances that cannot be inverted where the data are absurd."""

    def gaussian_moments(self, batch):
        mean, cov = super().gaussian_moments(batch)
        cov[batch.x_err.max(1).values.numpy() > 1e3] = [[1e20, 0.0], [0.0, 0.0]]
        return mean, cov


def test_one_singular_covariance_does_not_stop_the_combination(toy, rng):
    group = next(groups(toy, rng, 1, 100))
    err = group.batch.x_err.clone()
    err[0] = 1e10
    spoiled = type(group)(group.batch.with_(x_err=err), group.id, group.group, group.observables)
    equation = _Equation(
        Posterior(Singular()), sbi_toy.ToySimulator(), SPACE, spoiled.batch,
        SimulatedMomentsConfig(),
    )  # fmt: skip
    start = Gaussian.standard(2)
    clean = GaussianCombiner().combine(Posterior(Biased()), group)
    got = equation.solve(start)[0]
    assert (np.abs(got.mean - clean.z_mean) < 3 * clean.z_cov.diagonal() ** 0.5).all()


def test_it_needs_the_simulator_and_its_prior(toy, rng):
    group = next(groups(toy, rng, 1, 5))
    with pytest.raises(ConfigError, match="needs the simulator"):
        SimulatedMomentsCombiner().combine(Posterior(Biased()), group)
    estimator = Biased()
    estimator.space = ParameterSpace(
        (Parameter("slope", Prior("normal", {"loc": 0.0, "scale": 9.0}), scope="global"),)
    )
    with pytest.raises(PriorMismatchError):
        rule_for().combine(Posterior(estimator), group)


# -- scores of estimators -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [("mixture", {}), ("maf", {}), ("ensemble", {"of": "mixture", "members": 2})],
)
def test_scores_are_gradients_of_the_density(name, options, toy, rng):
    estimator = sbi_core.get_estimator(name, **options)
    training = Training(
        batch=toy.draw(600, rng), space=SPACE, columns=(0, 1), observe=toy.observe,
        config=TrainConfig(epochs=2), seed=1,
    )  # fmt: skip
    estimator.fit(training, sbi_core.get_embedding("identity"))
    batch = toy.observe(toy.draw(5, rng), rng)
    value, step = np.array([0.3, -0.4]), 1e-2
    got = estimator.score(value, batch)

    def log_q(z):
        theta = np.tile(SPACE.from_unconstrained(z[None]), (5, 1))
        return estimator.log_prob(theta, batch) - SPACE.log_prob(theta) - 0.5 * z @ z

    for k, axis in enumerate(np.eye(2)):
        want = (log_q(value + step * axis) - log_q(value - step * axis)) / (2 * step)
        assert_allclose(got[:, k], want, atol=0.02, rtol=0.02)


def test_estimators_without_gradients_say_so():
    for name in ("ordinal", "categorical"):
        with pytest.raises(DensityUnavailableError, match="its parameters are discrete"):
            sbi_core.get_estimator(name).score(np.zeros(1), None)
    with pytest.raises(DensityUnavailableError, match="has no gradient"):
        sbi_toy.ExactEstimator().score(np.zeros(2), None)
    assert torch.is_grad_enabled()


class Truncated(Simulator):
    """One value, the sum of a shared and a local parameter; only small ones are seen."""

    name, version = "truncated", "1"
    parameters = ParameterSpace(
        tuple(
            Parameter(scope, Prior("normal", {"loc": 0.0, "scale": 1.0}), "a", "", scope)
            for scope in ("global", "local")
        ),
        version="truncated-1",
    )
    default_error = 0.5

    def simulate(self, theta, rng):
        theta = torch.as_tensor(np.asarray(theta, float))
        x = theta.sum(1, keepdim=True)
        ok = x[:, 0] < 0.4
        return Batch(x=x, theta=theta, ok=ok, failure=torch.where(ok, 0, 1))


class OneValue(BiasedScores):
    """Exact for it, if all were seen."""

    def __init__(self):
        self.space = Truncated.parameters.select("global")

    def gaussian_moments(self, batch):
        return batch.x.double().numpy() / 2.25, np.full((len(batch), 1, 1), 1.25 / 2.25)

    def log_prob(self, theta, batch):
        return stats.norm.logpdf(theta[..., 0], batch.x[:, 0] / 2.25, np.sqrt(1.25 / 2.25))


@pytest.mark.parametrize("n", [20, 100])
def test_shared_parameters_may_decide_which_simulations_fail(n, rng):
    simulator, posterior, ratios, z = Truncated(), Posterior(OneValue()), [], []
    rule = rule_for(simulator)
    for truth in rng.normal(size=40):
        theta = np.stack([np.full(100_000, truth), rng.normal(size=100_000)], 1)
        seen = simulator.simulate(theta, rng).succeeded[:n]
        found = rule.combine(posterior, Observations.from_batch(simulator.observe(seen, rng)))
        ratios.append(found.diagnostics["information_ratio"])
        z.append((truth - found.z_mean[0]) / found.z_cov[0, 0] ** 0.5)
    # for exact scores and small shifts the derivative is their covariance, also of those seen
    assert np.mean(ratios) == pytest.approx(1, abs=0.3)
    assert np.sqrt(np.mean(np.square(z))) < 1.45  # 40 groups: 1 +- 0.11; 4 sigma


class InOrder(sbi_toy.ToySimulator):
    """Has more about each observed object, by its number."""

    order_matters = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def observe_like(self, batch, like, rng):
        self.seen.append(like.x)
        return super().observe_like(batch, like, rng)


def test_objects_keep_their_order_where_it_matters(toy, rng):
    group, simulator = next(groups(toy, rng, 1, 20)), InOrder()
    rule_for(simulator).combine(Posterior(BiasedScores()), group)
    assert all(torch.equal(x, group.batch.x) for x in simulator.seen)
    simulator.order_matters, simulator.seen = False, []
    rule_for(simulator).combine(Posterior(BiasedScores()), group)
    assert not torch.equal(simulator.seen[0], group.batch.x)
