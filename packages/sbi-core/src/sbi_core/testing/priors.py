r"""Requirements on a prior: support, bijection to unconstrained space, and identity.

In unconstrained space a prior is :math:`z \sim N(0, I)`, so that
:math:`p(\theta) = N(z(\theta))\,|dz/d\theta|`.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream
from sbi_core.testing.checks import Checks, skip

__all__ = ["PriorChecks"]

_N = 2000
_ALARM = 1e-6  # false alarm per coordinate: a plugin has many


class PriorChecks(Checks[Prior]):
    """A prior draws in its support, and its map, density and identity agree."""

    @property
    def theta(self) -> NDArray[np.float64]:
        """Draws (n, size)."""
        if not self.subject.has_density:
            skip("an implicit prior can only be drawn from by its simulator")
        return self.subject.sample(_N, stream(1, "prior"))

    def _need_z(self) -> None:
        if not self.subject.continuous or self.subject.z_size == 0:
            skip("no unconstrained coordinate")

    def test_draws_lie_in_the_support(self) -> None:
        """Draws lie in the support and have a finite density."""
        prior, theta = self.subject, self.theta
        outside = int((~prior.inside(theta)).sum())
        assert outside == 0, (
            f"{outside} of {_N} draws of {prior} lie outside its support; correct the family"
        )
        bad = int((~np.isfinite(prior.log_prob(theta))).sum())
        assert bad == 0, (
            f"{bad} of {_N} draws of {prior} have no finite log density; correct the family"
        )

    def test_the_map_is_a_bijection(self) -> None:
        """The way theta -> z -> theta returns to 1e-6 of the prior's width."""
        prior, theta = self.subject, self.theta
        self._need_z()
        back = prior.from_unconstrained(prior.to_unconstrained(theta))
        worst = float(np.max(np.abs(back - theta) / np.maximum(theta.std(0), 1e-300)))
        assert worst < 1e-6, (
            f"theta -> z -> theta misses by {worst:.2g} of the width of {prior}; "
            "give numbers that float64 can resolve (a width far smaller than the location?)"
        )

    def test_z_is_standard_normal(self) -> None:
        """Coordinates in unconstrained space are N(0, 1): Kolmogorov-Smirnov at 1e-6."""
        theta = self.theta
        self._need_z()
        for k, z in enumerate(self.subject.to_unconstrained(theta).T):
            p = float(stats.kstest(z, "norm").pvalue)
            assert p > _ALARM, (
                f"coordinate {k} of {self.subject} is not standard normal (Kolmogorov-Smirnov "
                f"p = {p:.1g}); check the numbers of the prior (for a table: grid and density)"
            )

    def test_the_volume_element_is_its_derivative(self) -> None:
        """log|dz/dtheta| agrees with a finite difference, for priors of one number."""
        prior, theta = self.subject, self.theta
        self._need_z()
        if prior.size != 1 or prior.family == "table":
            skip("only for smooth priors of one number")
        space = ParameterSpace((Parameter("theta", prior),))
        z = prior.to_unconstrained(theta[:200])
        z = z[np.abs(z[:, 0]) < 3]
        step = 1e-4
        difference = prior.from_unconstrained(z + step) - prior.from_unconstrained(z - step)
        want = -np.log(difference[:, 0] / (2 * step))
        worst = float(np.max(np.abs(space.log_abs_det(prior.from_unconstrained(z)) - want)))
        assert worst < 1e-3, (
            f"log|dz/dtheta| of {prior} is off by {worst:.2g} from its finite difference; "
            "density and distribution function of the prior disagree"
        )

    def test_the_identity_survives_storage(self) -> None:
        """The hash is the same after JSON, whatever the order of the keys."""
        prior = self.subject
        spec = json.loads(json.dumps(prior.to_spec()))
        turned = Prior.from_spec(dict(reversed(list(spec.items()))))
        assert turned.hash == prior.hash, (
            f"{prior} has hash {prior.hash[:12]}, and {turned.hash[:12]} after JSON; "
            "give plain numbers and lists"
        )
