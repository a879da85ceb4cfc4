"""Priors: every family is what it says, in both directions, and has one identity."""

import json
import tomllib

import numpy as np
import pytest
import tomli_w
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.priors.families import FAMILIES
from sbi_core.priors.space import Parameter, ParameterSpace, Prior, canonical_hash

GRID = np.linspace(-1.0, 3.0, 9).tolist()
CONTINUOUS = {
    "uniform": {"low": -2.0, "high": 5.0},
    "loguniform": {"low": 1e-3, "high": 1e2},
    "normal": {"loc": -2.3, "scale": 0.3},
    "truncnormal": {"loc": 0.55, "scale": 0.1, "low": 0.294},
    "truncnormal-upper": {"loc": 1.0, "scale": 2.0, "high": 0.5},
    "truncnormal-both": {"loc": 0.5, "scale": 0.1, "low": 0.45, "high": 0.7},
    "halfnormal": {"loc": 1.0, "scale": 2.0},
    "lognormal": {"loc": -0.5, "scale": 0.8},
    "studentt": {"df": 4.0, "loc": 1.0, "scale": 0.5},
    "beta": {"a": 2.0, "b": 5.0},
    "beta-stretched": {"a": 0.7, "b": 1.5, "low": -3.0, "high": 4.0},
    "table": {"grid": GRID, "density": [0.1, 1, 2, 0.5, 0.5, 3, 1, 0.2, 0.0]},
    "mvnormal": {"mean": [1.0, -1.0], "cov": [[2.0, 0.6], [0.6, 0.5]]},
    "dirichlet": {"alpha": [1.0, 1.0, 1.0, 1.0]},
    "dirichlet-uneven": {"alpha": [0.6, 2.0, 5.0]},
    "dirichlet-sparse": {"alpha": [0.2, 0.2, 0.2, 0.2]},
    "sticks": {"a": [1.0, 1.0, 1.0], "b": [1.0, 1.0, 1.0]},
    "sticks-uneven": {"a": [0.6, 2.0], "b": [3.0, 1.5]},
}
DISCRETE = {
    "integer": {"low": 2, "high": 6},
    "integer-weighted": {"low": 0, "high": 2, "pmf": [0.5, 0.2, 0.3]},
    "discrete": {"values": [0.1, 10.0, -3.0]},
    "discrete-weighted": {"values": [5.0, 1.0], "pmf": [0.9, 0.1]},
}
SCIPY = {
    "uniform": stats.uniform(-2, 7),
    "loguniform": stats.loguniform(1e-3, 1e2),
    "normal": stats.norm(-2.3, 0.3),
    "truncnormal": stats.truncnorm((0.294 - 0.55) / 0.1, np.inf, 0.55, 0.1),
    "truncnormal-upper": stats.truncnorm(-np.inf, -0.25, 1, 2),
    "truncnormal-both": stats.truncnorm(-0.5, 2.0, 0.5, 0.1),
    "halfnormal": stats.halfnorm(1, 2),
    "lognormal": stats.lognorm(0.8, scale=np.exp(-0.5)),
    "studentt": stats.t(4, 1, 0.5),
    "beta": stats.beta(2, 5),
    "beta-stretched": stats.beta(0.7, 1.5, -3, 7),
}


def prior_of(name):
    return Prior(name.partition("-")[0], {**CONTINUOUS, **DISCRETE}[name])


def space_of(name):
    return ParameterSpace((Parameter("t", prior_of(name)),))


