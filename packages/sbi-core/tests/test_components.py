"""The contracts: what a simulator gets for free."""

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.components import Embedding, Estimator, InputShape, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.priors.space import ParameterSpace


class Minimal(Simulator):
    """Only ``simulate`` is written."""

    name = "minimal"
    version = "1"
    parameters = sbi_toy.SPACE
    observables = (Observable("a"), Observable("b"))

    def simulate(self, theta, rng):
        theta = torch.as_tensor(np.asarray(theta))
        return Batch(x=theta[:, :2], theta=theta)


def test_only_simulate_has_to_be_written(rng):
    simulator = Minimal()
    batch = simulator.draw(10, rng)
    assert batch.theta.shape == (10, 3)
    assert simulator.observe(batch, rng) is batch  # no error known, no noise
    assert simulator.identity == {"name": "minimal", "version": "1"}
    assert len(simulator.example_observations(rng, 5)) == 5


def test_a_simulator_without_simulate_cannot_be_made():
    with pytest.raises(TypeError, match="simulate"):
        type("Empty", (Simulator,), {})()


def test_default_noise_is_gaussian_with_the_default_error(rng):
    class Noisy(Minimal):
        default_error = 0.3

    clean = Noisy().draw(5000, rng)
    noisy = Noisy().observe(clean, 1)
    z = ((noisy.x - clean.x) / 0.3).numpy()
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)  # false alarm 1e-6
    assert (noisy.x_err == 0.3).all()
    assert noisy.x.dtype == clean.x.dtype


def test_observing_like_data_takes_errors_and_gaps_of_random_rows(rng):
    clean = Minimal().draw(2000, rng)
    mask = np.array([[True, True], [True, False]])
    like = Batch(x=np.zeros((2, 2)), x_err=np.array([[0.1, 0.2], [0.5, 0.5]]), mask=mask)
    got = Minimal().observe_like(clean, like, rng)
    gaps = ~got.mask[:, 1]
    assert 0.4 < gaps.float().mean() < 0.6
    assert_array_equal(torch.isnan(got.x), ~got.mask)
    assert_allclose(got.x_err[gaps][:, 0], 0.5)
    assert_allclose(got.x_err[~gaps][:, 1], 0.2)
    z = ((got.x - clean.x) / got.x_err)[got.mask].numpy()
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def test_examples_share_the_prior_mean_of_the_global_parameters(toy, rng):
    example = toy.example_observations(rng, 40)
    assert_allclose(example.truth["slope"], 1.0)
    assert len(np.unique(example.truth["size"])) == 40
    assert example.observables == toy.observables


def test_an_example_without_a_single_success_says_so(rng):
    broken = sbi_toy.ToySimulator(sbi_toy.ToyConfig(failing=1.0))
    with pytest.raises(ObservationError, match="simulator 'toy' failed for all 5 example objects"):
        broken.example_observations(rng, 5)


def test_the_default_reader_reads_a_column_per_observable(toy, rng, tmp_path):
    toy.example_observations(rng, 4).write(tmp_path / "o.ecsv")
    assert len(toy.read_observations(tmp_path / "o.ecsv")) == 4


def test_the_shape_of_network_input_is_that_of_a_row():
    batch = Batch(
        x=np.zeros((5, 2, 3)), x_err=np.ones((5, 2, 3)), context=np.zeros((5, 4)),
    )  # fmt: skip
    assert InputShape.of(batch) == InputShape((2, 3), 4, has_err=True, has_mask=False)


class Duck:
    """An embedding that does not inherit."""

    name = "duck"

    def build(self, shape):
        return torch.nn.Identity()


def test_an_embedding_that_does_not_inherit_gets_the_defaults():
    made = Embedding.of(Duck())
    assert isinstance(made, Embedding)
    assert (made.name, made.config, made.takes_sets, made.raw_input) == ("duck", None, False, False)
    assert isinstance(made.build(InputShape((3,))), torch.nn.Identity)
    assert Embedding.of(made) is made


@pytest.mark.parametrize(("lacks", "words"), [("name", "lacks name"), ("build", "lacks build")])
def test_what_is_no_embedding_is_refused_in_one_sentence(lacks, words):
    broken = type("Broken", (), {k: getattr(Duck, k) for k in ("name", "build") if k != lacks})
    with pytest.raises(ConfigError, match=f"Broken is not an embedding, it {words}: subclass"):
        Embedding.of(broken())


def test_a_component_that_misses_a_method_cannot_be_made():
    class Half(Embedding):
        name = "half"

    class Blank(Estimator):
        name = "blank"

    for kind in (Half, Blank):
        with pytest.raises(TypeError, match="abstract"):
            kind()


def test_the_toy_is_what_its_tests_believe(toy, rng):
    """Its exact posterior is calibrated: chi2 of 2 x 4000 numbers, false alarm 1e-6."""
    theta = sbi_toy.SPACE.sample(4000, rng)
    batch = toy.observe(toy.simulate(theta, rng), rng)
    mean, cov = sbi_toy.exact_moments(batch)
    off = (theta[:, :2] - sbi_toy.LOC) / sbi_toy.SCALE - mean
    chi2 = np.einsum("ni,nij,nj->", off, np.linalg.inv(cov), off)
    assert abs(chi2 - 8000) < 5 * np.sqrt(2 * 8000)
    assert isinstance(sbi_toy.SPACE, ParameterSpace)
