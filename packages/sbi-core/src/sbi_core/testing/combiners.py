r"""Promises of a combiner: Bayes' rule for N objects, checked where the answer is exact.

.. math:: p(\Lambda\,|\,x_1 .. x_N) \propto p(\Lambda)^{1-N} \prod_i p(\Lambda\,|\,x_i)

with a truth two prior sigma from the prior's mean: a rule that multiplies the prior in instead of
dividing it out is right at the mean, and wrong by a constant that does not shrink with N elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbi_core.components import Combiner
from sbi_core.data.observations import Observations
from sbi_core.errors import SbiError
from sbi_core.posterior import CombinedPosterior, Posterior
from sbi_core.rng import stream
from sbi_core.testing.models import ExactEstimator, LinearGaussian
from sbi_core.testing.outcome import NotApplicable, bind, require, run_all

__all__ = ["COMBINER_CHECKS", "CombinerCase", "check_combiner"]

F64 = NDArray[np.float64]
_OFF = 2.0  # prior sigma between the truth and the prior's mean
_GROUPS, _OBJECTS = 400, 200  # simulated groups a learning rule is prepared on, at most
_SIGN = (
    "divide the prior out N - 1 times: P = sum_i P_i - (N - 1) P_0 and "
    "P mu = sum_i P_i mu_i - (N - 1) P_0 mu_0; in unconstrained space P_0 = I and mu_0 = 0"
)


@dataclass
class CombinerCase:
    """A combiner and the exact posteriors it combines.

    Parameters
    ----------
    make
        Returns a new combiner.
    exact
        Whether it claims to be exact for Gaussian posteriors: then to 1e-6, up to N = 10,000.
        Otherwise the mean within 0.3 combined sigma and the width within 10 %, up to N = 100.
    """

    make: Callable[[], Combiner]
    exact: bool = False
    simulator: LinearGaussian = LinearGaussian()

    @cached_property
    def posterior(self) -> Posterior:
        """Exact single-object posteriors."""
        return ExactEstimator.trained()

    @cached_property
    def combiner(self) -> Combiner:
        """The combiner, prepared on simulated groups where it needs them."""
        combiner = self.make()
        combiner.attach(self.simulator)
        if combiner.groups_needed:
            combiner.prepare(self.posterior, self._groups(combiner), seed=1)
        return combiner

    def _groups(self, combiner: Combiner) -> Iterator[Observations]:
        size = min(combiner.group_size, _OBJECTS)
        for k in range(min(combiner.groups_needed, _GROUPS)):
            rng = stream(2, "group", k)
            theta = self.simulator.parameters.sample(size, rng)
            theta[:, :2] = theta[0, :2]
            batch = self.simulator.observe(self.simulator.simulate(theta, rng), rng)
            names = self.simulator.parameters.names
            yield Observations.from_batch(batch, truth_names=names)

    def combine(self, observations: Observations, seed: int = 3) -> CombinedPosterior:
        """Combine objects."""
        return self.combiner.combine(self.posterior, observations, rng=stream(seed, "combine"))

    def compare(self, got: CombinedPosterior, mean: F64, cov: F64, what: str, fix: str) -> None:
        """Raise unless the result is N(mean, cov) in unconstrained space, within the claim."""
        sd = np.sqrt(np.diag(cov))
        off = float(np.max(np.abs(got.z_mean - mean) / sd))
        ratio = np.sqrt(np.diag(got.z_cov)) / sd
        said = (
            f"{what}: mean {np.round(got.z_mean, 5)} where {np.round(mean, 5)} is exact "
            f"({off:.3g} combined sigma), sd {np.round(np.sqrt(np.diag(got.z_cov)), 5)} where "
            f"{np.round(sd, 5)} is exact (unconstrained space, truth {_OFF} off the prior mean)"
        )
        if self.exact:
            close = np.abs(got.z_mean - mean).max() < 1e-6 and np.allclose(
                got.z_cov, cov, rtol=1e-6, atol=1e-12
            )
            require(bool(close), said, fix)
        require(off < 0.3 and bool((np.abs(ratio - 1) < 0.1).all()), said, fix)

    def not_for_comparison(self) -> None:
        """Raise NotApplicable for rules that are wrong on purpose."""
        if self.combiner.comparison_only:
            msg = "it is for comparison only"
            raise NotApplicable(msg)


def check_describes_its_result(case: CombinerCase) -> None:
    """Names, shapes, N, finite numbers, a positive definite covariance, draws that have it."""
    objects = case.simulator.objects(10, off=_OFF, seed=1)
    got = case.combine(objects)
    require(
        got.combiner == case.combiner.name and got.n == 10,
        f"the result says combiner '{got.combiner}', n = {got.n}, for '{case.combiner.name}' and "
        "10 objects",
        "pass self.name and len(observations) to CombinedPosterior",
    )
    require(
        got.names == ("first", "second"),
        f"the result speaks of {got.names}, the shared parameters are ('first', 'second')",
        "combine posterior.space.select('global')",
    )
    shapes = got.mean.shape, got.cov.shape, got.z_mean.shape, got.z_cov.shape
    require(
        shapes == ((2,), (2, 2), (2,), (2, 2)) and got.samples.shape[1:] == (2,),
        f"mean, cov, z_mean, z_cov have shapes {shapes}, samples {got.samples.shape}",
        "return (d,), (d, d), (d,), (d, d) and (S, d)",
    )
    for name in ("cov", "z_cov"):
        smallest = float(np.linalg.eigvalsh(getattr(got, name)).min())
        require(smallest > 0, f"{name} has the eigenvalue {smallest:.2g}", "mend the covariance")
    off = np.abs(got.samples.mean(0) - got.mean) / (got.sd / np.sqrt(len(got.samples)))
    require(
        bool((off < 6).all()),
        f"the mean of the samples is {off.max():.1f} standard errors from `mean`",
        "draw samples from the result: mean and cov in physical units, z_mean and z_cov in "
        "unconstrained units",
    )
    flagged = "comparison_only" in got.flags
    require(
        flagged == case.combiner.comparison_only,
        f"comparison_only is {case.combiner.comparison_only}, the result has flags {got.flags}",
        "flag results of rules that are for comparison only, and of no other",
    )


def check_divides_the_prior_out(case: CombinerCase) -> None:
    """The exact posterior of N objects whose truth lies two sigma off the prior's mean."""
    case.not_for_comparison()
    for n in (10, 100, 1000, 10_000) if case.exact else (10, 100):
        objects = case.simulator.objects(n, off=_OFF, seed=4)
        mean, cov = case.simulator.posterior(objects.batch)
        case.compare(case.combine(objects), mean, cov, f"N = {n}", _SIGN)


