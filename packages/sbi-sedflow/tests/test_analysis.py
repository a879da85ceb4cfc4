"""Refinement, catalogues, output, figures, the emulator: small end-to-end runs on toy stars."""

import pickle
from dataclasses import replace
from itertools import pairwise

import emcee
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core import Batch, DataFileError, Observations, Posterior, stream
from sbi_sedflow.analysis import SedflowAnalysis, residuals_of_bands
from sbi_sedflow.calibration import calibrate
from sbi_sedflow.certify import Masks
from sbi_sedflow.comparison import compare_galaxy, compare_training, write_figures
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.describe import describe_galaxies
from sbi_sedflow.emulator import ProvabgsEmulator, convert_pickles, restricted_load
from sbi_sedflow.flags import Flag
from sbi_sedflow.likelihood import Galaxies, log_likelihood, model_fluxes
from sbi_sedflow.photometry import Photometry, observations_of
from sbi_sedflow.priorwidth import PriorWidth
from sbi_sedflow.quantities import SHOWN
from sbi_sedflow.refine import StudentMixture, refine_galaxy, resampled
from sbi_sedflow.support import Support
from sbi_sedflow.target import Target


@pytest.fixture(scope="module")
def galaxies(toy):
    return toy.example_observations(stream(8, "galaxies"), 6)


@pytest.fixture(scope="module")
def support(toy):
    return Support(toy)


