"""Analysis of halos: members, posterior predictive check, support, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sbi_casbi import figures
from sbi_casbi.abundances import LABELS
from sbi_casbi.members import MemberSamples, sample_members
from sbi_casbi.predictive import (
    PREDICTIVE,
    UNLIKE_POSTERIOR,
    deviance_percentile,
    predictive_planes,
    reference_deviances,
)
from sbi_casbi.scores import check_sets, prior_pmf
from sbi_casbi.simulator import CasbiSimulator
from sbi_casbi.support import UNLIKE_TRAINING, reference_summaries, summary_percentile
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
    stream,
)

__all__ = ["CasbiAnalysis", "CasbiAnalysisConfig", "members_of"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_SHOWN = 8  # halos with figures in the report
_REFERENCE = ("deviance", "deviance_terms", "summaries_train", "summaries_test")
_MASS_CELLS = np.linspace(4.5, 10.0, 11)
_TAU_CELLS = np.linspace(0.0, 14.0, 8)
_MASSES = np.linspace(4.8, 9.8, 51)  # of the mass function
_UNITS = {"log_mstar": "dex(Msun)", "log_mdm": "dex(Msun)", "tau": "Gyr"}
_HEADS = {
    "log_mstar": "log10 M_star [Msun]",
    "log_mdm": "log10 M_dm [Msun]",
    "tau": "infall [Gyr since the Big Bang]",
}
_POPULATIONS = {
    "uniform": "members uniform in log M_star with broad infall times",
    "cosmological": "dN/dM ~ M_star^-1.25 and early infall",
    "budget": "masses drawn from M_star^-1.25 up to a fixed accreted mass, so that N follows",
}


class CasbiAnalysisConfig(BaseModel):
    """Options of the analysis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_look: bool = Field(
        False, description="describe the run as a first look, trained on few halos"
    )


