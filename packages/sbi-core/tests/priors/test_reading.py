"""Parameter spaces from files, distributions by name, and simulations."""

import numpy as np
import pytest
import torch
from scipy import stats

from sbi_core import Parameter, ParameterSpace, Prior
from sbi_core.errors import ConfigError
from sbi_core.priors.reading import guessed_space, read_priors, space_of

UNIFORM = Prior("uniform", {"low": 0, "high": 1})
NORMAL = Prior("normal", {"loc": 2.0, "scale": 0.5})


def test_one_distribution_of_torch_is_the_prior_of_all_columns():
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert space_of(normal, ("theta1", "theta2")).names == ("theta1", "theta2")
    with pytest.raises(ConfigError, match=r"one prior for all columns \['u', 'v'\]"):
        space_of(normal, ("u", "v"))


def test_a_file_of_priors_is_a_table_per_parameter(tmp_path):
    path = tmp_path / "prior.toml"
    path.write_text(
        'a = { family = "uniform", low = 0, high = 1, unit = "Gyr" }\n'
        '[b]\nfamily = "normal"\nloc = 2.0\nscale = 0.5\nscope = "global"\n'
    )
    space = read_priors(path)
    assert space.names == ("a", "b")
    assert (space["a"].unit, space["b"].scope) == ("Gyr", "global")
    assert space["b"].prior == NORMAL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 3", "a = 3 is no prior"),
        ('a = { family = "unifrom", low = 0, high = 1 }', "parameter 'a': unknown prior family"),
        ("", "holds no prior"),
        ("a = ", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(text, message, tmp_path):
    path = tmp_path / "prior.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_priors(path)


@pytest.mark.parametrize(
    "prior",
    [
        {"a": UNIFORM, "b": NORMAL},
        {"b": stats.norm(2, 0.5), "a": stats.uniform(0, 1)},
        {"a": {"family": "uniform", "low": 0, "high": 1}, "b": torch.distributions.Normal(2, 0.5)},
        [UNIFORM, NORMAL],
        ParameterSpace((Parameter("b", NORMAL), Parameter("a", UNIFORM))),
    ],
)
def test_priors_are_put_in_the_order_of_the_columns(prior):
    space = space_of(prior, ("a", "b"))
    assert space.names == ("a", "b")
    assert space["a"].prior.to_spec() == {"family": "uniform", "low": 0, "high": 1}
    assert space["b"].prior == NORMAL


def test_a_distribution_of_all_columns_is_taken_apart():
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0])
    box = torch.distributions.Independent(torch.distributions.Uniform(low, high), 1)
    for prior in (box, torch.distributions.Uniform(low, high)):
        space = space_of(prior, ("a", "b"))
        assert [p.prior.to_spec()["high"] for p in space] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"a": UNIFORM, "c": NORMAL}, "'c'"),
        ({"a": UNIFORM}, "no prior for 'b'"),
        ([UNIFORM, NORMAL, NORMAL], "3 priors for the 2 columns"),
        ({"a": UNIFORM, "b": "normal"}, "parameter 'b'"),
    ],
)
def test_priors_that_do_not_fit_the_columns_are_refused(prior, message):
    with pytest.raises(ConfigError, match=message):
        space_of(prior, ("a", "b"))


def test_priors_are_guessed_from_the_simulations(rng):
    theta = np.c_[rng.uniform(2, 5, 3000), rng.normal(1, 2, 3000)]
    space = guessed_space(theta, ("a", "b"))
    assert [p.prior.family for p in space] == ["uniform", "normal"]
    assert space.inside(theta).all()
    with pytest.raises(ConfigError, match="column 'a' has the same value in all rows"):
        guessed_space(np.ones((100, 1)), ("a",))
    with pytest.raises(ConfigError, match="column 'n' holds the whole numbers 0 to 4; give its"):
        guessed_space(np.arange(100.0)[:, None] % 5, ("n",))


def test_independent_priors_of_sbi_are_taken_one_by_one():
    utils = pytest.importorskip("sbi.utils")
    one = torch.ones(1)
    parts = [torch.distributions.Uniform(0 * one, one), torch.distributions.Normal(one, one)]
    prior = utils.MultipleIndependent([*parts, utils.BoxUniform(torch.zeros(1), 3 * one)])
    space = space_of(prior, ["a", "b", "c"])
    assert [(p.name, p.prior.family) for p in space] == [
        ("a", "uniform"), ("b", "normal"), ("c", "uniform"),
    ]  # fmt: skip
    assert space["c"].prior.support[1] == 3