def test_every_family_is_tested():
    tested = {n.partition("-")[0] for n in {**CONTINUOUS, **DISCRETE}}
    assert tested | {"fixed", "implicit"} == set(FAMILIES)


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_draws_lie_inside_the_support_and_have_the_moments(name, rng):
    prior = prior_of(name)
    theta = prior.sample(20_000, rng)
    low, high = prior.support
    assert theta.shape == (20_000, prior.size)
    assert prior.inside(theta).all()
    assert ((theta >= low) & (theta <= high)).all()
    assert np.isfinite(prior.log_prob(theta)).all()
    mean, sd = prior.moments()
    assert (np.abs(theta.mean(0) - mean) < 5 * sd / np.sqrt(20_000)).all()  # false alarm 1e-6
    assert_allclose(theta.std(0), sd, rtol=0.1)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_round_trip_is_exact(name, rng):
    prior = prior_of(name)
    theta = prior.sample(2000, rng)
    again = prior.from_unconstrained(prior.to_unconstrained(theta))
    _, sd = prior.moments()
    assert_allclose((again - theta) / sd, 0, atol=1e-6)
    z = rng.standard_normal((2000, prior.z_size)).clip(-4.5, 4.5)
    back = prior.to_unconstrained(prior.from_unconstrained(z))
    # where the density is next to zero a rounding of theta is a large step in z
    assert_allclose(back, z, atol=1e-6)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_z_is_standard_normal_under_the_prior(name, rng):
    """KS per coordinate and the correlation of coordinates; false alarm 1e-4 each."""
    prior = prior_of(name)
    z = prior.to_unconstrained(prior.sample(5000, rng))
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    if z.shape[1] > 1:
        off = np.corrcoef(z.T)[np.triu_indices(z.shape[1], 1)]
        assert np.abs(off).max() < 4.0 / np.sqrt(5000) * 1.1


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_map_never_leaves_the_support(name):
    prior = prior_of(name)
    for value in (-40.0, -8.0, 8.0, 40.0):
        theta = prior.from_unconstrained(np.full((1, prior.z_size), value))
        assert np.isfinite(theta).all()  # also where the distribution function rounds to 1
        assert prior.inside(theta).all()


@pytest.mark.parametrize("name", [n for n in CONTINUOUS if prior_of(n).size == 1])
def test_the_jacobian_is_the_derivative_of_the_map(name, rng):
    space = space_of(name)
    theta = space.from_unconstrained(rng.uniform(-2, 2, (50, 1)))
    step = 1e-6 * np.maximum(np.abs(theta), 1e-2)
    slope = (space.to_unconstrained(theta + step) - space.to_unconstrained(theta - step)) / (
        2 * step
    )
    assert_allclose(space.log_abs_det(theta), np.log(slope[:, 0]), atol=2e-4)


@pytest.mark.parametrize(
    "name",
    ["mvnormal", "dirichlet", "dirichlet-uneven", "dirichlet-sparse", "sticks", "sticks-uneven"],
)
def test_the_jacobian_of_a_block_is_the_determinant_of_the_map(name, rng):
    """The Dirichlet density is with respect to the first K - 1 components."""
    space = space_of(name)
    d = space.z_dim
    z0 = rng.uniform(-1.5, 1.5, (20, d))
    step = 1e-5
    columns = []
    for k in range(d):
        plus, minus = z0.copy(), z0.copy()
        plus[:, k] += step
        minus[:, k] -= step
        change = space.from_unconstrained(plus) - space.from_unconstrained(minus)
        columns.append(change[:, :d] / (2 * step))
    _, log_det = np.linalg.slogdet(np.stack(columns, -1))
    assert_allclose(space.log_abs_det(space.from_unconstrained(z0)), -log_det, atol=1e-6)


@pytest.mark.parametrize("name", SCIPY)
def test_density_and_quantiles_agree_with_scipy(name):
    prior, want = prior_of(name), SCIPY[name]
    u = np.linspace(0.001, 0.999, 101)
    theta = want.ppf(u)
    assert_allclose(prior.log_prob(theta), want.logpdf(theta), rtol=1e-9, atol=1e-9)
    assert_allclose(prior.to_unconstrained(theta)[:, 0], special.ndtri(u), atol=1e-7)


@pytest.mark.parametrize("name", ["beta", "table", "loguniform", "lognormal"])
def test_the_density_integrates_to_one(name):
    prior = prior_of(name)
    low, high = prior.from_unconstrained([[-8.0], [8.0]])[:, 0]
    grid = prior.from_unconstrained(np.linspace(-8, 8, 200_001)[:, None])[:, 0]
    grid = np.unique(np.clip(grid, low, high))
    middle = 0.5 * (grid[1:] + grid[:-1])
    assert_allclose((np.exp(prior.log_prob(middle)) * np.diff(grid)).sum(), 1, atol=2e-4)


