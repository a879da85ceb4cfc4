import numpy as np
import pytest
import torch

from sbi_casbi.embedding import CnnConfig, CnnEmbedding, MlpConfig, PlaneEmbedding
from sbi_casbi.estimator import SetEstimator
from sbi_casbi.members import sample_members
from sbi_casbi.sets import SetConfig
from sbi_casbi.sets.context import Step
from sbi_casbi.simulator import CasbiSimulator
from sbi_casbi.support import reference_summaries, summary_percentile
from sbi_core import (
    Batch,
    ConfigError,
    DensityUnavailableError,
    InputShape,
    Posterior,
    Training,
    stream,
)


@pytest.fixture(scope="module")
def trained(simulator):
    batch = simulator.draw(1500, 1)
    training = Training(
        batch=batch,
        space=simulator.parameters,
        columns=tuple(range(len(simulator.columns))),
        observe=simulator.observe,
        config={"epochs": 6, "batch_size": 128, "learning_rate": 3e-3},
        seed=3,
    )
    estimator = SetEstimator(SetConfig(hidden=32, bins=6))
    estimator.fit(training, PlaneEmbedding(MlpConfig(hidden=(64, 32), pool=4)))
    return estimator, simulator.observe(simulator.draw_from(60, 9, "test"), 10)


def test_training_learns_the_number_of_members(trained):
    estimator, batch = trained
    pmf = estimator.pmf(batch)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-5)
    place = batch.theta[:, 0].numpy().astype(int) - 2
    assert np.log(pmf[np.arange(60), place]).mean() > -np.log(99) + 0.2


def test_sets_are_ordered_padded_and_inside(trained):
    estimator, batch = trained
    s = estimator.sample_members(batch, 20, 1)
    assert (s.values[~s.mask] == 0).all()
    mass = np.where(s.mask, s.log_mstar, -np.inf)
    with np.errstate(invalid="ignore"):
        falls = np.diff(mass, axis=2) <= 1e-5
    assert (falls | ~s.mask[..., 1:]).all()
    low, high = (p.item() for p in estimator.space.members[0].prior.support)
    assert s.log_mstar[s.mask].min() >= low
    assert s.log_mstar[s.mask].max() <= high
    assert s.count.min() >= 2
    assert s.count.max() <= 100


def test_draws_of_a_halo_do_not_depend_on_its_company(trained):
    estimator, batch = trained
    rngs = [stream(1, str(k)) for k in range(4)]
    together = estimator.sample_members(batch[:4], 10, rngs)
    alone = estimator.sample_members(batch[2:3], 10, [stream(1, "2")])
    assert (together.count[:, 2] == alone.count[:, 0]).all()
    np.testing.assert_allclose(together.values[:, 2], alone.values[:, 0], atol=2e-3)


def test_columns_are_summaries_of_the_sets(trained):
    estimator, batch = trained
    theta = estimator.sample(batch[:5], 8, [stream(2, str(k)) for k in range(5)])
    sets = estimator.sample_members(batch[:5], 8, [stream(2, str(k)) for k in range(5)])
    np.testing.assert_array_equal(theta, sets.columns(2))
    np.testing.assert_array_equal(theta[..., 0], sets.count)


def test_a_loaded_estimator_gives_the_same_bits(trained, tmp_path):
    estimator, batch = trained
    estimator.save(tmp_path)
    again = SetEstimator.load(tmp_path)
    for network in (estimator.network, again.network):
        tensors = (*network.parameters(), *network.buffers())
        assert all(t.data_ptr() % 64 == 0 for t in tensors)  # else some processors round otherwise
    a, b = (e.sample_members(batch[:3], 5, 1) for e in (estimator, again))
    assert (a.values == b.values).all()
    assert (a.count == b.count).all()


def test_padding_of_the_truth_changes_no_density(trained):
    estimator, batch = trained
    noisy = torch.where(
        batch.theta_mask[..., None], batch.theta_set, torch.randn(batch.theta_set.shape) * 50
    )
    a = estimator.log_prob_members(batch)
    b = estimator.log_prob_members(batch.with_(theta_set=noisy))
    assert np.isfinite(a).all()
    assert (a == b).all()


