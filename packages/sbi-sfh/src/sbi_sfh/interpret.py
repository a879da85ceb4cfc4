r"""Interpretation of the latents of the encoder: distributions, correlations, saliency, a map.

Saliency of latent j at a wavelength is :math:`\langle |\partial z_j / \partial F_\lambda| \rangle\,
\sigma(F_\lambda)`: the change of z_j when the flux varies by its scatter between galaxies. Latents
are defined only up to an invertible map; the same numbers are given for latents rotated to their
principal components. The order of raw latents has no meaning.

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (interpretation of latents)
    | McInnes, Healy & Melville 2018, https://arxiv.org/abs/1802.03426 (UMAP)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from sbi_core import Batch, ConfigError, Drawing, Grid, Section, written
from sbi_sfh.indices import measure
from sbi_sfh.latents import latents_of

if TYPE_CHECKING:
    from sbi_sfh.simulator import SfhSimulator

__all__ = ["Interpretation", "figures", "interpret", "section", "write"]

F64 = NDArray[np.float64]
_SALIENCY_ROWS = 64


@dataclass(frozen=True)
class Interpretation:
    """Statistics of J latents of n simulated galaxies.

    Parameters
    ----------
    latents, rotated
        Raw, and rotated to their principal components, (n, J).
    theta
        True parameters, (n, d), with their ``names``.
    features
        Line strengths, bands and break of the noise-free spectra, each (n,).
    pearson, spearman
        Between latents, (J, J).
    wave, wave_correlation, saliency
        Wavelengths (L,); correlation with flux and saliency, (J, L).
    feature_correlation, theta_correlation
        Pearson with features (J, k) and parameters (J, d).
    rotated_feature_correlation
        The same for rotated latents, (J, k).
    probe_r2
        R2 of linear regressions latents -> parameters, (d,).
    map, map_method
        Two coordinates, (n, 2), and how they were made: ``UMAP`` or ``PCA``.
    """

    latents: F64
    rotated: F64
    theta: F64
    names: tuple[str, ...]
    features: Mapping[str, F64]
    pearson: F64
    spearman: F64
    wave: F64
    wave_correlation: F64
    saliency: F64
    feature_correlation: F64
    rotated_feature_correlation: F64
    theta_correlation: F64
    probe_r2: F64
    map: F64
    map_method: str


def _correlation(a: F64, b: F64) -> F64:
    """Pearson correlation of columns, (ka, kb); 0 for constant columns."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a**2).sum(0))[:, None] * np.sqrt((b**2).sum(0))
    return np.asarray(np.where(scale > 0, a.T @ b / np.where(scale > 0, scale, 1.0), 0.0))


def interpret(
    simulator: SfhSimulator, estimator: Any, observed: Batch, clean: F64, rng: np.random.Generator
) -> Interpretation:
    """Return correlations and saliency of the latents of observed simulations.

    Parameters
    ----------
    simulator
        Names and wavelengths.
    estimator
        Trained, with an encoder.
    observed
        Simulated spectra (n, L) with theta.
    clean
        Spectra whose line strengths are measured, (n, L): noise-free, or observed and filled.
    rng
        For the two-dimensional map.

    Raises
    ------
    ConfigError
        If the simulations have no theta, or the estimator no encoder.
    """
    if observed.theta is None:
        msg = "latents are interpreted on simulations: the batch has no theta"
        raise ConfigError(msg)
    z = latents_of(estimator, observed)
    theta = observed.theta.double().cpu().numpy()
    centred = z - z.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    rotated = centred @ axes.T
    features = {k: np.asarray(v) for k, v in measure(simulator.wave, clean).items()}
    table = np.stack(list(features.values()), 1) if features else np.zeros((len(z), 0))
    coords, method = _map(z, rng)
    return Interpretation(
        latents=z,
        rotated=rotated,
        theta=theta,
        names=simulator.parameters.names,
        features=features,
        pearson=_correlation(z, z),
        spearman=_correlation(rankdata(z, axis=0), rankdata(z, axis=0)),
        wave=simulator.wave,
        wave_correlation=_correlation(z, clean),
        saliency=_saliency(estimator, observed, clean),
        feature_correlation=_correlation(z, table),
        rotated_feature_correlation=_correlation(rotated, table),
        theta_correlation=_correlation(z, theta),
        probe_r2=_probe(z, theta),
        map=coords,
        map_method=method,
    )


def _saliency(estimator: Any, observed: Batch, clean: F64) -> F64:
    few = observed[slice(0, _SALIENCY_ROWS)].with_(x_err=None, theta=None)
    x = few.x.detach().clone().requires_grad_(True)
    h = estimator.network.features(few.with_(x=x))
    rows = []
    for j in range(h.shape[1]):
        (gradient,) = torch.autograd.grad(h[:, j].sum(), x, retain_graph=True)
        rows.append(torch.nan_to_num(gradient).abs().mean(0).double().cpu().numpy())
    return np.stack(rows) * clean.std(0)


def _probe(z: F64, theta: F64) -> F64:
    """R2 on the second half of a linear regression on the first."""
    half = len(z) // 2
    design = np.concatenate([z, np.ones((len(z), 1))], 1)
    weights, *_ = np.linalg.lstsq(design[:half], theta[:half], rcond=None)
    off = theta[half:] - design[half:] @ weights
    spread = theta[half:] - theta[half:].mean(0)
    return np.asarray(1.0 - (off**2).sum(0) / (spread**2).sum(0))