@pytest.mark.parametrize("name", [n for n in CONTINUOUS if prior_of(n).size == 1])
def test_there_is_no_density_outside_the_support(name):
    prior = prior_of(name)
    (low,), (high,) = prior.support
    outside = [v for v in (low - 0.1, high + 0.1) if np.isfinite(v)]
    assert (prior.log_prob(np.array(outside)) == -np.inf).all()
    assert not prior.inside(np.array(outside)).any()


def test_the_multivariate_normal_agrees_with_scipy(rng):
    prior = prior_of("mvnormal")
    theta = rng.normal(size=(50, 2))
    want = stats.multivariate_normal(**CONTINUOUS["mvnormal"]).logpdf(theta)
    assert_allclose(prior.log_prob(theta), want, rtol=1e-10)


def test_the_dirichlet_agrees_with_scipy(rng):
    for alpha in ([1.0, 1.0, 1.0, 1.0], [0.6, 2.0, 5.0]):
        theta = rng.dirichlet(alpha, 50)
        want = [stats.dirichlet(alpha).logpdf(t) for t in theta]
        assert_allclose(Prior("dirichlet", {"alpha": alpha}).log_prob(theta), want, rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_shares_far_below_the_rounding_of_one_keep_their_coordinates(dtype, rng):
    """One draw in a thousand leaves less than 1e-7 for the last two of four shares."""
    space = space_of("dirichlet-sparse")
    z = rng.standard_normal((20_000, 3))
    theta = space.from_unconstrained(z)
    assert (theta[:, 2:].sum(1) < 1e-7).sum() > 5
    assert_allclose(space.to_unconstrained(theta.astype(dtype)), z, atol=1e-4)
    assert np.isfinite(space.log_prob(theta.astype(dtype))).all()


def test_sticks_with_the_sums_of_alpha_are_the_dirichlet(rng):
    theta = rng.dirichlet([0.6, 2.0, 5.0], 50)
    sticks = Prior("sticks", {"a": [0.6, 2.0], "b": [7.0, 5.0]})
    dirichlet = Prior("dirichlet", {"alpha": [0.6, 2.0, 5.0]})
    assert_allclose(sticks.log_prob(theta), dirichlet.log_prob(theta), rtol=1e-8)
    assert_allclose(sticks.to_unconstrained(theta), dirichlet.to_unconstrained(theta))
    assert_allclose(sticks.moments(), dirichlet.moments())
    uniform = Prior("sticks", {"a": [1.0] * 3, "b": [1.0] * 3})
    assert_allclose(uniform.moments()[0], [1 / 2, 1 / 4, 1 / 8, 1 / 8])


def test_the_flat_dirichlet_has_its_closed_form(rng):
    """1 - v_k = u_k^(1/(K-k)); K = 4: powers 1/3, 1/2, 1, mean 0.25, sd 0.194."""
    prior = Prior("dirichlet", {"alpha": [1.0] * 4})
    u = rng.uniform(0.001, 0.999, (500, 3))
    v = 1 - (1 - u) ** (1 / np.array([3.0, 2.0, 1.0]))
    left = np.cumprod(1 - v, 1)
    want = np.stack([v[:, 0], v[:, 1] * left[:, 0], v[:, 2] * left[:, 1], left[:, 2]], 1)
    assert_allclose(prior.from_unconstrained(special.ndtri(u)), want, atol=1e-12)
    mean, sd = prior.moments()
    assert_allclose(mean, 0.25)
    assert_allclose(sd, np.sqrt(3 / 80))  # 0.194
    assert_allclose(prior.log_prob(want), np.log(6.0))


def test_draws_on_the_simplex_sum_to_one(rng):
    prior = prior_of("dirichlet-uneven")
    assert_allclose(prior.sample(100, rng).sum(1), 1, atol=1e-12)
    assert_allclose(prior.from_unconstrained(rng.normal(size=(100, 2))).sum(1), 1, atol=1e-12)
    assert not prior.inside([[0.5, 0.5, 0.5]])[0]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("start", [5.0, 10.0, 20.0, 35.0])
def test_a_tail_far_from_the_mean_stays_accurate(start, sign, rng):
    """N(0, 1) beyond `start` sigma: close to an exponential; scipy's log version is the witness."""
    ends = {"low": start} if sign > 0 else {"high": -start}
    prior = Prior("truncnormal", {"loc": 0.0, "scale": 1.0, **ends})
    x = sign * (start + np.array([0.01, 0.1, 0.5]) / start)
    want = stats.norm.logpdf(x) - special.log_ndtr(-start)
    assert_allclose(prior.log_prob(x), want, rtol=1e-8)
    z = prior.to_unconstrained(x)
    assert_allclose(prior.from_unconstrained(z)[:, 0], x, rtol=1e-9)
    survival = np.exp(special.log_ndtr(-np.abs(x)) - special.log_ndtr(-start))
    assert_allclose(special.ndtr(-sign * z[:, 0]), survival, rtol=1e-6)
    theta = prior.sample(4000, rng)
    assert prior.inside(theta).all()
    scaled = start * (np.abs(theta[:, 0]) - start)  # tends to Exp(1)
    assert abs(scaled.mean() - 1) < 0.12


@pytest.mark.parametrize("low", [39.0, 60.0])
def test_a_tail_that_cannot_be_represented_is_refused(low):
    with pytest.raises(ConfigError, match="truncnormal.*too far from 'loc'"):
        Prior("truncnormal", {"loc": 0.0, "scale": 1.0, "low": low})


# -- discrete, fixed, implicit --------------------------------------------------------------------


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_priors_have_a_mass_and_no_unconstrained_coordinate(name, rng):
    prior = prior_of(name)
    assert not prior.continuous
    assert prior.z_size == 0
    theta = prior.sample(20_000, rng)
    values, counts = np.unique(theta, return_counts=True)
    mass = np.exp(prior.log_prob(values))
    assert_allclose(mass.sum(), 1)
    assert stats.chisquare(counts, 20_000 * mass).pvalue > 1e-4  # the false-alarm rate
    assert prior.log_prob([values[0] + 0.5])[0] == -np.inf
    with pytest.raises(ConfigError, match="'t' is discrete and has no unconstrained coordinate"):
        space_of(name).to_unconstrained(theta[:1])


def test_a_fixed_parameter_takes_no_coordinate():
    space = ParameterSpace(
        (
            Parameter("c", Prior("fixed", {"value": 3.0})),
            Parameter("a", Prior("normal", {"loc": 0.0, "scale": 2.0})),
        )
    )
    assert (space.dim, space.z_dim) == (2, 1)
    assert_array_equal(space.from_unconstrained([[1.5]]), [[3.0, 3.0]])
    assert_allclose(space.log_abs_det([[3.0, 1.0]]), -np.log(2.0))


def test_blocks_are_the_columns_and_coordinates_of_every_parameter():
    space = ParameterSpace(
        (
            Parameter("share", Prior("dirichlet", {"alpha": [1.0, 1.0, 1.0]})),
            Parameter("fixed", Prior("fixed", {"value": 2.0})),
            Parameter("mu", Prior("normal", {"loc": 0.0, "scale": 1.0})),
        )
    )
    names = np.array(space.names)
    assert [names[s].tolist() for _, s in space.blocks()] == [list(p.columns) for p in space]
    assert [(s.start, s.stop) for _, s in space.blocks(z=True)] == [(0, 2), (2, 2), (2, 3)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda p: p.log_prob([0.5]),
        lambda p: p.to_unconstrained([0.5]),
        lambda p: p.from_unconstrained([[0.5]]),
        lambda p: p.sample(3, 1),
        lambda p: p.moments(),
    ],
)
def test_an_implicit_prior_refuses_its_density_with_the_reason(ask):
    prior = Prior("implicit", {"sampler": "histories", "spec": {"kind": "gp"}, "low": 0.0})
    assert not prior.has_density
    with pytest.raises(DensityUnavailableError, match=r"implicit \(sampler 'histories'\)"):
        ask(prior)