def test_the_density_of_one_member_integrates_to_one(trained):
    """q(theta_1 | x, N) over a grid of its three parameters, by importance sampling."""
    estimator, batch = trained
    head = estimator.head
    h = estimator._features(batch[:1]).expand(20000, -1)
    gen = torch.Generator().manual_seed(1)
    n = torch.full((20000,), 2)
    sets = torch.zeros(20000, head.size, 3, dtype=torch.float64)
    low = torch.tensor([5.0, 6.5, 0.9])
    high = torch.tensor([9.7, 13.0, 13.6])
    sets[:, 0] = low + (high - low) * torch.rand((20000, 3), generator=gen).double()
    sets[:, 1] = torch.tensor([4.9, 8.0, 5.0])
    z = head.pack(sets, n)
    with torch.no_grad():
        _, v, theta, relative = head.unpack(z)
        one = torch.ones(20000, 1)
        step = Step(
            k=one,
            n=2 * one,
            prefix=head.context.all_prefixes(theta[:, :1], relative[:, :1], one),
            last=torch.zeros(20000, 1, 3),
            first=torch.zeros(20000, 1),
        )
        log_q = head.member_log_prob(step, v[:, :1], theta[:, :1], h)[:, 0].double()
    log_q = log_q + head.whitening.log_det_jacobian(sets, n)[:, 0]
    volume = float((high - low).prod())
    # M_1 below the second member and corners outside the box are missing: a few per cent
    assert abs(float(log_q.exp().mean()) * volume - 1.0) < 0.15


def test_numbers_of_members_can_be_given(trained):
    estimator, batch = trained
    s = estimator.sample_members(batch[:3], 4, 1, count=7, most=3)
    assert (s.count == 7).all()
    assert s.values.shape[2] == 3
    assert (s.values[..., 0] > 0).all()


def test_summaries_have_no_density(trained):
    estimator, batch = trained
    with pytest.raises(DensityUnavailableError, match="log_prob_members"):
        estimator.log_prob(batch.theta, batch)


def test_simulations_without_sets_are_refused(simulator):
    batch = simulator.draw(50, 1)
    training = Training(
        batch=batch,
        space=simulator.parameters.select(["n_sub"]),
        columns=(0,),
        observe=simulator.observe,
        config={"epochs": 1},
    )
    with pytest.raises(ConfigError, match="set-valued"):
        SetEstimator().fit(training, PlaneEmbedding())


def test_posteriors_give_sets_by_halo(trained, simulator):
    estimator, _ = trained
    obs = simulator.example_observations(1, 2)
    s = sample_members(Posterior(estimator, seed=4), obs, 6)
    assert s.id.tolist() == obs.id.tolist()
    assert s.log_mstar.shape[:2] == s.count.shape == (6, 2)
    assert (s.tau[s.mask] > 0).all()
    assert (s.log_mstar[~s.mask] == 0).all()


def test_summaries_of_sets_count_what_they_say(trained):
    estimator, batch = trained
    s = estimator.sample_members(batch[:2], 5, 1)
    assert (s.number_above(0.0)[0] == s.count).all()
    cells = s.intensity(np.linspace(0, 20, 5), np.linspace(0, 20, 3))
    assert (cells.sum((2, 3)) == s.count).all()
    total = np.log10(np.where(s.mask, 10.0 ** s.log_mstar.astype(float), 0.0).sum(-1))
    np.testing.assert_allclose(total, s.columns(2)[..., 1], atol=1e-6)


def test_networks_take_planes_only():
    assert PlaneEmbedding().build(InputShape((4100,))).out_features == 132
    net = CnnEmbedding(CnnConfig(channels=(4, 8), out=16)).build(InputShape((4100,)))
    assert net(torch.rand(3, 4100), None, None, None).shape == (3, 20)
    with pytest.raises(ConfigError, match="4100"):
        PlaneEmbedding().build(InputShape((64,)))
    with pytest.raises(ConfigError, match="divide"):
        PlaneEmbedding(MlpConfig(pool=3)).build(InputShape((4100,)))


def test_summaries_say_which_halos_were_trained_on(simulator, trained):
    estimator, batch = trained
    odd = batch[:2].x.clone()
    odd[:, :4096] = 0.0
    odd[:, 0] = 1e4  # all stars in one corner of the plane
    mixed = Batch.cat([batch.with_(theta=None), batch[:2].with_(theta=None, x=odd)])
    few = CasbiSimulator(
        simulator.config.model_copy(update={"support_halos": 1000}), simulator.library
    )
    found = summary_percentile(estimator.summaries(mixed), *reference_summaries(few, estimator, 3))
    assert 20 < found[:60].mean() < 85
    assert (found[60:] > 99).all()
