"""Parameters, priors and observables of the model (Buck et al. 2025, table 1).

Global: high-mass IMF slope and SN Ia rate. Local, per star: star-formation efficiency, peak of
the star-formation rate, outflow fraction, birth time. log10 SFR_peak stays above 0.294, below
which too little gas is left at birth; the end of the simulation is 13.797617 Gyr.
"""

from __future__ import annotations

from sbi_chempy.frame import Frame
from sbi_core import Observable, Parameter, ParameterSpace, Prior

__all__ = ["FAILURES", "observables", "parameter_space"]

FAILURES = {
    0: "ok",
    1: "too little star formation at the time of birth",
    2: "negative mass of an element",
    3: "less gas than the star formation needs",
    4: "abundance not finite",
    5: "parameter outside the physical range",
}


def parameter_space(log10_n_ia_mean: float = -2.89) -> ParameterSpace:
    """Return the six parameters in the order of the engine."""
    normal = Prior("normal", {"loc": -2.3, "scale": 0.3})
    return ParameterSpace(
        (
            Parameter(
                "alpha_imf", normal, r"\alpha_\mathrm{IMF}", "", "global",
                "high-mass slope of the initial mass function (Chabrier)",
            ),
            Parameter(
                "log10_n_ia", Prior("normal", {"loc": log10_n_ia_mean, "scale": 0.3}),
                r"\log_{10} N_\mathrm{Ia}", "dex", "global",
                "SNe Ia per solar mass formed, within 13.8 Gyr",
            ),
            Parameter(
                "log10_sfe", Prior("normal", {"loc": -0.3, "scale": 0.3}),
                r"\log_{10} \mathrm{SFE}", "dex(1/Gyr)", "local", "star-formation efficiency",
            ),
            Parameter(
                "log10_sfr_peak",
                Prior("truncnormal", {"loc": 0.55, "scale": 0.1, "low": 0.294}),
                r"\log_{10} \mathrm{SFR}_\mathrm{peak}", "dex(Gyr)", "local",
                "time of the peak of star formation",
            ),
            Parameter(
                "x_out", Prior("truncnormal", {"loc": 0.5, "scale": 0.1, "low": 0.0, "high": 1.0}),
                r"x_\mathrm{out}", "", "local", "fraction of stellar feedback lost to the corona",
            ),
            Parameter(
                "t_birth", Prior("uniform", {"low": 1.0, "high": 13.797}),
                r"T_\mathrm{birth}", "Gyr", "local", "birth time of the star since the Big Bang",
            ),
        ),
        version="buck2025-1",
    )  # fmt: skip


def observables(frame: Frame | None = None) -> tuple[Observable, ...]:
    """Return what is observed; default: eight abundances in the order of the engine's output."""
    return tuple(
        Observable(name, r"[\mathrm{{{}}}/\mathrm{{{}}}]".format(*_symbols(name)), "dex")
        for name in (frame or Frame()).names
    )


def _symbols(name: str) -> list[str]:
    return [part.capitalize() for part in name.split("_")]