def check_no_object_gives_the_prior(case: CombinerCase) -> None:
    """N = 0: mean 0, covariance I in unconstrained space."""
    case.not_for_comparison()
    got = case.combine(case.simulator.objects(1, off=0.0, seed=5)[np.arange(0)])
    case.compare(got, np.zeros(2), np.eye(2), "no object", "return the prior for N = 0")


def check_one_object_gives_its_posterior(case: CombinerCase) -> None:
    """N = 1: the single-object posterior, nothing divided out."""
    case.not_for_comparison()
    objects = case.simulator.objects(1, off=_OFF, seed=6)
    mean, cov = case.simulator.posterior(objects.batch)
    case.compare(case.combine(objects), mean, cov, "N = 1", _SIGN)


def check_order_does_not_matter(case: CombinerCase) -> None:
    """The same objects in another order give the same result."""
    objects = case.simulator.objects(40, off=1.0, seed=7)
    turned = objects[stream(8, "order").permutation(40)]
    one, two = case.combine(objects), case.combine(turned)
    sd = np.sqrt(np.diag(one.z_cov))
    off = float(np.max(np.abs(one.z_mean - two.z_mean) / sd))
    require(
        off < (1e-6 if case.exact else 0.15),
        f"another order of the objects moves the mean by {off:.2g} combined sigma",
        "treat objects alike; a rule with random numbers needs more of them",
    )


def check_halves_combine_to_the_whole(case: CombinerCase) -> None:
    """P_1 + P_2 - P_0 of two halves is P of all: the prior is counted once."""
    case.not_for_comparison()
    objects = case.simulator.objects(4, off=_OFF, seed=9)  # few: the prior still matters
    parts = [case.combine(objects[rows]) for rows in (slice(0, 2), slice(2, 4))]
    precision = sum(np.linalg.inv(p.z_cov) for p in parts) - np.eye(2)
    information = sum(np.linalg.solve(p.z_cov, p.z_mean) for p in parts)
    cov = np.asarray(np.linalg.inv(precision), np.float64)
    case.compare(
        case.combine(objects), cov @ information, cov, "4 objects against two halves", _SIGN
    )


