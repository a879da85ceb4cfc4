"""The set network on the linear-Gaussian toy, whose joint posterior is exact."""

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.deepset import DeepsetCombiner, DeepsetConfig
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.set_training import log_uniform, simulate_sets
from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, DataFileError, ObservationError, PriorMismatchError
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream

SPACE = sbi_toy.SPACE.select("global")
SMALL = {
    "max_objects": 40,
    "simulations": 40_000,
    "steps": 600,
    "rows": 1024,
    "member": (48, 48),
    "hidden": (32, 32),
    "samples": 500,
}


def exact():
    estimator = sbi_toy.ExactEstimator()
    estimator.space = SPACE
    return Posterior(estimator)


def observed(toy, n, rng, shift, missing=0.2):
    """Objects with missing values, truth ``shift`` sigma off."""
    theta = sbi_toy.SPACE.sample(n, rng)
    theta[:, :2] = sbi_toy.LOC + sbi_toy.SCALE * shift
    batch = toy.simulate(theta, rng)
    err = np.full(batch.x.shape, sbi_toy.ERROR)
    mask = rng.random(err.shape) >= missing
    mask[:, 0] = True
    x = np.where(mask, batch.x.numpy() + err * rng.standard_normal(err.shape), np.nan)
    return Observations.from_batch(
        Batch(x=x, x_err=np.where(mask, err, np.nan), mask=mask, theta=theta),
        truth_names=sbi_toy.SPACE.names,
    )


@pytest.fixture(scope="module")
def prepared():
    toy, rng = sbi_toy.ToySimulator(), np.random.default_rng(1)
    rule = DeepsetCombiner(DeepsetConfig(**SMALL))
    rule.attach(toy)
    facts = rule.prepare(exact(), (observed(toy, 100, rng, 0.0) for _ in range(20)), seed=1)
    return rule, facts


def test_its_weights_are_aligned_after_training_and_loading(prepared, tmp_path):
    rule, _ = prepared
    rule.save(tmp_path)
    again = DeepsetCombiner(DeepsetConfig(**SMALL))
    again.restore(tmp_path)
    for made in (rule, again):
        tensors = (*made._network.parameters(), *made._network.buffers())
        assert all(t.data_ptr() % 64 == 0 for t in tensors)


@pytest.mark.parametrize("n_obs", [1, 10, 40])
def test_it_comes_close_to_the_exact_posterior(n_obs, prepared, toy, rng):
    rule, _ = prepared
    offs, ratios, z = [], [], []
    for _ in range(60):
        shift = rng.standard_normal(2)
        group = observed(toy, n_obs, rng, shift)
        got, want = (r.combine(exact(), group) for r in (rule, GaussianCombiner()))
        sd = np.sqrt(np.diag(want.z_cov))
        offs.append((got.z_mean - want.z_mean) / sd)
        ratios.append(np.sqrt(np.diag(got.z_cov)) / sd)
        z.append(np.linalg.solve(np.linalg.cholesky(got.z_cov), shift - got.z_mean))
    assert np.sqrt(np.mean(np.square(offs))) < 0.6  # seconds of training: 0.2 to 0.5
    assert_allclose(np.mean(ratios, 0), 1, atol=0.2)
    assert 0.7 < np.sqrt(np.mean(np.square(z))) < 1.35  # 1 +- 0.065 when calibrated


def test_truths_off_the_prior_mean_are_not_drawn_to_it(prepared, toy, rng):
    rule, _ = prepared
    shift = np.array([1.5, -1.5])
    off = [rule.combine(exact(), observed(toy, 40, rng, shift)) for _ in range(40)]
    z = np.mean([(c.z_mean - shift) / np.sqrt(np.diag(c.z_cov)) for c in off], 0)
    assert (np.abs(z) < 1.0).all()  # mean of 40: the prior pulls by 0.3, chance by 0.16


def test_it_says_how_it_did_on_sets_it_never_saw(prepared):
    _, facts = prepared
    assert facts["sets"] > 1000
    assert 0.8 < facts["z_rms"] < 1.25
    assert np.isfinite(facts["loss"])


def test_no_object_gives_exactly_the_prior(prepared, toy, rng):
    got = prepared[0].combine(exact(), observed(toy, 1, rng, 0.0)[np.arange(0)])
    assert_array_equal(got.z_mean, np.zeros(2))
    assert_array_equal(got.z_cov, np.eye(2))
    assert got.n == 0


