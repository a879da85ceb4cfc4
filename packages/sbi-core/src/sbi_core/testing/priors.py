r"""Promises of a prior: support, bijection to unconstrained space, and identity.

In unconstrained space a prior is :math:`z \sim N(0, I)`, so that
:math:`p(\theta) = N(z(\theta))\,|dz/d\theta|`.
"""

from __future__ import annotations

import json

import numpy as np
from scipy import stats

from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream
from sbi_core.testing.outcome import NotApplicable, bind, require, run_all

__all__ = ["PRIOR_CHECKS", "check_prior"]

_N = 2000
# a family of checks over a plugin's parameters: one false alarm in a million per coordinate
_ALARM = 1e-6


def _draws(prior: Prior) -> np.ndarray:
    if not prior.has_density:
        msg = "an implicit prior can only be drawn from by its simulator"
        raise NotApplicable(msg)
    return prior.sample(_N, stream(1, "prior"))


def check_draws_lie_in_the_support(prior: Prior) -> None:
    """Draws lie in the support and have a finite density."""
    theta = _draws(prior)
    outside = int((~prior.inside(theta)).sum())
    require(outside == 0, f"{outside} of {_N} draws of {prior} lie outside its support", "mend it")
    bad = int((~np.isfinite(prior.log_prob(theta))).sum())
    require(bad == 0, f"{bad} of {_N} draws of {prior} have no finite log density", "mend it")


def check_the_map_is_a_bijection(prior: Prior) -> None:
    """The way theta -> z -> theta returns to 1e-6 of the prior's width."""
    theta = _draws(prior)
    if not prior.continuous:
        msg = "a discrete parameter has no unconstrained coordinate"
        raise NotApplicable(msg)
    back = prior.from_unconstrained(prior.to_unconstrained(theta))
    width = np.maximum(theta.std(0), 1e-300) if prior.z_size else np.ones(prior.size)
    worst = float(np.max(np.abs(back - theta) / width, initial=0.0))
    require(
        worst < 1e-6,
        f"theta -> z -> theta misses by {worst:.2g} of the width of {prior}",
        "give numbers that float64 can resolve (a width far smaller than the location?)",
    )


def check_z_is_standard_normal(prior: Prior) -> None:
    """Coordinates in unconstrained space are N(0, 1): Kolmogorov-Smirnov at one in a million."""
    theta = _draws(prior)
    if not prior.continuous or prior.z_size == 0:
        msg = "no unconstrained coordinate"
        raise NotApplicable(msg)
    for k, z in enumerate(prior.to_unconstrained(theta).T):
        p = float(stats.kstest(z, "norm").pvalue)
        require(
            p > _ALARM,
            f"coordinate {k} of {prior} is not standard normal (Kolmogorov-Smirnov p = {p:.1g})",
            "check the numbers of the prior (for a table: grid and density)",
        )


def check_the_volume_element_is_its_derivative(prior: Prior) -> None:
    """log|dz/dtheta| agrees with a finite difference, for priors of one number."""
    theta = _draws(prior)
    if not prior.continuous or prior.size != 1 or prior.z_size != 1 or prior.family == "table":
        msg = "only for smooth priors of one number"
        raise NotApplicable(msg)
    space = ParameterSpace((Parameter("theta", prior),))
    z = prior.to_unconstrained(theta[:200])
    z = z[np.abs(z[:, 0]) < 3]
    step = 1e-4
    difference = prior.from_unconstrained(z + step) - prior.from_unconstrained(z - step)
    want = -np.log(difference[:, 0] / (2 * step))
    got = space.log_abs_det(prior.from_unconstrained(z))
    worst = float(np.max(np.abs(got - want)))
    require(
        worst < 1e-3,
        f"log|dz/dtheta| of {prior} is off by {worst:.2g} from its finite difference",
        "density and distribution function of the prior disagree",
    )


def check_the_identity_survives_storage(prior: Prior) -> None:
    """The hash is the same after JSON, whatever the order of the keys."""
    spec = json.loads(json.dumps(prior.to_spec()))
    turned = Prior.from_spec(dict(reversed(list(spec.items()))))
    require(
        turned.hash == prior.hash,
        f"{prior} has hash {prior.hash[:12]}, and {turned.hash[:12]} after JSON",
        "give plain numbers and lists",
    )


PRIOR_CHECKS = (
    check_draws_lie_in_the_support,
    check_the_map_is_a_bijection,
    check_z_is_standard_normal,
    check_the_volume_element_is_its_derivative,
    check_the_identity_survives_storage,
)


def check_prior(prior: Prior) -> None:
    """Run all checks of a prior.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    run_all(bind("prior", prior.family, PRIOR_CHECKS, lambda: prior))
