"""The check of the model: groups are compared with groups of the same kind."""

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.data.observations import Observations
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.pipeline.model_check import check_model, reference_objects, with_model_check
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream
from sbi_core.simulate.mixture import MixtureSimulator

COV = sbi_toy.ERROR**2 * np.eye(3) + np.outer(sbi_toy.B, sbi_toy.B)
MISFIT = COV @ np.cross(*sbi_toy.A.T)  # no change of the shared parameters is fitted to it


class Misfit(sbi_toy.ToySimulator):
    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=batch.x + torch.as_tensor(MISFIT))


class Offset(sbi_toy.ToySimulator):
    """A third shared parameter, which the estimator does not infer."""

    parameters = ParameterSpace(
        (
            *sbi_toy.SPACE.parameters,
            Parameter("zero", Prior("normal", {"loc": 0.0, "scale": 0.5}), scope="global"),
        )
    )

    def simulate(self, theta, rng):
        theta = np.asarray(theta, float)
        batch = super().simulate(theta[:, :3], rng)
        return batch.with_(x=batch.x + torch.as_tensor(theta[:, 3:] * MISFIT), theta=theta)


@pytest.fixture
def posterior():
    estimator = sbi_toy.ExactEstimator.__new__(sbi_toy.ExactEstimator)
    estimator.space = sbi_toy.SPACE.select("global")
    return Posterior(estimator)


def group_of(simulator, seed, n=60):
    batch = GroupSimulator(simulator, n).draw(n, stream(seed, "group"))
    return Observations.from_batch(simulator.observe(batch, stream(seed, "noise")))


def flags(simulator, maker, posterior, repeats=12):
    """Return the fraction of groups of ``maker`` that are flagged."""
    count = 0
    for seed in range(repeats):
        objects = group_of(maker, seed)
        combined = GaussianCombiner().combine(posterior, objects)
        checked = with_model_check(combined, simulator, posterior, objects, reference=2000)
        count += "unlike_the_simulator" in checked.flags
    return count / repeats


KINDS = {
    "one of two models": lambda: MixtureSimulator([sbi_toy.ToySimulator(), Misfit()]),
    "shared parameter that is not inferred": Offset,
}


@pytest.mark.parametrize("kind", KINDS)
def test_groups_with_more_in_common_are_not_flagged_and_others_are(kind, posterior):
    simulator = KINDS[kind]()
    assert flags(simulator, simulator, posterior) == 0

    class Far(type(simulator)):
        def simulate(self, theta, rng):
            batch = super().simulate(theta, rng)
            return batch.with_(x=batch.x + torch.as_tensor(8 * MISFIT))

    far = Far(simulator.simulators) if kind == "one of two models" else Far()
    assert flags(simulator, far, posterior) == 1


def test_a_reference_of_objects_alone_would_flag_them(posterior):
    """Half of the groups of a mixture, compared with the other of the two models."""
    simulator = KINDS["one of two models"]()
    assert flags(sbi_toy.ToySimulator(), simulator, posterior) > 0.2


def test_every_group_of_the_reference_is_one_draw(posterior):
    objects = group_of(Offset(), 1)
    combined = GaussianCombiner().combine(posterior, objects)
    reference = reference_objects(Offset(), combined, objects.batch, 2000, 1)
    assert len(reference.groups) == 100
    theta = reference.batch.theta.numpy()
    for rows in reference.groups.values():
        assert len(rows) == 60
        assert np.ptp(theta[rows][:, [0, 1, 3]], axis=0).max() == 0
        assert np.ptp(theta[rows][:, 2]) > 0
    first = theta[[rows[0] for rows in reference.groups.values()]]
    assert_allclose(first[:, :2].std(0), combined.sd, rtol=0.3)
    assert first[:, 3].std() == pytest.approx(0.5, rel=0.3)


def test_a_simulator_without_them_is_compared_object_by_object(toy, posterior):
    objects = group_of(toy, 1)
    combined = GaussianCombiner().combine(posterior, objects)
    reference = reference_objects(toy, combined, objects.batch, 2000, 1)
    assert (len(reference), len(reference.groups)) == (2000, 1)
    assert np.unique(reference.batch.theta[:, :2], axis=0).shape == (1, 2)
    entry, verdict = check_model(posterior, combined, objects, reference)
    assert (verdict.level, verdict.test) == ("pass", "model")
    assert entry["dof"] >= 1
    assert entry["p"] == min(entry["comparisons"].values())
