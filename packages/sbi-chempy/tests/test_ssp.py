"""Return of simple stellar populations."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.engine import ChempyEngine
from sbi_chempy.imf import cumulative_mass, grid_index
from sbi_chempy.ssp import ssp_return

METALLICITY = torch.tensor([0.0, 1e-4, 0.001, 0.02, 0.1], dtype=torch.float64)


def test_returned_mass_is_positive_and_below_the_mass_of_stars_above_one_msun(default_engine):
    table = ssp_return(default_engine, METALLICITY)
    returned = table.stars.sum(2)
    assert (returned >= 0).all()
    dead = 1 - cumulative_mass(torch.tensor([-2.3], dtype=torch.float64))[0, grid_index(1.0)]
    assert (returned.sum(1) < dead).all()
    assert (table.turnoff.diff(dim=1) < 0).all()


def test_age_steps_add_up(default_yields):
    """13 steps of 0.2 Gyr return the same as 26 steps of 0.1 Gyr."""
    coarse = ssp_return(default_yields, METALLICITY, age_step=0.2, n_ages=13)
    fine = ssp_return(default_yields, METALLICITY, age_step=0.1, n_ages=26)
    paired = fine.stars.reshape(len(METALLICITY), 13, 2, 9).sum(2)
    assert_allclose(coarse.stars, paired, atol=1e-13)


def test_without_net_yields_the_birth_mix_comes_back(default_yields):
    """The unprocessed part of the return has the composition at birth."""
    mix = torch.full((1, 9), 1 / 9, dtype=torch.float64)
    z = torch.tensor([0.02], dtype=torch.float64)
    engine = ChempyEngine(default_yields)
    with_mix = ssp_return(engine, z, birth_mix=mix).stars
    without = ssp_return(engine, z, birth_mix=torch.zeros_like(mix)).stars
    wind = with_mix - without
    assert_allclose(wind, wind[:, :, :1].expand_as(wind), rtol=1e-9, atol=1e-16)
    assert (wind >= 0).all()


def test_sn_ia_iron_scales_with_the_normalisation(default_yields):
    few, many = (ssp_return(default_yields, METALLICITY, log10_n_ia=n).sn_ia for n in (-3.0, -2.0))
    assert_allclose(many, 10 * few, rtol=1e-12)


@pytest.mark.parametrize(("option", "value"), [("age_step", 0.01), ("n_ages", 28)])
def test_options_are_checked(default_yields, option, value):
    with pytest.raises(ValueError, match=option):
        ssp_return(default_yields, METALLICITY, **{option: value})


@pytest.mark.parametrize("name", ["tng", "alternative", "alternative-net"])
def test_table_equals_the_original_code(chempy_data, published_yields, name):
    with np.load(chempy_data / f"stage_{name.replace('-', '_')}.npz") as stage:
        z, mix = torch.as_tensor(stage["ssp_Z"]), torch.as_tensor(stage["ssp_comp"])
        step = float(stage["time"][1])
        want, want_ia = stage["ssp_step_total"], stage["ssp_step_sn1a"]
    engine = ChempyEngine(published_yields(name), clamp_low_z=False)
    got = ssp_return(engine, z, birth_mix=mix, age_step=step)
    assert_allclose(got.total.transpose(1, 2), want[:, :, 1:], atol=1e-9)
    assert_allclose(got.sn_ia.transpose(1, 2)[:, [1]], want_ia[:, [1], 1:], atol=1e-12)
