"""Check of the model: comparison of the observed objects with simulated ones, and verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.combiners.moments import data_quality, object_moments
from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import Verdict
from sbi_core.diagnostics.misspecification import Comparison, compare, residuals
from sbi_core.diagnostics.support import flat_arrays
from sbi_core.pipeline.context import Context
from sbi_core.posterior import UNLIKE, CombinedPosterior, Posterior
from sbi_core.rng import stream

__all__ = [
    "MAX_COLUMNS",
    "TEST",
    "Checked",
    "check_group",
    "check_model",
    "flagged",
    "reference_objects",
    "with_model_check",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
MAX_COLUMNS = 64  # of data that are compared one by one; images and spectra are left out
_FALSE_ALARM = 0.001  # per comparison, of which there are four
TEST = "model"  # of verdicts
_FEWEST = 20  # objects
_PRODUCTS = 12  # most columns whose products take part, too
_WORST = 4  # observables that a verdict names
_GROUPS, _LARGEST = 100, 1000  # groups of a reference, and objects in each at most
Checked = tuple[dict[str, Any], Verdict]


def reference_objects(
    simulator: Simulator, combined: CombinedPosterior, like: Batch, n: int, seed: int
) -> Observations:
    """Return simulated objects with the combined parameters, observed like the data.

    n objects, all with the combined mean. Where groups have more in common than these parameters
    (:attr:`~sbi_core.Simulator.groups_differ`, shared parameters that are not inferred): 100 groups
    of as many objects as there are, each with a draw of the combined posterior.
    """
    rng = stream(seed, "reference")
    shared = np.flatnonzero([scope != "local" for scope in simulator.parameters.scopes])
    inferred = simulator.parameters.index(combined.names)
    if not simulator.groups_differ and len(shared) == len(inferred):
        group, values = np.zeros(n, np.int64), combined.mean[None]
    else:
        group = np.repeat(np.arange(_GROUPS), min(len(like), _LARGEST))
        values = combined.samples[rng.integers(len(combined.samples), size=_GROUPS)]
    theta = simulator.parameters.sample(len(group), rng)
    theta[:, shared] = theta[np.searchsorted(group, group)][:, shared]
    theta[:, inferred] = values[group]
    batch = simulator.simulate(theta, rng)
    return Observations.from_batch(
        simulator.observe_like(batch.succeeded, like, rng),
        group=group[batch.ok.cpu().numpy()].astype(np.str_).tolist(),
        truth_names=simulator.parameters.names,
    )


def check_group(
    context: Context, combined: CombinedPosterior, objects: Observations
) -> Checked | None:
    """Compare the objects of a group with ``combine.reference`` simulated ones.

    None if ``combine.reference`` is 0, or :func:`check_model` returns None.
    """
    n = context.config.combine.reference
    if not n or len(objects) < _FEWEST:
        return None
    reference = reference_objects(
        context.simulator, combined, objects.batch, n, context.config.seed
    )
    return check_model(context.posterior, combined, objects, reference)


def with_model_check(
    combined: CombinedPosterior,
    simulator: Simulator,
    posterior: Posterior,
    objects: Observations,
    *,
    reference: int = 10_000,
    seed: int = 1,
) -> CombinedPosterior:
    """Return a combined posterior with the flag and the warning of the check of the model.

    :meth:`sbi_core.Run.combine` includes it; the combiners alone do not.

    Parameters
    ----------
    combined
        A combination of ``objects``.
    simulator, posterior
        The simulator, and the posterior of single objects that was trained on it.
    objects
        The objects; fewer than 20 are not checked.
    reference
        Number of simulated objects that they are compared with.
    seed
        Of these.
    """
    if len(objects) < _FEWEST:
        return combined
    simulated = reference_objects(simulator, combined, objects.batch, reference, seed)
    return flagged(combined, check_model(posterior, combined, objects, simulated))


def flagged(combined: CombinedPosterior, checked: Checked | None) -> CombinedPosterior:
    """Return the combined posterior with the outcome of the check of the model."""
    if checked is None:
        return combined
    entry, verdict = checked
    facts = {f"misspecification_{key}": entry[key] for key in ("p", "chi2", "dof")}
    flags = combined.flags if verdict.level == "pass" else (*combined.flags, UNLIKE)
    return replace(combined, diagnostics={**combined.diagnostics, **facts}, flags=flags)


def check_model(
    posterior: Posterior,
    combined: CombinedPosterior,
    objects: Observations,
    reference: Observations,
) -> Checked | None:
    """Compare objects with reference objects; None when there are too few, or no columns.

    Returns
    -------
    dict
        ``p``, ``chi2`` and ``dof`` (how many numbers) of the worst comparison, ``verdict`` (a
        sentence), ``comparisons`` (p of each) and ``observables``: mean difference and its size in
        standard errors.
    Verdict
        Never worse than a warning: the posterior is correct under the model.
    """
    k = int(np.prod(objects.batch.x.shape[1:]))
    if min(len(objects), len(reference)) < _FEWEST or k > MAX_COLUMNS:
        return None
    names = [o.name for o in objects.observables] or [f"column {j}" for j in range(k)]
    ours, theirs = flat_arrays(objects.batch), flat_arrays(reference.batch)
    r = residuals(ours, theirs)
    u, v = (_scores(posterior, combined, o) for o in (objects, reference))
    scale = v.std(0)
    u, v = (np.clip(s / scale, -5.0, 5.0) for s in (u, v))
    c, d = (_covariates(o.batch, x) for o, x in ((objects, r.data), (reference, r.reference)))
    group = None if len(reference.groups) == 1 else reference.group.astype(np.int64)
    curved = _with_products(u, r.data), _with_products(v, r.reference)
    outcomes = (
        compare("means", r.data, r.reference, absorbed=curved, group=group),
        compare("spreads", r.data**2, r.reference**2, absorbed=(u, v), group=group),
        compare("scatter about the common value", u**2, v**2, group=group),
        compare("trends along the data", _products(u, c), _products(v, d), group=group),
    )
    count = np.maximum(ours[2].sum(0), 1)
    shift = np.where(ours[2], ours[0], 0).sum(0) / count - r.centre
    units = [o.unit for o in objects.observables] or [""] * k
    verdict = _verdict(len(objects), outcomes, names, shift, units)
    worst = min(outcomes, key=lambda o: (o.p, -o.chi2 / max(o.dof, 1)))
    entry = {
        "n": len(objects),
        "p": worst.p,
        "chi2": worst.chi2,
        "dof": worst.dof,
        "verdict": verdict.sentence,
        "comparisons": {o.name: o.p for o in outcomes},
        "observables": {
            name: {"sigma": float(outcomes[0].sigma[j]), "difference": float(shift[j])}
            for j, name in enumerate(names)
        },
    }
    return entry, verdict


def _verdict(
    n: int, outcomes: tuple[Comparison, ...], names: list[str], shift: F64, units: list[str]
) -> Verdict:
    bad = [f for f in outcomes if f.p < _FALSE_ALARM]
    if not bad:
        return Verdict("pass", f"The {n} objects are consistent with the simulator.", TEST)
    parts = []
    means, spreads = outcomes[0], outcomes[1]
    if means in bad:
        worst = np.argsort(-np.abs(means.sigma))[:_WORST]
        listed = ", ".join(
            f"{names[j]} {shift[j]:+.2g}{' ' + units[j] if units[j] else ''} "
            f"({means.sigma[j]:+.0f} sigma)"
            for j in worst
            if abs(means.sigma[j]) > 2
        )
        parts.append(f"mean values differ: {listed or 'jointly, no single one'}")
    if spreads in bad:
        worst = np.argsort(-np.abs(spreads.sigma))[:_WORST]
        listed = ", ".join(
            f"{names[j]} ({'more' if spreads.sigma[j] > 0 else 'less'})"
            for j in worst
            if abs(spreads.sigma[j]) > 2
        )
        parts.append(f"the spread differs: {listed or 'jointly, no single one'}")
    if outcomes[2] in bad:
        parts.append("the scatter of single posteriors about the combined one differs")
    if outcomes[3] in bad:
        parts.append("the trend of single posteriors with the data or their errors differs")
    p = min(f.p for f in bad)
    return Verdict(
        "warn",
        f"No value of the shared parameters reproduces the {n} objects, with local parameters "
        f"from the prior (p {f'= {p:.1g}' if p else '< 1e-300'}): {'; '.join(parts)}.",
        TEST,
    )


def _scores(posterior: Posterior, combined: CombinedPosterior, objects: Observations) -> F64:
    """Return the score of every object at the combined value, (n, d)."""
    moments = object_moments(posterior, objects)
    likelihood = moments.precision - np.eye(len(combined.z_mean))
    return np.asarray(
        moments.information - np.einsum("nij,j->ni", likelihood, combined.z_mean), np.float64
    )


def _covariates(batch: Batch, x: F64) -> F64:
    """Return data, their quality and context, not centred, (n, k)."""
    columns = [x, data_quality(batch)]
    if batch.context is not None:
        context = torch.nan_to_num(batch.context.double()).cpu().numpy()
        columns.append(context.reshape(len(batch), -1))
    return np.concatenate(columns, 1)


def _with_products(scores: F64, x: F64) -> F64:
    """Return scores beside products of the data: the mean of the rest is known more precisely.

    Data lie near a curved surface; a shift of theirs does not change the mean products.
    """
    i, j = np.triu_indices(x.shape[1])
    if x.shape[1] > _PRODUCTS:
        i = j = np.arange(x.shape[1])
    return np.concatenate([scores, x[:, i] * x[:, j]], 1)


def _products(u: F64, c: F64) -> F64:
    return np.asarray((u[:, :, None] * c[:, None, :]).reshape(len(u), -1))
