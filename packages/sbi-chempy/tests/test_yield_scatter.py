"""Scales of yield factors from the differences between studies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.constants import ELEMENTS, FACTOR_CHANNELS, FACTOR_ELEMENTS
from sbi_chempy.imf import cumulative_mass, grid_index
from sbi_chempy.yields import EMBEDDED, load_embedded
from sbi_chempy.yields.scatter import (
    FLOOR_DEX,
    LOG_Z,
    _compare,
    _Table,
    _tables,
    _trace,
    common_scatter,
    imf_weighted,
    scatter,
)

TABLES = [(channel, name) for channel, names in EMBEDDED.items() for name in names]
SN2, AGB, SN1A = (FACTOR_CHANNELS.index(c) for c in ("sn2", "agb", "sn1a"))
MG = FACTOR_ELEMENTS.index("Mg")


@pytest.mark.parametrize(("channel", "name"), TABLES)
def test_stored_numbers_are_those_of_the_embedded_table(channel, name):
    (stored,) = (t.made for t in _tables()[channel] if t.name == name)
    assert_allclose(stored, imf_weighted(load_embedded(channel, name)), rtol=6e-4, atol=1e-30)


def test_imf_weighted_yield_of_a_constant_table():
    table = load_embedded("sn2", "nomoto13-net")
    value = np.linspace(-0.01, 0.1, len(ELEMENTS))
    rows = tuple(replace(r, yields=np.tile(value, (len(r.mass), 1))) for r in table.rows)
    imf = cumulative_mass(torch.tensor([-2.3], dtype=torch.float64))[0].numpy()
    share = imf[grid_index(100.0)] - imf[grid_index(8.0)]
    want = share * np.delete(value, ELEMENTS.index("H")).clip(0)
    assert_allclose(imf_weighted(replace(table, rows=rows)), np.tile(want, (5, 1)), rtol=1e-12)


def test_gross_and_net_table_of_a_study_make_the_same():
    net, gross = (imf_weighted(load_embedded("sn2", f"nomoto13-{k}")) for k in ("net", "gross"))
    others = np.arange(8) != FACTOR_ELEMENTS.index("He")  # the birth composition is an estimate
    assert np.abs(np.log10(gross / net))[1:4, others].max() < 0.04


def test_an_element_that_a_table_lacks_does_not_enter():
    made = imf_weighted(load_embedded("agb", "ventura13"))
    assert np.isnan(made[:, FACTOR_ELEMENTS.index("Fe")]).all()
    assert np.isfinite(scatter()).all()


def test_known_offsets_and_slopes_come_back():
    z = np.array(LOG_Z)[:, None]
    made = np.full((5, 8), 1e-3)
    other = made * 10 ** (0.3 - 0.2 * z * (np.arange(8) == MG))
    tables = [_Table(f"{k}-{v}", k, m) for k, m in (("a", made), ("b", other)) for v in "xy"]
    pairs = _compare(tables, np.full((5, 8), 1e-5))
    assert pairs.studies == 2
    assert_allclose(pairs.common, [0.3])
    assert_allclose(pairs.change[0, :, 0], 0.3)
    assert_allclose(pairs.change[0, :, 1], np.where(np.arange(8) == MG, 0.2, 0), atol=1e-12)


def test_traces_do_not_count():
    made = np.full((5, 8), 1e-3)
    tables = [_Table("a", "a", made), _Table("b", "b", 100 * made), _Table("c", "c", 2 * made)]
    assert _compare(tables, np.full((5, 8), 1.0)).change.max() == 0


def test_scales_have_a_floor_and_no_slope_for_sn_ia():
    scales = scatter()
    assert scales.shape == (3, 8, 2)
    assert (scales[:, :, 0] >= FLOOR_DEX).all()
    assert (scales[:SN1A, :, 1] >= FLOOR_DEX).all()
    assert (scales[SN1A, :, 1] == 0).all()
    assert scales[SN2, MG, 0] > 0.3  # the studies of massive stars disagree most on magnesium
    assert (common_scatter() < scales[:, :, 0].max(1)).all()


@pytest.mark.parametrize("study", ["limongi18", "nomoto13", "woosley95", "tng"])
def test_leaving_out_sn_ii_studies_changes_their_channel_only(study):
    moved = np.abs(scatter(study) - scatter())
    assert moved[SN2].max() > 0.01
    if study != "tng":  # which has AGB yields, too
        assert moved[AGB].max() < 0.01  # less than the shift of the traces


def test_scales_hold_for_the_study_left_out():
    """Offsets from the default of tables that did not enter the scales: a Student t of 3 to 4."""
    line = np.linalg.pinv(np.stack([np.ones(5), LOG_Z], axis=1))
    offsets = []
    for c, channel in enumerate(FACTOR_CHANNELS):
        default, *others = _tables()[channel]
        for table in others:
            if table.study == default.study:
                continue
            logs = [np.log10(np.maximum(t.made, _trace())) for t in (default, table)]
            z = (line @ (logs[1] - logs[0]))[0] / scatter(table.study)[c, :, 0]
            matters = (np.fmax(default.made, table.made) > _trace()).any(0)
            offsets.extend(z[matters & np.isfinite(z)])
    size = np.abs(offsets)
    assert len(size) > 100
    assert 0.5 < (size < 1).mean() < 0.75  # t: 0.61 to 0.63; correlated, so roughly 30 numbers
    assert 0.8 < (size < 2).mean() < 0.97  # t: 0.86 to 0.88


def test_an_unknown_study_is_refused():
    with pytest.raises(ValueError, match="no yield table 'limongi81'; have nomoto13-net"):
        scatter("limongi81")


def test_the_engine_takes_draws_from_the_scales(default_engine, prior_draws, rng):
    factors = torch.as_tensor(scatter() * rng.standard_t(4, (200, 3, 8, 2)))
    _, status = default_engine(prior_draws(200), factors)
    assert (status != 0).double().mean() < 0.05
