"""Moments of the group: nuisance parameters marginalised, against an exact posterior."""

import copy
import json

import numpy as np
import pytest
import torch

from sbi_core.combiners.group_moments import (
    GroupData,
    GroupMomentsCombiner,
    GroupMomentsConfig,
    _batch,
    _stretch_of,
)
from sbi_core.components import InputShape
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, DataFileError, ObservationError
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream
from sbi_core.simulate.nuisances import extended
from sbi_core.testing.models import ExactEstimator, OffsetModel

MODEL = OffsetModel()
SIZE = 60
CONFIG = GroupMomentsConfig(groups=1500, size=SIZE, epochs=20)


def groups(count, seed, **options):
    source = GroupSimulator(MODEL, SIZE, marginalise=True, **options)
    rng = stream(seed, "groups")
    batch = source.draw(count * SIZE, rng)
    seen = MODEL.observe(batch.with_(theta=batch.theta[:, :3]), rng).with_(theta=batch.theta)
    names = extended(MODEL).names
    for k in range(count):
        yield Observations.from_batch(seen[k * SIZE : (k + 1) * SIZE], truth_names=names)


def new():
    combiner = GroupMomentsCombiner(CONFIG)
    combiner.attach(MODEL)
    return combiner


@pytest.fixture(scope="module")
def posterior():
    return ExactEstimator.trained()


@pytest.fixture(scope="module")
def combiner(posterior):
    trained = new()
    trained.prepare(posterior, groups(CONFIG.groups, 1), seed=1)
    return trained


@pytest.fixture(scope="module")
def tests():
    return list(groups(150, 2, all_on=True))


def plain(group):
    return Observations.from_batch(group.batch.with_(theta=None))


def test_mean_and_width_are_near_those_of_the_exact_posterior(combiner, posterior, tests):
    tests = tests[:50]
    found = [combiner.combine(posterior, plain(g)) for g in tests]
    exact = [MODEL.marginal(g.batch) for g in tests]
    scale = MODEL.parameters.select("global").moments()[1]
    sd = [combiner.error_budget(plain(g))["outliers"] / scale for g in tests]  # there are none
    width = np.array([s / np.sqrt(np.diag(e[1])) for s, e in zip(sd, exact, strict=True)])
    off = [(c.z_mean - e[0]) / np.sqrt(np.diag(e[1])) for c, e in zip(found, exact, strict=True)]
    # moments forget which values belong to the same object, and which have small errors
    assert (np.median(width, axis=0) > 0.95).all()
    assert (np.median(width, axis=0) < 1.5).all()
    assert np.sqrt(np.mean(np.square(off))) < 1
    alone = [MODEL.posterior(g.batch)[1] for g in tests]  # the shift known to be 0
    ratio = [np.diag(e[1]) / np.diag(a) for e, a in zip(exact, alone, strict=True)]
    assert np.mean(ratio) > 2  # otherwise this test says nothing


@pytest.mark.parametrize("lost", [(), (0,), (1, 2), (0, 2), (0, 1)])
def test_it_is_calibrated_whatever_is_missing(combiner, lost):
    every = list(groups(600, 2, all_on=True))
    data, moments = GroupData.stacked([GroupData.of(g.batch) for g in every]), combiner._moments
    for k in lost:
        data = data.without(k)
    on = np.tile(moments.switches(), (len(every), 1))
    mean, cov = combiner._estimator.gaussian_moments(_batch(moments.inputs(data, on)))
    theta = np.stack([g.batch.theta[0, :2].numpy() for g in every])
    truth = MODEL.parameters.select("global").to_unconstrained(theta)
    sd = combiner._factor(cov) * np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    z = (mean - truth) / sd
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.15)
    assert np.abs(z.mean(0)).max() < 0.3  # the mean of 600 has an error of 0.04