def check_every_object_twice_counts_twice(case: CombinerCase) -> None:
    """Each object given twice: 2 sum_i (P_i - P_0) + P_0."""
    case.not_for_comparison()
    objects = case.simulator.objects(20, off=_OFF, seed=10)
    rows = np.repeat(np.arange(20), 2)
    twice = Observations.from_batch(objects.batch[rows], truth_names=objects.truth_names)
    mean, cov = case.simulator.posterior(twice.batch)
    case.compare(case.combine(twice), mean, cov, "20 objects, each given twice", _SIGN)


def check_subsets_are_separate_combinations(case: CombinerCase) -> None:
    """``combine_subsets`` gives what ``combine`` gives for each part."""
    objects = case.simulator.objects(12, off=1.0, seed=11)
    parts = [slice(0, 1), slice(2, 8), slice(0, 12)]
    several = case.combiner.combine_subsets(case.posterior, objects, parts, rng=stream(12, "s"))
    require(
        [c.n for c in several] == [1, 6, 12],
        f"subsets of 1, 6 and 12 objects give n = {[c.n for c in several]}",
        "return one result per subset, in order",
    )
    for rows, one in zip(parts, several, strict=True):
        alone = case.combine(objects[rows])
        sd = np.sqrt(np.diag(alone.z_cov))
        off = float(np.max(np.abs(one.z_mean - alone.z_mean) / sd))
        require(
            off < (1e-6 if case.exact else 0.3),
            f"objects {rows.start} to {rows.stop} differ by {off:.2g} combined sigma between "
            "combine_subsets and combine",
            "do not override combine_subsets, or make it agree",
        )


def check_same_seed_same_result(case: CombinerCase) -> None:
    """One seed, one result, to the last bit."""
    objects = case.simulator.objects(10, off=1.0, seed=13)
    one, two = case.combine(objects), case.combine(objects)
    same = np.array_equal(one.samples, two.samples) and np.array_equal(one.z_mean, two.z_mean)
    require(bool(same), "two calls with one seed differ", "take random numbers from rng")


def check_local_parameters_are_refused(case: CombinerCase) -> None:
    """Nothing to combine when no inferred parameter is shared: an error of sbi_core."""
    local = ExactEstimator()
    local.space = case.simulator.parameters.select("local")
    objects = case.simulator.objects(3, off=0.0, seed=14)
    try:
        case.combiner.combine(Posterior(local), objects, rng=stream(15, "c"))
    except SbiError:
        return
    require(
        False,
        "an estimator of local parameters alone was combined without complaint",
        "take posterior.space.select('global'), which raises where there is nothing to combine",
    )


def check_what_it_learned_can_be_stored(case: CombinerCase) -> None:
    """``save`` and ``restore`` give the same result; no pickle."""
    if not case.combiner.groups_needed:
        msg = "it learns nothing"
        raise NotApplicable(msg)
    objects = case.simulator.objects(30, off=1.0, seed=16)
    again = case.make()
    again.attach(case.simulator)
    with tempfile.TemporaryDirectory() as folder:
        case.combiner.save(folder)
        odd = [p.name for p in Path(folder).rglob("*") if p.suffix not in (".safetensors", ".json")]
        require(not odd, f"save wrote {odd}", "write safetensors and JSON")
        again.restore(folder)
    got = again.combine(case.posterior, objects, rng=stream(3, "combine"))
    require(
        bool(np.array_equal(got.samples, case.combine(objects).samples)),
        "a saved and restored combiner gives another result",
        "store all that prepare learned",
    )


COMBINER_CHECKS = (
    check_describes_its_result,
    check_divides_the_prior_out,
    check_no_object_gives_the_prior,
    check_one_object_gives_its_posterior,
    check_order_does_not_matter,
    check_halves_combine_to_the_whole,
    check_every_object_twice_counts_twice,
    check_subsets_are_separate_combinations,
    check_same_seed_same_result,
    check_local_parameters_are_refused,
    check_what_it_learned_can_be_stored,
)


def check_combiner(make: Callable[[], Combiner], *, exact: bool = False) -> None:
    """Run all checks of a combiner.

    Parameters
    ----------
    make
        Returns a new combiner: its class will do.
    exact
        Whether it claims to be exact for Gaussian posteriors.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    case = CombinerCase(make, exact)
    name = str(getattr(make, "name", "") or getattr(make, "__name__", "combiner"))
    run_all(bind("combiner", name, COMBINER_CHECKS, lambda: case))