def test_order_of_objects_does_not_matter(prepared, toy, rng):
    group = observed(toy, 40, rng, 1.0)
    one = prepared[0].combine(exact(), group)
    other = prepared[0].combine(exact(), group[rng.permutation(40)])
    assert_allclose(one.z_mean, other.z_mean, atol=1e-10)
    assert_allclose(one.z_cov, other.z_cov, rtol=1e-8)


def test_padding_changes_nothing(prepared, toy, rng):
    """Objects of which nothing was observed, whatever stands there."""
    group = observed(toy, 10, rng, 1.0)
    nothing = observed(toy, 5, rng, 7.0).batch
    nothing = nothing.with_(mask=torch.zeros_like(nothing.observed))
    padded = Observations.from_batch(Batch.cat([group.batch, nothing]))
    one, other = (prepared[0].combine(exact(), g) for g in (group, padded))
    assert_allclose(one.z_mean, other.z_mean, atol=1e-10)
    assert_allclose(one.z_cov, other.z_cov, rtol=1e-8)
    assert other.n == 15
    assert other.diagnostics["observed_objects"] == 10
    only = prepared[0].combine(exact(), Observations.from_batch(nothing))
    assert_array_equal(only.z_cov, np.eye(2))


def test_more_objects_than_it_knows_are_refused_or_aggregated(prepared, toy, rng, tmp_path):
    rule, _ = prepared
    group = observed(toy, 100, rng, 1.0)
    with pytest.raises(ObservationError, match=r"100 objects are more than the 40.*aggregate"):
        rule.combine(exact(), group)
    rule.save(tmp_path)
    patient = DeepsetCombiner(DeepsetConfig(beyond="aggregate"))
    patient.restore(tmp_path)
    got, want = (r.combine(exact(), group) for r in (patient, GaussianCombiner()))
    assert got.flags == ("aggregated",)
    assert got.diagnostics["parts"] == 3
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=1.5)
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.25)


def test_subsets_equal_separate_combinations(prepared, toy, rng):
    group = observed(toy, 30, rng, 0.5)
    subsets = [slice(0), slice(1), slice(5, 20), slice(None)]
    several = prepared[0].combine_subsets(exact(), group, subsets)
    assert [c.n for c in several] == [0, 1, 15, 30]
    for rows, got in zip(subsets, several, strict=True):
        alone = prepared[0].combine(exact(), group[np.arange(30)[rows]])
        assert_allclose(got.z_mean, alone.z_mean, atol=1e-12)
        assert_allclose(got.z_cov, alone.z_cov, rtol=1e-10)


def test_draws_have_the_moments_of_the_result(prepared, toy, rng, tmp_path):
    prepared[0].save(tmp_path)
    rule = DeepsetCombiner(DeepsetConfig(samples=20_000))
    rule.restore(tmp_path)
    got = rule.combine(exact(), observed(toy, 10, rng, 0.5), rng=3)
    assert (np.abs(got.samples.mean(0) - got.mean) < 5 * got.sd / np.sqrt(20_000)).all()
    assert_allclose(got.samples.std(0), got.sd, rtol=0.06)
    again = rule.combine(exact(), observed(toy, 10, np.random.default_rng(0), 0.5), rng=3)
    assert again.samples.shape == (20_000, 2)


def test_what_is_read_combines_as_what_was_written(prepared, toy, rng, tmp_path):
    rule, _ = prepared
    rule.save(tmp_path)
    again = DeepsetCombiner()
    again.restore(tmp_path)
    group = observed(toy, 20, rng, 0.5)
    one, two = rule.combine(exact(), group), again.combine(exact(), group)
    assert_array_equal(one.z_mean, two.z_mean)
    assert_array_equal(one.z_cov, two.z_cov)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataFileError, match="damaged"):
        again.restore(tmp_path)


def test_other_errors_than_those_it_learned_are_flagged(prepared, toy, rng):
    group = observed(toy, 20, rng, 0.5)
    small = group.batch.with_(x_err=0.01 * group.batch.x_err)
    got = prepared[0].combine(exact(), Observations.from_batch(small))
    assert "unlike_trained_groups" in got.flags
    assert "unlike_trained_groups" not in prepared[0].combine(exact(), group).flags