def described(toy, trained, objects, support, draws=250, refine="none"):
    posterior = Posterior(trained, seed=1)
    samples = posterior.sample(objects, draws)
    return describe_galaxies(
        toy, posterior, objects, samples, support, Masks(toy, posterior, 100),
        PriorWidth(toy),         refine=refine, limit=40_000, seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def chunk(toy, trained, galaxies, support):
    return described(toy, trained, galaxies, support)


def test_every_galaxy_gets_draws_inside_the_prior_and_flags(toy, chunk, galaxies):
    assert chunk.values.shape == (250, 6, 12)
    assert all(chunk[name].shape == (250, 6) for name in DERIVED)
    assert np.isfinite(chunk.values).all()
    assert toy.parameters.inside(chunk.values.reshape(-1, 12)).all()
    assert chunk.columns["method"].tolist() == ["npe"] * 6
    missing = (chunk.columns["flag_bits"] & Flag.MISSING_BAND) != 0
    assert (missing == ~galaxies.batch.observed.all(1).numpy()).all()


def test_residuals_are_observed_minus_predicted_fluxes_in_errors(toy, chunk, galaxies):
    seen = Galaxies.of(galaxies, toy.bands.softening)
    predicted = model_fluxes(toy, chunk.values[:200], seen).median(0).values.numpy()
    error = np.hypot(seen.sigma.numpy(), toy.floor / 1.0857362 * predicted)
    want = np.where(seen.mask.numpy(), (seen.flux.numpy() - predicted) / error, np.nan)
    got = np.stack([chunk.columns[f"residual_{b}"] for b in toy.bands.names], 1)
    assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_a_shift_of_a_whole_catalogue_is_reported_and_its_scatter_is_not(toy, rng):
    names = toy.bands.names
    columns = {f"residual_{b}": rng.normal(0, 0.7, 200) for b in names}
    table, remark = residuals_of_bands(toy, columns)
    assert not remark  # false alarm 1e-4
    assert [row[:2] for row in table.rows] == [[b, "200"] for b in names]
    columns["residual_g"] = columns["residual_g"] - np.median(columns["residual_g"]) - 0.5
    columns["residual_r"] = np.where(np.arange(200) < 10, 5.0, np.nan)  # too few
    table, remark = residuals_of_bands(toy, columns)
    assert "median residuals in errors: g -0.5)" in remark
    assert table.rows[names.index("r")][2] == "too few galaxies"


def test_a_galaxy_does_not_depend_on_its_company(toy, trained, galaxies, chunk, support):
    alone = described(toy, trained, galaxies[3], support)
    want = chunk.values[:, 3]
    # to the rounding of float32 networks, in units of the posterior's width where values are small
    assert_allclose(alone.values[:, 0] / want.std(0), want / want.std(0), rtol=1e-3, atol=2e-3)


def test_nothing_observed_gives_the_prior(toy, trained, support):
    nothing = np.full((1, 7), np.nan)
    photometry = Photometry(["a"], nothing, nothing, np.array([0.1]), np.array([0.1]))
    objects = observations_of(photometry, (0.003, 0.2), allow_prior=True)
    assert objects.labels["flag_bits"][0] & Flag.NO_DATA
    samples = described(toy, trained, objects, support, draws=2000, refine="all")
    mean, sd = toy.parameters.moments()
    got = samples.values[:, 0]
    assert (np.abs(got.mean(0) - mean) < 5 * sd / np.sqrt(2000)).all()  # false alarm 1e-5
    assert_allclose(got.std(0), sd, rtol=0.1)


def test_odd_errors_and_colours_are_flagged(toy, galaxies, support):
    good = Galaxies.of(galaxies)
    assert support.wide_noise(good).mean() < 0.5
    wide = Galaxies(good.flux, good.sigma * 300, good.mask, good.context)
    assert support.wide_noise(wide).all()
    odd = Galaxies(
        good.flux * torch.tensor([50.0, 0.02, 50.0, 0.02, 50.0, 0.02, 50.0]),
        good.sigma, good.mask, good.context,
    )  # fmt: skip
    assert (support.colour_percentile(odd) > 99.9).all()
    assert (support.colour_percentile(good) <= 99.9).all()


def test_a_fitted_mixture_is_a_density(rng):
    y = np.concatenate([rng.normal(-2, 0.5, (500, 2)), rng.normal(2, 1.0, (500, 2))])
    mixture = StudentMixture.fit(y, np.ones(1000), rng)
    draws = mixture.sample(20_000, rng)
    assert_allclose(draws.mean(0), y.mean(0), atol=0.15)
    grid = np.stack(np.meshgrid(*[np.linspace(-25, 25, 401)] * 2), -1).reshape(-1, 2)
    total = np.exp(mixture.log_prob(grid)).sum() * (50 / 400) ** 2
    assert_allclose(total, 1, atol=0.01)


def test_resampling_follows_the_weights(rng):
    y = np.arange(4.0)[:, None]
    found = resampled(y, np.log([0.1, 0.2, 0.3, 0.4]), 1000, rng)
    assert_allclose(np.bincount(found[:, 0].astype(int)), [100, 200, 300, 400], atol=1)


def test_refinement_agrees_with_a_sampler(toy, trained, galaxies, rng):
    """Means within 0.35 of the sampler's standard deviations for every parameter.

    Errors are sixteen times as wide: a network trained for seconds then overlaps the posterior.
    """
    sharp = Galaxies.of(galaxies[0])
    wide = Galaxies(sharp.flux, 16 * sharp.sigma, sharp.mask, sharp.context)
    batch = galaxies[0].batch
    one = Observations.from_batch(batch.with_(x_err=16 * batch.x_err))
    found = refine_galaxy(
        Posterior(trained, seed=1), one, Target(toy, wide), rng, draws=2000, limit=80_000
    )
    assert found.flags == Flag.REFINED_IS
    assert found.ess > 200
    assert toy.parameters.inside(found.theta).all()
    reference = sampled(Target(toy, wide), rng, steps=700)
    off = found.theta.mean(0) - reference.mean(0)
    assert (np.abs(off) < 0.35 * reference.std(0)).all()


def sampled(target, rng, *, steps, walkers=64):
    """Draws of theta by emcee, started from the best of 20,000 draws of the prior."""
    y = rng.standard_normal((20_000, target.dim))
    start = y[np.argsort(-target.log_prob(y))[: walkers // 2]]
    start = np.concatenate([start, start + 0.1 * rng.standard_normal(start.shape)])
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
    sampler = emcee.EnsembleSampler(
        walkers, target.dim, target.log_prob, moves=moves, vectorize=True
    )
    seeds = np.random.RandomState(int(rng.integers(2**31)))  # noqa: NPY002
    sampler.run_mcmc(emcee.State(start, random_state=seeds.get_state()), steps)
    return target.theta(sampler.get_chain(discard=steps // 3, flat=True))


def test_refinement_stops_at_its_limit_and_says_so(toy, trained, galaxies, rng):
    one = galaxies[1]
    sharp = Galaxies.of(one)
    impossible = Galaxies(sharp.flux * 1e6, sharp.sigma * 1e-3, sharp.mask, sharp.context)
    target = Target(toy, impossible)
    found = refine_galaxy(Posterior(trained, seed=1), one, target, rng, draws=100, limit=12_000)
    assert found.flags & Flag.NOT_CONVERGED
    assert found.theta.shape == (100, 12)
    assert np.isfinite(found.theta).all()
    assert target.calls <= 12_000 + 4000


def test_a_limit_that_leaves_nothing_for_mcmc_gives_draws_of_the_weights(
    toy, trained, galaxies, rng
):
    one = galaxies[1]
    sharp = Galaxies.of(one)
    target = Target(toy, Galaxies(sharp.flux, sharp.sigma * 0.1, sharp.mask, sharp.context))
    found = refine_galaxy(Posterior(trained, seed=1), one, target, rng, limit=16_000)
    assert (found.method, found.end) == ("npe+is", "limit")
    assert not found.flags & Flag.REFINED_SAMPLER
    assert found.flags & Flag.NOT_CONVERGED
    assert 1 < found.ess < 200


def test_a_galaxy_that_no_draw_fits_stops_early(toy, trained, rng):
    flux = np.array([[1000.0, 1.0, 1000.0, 1.0, 1000.0, 1.0, 1000.0]])
    photometry = Photometry(["a"], flux, 0.02 * flux, np.array([0.1]), np.array([0.1]))
    object_ = observations_of(photometry, (0.003, 0.2))
    target = Target(toy, Galaxies.of(object_))
    found = refine_galaxy(Posterior(trained, seed=1), object_, target, rng, limit=300_000)
    assert found.end == "no_fit"
    assert found.flags & Flag.NOT_CONVERGED
    assert target.calls < 40_000
    assert len(np.unique(found.theta[:, 0])) > 100  # the draws are not one point


def test_an_efficient_network_is_enough(toy, trained, galaxies, rng):
    """Where the data say little, weights of network draws converge without other proposals."""
    photometry = Photometry(
        ["a"], np.full((1, 7), 100.0), np.full((1, 7), 60.0), np.array([0.1]), np.array([0.1])
    )
    object_ = observations_of(photometry, (0.003, 0.2))
    target = Target(toy, Galaxies.of(object_))
    found = refine_galaxy(Posterior(trained, seed=1), object_, target, rng, limit=40_000)
    assert (found.method, found.end) == ("npe+is", "converged")
    assert target.calls <= 24_000


def test_the_target_is_the_same_in_both_coordinates(toy, galaxies, rng):
    from scipy import special

    target = Target(toy, Galaxies.of(galaxies[0]))
    y = rng.standard_normal((20, 11))
    assert_allclose(target.log_likelihood(y), target.log_likelihood_cube(special.ndtr(y)))
    theta = target.theta(y)
    again = log_likelihood(toy, theta[:, None], Galaxies.of(galaxies[0]))[:, 0]
    assert_allclose(target.log_likelihood(y), again)
    assert target.calls == 60
    assert target.log_prob(np.full((1, 11), 50.0)) == -np.inf


def test_errors_say_little_about_fluxes(toy, galaxies, rng):
    """Posterior with and without p(sigma | f): means differ by less than 0.3 sd (median 0.1)."""
    theta = toy.parameters.sample(4000, rng)
    one = Galaxies.of(galaxies[0])
    rows = theta[:, None].copy()
    base = log_likelihood(toy, rows, one)[:, 0]
    with_sigma = log_likelihood(toy, rows, one, sigma_term=True)[:, 0]
    near = base > np.sort(base)[-100]
    change = (with_sigma - base)[near]
    assert change.std() < 0.5 * base[near].std() + 0.5


def test_tables_have_a_row_for_every_row_of_the_file(toy, trained, galaxies, support):
    seen = Galaxies.of(galaxies)
    flux = np.where(seen.mask, seen.flux, np.nan)
    sigma = np.where(seen.mask, seen.sigma, np.nan)
    z = seen.context[:, 0].numpy()
    photometry = Photometry(
        ["bad", *galaxies.id.tolist()],
        np.concatenate([flux[:1], flux]),
        np.concatenate([sigma[:1], sigma]),
        np.concatenate([[np.nan], z]),
        np.concatenate([[np.nan], z]),
        {"ra": np.arange(7.0)},
    )
    objects = observations_of(photometry, (0.003, 0.2))
    samples = described(toy, trained, objects, support)
    assert samples.labels.keys() == set()  # filled in by the inference path of the core
    out = replace(
        samples, labels=objects.labels, rows=objects.rows, excluded=objects.excluded
    ).summary()
    assert len(out) == 7
    assert out["flags"][0] == "redshift_outside_model"
    assert out["ra"].tolist()[1:] == [1, 2, 3, 4, 5, 6]
    assert np.isnan(out["logmstar_p50"][0])
    assert np.isfinite(np.asarray(out["logmstar_p50"][1:])).all()
    assert str(out["sfr_1gyr_mean"].unit) == "solMass / yr"


def test_calibration_sees_a_posterior_that_is_too_wide(toy, trained):
    """A network trained for seconds: its draws fit worse than the truth, and that is reported."""
    batch = toy.observe(toy.draw(60, 4), 5).to("cpu", torch.float32)
    found = calibrate(toy, Posterior(trained, seed=1), batch, 1, draws=100)
    assert found.ppc_ratio > 2
    assert found.p_values["log_likelihood"] < 1e-3
    assert set(found.coverage) == {
        "sfr_1gyr", "sfr_100myr", "z_mw", "tage_mw", "msurv_frac", "logmsurv", "log_likelihood",
    }  # fmt: skip


def test_the_report_gets_flags_and_figures(toy, trained, galaxies, chunk):
    analysis = SedflowAnalysis()
    analysis.attach(toy)
    findings = analysis.report(Posterior(trained, seed=1), galaxies, chunk, 1)
    section = findings.sections[0]
    assert len(section.drawings) == 8  # fluxes and histories of three, one corner, the recovery
    results, residuals, flags, _ = section.tables
    assert [row[0] for row in residuals.rows] == list(toy.bands.names)
    assert [len(row) for row in results.rows] == [1 + len(SHOWN)] * 6
    low, middle, high = results.rows[2][1]
    assert_allclose([low, middle, high], np.percentile(chunk["logmstar"][:, 2], [16, 50, 84]))
    assert len(flags.rows) == len(Flag)
    assert flags.head[:2] == ("name", "bit of flag_bits")  # `flags` may be empty
    assert set(findings.numbers["flags"]) == {f.name for f in Flag}


def test_galaxies_without_a_truth_have_neither_recovery_nor_lines(toy, trained, galaxies, chunk):
    unknown = replace(galaxies, batch=galaxies.batch.with_(theta=None), truth_names=())
    analysis = SedflowAnalysis()
    analysis.attach(toy)
    findings = analysis.report(Posterior(trained, seed=1), unknown, chunk, 1)
    captions = [d.caption for d in findings.sections[0].drawings]
    assert len(captions) == 7
    assert not any("truth" in c or "true" in c for c in captions)


def test_one_galaxy_is_drawn_by_network_and_mcmc(toy, trained, galaxies, tmp_path):
    posterior = Posterior(trained, seed=1)
    result = write_figures(toy, posterior, galaxies, 2, tmp_path, seed=1, limit=25_000)
    names = ["fluxes", "history", "parameters", "quantities", "training-set"]
    assert sorted(p.stem for p in tmp_path.glob("*.png")) == names
    assert toy.parameters.inside(result.chain).all()
    assert np.isfinite([*result.shift, *result.width, result.ess]).all()
    again = compare_galaxy(toy, posterior, galaxies[np.array([2])], 1, 25_000)
    assert_allclose(again.chain, result.chain)


def test_a_catalogue_is_compared_in_the_bands_that_it_has(toy, galaxies):
    mask = galaxies.batch.observed.clone()
    mask[:, :2] = False
    x = torch.where(mask, galaxies.batch.x, torch.nan)
    objects = replace(galaxies, batch=galaxies.batch.with_(x=x, mask=mask))
    labels = [a.get_xlabel() for a in compare_training(toy, objects, 1).axes[-7:]]
    assert [label.strip("$") for label in labels] == [
        r"\mathrm{r}", *(rf"\mathrm{{{a}}} - \mathrm{{{b}}}" for a, b in pairwise("ugriz")),
        r"\log \sigma_\mathrm{r}", "z",
    ]  # fmt: skip


def test_one_valid_band_is_enough(toy, trained, support):
    flux, sigma = np.full((1, 7), np.nan), np.full((1, 7), np.nan)
    flux[0, 4], sigma[0, 4] = 100.0, 2.0
    photometry = Photometry(["a"], flux, sigma, np.array([0.05]), np.array([0.05]))
    objects = observations_of(photometry, (0.003, 0.2))
    samples = described(toy, trained, objects, support, draws=200, refine="flagged")
    assert np.isfinite(samples.values).all()
    assert samples.columns["n_bands"][0] == 1


def test_an_observation_without_errors_is_refused(toy, trained):
    batch = Batch(x=torch.full((1, 7), 18.0), context=torch.tensor([[0.05, 37.0]]))
    with pytest.raises(Exception, match="errors"):
        Posterior(trained, seed=1).sample(Observations.from_batch(batch), 5)


# -- the emulator of PROVABGS ----------------------------------------------------------------


def test_the_emulator_reproduces_the_original_spectra(sedflow_data):
    ref = np.load(sedflow_data / "ref_provabgs_emulator.npz")
    emulator = ProvabgsEmulator(sedflow_data / "provabgs_nmf_emulator.npz")
    names = [str(n) for n in ref["theta_unt_names"]]
    t = {n: ref["theta_unt"][:, k] for k, n in enumerate(names)}
    columns = list(t.values())
    lum = emulator.luminosity(
        np.stack(columns[1:4], 1), np.stack(columns[4:6], 1), np.stack(columns[6:9], 1),
        ref["tage_gyr"],
    )  # fmt: skip
    assert_allclose(emulator.wave, ref["wave_rest"])
    assert_allclose(lum * 10.0 ** columns[0][:, None], ref["lum_rest"], rtol=2e-4)


def test_pickles_are_refused_or_converted_without_executing(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    with pytest.raises(DataFileError, match="only numpy arrays"):
        restricted_load(pickle.dumps([Evil()]))
    with pytest.raises(DataFileError, match="convert it with"):
        ProvabgsEmulator(tmp_path / "weights.pkl")
    rng = np.random.default_rng(1)
    sizes = [9, *[4] * 8]
    weights = [rng.normal(size=(sizes[i], 4)).astype("f4") for i in range(9)]
    flat = [rng.normal(size=4).astype("f4") for _ in range(9)]
    pieces = [np.zeros(9), np.ones(9), np.zeros(4), np.ones(4), np.zeros(6), np.ones(6),
              rng.normal(size=(4, 6))]  # fmt: skip
    items = [weights, flat, flat[:8], flat[:8], *pieces, 4, 6, np.arange(6.0), 4, [4] * 8, 9, []]
    paths = []
    for k in range(4):
        paths.append(tmp_path / f"w{k}.pkl")
        paths[-1].write_bytes(pickle.dumps(items))
    emulator = ProvabgsEmulator(convert_pickles(paths, tmp_path / "emulator.npz"))
    lum = emulator.luminosity(np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 3)), np.ones(2))
    assert lum.shape == (2, 24)
    assert np.isfinite(lum).all()
    with pytest.raises(DataFileError, match="expected 4 files"):
        convert_pickles(paths[:2], tmp_path / "x.npz")
