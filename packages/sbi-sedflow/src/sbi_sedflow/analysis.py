"""Analysis of galaxies: calibration of derived quantities, results per galaxy, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

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
    plot,
)
from sbi_sedflow.calibration import check_galaxies
from sbi_sedflow.certify import Masks
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.describe import describe_galaxies
from sbi_sedflow.flags import MEANING, NAMED, Flag, count_flags
from sbi_sedflow.likelihood import Galaxies
from sbi_sedflow.plots import recovery, sed, sfh
from sbi_sedflow.priorwidth import PriorWidth
from sbi_sedflow.quantities import SHOWN, shown
from sbi_sedflow.simulator import SedflowSimulator
from sbi_sedflow.support import Support

__all__ = ["SedflowAnalysis", "SedflowAnalysisConfig", "residuals_of_bands"]

F64 = NDArray[np.float64]
_DUST = 28_000.0  # pivot [Angstrom] from which dust emits
_GALAXIES = 3  # with a figure
_ROWS = 12  # of the table of results
# of residuals: fewest galaxies; median that matters; in standard errors (2e-5 per band by chance)
_ENOUGH, _SHIFT, _SIGNIFICANT = 20, 0.2, 4.3


class SedflowAnalysisConfig(BaseModel):
    """Options of the analysis of galaxies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refine: Literal["flagged", "all", "none"] = Field(
        default="flagged", description="Galaxies to refine with the exact likelihood."
    )
    limit: int = Field(
        default=40_000,
        ge=1000,
        description="Most likelihood evaluations per refined galaxy.",
    )


