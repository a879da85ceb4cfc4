r"""Posteriors of single stars in all six parameters: accuracy, calibration, correlations.

The absolute percentage error of an estimate :math:`\hat\theta` (the posterior mean) is

.. math:: \mathrm{APE} = 100\,|\hat\theta - \theta| / |\theta|,

which the literature quotes also for logarithms, where it depends on the unit; the table therefore
has the rms error as well. Correlations are those within posteriors, averaged over stars by Fisher's
:math:`\operatorname{artanh} r`, and those of the errors :math:`(\hat\theta - \theta)` between
stars: which local parameter drives the error of a shared one.

Used by ``sbi-run chempy experiments single``.

References:
    | Buck, Günes, Viterbo, Oliver & Buder 2025, A&A 702, A184, section 3 (APE of emulator and NPE)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sbi_core import Batch, Observations, Run, Simulator, diagnostics, plot, stream

__all__ = ["PUBLISHED_APE", "SingleStars", "figures", "measure", "numbers", "table"]

F64 = NDArray[np.float64]
_CLIP = 0.999999  # of correlations, before artanh
# per cent, as printed by Buck et al. 2025: median, and distances to the 84 and 16 % points
PUBLISHED_APE = {
    "six parameters": (9.3, 17.1, 6.3),
    "shared parameters": (2.3, None, None),
    "age": (21.0, None, None),
}


@dataclass(frozen=True)
class SingleStars:
    """Measurements on B test stars with d parameters.

    Attributes
    ----------
    names, labels : (d,)
        Parameters.
    truth, mean : (B, d)
        True values and posterior means.
    ranks : (B, d)
        Of the truths among the draws.
    draws
        Draws per star.
    coverage : (L, d)
        Of central intervals of :data:`sbi_core.diagnostics.LEVELS`.
    tarp
        Joint test of all parameters.
    within : (d, d)
        Correlation within posteriors.
    between : (d, d)
        Correlation of the errors of the means, between stars.
    failed
        Simulations that failed and are not among the B stars.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    truth: F64
    mean: F64
    ranks: NDArray[np.integer[Any]]
    draws: int
    coverage: F64
    tarp: diagnostics.Tarp
    within: F64
    between: F64
    failed: int

    @property
    def ape(self) -> F64:
        """Absolute percentage errors (B, d)."""
        return np.asarray(100 * np.abs(self.mean - self.truth) / np.abs(self.truth))


def measure(run: Run, *, n: int = 1000, draws: int = 1000, seed: int = 1) -> SingleStars:
    """Infer n fresh stars of the prior, observed like the training simulations."""
    simulator, posterior = run.simulator, run.posterior
    batch, failed = _stars(simulator, n, seed)
    posteriors = posterior.sample(Observations.from_batch(batch), draws, seed=seed)
    columns = simulator.parameters.index(posterior.space.names)
    assert batch.theta is not None
    truth = batch.theta.double().numpy()[:, columns]
    samples = np.asarray(posteriors.values, np.float64)
    rng, levels = stream(seed, "single", "ranks"), list(diagnostics.LEVELS)
    mean, ranks = samples.mean(0), diagnostics.sbc_ranks(samples, truth, rng)
    return SingleStars(
        names=posterior.space.names,
        labels=tuple(posterior.space.labels),
        truth=truth,
        mean=mean,
        ranks=ranks,
        draws=draws,
        coverage=diagnostics.coverage_central(ranks, draws, levels),
        tarp=diagnostics.tarp(samples, truth, rng),
        within=_within(samples),
        between=np.corrcoef((mean - truth).T),
        failed=failed,
    )


def _stars(simulator: Simulator, n: int, seed: int) -> tuple[Batch, int]:
    many = n + n // 5 + 20  # some simulations fail
    drawn = simulator.draw(many, stream(seed, "single", "stars"))
    good = drawn.succeeded
    noisy = simulator.observe(good[:n], stream(seed, "single", "noise"))
    return noisy, many - len(good)


def _within(samples: F64) -> F64:
    """Return the mean correlation matrix (d, d) of posteriors (S, B, d)."""
    off = samples - samples.mean(0)
    cov = np.einsum("sbi,sbj->bij", off, off)
    scale = np.sqrt(np.einsum("bii->bi", cov))
    r = cov / (scale[:, :, None] * scale[:, None, :])
    mean = np.tanh(np.arctanh(np.clip(r, -_CLIP, _CLIP)).mean(0))
    np.fill_diagonal(mean, 1.0)
    return np.asarray(mean)


