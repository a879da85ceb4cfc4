"""The forward model: reference draws, limits, conservation, bad input."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core import ConfigError
from sbi_sedflow.bases import provabgs_bases
from sbi_sedflow.constants import L_SUN, MPC_CM
from sbi_sedflow.cosmology import age_gyr, distance_modulus, luminosity_distance_cm
from sbi_sedflow.forward import ForwardModel


def test_photometry_agrees_with_an_independent_evaluation(sedflow_data, reference_model):
    """1000 draws at native resolution: 99 % within 0.01 mag in every band."""
    ref = np.load(sedflow_data / "ref_bc03_proto.npz")
    flux = reference_model.photometry(ref["theta"], ref["z"]).numpy()
    off = np.abs(2.5 * np.log10(flux / ref["flux_nmgy_fullres"]))
    assert (np.percentile(off, 99, axis=0) < [0.01, 0.01, 0.002, *[0.001] * 4]).all()
    assert off.max() < 0.03


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("sfr_1gyr", "sfr_1gyr"),
        ("z_mw", "z_mw"),
        ("tage_mw", "tage_mw_gyr"),
        ("msurv_frac", "msurv_frac"),
    ],
)
def test_derived_quantities_agree_with_an_independent_evaluation(
    sedflow_data, reference_model, ours, theirs
):
    ref = np.load(sedflow_data / "ref_bc03_proto.npz")
    found = reference_model.derived(ref["theta"], ref["z"])[ours]
    assert_allclose(found, ref[theirs], rtol=1e-6)


def test_ages_and_distances_agree_with_the_reference(sedflow_data):
    ref = np.load(sedflow_data / "ref_bc03_proto.npz")
    assert_allclose(age_gyr(ref["z"]), ref["tage_gyr"], rtol=1e-7)
    assert_allclose(luminosity_distance_cm(ref["z"]), ref["dlum_cm"], rtol=1e-7)
    ten_parsec = 5 * np.log10(luminosity_distance_cm(0.1) / (1e-5 * MPC_CM))
    assert_allclose(distance_modulus(0.1), ten_parsec)


def test_histories_agree_with_the_code_of_provabgs(sedflow_data, bc03_library):
    ref = np.load(sedflow_data / "ref_provabgs_emulator.npz")
    model = ForwardModel(bc03_library, bases=provabgs_bases(sedflow_data), variant="provabgs")
    n = len(ref["z"])
    t, burst = ref["theta"], np.tile([0.0, 1.0], (n, 1))
    theta = np.concatenate([t[:, :5], burst, t[:, 5:]], axis=1)
    edges, sfr, zh = model.sfh(theta, ref["z"])
    assert_allclose(edges, ref["tlb_edges_gyr"], rtol=1e-5)
    assert_allclose(sfr, ref["sfh_msun_yr"], rtol=1e-4, atol=1e-6 * ref["sfh_msun_yr"].max())
    assert_allclose(zh, ref["zh"], rtol=1e-5)
    found = model.derived(theta, ref["z"])
    for ours, theirs in (
        ("sfr_1gyr", "avgsfr_1gyr"), ("z_mw", "z_mw"), ("tage_mw", "tage_mw_gyr"),
    ):  # fmt: skip
        assert_allclose(found[ours], ref[theirs], rtol=1e-4)


def test_bc03_differs_from_fsps_as_is_known(sedflow_data, bc03_library):
    """BC03 minus emulated FSPS in ugriz, without burst: medians of the design study +- 0.03."""
    ref = np.load(sedflow_data / "ref_provabgs_emulator.npz")
    model = ForwardModel(bc03_library, bases=provabgs_bases(sedflow_data))
    t, n = ref["theta"], len(ref["z"])
    theta = np.concatenate([t[:, :5], np.tile([0.0, 1.0], (n, 1)), t[:, 5:]], axis=1)
    mags = 22.5 - 2.5 * np.log10(model.photometry(theta, ref["z"]).numpy()[:, 2:])
    shift = np.median(mags - ref["mags_sdss"], axis=0)
    assert_allclose(shift, [0.056, 0.095, 0.067, 0.058, 0.077], atol=0.015)


def test_flux_is_proportional_to_mass_and_falls_with_distance(toy, rng):
    theta = toy.parameters.sample(50, rng)
    one = toy.model.photometry(theta, 0.05)
    theta[:, 0] += 1.0
    assert_allclose(toy.model.photometry(theta, 0.05).numpy(), 10 * one.numpy(), rtol=1e-12)
    unit = toy.model.photometry(theta, 0.05, unit_mass=True)
    assert_allclose(unit.numpy() * 10.0 ** theta[:, :1], 10 * one.numpy(), rtol=1e-12)


def test_light_without_dust_is_the_sum_over_the_populations(bc03_library, rng):
    """Exact case: the r flux of a pure burst is the integral of one grid spectrum."""
    model = ForwardModel(bc03_library)
    age, metal = bc03_library.age_gyr[120], bc03_library.metallicity[4]
    z_basis = model.bases.metallicity(np.array([age]))[:, 0]
    gamma = np.array([metal / z_basis[0], 0.0])
    theta = np.array([[10.0, 0.25, 0.25, 0.25, 0.25, 1.0, age, *gamma, 0.0, 0.0, 0.0]])
    wave, lum = model.spectrum(theta, 0.05)
    assert_allclose(lum[0] / 1e10, bc03_library.lum[120, 4], rtol=2e-5)
    total = (lum[0] * np.diff(bc03_library.edges)).sum()  # energy between the first and last edge
    assert total > 0
    d2 = 4 * np.pi * luminosity_distance_cm(0.05) ** 2
    assert np.isfinite(total * L_SUN / d2)


def test_dust_dims_and_reddens(toy, rng):
    theta = toy.parameters.sample(40, rng)
    theta[:, [5, 9, 10, 11]] = 0.0
    clear = toy.model.photometry(theta, 0.05)
    theta[:, 10] = 1.0
    dusty = toy.model.photometry(theta, 0.05)
    ratio = dusty / clear
    assert (ratio < 1).all()
    assert (ratio[:, 1] < ratio[:, 6]).all()  # NUV loses more than z


def test_birth_clouds_touch_young_stars_only(toy, rng):
    theta = toy.parameters.sample(40, rng)
    theta[:, 5], theta[:, 6] = 1.0, 5.0  # all mass in an old burst
    theta[:, 9] = 0.0
    clear = toy.model.photometry(theta, 0.05)
    theta[:, 9] = 3.0
    assert_allclose(toy.model.photometry(theta, 0.05), clear, rtol=1e-6)


def test_a_burst_before_the_universe_changes_nothing(toy, rng):
    theta = toy.parameters.sample(40, rng)
    theta[:, 6] = 13.2  # Gyr; the universe is 12.5 Gyr old at z = 0.1
    theta[:, 5] = 0.8
    with_burst = toy.model.photometry(theta, 0.1)
    theta[:, 5] = 0.0
    assert_allclose(with_burst, toy.model.photometry(theta, 0.1), rtol=1e-6)


def test_the_original_code_loses_the_light_of_such_a_burst(toy, rng):
    model = ForwardModel(toy.model.library, variant="provabgs")
    theta = toy.parameters.sample(5, rng)
    theta[:, 6], theta[:, 5] = 13.2, 0.8
    with_burst = model.photometry(theta, 0.1)
    theta[:, 5] = 0.0
    assert_allclose(with_burst, 0.2 * model.photometry(theta, 0.1), rtol=1e-5)


def test_mass_is_conserved_by_the_history(toy, rng):
    theta = toy.parameters.sample(60, rng)
    edges, sfr, _ = toy.model.sfh(theta, rng.uniform(0.01, 0.2, 60))
    mass = (sfr * np.diff(edges, axis=1) * 1e9).sum(1)
    assert_allclose(mass, 10.0 ** theta[:, 0], rtol=1e-9)


def test_rows_do_not_depend_on_their_company(toy, rng):
    theta, z = toy.parameters.sample(300, rng), rng.uniform(0.01, 0.2, 300)
    together = toy.model.photometry(theta, z)
    alone = torch.cat([toy.model.photometry(theta[k : k + 1], z[k]) for k in (0, 17, 299)])
    assert_allclose(together[[0, 17, 299]], alone, rtol=1e-5)


def test_large_masses_do_not_overflow(toy, rng):
    theta = toy.parameters.sample(5, rng).astype(np.float32)
    theta[:, 0] = 12.5
    assert torch.isfinite(toy.model.photometry(torch.as_tensor(theta), 0.003)).all()


@pytest.mark.parametrize(
    ("z", "message"), [(0.3, "lies outside"), (0.0, "lies outside"), (np.nan, "lies outside")]
)
def test_redshifts_outside_the_model_are_refused(toy, rng, z, message):
    with pytest.raises(ConfigError, match=message):
        toy.model.photometry(toy.parameters.sample(2, rng), [0.1, z])


def test_theta_of_the_wrong_shape_or_not_finite_is_refused(toy, rng):
    theta = toy.parameters.sample(3, rng)
    with pytest.raises(ConfigError, match="shape"):
        toy.model.photometry(theta[:, :5], 0.1)
    theta[1, 3] = np.nan
    with pytest.raises(ConfigError, match="row 1"):
        toy.model.photometry(theta, 0.1)


def test_no_rows_give_no_rows(toy):
    assert toy.model.photometry(np.empty((0, 12)), 0.1).shape == (0, 7)


def test_the_highest_redshift_may_be_rounded_to_float32(toy):
    theta = toy.parameters.sample(3, np.random.default_rng(1))
    exact = toy.model.photometry(theta, 0.2)
    assert_allclose(toy.model.photometry(theta, np.float64(np.float32(0.2))), exact)
    with pytest.raises(ConfigError, match="outside"):
        toy.model.photometry(theta, 0.2001)