class SedflowAnalysis(Analysis):
    """Star formation rate, surviving mass, metallicity and age; fit quality; refinement.

    Parameters
    ----------
    config
        Options.
    """

    name = "sedflow"
    chunk = 256
    flag_meanings = {str(f.name).lower(): MEANING[f] for f in Flag if f & NAMED}

    simulator: SedflowSimulator

    def __init__(self, config: SedflowAnalysisConfig | None = None) -> None:
        self.config = config or SedflowAnalysisConfig()
        self._support: Support | None = None
        self._masks: Masks | None = None
        self._widths: PriorWidth | None = None

    def check(self, posterior: Posterior, held_out: Batch, rng: Rng) -> Findings:
        """Test the calibration of derived quantities and of the likelihood."""
        return check_galaxies(self.simulator, posterior, held_out, rng)

    def describe(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> PosteriorSamples:
        """Add derived quantities, chi-squared, importance weights and flags; refine."""
        if self._support is None:
            self._support = Support(self.simulator)
        if self._masks is None:
            self._masks = Masks(self.simulator, posterior)
        if self._widths is None:
            self._widths = PriorWidth(self.simulator)
        return describe_galaxies(
            self.simulator,
            posterior,
            objects,
            samples,
            self._support,
            self._masks,
            self._widths,
            refine=self.config.refine,
            limit=self.config.limit,
            seed=seed,
        )

    def report(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> Findings:
        """Return counts of flags and figures of some galaxies."""
        columns = samples.columns
        counts = count_flags(columns["flag_bits"])
        numbers: dict[str, Any] = {
            "flags": counts,
            "refined": int((columns["method"] != "npe").sum()),
            "observed_is_efficiency_median": float(np.median(columns["is_eff"])),
            "observed_chi2_min_median": float(np.median(columns["chi2_min"])),
        }
        rows = [[str(f.name), str(int(f)), str(counts[str(f.name)]), MEANING[f]] for f in Flag]
        text: tuple[str, ...] = (
            f"{len(objects)} galaxies, {numbers['refined']} of them refined with the exact "
            "likelihood. Derived quantities are in summary.ecsv and, as draws, in the group "
            "'derived' of posterior.nc. The column flag_bits is the sum of the bits below; "
            "those that need attention are also words in the column flags.",
        )
        galaxies = Galaxies.of(objects, self.simulator.bands.softening)
        if dusty := [b.name for b in self.simulator.bands.bands if b.pivot > _DUST]:
            text = (
                *text,
                f"{' and '.join(dusty)}: the model has stars only, no emission by dust. These "
                "bands are reliable where stars dominate them: at low redshift in galaxies with "
                "little star formation. Elsewhere dust can mimic older or more massive stars.",
            )
        quantities = shown(samples["logmstar"], {name: samples[name] for name in DERIVED})
        truth = _truth(self.simulator, objects, galaxies)
        drawings = _drawings(self.simulator, objects, galaxies, samples, quantities, truth)
        table = Grid(("name", "bit of flag_bits", "galaxies", "meaning"), rows)
        patterns = _patterns(self.simulator, objects, columns)
        residuals, remark = residuals_of_bands(self.simulator, columns)
        text = (*text, remark) if remark else text
        tables = (_results(objects, quantities), residuals, table, patterns)
        section = Section("Galaxies", text=text, drawings=drawings, tables=tables)
        return Findings(numbers=numbers, sections=(section,))


def _truth(simulator: SedflowSimulator, objects: Observations, galaxies: Galaxies) -> F64 | None:
    """Return the true quantities (n, 6) of mock galaxies."""
    if objects.truth is None:
        return None
    theta = np.stack([*objects.truth.values()], 1)
    return shown(theta[:, 0], simulator.model.derived(theta, galaxies.context[:, 0]))


def residuals_of_bands(
    simulator: SedflowSimulator, columns: Mapping[str, NDArray[Any]]
) -> tuple[Grid, str]:
    """Return the median residual of every band of a catalogue, and a sentence if some are not zero.

    A single galaxy absorbs a wrong zero point into its parameters; a catalogue does not: the
    residuals of all galaxies shift together.
    """
    rows: list[list[Any]] = []
    shifted = []
    for b in simulator.bands.names:
        r = columns[f"residual_{b}"]
        r = r[np.isfinite(r)]
        if r.size < _ENOUGH:
            rows.append([b, str(r.size), "too few galaxies", ""])
            continue
        median = float(np.median(r))
        low, high = np.percentile(r, [16, 84])
        error = max(1.2533 * (high - low) / 2 / np.sqrt(r.size), 1e-9)
        rows.append([b, str(r.size), f"{median:+.2f}", f"{error:.2f}"])
        if abs(median) > max(_SHIFT, _SIGNIFICANT * error):
            shifted.append(f"{b} {median:+.1f}")
    remark = ""
    if shifted:
        remark = (
            f"Observed fluxes differ from the model in the same direction in most galaxies (median "
            f"residuals in errors: {', '.join(shifted)}). Zero points, Galactic extinction, "
            "units, redshifts or filter curves may be wrong, or the galaxies have light that the "
            "model lacks: an active nucleus, or emission by dust. Posteriors absorb this as other "
            "masses, dust and ages."
        )
    header = ("band", "galaxies", "median residual [errors]", "standard error")
    caption = "Observed minus predicted fluxes; zero if data and model agree."
    return Grid(header, rows, caption), remark


def _patterns(
    simulator: SedflowSimulator, objects: Observations, columns: Mapping[str, NDArray[Any]]
) -> Grid:
    """Return how often bands were observed together, and the calibration for each pattern."""
    mask = objects.batch.observed.cpu().numpy()
    names = np.asarray(simulator.bands.names)
    patterns, first, which, counts = np.unique(
        mask, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    bad = (columns["flag_bits"] & int(Flag.MASK_NOT_CERTIFIED)) != 0
    rows = []
    for k in np.argsort(-counts, kind="stable"):
        p, share = (float(columns[c][first[k]]) for c in ("mask_p", "mask_share"))
        flagged = int(bad[which.reshape(-1) == k].sum())
        rows.append(
            [" ".join(names[patterns[k]]) or "none", str(counts[k]), f"{100 * share:.2g} %",
             "not tested" if np.isnan(p) else f"{p:.2g}", str(flagged)]
        )  # fmt: skip
    header = ("bands", "galaxies", "of the training set", "smallest SBC p-value", "flagged")
    return Grid(header, rows)


def _drawings(
    simulator: SedflowSimulator,
    observations: Observations,
    galaxies: Galaxies,
    samples: PosteriorSamples,
    quantities: F64,
    truth: F64 | None,
) -> list[Drawing]:
    """Return fluxes and history of some galaxies, quantities of one, and the recovery of all."""
    chosen = np.unique(np.linspace(0, len(observations) - 1, _GALAXIES).astype(int))
    true = None if observations.truth is None else np.stack([*observations.truth.values()], 1)
    drawings = []
    for k in chosen:
        name, draws, z = (
            str(observations.id[k]),
            samples.values[:, k],
            float(galaxies.context[k, 0]),
        )
        figure = sed(simulator, galaxies[np.array([k])], draws, title=name)
        drawings.append(Drawing(figure, f"{name}: observed and posterior predictive fluxes."))
        figure = sfh(simulator, draws, z, truth=None if true is None else true[k], title=name)
        drawings.append(Drawing(figure, f"{name}: star-formation history, with the burst."))
    k = int(chosen[0])
    dust = [samples[name][:, k] for name in ("tau_ism", "n_dust")]
    lines = None if truth is None or true is None else np.append(truth[k], true[k, -2:])
    figure = plot.corner(
        np.column_stack([quantities[:, k], *dust]),
        [*(q.title for q in SHOWN), r"\tau_\mathrm{ISM}", r"n_\mathrm{dust}"],
        truth=lines,
    )
    caption = f"{observations.id[k]}: mass, star-formation rate, age, metallicity and dust"
    caption += "." if lines is None else "; black lines mark the true values."
    drawings.append(Drawing(figure, caption, wide=True))
    if truth is not None:
        caption = (
            "Mock galaxies: posterior mean and standard deviation of derived quantities against "
            "the truth; a slope below one means that the prior dominates."
        )
        drawings.append(Drawing(recovery(quantities, truth), caption, wide=True))
    return drawings


def _results(observations: Observations, quantities: F64) -> Grid:
    """Return the table of mass, star-formation rate, age and metallicity of the first galaxies."""
    n = min(len(observations), _ROWS)
    quantiles = np.percentile(quantities[:, :n], [16, 50, 84], axis=0)
    rows: list[list[Any]] = [
        [str(observations.id[k]), *(tuple(float(v) for v in q) for q in quantiles[:, k].T)]
        for k in range(n)
    ]
    caption = "Median and central 68 %"
    if n < len(observations):
        caption += f" of the first {n} galaxies; summary.ecsv has all {len(observations)}"
    return Grid(("galaxy", *(q.heading for q in SHOWN)), rows, f"{caption}.")