def test_it_holds_for_objects_that_were_selected(combiner, posterior, tests):
    """Groups cut at the median of an observable, which the plain combiner does not know of."""
    name = MODEL.observables[0].name

    class Chosen(OffsetModel):
        selected_by = (name,)

    aware = GroupMomentsCombiner(CONFIG)
    aware.attach(Chosen())
    aware.learn(groups(CONFIG.groups, 1), seed=1)
    assert aware.families[-1] == "selection"
    space = MODEL.parameters.select("global")
    off = {"aware": [], "plain": []}
    for group in groups(300, 2, all_on=True):
        batch = group.batch
        upper = batch[batch.x[:, 0] > batch.x[:, 0].nanmedian()]
        truth = space.to_unconstrained(batch.theta[:1, :2].numpy())[0]
        for key, rule in (("aware", aware), ("plain", combiner)):
            moments = rule._moments
            row = moments.inputs(GroupData.of(upper), moments.switches())
            mean, cov = rule._estimator.gaussian_moments(_batch(row))
            off[key].append((mean[0] - truth) / np.sqrt(np.diag(cov[0])))
    rms = {k: np.sqrt(np.mean(np.square(v))) for k, v in off.items()}
    assert rms["plain"] > 1.5  # otherwise this test says nothing
    assert rms["aware"] < 1.15
    assert (
        len(aware.error_budget(plain(tests[0]))) == len(combiner.error_budget(plain(tests[0]))) + 1
    )


def test_error_budget(combiner, tests):
    budget = combiner.error_budget(plain(tests[0]))
    assert list(budget) == ["all", "offset", "population", "outliers", "none"]
    assert budget["offset"][1] < 0.7 * budget["all"][1]
    assert budget["none"][1] < 0.7 * budget["all"][1]


def test_leaving_an_observable_out_widens_the_result(combiner, tests):
    left = combiner.leave_one_out(plain(tests[0]))
    assert list(left) == ["a", "b", "c"]
    assert left["a"][1][0] > 1.1 * combiner.error_budget(plain(tests[0]))["all"][0]


def test_nothing_remains_without_the_only_observable(combiner, tests):
    batch = tests[0].batch.with_(theta=None)
    mask = batch.observed.clone()
    mask[:, 1:] = False
    only = Observations.from_batch(batch.with_(x=torch.where(mask, batch.x, torch.nan), mask=mask))
    assert combiner.leave_one_out(only) == {}


def test_errors_larger_than_in_training_are_flagged(combiner, posterior, tests):
    batch = tests[0].batch.with_(theta=None)
    for factor, flags in ((3.0, ()), (20.0, ("errors_not_simulated",))):
        group = Observations.from_batch(batch.with_(x_err=factor * batch.x_err))
        assert combiner.combine(posterior, group).flags == flags


def test_any_number_of_objects(combiner, posterior, tests):
    parts = [slice(0), slice(1), slice(10), slice(None)]
    found = combiner.combine_subsets(posterior, plain(tests[0]), parts)
    sd = [np.sqrt(np.diag(c.z_cov)).mean() for c in found]
    assert [c.n for c in found] == [0, 1, 10, SIZE]
    assert sd[1] > sd[3]
    assert found[0].z_mean == pytest.approx(np.zeros(2))
    assert found[0].z_cov == pytest.approx(np.eye(2))
    assert all(np.isfinite(c.samples).all() for c in found)
    many = Observations.from_batch(Batch.cat([plain(g).batch for g in tests[:20]]))
    assert np.isfinite(combiner.combine(posterior, many).mean).all()


def test_an_observable_that_is_missing(combiner, posterior, tests):
    batch = tests[0].batch.with_(theta=None)
    mask = batch.observed.clone()
    mask[:, 1] = False
    x = torch.where(mask, batch.x, torch.nan)
    found = combiner.combine(posterior, Observations.from_batch(batch.with_(x=x, mask=mask)))
    assert np.isfinite(found.samples).all()


def test_a_group_that_nothing_makes_is_flagged(combiner, posterior, tests):
    usual = [combiner.combine(posterior, plain(g)).flags for g in tests[:50]]
    assert sum(map(bool, usual)) <= 2
    batch = tests[0].batch.with_(theta=None)
    strange = Observations.from_batch(batch.with_(x=batch.x + torch.tensor([8.0, -8.0, 8.0])))
    assert combiner.combine(posterior, strange).flags == ("unlike_the_simulator",)


