"""Analysis of spectra: residuals, support of the latents, recovered histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sbi_core import (
    Analysis,
    Batch,
    Drawing,
    Findings,
    Grid,
    Observations,
    Posterior,
    PosteriorSamples,
    Rng,
    Section,
    as_generator,
    stream,
)
from sbi_core.diagnostics import distance_percentile
from sbi_sfh.config import age_of_universe
from sbi_sfh.interpret import interpret, section
from sbi_sfh.latents import latents_of
from sbi_sfh.maps import young_share
from sbi_sfh.own_age import AGE, at_own_age, delays, possible_draws
from sbi_sfh.readers import FLAG_MEANINGS
from sbi_sfh.recover import star_formation_rate
from sbi_sfh.recovered import Recovered, recover_object
from sbi_sfh.simulator import SfhSimulator

__all__ = ["SfhAnalysis", "figure_of", "model_draws"]

F64 = NDArray[np.float64]
_DRAWS = 100
_SHOWN = 4  # objects with figures
_MOST = 200  # objects whose draws are turned into spectra for the report
_CLOUD = 2000
_REDSHIFTS = (0.2, 0.5, 1.0, 2.0, 5.0)  # marked on time axes
_UNLIKE = 99.9
_POOR = 1.3  # chi-squared per pixel; 1 for a correct model
_SCATTER = 0.03  # residual beyond the noise
_POSSIBLE = 0.05  # share of draws without stars older than the Universe


class SfhAnalysis(Analysis):
    """Residuals of the recovered spectrum, signal to noise, percentile of the latents."""

    name = "sfh"
    flag_meanings = {
        **FLAG_MEANINGS,
        "latents_unlike_training": "the latents of the spectrum are outside 99.9 % of the "
        "simulations: check its residuals, redshift and masks before using the result",
        "snr_outside_training": "the signal-to-noise ratio is outside the training range: train "
        "with another simulator.snr or simulator.snr_range",
        "poor_fit": "the spectrum of the posterior mean does not reproduce the data (chi-squared "
        "per pixel above 1.3, or 3 % of scatter beyond the noise): check errors, masks and "
        "redshift, or train on more simulations",
        "older_than_the_universe": "nearly all draws have stars older than the Universe at the "
        "redshift of the galaxy: check the redshift and the residuals",
    }

    simulator: SfhSimulator

    def __init__(self) -> None:
        self._cloud: Batch | None = None

    def cloud(self, seed: int) -> Batch:
        """Return observed simulations that represent the training set."""
        if self._cloud is None:
            rng = stream(seed, "latents")
            drawn = self.simulator.draw(_CLOUD, rng).succeeded
            self._cloud = self.simulator.observe(drawn, rng)
        return self._cloud

    def check(self, posterior: Posterior, held_out: Batch, rng: Rng) -> Findings:
        """Return what the latents depend on, on held-out simulations."""
        x = torch_to_numpy(held_out)
        made = interpret(self.simulator, posterior.estimator, held_out, x, as_generator(rng))
        probe = {n: float(v) for n, v in zip(made.names, made.probe_r2, strict=True)}
        return Findings(
            numbers={"linear probe r2": probe, "latent map": made.map_method},
            sections=[section(made)],
        )

    def describe(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> PosteriorSamples:
        """Add residual, chi-squared, velocity dispersion and S/N of every spectrum; flags."""
        estimator = posterior.estimator
        percentile = distance_percentile(
            latents_of(estimator, objects.batch), latents_of(estimator, self.cloud(seed))
        )
        late = delays(objects.labels, len(objects), self.simulator.config.t_end)
        values, own, possible = _at_redshift(self.simulator, samples.values, late)
        fits = [
            recover_object(self.simulator, objects, k, values[:, k], fits=0).mean
            for k in range(len(objects))
        ]
        columns = {
            "residual_rms": np.array([f.rms for f in fits]),
            "chi2_per_pixel": np.array([f.chi2 for f in fits]),
            "snr": self._snr(objects),
            "latent_percentile": percentile,
        }
        if self.simulator.config.mode == "observed":
            columns["sigma"] = np.array([f.sigma for f in fits])
        poor = _poor(columns["residual_rms"], columns["chi2_per_pixel"])
        flags = self._flags(percentile, columns["snr"], poor, possible < _POSSIBLE)
        read = objects.labels.get("reading", [""] * len(objects))
        described = samples.described(
            values=own,
            columns=columns,
            units={"sigma": "km / s", AGE: "Gyr"},
            flags=[",".join(filter(None, (str(r), f))) for r, f in zip(read, flags, strict=True)],
        )
        rest = {name: v for name, v in described.labels.items() if name != "reading"}
        return replace(described, labels=rest)

    def _snr(self, objects: Observations) -> F64:
        """Return the median S/N per used pixel, NaN without errors."""
        batch = objects.batch
        if batch.x_err is None:
            return np.full(len(objects), np.nan)
        ratio = np.where(batch.observed, batch.x / batch.x_err, np.nan).astype(float)
        return np.nanmedian(ratio, axis=1)

    def _flags(
        self, percentile: F64, snr: F64, poor: NDArray[np.bool_], older: NDArray[np.bool_]
    ) -> list[str]:
        config = self.simulator.config
        low, high = config.snr_range if config.mode == "observed" else (
            config.snr / 1.25, config.snr * 1.25)  # fmt: skip
        odd = np.isfinite(snr) & ~((low <= snr) & (snr <= high)) & (config.noise != "none")
        return [
            ",".join(
                word
                for word, set_ in (
                    ("latents_unlike_training", p > _UNLIKE),
                    ("snr_outside_training", o),
                    ("poor_fit", c),
                    ("older_than_the_universe", a),
                )
                if set_
            )
            for p, o, c, a in zip(percentile, odd, poor, older, strict=True)
        ]

    def report(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> Findings:
        """Return recovered histories and spectra, and how much the spectra constrain."""
        simulator = self.simulator
        count = min(len(objects), _MOST)
        fits = _DRAWS if count <= 2 * _SHOWN else 20
        made = [
            recover_object(simulator, objects, k, model_draws(simulator, objects, samples, k),
                           fits=fits)
            for k in range(count)
        ]  # fmt: skip
        theta = self.cloud(seed).theta
        assert theta is not None
        ratio = samples.values.std(0, ddof=1).mean(0) / theta.double().numpy().std(0, ddof=1)
        sections = [
            _prior(simulator, theta.double().numpy()),
            _table(simulator, objects, samples, made),
            _figures(simulator, objects, samples, made),
        ]
        stack = _by_dispersion(simulator, objects, samples)
        if stack is not None:
            sections.append(stack)
        return Findings(numbers=_numbers(simulator, samples, made, ratio), sections=sections)


def model_draws(
    simulator: SfhSimulator, objects: Observations, samples: PosteriorSamples, k: int
) -> F64:
    """Return the draws (S, d) of object k with times since the Big Bang as in the model."""
    late = delays(objects.labels, len(objects), simulator.config.t_end)[k]
    return at_own_age(samples.values[:, k], -late, len(simulator.recovery.fractions))


def _at_redshift(simulator: SfhSimulator, values: F64, late: F64) -> tuple[F64, F64, F64]:
    """Return possible draws (S, n, d), the same with times at the own redshift, and shares (n,)."""
    if not late.any():
        return values, values, np.ones(len(late))
    times = len(simulator.recovery.fractions)
    rows = [possible_draws(values[:, k, 0], delay) for k, delay in enumerate(late)]
    kept = np.stack([values[r, k] for k, (r, _) in enumerate(rows)], axis=1)
    own = np.stack([at_own_age(kept[:, k], d, times) for k, d in enumerate(late)], axis=1)
    return kept, own, np.array([share for _, share in rows])


def _poor(rms: F64, chi2: F64) -> NDArray[np.bool_]:
    """Return which spectra are not recovered: chi-squared, or scatter beyond the noise."""
    noise = np.where(np.isfinite(chi2), rms**2 / np.maximum(chi2, 1e-12), 0.0)
    return np.asarray((chi2 > _POOR) | (rms**2 - noise > _SCATTER**2))


def torch_to_numpy(batch: Batch) -> F64:
    """Return spectra (n, L) with ones where nothing was observed."""
    return np.where(batch.observed, batch.x, 1.0).astype(np.float64)


def _numbers(
    simulator: SfhSimulator, samples: PosteriorSamples, made: list[Recovered], ratio: F64
) -> dict[str, Any]:
    chi2 = samples.columns["chi2_per_pixel"]
    percentile = samples.columns["latent_percentile"]
    numbers: dict[str, Any] = {
        "library": simulator.library.name,
        "median residual rms": float(np.median(samples.columns["residual_rms"])),
        "posterior width over prior width": {
            n: float(v) for n, v in zip(samples.names, ratio, strict=True)
        },
        "latent support percentile": {
            str(i): float(u) for i, u in zip(samples.id, percentile, strict=True)
        },
        "ordered draws": float((np.diff(_times(simulator, samples.values)) >= 0).all(-1).mean()),
    }
    if np.isfinite(chi2).any():
        numbers["median chi2 per pixel, posterior mean"] = float(np.nanmedian(chi2))
        best = [r.best_chi2 for r in made if np.isfinite(r.best_chi2)]
        numbers["median chi2 per pixel, best draw"] = float(np.median(best))
    return numbers


def _times(simulator: SfhSimulator, values: F64) -> F64:
    return values[..., : len(simulator.recovery.fractions)]


def _shown_times(simulator: SfhSimulator, t: F64, late: F64 | float = 0.0) -> F64:
    """Return times since the Big Bang as shown, of a galaxy observed at T - late."""
    lookback = simulator.config.time == "lookback"
    return np.asarray(simulator.config.t_end - late - t if lookback else t)


def _prior(simulator: SfhSimulator, theta: F64) -> Section:
    """Return percentiles of every reported number in the prior, from simulations (n, d)."""
    fractions = np.asarray(simulator.recovery.fractions)
    columns = dict(zip(simulator.parameters.names, theta.T, strict=True))
    times = theta[:, : len(fractions)]
    for k, name in enumerate(list(columns)[: len(fractions)]):
        columns[name] = _shown_times(simulator, times[:, k])
    columns["mass of the last Gyr"] = young_share(times[None], fractions, simulator.config.t_end)[0]
    levels = (2.5, 16, 50, 84, 97.5)
    rows = [[name, *(f"{v:.3g}" for v in np.percentile(c, levels))] for name, c in columns.items()]
    shares = ", ".join(f"{n} {100 * s:g} %" for n, s in simulator.config.families.items())
    text = [
        "Percentiles of the prior, from simulations. A result that agrees with these comes from "
        "the prior, not from the spectrum.",
        f"Families of histories and their shares: {shares}.",
    ]
    head = ["", *(f"{level:g} %" for level in levels)]
    return Section("Prior of the reported numbers", text, tables=[Grid(head, rows)])


def _table(
    simulator: SfhSimulator,
    observations: Observations,
    samples: PosteriorSamples,
    recovered: list[Recovered],
) -> Section:
    lookback = simulator.config.time == "lookback"
    names = ["t10", "t50", "t90"] if lookback else []  # cosmic times are among the results
    late = delays(observations.labels, len(observations), simulator.config.t_end)
    rows: list[list[Any]] = []
    for k, galaxy in enumerate(recovered[:40]):
        times = [_shown_times(simulator, samples[n][:, k], late[k]) for n in names]
        estimates = [tuple(np.percentile(t, [16, 50, 84]).tolist()) for t in times]
        fit = galaxy.mean
        rows.append([
            str(observations.id[k]), *estimates, f"{100 * fit.rms:.2f} %", f"{fit.chi2:.2f}",
            f"{galaxy.best_chi2:.2f}", f"{fit.sigma:.0f}" if fit.sigma else "–",
            f"{samples.columns['latent_percentile'][k]:.1f}",
        ])  # fmt: skip
    head = ["galaxy", *(f"{n} [Gyr]" for n in names), "residual rms", "χ²/pixel", "best draw",
            "σ [km/s]", "latents"]  # fmt: skip
    text = [
        "Residual and χ² compare the observed spectrum with the one recovered from the posterior "
        "mean; the best draw is the smallest χ² of the draws. Where it is much smaller, the "
        "posterior contains different kinds of histories and their mean is not one of them: use "
        "the draws. Latents: percentile among the simulations, flagged above 99.9.",
    ]
    if lookback:
        text.append(
            "Times are lookback times by which 10, 50 and 90 % of the stars had formed: median "
            "with the central 68 %."
        )
    if simulator.config.library == "embedded" and observations.truth is None:
        text.append(
            "Stellar populations: the embedded grid, for a first look. Formation times of real "
            "galaxies differ by 0.2 to 2.3 Gyr from those with MILES: for science, train with "
            "simulator.library=FOLDER."
        )
    if simulator.library.synthetic:
        text.append("The SSP library is synthetic, made up for tests: no results.")
    return Section("Residuals of recovered spectra", text, tables=[Grid(head, rows)])


def _figures(
    simulator: SfhSimulator,
    observations: Observations,
    samples: PosteriorSamples,
    found: list[Recovered],
) -> Section:
    drawings = [
        Drawing(
            figure_of(simulator, observations, k, recovered),
            f"{observations.id[k]}: mass growth (68 and 95 % of the draws; black: posterior mean; "
            "points: truth of a mock), star formation rate per mass formed, spectrum (grey: "
            "masked) with the recovered one (black), and residual.",
            wide=True,
        )
        for k, recovered in enumerate(found[:_SHOWN])
    ]
    text = [
        "Percentiles fix how much mass formed between them, not when: of all such histories the "
        "one that fits the spectrum best is shown, and its spectrum."
    ]
    return Section("Recovered histories and spectra", text, drawings=drawings)


def figure_of(
    simulator: SfhSimulator, observations: Observations, k: int, recovered: Recovered
) -> Figure:
    """Return the figure of object k: growth of the mass, star formation, spectrum, residual."""
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=[2.2, 2, 1])
    late = float(delays(observations.labels, len(observations), simulator.config.t_end)[k])
    time = _shown_times(simulator, simulator.synthesis.time - late, late)
    growth, rate = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    _bands(growth, time, recovered.growth)
    growth.plot(time, recovered.mean_growth, "k", lw=1)
    _redshift_axis(growth, simulator, late)
    truth = observations.truth
    if truth is not None:
        times = [truth[n][k] for n in observations.truth_names if n[0] == "t"]
        growth.plot(
            _shown_times(simulator, np.array(times)), simulator.recovery.fractions, "o", ms=4
        )
    label = "lookback time [Gyr]" if simulator.config.time == "lookback" else "time [Gyr]"
    growth.set(xlabel=label, ylabel="mass formed")
    star = star_formation_rate(recovered.growth, simulator.synthesis.time)
    _bands(rate, time, star)
    rate.plot(time, np.median(star, axis=0), "k", lw=1)
    rate.set(xlabel=label, ylabel="SFR / mass [1/Gyr]", ylim=(0, None))
    _redshift_axis(rate, simulator, late)
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


def _bands(axes: Axes, time: F64, curves: F64) -> None:
    """Draw the central 68 and 95 % of curves (S, m)."""
    for low, high, alpha in ((2.5, 97.5, 0.2), (16, 84, 0.35)):
        ends = np.percentile(curves, [low, high], axis=0)
        axes.fill_between(time, *ends, alpha=alpha, color="C0", lw=0)


def _redshift_axis(axes: Axes, simulator: SfhSimulator, late: float) -> None:
    """Mark the redshifts of the times of an axis above it."""
    end = simulator.config.t_end - late
    ages = {z: age_of_universe(z) for z in _REDSHIFTS}
    seen = {z: t for z, t in ages.items() if t < 0.97 * end}
    top = axes.secondary_xaxis("top")
    at = _shown_times(simulator, np.array(list(seen.values())), late)
    top.set_xticks(at, [f"{z:g}" for z in seen])
    top.set_xlabel("redshift")


def _by_dispersion(
    simulator: SfhSimulator, observations: Observations, samples: PosteriorSamples
) -> Section | None:
    """Return t50 and t90 against velocity dispersion, when it is known for three or more."""
    context = observations.batch.context
    if context is None or "sigma_100kms" not in observations.context_names:
        return None
    sigma = 100 * context[:, observations.context_names.index("sigma_100kms")].double().numpy()
    known = np.isfinite(sigma)
    late = delays(observations.labels, len(observations), simulator.config.t_end)
    if known.sum() < 3 or observations.batch.theta is not None:
        return None

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in ("t50", "t90"):
        t = _shown_times(simulator, samples[name][:, known], late[known])
        axes.errorbar(sigma[known], t.mean(0), t.std(0), fmt="o", ms=4, label=name)
    axes.set(xlabel="velocity dispersion [km/s]", ylabel="time [Gyr]")
    axes.legend()
    text = ["Early-type galaxies with larger velocity dispersion are expected to form earlier."]
    caption = "Formation times against velocity dispersion."
    return Section("Trend with velocity dispersion", text, [Drawing(figure, caption)])