def test_implicit_priors_have_an_identity_and_a_support():
    one = Prior("implicit", {"sampler": "s", "spec": {"a": [1, 2]}, "low": 0.0, "size": 3})
    two = Prior("implicit", {"sampler": "s", "spec": {"a": [1, 3]}, "low": 0.0, "size": 3})
    assert one.hash != two.hash
    assert_array_equal(one.support[0], np.zeros(3))
    assert Prior.from_spec(json.loads(json.dumps(one.to_spec()))) == one


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("unifrom", {}, "unknown prior family 'unifrom'; did you mean 'uniform'"),
        ("uniform", {"low": 1.0}, r"lacks \['high'\]; its numbers are \['low', 'high'\]"),
        ("uniform", {"low": 1.0, "high": 0.0}, r"'low' \(1.0\) must be below 'high' \(0.0\)"),
        ("uniform", {"low": 0.0, "high": 1.0, "loc": 0}, r"has no number \['loc'\]"),
        ("uniform", {"low": "a", "high": 1.0}, "prior 'uniform'"),
        ("uniform", {"low": 0.0, "high": float("nan")}, "'high' must be finite, got nan"),
        ("uniform", {"low": 0.0, "high": float("inf")}, "'high'.*finite"),
        ("loguniform", {"low": 0.0, "high": 1.0}, "'low' must be positive, got 0.0"),
        ("normal", {"loc": 0.0, "scale": 0.0}, "'scale' must be positive, got 0.0"),
        ("normal", {"loc": float("nan"), "scale": 1.0}, "'loc'.*finite"),
        ("normal", {"loc": 0.0, "scale": "x"}, "prior 'normal'"),
        ("truncnormal", {"loc": 0.0, "scale": 1.0, "low": 2.0, "high": 1.0}, "must be below"),
        ("lognormal", {"loc": 0.0, "scale": -1.0}, "'scale' must be positive"),
        ("beta", {"a": 0.0, "b": 1.0}, "'a' must be positive"),
        ("beta", {"a": 1.0, "b": 1.0, "low": 2.0, "high": 1.0}, "must be below"),
        ("table", {"grid": [0, 1], "density": [1]}, "lists of equal length"),
        ("table", {"grid": [1, 0], "density": [1, 1]}, "'grid' must increase"),
        ("table", {"grid": [0, 1], "density": [0, 0]}, "not all zero"),
        ("mvnormal", {"mean": [0, 0], "cov": [[1, 2], [2, 1]]}, "positive definite"),
        ("mvnormal", {"mean": [0, 0], "cov": [[1.0]]}, r"symmetric \(2, 2\) matrix"),
        ("dirichlet", {"alpha": [1.0]}, "at least two positive numbers"),
        ("dirichlet", {"alpha": [1.0, -1.0]}, "at least two positive numbers"),
        ("sticks", {"a": [1.0], "b": [1.0, 2.0]}, "lists of equal length"),
        ("integer", {"low": 3, "high": 2}, r"'low' \(3\) must not exceed 'high' \(2\)"),
        ("integer", {"low": 0, "high": 1, "pmf": [0.5, 0.4]}, "sum to 1"),
        ("discrete", {"values": [1, 1]}, "must be distinct"),
        ("discrete", {"values": []}, "discrete"),
    ],
)
def test_numbers_that_make_no_distribution_are_refused(family, values, message):
    with pytest.raises(ConfigError, match=message):
        Prior(family, values)


