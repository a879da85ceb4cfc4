import numpy as np
import torch

from sbi_core import InputShape, TrainConfig, Training
from sbi_sfh.config import SfhConfig
from sbi_sfh.encoder import PcaConfig, PcaEmbedding
from sbi_sfh.projection import project_training
from sbi_sfh.simulator import SfhSimulator


def _training(simulator, batch):
    return Training(
        batch=batch,
        space=simulator.parameters,
        columns=tuple(range(simulator.parameters.dim)),
        observe=simulator.observe,
        config=TrainConfig(),
        seed=1,
    )


def _module(simulator, components=8):
    batch = simulator.draw(300, 1)
    module = PcaEmbedding(PcaConfig(components=components, hidden=(8,))).build(
        InputShape((len(simulator.wave),))
    )
    clean, _ = simulator.pixel_noise(batch)
    module.start(simulator.observe(batch, 2), clean)
    return module


def test_projected_noise_has_the_distribution_of_noise_in_pixels(simulator):
    module = _module(simulator)
    one = simulator.draw(1, 9)
    many = one[torch.zeros(6000, dtype=torch.long)]
    pixels = torch.cat(
        [module.project(simulator.observe(many[s : s + 1000], 100 + s).x, None)
         for s in range(0, 6000, 1000)]
    ).double().numpy()  # fmt: skip
    projected = project_training(module, _training(simulator, many), simulator.pixel_noise)
    features = projected.observe(projected.batch, 3).x.double().numpy()
    assert features.shape == pixels.shape
    sd = pixels.std(0)
    # errors of a mean, a standard deviation and a correlation of 6000 draws: 5 sigma each
    np.testing.assert_allclose(features.mean(0), pixels.mean(0), atol=5 * 1.5 * sd.max() / 77)
    np.testing.assert_allclose(features.std(0), sd, rtol=5 * 1.5 / 110)
    difference = np.corrcoef(features.T) - np.corrcoef(pixels.T)
    assert np.abs(difference).max() < 5 * 1.5 / 77


def test_noise_is_fresh_and_repeatable(simulator):
    module = _module(simulator)
    projected = project_training(
        module, _training(simulator, simulator.draw(5, 4)), simulator.pixel_noise
    )
    first, again, other = (projected.observe(projected.batch, seed).x for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_features_pass_through_the_projection(simulator):
    module = _module(simulator)
    x = simulator.pixel_noise(simulator.draw(3, 4))[0]
    features = module.project(x, None)
    assert torch.equal(module.project(features, None), features)


def test_without_noise_only_features_are_left():
    simulator = SfhSimulator(SfhConfig(noise="none"))
    module = _module(simulator)
    batch = simulator.draw(6, 4)
    projected = project_training(module, _training(simulator, batch), simulator.pixel_noise)
    assert projected.batch.x.shape == (6, 8)
    expected = module.project(simulator.observe(batch, 1).x, None)
    assert torch.equal(projected.observe(projected.batch, 1).x, expected)


def test_more_than_noise_is_not_projected(observed_simulator, simulator):
    module = _module(simulator)
    training = _training(observed_simulator, observed_simulator.draw(4, 1))
    assert observed_simulator.pixel_noise(training.batch) is None
    assert project_training(module, training, observed_simulator.pixel_noise) is None


def test_components_far_below_the_noise_are_off(simulator):
    """The spectra of 49 vectors have 49 components at most; the noise hides most of them."""
    module = _module(simulator, components=60)
    on = module.components.abs().sum(1) > 0
    count = int(on.sum())
    assert 5 < count < 50
    assert bool(on[:count].all())
    assert not bool(module.project(torch.rand(2, len(simulator.wave)), None)[:, count:].any())
