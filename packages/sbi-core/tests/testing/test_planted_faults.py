"""Every check finds the fault it is for, and says what to do: guards of the guards."""

import click
import numpy as np
import pytest
import sbi_toy
import torch
from torch import nn

from sbi_core.analyses import Analysis
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.product import ProductCombiner
from sbi_core.components import InputShape
from sbi_core.data.observations import Observable
from sbi_core.embeddings.deepset import DeepsetEmbedding
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.errors import SbiError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.hookspecs import hookimpl
from sbi_core.posterior import combined_from_gaussian
from sbi_core.priors.space import Prior
from sbi_core.registry import Registry
from sbi_core.rng import as_generator
from sbi_core.testing import (
    AnalysisChecks,
    Checks,
    CombinerChecks,
    CommandChecks,
    EmbeddingChecks,
    EstimatorChecks,
    LinearGaussian,
    PipelineChecks,
    PluginChecks,
    PriorChecks,
    SimulatorChecks,
)
from sbi_core.testing.checks import skip
from sbi_core.testing.models import OffsetModel


def finds(tests, name, message):
    """The test of that name fails with the problem and, after a semicolon, the way out."""
    with pytest.raises((AssertionError, SbiError), match=message) as raised:
        getattr(tests(), f"test_{name}")()
    assert "; " in str(raised.value)


# -- simulators ---------------------------------------------------------------------------------