def test_saved_and_restored(combiner, posterior, tests, tmp_path):
    combiner.save(tmp_path)
    other = GroupMomentsCombiner()
    other.restore(tmp_path)
    one, two = (c.combine(posterior, plain(tests[0]), rng=3) for c in (combiner, other))
    assert (one.samples == two.samples).all()
    assert one.diagnostics == two.diagnostics
    content = json.loads((tmp_path / "moments.json").read_text())
    content["moments"]["noisy"] = not content["moments"]["noisy"]  # a family more or less
    (tmp_path / "moments.json").write_text(json.dumps(content))
    with pytest.raises(DataFileError, match="another version.*--restart combine"):
        GroupMomentsCombiner().restore(tmp_path)
    earlier = {"moments": {"names": ["a"]}, "usual": {"centre": [0.0]}, "width": [1.0]}
    (tmp_path / "moments.json").write_text(json.dumps(earlier))
    with pytest.raises(DataFileError, match="another version.*--restart combine"):
        GroupMomentsCombiner().restore(tmp_path)
    (tmp_path / "moments.json").write_text('{"moments": {}}')
    with pytest.raises(DataFileError, match="is damaged"):
        GroupMomentsCombiner().restore(tmp_path)
    (tmp_path / "moments.json").unlink()
    with pytest.raises(DataFileError, match=r"did not finish: run its command again with --config"):
        GroupMomentsCombiner().restore(tmp_path)


def test_errors_are_stretched_where_the_data_say_much(combiner, posterior, tests):
    wide = copy.copy(combiner)
    wide._stretch = np.array([0.0, 0.5])
    cov = np.diag([0.19, 0.36])[None]
    assert wide._factor(cov) == pytest.approx(np.array([[1.0, 1.32]]))
    assert wide._factor(np.eye(2)[None] * 1.1) == pytest.approx(1.0)  # nothing known
    inputs = combiner._moments.inputs(GroupData.of(tests[0].batch), combiner._moments.switches())
    own = combiner._estimator.gaussian_moments(_batch(inputs))[1]
    one, two = (c.combine(posterior, plain(tests[0])) for c in (combiner, wide))
    ratio = (combiner._factor(own) / wide._factor(own))[0]
    assert one.sd / two.sd == pytest.approx(ratio, rel=0.05)
    assert np.diag(one.z_cov) == pytest.approx(np.diag(two.z_cov) * ratio**2)
    assert one.mean == pytest.approx(two.mean, abs=0.05)
    assert (combiner._stretch < 0.5).all()


@pytest.mark.parametrize(("true", "found"), [(0.3, 0.3), (0.0, 0.0), (-0.2, 0.0)])
def test_the_stretch_is_found_from_groups_kept_from_training(true, found):
    """Errors that are too small by 1 + c (1 - s^2); those too large are left."""
    rng = np.random.default_rng(3)
    space = MODEL.parameters.select("global")
    variance = rng.uniform(0.02, 1.0, (40_000, 2))
    truth = (1 + true * (1 - variance)) * np.sqrt(variance) * rng.standard_normal((40_000, 2))
    theta = torch.as_tensor(space.from_unconstrained(truth))

    class Sure:
        def gaussian_moments(self, batch):
            return np.zeros_like(variance), variance[:, :, None] * np.eye(2)

    batch = Batch(x=torch.zeros(40_000, 1), theta=theta)
    assert _stretch_of(Sure(), batch, space) == pytest.approx(found, abs=0.02)


def test_same_seed_same_network(combiner, posterior, tests):
    again = new()
    again.prepare(posterior, groups(CONFIG.groups, 1), seed=1)
    one, two = (c.combine(posterior, plain(tests[0])) for c in (combiner, again))
    assert (one.z_mean == two.z_mean).all()


def test_it_learns_without_a_posterior(combiner, posterior, tests):
    alone = new()
    assert alone.learns_alone
    alone.learn(groups(CONFIG.groups, 1), seed=1)
    one, two = (c.combine(posterior, plain(tests[0])) for c in (combiner, alone))
    assert (one.z_mean == two.z_mean).all()
    with pytest.raises(ConfigError, match=r"needs the simulator; call attach\(simulator\) first"):
        GroupMomentsCombiner(CONFIG).learn([])


def test_clear_errors(combiner, posterior, tests):
    with pytest.raises(ConfigError, match=r"not trained; call prepare\(posterior, groups\) first"):
        GroupMomentsCombiner().combine(posterior, tests[0])
    wide = Observations.from_batch(Batch(x=torch.zeros(5, 4)))
    with pytest.raises(ObservationError, match="was trained with 3 numbers per object"):
        combiner.combine(posterior, wide)
    for rows in (torch.zeros(5, 8, 8), torch.zeros(5, 21)):  # images, spectra
        with pytest.raises(ObservationError, match="one row of at most 20 numbers per object"):
            new().prepare(posterior, [Observations.from_batch(Batch(x=rows))])
    new().check_shape(InputShape((20,)))
