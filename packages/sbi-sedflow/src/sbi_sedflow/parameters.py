r"""The twelve parameters and their priors; eleven degrees of freedom.

In the variant ``corrected`` beta is flat on the simplex (Dirichlet(1,1,1,1), mean 1/4 each); in
``provabgs`` its stick-breaking fractions are uniform (mean 1/2, 1/4, 1/8, 1/8), although the papers
call this prior flat. ``logmstar`` is mass *formed*.

A flat beta has few quiescent galaxies: one basis makes nearly all young stars, and its share is
rarely small. With ``sfh_prior = "ssfr"`` beta has the prior Dirichlet(a, a, a, b), a = 0.1, and
b = 0.3 of the oldest basis. Small shares follow :math:`p(\ln\beta) \propto \beta^a`: with these
bases the logarithm of the specific SFR is spread over -15 to -9.5, as a maximum-entropy prior in
that quantity would be, and the density of beta remains known in closed form. The larger exponent of
the oldest basis is for galaxies that formed nearly all of their stars early.

References:
    | Hahn & Melchior 2022, ApJ 938, 11, table 1
    | Handley & Millea 2019, Entropy 21, 272 (maximum-entropy priors of derived quantities)
    | Leja et al. 2019, ApJ 876, 3 (Dirichlet priors of histories, a = 0.2 and 1)
"""

from __future__ import annotations

from typing import Literal

from sbi_core import Observable, Parameter, ParameterSpace, Prior
from sbi_sedflow.bandsets import BandSet
from sbi_sedflow.forward import Variant

__all__ = ["CITATIONS", "CONTEXT", "FAILURES", "observables_of", "parameter_space"]

CONTEXT = ("z", "distance_modulus")
FAILURES = {0: "ok", 1: "flux not finite"}
_LABELS = {"F": "FUV", "N": "NUV"}
CITATIONS = (
    "Hahn & Melchior 2022, ApJ 938, 11 (SEDflow)",
    "Hahn et al. 2023, ApJ 945, 16 (PROVABGS)",
    "Charlot & Fall 2000, ApJ 539, 718; Calzetti et al. 2000, ApJ 533, 682; "
    "Kriek & Conroy 2013, ApJL 775, L16 (dust)",
    "Blanton et al. 2011, AJ 142, 31 (NASA-Sloan Atlas, photometric errors)",
    "Lupton, Gunn & Szalay 1999, AJ 118, 1406 (asinh magnitudes)",
    "Planck Collaboration 2014, A&A 571, A16 (cosmology)",
)
_GAMMA = {"low": 4.5e-5, "high": 1.5e-2}
_CONCENTRATION = {"flat": (1.0, 1.0), "ssfr": (0.1, 0.3)}  # Dirichlet: all bases, but the oldest


def observables_of(bands: BandSet) -> tuple[Observable, ...]:
    """Return an asinh magnitude per band."""
    return tuple(
        Observable(f"lupt_{b}", label=rf"\mu_\mathrm{{{_LABELS.get(b, b)}}}", unit="mag")
        for b in bands.names
    )


def parameter_space(
    variant: Variant = "corrected",
    *,
    n_sfh: int = 4,
    n_zh: int = 2,
    t_burst: Literal["uniform", "loguniform"] = "uniform",
    sfh_prior: Literal["flat", "ssfr"] = "flat",
) -> ParameterSpace:
    """Return the parameters in the order of :data:`~sbi_sedflow.forward.THETA`.

    Parameters
    ----------
    variant
        Selects the prior of beta.
    n_sfh, n_zh
        Number of star-formation and metallicity bases.
    t_burst
        Prior of the time of the burst.
    sfh_prior
        Prior of beta in the variant ``corrected``.
    """
    if variant == "corrected":
        others, oldest = _CONCENTRATION[sfh_prior]
        beta = Prior("dirichlet", {"alpha": [*[others] * (n_sfh - 1), oldest]})
    else:
        beta = Prior("sticks", {"a": [1.0] * (n_sfh - 1), "b": [1.0] * (n_sfh - 1)})
    gammas = tuple(
        Parameter(
            f"gamma{k + 1}",
            Prior("loguniform", _GAMMA),
            rf"\gamma_{k + 1}",
            description="coefficient of a metallicity basis",
        )
        for k in range(n_zh)
    )
    parameters = (
        Parameter(
            "logmstar",
            Prior("uniform", {"low": 7.0, "high": 12.5}),
            r"\log_{10} M_\star",
            "dex(Msun)",
            description="stellar mass formed",
        ),
        Parameter("beta", beta, r"\beta", description="coefficients of star-formation bases"),
        Parameter(
            "fburst",
            Prior("uniform", {"low": 0.0, "high": 1.0}),
            r"f_\mathrm{burst}",
            description="share of the mass formed in the burst",
        ),
        Parameter(
            "tburst",
            Prior(t_burst, {"low": 0.01, "high": 13.27}),
            r"t_\mathrm{burst}",
            "Gyr",
            description="lookback time of the burst",
        ),
        *gammas,
        Parameter(
            "tau_bc",
            Prior("uniform", {"low": 0.0, "high": 3.0}),
            r"\tau_\mathrm{BC}",
            description="optical depth of birth clouds at 5500 Angstrom",
        ),
        Parameter(
            "tau_ism",
            Prior("uniform", {"low": 0.0, "high": 3.0}),
            r"\tau_\mathrm{ISM}",
            description="optical depth of diffuse dust at 5500 Angstrom",
        ),
        Parameter(
            "n_dust",
            Prior("uniform", {"low": -2.0, "high": 1.0}),
            r"n_\mathrm{dust}",
            description="slope added to the starburst curve; above 0.447 its bump is negative",
        ),
    )
    name = f"{variant}-1" if sfh_prior == "flat" else f"{variant}-{sfh_prior}-2"
    return ParameterSpace(parameters, version=f"sedflow-{name}")
