"""Yield factors of the engine: exact cases, conservation of mass, both kernels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.constants import ELEMENTS, FACTOR_CHANNELS, FACTOR_ELEMENTS, Z_SUN
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.ssp import ssp_return
from sbi_chempy.tracks import tracks
from sbi_chempy.yields import SnIaYield, YieldTable, load_embedded_set

SHAPE = (len(FACTOR_CHANNELS), len(FACTOR_ELEMENTS), 2)
TABLES = {
    "default": {},
    "gross": {"sn2": "nomoto13-gross"},
    "metal-free": {"sn2": "woosley95"},
}
H = ELEMENTS.index("H")


@pytest.fixture(params=["torch", "numba"])
def kernel(request):
    return request.param


@pytest.fixture
def factors(rng):
    """Factors of n rows: .15 dex, and as much per dex of metallicity."""

    def draw(n: int) -> torch.Tensor:
        value = torch.as_tensor(rng.normal(0, 0.15, (n, *SHAPE)))
        value[:, FACTOR_CHANNELS.index("sn1a"), :, 1] = 0
        return value

    return draw


def one_factor(n: int, channel: str, element: str, dex: float, slope: float = 0.0) -> torch.Tensor:
    value = torch.zeros(n, *SHAPE, dtype=torch.float64)
    value[:, FACTOR_CHANNELS.index(channel), FACTOR_ELEMENTS.index(element)] = torch.tensor(
        [dex, slope], dtype=torch.float64
    )
    return value


def scaled_column(yields: np.ndarray, element: str, factor: float) -> np.ndarray:
    """Yields (..., 9) with one element scaled and hydrogen taking the difference."""
    e, new = ELEMENTS.index(element), yields.copy()
    new[..., e] *= factor
    new[..., H] -= new[..., e] - yields[..., e]
    return new


def scaled_table(table: YieldTable, element: str, dex: float, slope: float = 0.0) -> YieldTable:
    z = np.clip(np.log10(np.maximum(table.metallicity, 1e-10) / Z_SUN), -2, 0.5)
    rows = tuple(
        replace(r, yields=scaled_column(r.yields, element, 10 ** (dex + slope * at)))
        for r, at in zip(table.rows, z, strict=True)
    )
    return replace(table, rows=rows)


@pytest.mark.parametrize("sets", TABLES.values(), ids=TABLES)
def test_factors_of_one_change_no_bit(prior_draws, kernel, sets):
    engine, theta = ChempyEngine(load_embedded_set(**sets), kernel=kernel), prior_draws(50)
    want, status = engine(theta)
    got, got_status = engine(theta, torch.zeros(50, *SHAPE, dtype=torch.float64))
    assert (got_status == status).all()
    assert torch.equal(got, want)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("sets", TABLES.values(), ids=TABLES)
def test_compiled_kernel_equals_torch(prior_draws, factors, sets, smooth):
    theta, given = prior_draws(150), factors(150)
    a, b = (
        ChempyEngine(load_embedded_set(**sets), kernel=k, smooth=smooth)(theta, given)
        for k in ("torch", "numba")
    )
    assert (a[1] == b[1]).all()
    assert_allclose(a[0], b[0], atol=1e-12)


@pytest.mark.parametrize(("channel", "element"), [("sn2", "Mg"), ("sn2", "Fe"), ("agb", "C")])
def test_a_constant_factor_is_a_scaled_table(prior_draws, kernel, channel, element):
    yields, theta = load_embedded_set(agb="karakas16"), prior_draws(40)
    table = getattr(yields, channel)
    column = ELEMENTS.index(element)
    positive = tuple(
        replace(r, yields=np.where(np.arange(9) == column, abs(r.yields), r.yields))
        for r in table.rows
    )  # what a star destroys is not scaled: the exact case has none of it
    yields = replace(yields, **{channel: (table := replace(table, rows=positive))})
    other = replace(yields, **{channel: scaled_table(table, element, 0.3)})
    want, status = ChempyEngine(other, kernel=kernel)(theta)
    got, got_status = ChempyEngine(yields, kernel=kernel)(
        theta, one_factor(40, channel, element, 0.3)
    )
    assert (got_status == status).all()
    assert_allclose(got, want, atol=1e-12)
    plain, _ = ChempyEngine(yields, kernel=kernel)(theta)
    assert (got - plain).abs().amax() > 0.05


def test_a_factor_of_sn_ia_is_a_scaled_event(prior_draws, kernel, default_yields):
    theta, sn1a = prior_draws(40), default_yields.sn1a
    event = scaled_column(sn1a.yields, "Fe", 10**0.2)
    event[H] = 0  # the difference does not belong into the table, whose total stays as it is
    other = SnIaYield("scaled", event, sn1a.total + sn1a.yields[1] * (10**0.2 - 1))
    want, _ = ChempyEngine(replace(default_yields, sn1a=other), kernel=kernel)(theta)
    got, _ = ChempyEngine(default_yields, kernel=kernel)(theta, one_factor(40, "sn1a", "Fe", 0.2))
    assert_allclose(got, want, atol=1e-12)


def test_a_slope_scales_a_single_population_by_its_metallicity(default_yields):
    agb = default_yields.agb  # that makes nothing: all oxygen is of SN II, none is primordial
    agb = replace(agb, rows=tuple(replace(r, yields=0 * r.yields) for r in agb.rows))
    engine = ChempyEngine(replace(default_yields, agb=agb))
    z = torch.tensor([0.0, 1e-5, 1e-3, Z_SUN, 0.02, 0.3], dtype=torch.float64)
    o = ELEMENTS.index("O")
    plain = ssp_return(engine, z, n_ages=1)
    factors = one_factor(len(z), "sn2", "O", 0.1, slope=0.2)
    dt = torch.full_like(z, float(plain.age[0]))
    mix = torch.tensor([(0, 0, 0.76, 0.24, 0, 0, 0, 0, 0)], dtype=torch.float64).expand(6, -1)
    imf = engine.imf(torch.full_like(dt, -2.3))
    got = engine.population_return(imf, dt, z, mix, 1, factors)
    change = torch.log10(got[:, 0, o] / plain.stars[:, 0, o])
    relative = torch.log10(z.clamp_min(1e-9) / Z_SUN).clamp(-2, 0.5)
    assert_allclose(change, 0.1 + 0.2 * relative, atol=1e-12)


@pytest.mark.parametrize("sets", TABLES.values(), ids=TABLES)
def test_factors_conserve_mass(prior_draws, factors, sets):
    engine, theta = ChempyEngine(load_embedded_set(**sets)), prior_draws(30)
    plain, made = tracks(engine, theta), tracks(engine, theta, factors(30))
    first = 2  # the first return; later ones differ by the metallicity, which sets lifetimes
    assert_allclose(made.feedback[:, :first], plain.feedback[:, :first], rtol=1e-13)
    for track in (plain, made):  # gas + corona + stars - what came in stays constant
        total = track.gas + track.corona + track.stars - (track.sfr.cumsum(1))
        assert_allclose(total, total[:, :1].expand_as(total), atol=1e-12)
    assert_allclose(made.gas_elements.sum(2), made.gas, rtol=1e-12)


def test_a_gross_factor_scales_what_the_star_made(prior_draws):
    """Net and gross table of one study react alike; scaling all of a gross yield would not."""
    theta = prior_draws(100)
    change = []
    for name in ("nomoto13-net", "nomoto13-gross"):
        engine = ChempyEngine(load_embedded_set(sn2=name))
        plain, _ = engine(theta)
        scaled, _ = engine(theta, one_factor(100, "sn2", "He", 0.3))
        change.append(float((scaled - plain)[:, 2].nanmedian()))
    assert change[0] > 0.01
    assert change[1] == pytest.approx(change[0], rel=0.15)


def test_rows_do_not_depend_on_batch_order_or_chunk(default_yields, prior_draws, factors, kernel):
    theta, given = prior_draws(40), factors(40)
    want, _ = ChempyEngine(default_yields, kernel=kernel)(theta, given)
    got, _ = ChempyEngine(default_yields, kernel=kernel, chunk=7)(theta, given)
    assert torch.equal(got, want)
    assert torch.equal(
        ChempyEngine(default_yields, kernel=kernel)(theta[3:9], given[3:9])[0], want[3:9]
    )


def test_gradients_with_respect_to_factors(default_yields, prior_draws, factors):
    engine, theta, given = ChempyEngine(default_yields), prior_draws(6), factors(6)
    given.requires_grad_()
    abundances, _ = engine(theta, given)
    (gradient,) = torch.autograd.grad(abundances[:, 6].sum(), given)
    step = 1e-5 * one_factor(6, "sn2", "O", 1.0, slope=1.0)
    with torch.no_grad():
        up, down = (engine(theta, given + s)[0] for s in (step, -step))
    numeric = (up - down)[:, 6] / 2e-5
    assert_allclose((gradient * step).sum((1, 2, 3)) / 1e-5, numeric, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:2], "shape"),
        (lambda f: f.long(), "floating point"),
        (lambda f: f + np.nan, "finite"),
        (lambda f: f + 0.1, "slope"),
    ],
)
def test_bad_factors_are_refused(default_engine, prior_draws, factors, change, message):
    with pytest.raises(ValueError, match=message):
        default_engine(prior_draws(3), change(factors(3)))
