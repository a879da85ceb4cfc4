"""Check of the model: comparison of the observed objects with simulated ones, and verdict."""

from __future__ import annotations

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
from sbi_core.posterior import CombinedPosterior, Posterior
from sbi_core.rng import stream

__all__ = ["MAX_COLUMNS", "check_group", "check_model", "reference_objects"]

F64 = NDArray[np.float64]
MAX_COLUMNS = 64  # of data that are compared one by one; images and spectra are left out
_FALSE_ALARM = 0.002  # per comparison, of which there are four
_FEWEST = 20  # objects
_WORST = 4  # observables that a verdict names


def reference_objects(
    simulator: Simulator, combined: CombinedPosterior, like: Batch, n: int, seed: int
) -> Observations:
    """Return n simulated objects with the combined parameters, observed like the data."""
    rng = stream(seed, "reference")
    theta = simulator.parameters.sample(n, rng)
    theta[:, simulator.parameters.index(combined.names)] = combined.mean
    batch = simulator.simulate(theta, rng).succeeded
    return Observations.from_batch(
        simulator.observe_like(batch, like, rng), truth_names=simulator.parameters.names
    )


def check_group(
    context: Context, combined: CombinedPosterior, objects: Observations
) -> tuple[dict[str, Any], Verdict] | None:
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


def check_model(
    posterior: Posterior,
    combined: CombinedPosterior,
    objects: Observations,
    reference: Observations,
) -> tuple[dict[str, Any], Verdict] | None:
    """Compare objects with reference objects; None when there are too few, or no columns.

    Returns
    -------
    dict
        ``p`` of the worst comparison, ``verdict`` (a sentence), ``comparisons`` (p of each) and
        ``observables``: mean difference and its size in standard errors.
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
    found = (
        compare("means", r.data, r.reference),
        compare("spreads", r.data**2, r.reference**2),
        compare("scatter about the common value", u**2, v**2),
        compare("trends along the data", _products(u, c), _products(v, d)),
    )
    count = np.maximum(ours[2].sum(0), 1)
    shift = np.where(ours[2], ours[0], 0).sum(0) / count - r.centre
    units = [o.unit for o in objects.observables] or [""] * k
    verdict = _verdict(len(objects), found, names, shift, units)
    entry = {
        "n": len(objects),
        "p": min(f.p for f in found),
        "verdict": verdict.sentence,
        "comparisons": {f.name: f.p for f in found},
        "observables": {
            name: {"sigma": float(found[0].sigma[j]), "difference": float(shift[j])}
            for j, name in enumerate(names)
        },
    }
    return entry, verdict


def _verdict(
    n: int, found: tuple[Comparison, ...], names: list[str], shift: F64, units: list[str]
) -> Verdict:
    bad = [f for f in found if f.p < _FALSE_ALARM]
    if not bad:
        return Verdict("pass", f"The {n} objects are consistent with the simulator.")
    parts = []
    means, spreads = found[0], found[1]
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
    if found[2] in bad:
        parts.append("the scatter of single posteriors about the combined one differs")
    if found[3] in bad:
        parts.append("the trend of single posteriors with the data or their errors differs")
    p = min(f.p for f in bad)
    return Verdict(
        "warn",
        f"No value of the shared parameters reproduces the {n} objects, with local parameters "
        f"from the prior (p = {p:.1g}): {'; '.join(parts)}.",
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


def _products(u: F64, c: F64) -> F64:
    return np.asarray((u[:, :, None] * c[:, None, :]).reshape(len(u), -1))
