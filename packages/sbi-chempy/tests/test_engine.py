"""The one-zone engine: invariants first, then the original code."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.constants import N_STEPS, PARAMETERS, T_END_GYR, T_MIN_GYR
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.yields import load_embedded_set

KERNELS = ["torch", "numba"]
DESIGN_CHECK_POINT = {  # chempy.md 2.8
    "tng": (0.03321, 0.14406, -0.09252, 0.21009, 0.04593, 0.51350, 0.30557, 0.17063),
    "alternative": (-0.14793, 0.22605, -0.16026, 0.23129, 0.25125, 0.50254, 0.39436, 0.28381),
}
REFERENCES = ["tng", "alternative", "alternative_net", "tng_nocosmic", "alternative_net_nocosmic"]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


@pytest.fixture(params=KERNELS)
def kernel(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


# ----------------------------------------------------------------------------- invariants


def test_stars_formed_sum_to_one(default_engine, prior_draws):
    schedule = default_engine.schedule(prior_draws(50))
    assert_allclose(schedule.sfr.sum(1), 1.0, rtol=1e-13)


def test_closed_form_of_future_star_formation_equals_the_plain_sum(default_engine, prior_draws):
    theta = prior_draws(20)
    corona = default_engine.schedule(theta).corona
    for row, got in zip(theta.numpy(), corona.numpy(), strict=True):
        dt, peak = row[5] / N_STEPS, 10 ** row[3]
        t = dt * np.arange(int(np.floor(N_STEPS * T_END_GYR / row[5] + 1)))
        rate = t / peak**2 * np.exp(-t / peak)
        rate[0] = 1e-10
        assert got == pytest.approx(rate.sum() / rate[: N_STEPS + 1].sum(), rel=1e-11)


def test_sn_ia_delays_are_a_part_of_a_normalised_distribution(default_engine):
    dt = torch.tensor([T_MIN_GYR, 5.0, T_END_GYR], dtype=torch.float64) / N_STEPS
    delays = default_engine.sn_ia_delays(dt)
    assert delays[0, 0] == 0  # 0.0295 Gyr is before the first SN Ia
    assert (delays[1:, 0] > 0).all()
    for step, got in zip(dt.tolist(), delays.sum(1).tolist(), strict=True):
        ages = [0.0]
        while ages[-1] < 13.8:
            ages.append(len(ages) * step)
        rate = [a**-1.12 if a >= 0.04 else 0.0 for a in ages[1:]]
        assert got == pytest.approx(sum(rate[:N_STEPS]) / sum(rate), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("smooth", [False, True])
def test_rows_do_not_depend_on_batch_order_or_chunk(
    default_yields, prior_draws, kernel, dtype, smooth
):
    theta = prior_draws(40)

    def engine(chunk):
        return ChempyEngine(default_yields, chunk=chunk, kernel=kernel, dtype=dtype, smooth=smooth)

    want, status = engine(512)(theta)
    for chunk in (7, 16):
        got, got_status = engine(chunk)(theta)
        assert same_bits(got, want)
        assert (got_status == status).all()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert same_bits(engine(512)(theta[order])[0], want[order])
    assert same_bits(engine(512)(theta[3:4])[0], want[3:4])


def test_threads_do_not_change_the_numbers(default_yields, prior_draws, kernel):
    theta = prior_draws(300)
    engine = ChempyEngine(default_yields, kernel=kernel)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(engine(theta)[0])
    finally:
        torch.set_num_threads(before)
    assert same_bits(*results)


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("smooth", [False, True])
def test_compiled_kernel_equals_torch(default_yields, prior_draws, clamp, smooth):
    pytest.importorskip("numba")
    theta = prior_draws(200)
    theta[:, 0] *= 1.2
    theta[0, 0] = -2.0  # removable singularity of the closed-form IMF sum
    a, b = (
        ChempyEngine(default_yields, kernel=k, clamp_low_z=clamp, smooth=smooth)(theta)
        for k in KERNELS
    )
    assert (a[1] == b[1]).all()
    assert_allclose(a[0], b[0], atol=5e-12)


def test_more_sn_ia_make_more_iron(default_engine, check_point):
    theta = check_point.repeat(2, 1)
    theta[1, 1] += 0.3
    abundances, _ = default_engine(theta)
    change = abundances[1] - abundances[0]
    assert change[1] > 0.05  # [Fe/H]
    assert (change[[0, 2, 3, 4, 5, 6]] < -0.05).all()  # the rest relative to iron


def test_clamp_changes_nothing_without_a_metal_free_table(default_yields, prior_draws):
    theta = prior_draws(200)
    clamped, status = ChempyEngine(default_yields, clamp_low_z=True)(theta)
    raw, raw_status = ChempyEngine(default_yields, clamp_low_z=False)(theta)
    assert (status == raw_status).all()
    assert same_bits(clamped, raw)


def test_clamp_stops_the_extrapolation_of_a_metal_free_table(prior_draws, kernel):
    yields = load_embedded_set(sn2="woosley95")  # has a table at Z = 0
    theta = prior_draws(200)
    _, status = ChempyEngine(yields, kernel=kernel)(theta)
    _, raw = ChempyEngine(yields, clamp_low_z=False, kernel=kernel)(theta)
    assert (status == 2).double().mean() < 0.02
    assert (raw == 2).double().mean() > 0.2
    assert (raw[status == 2] == 2).all()  # none fails newly


# ------------------------------------------------------------------------------ gradients


def finite_difference(engine, theta, column, h):
    step = torch.zeros(len(PARAMETERS), dtype=torch.float64)
    step[column] = h
    return (engine(theta + step)[0] - engine(theta - step)[0]) / (2 * h)


@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_equal_finite_differences(default_yields, prior_draws, smooth):
    engine = ChempyEngine(default_yields, smooth=smooth)  # compiled where no gradient is asked
    theta = prior_draws(24)
    theta.requires_grad_()
    abundances, status = engine(theta)
    assert (status == 0).all()
    jacobian = torch.stack(
        [torch.autograd.grad(a, theta, retain_graph=True)[0] for a in abundances.sum(0)], dim=1
    )
    assert torch.isfinite(jacobian).all()
    theta = theta.detach()
    for column in range(len(PARAMETERS)):
        if column == 5 and not smooth:
            continue  # without smoothing lifetimes carry no gradient
        numeric = finite_difference(engine, theta, column, 1e-6)
        scale = numeric.abs().amax(1, keepdim=True) + 1e-3
        error = ((numeric - jacobian[:, :, column]).abs() / scale).amax(1)
        # A row may straddle a branch (starved infall, a cell of the mass grid): allow two.
        assert error.sort().values[-3] < 1e-5, PARAMETERS[column]


def test_gradient_request_bypasses_the_compiled_kernel(default_yields, check_point):
    engine = ChempyEngine(default_yields)
    abundances, _ = engine(check_point.requires_grad_())
    assert abundances.requires_grad
    with pytest.raises(ValueError, match="no gradient"):
        ChempyEngine(default_yields, kernel="numba")(check_point)


# ------------------------------------------------------------------------- bad parameters


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, np.nan), (1, np.inf), (4, -0.01), (4, 1.01), (5, 0.79), (5, 13.7977)],
)
def test_bad_rows_are_flagged_or_refused(default_yields, check_point, kernel, column, value):
    engine = ChempyEngine(default_yields, kernel=kernel)
    theta = check_point.repeat(3, 1)
    theta[1, column] = value
    abundances, status = engine(theta)
    assert status.tolist() == [0, 5, 0]
    assert abundances[1].isnan().all()
    assert same_bits(abundances[0], abundances[2])
    with pytest.raises(ValueError, match=rf"row 1, column {column} \({PARAMETERS[column]}\)"):
        engine(theta, strict=True)


def test_ends_of_the_time_range_are_valid_in_float32_too(default_yields, check_point, kernel):
    theta = check_point.repeat(2, 1)
    theta[:, 5] = torch.tensor([T_MIN_GYR, T_END_GYR])
    engine = ChempyEngine(default_yields, kernel=kernel)
    exact, status = engine(theta)
    assert status.tolist() == [0, 0]
    rounded, status = engine(theta.float(), strict=True)
    assert status.tolist() == [0, 0]
    assert_allclose(rounded, exact, atol=1e-4)


def test_galaxy_long_past_its_peak_has_status_1(default_yields, check_point, kernel):
    theta = check_point.clone()
    theta[0, 3], theta[0, 5] = -0.3, 13.0
    abundances, status = ChempyEngine(default_yields, kernel=kernel)(theta)
    assert status.tolist() == [1]
    assert abundances.isnan().all()


def test_shape_and_options_are_checked(default_engine, default_yields):
    with pytest.raises(ValueError, match=r"shape \(B, 6\)"):
        default_engine(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="floating point"):
        default_engine(torch.zeros(3, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="dtype"):
        ChempyEngine(default_yields, dtype=torch.float16)
    with pytest.raises(ValueError, match="kernel"):
        ChempyEngine(default_yields, kernel="cython")


def test_empty_batches_are_fine(default_yields, kernel):
    abundances, status = ChempyEngine(default_yields, kernel=kernel)(torch.zeros(0, 6))
    assert abundances.shape == (0, 8)
    assert status.shape == (0,)


# -------------------------------------------------------------------------- original code


@pytest.mark.parametrize("name", DESIGN_CHECK_POINT)
def test_check_point_of_the_design_note(published_yields, check_point, name):
    engine = ChempyEngine(published_yields(name), clamp_low_z=False)
    abundances, _ = engine(check_point)
    assert_allclose(abundances[0], DESIGN_CHECK_POINT[name], atol=6e-6)


def reference(chempy_data, published_yields, name, **options):
    """Rows of an original run with 28 points, and an engine with its switches."""
    with np.load(chempy_data / f"ref_{name}.npz") as file:
        keep = file["n_steps"] == N_STEPS + 1
        params, abundances, status = (file[key][keep] for key in ("params", "abundances", "status"))
        f_cos = float(file["f_cos"])
    yields = published_yields(name.removesuffix("_nocosmic").replace("_", "-"))
    engine = ChempyEngine(yields, cosmic_accretion=f_cos, clamp_low_z=False, **options)
    return engine, torch.as_tensor(params), abundances, status


@pytest.mark.parametrize("name", REFERENCES)
def test_abundances_and_flags_equal_the_original(chempy_data, published_yields, kernel, name):
    engine, theta, want, want_status = reference(chempy_data, published_yields, name, kernel=kernel)
    got, status = engine(theta)
    assert (status.numpy() == want_status).all()
    ok = want_status == 0
    assert np.abs(got.numpy()[ok] - want[ok]).max() < 1e-7  # dex; target 1e-5


@pytest.mark.parametrize("name", ["tng", "alternative_net"])
def test_float32_stays_within_a_thousandth_of_a_dex(chempy_data, published_yields, name):
    engine, theta, want, want_status = reference(
        chempy_data, published_yields, name, kernel="torch", dtype=torch.float32
    )
    got, status = engine(theta)
    ok = (want_status == 0) & (status.numpy() == 0)
    assert (want_status != status.numpy()).mean() < 2e-3
    error = np.abs(got.numpy()[ok] - want[ok])
    assert np.quantile(error, 0.99) < 1e-4
    assert error.max() < 2e-3


def test_clamp_removes_the_failures_of_the_low_metallicity_bug(chempy_data, published_yields):
    engine, theta, _, failed = reference(chempy_data, published_yields, "tng")
    clamped = ChempyEngine(engine.yields)
    _, status = clamped(theta)
    assert (failed != 0).mean() > 0.1
    assert (status != 0).double().mean() < 0.005
    assert (failed[status.numpy() != 0] != 0).all()  # none fails newly
