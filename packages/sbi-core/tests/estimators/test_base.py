"""What every built-in estimator must do, exactly, however short its training."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sbi_core.components import Estimator
from sbi_core.embeddings.identity import IdentityEmbedding, Joined
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding
from sbi_core.errors import (
    ComponentNotFoundError,
    ConfigError,
    DataFileError,
    ObservationError,
    TrainingError,
)
from sbi_core.estimators import load_estimator
from sbi_core.estimators.ensemble import EnsembleConfig, EnsembleEstimator
from sbi_core.estimators.flows import MafEstimator
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.hookspecs import hookimpl
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.registry import Registry
from sbi_core.rng import stream
from sbi_core.training.rows import snap_to_support

NAMES = ["ensemble", "maf", "mixture", "nsf", "sbi-maf", "sbi-nsf"]  # continuous, quick densities


def observed(problem, n=6, seed=0):
    return problem.observe(problem.simulate(n, stream(seed, "test")), stream(seed, "noise"))


# -- density -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_density_of_two_parameters_integrates_to_one(name, barely, gaussian):
    batch = observed(gaussian, 1)
    a, b = np.linspace(-19, 21, 301), np.linspace(-6, 4, 301)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 1, 2)
    q = np.exp(barely(name).log_prob(grid, batch))
    assert_allclose(q.sum() * (a[1] - a[0]) * (b[1] - b[0]), 1, atol=1e-3)


@pytest.mark.parametrize("name", ["mixture", "nsf"])
@pytest.mark.parametrize(
    ("prior", "ends"),
    [
        (Prior("uniform", {"low": -1.0, "high": 2.0}), (-1, 2)),
        (Prior("normal", {"loc": 3.0, "scale": 0.5}), (-1, 7)),
        (Prior("lognormal", {"loc": 0.0, "scale": 0.5}), (1e-4, 25)),
    ],
)
def test_the_density_of_one_parameter_integrates_to_one(name, prior, ends, fit_small, problem_of):
    problem = problem_of((prior,), missing=0.2)
    estimator = fit_small(name, problem, n=3000, epochs=8)
    edges = np.linspace(*ends, 20_001)
    middle = (edges[1:] + edges[:-1]) / 2
    q = np.exp(estimator.log_prob(middle[:, None, None], observed(problem, 1)))
    assert_allclose(q.sum() * (edges[1] - edges[0]), 1, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_density(name, barely, gaussian):
    estimator, batch = barely(name), observed(gaussian, 1, seed=4)
    a, b = np.linspace(-14, 16, 401), np.linspace(-4.5, 2.5, 401)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 1, 2)
    log_q = estimator.log_prob(grid, batch)[:, 0]
    weight = np.exp(log_q) / np.exp(log_q).sum()
    draws = estimator.sample(batch, 40_000, 1)
    log_draws = estimator.log_prob(draws, batch)[:, 0]
    for f_grid, f_draws in (
        *((grid[:, 0, k], draws[:, 0, k]) for k in range(2)),
        (grid[:, 0, 0] * grid[:, 0, 1], draws[:, 0, 0] * draws[:, 0, 1]),
        (grid[:, 0, 0] ** 2, draws[:, 0, 0] ** 2),
        (log_q, log_draws),
    ):
        error = f_draws.std() / np.sqrt(len(f_draws))
        assert_allclose(f_draws.mean(), (weight * f_grid).sum(), atol=5 * error)  # p < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_no_draw_leaves_the_support_and_the_density_outside_is_zero(name, barely, bounded):
    estimator, batch = barely(name, "bounded"), observed(bounded)
    draws = estimator.sample(batch, 2000, 3)
    assert bounded.space.inside(draws.reshape(-1, 2)).all()
    assert np.isfinite(estimator.log_prob(draws, batch)).all()
    theta = np.tile([0.5, 0.5], (6, 1))
    theta[1, 0], theta[3, 1], theta[5] = 2.01, -0.6, np.nan
    inside = np.isfinite(estimator.log_prob(theta, batch))
    assert inside.tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_theta_may_have_a_leading_axis_of_draws(name, barely, gaussian):
    estimator, batch = barely(name), observed(gaussian)
    draws = estimator.sample(batch, 5, 1)
    assert draws.shape == (5, 6, 2)
    assert draws.dtype == np.float64
    both = estimator.log_prob(draws, batch)
    assert_allclose(both, [estimator.log_prob(t, batch) for t in draws], rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match=r"\(6, 2\)"):
        estimator.log_prob(np.zeros((5, 2)), batch)


# -- invariances ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_observed_changes_no_bit(name, barely, gaussian):
    estimator, batch = barely(name), observed(gaussian)
    other = batch.with_(
        x=torch.where(batch.mask, batch.x, 123.0),
        x_err=torch.where(batch.mask, batch.x_err, torch.nan),
    )
    draws = estimator.sample(batch, 10, 1)
    assert_array_equal(draws, estimator.sample(other, 10, 1))
    assert_array_equal(estimator.log_prob(draws, batch), estimator.log_prob(draws, other))


@pytest.mark.parametrize("name", NAMES)
def test_draws_of_an_object_do_not_depend_on_its_company(name, barely, gaussian):
    estimator, batch = barely(name), observed(gaussian)
    together = estimator.sample(batch, 50, [stream(1, k) for k in range(6)])
    for k in (5, 2):
        alone = estimator.sample(batch[k], 50, [stream(1, k)])
        assert_allclose(alone[:, 0], together[:, k], rtol=1e-3, atol=1e-3)  # float32 rounding
    with pytest.raises(ConfigError, match="2 generators for 6 objects"):
        estimator.sample(batch, 5, [stream(1), stream(2)])


def test_the_same_seed_gives_the_same_estimator(fit_small, bounded):
    a, b = (fit_small("mixture", bounded, n=500, epochs=2) for _ in range(2))
    batch = observed(bounded)
    assert_array_equal(a.sample(batch, 9, 1), b.sample(batch, 9, 1))
    assert a.record.test_nll == b.record.test_nll


def test_test_nll_is_that_of_log_prob_in_physical_space(fit_small, bounded):
    problem = bounded
    problem.missing, before = 0.0, problem.missing
    training = replace(problem.training(n=4000, epochs=2), observe=problem.observe)
    estimator = MixtureEstimator(MixtureConfig(components=2, hidden=(16,)))
    record = estimator.fit(training, IdentityEmbedding())
    batch = problem.observe(problem.simulate(20_000, stream(9)), stream(10))
    problem.missing = before
    fresh = -estimator.log_prob(batch.theta, batch)
    # test split of ~400 rows: its mean is good to 5 standard errors
    assert_allclose(record.test_nll, fresh.mean(), atol=5 * fresh.std() / np.sqrt(400))


# -- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_estimator_draws_the_same_bits(name, barely, gaussian, tmp_path):
    estimator, batch = barely(name), observed(gaussian)
    estimator.save(tmp_path)
    loaded = load_estimator(tmp_path)
    assert type(loaded) is type(estimator)
    assert isinstance(loaded, Estimator.__mro__[-2]) or loaded.name == name
    draws = estimator.sample(batch, 20, 5)
    assert_array_equal(loaded.sample(batch, 20, 5), draws)
    assert_array_equal(loaded.log_prob(draws, batch), estimator.log_prob(draws, batch))
    assert loaded.space == estimator.space
    assert loaded.record == estimator.record
    assert loaded.config == estimator.config
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["space_hash"] == estimator.space.hash
    assert content["HOOK_API"] == 1
    assert "torch" in content["versions"]


def test_loading_touches_no_global_generator(barely, tmp_path):
    barely("mixture").save(tmp_path)
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    load_estimator(tmp_path)
    assert torch.equal(torch.rand(2), want)


def test_damaged_or_foreign_files_are_named(barely, tmp_path):
    def fresh():
        shutil.rmtree(tmp_path / "e", ignore_errors=True)
        barely("mixture").save(tmp_path / "e")
        return json.loads((tmp_path / "e" / "config.json").read_text())

    def load_with(content):
        (tmp_path / "e" / "config.json").write_text(json.dumps(content))
        return load_estimator(tmp_path / "e")

    content = fresh()
    with pytest.raises(ComponentNotFoundError, match="did you mean 'mixture'"):
        load_with({**content, "estimator": "mixtur"})
    with pytest.raises(DataFileError, match="names no estimator"):
        load_with({**content, "estimator": None})
    with pytest.raises(DataFileError, match="schema 99"):
        load_with({**content, "schema": 99})
    with pytest.raises(DataFileError, match="incomplete or was altered"):
        load_with({k: v for k, v in content.items() if k != "input"})
    with pytest.raises(DataFileError, match="shape"):
        load_with({**content, "options": {**content["options"], "hidden": [48, 47]}})
    other = json.loads(json.dumps(content))
    other["space"]["parameters"][0]["prior"]["loc"] = 1.5
    with pytest.raises(DataFileError, match="prior"):
        load_with(other)
    with pytest.raises(ComponentNotFoundError, match="embedding 'os.system'"):
        load_with({**content, "embedding": {"name": "os.system", "options": {}}})
    fresh()
    with pytest.raises(DataFileError, match="expected 'maf'"):
        MafEstimator.load(tmp_path / "e")
    (tmp_path / "e" / "weights.safetensors").unlink()
    with pytest.raises(DataFileError, match="does not exist"):
        load_estimator(tmp_path / "e")
    with pytest.raises(DataFileError, match="cannot be read"):
        load_estimator(tmp_path / "nothing")


class Summing:
    """An embedding that a stranger wrote."""

    name, takes_sets = "summing", False

    def __init__(self, config):
        self.config = config

    def build(self, shape):
        return Joined(shape)


class Mine(MixtureEstimator):
    """An estimator that a stranger wrote."""

    name = "mine"


class Plugin:
    """A plugin that registers both."""

    @hookimpl
    def register_embeddings(self, register):
        register("summing", Summing, config=MlpConfig)

    @hookimpl
    def register_estimators(self, register):
        register("mine", Mine, config=MixtureConfig)


@pytest.mark.parametrize("kind", [MixtureEstimator, Mine, EnsembleEstimator])
def test_components_of_others_are_loaded_from_their_registry(kind, bounded, tmp_path):
    small = {"components": 1, "hidden": (8,)}
    if kind is EnsembleEstimator:
        estimator = kind(EnsembleConfig(members=2, of="mixture", options=small))
    else:
        estimator = kind(MixtureConfig(**small))
    estimator.fit(bounded.training(n=300, epochs=1), Summing(MlpConfig(hidden=(3,))))
    estimator.save(tmp_path)
    with pytest.raises(ComponentNotFoundError, match="mine" if kind is Mine else "summing"):
        load_estimator(tmp_path)
    loaded = load_estimator(tmp_path, Registry([], extra={"plugin": Plugin()}))
    assert type(loaded) is kind
    batch = observed(bounded)
    assert_array_equal(loaded.sample(batch, 3, 1), estimator.sample(batch, 3, 1))


# -- training data that cannot be used -----------------------------------------------------


def fit_with(bounded, **changes):
    training = bounded.training(n=400, epochs=1)
    batch = training.batch.with_(**changes.pop("batch", {}))
    MixtureEstimator().fit(replace(training, batch=batch, **changes), IdentityEmbedding())


def test_what_cannot_be_trained_on_is_said_in_one_sentence(bounded):
    batch = bounded.training(n=400).batch
    theta = batch.theta.clone()
    theta[7, 1] = torch.nan
    with pytest.raises(TrainingError, match=r"'t1' is not finite in simulation 7 \(1 such"):
        fit_with(bounded, batch={"theta": theta})
    theta[7, 1] = -3.0
    with pytest.raises(TrainingError, match=r"simulation 7: t1 = -3.0 lies outside the prior"):
        fit_with(bounded, batch={"theta": theta})
    with pytest.raises(TrainingError, match="no valid simulation"):
        fit_with(bounded, batch={"ok": torch.zeros(400, dtype=torch.bool)})
    with pytest.raises(TrainingError, match="same outputs"):
        fit_with(bounded, batch={"x": torch.ones(400, 3)})
    x = batch.x.clone()
    x[:, 2] = torch.inf
    with pytest.raises(TrainingError, match="not finite"):
        fit_with(bounded, batch={"x": x}, observe=lambda b, _: b)


def test_parameters_that_the_simulations_do_not_have_are_named(bounded):
    with pytest.raises(TrainingError, match=r"theta has 2 columns, parameter 't1' is column 5"):
        fit_with(bounded, columns=(0, 5))
    with pytest.raises(TrainingError, match=r"1 columns of theta for 2 parameters"):
        fit_with(bounded, columns=(0,))


def test_a_device_that_is_not_there_is_said(bounded, barely, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        fit_with(bounded, device="cuda")
    with pytest.raises(ConfigError, match="no CUDA device"):
        barely("mixture").to("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_and_draws_on_cuda_agree_with_the_cpu(bounded):
    def observe(batch, rng):
        return bounded.observe(batch.to("cpu"), rng).to(batch.x.device)

    training = replace(bounded.training(n=1000, epochs=3), observe=observe)
    made = []
    for device in ("cpu", "cuda"):
        estimator = MixtureEstimator(MixtureConfig(components=2, hidden=(16,)))
        estimator.fit(replace(training, device=device), IdentityEmbedding())
        made.append(estimator)
    batch = observed(bounded)
    draws = [e.sample(batch, 50, 1) for e in made]
    assert_allclose(draws[0], draws[1], atol=0.02)
    assert_allclose(made[1].to("cpu").sample(batch, 50, 1), draws[1], atol=1e-4)


def test_failed_rows_are_left_out(bounded):
    batch = bounded.training(n=400).batch
    x, ok = batch.x.clone(), torch.ones(400, dtype=torch.bool)
    x[::3], ok[::3] = torch.nan, False
    fit_with(bounded, batch={"x": x, "ok": ok})


def test_float32_ends_of_a_prior_are_inside_it():
    space = ParameterSpace((Parameter("t", Prior("uniform", {"low": -1.1, "high": 1.1})),))
    rounded = np.float64(np.float32([[1.1], [-1.1]]))
    assert not space.inside(rounded).any()
    assert space.inside(snap_to_support(rounded, space)).all()
    assert not space.inside(snap_to_support(np.array([[1.10001]]), space)).any()


def test_an_estimator_that_is_not_trained_says_so(gaussian):
    with pytest.raises(ConfigError, match="not trained"):
        MixtureEstimator().sample(observed(gaussian), 3, 1)


def test_other_data_are_refused(barely, gaussian):
    batch = observed(gaussian)
    other = batch.with_(x=batch.x[:, :2], x_err=batch.x_err[:, :2], mask=batch.mask[:, :2])
    with pytest.raises(ObservationError, match=r"x \(2,\)"):
        barely("mixture").sample(other, 3, 1)


def test_images_share_scales_per_channel_and_sets_per_feature(bounded):
    training = bounded.training(n=300, epochs=1)
    images = training.batch.x[:, :, None] * torch.linspace(1, 2, 4)
    training = replace(training, batch=training.batch.with_(x=images), observe=lambda b, _: b)

    class Sets(MlpEmbedding):
        takes_sets = True

    for embedding, size in ((MlpEmbedding(), (3, 1)), (Sets(), (1, 4))):
        estimator = MixtureEstimator(MixtureConfig(components=1, hidden=(8,)))
        estimator.fit(training, embedding)
        assert estimator.network.standardizer.x_mean.shape == size
        assert isinstance(estimator.network.embedding, nn.Module)


# -- draws that overflow -------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_the_density_at_the_ends_of_an_unbounded_prior_is_zero(fit_small, problem_of):
    problem = problem_of((Prior("lognormal", {"loc": 0.0, "scale": 0.5}),))
    estimator = fit_small("mixture", problem, n=500, epochs=1)
    log_q = estimator.log_prob([[0.0], [1.0], [np.inf], [1e-300]], observed(problem, 4))
    assert np.isneginf(log_q[[0, 2]]).all()
    assert np.isfinite(log_q[1])
    assert log_q[3] < -1000


@pytest.fixture
def wild(fit_small, problem_of, monkeypatch):
    """A network of one lognormal parameter whose draws are exp(5000) at times; and its data."""
    problem = problem_of((Prior("lognormal", {"loc": 0.0, "scale": 0.5}),))
    estimator = fit_small("mixture", problem, n=500, epochs=1)
    head = estimator.network.head
    calm = head.draw

    def spoil(limit):
        def draw(noise, h):
            far = (noise[..., -1:] > limit).expand(*noise.shape[:-1], 1)
            return torch.where(far, torch.tensor(5000.0, dtype=h.dtype), calm(noise, h))

        monkeypatch.setattr(head, "draw", draw)

    return estimator, observed(problem, 4), spoil


def test_infinite_draws_are_drawn_again_and_counted(wild, caplog):
    estimator, batch, spoil = wild
    before = estimator.sample(batch, 200, stream(1))
    spoil(1.0)
    found = estimator.sample(batch, 200, stream(1))
    assert np.isfinite(found).all()
    again = found != before
    assert 0.1 < again.mean() < 0.25  # P(N(0, 1) > 1) = 0.16
    assert len(np.unique(found)) == found.size
    assert "draws overflowed and were drawn again" in caplog.text


def test_what_is_drawn_again_for_an_object_does_not_depend_on_others(wild):
    estimator, batch, spoil = wild
    spoil(1.0)
    streams = lambda: [stream(1, k) for k in range(len(batch))]  # noqa: E731
    together = estimator.sample(batch, 50, streams())
    alone = estimator.sample(batch[2:3], 50, streams()[2:3])
    assert_allclose(together[:, 2:3], alone, rtol=1e-5)


def test_an_object_without_other_draws_is_named(wild):
    estimator, batch, spoil = wild
    spoil(-np.inf)
    with pytest.raises(ObservationError, match="samples of object 0 overflow"):
        estimator.sample(batch, 20, stream(1))
