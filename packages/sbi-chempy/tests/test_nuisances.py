"""Nuisance parameters of chempy: other tables, factors, and stars without ejecta."""

import numpy as np
import pytest
import torch

from sbi_chempy.config import ChempyConfig
from sbi_chempy.constants import FACTOR_ELEMENTS
from sbi_chempy.nuisances import FAMILIES, collapsed, drawn_tables, factors_of, yield_nuisances
from sbi_chempy.simulator import ChempySimulator
from sbi_chempy.yields import load_yields
from sbi_chempy.yields.scatter import scatter


@pytest.fixture(scope="module")
def simulator():
    return ChempySimulator()


def nominal(simulator, n):
    return {k: np.full((n, s.dim), np.nan) for k, s in simulator.nuisances.items()}


def exact(simulator, n, **values):
    """No factors, and the values given, by name; columns that are not given are zero."""
    rows = {k: np.zeros((n, s.dim)) for k, s in simulator.nuisances.items()}
    for name, value in values.items():
        family = FAMILIES[name.split("_")[0]]
        rows[family][:, simulator.nuisances[family].names.index(name)] = value
    rows[FAMILIES["sn2"]][:, -1] = values.get("sn2_collapse", 100.0)
    return rows


def test_another_table_is_that_of_a_simulator_with_these_yields(simulator, rng):
    theta = simulator.parameters.sample(50, rng)
    names = drawn_tables()
    chosen = {"sn2": "woosley95", "agb": "cristallo11", "sn1a": "iwamoto99-wdd2"}
    other = ChempySimulator(ChempyConfig(yields=chosen))
    values = {f"{c}_table": names[c].index(t) for c, t in chosen.items()}
    x = simulator.simulate_nuisances(theta, exact(simulator, 50, **values)).x
    assert torch.equal(x, other.simulate(theta).x)


def test_rows_with_different_tables_keep_their_order(simulator, rng):
    theta = simulator.parameters.sample(40, rng)
    drawn = {k: s.sample(40, rng) for k, s in simulator.nuisances.items()}
    drawn[FAMILIES["agb"]][::3] = np.nan
    every = simulator.simulate_nuisances(theta, drawn)
    for k in (0, 7, 39):
        one = simulator.simulate_nuisances(theta[[k]], {f: v[[k]] for f, v in drawn.items()})
        assert torch.equal(every.x[[k]], one.x)
        assert every.failure[k] == one.failure[0]


def test_a_factor_changes_its_element_alone(simulator, rng):
    theta = simulator.parameters.sample(30, rng)
    tables = {"sn2_table": drawn_tables()["sn2"].index("nomoto13-net"), "agb_table": 0}
    tables["agb_table"] = drawn_tables()["agb"].index("karakas10")
    tables["sn1a_table"] = drawn_tables()["sn1a"].index("iwamoto99-w7")
    plain = simulator.simulate(theta).x
    moved = simulator.simulate_nuisances(theta, exact(simulator, 30, **tables, sn2_mg_factor=0.3))
    change = (moved.x - plain).numpy().mean(0)
    names = list(simulator.frame.names)
    assert change[names.index("mg_fe")] == pytest.approx(0.3, abs=0.01)
    rest = [k for k, n in enumerate(names) if n != "mg_fe"]
    assert np.abs(change[rest]).max() < 0.02


def test_collapsed_stars_return_nothing_and_mass_is_conserved():
    table = load_yields("default").sn2
    cut = collapsed(table, 25.0)
    for rows, before in zip(cut.rows, table.rows, strict=True):
        gone = before.mass > 25
        assert gone.any()
        assert (rows.yields[gone] == 0).all()
        assert (rows.wind[gone] == 0).all()
        assert (rows.remnant[gone] == 1).all()
        assert (rows.yields[~gone] == before.yields[~gone]).all()
    same = collapsed(table, 100.0)
    assert all((a.yields == b.yields).all() for a, b in zip(same.rows, table.rows, strict=True))


def test_collapse_lowers_oxygen(simulator, rng):
    theta = simulator.parameters.sample(30, rng)
    tables = {"sn2_table": drawn_tables()["sn2"].index("nomoto13-net")}
    x, less = (
        simulator.simulate_nuisances(theta, exact(simulator, 30, **tables, sn2_collapse=limit)).x
        for limit in (100.0, 25.0)
    )
    oxygen = simulator.frame.names.index("o_fe")
    assert (less - x)[:, oxygen].mean() < -0.1


def test_a_study_can_be_left_out(simulator):
    left = ChempySimulator(ChempyConfig(without_yields="limongi18"))
    text = left.nuisances[FAMILIES["sn2"]]["sn2_table"].description
    assert "limongi18" not in text
    assert "limongi18-v0" in simulator.nuisances[FAMILIES["sn2"]]["sn2_table"].description
    scale = left.nuisances[FAMILIES["sn2"]]["sn2_mg_factor"].prior.values["scale"]
    mg = FACTOR_ELEMENTS.index("Mg")
    assert scale == pytest.approx(max(0.05, 0.4 * scatter("limongi18")[0, mg, 0]))


def test_factors_have_the_shape_of_the_engine():
    spaces = yield_nuisances()
    rows = {k: s.sample(5, 1) for k, s in spaces.items()}
    factors = factors_of(rows)
    assert factors.shape == (5, 3, 8, 2)
    assert (factors[:, 2, :, 1] == 0).all()  # SN Ia have no slopes
    assert np.abs(factors).max() <= 1
    names = spaces[FAMILIES["agb"]].names
    carbon, slope = names.index("agb_c_factor"), names.index("agb_si_slope")
    assert factors[:, 1, 0, 0] == pytest.approx(np.clip(rows[FAMILIES["agb"]][:, carbon], -1, 1))
    assert factors[:, 1, 7, 1] == pytest.approx(np.clip(rows[FAMILIES["agb"]][:, slope], -1, 1))


def test_few_galaxies_lose_stars(simulator):
    """Stars that fail are lost from a group selectively."""
    rng = np.random.default_rng(3)
    theta = simulator.parameters.sample(3000, rng)
    drawn = {k: s.sample(3000, rng) for k, s in simulator.nuisances.items()}
    assert simulator.simulate_nuisances(theta, drawn).ok.float().mean() > 0.97
