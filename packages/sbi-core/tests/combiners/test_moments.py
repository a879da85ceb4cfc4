"""Moments of single objects: computed once, whoever uses them."""

import numpy as np
import pytest
import sbi_toy
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.moments import Gaussian, MomentCombiner, MomentConfig, object_moments
from sbi_core.combiners.product import ProductCombiner
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, PluginError
from sbi_core.pipeline.model_check import check_model
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

SUBSETS = [slice(0), slice(1), slice(3, 8), slice(None)]


class Counted(sbi_toy.ExactEstimator):
    """The exact posterior of the shared parameters; counts how often moments are computed."""

    def __init__(self):
        self.space, self.calls = sbi_toy.SPACE.select("global"), 0

    def gaussian_moments(self, batch):
        self.calls += 1
        return super().gaussian_moments(batch)

    def log_prob(self, theta, batch):
        return np.zeros(np.shape(theta)[:-1])


class Sampled(Counted):
    """The same without a closed form."""

    gaussian_moments = sbi_toy.Estimator.gaussian_moments

    def sample(self, batch, draws, rng):
        self.calls += 1
        return super().sample(batch, draws, rng)


class FirstObject(MomentCombiner):
    """A rule of a third party: the posterior of the first object."""

    name = "first"

    def __init__(self):
        self.config = MomentConfig(samples=50)

    def solve(self, objects):
        if not len(objects):
            return Gaussian.standard(2), {}, ("empty",)
        cov = np.linalg.inv(objects.precision[0])
        return Gaussian(cov @ objects.information[0], cov), {"objects": len(objects)}, ()


@pytest.fixture
def objects(toy, rng):
    theta = sbi_toy.SPACE.sample(40, rng)
    return Observations.from_batch(toy.observe(toy.simulate(theta, rng), rng))


@pytest.mark.parametrize("kind", [Counted, Sampled])
def test_rules_sizes_and_the_check_of_the_model_share_them(kind, objects, toy, rng):
    posterior = Posterior(kind())
    combined = GaussianCombiner().combine_subsets(posterior, objects, SUBSETS)[-1]
    FirstObject().combine_subsets(posterior, objects[np.arange(40)], SUBSETS)
    GaussianCombiner().subset_moments(posterior, objects, SUBSETS)
    ProductCombiner().combine(posterior, objects)
    before = posterior.estimator.calls
    theta = sbi_toy.SPACE.sample(200, rng)
    reference = Observations.from_batch(toy.observe(toy.simulate(theta, rng), rng))
    assert check_model(posterior, combined, objects, reference) is not None
    calls = {"objects": before, "reference": posterior.estimator.calls - before}
    chunks = {Counted: (1, 1), Sampled: (3, 13)}[kind]  # 16 objects of 4000 draws at a time
    assert tuple(calls.values()) == chunks


def test_other_objects_another_number_of_draws_or_another_posterior_are_computed(objects):
    posterior = Posterior(Sampled())
    object_moments(posterior, objects[:5])
    object_moments(posterior, objects[5:10])
    object_moments(posterior, objects[:5], draws=500)
    assert posterior.estimator.calls == 3
    other = Posterior(Sampled())
    got = object_moments(other, objects[:5])
    assert other.estimator.calls == 1
    assert_array_equal(got.precision, object_moments(posterior, objects[:5]).precision)
    assert posterior.estimator.calls == 3


def test_only_the_last_sets_of_objects_are_kept(objects):
    posterior = Posterior(Counted())
    for k in range(20):
        object_moments(posterior, objects[k : k + 3])
    object_moments(posterior, objects[19:22])
    assert posterior.estimator.calls == 20
    object_moments(posterior, objects[:3])
    assert posterior.estimator.calls == 21


def test_a_rule_is_one_method(objects):
    posterior = Posterior(Counted())
    results = FirstObject().combine_subsets(posterior, objects, SUBSETS)
    assert [r.n for r in results] == [0, 1, 5, 40]
    assert [r.flags for r in results] == [("empty",), (), (), ()]
    assert results[-1].diagnostics == {"objects": 40}
    assert results[-1].samples.shape == (50, 2)
    plain = FirstObject().subset_moments(posterior, objects, SUBSETS)
    for (mean, cov), r in zip(plain, results, strict=True):
        assert_allclose(mean, r.z_mean)
        assert_allclose(cov, r.z_cov)


def test_identifiers_belong_to_the_objects_not_to_the_moments(objects):
    posterior = Posterior(Counted())
    named = Observations.from_batch(objects.batch, id=[f"star {k}" for k in range(40)])
    assert object_moments(posterior, objects).id[1] == "1"
    assert object_moments(posterior, named).id[1] == "star 1"
    assert posterior.estimator.calls == 1


def test_without_a_shared_parameter_there_is_nothing_to_combine(objects):
    estimator = Counted()
    estimator.space = sbi_toy.SPACE.select("local")
    with pytest.raises(ConfigError, match="nothing to combine"):
        FirstObject().combine(Posterior(estimator), objects)


class Rule(MomentCombiner):
    """A rule that returns what it is told to."""

    name = "rule"

    def __init__(self, solve):
        self.config, self.returns = MomentConfig(), solve

    def solve(self, objects):
        return self.returns(objects)


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (
            lambda _: 1 / 0,
            "solve raised ZeroDivisionError: division by zero .test_moments.py, line",
        ),
        (lambda o: Gaussian(o.information.sum(0), np.eye(2)), "solve must return .Gaussian"),
        (lambda _: (Gaussian(np.zeros(2), np.zeros((2, 3))), {}, ()), r"\(2,\) and \(2, 3\); exp"),
        (lambda _: (Gaussian(np.zeros(2), -np.eye(2)), {}, ()), "covariance is not positive def"),
        (lambda _: (Gaussian(np.zeros(2), np.nan * np.eye(2)), {}, ()), "or mean is not finite"),
    ],
)
def test_a_rule_that_gives_no_normal_distribution_is_named(solve, message, objects):
    posterior = Posterior(Counted())
    assert posterior.space.z_dim == 2
    with pytest.raises(PluginError, match=f"combiner 'rule': .*{message}"):
        Rule(solve).combine(posterior, objects)


def discrete(scope="local"):
    """A shared parameter and a discrete one, with draws of the prior as posterior."""

    class Draws(Counted):
        gaussian_moments = sbi_toy.Estimator.gaussian_moments

        def __init__(self):
            normal = Prior("normal", {"loc": 0, "scale": 1})
            kind = Parameter("kind", Prior("integer", {"low": 0, "high": 3}), scope=scope)
            self.space = ParameterSpace((kind, Parameter("a", normal, scope="global")))

        def sample(self, batch, draws, rng):
            drawn = self.space.sample(draws * len(batch), 1)
            return drawn.reshape(draws, len(batch), 2)

    return Posterior(Draws())


def test_a_discrete_parameter_of_single_objects_is_integrated_out(objects):
    moments = object_moments(discrete(), objects, draws=4000)
    assert moments.information.shape == (len(objects), 1)
    assert_allclose(moments.precision, 1, atol=0.15)  # the posterior is the prior: 5 sigma
    with pytest.raises(ConfigError, match="the product combiner needs an estimator of the shared"):
        ProductCombiner().combine(discrete(), objects)


def test_a_discrete_parameter_that_is_shared_is_refused(objects):
    with pytest.raises(ConfigError, match="'kind' is discrete and shared by all objects"):
        object_moments(discrete("global"), objects)
