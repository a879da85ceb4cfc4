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
from sbi_sedflow.describe import describe_galaxies
from sbi_sedflow.flags import MEANING, NAMED, Flag, count_flags
from sbi_sedflow.likelihood import Galaxies
from sbi_sedflow.plots import sed
from sbi_sedflow.priorwidth import PriorWidth
from sbi_sedflow.simulator import SedflowSimulator
from sbi_sedflow.support import Support

__all__ = ["SedflowAnalysis", "SedflowAnalysisConfig"]

_DUST = 28_000.0  # pivot [Angstrom] from which dust emits
_SHOWN = 3  # galaxies with a figure


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
        drawings = _drawings(self.simulator, objects, galaxies, samples)
        table = Grid(("name", "bit of flag_bits", "galaxies", "meaning"), rows)
        patterns = _patterns(self.simulator, objects, columns)
        section = Section("Galaxies", text=text, drawings=drawings, tables=(table, patterns))
        return Findings(numbers=numbers, sections=(section,))


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
) -> list[Drawing]:
    chosen = np.unique(np.linspace(0, len(observations) - 1, _SHOWN).astype(int))
    drawings = []
    for k in chosen:
        name = str(observations.id[k])
        figure = sed(simulator, galaxies[np.array([k])], samples.values[:, k], title=name)
        drawings.append(Drawing(figure, f"{name}: observed and posterior predictive fluxes."))
    k = int(chosen[0])
    shown = ["logmstar", "fburst", "tau_ism", "n_dust", "sfr_1gyr", "tage_mw"]
    draws = np.stack([samples[name][:, k] for name in shown], 1)
    draws[:, 4] = np.log10(np.maximum(draws[:, 4], 1e-6))
    labels = [
        r"\log_{10} M_\star\ [M_\odot]",
        r"f_\mathrm{burst}",
        r"\tau_\mathrm{ISM}",
        r"n_\mathrm{dust}",
        r"\log_{10} \mathrm{SFR}\ [M_\odot / \mathrm{yr}]",
        r"t_\mathrm{mw}\ [\mathrm{Gyr}]",
    ]
    figure = plot.corner(draws, labels)
    caption = (
        f"{observations.id[k]}: some parameters with the star-formation rate (mean of the last "
        "Gyr) and the mass-weighted age."
    )
    drawings.append(Drawing(figure, caption, wide=True))
    return drawings
