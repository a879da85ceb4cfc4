"""Groups with nuisance parameters: one draw per group, switched on and off."""

import numpy as np
import pytest
import torch

from sbi_core.errors import SimulationError
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.priors.space import Parameter, ParameterSpace
from sbi_core.rng import stream
from sbi_core.simulate.nuisances import disturbed, draw_groups, extended, families, selected
from sbi_core.simulate.probe import check_description
from sbi_core.testing.models import LinearGaussian, OffsetModel

SIZE = 50


def drawn(simulator, count=400, **options):
    source = GroupSimulator(simulator, SIZE, marginalise=True, **options)
    return source.draw(count * SIZE, stream(1, "groups"))


def test_the_objects_of_a_group_share_one_draw():
    simulator = OffsetModel()
    batch = drawn(simulator)
    plain = simulator.simulate(batch.theta[:, :3], stream(1, "x")).x
    shift = (batch.x - plain).reshape(-1, SIZE * 3).numpy()
    assert np.ptp(shift, axis=1).max() < 1e-5
    on = batch.theta[::SIZE, 3].numpy() > 0
    assert 0.7 < on.mean() < 0.9
    assert np.abs(shift[~on]).max() < 1e-6  # nominal values
    assert shift[on, 0].std() == pytest.approx(0.5, rel=0.15)


def test_all_families_can_be_on():
    batch = drawn(OffsetModel(), all_on=True)
    assert (batch.theta[:, 3:] == 1).all()


def test_theta_has_a_column_for_each_family():
    simulator = OffsetModel()
    assert families(simulator) == ("offset", "population")
    assert extended(simulator).names[3:] == ("nuisance: offset", "nuisance: population")
    assert drawn(simulator, 3).theta.shape == (3 * SIZE, 5)


def test_the_distribution_of_local_parameters_differs_from_group_to_group():
    class Wide(LinearGaussian):
        population = {"own": (0.5, 0.3)}

    batch = drawn(Wide(), all_on=True)
    own = batch.theta[:, 2].reshape(-1, SIZE).numpy()
    within = 1 / np.sqrt(SIZE)
    assert own.mean(1).std() == pytest.approx(np.hypot(0.5, within * 1.1), rel=0.15)
    assert np.log(own.std(1)).std() == pytest.approx(np.hypot(0.3, 0.1), rel=0.2)
    shared = batch.theta[:, :2].reshape(-1, SIZE, 2)
    assert (shared == shared[:, :1]).all()


def test_same_seed_same_groups_and_theta_is_left_alone():
    simulator = OffsetModel()
    theta = simulator.parameters.sample(2 * SIZE, 3)
    kept, group = theta.copy(), np.repeat([0, 1], SIZE)
    one, two = (draw_groups(simulator, theta, group, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one.x, two.x)
    assert (theta == kept).all()


def test_groups_without_nuisance_parameters_keep_their_numbers():
    """The draws of a plain group do not depend on what could be marginalised."""
    a = GroupSimulator(LinearGaussian(), SIZE).draw(100, stream(2, "groups"))
    b = GroupSimulator(OffsetModel(), SIZE).draw(100, stream(2, "groups"))
    assert torch.equal(a.x, b.x)
    assert a.theta.shape == (100, 3)


def test_zero_points_and_outliers(rng):
    value, error = np.zeros((1000, 2)), np.full((1000, 2), 0.1)
    moved = [disturbed(value, error, 0.5, rng, outliers=False) for _ in range(400)]
    assert np.ptp(moved, axis=1).max() == 0  # the same for all objects
    assert np.std([m[0] for m in moved]) == pytest.approx(0.5, rel=0.15)
    odd = [disturbed(value, error, 0.0, rng) for _ in range(400)]
    share = np.mean([(m != 0).any(1).mean() for m in odd])
    assert share == pytest.approx(0.05, abs=0.01)
    assert np.concatenate([m[m != 0] for m in odd]).std() == pytest.approx(0.49, rel=0.05)


SPACE = OffsetModel().nuisances["offset"]
LOCAL = ParameterSpace((Parameter("shift", SPACE["shift"].prior),))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nuisances", {"a": SPACE["shift"]}, r"nuisances\['a'\] must be a ParameterSpace"),
        ("nuisances", {"outliers": SPACE}, "'outliers' is a family that every simulator has"),
        ("nuisances", {"population": SPACE}, "'population' is a family that every simulator has"),
        ("nuisances", {"a": LOCAL}, r"'shift' in nuisances\['a'\] needs scope = 'nuisance'"),
        ("population", {"own": 0.1}, r"population\['own'\] must be two numbers"),
        ("population", {"own": (0.1, -1.0)}, r"population\['own'\] must be two numbers"),
        ("population", {"owm": (0.1, 0.1)}, "population names 'owm', which is no local parameter"),
        ("zero_point", -0.1, "zero_point must be one number, at least 0"),
        ("zero_point", np.array([0.1]), "zero_point must be one number, at least 0"),
    ],
)
def test_what_a_simulator_declares_is_checked(name, value, message):
    simulator = OffsetModel()
    check_description(simulator)
    setattr(simulator, name, value)
    with pytest.raises(SimulationError, match=message):
        check_description(simulator)


def test_selected_objects_are_those_of_a_range(rng):
    value = rng.standard_normal(200)
    sizes = []
    for _ in range(300):
        rows = selected(value, rng)
        assert (np.diff(rows) > 0).all()
        inside = (value >= value[rows].min()) & (value <= value[rows].max())
        assert inside.sum() == len(rows)
        sizes.append(len(rows))
    assert min(sizes) < 30 < 150 < max(sizes)
    assert np.median(sizes) == pytest.approx(200 * 0.1**0.5, rel=0.2)  # log-uniform
    assert selected(value[:1], rng).tolist() == [0]
    assert len(selected(np.full(50, np.nan), rng)) >= 5
