import numpy as np
import pytest
import torch
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

import sbi_core.posterior as module
from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.posterior import UNLIKE, CombinedPosterior, Posterior, PosteriorSamples
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig

SPACE = ParameterSpace(
    tuple(Parameter(k, Prior("normal", {"loc": 0.0, "scale": 1.0})) for k in ("a", "b"))
)


def observe(batch, rng):
    noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
    return batch.with_(x=batch.x + 0.3 * noise)


@pytest.fixture(scope="module")
def posterior():
    theta = torch.as_tensor(SPACE.sample(1000, stream(1))).float()
    estimator = MixtureEstimator(MixtureConfig(components=2, hidden=(16,)))
    training = Training(Batch(x=theta, theta=theta), SPACE, (0, 1), observe, TrainConfig(epochs=3))
    estimator.fit(training, IdentityEmbedding())
    return Posterior(estimator, seed=4)


@pytest.fixture
def objects():
    return Observations.from_batch(Batch(x=torch.randn(9, 2)))


def test_draws_belong_to_the_object_whatever_order_company_and_chunks(
    posterior, objects, monkeypatch
):
    draws = posterior.sample(objects, 50).values
    assert draws.shape == (50, 9, 2)
    assert_array_equal(draws, posterior.sample(objects, 50).values)
    order = np.array([4, 0, 8])
    assert_allclose(posterior.sample(objects[order], 50).values, draws[:, order], atol=1e-4)
    monkeypatch.setattr(module, "_ROWS_PER_CALL", 100)  # two objects at a time
    assert_allclose(posterior.sample(objects, 50).values, draws, atol=1e-4)


def test_many_draws_of_few_objects_are_cut_too(posterior, objects):
    head = posterior.estimator.network.head
    whole = posterior.sample(objects[:2], 500).values
    head.rows_per_call = 128
    assert_allclose(posterior.sample(objects[:2], 500).values, whole, atol=1e-4)
    del head.rows_per_call


def test_parameters_it_was_not_trained_on_are_named(posterior):
    assert posterior.select(["b"]) == [1]
    with pytest.raises(ConfigError, match="not trained on parameter 'bb'; did you mean 'b'"):
        posterior.select(["bb"])
    with pytest.raises(ConfigError, match="no draws of 'c'"):
        posterior.sample(Observations.from_batch(Batch(x=torch.zeros(1, 2))), 2)["c"]


@pytest.mark.parametrize("draws", [-1, 1.5, "many"])
def test_a_wrong_number_of_draws_is_refused_in_one_sentence(posterior, draws):
    with pytest.raises(ConfigError, match="is not a number of draws; give a whole number"):
        posterior.sample(Observations.from_batch(Batch(x=torch.zeros(1, 2))), draws)


def test_a_device_that_is_not_there_is_said(posterior, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        Posterior(posterior.estimator, device="cuda")


def test_a_combination_that_the_model_does_not_make_says_so_first():
    facts = {
        "misspecification_p": 1e-40,
        "misspecification_chi2": 310.2,
        "misspecification_dof": 44,
    }
    args = ("gaussian", SPACE, 30, np.zeros(2), np.eye(2), np.zeros((5, 2)), np.zeros(2), np.eye(2))
    plain = CombinedPosterior(*args, facts, ("few_draws",))
    failed = CombinedPosterior(*args, facts, ("few_draws", UNLIKE))
    sentence = (
        "These objects are not what this model makes (chi2 = 310 for 44 numbers): "
        "the error bar does not hold."
    )
    assert (plain.warning, failed.warning) == ("", sentence)
    assert repr(failed) == f"{sentence}\n{plain!r}"
    assert repr(plain).startswith("CombinedPosterior(")
    assert failed._repr_html_().startswith(f"<p><strong>{sentence}")
    assert sentence not in plain._repr_html_()
    assert failed.summary()["flags"] == ["few_draws", UNLIKE]
    assert "(chi2" not in CombinedPosterior(*args, {}, (UNLIKE,)).warning


def test_a_summary_shows_two_digits_of_the_errors_and_keeps_all(rng, tmp_path):
    names = ("a", "m")
    space = ParameterSpace(
        tuple(Parameter(n, Prior("normal", {"loc": 0, "scale": 1})) for n in names)
    )
    values = rng.standard_normal((500, 2, 2)) * [0.031, 4e10] + [0.5, 1e12]
    columns = {"support_percentile": np.array([12.345678, 3.3])}
    samples = PosteriorSamples(values, space, np.array(["x", "y"]), columns=columns)
    table = samples.summary()
    shown = "\n".join(table.pformat(max_width=-1))
    for text in (f"{table['a_p50'][0]:.3f} ", f"{table['m_sd'][1]:.5g} ", "12.35"):
        assert text in shown
    assert str(table["a_p50"][0]) not in shown + repr(table) + samples._repr_html_()
    table.write(tmp_path / "summary.ecsv")
    again = Table.read(tmp_path / "summary.ecsv")
    assert_array_equal(again["a_p50"], np.median(values[:, :, 0], 0))
    assert_array_equal(table["a_p50"], again["a_p50"])
    part = table["id", "a_p50", "a_sd"]  # a part of the columns is shown, too
    assert f"{table['a_p50'][0]:.3f}" in str(part)