def _map(z: F64, rng: np.random.Generator) -> tuple[F64, str]:
    standard = (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)
    if importlib.util.find_spec("umap") is not None:
        import umap

        reducer = umap.UMAP(random_state=int(rng.integers(2**31)), n_jobs=1)
        return np.asarray(reducer.fit_transform(standard), np.float64), "UMAP"
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    return np.asarray(standard @ axes[:2].T), "PCA"


# -- figures -----------------------------------------------------------------------------------


def _histograms(result: Interpretation) -> Figure:
    count = result.latents.shape[1]
    rows = -(-count // 8)
    figure = Figure(figsize=(9.0, 1.2 * rows + 0.3), layout="constrained")
    for j, axes in enumerate(figure.subplots(rows, 8, squeeze=False).ravel()):
        if j >= count:
            axes.set_axis_off()
            continue
        axes.hist(result.latents[:, j], bins=30)
        axes.set(yticks=[])
        axes.set_title(f"latent {j + 1}", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def _matrices(result: Interpretation) -> Figure:
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    parts = [
        ("Pearson", result.pearson, None),
        ("Spearman", result.spearman, None),
        ("with line strengths", result.feature_correlation, list(result.features)),
    ]
    for ax, (title, matrix, words) in zip(axes, parts, strict=True):
        rows, columns = matrix.shape
        extent = (0.5, columns + 0.5, rows + 0.5, 0.5)  # latents are numbered from 1
        image = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto", extent=extent)
        ax.set(title=title, ylabel="latent", xlabel="latent" if words is None else "")
        if words is not None:
            ax.set_xticks(range(1, columns + 1), words, rotation=90, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8, label="correlation")
    return figure


def _wavelengths(result: Interpretation) -> Figure:
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    extent = (result.wave[0], result.wave[-1], len(result.saliency) + 0.5, 0.5)
    image = top.imshow(
        result.wave_correlation[:, ::8],
        extent=extent,
        vmin=-1,
        vmax=1,
        cmap="RdBu_r",
        aspect="auto",
    )
    figure.colorbar(image, ax=top, label="correlation")
    width = max(1, len(result.wave) // 300)
    kept = len(result.wave) // width * width
    blocks = result.saliency[:, :kept].reshape(len(result.saliency), -1, width).mean(-1)
    blocks /= np.maximum(blocks.max(1, keepdims=True), 1e-30)
    image = bottom.imshow(blocks, extent=extent, vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=bottom, label="saliency")
    top.set(ylabel="latent", title="correlation with flux")
    bottom.set(ylabel="latent", title="saliency, relative to the maximum of each latent")
    bottom.set_xlabel("rest wavelength, air [Å]")
    return figure


def _maps(result: Interpretation) -> Figure:
    shown: dict[str, F64] = dict(result.features)
    shown |= {n: result.theta[:, k] for k, n in enumerate(result.names)}
    rows = -(-len(shown) // 6)
    figure = Figure(figsize=(9.0, 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 6, squeeze=False).ravel()
    some = slice(0, 1500)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    for axes, (name, value) in zip(panels, shown.items(), strict=False):
        axes.scatter(
            *result.map[some].T, c=value[some], s=2, linewidths=0, cmap="viridis", rasterized=True
        )
        axes.set_title(name, fontsize=9)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return figure


def figures(result: Interpretation) -> dict[str, tuple[Figure, str]]:
    """Return the figures by name, each with its caption."""
    return {
        "histograms": (_histograms(result), "Distribution of each latent over simulations."),
        "correlations": (
            _matrices(result),
            "Correlations between latents, and of latents with line strengths.",
        ),
        "wavelengths": (
            _wavelengths(result),
            "Wavelengths that the latents depend on: correlation with the flux (which varies "
            "together at all wavelengths) and saliency (sensitivity of the encoder).",
        ),
        "map": (
            _maps(result),
            f"Latents in two dimensions ({result.map_method}; axes without unit), coloured by line "
            "strengths and parameters, each from its minimum (dark) to its maximum (bright).",
        ),
    }


def section(result: Interpretation) -> Section:
    """Return the section of the report about latents."""
    drawings = [Drawing(f, caption, wide=True) for f, caption in figures(result).values()]
    rows = [[n, f"{r:.3f}"] for n, r in zip(result.names, result.probe_r2, strict=True)]
    tables = [Grid(["parameter", "R² of a linear probe of the latents"], rows)]
    if result.features:
        names = list(result.features)
        order = np.abs(result.rotated_feature_correlation).argmax(1)
        best = [
            [f"{j + 1}", names[k], f"{result.rotated_feature_correlation[j, k]:+.2f}"]
            for j, k in enumerate(order)
        ]
        tables.append(Grid(["rotated latent", "strongest feature", "correlation"], best[:8]))
    text = [
        "Latents are defined only up to an invertible map, so that a single raw latent has no "
        "physical meaning. Rotated latents are ordered by variance."
    ]
    return Section("Latents", text, drawings, tables)


def write(result: Interpretation, directory: str | Path) -> Path:
    """Write ``latents.npz`` and the figures (SVG); return the npz file."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "latents.npz"
    arrays: dict[str, Any] = {
        name: getattr(result, name)
        for name in (
            "latents", "rotated", "theta", "pearson", "spearman", "wave", "wave_correlation",
            "saliency", "feature_correlation", "rotated_feature_correlation", "theta_correlation",
            "probe_r2", "map",
        )
    }  # fmt: skip
    arrays |= {"names": np.array(result.names), "map_method": np.array(result.map_method)}
    arrays["feature_names"] = np.array(list(result.features))
    arrays |= {f"feature/{k}": v for k, v in result.features.items()}
    with written(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    for name, (figure, _) in figures(result).items():
        with written(directory / f"latents-{name}.svg") as temporary:
            figure.savefig(temporary, dpi=150)
    return path
