"""What the report says about inferred galaxies: histories, spectra, residuals, support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import (
    Drawing,
    Findings,
    Grid,
    Observations,
    Posterior,
    PosteriorSamples,
    Section,
)
from sbi_core.diagnostics import distance_percentile
from sbi_sfh.latents import latents_of
from sbi_sfh.recover import star_formation_rate
from sbi_sfh.residuals import Fit, fit_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sbi_sfh.simulator import SfhSimulator

__all__ = ["Recovered", "examine", "recover_object"]

F64 = NDArray[np.float64]
_DRAWS = 100
_SHOWN = 4  # objects with figures
_MOST = 200  # objects whose spectra are recovered in a report
_CLOUD = 2000
_UNLIKE = 99.9


@dataclass(frozen=True)
class Recovered:
    """One galaxy: its history and its spectrum, recovered from the posterior.

    Parameters
    ----------
    growth
        Growth curves of draws, (S, 1000).
    mean_growth
        Growth curve of the posterior mean, (1000,).
    mean, draws
        Fit of the spectrum of the posterior mean, and of the draws.
    """

    growth: F64
    mean_growth: F64
    mean: Fit
    draws: tuple[Fit, ...]

    @property
    def best_chi2(self) -> float:
        """Smallest chi squared per pixel among the draws."""
        return min((f.chi2 for f in self.draws), default=np.nan)


def recover_object(
    simulator: SfhSimulator, observations: Observations, k: int, draws: F64, *, fits: int = _DRAWS
) -> Recovered:
    """Return history and spectrum of object k from its posterior draws (S, d).

    Parameters
    ----------
    simulator
        Library and options.
    observations
        The spectra.
    k
        Row.
    draws
        Posterior draws.
    fits
        Draws whose spectra are fitted; the band of histories takes as many.
    """
    some = draws[np.linspace(0, len(draws) - 1, min(fits, len(draws))).astype(int)]
    mean = draws.mean(0, keepdims=True)
    theta = np.concatenate([mean, some])
    growth = simulator.recovery.growth(theta)
    number = len(simulator.recovery.fractions)
    afe = theta[:, number + 1] if simulator.config.afe else None
    c, _, _ = simulator.synthesis.coefficients(growth, theta[:, number], afe)
    row = observations.batch[k]
    found = [fit_spectrum(simulator.telescope, row_c, row) for row_c in c]
    return Recovered(growth[1:], growth[0], found[0], tuple(found[1:]))


def examine(
    simulator: SfhSimulator,
    posterior: Posterior,
    observations: Observations,
    samples: PosteriorSamples,
    rng: np.random.Generator,
) -> Findings:
    """Return findings about inferred galaxies; called by ``SfhSimulator.examine``."""
    cloud_batch = simulator.observe(simulator.draw(_CLOUD, rng).succeeded, rng)
    unlike = distance_percentile(
        latents_of(posterior.estimator, observations.batch),
        latents_of(posterior.estimator, cloud_batch),
    )
    count = min(len(observations), _MOST)
    fits = _DRAWS if count <= 2 * _SHOWN else 20
    found = [
        recover_object(simulator, observations, k, samples.values[:, k], fits=fits)
        for k in range(count)
    ]
    assert cloud_batch.theta is not None
    prior = cloud_batch.theta.double().numpy()
    ratio = samples.values.std(0, ddof=1).mean(0) / prior.std(0, ddof=1)
    flags = _flags(simulator, observations, unlike)
    chi2 = [r.mean.chi2 for r in found if np.isfinite(r.mean.chi2)]
    numbers: dict[str, Any] = {
        "library": simulator.library.name,
        "median residual rms": float(np.median([r.mean.rms for r in found])),
        "posterior width over prior width": {
            n: float(v) for n, v in zip(samples.names, ratio, strict=True)
        },
        "latent support percentile": {
            str(i): float(u) for i, u in zip(observations.id, unlike, strict=True)
        },
        "ordered draws": float((np.diff(_times(simulator, samples.values)) >= 0).all(-1).mean()),
    }
    if chi2:
        numbers["median chi2 per pixel, posterior mean"] = float(np.median(chi2))
        best = [r.best_chi2 for r in found if np.isfinite(r.best_chi2)]
        numbers["median chi2 per pixel, best draw"] = float(np.median(best))
    sections = [
        _table(simulator, observations, samples, found, unlike),
        _widths(simulator, samples, ratio),
        _figures(simulator, observations, samples, found),
    ]
    stack = _by_dispersion(simulator, observations, samples)
    if stack is not None:
        sections.append(stack)
    return Findings(numbers=numbers, sections=sections, flags=flags)


def _times(simulator: SfhSimulator, values: F64) -> F64:
    return values[..., : len(simulator.recovery.fractions)]


def _flags(simulator: SfhSimulator, observations: Observations, unlike: F64) -> dict[str, str]:
    flags: dict[str, list[str]] = {str(i): [] for i in observations.id}
    batch, config = observations.batch, simulator.config
    for i, u in zip(observations.id, unlike, strict=True):
        if u > _UNLIKE:
            flags[str(i)].append("latents_unlike_training")
    if batch.x_err is not None and config.noise != "none":
        low, high = config.snr_range if config.mode == "observed" else (
            config.snr / 1.25, config.snr * 1.25)  # fmt: skip
        for k, i in enumerate(observations.id):
            seen = batch.observed[k]
            snr = float((batch.x[k][seen] / batch.x_err[k][seen]).median())
            if not low <= snr <= high:
                flags[str(i)].append("snr_outside_training")
    return {i: ",".join(words) for i, words in flags.items() if words}


def _shown_times(simulator: SfhSimulator, t: F64) -> F64:
    return simulator.config.t_end - t if simulator.config.time == "lookback" else t


def _value(draws: F64) -> str:
    low, middle, high = np.percentile(draws, [16, 50, 84])
    return f"{middle:.2f} (+{high - middle:.2f} -{middle - low:.2f})"


def _table(
    simulator: SfhSimulator,
    observations: Observations,
    samples: PosteriorSamples,
    found: list[Recovered],
    unlike: F64,
) -> Section:
    names = [n for n in ("t10", "t50", "t90", "mh", "afe") if n in samples.names]
    word = "lookback time" if simulator.config.time == "lookback" else "cosmic time"
    rows = []
    for k, recovered in enumerate(found[:40]):
        cells = [str(observations.id[k])]
        for n in names:
            draws = samples[n][:, k]
            cells.append(_value(_shown_times(simulator, draws) if n[0] == "t" else draws))
        fit = recovered.mean
        cells += [f"{100 * fit.rms:.2f} %", f"{fit.chi2:.2f}", f"{recovered.best_chi2:.2f}"]
        cells += [f"{fit.sigma:.0f}" if fit.sigma else "–", f"{unlike[k]:.1f}"]
        rows.append(cells)
    head = ["galaxy", *names, "residual rms", "χ²/pixel", "χ²/pixel, best draw", "σ [km/s]",
            "latents, percentile"]  # fmt: skip
    text = [
        f"Times are {word} in Gyr by which 10, 50 and 90 % of the stars had formed: median with "
        "the central 68 %. Residuals are those of the spectrum recovered from the posterior mean; "
        "the last column places the latents among simulations (flagged above 99.9).",
    ]
    if simulator.library.synthetic:
        text.append("The SSP library is synthetic, made up for tests: these numbers mean nothing.")
    return Section("Formation times and residuals", text, tables=[Grid(head, rows)])


def _widths(simulator: SfhSimulator, samples: PosteriorSamples, ratio: F64) -> Section:
    head = ["parameter", "posterior width / prior width"]
    rows = [[n, f"{v:.2f}"] for n, v in zip(samples.names, ratio, strict=True)]
    text = [
        "Near 1, the answer is the prior's and not the spectrum's: early percentiles at low signal "
        f"to noise. The prior is that of the {simulator.config.family} family of histories."
    ]
    return Section("How much the spectra say", text, tables=[Grid(head, rows)])


def _figures(
    simulator: SfhSimulator,
    observations: Observations,
    samples: PosteriorSamples,
    found: list[Recovered],
) -> Section:
    drawings = [
        Drawing(
            _figure(simulator, observations, k, recovered),
            f"{observations.id[k]}: growth of the mass (draws, and the posterior mean in black), "
            "star formation per mass formed, spectrum (grey: not used) with the recovered one, and "
            "the residual.",
            wide=True,
        )
        for k, recovered in enumerate(found[:_SHOWN])
    ]
    text = [
        "Percentiles are completed to a history by the nearest one of 20 000 drawn from the prior, "
        "and the history is turned into a spectrum."
    ]
    return Section("Recovered histories and spectra", text, drawings=drawings)


def _figure(
    simulator: SfhSimulator, observations: Observations, k: int, recovered: Recovered
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=[2.2, 2, 1])
    time = _shown_times(simulator, simulator.synthesis.time)
    growth, rate = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    low, high = np.percentile(recovered.growth, [16, 84], axis=0)
    growth.fill_between(time, low, high, alpha=0.35)
    growth.plot(time, recovered.mean_growth, "k", lw=1)
    truth = observations.truth
    if truth is not None:
        times = [truth[n][k] for n in observations.truth_names if n[0] == "t"]
        growth.plot(
            _shown_times(simulator, np.array(times)), simulator.recovery.fractions, "o", ms=4
        )
    growth.set(xlabel="time [Gyr]", ylabel="mass formed")
    star = star_formation_rate(recovered.growth, simulator.synthesis.time)
    low, high = np.percentile(star, [16, 84], axis=0)
    rate.fill_between(time, low, high, alpha=0.35)
    rate.plot(time, np.median(star, axis=0), "k", lw=1)
    rate.set(xlabel="time [Gyr]", ylabel="SFR / mass [1/Gyr]", ylim=(0, None))
    top, bottom = figure.add_subplot(grid[1, :]), figure.add_subplot(grid[2, :])
    x = observations.batch.x[k].double().numpy()
    used = observations.batch.observed[k].numpy()
    wave = simulator.wave
    step = 3  # pixels; figures are vector graphics
    top.plot(wave[::step], np.where(used, np.nan, x)[::step], color="0.7", lw=0.5)
    top.plot(wave[::step], np.where(used, x, np.nan)[::step], lw=0.6)
    top.plot(wave[::step], recovered.mean.model[::step], "k", lw=0.5)
    top.set(ylabel="flux / median")
    bottom.axhline(0, color="k", lw=0.5)
    left = np.where(used, x / recovered.mean.model - 1.0, np.nan)
    bottom.plot(wave[::step], 100 * left[::step], lw=0.5)
    bottom.set(xlabel="rest wavelength, air [Å]", ylabel="residual [%]")
    return figure


def _by_dispersion(
    simulator: SfhSimulator, observations: Observations, samples: PosteriorSamples
) -> Section | None:
    """Return t50 and t90 against velocity dispersion, when it is known for three or more."""
    context = observations.batch.context
    if context is None or "sigma_100kms" not in observations.context_names:
        return None
    sigma = 100 * context[:, observations.context_names.index("sigma_100kms")].double().numpy()
    known = np.isfinite(sigma)
    if known.sum() < 3 or observations.batch.theta is not None:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in ("t50", "t90"):
        t = _shown_times(simulator, samples[name][:, known])
        axes.errorbar(sigma[known], t.mean(0), t.std(0), fmt="o", ms=4, label=name)
    axes.set(xlabel="velocity dispersion [km/s]", ylabel="time [Gyr]")
    axes.legend()
    text = ["Early-type galaxies with larger velocity dispersion are expected to form earlier."]
    caption = "Formation times against velocity dispersion."
    return Section("Trend with velocity dispersion", text, [Drawing(figure, caption)])