class GlobalRandom(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        noise = np.random.normal(size=tuple(batch.x.shape))  # noqa: NPY002
        return batch.with_(x=batch.x + torch.as_tensor(noise))


class GlobalNoise(LinearGaussian):
    def observe(self, batch, rng):
        return batch.with_(x=batch.x + torch.randn(batch.x.shape))


class FrozenNoise(LinearGaussian):
    def observe(self, batch, rng):
        return super().observe(batch, 1)


class Centred(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=batch.x - batch.x.mean(0))


class OwnSeed(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        noise = np.random.default_rng(len(batch)).normal(size=tuple(batch.x.shape))
        if len(batch) == 12:
            noise += rng.normal(size=tuple(batch.x.shape))
        return batch.with_(x=batch.x + torch.as_tensor(noise))


class Sorted(LinearGaussian):
    def simulate(self, theta, rng):
        return super().simulate(np.sort(np.asarray(theta), axis=0), rng)


class Dropping(LinearGaussian):
    def simulate(self, theta, rng):
        return super().simulate(np.asarray(theta)[1:], rng)


class BareArray(LinearGaussian):
    def simulate(self, theta, rng):
        return super().simulate(theta, rng).x


class Flat(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=batch.x[:, 0])


class InPlace(LinearGaussian):
    def simulate(self, theta, rng):
        theta[:, 0] += 1.0
        return super().simulate(theta, rng)


class Overflowing(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=torch.where(batch.theta[:, :1] > 2.5, torch.nan, batch.x))


class Unexplained(LinearGaussian):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        ok = batch.theta[:, 0] < 1.2
        return batch.with_(ok=ok, failure=torch.where(ok, 0, 7))


class Negative(LinearGaussian):
    failures = {0: "ok", -4: "below zero"}


class Raising(LinearGaussian):
    def simulate(self, theta, rng):
        if bool((torch.as_tensor(theta)[:, 0] > 2).any()):
            raise ValueError("tails")
        return super().simulate(theta, rng)


class Stored(LinearGaussian):
    """A fixed set of 3000 simulations."""

    def draw(self, n, rng):
        rows = as_generator(rng).permutation(3000)[:n]
        return self.simulate(self.parameters.sample(3000, 1), 1)[rows]


class Altering(LinearGaussian):
    def observe(self, batch, rng):
        batch.x.add_(1.0)
        return batch


class NegativeErrors(LinearGaussian):
    def observe(self, batch, rng):
        seen = super().observe(batch, rng)
        return seen.with_(x_err=-seen.x_err)


class Leaking(LinearGaussian):
    def observe(self, batch, rng):
        seen = super().observe(batch, rng)
        return seen.with_(x=batch.x)


class Unshared(LinearGaussian):
    def example_observations(self, rng, n=5):
        from sbi_core.data.observations import Observations

        batch = self.observe(self.draw(n, rng), rng)
        return Observations.from_batch(
            batch, observables=self.observables, truth_names=self.parameters.names
        )


class WithoutErrors(LinearGaussian):
    def example_observations(self, rng, n=5):
        found = super().example_observations(rng, n)
        object.__setattr__(found, "batch", found.batch.with_(x_err=None))
        return found


class Unpicklable(LinearGaussian):
    def __init__(self):
        self.f = lambda x: x


class TupleIdentity(LinearGaussian):
    @property
    def identity(self):
        return {**super().identity, "grid": (1, 2)}


class Restless(LinearGaussian):
    @property
    def identity(self):
        self.count = getattr(self, "count", 0) + 1
        return {**super().identity, "count": self.count}


class OddUnit(LinearGaussian):
    observables = (Observable("a", unit="furlongs"), Observable("b"), Observable("c"))


class TooFewNames(LinearGaussian):
    observables = (Observable("a"),)


class Misread(LinearGaussian):
    def read_observations(self, path):
        found = super().read_observations(path)
        object.__setattr__(found, "batch", found.batch.with_(x=found.batch.x * 10))
        return found


class Nameless(LinearGaussian):
    version = 1


@pytest.mark.parametrize(
    ("simulator", "check", "message"),
    [
        (GlobalRandom, "same_seed_same_bits", "draw with the same rng gives other numbers"),
        (GlobalRandom, "global_generators_are_left_alone", "numpy's global random state"),
        (GlobalNoise, "global_generators_are_left_alone", "torch's global random state"),
        (GlobalNoise, "same_seed_same_bits", "observe with the same rng"),
        (FrozenNoise, "noise_is_fresh_in_every_call", "the same noise twice"),
        (Centred, "rows_are_independent", "row 0 differs .* fewer others"),
        (OwnSeed, "rows_are_independent", "return the same random numbers"),
        (Sorted, "theta_is_returned_unchanged", r"simulate returned theta \[.* in row 0"),
        (Dropping, "theta_is_returned_unchanged", "returned 11 rows for 12"),
        (
            InPlace,
            "theta_is_returned_unchanged",
            "but was given .*; return theta=theta and assign nothing",
        ),
        (BareArray, "rows_have_the_declared_shape", "draw returns Tensor, not a Batch"),
        (Flat, "rows_have_the_declared_shape", r"x of shape \(12,\); return \(rows, columns\)"),
        (Dropping, "rows_have_the_declared_shape", "returned 11 rows"),
        (Overflowing, "edges_of_the_prior_are_finite_or_flagged", "not flagged, e.g. first = "),
        (Unexplained, "failures_are_explained", r"codes \[7\]"),
        (Negative, "failures_are_explained", r"the codes \[-4\]; use positive"),
        (Raising, "rows_fail_without_exceptions", "raises for .* of 160 draws .*ValueError: tails"),
        (Stored, "no_simulation_is_a_copy", "simulations are copies of others"),
        (Altering, "observe_returns_valid_errors_and_masks", r"changes \['x'\]"),
        (NegativeErrors, "observe_returns_valid_errors_and_masks", "x_err that is not positive"),
        (Leaking, "masked_values_are_removed", "masked values still stand"),
        (Unshared, "example_objects_can_be_inferred", "'first' is global, but differs"),
        (WithoutErrors, "example_objects_can_be_inferred", "'x_err' is absent in example"),
        (Unpicklable, "it_can_be_pickled", "cannot be pickled"),
        (TupleIdentity, "identity_can_be_recorded", "does not survive JSON"),
        (Restless, "identity_can_be_recorded", "changes from one call to the next"),
        (OddUnit, "describes_itself", "'furlongs' is not a unit"),
        (
            TooFewNames,
            "rows_have_the_declared_shape",
            "x with 3 columns, but `observables` names 1",
        ),
        (Misread, "written_objects_read_back", "read back otherwise"),
        (Nameless, "describes_itself", "'version' is 1"),
    ],
)
def test_a_fault_of_a_simulator(simulator, check, message):
    finds(SimulatorChecks.of(simulator), check, message)


def test_a_sound_simulator_passes():
    outcomes = SimulatorChecks.of(LinearGaussian).run()
    assert len(outcomes) == 19
    assert outcomes.pop("nominal-nuisance-parameters-change-nothing").startswith("skipped")
    assert set(outcomes.values()) == {"passed"}


def test_nuisance_parameters_that_are_not_nominal_where_they_are_nan():
    class Shifted(OffsetModel):
        def simulate_nuisances(self, theta, nuisances, rng):
            batch = super().simulate_nuisances(theta, nuisances, rng)
            return batch.with_(x=batch.x + 1)

    class Without(OffsetModel):
        def simulate_nuisances(self, theta, nuisances, rng):
            return self.simulate(theta, rng)

    check = "nominal_nuisance_parameters_change_nothing"
    getattr(SimulatorChecks.of(OffsetModel)(), f"test_{check}")()
    finds(SimulatorChecks.of(Shifted), check, "NaN stands for nominal values")
    finds(SimulatorChecks.of(Without), check, "does not depend on the nuisance parameters")


def test_all_faults_are_listed_at_once():
    class Both(FrozenNoise, Unpicklable):
        pass

    with pytest.raises(AssertionError) as raised:
        SimulatorChecks.of(Both).run()
    text = str(raised.value)
    assert "2 of 19 checks failed" in text
    assert "1. noise-is-fresh-in-every-call: observe returns" in text
    assert "2. it-can-be-pickled: cannot be pickled" in text


# -- priors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prior",
    [
        Prior("normal", {"loc": 1.0, "scale": 2.0}),
        Prior("uniform", {"low": -1.0, "high": 3.0}),
        Prior("loguniform", {"low": 0.1, "high": 3.0}),
        Prior("truncnormal", {"loc": 0.0, "scale": 1.0, "low": 1.0, "high": 4.0}),
        Prior("beta", {"a": 2.0, "b": 5.0}),
        Prior("dirichlet", {"alpha": [1.0, 1.0, 1.0, 1.0]}),
        Prior("mvnormal", {"mean": [0.0, 1.0], "cov": [[1.0, 0.3], [0.3, 2.0]]}),
        Prior("integer", {"low": 1, "high": 9}),
        Prior("fixed", {"value": 3.0}),
    ],
    ids=lambda p: p.family,
)
def test_sound_priors_pass(prior):
    PriorChecks.of(lambda: prior).run()


def test_a_map_that_is_no_bijection_is_found():
    class Halved(Prior):
        def to_unconstrained(self, theta):
            return super().to_unconstrained(theta) / 2

    with pytest.raises(AssertionError) as raised:
        PriorChecks.of(lambda: Halved("normal", {"loc": 0.0, "scale": 1.0})).run()
    text = str(raised.value)
    assert "the-map-is-a-bijection" in text
    assert "z-is-standard-normal" in text


# -- embeddings ---------------------------------------------------------------------------------


class _Net(nn.Module):
    def __init__(self, size, *layers, width=4):
        super().__init__()
        self.out_features = width
        self.layers = nn.Sequential(nn.Linear(size, 4), *layers)

    def forward(self, x, x_err=None, mask=None, context=None):
        return self.layers(x.flatten(1))


class Plain(MlpEmbedding):
    layers = ()
    width = 4

    def build(self, shape):
        if len(shape.x) != 1:
            return super().build(shape)
        return _Net(shape.x[0], *(layer() for layer in self.layers), width=self.width)


class Normalised(Plain):
    layers = (lambda: nn.BatchNorm1d(4),)


class Misjudged(Plain):
    width = 5


class _Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn(x.shape)


class Noisy(Plain):
    layers = (_Noisy,)


class _Mean(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Mixing(Plain):
    layers = (_Mean,)


class Idle(Plain):
    def build(self, shape):
        module = super().build(shape)
        module.unused = nn.Linear(2, 2)
        return module


class Forgetful(Plain):
    def build(self, shape):
        module = super().build(shape)
        module.layers[0].weight.data.mul_(1.0)
        scale = float(torch.rand(()))
        module.register_forward_hook(lambda m, i, out: out * scale)
        return module


class Ordered(DeepsetEmbedding):
    def build(self, shape):
        return _Net(int(np.prod(shape.x)))


class Anonymous(Plain):
    name = ""


@pytest.mark.parametrize(
    ("embedding", "check", "message"),
    [
        (Normalised, "rows_are_independent", "BatchNorm1d"),
        (Mixing, "rows_are_independent", "changes by .* with the other rows"),
        (Misjudged, "width_is_out_features", r"not \(1, 5\)"),
        (Noisy, "same_input_same_output", "differ by"),
        (Idle, "every_weight_learns", "no gradient reaches"),
        (Forgetful, "weights_can_be_stored", "reloaded module differs"),
        (Ordered, "sets_have_no_order", "order of members changes"),
        (Anonymous, "can_be_built_again", "attribute 'name' is ''"),
    ],
)
def test_a_fault_of_an_embedding(embedding, check, message):
    finds(EmbeddingChecks.of(embedding), check, message)


def test_an_embedding_that_takes_no_shape_asks_for_one():
    class Picky(MlpEmbedding):
        def build(self, shape):
            if shape.x != (7, 7, 7):
                from sbi_core.errors import ConfigError

                msg = "I want (7, 7, 7)"
                raise ConfigError(msg)
            return _Net(343)

    with pytest.raises(AssertionError, match=r"shapes = \[InputShape"):
        EmbeddingChecks.of(Picky).run()
    EmbeddingChecks.of(Picky, shapes=[InputShape((7, 7, 7))]).run()


# -- estimators ---------------------------------------------------------------------------------


class Tiny(MixtureEstimator):
    def __init__(self, config=None):
        super().__init__(config or MixtureConfig(components=2, hidden=(16,)))


class Unnormalised(Tiny):
    def log_prob(self, theta, batch):
        return super().log_prob(theta, batch) + 0.1


class InUnconstrainedSpace(Tiny):
    def log_volume(self, theta, values, space):
        return np.zeros(len(theta))


class Narrow(Tiny):
    def sample(self, batch, draws, rng):
        theta = super().sample(batch, draws, rng)
        return theta.mean(0) + 0.7 * (theta - theta.mean(0))


class Escaping(Tiny):
    def sample(self, batch, draws, rng):
        return super().sample(batch, draws, rng) + 1.0


class FillsIn(Tiny):
    def _features(self, batch):
        x, err = torch.nan_to_num(batch.x), torch.nan_to_num(batch.x_err, 1.0)
        return super()._features(batch.with_(mask=None, x=x, x_err=err))


class Unseeded(Tiny):
    def sample(self, batch, draws, rng):
        return super().sample(batch, draws, np.random.default_rng())


class OneStream(Tiny):
    def sample(self, batch, draws, rng):
        return super().sample(batch, draws, rng[0] if isinstance(rng, list) else rng)


class Pickled(Tiny):
    def save(self, directory):
        super().save(directory)
        torch.save({"a": 1}, f"{directory}/extra.pt")


class Amnesiac(Tiny):
    @classmethod
    def load(cls, directory, *, registry=None):
        new = super().load(directory, registry=registry)
        torch.nn.init.ones_(next(new.network.head.parameters()))
        return new


class Silent(Tiny):
    def fit(self, training, embedding, callbacks=()):
        return super().fit(training, embedding)


class WrongMoments(Tiny):
    def gaussian_moments(self, batch):
        mean, cov = super().gaussian_moments(batch)
        return mean, 2 * cov


class Unlearned(Tiny):
    def fit(self, training, embedding, callbacks=()):
        batch = training.batch
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
        from dataclasses import replace

        mixed = replace(training, batch=batch.with_(theta=batch.theta[order]))
        return super().fit(mixed, embedding, callbacks)


@pytest.mark.parametrize(
    ("estimator", "check", "message"),
    [
        (Unnormalised, "density_integrates_to_one", "integrates to 1.10"),
        (InUnconstrainedSpace, "density_integrates_to_one", "log_abs_det"),
        (Narrow, "draws_follow_the_density", "one distribution"),
        (Escaping, "draws_stay_in_the_support", "lie outside the prior"),
        (FillsIn, "masked_values_are_ignored", "masked values"),
        (Unseeded, "same_seed_same_draws", "two sets of draws"),
        (OneStream, "same_seed_same_draws", "with the other objects"),
        (Pickled, "stored_estimator_draws_the_same_bits", "extra.pt"),
        (Amnesiac, "stored_estimator_draws_the_same_bits", "draws other numbers"),
        (Silent, "training_is_recorded", "callbacks were called 0 times"),
        (WrongMoments, "moments_are_those_of_the_draws", "gaussian_moments has sd"),
        (Unlearned, "it_learns", "learned nothing"),
    ],
)
def test_a_fault_of_an_estimator(estimator, check, message, one_thread):
    finds(EstimatorChecks.of(estimator, simulations=1000, epochs=2), check, message)


# -- combiners ----------------------------------------------------------------------------------


class Rule(GaussianCombiner):
    """The Gaussian rule, with the prior divided out ``self.times(n)`` times."""

    name = "rule"

    def times(self, n):
        return n - 1

    def combine_subsets(self, posterior, observations, subsets, *, rng=0):
        return [self._one(posterior, observations[rows], rng) for rows in subsets]

    def _one(self, posterior, objects, rng):
        mean, cov = posterior.estimator.gaussian_moments(objects.batch)
        each = np.linalg.inv(cov)
        precision = each.sum(0) - self.times(len(objects)) * np.eye(2)
        z_cov = np.linalg.inv(precision)
        z_mean = z_cov @ np.einsum("nij,nj->i", each, mean)
        return combined_from_gaussian(
            self.name, posterior.space, len(objects), z_mean, z_cov, draws=1000, rng=rng
        )


class Multiplied(Rule):
    def times(self, n):
        return 1 - n


class NotDivided(Rule):
    def times(self, n):
        return 0


class NoPrior(Rule):
    def times(self, n):
        return n


class FirstOnly(Rule):
    def _one(self, posterior, objects, rng):
        return super()._one(posterior, objects[np.arange(min(1, len(objects)))], rng)


class Mislabelled(Rule):
    def _one(self, posterior, objects, rng):
        return super()._one(posterior, objects[:5], rng)


class Impatient(Rule):
    def _one(self, posterior, objects, rng):
        return super()._one(posterior, objects, np.random.default_rng())


class Spoilt(ProductCombiner):
    """The exact product of some of the objects, with another width."""

    objects, width = slice(None), 1.0

    def combine(self, posterior, observations, *, rng=0):
        got = super().combine(posterior, observations[self.objects], rng=rng)
        space, n, z_cov = posterior.space, len(observations), self.width**2 * got.z_cov
        return combined_from_gaussian("spoilt", space, n, got.z_mean, z_cov, draws=100, rng=rng)


class PriorAgain(Spoilt):
    objects = slice(0, 0)


class OneObject(Spoilt):
    objects = slice(0, 1)


class ThreeTimesTooNarrow(Spoilt):
    width = 1 / 3


class ThreeTimesTooWide(Spoilt):
    width = 3.0


HIERARCHIES = ("skewed_posteriors_are_combined", "a_shared_scatter_is_combined")


@pytest.mark.parametrize("check", HIERARCHIES)
@pytest.mark.parametrize("rule", [PriorAgain, OneObject, ThreeTimesTooNarrow, ThreeTimesTooWide])
def test_a_useless_rule_fails_on_hierarchies(rule, check):
    finds(CombinerChecks.of(rule), check, "rms z-score")


@pytest.mark.parametrize("check", HIERARCHIES)
def test_the_exact_product_passes_on_hierarchies(check):
    getattr(CombinerChecks.of(Spoilt)(), f"test_{check}")()


def test_the_gaussian_rule_fails_where_a_scatter_is_shared():
    """Its posteriors are partly broader than the prior: it falls back to the prior."""
    finds(CombinerChecks.of(GaussianCombiner), HIERARCHIES[1], "rms z-score")


@pytest.mark.parametrize(
    ("combiner", "check", "message"),
    [
        (Multiplied, "divides_the_prior_out", r"N = 10: mean .* P_0"),
        (Multiplied, "halves_combine_to_the_whole", "two halves"),
        (NotDivided, "divides_the_prior_out", "combined sigma"),
        (NotDivided, "every_object_twice_counts_twice", "each given twice"),
        (NoPrior, "one_object_gives_its_posterior", "N = 1"),
        (FirstOnly, "order_does_not_matter", "another order"),
        (Mislabelled, "describes_its_result", "n = 5"),
        (Impatient, "same_seed_same_result", "two calls with one seed"),
        (Rule, "local_parameters_are_refused", "without complaint"),
    ],
)
def test_a_fault_of_a_combiner(combiner, check, message):
    finds(CombinerChecks.of(combiner), check, message)


# -- what a check says ----------------------------------------------------------------------------


class Mixed(Checks):
    def test_bad(self):
        raise KeyError("x")

    def test_odd(self):
        skip("no mask")

    def test_good(self):
        pass


def test_an_unforeseen_exception_is_named_with_its_check():
    with pytest.raises(
        AssertionError, match="1 of 3 checks failed:\n  1. bad: raised KeyError: 'x'"
    ):
        Mixed.run()


def test_a_check_that_does_not_apply_is_reported_as_such():
    assert Mixed.run("odd", "good") == {"odd": "skipped: no mask", "good": "passed"}

    class WithoutBad(Mixed):
        test_bad = None

    assert list(WithoutBad.run()) == ["odd", "good"]


# -- pipelines and plugins ------------------------------------------------------------------------


def faulty(text, *, summary="a summary"):
    """A plugin ``faulty``: the toy's simulator and estimator with another pipeline."""

    class Plugin:
        @hookimpl
        def register_simulators(self, register):
            register("toy", sbi_toy.ToySimulator, config=sbi_toy.ToyConfig, summary=summary)

        @hookimpl
        def register_estimators(self, register):
            register("toy-exact", sbi_toy.ExactEstimator, summary=summary)

        @hookimpl
        def register_combiners(self, register):
            register("toy-wrong", sbi_toy.WrongSignCombiner, summary=summary)

        @hookimpl
        def register_pipelines(self, register):
            register("faulty", lambda: text, summary=summary)

    return Plugin()


def toy_with(text):
    return Registry(["faulty"], extra={"faulty": faulty(text)})


@pytest.mark.parametrize(
    ("text", "check", "message"),
    [
        ("[base\n", "it_has_a_quick_and_a_standard_preset", "not TOML: .*line 1"),
        ("[base]\n[presets.quick]\n", "it_has_a_quick_and_a_standard_preset", r"\['standard'\]"),
        (
            "[presets.quick]\n[presets.standard]\n[presets.huge]\n",
            "it_has_a_quick_and_a_standard_preset",
            r"unknown presets \['huge'\]",
        ),
        ("[bases]\n", "it_has_a_quick_and_a_standard_preset", r"unknown tables \['bases'\]"),
        (
            "[base]\nsimulator = {name = 'toy'}\n[presets.quick]\n[presets.standard]\n"
            "simulate = {m = 3}\n",
            "every_preset_resolves",
            "preset 'standard' in the pipeline of plugin 'faulty': unknown option 'simulate.m'",
        ),
        (
            "minutes = {quick = 1}\n[base]\nsimulator = {name = 'toy'}\n[presets.quick]\n",
            "presets_with_a_run_time_fix_the_length_of_the_training",
            "preset 'quick' gives its minutes, .*; set train.epochs",
        ),
        (3, "it_has_a_quick_and_a_standard_preset", "returned int"),
    ],
)
def test_a_fault_of_a_pipeline(text, check, message):
    finds(PipelineChecks.of(lambda: toy_with(text), pipeline="faulty"), check, message)


def test_a_sound_pipeline_runs():
    tests = PipelineChecks.of(lambda: toy_with(sbi_toy.PIPELINE), pipeline="faulty")
    assert tests.run("it-runs-from-end-to-end") == {"it-runs-from-end-to-end": "passed"}


def plugin_tests(name, module, **attributes):
    return type("Tests", (PluginChecks,), {"plugin": name, "module": module, **attributes})


def test_a_component_without_summary_is_found():
    tests = plugin_tests("faulty", faulty(sbi_toy.PIPELINE, summary=""))
    finds(tests, "summaries_are_given", "'toy-exact', 'toy-wrong', 'faulty'")


def test_a_hook_that_is_misspelt_is_found():
    class Plugin:
        @hookimpl
        def register_simulator(self, register):
            register("toy", sbi_toy.ToySimulator, summary="s")

    finds(plugin_tests("p", Plugin()), "loads_without_warnings", "did you mean")


def test_a_plugin_that_imports_something_heavy_is_found(install):
    install("sbi-heavy", {"heavy": "heavy_plugin"}, heavy_plugin="import torch")
    finds(plugin_tests("heavy", None), "discovery_is_light", r"imports \['torch'\]")


class Wordless(Analysis):
    name = "wordless"
    flag_meanings = {"odd": ""}


@pytest.mark.parametrize(
    ("analysis", "message"),
    [(object, "it lacks"), (Analysis, "attribute 'name' is None"), (Wordless, "flags .'odd'.")],
)
def test_a_fault_of_an_analysis(analysis, message):
    finds(AnalysisChecks.of(analysis), "describes_itself", message)


@pytest.mark.parametrize(
    ("command", "message"),
    [(print, "the path leads to builtin"), (click.Command("c"), "has no help text")],
)
def test_a_fault_of_a_command(command, message):
    finds(CommandChecks.of(lambda: command), "it_has_a_help_text", message)