def test_what_it_cannot_work_with_is_refused(prepared, toy, rng):
    group = observed(toy, 5, rng, 0.0)
    with pytest.raises(ConfigError, match="is not trained"):
        DeepsetCombiner().combine(exact(), group)
    with pytest.raises(ConfigError, match="attach"):
        DeepsetCombiner().prepare(exact(), [group])
    other = sbi_toy.ExactEstimator()
    other.space = ParameterSpace(
        (
            Parameter("slope", Prior("normal", {"loc": 9.0, "scale": 0.5}), scope="global"),
            Parameter("offset", Prior("normal", {"loc": -2.0, "scale": 2.0}), scope="global"),
        )
    )
    with pytest.raises(PriorMismatchError):
        prepared[0].combine(Posterior(other), group)
    rule = DeepsetCombiner()
    rule.attach(toy)
    with pytest.raises(PriorMismatchError):
        rule.prepare(Posterior(other), [group])
    local = sbi_toy.ExactEstimator()
    local.space = sbi_toy.SPACE.select("local")
    with pytest.raises(ConfigError, match="no parameter of scope 'global'"):
        prepared[0].combine(Posterior(local), group)
    images = Observations.from_batch(Batch(x=np.zeros((3, 4, 4)), x_err=np.ones((3, 4, 4))))
    with pytest.raises(ObservationError, match="one row of numbers per object"):
        rule.prepare(exact(), [images])
    few = DeepsetCombiner(DeepsetConfig(simulations=1000, max_objects=1000))
    few.attach(toy)
    with pytest.raises(ConfigError, match=r"combiner\.simulations higher"):
        few.prepare(exact(), [group])


def test_training_repeats_to_the_bit(toy, rng):
    group = observed(toy, 50, rng, 0.0)
    found = []
    for _ in range(2):
        options = {**SMALL, "simulations": 4000, "max_objects": 10, "steps": 4}
        rule = DeepsetCombiner(DeepsetConfig(**options))
        rule.attach(toy)
        rule.prepare(exact(), [group], seed=3)
        found.append(rule.combine(exact(), group[np.arange(5)]))
    assert_array_equal(found[0].z_mean, found[1].z_mean)
    assert_array_equal(found[0].samples, found[1].samples)


def test_sets_have_log_uniform_sizes_and_truths_from_the_prior(toy):
    sizes = log_uniform(1000, 20_000, stream(1, "test"))
    assert sizes.min() == 1
    assert sizes.max() == 1000
    assert_allclose((sizes <= 31).mean(), np.log(32) / np.log(1001), atol=0.02)
    source = simulate_sets(toy, SPACE, 60_000, 50, seed=2)
    assert source.start[-1] == len(source.batch)
    assert_allclose(source.truth.mean(0), 0, atol=0.1)
    assert_allclose(source.truth.std(0), 1, atol=0.07)
    theta = source.batch.theta.numpy()
    for k in (0, 7, 100):
        rows = slice(source.start[k], source.start[k + 1])
        assert_allclose(SPACE.to_unconstrained(theta[rows, :2]) - source.truth[k], 0, atol=1e-6)


def test_failed_simulations_make_sets_smaller():
    failing = sbi_toy.ToySimulator(sbi_toy.ToyConfig(failing=0.5))
    source = simulate_sets(failing, SPACE, 20_000, 20, seed=2)
    assert 8000 < len(source.batch) < 12_000
    assert (source.sizes > 0).all()
    assert len(source.truth) == len(source.sizes)
    rows, number = source.choose(np.array([0, 1]), np.array([1, 1]), stream(1, "t"))
    assert (rows >= source.start[:2]).all()
    assert_array_equal(number, [0, 1])


class Counting(sbi_toy.ToySimulator):
    """Says what it was asked to observe."""

    observed: list[int]

    def observe_like(self, batch, like, rng):
        self.observed.append(len(batch))
        return Simulator.observe_like(self, batch, like, rng)


def test_noise_is_fresh_in_every_step(toy, rng):
    counting = Counting()
    counting.observed = []
    options = {**SMALL, "simulations": 4000, "max_objects": 10, "steps": 7}
    rule = DeepsetCombiner(DeepsetConfig(**options))
    rule.attach(counting)
    rule.prepare(exact(), [observed(toy, 50, rng, 0.0)])
    assert len(counting.observed) == 8  # every step, and once the held-out sets
