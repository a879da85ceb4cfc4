import numpy as np
import pytest
import torch

from sbi_core import (
    Batch,
    ConfigError,
    DataFileError,
    InputShape,
    Parameter,
    ParameterSpace,
    Prior,
    TrainConfig,
    Training,
)
from sbi_sfh.encoder import ConvConfig, ConvEmbedding, PcaConfig, PcaEmbedding
from sbi_sfh.estimator import PercentileConfig, PercentileEstimator, sticks_of


def training(simulator, n=600, **options):
    batch = simulator.draw(n, 11)
    config = TrainConfig(**{"epochs": 2, "batch_size": 128, "retries": 0, **options})
    return Training(
        batch=batch.succeeded,
        space=simulator.parameters,
        columns=tuple(range(simulator.parameters.dim)),
        observe=simulator.observe,
        config=config,
        seed=3,
    )


SMALL = {"encoder_epochs": 2, "components": 3, "hidden": (16,)}


@pytest.fixture(scope="module", params=["two_stage", "end_to_end"])
def trained(request, simulator):
    estimator = PercentileEstimator(PercentileConfig(training=request.param, **SMALL))
    estimator.fit(training(simulator), PcaEmbedding(PcaConfig(components=12, hidden=(32,))))
    return estimator


def test_every_draw_is_ordered_and_in_range(trained, simulator):
    seen = simulator.observe(simulator.draw(20, 5), 6)
    draws = trained.sample(seen, 200, 7)
    assert draws.shape == (200, 20, 10)
    assert (np.diff(draws[..., :9]) >= 0).all()
    low, high = simulator.parameters.support
    assert ((draws >= low) & (draws <= high)).all()


def test_density_follows_from_draws(trained, simulator):
    """Importance weights of a density against itself shifted: mean of q'/q over draws is one."""
    seen = simulator.observe(simulator.draw(2, 5), 6)
    draws = trained.sample(seen, 4000, 7)
    other = np.roll(np.arange(2), 1)
    log_q = trained.log_prob(draws, seen)
    log_p = trained.log_prob(draws, seen[other])
    ratio = np.exp(np.clip(log_p - log_q, -50, 50)).mean(0)
    assert np.isfinite(log_q).all()
    assert (ratio < 1.5).all()  # heavy tails may only miss mass


def test_disorder_has_no_density(trained, simulator):
    seen = simulator.observe(simulator.draw(1, 5), 6)
    theta = simulator.draw(1, 5).theta.double().numpy()
    theta[:, [3, 4]] = theta[:, [4, 3]]
    assert trained.log_prob(theta, seen)[0] == -np.inf


def test_saved_and_loaded_estimators_draw_the_same(trained, simulator, tmp_path):
    seen = simulator.observe(simulator.draw(3, 5), 6)
    trained.save(tmp_path)
    again = PercentileEstimator.load(tmp_path)
    for network in (trained.network, again.network):
        tensors = (*network.parameters(), *network.buffers())
        assert all(t.data_ptr() % 64 == 0 for t in tensors)  # else some processors round otherwise
    np.testing.assert_array_equal(again.sample(seen, 50, 1), trained.sample(seen, 50, 1))


def test_weights_of_other_coordinates_are_refused(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as before:  # sticks from the late end, without the order
        before.delitem(trained.network.head._buffers, "columns")
        trained.save(tmp_path)
    with pytest.raises(DataFileError, match="another network"):
        PercentileEstimator.load(tmp_path)


def test_training_is_repeatable(simulator):
    found = []
    for _ in range(2):
        estimator = PercentileEstimator(PercentileConfig(disjoint=True, **SMALL))
        estimator.fit(training(simulator, 300), PcaEmbedding(PcaConfig(components=6, hidden=(16,))))
        found.append(estimator.sample(simulator.observe(simulator.draw(2, 5), 6), 5, 1))
    np.testing.assert_array_equal(*found)


def test_errors_do_not_enter_but_masks_do(observed_simulator):
    estimator = PercentileEstimator(PercentileConfig(**SMALL))
    estimator.fit(
        training(observed_simulator, 300), PcaEmbedding(PcaConfig(components=6, hidden=(16,)))
    )
    seen = observed_simulator.observe(observed_simulator.draw(2, 5), 6)
    hidden = seen.with_(x=torch.where(seen.mask, seen.x, 1e9))
    np.testing.assert_array_equal(estimator.sample(seen, 5, 1), estimator.sample(hidden, 5, 1))


def test_convolutions_train_too(simulator):
    estimator = PercentileEstimator(PercentileConfig(training="end_to_end", **SMALL))
    record = estimator.fit(
        training(simulator, 120, epochs=1), ConvEmbedding(ConvConfig(preset="cpu", pool=4))
    )
    assert np.isfinite(record.test_nll)


@pytest.mark.parametrize("preset", ["cpu", "cpu-wide", "paper"])
def test_convolutions_have_the_published_sizes(preset):
    module = ConvEmbedding(ConvConfig(preset=preset)).build(InputShape((4300,)))
    weights = sum(p.numel() for p in module.parameters())
    assert module.out_features == 16
    assert {"cpu": 4e4, "cpu-wide": 1.5e5, "paper": 2.8e6}[preset] < weights
    assert weights < {"cpu": 9e4, "cpu-wide": 4e5, "paper": 3.5e6}[preset]


def test_components_are_those_of_the_signal(simulator, rng):
    mean = np.linspace(1, 2, 300)
    axes = np.linalg.qr(rng.standard_normal((300, 3)))[0].T
    scores = rng.standard_normal((4000, 3)) * [1.0, 0.5, 0.2]
    err = 0.05 * mean * np.ones((4000, 1))
    x = mean * (1 + scores @ axes + 0.05 * rng.standard_normal((4000, 300)))
    module = PcaEmbedding(PcaConfig(components=3)).build(InputShape((300,)))
    module.start(Batch.of_arrays(x=x.astype(np.float32), x_err=err.astype(np.float32)))
    overlap = np.abs(module.components.numpy() @ axes.T)
    np.testing.assert_allclose(np.diag(overlap), 1.0, atol=0.01)
    np.testing.assert_allclose(module.scale.numpy(), [1.0, 0.5, 0.2], rtol=0.05)


def test_too_few_spectra_for_components_are_refused():
    module = PcaEmbedding(PcaConfig(components=12)).build(InputShape((50,)))
    with pytest.raises(ConfigError, match="5 spectra cannot give 12"):
        module.start(Batch(x=torch.ones(5, 50)))


def test_images_are_refused():
    with pytest.raises(ConfigError, match="needs spectra"):
        PcaEmbedding().build(InputShape((3, 50)))


def test_spaces_without_percentiles_are_refused():
    space = ParameterSpace((Parameter("mh", Prior("uniform", {"low": 0.0, "high": 1.0})),))
    with pytest.raises(ConfigError, match="needs percentiles"):
        sticks_of(space)