class CasbiAnalysis(Analysis):
    """Members of every halo by decreasing mass, posterior predictive check, and support."""

    name = "casbi"
    flag_meanings = {
        "unlike_its_posterior": "the plane differs from its posterior prediction by more than in "
        f"{UNLIKE_POSTERIOR:g} % of simulated halos: no set of galaxies of this library makes it",
        "unlike_training_halos": "the network's summary of the plane is unlike those of simulated "
        "halos: the solar scale is wrong, or the galaxies are unlike those of this library",
    }

    simulator: CasbiSimulator

    def __init__(self, config: CasbiAnalysisConfig | None = None) -> None:
        self.config = config or CasbiAnalysisConfig()

    def check(self, posterior: Posterior, held_out: Batch, rng: Rng) -> Findings | None:
        """Test N and the sets of members on held-out halos."""
        return check_sets(self.simulator, posterior, held_out, rng)

    def make_reference(self, posterior: Posterior, seed: int) -> Mapping[str, NDArray[Any]]:
        """Return deviances and summaries of simulated halos, with which observed ones compare."""
        estimator: Any = posterior.estimator
        if not hasattr(estimator, "sample_members"):
            return {}
        simulator = self.simulator
        deviances = stream(seed, "casbi", "deviance")
        theirs, terms = reference_deviances(simulator, estimator, deviances)
        support = stream(seed, "casbi", "support")
        trained, held_out = reference_summaries(simulator, estimator, support)
        # exact: networks return float32
        single = trained.astype(np.float32), held_out.astype(np.float32)
        return dict(zip(_REFERENCE, (theirs, terms, *single), strict=True))

    def describe(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> PosteriorSamples:
        """Add the members of every halo, the percentiles of two checks, and flags."""
        estimator: Any = posterior.estimator
        if not hasattr(estimator, "sample_members"):
            return samples
        members = sample_members(posterior, objects, len(samples.values))
        x = objects.batch.x.numpy()
        planes = predictive_planes(self.simulator, members, x, PREDICTIVE)
        known = self.reference
        if not set(_REFERENCE) <= set(known):
            known = self.make_reference(posterior, seed)
        deviance = deviance_percentile(x, planes, known["deviance"], known["deviance_terms"])
        support = summary_percentile(
            estimator.summaries(objects.batch),
            known["summaries_train"].astype(float),
            known["summaries_test"].astype(float),
        )
        checks = (
            ("unlike_its_posterior", deviance > UNLIKE_POSTERIOR),
            ("unlike_training_halos", support > UNLIKE_TRAINING),
        )
        values = np.where(members.mask[..., None], members.values, np.nan)
        return samples.described(
            derived={name: values[..., k] for k, name in enumerate(members.names)},
            units=_UNITS,
            columns={"deviance_percentile": deviance, "summary_percentile": support},
            flags=[",".join(word for word, odd in checks if odd[k]) for k in range(len(objects))],
        )

    def _remarks(self, flags: str) -> list[str]:
        """Return the reasons not to quote a flagged halo."""
        reasons = [self.flag_meanings[f] for f in flags.split(",") if f in self.flag_meanings]
        return [f"Flagged, do not quote these results: {reason}." for reason in reasons]

    def report(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> Findings | None:
        """Return figures and tables of every halo."""
        members = members_of(samples)
        if members is None:
            return None
        simulator, estimator = self.simulator, posterior.estimator
        counts: I64 = estimator.counts  # type: ignore[attr-defined]
        pmf: F64 = estimator.pmf(objects.batch)  # type: ignore[attr-defined]
        prior = prior_pmf(simulator, counts)
        numbers = {
            str(i): _halo_numbers(members[k], pmf[k], counts)
            | {
                "deviance_percentile": float(samples.columns["deviance_percentile"][k]),
                "support_percentile": float(samples.columns["summary_percentile"][k]),
            }
            for k, i in enumerate(objects.id)
        }
        shown = slice(0, _SHOWN)
        x = objects.batch.x[shown].numpy()
        planes = predictive_planes(simulator, members[shown], x, PREDICTIVE)
        sections = [
            _halo_section(
                simulator,
                objects,
                members[k],
                pmf[k],
                counts,
                prior,
                planes[:, k],
                k,
                self._remarks(samples.flags[k]),
            )  # fmt: skip
            for k in range(len(x))
        ]
        assumptions = Section("Assumptions", _assumptions(simulator, self.config))
        return Findings(numbers={"halos": numbers}, sections=[assumptions, *sections])


def _assumptions(simulator: CasbiSimulator, config: CasbiAnalysisConfig) -> list[str]:
    """Return population, meaning of the star count, zero points and library in words."""
    c, library = simulator.config, simulator.library
    label = LABELS[library.alpha]
    if c.counts == "shape":
        counted = (
            f"The number of stars ({c.n_star[0]:g} to {c.n_star[1]:g}) carries no information on "
            "the mass: masses follow from the distribution of abundances alone."
        )
    elif c.counts == "particles":
        counted = "The number of star particles is that of the simulations, without Poisson noise."
    else:
        counted = (
            f"The sample is complete, with {c.kappa:.3g} stars per Msun: the number of stars gives "
            "the accreted mass. A star list from a survey needs the preset 'survey'."
        )
    scales = (
        f"are unknown by {c.zero_point:g} dex (standard deviation), which the errors include"
        if c.zero_point
        else "are taken as exact"
    )
    physics = (
        f"Yields and outflows of its galaxies vary by {c.physics_spread:g} dex (standard "
        "deviation) between halos, which the errors include."
        if c.physics_spread
        else "The results are biased if the accreted galaxies had other yields or outflows."
    )
    prior = "snapshots of the library with equal probability"
    if library.is_embedded or c.population != "uniform":
        prior = _POPULATIONS[c.population]
    number = "" if c.population == "budget" else f"N uniform from {c.n_min} to {c.n_max}, "
    first = (
        "This run is a first look: its network was trained on few halos, and errors are larger "
        "than they have to be. The section on held-out halos names the numbers not to use; the "
        "presets 'standard' and 'survey' are for results."
    )
    return [
        *([first] if config.first_look else []),
        f"Population (prior): {number}{prior}.",
        counted,
        f"The zero points of [Fe/H] and {label} {scales}. Their errors are {_span(c.sigma_fe)} and "
        f"{_span(c.sigma_o)} dex in the simulations.",
        f"Galaxies: {library.source} ({len(library)} snapshots of {len(np.unique(library.stem))} "
        f"galaxies). {physics} Infall times are ages of the universe, masses are those at infall.",
    ]


def _span(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def members_of(samples: PosteriorSamples) -> MemberSamples | None:
    """Return the sets of members among the derived quantities; None without them."""
    names = tuple(n for n in _UNITS if n in samples.derived)
    if not names:
        return None
    values = np.stack([samples.derived[n] for n in names], -1).astype(np.float32)
    there = np.isfinite(values[..., 0])
    return MemberSamples(
        np.where(there[..., None], values, np.float32(0)), there.sum(-1), names, samples.id
    )


def _halo_numbers(members: MemberSamples, pmf: F64, counts: I64) -> dict[str, Any]:
    cdf = np.cumsum(pmf)
    quantiles = {f"p{q}": int(counts[(cdf >= q / 100).argmax()]) for q in (16, 50, 84)}
    cells = members.intensity(_MASS_CELLS, _TAU_CELLS)[:, 0]
    above = members.number_above([6.0, 7.0, 8.0, 9.0])[:, :, 0]
    return {
        "n_sub": quantiles,
        "number_above": {
            f"{m:g}": [float(v) for v in np.quantile(a, [0.16, 0.5, 0.84])]
            for m, a in zip((6.0, 7.0, 8.0, 9.0), above, strict=True)
        },
        "intensity": np.round(cells.mean(0), 3).tolist(),
    }


def _halo_section(
    simulator: CasbiSimulator,
    observations: Observations,
    members: MemberSamples,
    pmf: F64,
    counts: I64,
    prior: F64,
    planes: F64,
    k: int,
    remarks: Sequence[str],
) -> Section:
    batch = observations.batch
    x = batch.x[k].numpy()
    truth = None
    if batch.theta_set is not None and batch.theta_mask is not None:
        truth = batch.theta_set[k][batch.theta_mask[k]].double().numpy()
    name = str(observations.id[k])
    return Section(
        name if name.lower().startswith("halo") else f"Halo {name}",
        remarks,
        (
            Drawing(
                figures.planes(simulator.library, x, planes),
                "Observed plane, posterior prediction (mean of draws), and their difference in "
                "units of the Poisson error.",
                wide=True,
            ),
            Drawing(
                figures.number_posterior(counts, pmf, prior, None if truth is None else len(truth)),
                "Posterior and prior of the number of accreted galaxies"
                + (", and the true value." if truth is not None else "."),
            ),
            Drawing(
                figures.mass_function(members, _MASSES, truth),
                "Number of accreted galaxies above a stellar mass: median, 68 and 95 % of the "
                "draws" + (", and the true one." if truth is not None else "."),
            ),
            Drawing(
                figures.mass_time_map(members, _MASS_CELLS, _TAU_CELLS, truth),
                "Expected number of accreted galaxies per cell of mass and infall time"
                + ("; circles are the true ones." if truth is not None else "."),
            ),
        ),
        (_top_table(members, truth), _above_table(members, truth)),
    )


def _top_table(members: MemberSamples, truth: F64 | None) -> Grid:
    rows = []
    for k in range(1, min(5, members.values.shape[2]) + 1):
        value, there = members.member(k)
        if not there.any():
            continue
        drawn = value[:, 0][there[:, 0]]
        low, middle, high = np.quantile(drawn, [0.16, 0.5, 0.84], axis=0)
        cells: list[Any] = [*zip(low.tolist(), middle.tolist(), high.tolist(), strict=True)]
        if truth is not None:
            cells += [f"{v:.2f}" for v in truth[k - 1]] if k <= len(truth) else ["–"] * len(cells)
        rows.append((str(k), f"{100 * there.mean():.0f} %", *cells))
    heads = [_HEADS[name] for name in members.names]
    if truth is not None:
        heads += [f"true {head}" for head in heads]
    caption = (
        "Members by decreasing stellar mass: share of the draws in which the member exists, and "
        "median with the central 68 % of its properties."
    )
    return Grid(("member", "exists in", *heads), rows, caption)


def _above_table(members: MemberSamples, truth: F64 | None) -> Grid:
    limits = [6.0, 7.0, 8.0, 9.0]
    rows = []
    for m, a in zip(limits, members.number_above(limits)[:, :, 0], strict=True):
        low, middle, high = np.quantile(a, [0.16, 0.5, 0.84])
        row = [f"M_star > 10^{m:g} Msun", f"{middle:.0f} ({low:.0f} to {high:.0f})"]
        if truth is not None:
            row.append(str(int((truth[:, 0] > m).sum())))
        rows.append(row)
    head = ["accreted galaxies", "number"] + (["true number"] if truth is not None else [])
    return Grid(head, rows, "Number above a stellar mass: median and central 68 %.")
