from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose
from scipy import sparse

from sbi_casbi import dwarfs
from sbi_casbi.config import CasbiConfig
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.physics import Physics, PhysicsMap
from sbi_casbi.populations import Draw
from sbi_casbi.simulator import CasbiSimulator


def physics_of(n, **changed):
    values = dict.fromkeys(Physics.__slots__, 0.0) | changed
    return Physics(**{name: np.full(n, value) for name, value in values.items()})


def moved(library, **changed):
    """Return the library with every template moved by the same physics."""
    n = len(library)
    alone = Draw(np.arange(n)[:, None], np.ones(n, int))
    physics = physics_of(n, **changed)
    fine = PhysicsMap(library).superpose(alone, np.ones((n, 1)), physics)
    return replace(library, templates=sparse.csr_matrix(fine.reshape(n, -1)))


def test_no_deviation_moves_nothing(library):
    assert (moved(library).templates != library.templates).nnz == 0


def test_the_map_of_supernovae_is_that_of_the_model():
    """Up to the mean [Fe/H], which the model keeps on the relation."""
    plain = build_dwarfs(DwarfConfig(stems=150))
    model = build_dwarfs(DwarfConfig(stems=150, y_ia_factor=1.3)).moments
    off = model - moved(plain, y_ia=np.log10(1.3)).moments
    effect = model - plain.moments
    assert effect[:, 1].mean() < -0.045
    fine_bin = plain.plane.pixel[1] / 2
    assert_allclose(off[:, 1], 0.0, atol=fine_bin)  # mean [O/Fe]
    assert abs(off[:, 1].mean()) < 0.2 * fine_bin
    assert_allclose(off[:, [2, 3]].mean(0), 0.0, atol=0.004)  # widths
    assert np.std(off[:, 0]) < 0.015


def test_outflows_stretch_iron_and_leave_oxygen(monkeypatch):
    """The exponent of outflows changes the width in [Fe/H], and hardly the mean [O/Fe]."""
    plain = build_dwarfs(DwarfConfig(stems=150))
    draw = dwarfs._draw
    monkeypatch.setattr(dwarfs, "_draw", lambda c: replace(draw(c), power=1.6 * draw(c).power))
    steep = build_dwarfs(DwarfConfig(stems=150)).moments
    wide = moved(plain, width=0.13).moments
    assert (steep[:, 2] - plain.moments[:, 2]).mean() > 0.045
    assert_allclose(wide[:, 2].mean(), steep[:, 2].mean(), atol=0.02)
    assert_allclose(steep[:, 1], plain.moments[:, 1], atol=0.01)
    assert_allclose(wide[:, 1], plain.moments[:, 1], atol=0.01)


def test_relation_and_alpha_move_the_means(library):
    for change, expected in (
        ({"fe_h": 0.2}, np.full(len(library), 0.2)),
        ({"slope": 0.1}, 0.1 * (library.log_mstar - 7.0)),
        ({"evolution": 0.3}, 0.3 * (np.exp(-0.5 * library.z) - 0.6)),
    ):
        off = moved(library, **change).moments[:, 0] - library.moments[:, 0]
        assert_allclose(off, expected, atol=0.03)
    shifted = moved(library, alpha=0.15).moments
    assert_allclose(shifted[:, 1] - library.moments[:, 1], 0.15, atol=0.006)


def test_regulator_outflows_are_within_two_deviations():
    """Differences of means and widths, fitted by five deviations with their spreads."""
    plain = build_dwarfs(DwarfConfig(stems=600))
    away = build_dwarfs(DwarfConfig(stems=600, backend="grumpy"))
    cells = [
        (plain.log_mstar > low) & (plain.log_mstar <= low + 1.0) & late
        for low in (5.0, 6.0, 7.0, 8.0, 8.8)
        for late in (plain.tau < 5.0, plain.tau >= 5.0)
    ]

    def effect(library):
        off = (library.moments - plain.moments)[:, [0, 2]]
        return np.concatenate([off[cell].mean(0) for cell in cells])

    spreads = {"fe_h": 0.1, "slope": 0.1, "evolution": 0.2, "width": 0.1, "width_slope": 0.025}
    terms = np.stack([effect(moved(plain, **{k: s})) for k, s in spreads.items()], axis=1)
    wanted, noise = effect(away), 0.05
    system = np.concatenate([terms / noise, np.eye(len(spreads))])
    g = np.linalg.lstsq(system, np.concatenate([wanted / noise, np.zeros(len(spreads))]), None)[0]
    assert np.abs(g).max() < 2.0
    left = wanted - terms @ g
    assert np.sqrt((left**2).mean()) < 0.05
    assert np.sqrt((wanted**2).mean()) > 0.12


def test_halos_of_one_draw_differ_in_their_physics(library):
    sim = CasbiSimulator(CasbiConfig(physics_spread=0.1), library)
    plain = CasbiSimulator(CasbiConfig(), library)
    draw = plain._sets(40, "train", np.random.default_rng(1))
    zeros, still = np.zeros(40), np.zeros((2, 40))
    rates = [
        sim.rates(draw, zeros, zeros, still, physics)[0].reshape(40, 64, 64)
        for physics in (None, Physics.draw(40, 0.1, np.random.default_rng(2)))
    ]
    assert_allclose(rates[1].sum((1, 2)), rates[0].sum((1, 2)), rtol=0.05)
    fe, o = (0.5 * (e[1:] + e[:-1]) for e in library.plane.edges)
    for axis, centres in ((2, fe), (1, o)):
        means = [r.sum(axis) @ centres / r.sum((1, 2)) for r in rates]
        assert 0.05 < np.std(means[1] - means[0]) < 0.4
    a, b = (sim.draw_from(5, seed, "train").x for seed in (3, 3))
    assert (a == b).all()


def test_halos_of_a_mass_budget_can_have_varied_physics(library):
    sim = CasbiSimulator(
        CasbiConfig(population="budget", counts="shape", physics_spread=0.1), library
    )
    assert np.isfinite(sim.draw_from(4, 1, "train").x.numpy()).all()


def test_parts_of_a_draw_give_what_the_whole_gives(library, monkeypatch):
    sim = CasbiSimulator(CasbiConfig(), library)
    draw = sim._sets(30, "train", np.random.default_rng(1))
    weight = sim._member_weights(draw)
    physics = Physics.draw(30, 0.1, np.random.default_rng(2))
    whole = PhysicsMap(library).superpose(draw, weight, physics)
    monkeypatch.setattr("sbi_casbi.physics._ENTRIES", 5000)
    assert (PhysicsMap(library).superpose(draw, weight, physics) == whole).all()
