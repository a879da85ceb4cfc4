"""The experiments of the paper on tiny runs of the embedded yields."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose

from sbi_chempy import experiments, single_stars
from sbi_chempy.cli import experiments as command
from sbi_chempy.experiments import PUBLISHED, TRUTHS, stars
from sbi_core import ConfigError, diagnostics, get_simulator

TINY = (
    "simulator.yields=default",
    "simulate.n=2000",
    "simulate.shard_size=1000",
    "train.epochs=3",
    "train.batch_size=128",
    "diagnose.objects=60",
    "diagnose.draws=99",
    "combiner.name=gaussian",
    "combine.calibration_groups=0",
    "combine.sizes=[1,5]",
    "infer.n_example=10",
)


def perform(out, name, *extra):
    """What the command prints."""
    given = [s for option in (*TINY, *extra) for s in ("--set", option)]
    words = [name, "--preset", "quick", "--out", str(out), "--quiet", "--n", "30", *given]
    return CliRunner().invoke(command, words, catch_exceptions=False).output


def test_a_mock_galaxy_shares_its_truth_and_nothing_else():
    simulator = get_simulator("chempy")
    found = stars("shifted", simulator, n=40, seed=3)
    theta = found.batch.theta.numpy()
    assert len(found) == 40
    assert_allclose(theta[:, :2], np.tile(TRUTHS["shifted"], (40, 1)), rtol=1e-6)
    assert (theta[:, 2:].std(0) > 0.05).all()
    assert ((theta[:, 5] > 2.0) & (theta[:, 5] < 12.8)).all()
    again = stars("shifted", simulator, n=40, seed=3)
    assert (found.batch.x == again.batch.x).all()


def test_birth_times_of_mocks_are_those_of_the_paper_or_of_the_prior():
    simulator = get_simulator("chempy")
    published = stars("same", simulator, n=400).batch.theta[:, 5]
    prior = stars("same", simulator, n=400, births="prior").batch.theta[:, 5]
    assert published.min() > 2.0
    assert published.max() < 12.8
    assert prior.min() < 2.0
    assert prior.max() > 12.8


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ConfigError, match="unknown experiment 'other' .known: same"):
        stars("other", get_simulator("chempy"))


def test_one_command_writes_table_numbers_and_figures(tmp_path):
    shown = perform(tmp_path, "shifted", "estimator.hidden=[32,32]", "estimator.components=3")
    folder = tmp_path / "shifted"
    assert {p.name for p in folder.iterdir()} == {
        "table.txt", "numbers.json", "convergence.png", "contours.png",
    }  # fmt: skip
    rows = json.loads((folder / "numbers.json").read_text())
    assert [(r["combiner"], r["n"]) for r in rows] == [
        (rule, n) for rule in ("gaussian", "simulated-moments", "published") for n in (1, 3, 10, 30)
    ]
    assert {r["subsets"] for r in rows if r["n"] == 3} == {10}
    assert "truth alpha_IMF -2.1, log10 N_Ia -3.0" in shown
    assert all(label in shown for label in PUBLISHED["shifted"])


def test_single_stars_are_measured_in_all_parameters(tmp_path):
    shown = perform(tmp_path, "single", "estimator.hidden=[16,16]", "estimator.transforms=2")
    folder = tmp_path / "single"
    assert {p.name for p in folder.iterdir()} == {
        "table.txt", "numbers.json", "ape.png", "calibration.png", "correlations.png",
    }  # fmt: skip
    found = json.loads((folder / "numbers.json").read_text())
    assert list(found["parameters"]) == list(get_simulator("chempy").parameters.names)
    assert not (tmp_path / "run-single" / "posterior").exists()
    assert "B25 six parameters" in shown


def _made(rng, n=4000, draws=200):
    """Exact posteriors N(m, C) of truths drawn from them."""
    cov = np.array([[1.0, 0.6], [0.6, 1.0]])
    root = np.linalg.cholesky(cov)
    centre = 10 + rng.standard_normal((n, 2))
    samples = centre + rng.standard_normal((draws, n, 2)) @ root.T
    truth = centre + rng.standard_normal((n, 2)) @ root.T
    ranks = diagnostics.sbc_ranks(samples, truth, rng)
    mean = samples.mean(0)
    return samples, single_stars.SingleStars(
        names=("a", "b"),
        labels=("a", "b"),
        truth=truth,
        mean=mean,
        ranks=ranks,
        draws=draws,
        coverage=diagnostics.coverage_central(ranks, draws),
        tarp=diagnostics.tarp(samples, truth, rng),
        within=single_stars._within(samples),
        between=np.corrcoef((mean - truth).T),
        failed=0,
    )


def test_correlations_of_a_known_posterior():
    _, found = _made(np.random.default_rng(1))
    assert_allclose(found.within[0, 1], 0.6, atol=0.01)  # draws per star are few, stars are many
    assert_allclose(found.between[0, 1], 0.6, atol=0.05)
    assert_allclose(np.diag(found.within), 1.0)


def test_the_table_quotes_medians_and_their_spread():
    _, found = _made(np.random.default_rng(2))
    low, middle, high = np.percentile(found.ape[:, 0], [16, 50, 84])
    text = single_stars.table(found)
    assert f"{middle:.1f} +{high - middle:.1f} -{middle - low:.1f}" in text
    assert "9.3 +17.1 -6.3" in text


def test_every_experiment_has_published_values_and_is_a_choice_of_the_command():
    assert set(experiments.PUBLISHED) == set(TRUTHS)
    assert set(command.params[0].type.choices) == {*TRUTHS, "single", "all"}
