"""Time tracks: conservation laws, then the original code."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.engine import ChempyEngine
from sbi_chempy.tracks import tracks


@pytest.mark.parametrize("f_cos", [1.0, 1e-6])
def test_mass_is_conserved_at_every_step(default_yields, prior_draws, f_cos):
    """Gas, corona and stars hold the initial corona plus the cosmic accretion."""
    engine = ChempyEngine(default_yields, cosmic_accretion=f_cos)
    theta = prior_draws(40)
    track = tracks(engine, theta)
    have = track.gas + track.corona + track.stars
    supply = engine.schedule(theta).corona[:, None] + f_cos * track.sfr.cumsum(1)
    assert_allclose(have, supply, rtol=1e-12)


def test_elements_add_up_to_the_gas_and_to_the_corona(default_engine, prior_draws):
    track = tracks(default_engine, prior_draws(40))
    assert_allclose(track.gas_elements.sum(2), track.gas, rtol=1e-10)
    assert_allclose(track.corona_elements.sum(2), track.corona, rtol=1e-10)


def test_last_step_is_what_the_engine_returns(default_engine, prior_draws):
    theta = prior_draws(40)
    abundances, status = default_engine(theta)
    track = tracks(default_engine, theta)
    assert (track.status == status).all()
    assert_allclose(track.abundances[:, -1], abundances, atol=5e-12)
    assert_allclose(track.time[:, -1], theta[:, 5], rtol=1e-14)


def test_gas_starts_metal_free(default_engine, check_point):
    track = tracks(default_engine, check_point)
    assert track.metallicity[0, 0] == 0
    assert (track.metallicity[0].diff()[5:] > 0).all()


def test_bad_rows_are_refused(default_engine, check_point):
    check_point[0, 4] = 2.0
    with pytest.raises(ValueError, match="x_out"):
        tracks(default_engine, check_point)


@pytest.mark.parametrize("name", ["tng", "alternative"])
def test_tracks_equal_the_original_code(chempy_data, published_yields, name):
    with np.load(chempy_data / f"ref_{name}.npz") as file:
        ref = {key: file[key][:50] for key in file.files if file[key].ndim}
    keep = (ref["status"] == 0) & (ref["n_steps"] == 28)
    engine = ChempyEngine(published_yields(name), clamp_low_z=False)
    track = tracks(engine, torch.as_tensor(ref["params"][keep]))
    for ours, theirs in (
        (track.time, "time"),
        (track.sfr, "sfr"),
        (track.gas, "gas"),
        (track.infall, "infall"),
        (track.gas_elements, "mass_ISM"),
        (track.corona_elements, "mass_reservoir"),
        (track.metallicity, "Z"),
    ):
        assert_allclose(ours, ref[f"track_{theirs}"][keep], atol=2e-8, err_msg=theirs)