def table(stars: SingleStars) -> str:
    """Return accuracy and calibration per parameter as text."""
    parameters = numbers(stars)["parameters"]
    lines = [
        f"single stars: {len(stars.truth)} test stars, {stars.draws} draws each "
        f"({stars.failed} further simulations failed)",
        f"{'':<18}{'APE [%]':>22} {'rms error':>10} {'R2':>7} {'68 %':>6} {'SBC p':>7}",
    ]
    for k, (name, one) in enumerate(parameters.items()):
        lines.append(
            f"{name:<18}{_spread(stars.ape[:, k]):>22} {one['rmse']:>10.4f} {one['r2']:>7.3f} "
            f"{one['coverage']['0.68']:>6.3f} {one['sbc_p']:>7.3f}"
        )
    lines.append(f"{'all':<18}{_spread(stars.ape.ravel()):>22}")
    for label, (median, up, down) in PUBLISHED_APE.items():
        value = f"{median:.1f}" if up is None else f"{median:.1f} +{up:.1f} -{down:.1f}"
        lines.append(f"{'B25 ' + label:<24}{value:>16}")
    lines.append(f"TARP: largest deviation {stars.tarp.max_deviation:.3f}, p {stars.tarp.p:.3f}")
    return "\n".join(lines) + "\n"


def numbers(stars: SingleStars) -> dict[str, Any]:
    """Return the numbers of :func:`table` and :func:`figures`, for JSON."""
    p = diagnostics.sbc_uniformity(stars.ranks, stars.draws)
    accuracy = diagnostics.accuracy(stars.mean, stars.truth, stars.names)
    return {
        "stars": len(stars.truth),
        "draws": stars.draws,
        "failed": stars.failed,
        "parameters": {
            name: {
                **accuracy[name],
                "ape_percentiles_16_50_84": np.percentile(stars.ape[:, k], [16, 50, 84]).tolist(),
                "coverage": dict(
                    zip(map(str, diagnostics.LEVELS), stars.coverage[:, k].tolist(), strict=True)
                ),
                "sbc_p": float(p[k]),
            }
            for k, name in enumerate(stars.names)
        },
        "tarp": {"max_deviation": stars.tarp.max_deviation, "p": stars.tarp.p},
        "correlation_within": stars.within.tolist(),
        "correlation_between": stars.between.tolist(),
    }


def _spread(values: F64) -> str:
    low, middle, high = np.percentile(values, [16, 50, 84])
    return f"{middle:.1f} +{high - middle:.1f} -{middle - low:.1f}"


def figures(stars: SingleStars, folder: Path) -> list[Path]:
    """Draw boxes of the APE, panels of calibration, and the two correlation matrices."""
    drawn = {
        "ape": _boxes(stars),
        "calibration": _calibration(stars),
        "correlations": _correlations(stars),
    }
    paths = []
    for stem, figure in drawn.items():
        path = folder / f"{stem}.png"
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def _boxes(stars: SingleStars) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.boxplot(list(stars.ape.T), whis=(5, 95), showfliers=False, medianprops={"color": "C0"})
    ax.set_xticks(range(1, len(stars.names) + 1), [_tex(s) for s in stars.labels])
    ax.set(yscale="log", ylabel="absolute percentage error")
    ax.grid(axis="y", lw=0.4)
    return figure


def _calibration(stars: SingleStars) -> Figure:
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    ranks, covered, joint = figure.subplots(1, 3)
    plot.sbc_ecdf(stars.ranks, stars.draws, stars.labels, ranks)
    levels = list(diagnostics.LEVELS)
    plot.coverage(levels, stars.coverage, len(stars.truth), covered, labels=stars.labels)
    plot.tarp(stars.tarp.alpha, stars.tarp.ecp, joint, n=len(stars.truth))
    return figure


def _correlations(stars: SingleStars) -> Figure:
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    panels = (("within the posterior", stars.within), ("of errors, between stars", stars.between))
    ticks, labels = range(len(stars.names)), [_tex(s) for s in stars.labels]
    image: Any = None
    for ax, (title, matrix) in zip(axes, panels, strict=True):
        image = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        for i, j in np.ndindex(*matrix.shape):
            colour = "white" if abs(matrix[i, j]) > 0.6 else "black"
            ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color=colour, size=8)
        ax.set_xticks(ticks, labels, rotation=45, ha="right")
        ax.set_yticks(ticks, labels)
        ax.set_title(f"correlation {title}")
    figure.colorbar(image, ax=list(axes), shrink=0.8)
    return figure


def _tex(label: str) -> str:
    return f"${label}$"
