from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ComponentNotFoundError, ConfigError, DataFileError
from sbi_core.estimators import load_estimator
from sbi_core.estimators.ensemble import EnsembleConfig, EnsembleEstimator, _observed
from sbi_core.rng import stream
from sbi_core.training.splits import splits_of


def observed(problem, n=6):
    return problem.observe(problem.simulate(n, stream(0, "test")), stream(0, "noise"))


def validation_rows(training):
    return _observed(training, splits_of(training).val)


def test_its_density_is_the_mean_of_its_members(barely, gaussian):
    ensemble, batch = barely("ensemble"), observed(gaussian)
    theta = ensemble.sample(batch, 4, 1)
    each = [np.exp(m.log_prob(theta, batch)) for m in ensemble.members]
    assert_allclose(np.exp(ensemble.log_prob(theta, batch)), np.mean(each, 0), rtol=1e-10)
    outside = np.full((6, 2), np.nan)
    assert np.isneginf(ensemble.log_prob(outside, batch)).all()


def test_members_share_splits_and_differ_in_weights(barely):
    one, two = barely("ensemble").members
    assert one.record.split["hash"] == two.record.split["hash"]
    assert one.record.test_nll != two.record.test_nll


def test_its_moments_are_those_of_its_draws(barely, gaussian):
    ensemble, batch = barely("ensemble"), observed(gaussian, 3)
    mean, cov = ensemble.gaussian_moments(batch)
    draws = ensemble.sample(batch, 60_000, 2)
    z = gaussian.space.to_unconstrained(draws.reshape(-1, 2)).reshape(draws.shape)
    assert_allclose(z.mean(0), mean, atol=5 * z.std() / np.sqrt(len(z)))
    for k in range(3):
        assert_allclose(np.cov(z[:, k].T), cov[k], atol=0.04 * np.trace(cov[k]))


def test_a_single_draw_may_come_from_any_member(barely, gaussian):
    ensemble, batch = barely("ensemble"), observed(gaussian, 1)
    seen = np.array([ensemble.sample(batch, 1, [stream(k)])[0, 0] for k in range(40)])
    members = [[m.sample(batch, 1, [stream(k)])[0, 0] for k in range(40)] for m in ensemble.members]
    first = np.isclose(seen, members[0]).all(1)
    assert 5 < first.sum() < 35  # fair coin: p < 1e-6


def test_members_that_agree_have_no_divergence(barely, gaussian):
    ensemble, batch = barely("ensemble"), observed(gaussian)
    found = ensemble.disagreement(batch, draws=300)
    assert found.shape == (2, 2, 6)
    assert (found[[0, 1], [0, 1]] == 0).all()
    assert (found.mean(2)[[0, 1], [1, 0]] > 0).all()
    twins = EnsembleEstimator(EnsembleConfig(members=2, of="mixture"))
    twins.members, twins.space = [ensemble.members[0]] * 2, ensemble.space
    assert_allclose(twins.disagreement(batch, draws=50), 0, atol=1e-12)


def test_epochs_are_numbered_through_and_metrics_kept(bounded, tmp_path):
    options = {"components": 1, "hidden": [8]}
    ensemble = EnsembleEstimator(EnsembleConfig(members=2, of="mixture", options=options))
    training = replace(bounded.training(n=300, epochs=3), directory=tmp_path)
    seen = []
    record = ensemble.fit(training, IdentityEmbedding(), [seen.append])
    assert [line["epoch"] for line in seen] == [1, 2, 3, 4, 5, 6]
    assert {line["epochs"] for line in seen} == {6}
    assert record.epochs == 6
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    assert (tmp_path / "member-1" / "checkpoint.safetensors").exists()
    again = EnsembleEstimator(ensemble.config)
    assert again.fit(training, IdentityEmbedding()).test_nll == record.test_nll  # resumed


def test_what_is_wrong_is_said(barely, gaussian, tmp_path):
    with pytest.raises(ConfigError, match="not trained"):
        EnsembleEstimator().sample(observed(gaussian), 3, 1)
    with pytest.raises(ConfigError, match="set 'members'"):
        EnsembleEstimator(EnsembleConfig(of="ensemble"))
    with pytest.raises(ComponentNotFoundError, match="did you mean 'mixture'"):
        EnsembleEstimator(EnsembleConfig(of="mixtur")).fit(
            gaussian.training(n=200), IdentityEmbedding()
        )
    with pytest.raises(ConfigError, match="did you mean 'components'"):
        EnsembleEstimator(EnsembleConfig(of="mixture", options={"component": 2})).fit(
            gaussian.training(n=200), IdentityEmbedding()
        )
    barely("ensemble").save(tmp_path)
    (tmp_path / "member-1" / "weights.safetensors").unlink()
    with pytest.raises(DataFileError, match="does not exist"):
        load_estimator(tmp_path)


@pytest.mark.parametrize("of", ["maf", "nsf"])
def test_validation_rows_choose_the_width_of_the_members(of, gaussian):
    options = {"transforms": 1, "hidden": [16]}
    training = gaussian.training(n=400, epochs=3)
    ensemble = EnsembleEstimator(EnsembleConfig(members=2, of=of, options=options))
    ensemble.fit(training, IdentityEmbedding())
    widths = [m.network.head.width for m in ensemble.members]
    best = float(widths[0][0])
    assert all((w == best).all() for w in widths)
    theta, batch = validation_rows(training)

    def scatter(factor):  # of ranks, in units of that of uniform ones; draws of another seed
        for width in widths:
            width.fill_(factor)
        u = (ensemble.sample(batch, 400, 77) < theta).mean(0)
        return 3 * np.mean((2 * u - 1) ** 2)

    assert best != 1
    assert abs(scatter(best) - 1) < min(abs(scatter(0.9 * best) - 1), abs(scatter(1.1 * best) - 1))
    assert_allclose(scatter(best), 1, atol=0.03)


def test_members_without_a_width_are_left_alone(barely):
    assert barely("ensemble").config.temper  # of mixtures


def test_the_width_of_the_noise_is_that_of_the_density_and_is_stored(gaussian, tmp_path):
    batch = observed(gaussian, 1)
    member = EnsembleEstimator(EnsembleConfig(members=1, options={"hidden": [16]}))
    member.fit(gaussian.training(n=400, epochs=1), IdentityEmbedding())
    member.members[0].network.head.width.fill_(1.5)
    drawn = member.sample(batch, 20_000, 1)
    # E_q[1 / q] over a region is its volume: here by comparing draws with the density
    low, high = np.quantile(drawn[:, 0], [0.3, 0.7], axis=0)
    inside = ((drawn[:, 0] > low) & (drawn[:, 0] < high)).all(1)
    volume = np.exp(-member.log_prob(drawn[inside], batch)).sum() / len(drawn)
    assert_allclose(volume, np.prod(high - low), rtol=0.05)
    member.save(tmp_path)
    again = load_estimator(tmp_path)
    assert (again.members[0].network.head.width == 1.5).all()
    assert_allclose(again.log_prob(drawn[:5], batch), member.log_prob(drawn[:5], batch))
