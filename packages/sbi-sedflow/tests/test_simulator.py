"""The simulator: contract, seeds, masks, examples, identity."""

import numpy as np
import pytest
import torch
from astropy.table import Table
from numpy.testing import assert_allclose
from pydantic import ValidationError

from sbi_core import ConfigError, DataFileError, Observations, Posterior, get_simulator, stream
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.luptitudes import flux_of
from sbi_sedflow.parameters import parameter_space
from sbi_sedflow.simulator import SedflowSimulator


def test_the_same_seed_gives_the_same_bits(toy):
    first, again = toy.draw(50, stream(1, "a")), toy.draw(50, stream(1, "a"))
    assert torch.equal(first.x, again.x)
    seen, seen_again = toy.observe(first, stream(2, "b")), toy.observe(again, stream(2, "b"))
    assert torch.equal(seen.mask, seen_again.mask)
    assert torch.equal(torch.nan_to_num(seen.x), torch.nan_to_num(seen_again.x))


def test_simulations_are_finite_over_the_whole_prior(toy):
    batch = toy.draw(2000, 3)
    assert bool(batch.ok.all())
    assert torch.isfinite(batch.x).all()
    z, dm = batch.context.T
    assert ((z > 0.003) & (z < 0.2)).all()
    assert (dm - torch.as_tensor(distance_modulus(z.numpy()))).abs().median() < 0.1


def test_what_is_missing_is_nan_and_masked(toy):
    seen = toy.observe(toy.draw(2000, 3), 4)
    assert torch.isnan(seen.x[~seen.mask]).all()
    assert torch.isfinite(seen.x[seen.mask]).all()
    assert (seen.x_err[seen.mask] > 0).all()


def test_fluxes_follow_the_distance_not_the_redshift_alone(toy, rng):
    theta = toy.parameters.sample(3, rng)
    near = np.stack([np.full(3, 0.05), distance_modulus(np.full(3, 0.05))], 1)
    far = near + [0.0, 1.0]
    assert_allclose(toy.fluxes(theta, far), 10**-0.4 * toy.fluxes(theta, near))


def test_examples_are_chosen_by_observed_magnitude(toy):
    found = toy.example_observations(5, 30)
    r = found.batch.x[:, 4]
    assert len(found) == 30
    assert ((r > 12) & (r < 18.5)).all()
    assert found.truth["logmstar"].shape == (30,)


def test_a_simulator_survives_pickling(toy):
    import pickle

    again = pickle.loads(pickle.dumps(toy))
    assert again.identity == toy.identity
    assert torch.equal(again.draw(3, 1).x, toy.draw(3, 1).x)


def test_the_identity_changes_with_the_model(toy):
    other = SedflowSimulator(SedflowConfig(ssp="toy", pixels=256, variant="provabgs"))
    assert other.identity != toy.identity
    assert other.floor == 0.0
    assert other.parameters.hash != toy.parameters.hash


def test_priors_are_flat_on_the_simplex_or_those_of_the_code(rng):
    flat = parameter_space().sample(20_000, rng)[:, 1:5]
    assert_allclose(flat.mean(0), 0.25, atol=0.01)
    assert_allclose(flat.std(0), 0.194, atol=0.005)
    sticks = parameter_space("provabgs").sample(20_000, rng)[:, 1:5]
    assert_allclose(sticks.mean(0), [0.5, 0.25, 0.125, 0.125], atol=0.01)


def test_the_prior_of_specific_star_formation_is_broad_on_request(rng):
    """Shares per dex from -14 to -10; the flat prior of beta has 4 % below -12."""
    toy = [SedflowSimulator(SedflowConfig(ssp="toy", pixels=128, sfh_prior=p)) for p in (
        "flat", "ssfr")]  # fmt: skip
    shares = []
    for simulator in toy:
        theta = simulator.parameters.sample(20_000, rng)
        rate = simulator.model.derived(theta, np.full(len(theta), 0.05))["sfr_1gyr"]
        log = np.log10(np.maximum(rate, 1e-30)) - theta[:, 0]
        shares.append(np.histogram(log, [-99, -14, -13, -12, -11, -10, 0])[0] / len(log))
    assert shares[0][:3].sum() < 0.06
    assert (shares[1] > 0.1).all()
    assert_allclose(shares[1][1:5], 0.18, atol=0.06)
    assert toy[0].parameters.hash != toy[1].parameters.hash


def test_toy_stars_do_not_fit_catalogues():
    toy = get_simulator("sedflow", ssp="toy", pixels=128)
    with pytest.raises(ConfigError, match="allow_toy"):
        toy.observations_of(Table(), "nsa.fits")


def test_impossible_options_are_refused():
    with pytest.raises(ValidationError, match="must be below"):
        SedflowConfig(z_min=0.2, z_max=0.1)
    with pytest.raises(ValidationError, match="needs variant = 'corrected'"):
        SedflowConfig(variant="provabgs", sfh_prior="ssfr")
    with pytest.raises(ValidationError, match="noise_catalogue"):
        SedflowConfig(noise="hotdeck")
    with pytest.raises(DataFileError, match="unknown bases"):
        SedflowSimulator(SedflowConfig(bases="nmf"))


def test_the_likelihood_peaks_at_the_truth(toy):
    batch = toy.draw(200, 9)
    seen = toy.observe(batch, 10)
    true = toy.log_likelihood(batch, seen)
    other = toy.log_likelihood(batch[torch.roll(torch.arange(200), 1)], seen)
    some = seen.mask.any(1).numpy()
    assert (true >= other)[some].mean() > 0.98
    assert_allclose(true[~some], 0)


def test_masked_values_never_reach_the_network(toy, trained):
    seen = toy.observe(toy.draw(200, 5), 6).to("cpu", torch.float32)
    a = seen.with_(x=torch.where(seen.mask, seen.x, torch.nan))
    b = seen.with_(
        x=torch.where(seen.mask, seen.x, 1e6), x_err=torch.where(seen.mask, seen.x_err, -3.0)
    )
    theta = seen.theta.double().numpy()
    assert np.array_equal(trained.log_prob(theta, a), trained.log_prob(theta, b))


def test_the_estimator_is_a_normalised_density_inside_the_prior(toy, trained):
    """Draws and density agree: E_prior[q / p] = 1 (false alarm 1e-4)."""
    seen = toy.observe(toy.draw(1, 5), 6).to("cpu", torch.float32)
    posterior = Posterior(trained, seed=1)
    theta = posterior.sample(Observations.from_batch(seen), 500).values
    assert toy.parameters.inside(theta[:, 0]).all()
    prior = toy.parameters.sample(20_000, stream(1, "prior"))
    ratio = np.exp(trained.log_prob(prior[:, None], seen)[:, 0] - toy.parameters.log_prob(prior))
    error = ratio.std() / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1) < 4 * error + 0.02


def test_the_fluxes_of_stored_magnitudes_are_exact_enough(toy):
    batch = toy.draw(500, 2)
    exact = toy.fluxes(batch.theta, batch.context)
    stored = flux_of(batch.x.float())
    assert_allclose(stored, exact, rtol=1e-4, atol=1e-5)