@pytest.mark.parametrize("prior", [stats.norm(0, 1), 3])
def test_what_is_no_family_gets_the_way_to_write_it(prior):
    with pytest.raises(ConfigError, match=r"name of a family .* use Prior.of\(...\)"):
        Prior(prior)
    with pytest.raises(ConfigError, match="name of a family and a table of its numbers"):
        Prior("normal", prior)
    with pytest.raises(ConfigError, match="'a': the prior must be a Prior"):
        Parameter("a", prior)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mass/age"}, "parameter name 'mass/age': .*neither '/' nor control characters"),
        ({"scope": "Global"}, "parameter 'a': scope must be 'global', 'local' or 'nuisance', got"),
        ({"unit": "parsnip"}, "parameter 'a': 'parsnip' is not a unit of astropy"),
        ({"name": ""}, "a parameter needs a name, got ''"),
        ({"name": None}, "a parameter needs a name, got None"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(changes, message):
    options = {"name": "a", "prior": prior_of("normal")} | changes
    with pytest.raises(ConfigError, match=message):
        Parameter(**options)


def test_a_space_needs_a_parameter():
    with pytest.raises(ConfigError, match="at least one parameter"):
        ParameterSpace(())


def test_long_tables_are_shown_by_their_length():
    shown = repr(Prior("table", {"grid": list(range(500)), "density": [1.0] * 500}))
    assert shown == "Prior(table, grid=[500 numbers], density=[500 numbers])"


def test_a_row_outside_the_support_is_named():
    space = space_of("uniform")
    with pytest.raises(ConfigError, match=r"row 1: t = \[9.\] lies outside its prior Prior\(unif"):
        space.to_unconstrained([[0.0], [9.0]])


@pytest.mark.parametrize("theta", [np.zeros(3), np.zeros((2, 2)), np.zeros((2, 1, 1))])
def test_theta_of_another_shape_is_refused(theta):
    with pytest.raises(ConfigError, match=r"theta must have shape \(n, 1\) with columns \['t'\]"):
        space_of("normal").log_prob(theta)


# -- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_the_identity_survives_json_toml_and_the_order_of_keys(name):
    prior = prior_of(name)
    spec = prior.to_spec()
    for again in (
        json.loads(json.dumps(spec)),
        tomllib.loads(tomli_w.dumps(spec)),
        dict(reversed(spec.items())),
    ):
        assert Prior.from_spec(again).hash == prior.hash
    arrays = {k: np.asarray(v) for k, v in prior.values.items()}
    assert Prior(prior.family, arrays).hash == prior.hash


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_any_change_of_content_changes_the_identity(name):
    prior = prior_of(name)
    others = {prior_of(n).hash for n in {**CONTINUOUS, **DISCRETE} if n != name}
    assert prior.hash not in others
    for key, value in prior.values.items():
        if np.ndim(value) == 0 and key not in ("low", "high"):
            changed = Prior(prior.family, {**prior.values, key: value * (1 + 1e-15) + 1e-15})
            assert changed.hash != prior.hash


def test_whole_and_decimal_numbers_are_the_same_number():
    assert Prior("normal", {"loc": 0, "scale": 1}).hash == (
        Prior("normal", {"loc": 0.0, "scale": np.float32(1)}).hash
    )


def space(**changes):
    options = {"label": "A", "unit": "dex", "scope": "global", "description": "one"} | changes
    second = Parameter("b", Prior("uniform", {"low": 0.0, "high": 1.0}))
    return ParameterSpace((Parameter("a", prior_of("normal"), **options), second))


def test_words_for_people_do_not_change_the_identity_of_a_space():
    assert space(label="x", unit="Gyr", description="y").hash == space().hash
    assert ParameterSpace(space().parameters, "other version").hash == space().hash


def test_scope_order_and_names_change_the_identity_of_a_space():
    one = space()
    assert space(scope="local").hash != one.hash
    assert ParameterSpace(one.parameters[::-1]).hash != one.hash
    assert one.select("global").hash != one.hash


def test_a_space_survives_json():
    again = ParameterSpace.from_spec(json.loads(json.dumps(space().to_spec())))
    assert again == space()
    assert again.hash == space().hash
    assert again.units == ("dex", "")


def test_the_canonical_form_is_pinned():
    """A change here makes every stored run unreadable: raise the schemas and say so."""
    value = {"b": [1, 2.5], "a": {"x": None, "y": True, "z": "w"}}
    pinned = "e73feec26d6cb3a0c36b179007804b33bfc44d3bda5535dba862b727bf1e4082"
    assert canonical_hash(value) == pinned
    same = {"a": {"z": "w", "y": True, "x": None}, "b": (np.float64(1), 2.5)}
    assert canonical_hash(same) == pinned


# -- spaces ---------------------------------------------------------------------------------------


def test_blocks_make_numbered_columns():
    both = ParameterSpace(
        (
            Parameter("f", prior_of("dirichlet"), label="f", unit="Msun", scope="global"),
            Parameter("t", prior_of("uniform"), unit="Gyr"),
        )
    )
    assert both.names == ("f1", "f2", "f3", "f4", "t")
    assert both.labels == ("{f}_{1}", "{f}_{2}", "{f}_{3}", "{f}_{4}", "t")
    assert both.units == ("Msun",) * 4 + ("Gyr",)
    assert both.scopes == ("global",) * 4 + ("local",)
    assert (both.dim, both.z_dim, len(both)) == (5, 4, 5)
    assert both.index(["t", "f2"]) == [4, 1]


def test_sub_spaces_are_chosen_by_scope_or_name():
    assert space().select("global").names == ("a",)
    assert space().select("local").names == ("b",)
    assert space().select("all").names == ("a", "b")
    assert space().select(["b", "a"]).names == ("b", "a")
    assert space().select("b").names == ("b",)
    with pytest.raises(
        ConfigError, match="no parameter of scope 'local'.*estimator.parameters to all"
    ):
        space().select("global").select("local")
    with pytest.raises(ConfigError, match="no parameter 'alpha'"):
        space().select(["alpha"])


def test_names_must_be_unique():
    with pytest.raises(ConfigError, match=r"must be unique; \['a'\] appear more than once"):
        ParameterSpace(space().parameters[:1] * 2)


def test_the_density_of_a_space_is_the_product(rng):
    both = ParameterSpace((Parameter("m", prior_of("mvnormal")), Parameter("b", prior_of("beta"))))
    theta = both.sample(100, rng)
    want = prior_of("mvnormal").log_prob(theta[:, :2]) + prior_of("beta").log_prob(theta[:, 2])
    assert_allclose(both.log_prob(theta), want)
    assert both.inside(theta).all()
    theta[3, 2] = 2.0
    assert (~both.inside(theta)).sum() == 1


def test_the_map_keeps_leading_axes(rng):
    z = rng.normal(size=(3, 4, 2))
    theta = space().from_unconstrained(z)
    assert theta.shape == (3, 4, 2)
    assert_allclose(theta[1], space().from_unconstrained(z[1]))


def test_rows_at_the_clamp_are_counted():
    both = space()
    theta = np.array([[0.0, 0.5], [0.0, 1e-9], [-2.3 + 0.3 * 7, 0.5], [0.0, 1.0]])
    assert both.clamped(theta) == 2  # a normal parameter is not clamped, however far out
    lognormal = ParameterSpace((Parameter("a", prior_of("lognormal")),))
    assert lognormal.clamped(lognormal.from_unconstrained([[9.0]])) == 0


@pytest.mark.parametrize("seed", [5, np.random.default_rng(5)])
def test_draws_follow_the_seed(seed):
    import torch

    if isinstance(seed, int):
        assert_array_equal(space().sample(3, seed), space().sample(3, seed))
        torch_draws = [space().sample(3, torch.Generator().manual_seed(1)) for _ in range(2)]
        assert_array_equal(*torch_draws)
    with pytest.raises(TypeError, match="rng must be"):
        space().sample(3, None)


def test_a_space_shows_itself():
    assert "a, b" in repr(space())
    html = space()._repr_html_()
    assert "<td>a</td>" in html
    hostile = Parameter("<script>", prior_of("normal"))
    assert "<script>" not in ParameterSpace((hostile,))._repr_html_()


def members_space():
    count = Parameter("n", Prior("integer", {"low": 1, "high": 9}))
    mass = Parameter("mass", Prior("uniform", {"low": 5, "high": 10}), repeat="n")
    return ParameterSpace((count,), members=(mass,))


def test_parameters_that_repeat_are_no_columns_but_part_of_the_identity():
    space = members_space()
    assert space.names == ("n",)
    again = ParameterSpace.from_spec(space.to_spec())
    assert again == space
    assert again.hash == space.hash != ParameterSpace(space.parameters).hash
    assert space.select("all").members == space.members


def test_parameters_that_repeat_need_an_integer_to_count_them():
    space = members_space()
    with pytest.raises(ConfigError, match="integer"):
        ParameterSpace(
            (Parameter("x", Prior("normal", {"loc": 0, "scale": 1})),), members=space.members
        )
    with pytest.raises(ConfigError, match="members"):
        ParameterSpace((*space.parameters, *space.members))


def test_the_logarithm_of_a_lognormal_is_normal_however_far_out():
    space = ParameterSpace((Parameter("a", Prior("lognormal", {"loc": -0.5, "scale": 0.8})),))
    z = np.array([[-30.0], [-9.0], [0.0], [9.0], [30.0]])
    theta = space.from_unconstrained(z)
    assert_allclose(np.log(theta), -0.5 + 0.8 * z)
    assert_allclose(space.to_unconstrained(theta), z, rtol=1e-12)
