"""The estimator of pipelines that name none.

==================================  ==============  ==========================================
parameters                          simulations     estimator
==================================  ==============  ==========================================
discrete ones only                  any             ``ordinal``
discrete and continuous ones        any             ``mixed``
continuous, some shared by objects  any             ``mixture``: moments in closed form
continuous, up to five              any             ``nsf``
continuous, more                    up to 20 000    ``ensemble`` of three ``maf``, less overfitting
continuous, more                    more            ``maf``
==================================  ==============  ==========================================

The choices among ``nsf``, ``maf`` and ``ensemble`` are those of tasks with a reference posterior
(docs/benchmarks.md).
"""

from __future__ import annotations

from sbi_core.priors.space import ParameterSpace

__all__ = ["FEW_PARAMETERS", "estimator_for"]

FEW_PARAMETERS = 5
_FEW_SIMULATIONS = 20_000


def estimator_for(space: ParameterSpace, simulations: int) -> str:
    """Return the name of the estimator for parameters and a number of simulations."""
    if not all(p.prior.continuous for p in space.parameters):
        return "mixed" if space.z_dim else "ordinal"
    if any(p.scope == "global" for p in space.parameters):
        return "mixture"
    if space.z_dim <= FEW_PARAMETERS:
        return "nsf"
    return "ensemble" if simulations <= _FEW_SIMULATIONS else "maf"
