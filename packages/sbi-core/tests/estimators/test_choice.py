"""The estimator of pipelines that name none."""

import pytest
import sbi_toy

from sbi_core import Parameter, ParameterSpace, Prior, get_estimator
from sbi_core.estimators.choice import estimator_for
from sbi_core.pipeline.config import resolve

NORMAL = Prior("normal", {"loc": 0.0, "scale": 1.0})
INTEGER = Prior("integer", {"low": 0, "high": 4})


def space(continuous, discrete=0, scope="local"):
    priors = [NORMAL] * continuous + [INTEGER] * discrete
    return ParameterSpace(tuple(Parameter(f"p{k}", p, "", "", scope) for k, p in enumerate(priors)))


@pytest.mark.parametrize(
    ("parameters", "simulations", "name"),
    [
        (space(1), 1000, "nsf"),
        (space(5), 10**6, "nsf"),
        (space(6), 20_000, "ensemble"),
        (space(6), 20_001, "maf"),
        (space(2, scope="global"), 1000, "mixture"),
        (space(0, discrete=1), 1000, "ordinal"),
        (space(1, discrete=1), 1000, "mixed"),
    ],
)
def test_it_follows_from_parameters_and_simulations(parameters, simulations, name):
    assert estimator_for(parameters, simulations) == name
    get_estimator(name)


@pytest.mark.parametrize(
    ("section", "n", "name"),
    [
        ("", 1000, "mixture"),
        ('estimator = { parameters = "all" }', 1000, "mixture"),
        ('estimator = { name = "auto", parameters = "local" }', 1000, "nsf"),
        ('estimator = { name = "maf", parameters = "local" }', 1000, "maf"),
    ],
)
def test_a_pipeline_that_names_no_estimator_gets_one(section, n, name, registry, monkeypatch):
    text = f"[base]\n{section}\n[base.simulate]\nn = {n}\n[presets.quick]\n"
    monkeypatch.setattr(sbi_toy, "PIPELINE", text)
    section = resolve(registry, "toy", preset="quick").estimator
    assert section.name == name
    assert section.options  # spelled out: what run.toml records
