"""Names that surveys and users give the columns of fluxes and magnitudes.

The first row that a band fits is read.

========================= ============================== ================================
value                     error                          tables that use it
========================= ============================== ================================
``flux_b``                ``flux_err_b, flux_ivar_b``    ours; Legacy Surveys
``mag_b``                 ``mag_err_b``                  ours
``dered_b``               ``err_b, modelMagErr_b``       SDSS, corrected for extinction
``modelFlux_b`` ...       ``modelFluxIvar_b`` ...        SDSS; also cModel, petro, psf
``modelMag_b`` ...        ``modelMagErr_b`` ...          SDSS; also cModel, petro, psf
``elpetro_flux_b``        ``elpetro_flux_ivar_b``        NSA columns of MaNGA
``b_flux``                ``b_fluxerr``                  GALEX (uJy)
``b_cModelFlux`` ...      ``b_cModelFluxErr`` ...        LSST (nJy); also psf, kron
``b_cmodel_mag`` ...      ``b_cmodel_magerr`` ...        HSC; also psf, kron
``mag_auto_b``            ``magerr_auto_b``              DES
``flux_bt``               ``flux_err_bt``                GAMA (Jy)
``bMeanKronMag, bKmag``   ``bMeanKronMagErr, e_bKmag``   Pan-STARRS; also PSF
``b_m_ext, b_m_k20fe``    ``b_msig_ext`` ...             2MASS (Vega); also ``b_m``
``bmpro``                 ``bsigmpro``                   AllWISE (Vega)
``b_mag, bmag``           ``b_magerr, e_bmag``           GALEX, VizieR
``b``                     ``err_b, e_b``                 SDSS
========================= ============================== ================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sbi_sedflow.constants import BANDS

__all__ = [
    "BARE",
    "FLUX",
    "LAYOUTS",
    "MAG",
    "OTHER_BANDS",
    "SURVEYS",
    "VECTORS",
    "VEGA_BANDS",
    "Layout",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """How columns are named; ``{}`` stands for the band.

    Layouts of one ``family`` are measurements of one survey: the first that a table has is read,
    with a note on the others. Between families the user must choose.
    """

    value: str
    error: tuple[str, ...]
    kind: Literal["flux", "mag"]
    ivar: tuple[str, ...] = ()
    corrected: bool | Literal["maybe"] = False  # for Galactic extinction, by definition
    sdss: bool = False
    legacy: bool = False
    unit: str = ""  # by definition of the survey
    aperture: str = ""
    vega: bool = False  # by definition of the survey
    survey: str = ""
    point: bool = False  # fitted with a point source

    @property
    def family(self) -> str:
        """Its survey, or the form of the names."""
        return self.survey or self.value

    @property
    def choice(self) -> str:
        """Value of simulator.photometry that chooses it, or ""."""
        return self.aperture or {"flux_{}": "flux", "mag_{}": "mag"}.get(self.value, "")


def _sdss(aperture: str) -> tuple[Layout, Layout]:
    a = aperture
    ivar = (f"{a}fluxivar_{{}}", f"{a}flux_ivar_{{}}")
    error = (f"{a}magerr_{{}}", f"{a}mag_{{}}_err", f"{a}mag_err_{{}}", f"{a}mag_{{}}err")
    return (
        Layout(
            f"{a}flux_{{}}", (f"{a}fluxerr_{{}}",), "flux", ivar, sdss=True, unit="nmgy",
            aperture=a, survey="sdss", point=a == "psf",
        ),
        Layout(f"{a}mag_{{}}", error, "mag", sdss=True, aperture=a, survey="sdss",
               point=a == "psf"),
    )  # fmt: skip


def _rubin(aperture: str) -> tuple[Layout, ...]:
    """LSST and HSC (which has the same software), and Pan-STARRS: the band stands first."""
    a = aperture
    of: dict[str, Any] = {"aperture": a, "survey": "rubin", "point": a == "psf"}
    names = [f"{{}}_{a}", f"{{}}_free_{a}"]
    flux = [Layout(f"{n}flux", (f"{n}fluxerr",), "flux", unit="nJy", **of) for n in names]
    vizier = f"{{}}{a[0]}mag"  # gKmag
    return (
        *flux,
        Layout(f"{{}}_{a}_mag",
                (f"{{}}_{a}_magerr", f"{{}}_{a}_magsigma", f"{{}}_{a}_mag_err"), "mag", **of),
        Layout(f"{{}}_{a}mag", (f"{{}}_{a}magerr",), "mag", **of),
        Layout(f"{{}}mean{a}mag", (f"{{}}mean{a}magerr",), "mag", **of),
        Layout(f"{{}}{a}mag", (f"{{}}{a}magerr", f"e_{{}}{a}mag"), "mag", **of),
        *((Layout(vizier, (f"e_{vizier}",), "mag", **of),) if a == "kron" else ()),
    )  # fmt: skip


def _errors(value: str) -> tuple[str, ...]:
    """Return the names of the errors of ``flux_{}`` or ``mag_{}``."""
    v = value
    return (
        f"{v}_err_{{}}", f"{v}err_{{}}", f"{v}_{{}}_err", f"e_{v}_{{}}", f"{v}_error_{{}}",
        f"{v}_{{}}_error", f"{v}_{{}}err", f"err_{v}_{{}}", f"e{v}_{{}}", f"sigma_{v}_{{}}",
        f"{v}_sigma_{{}}", f"{v}_{{}}_sigma", f"{v}_unc_{{}}", f"{v}_{{}}_unc",
    )  # fmt: skip


BARE = Layout(
    "{}",
    ("err_{}", "e_{}", "{}_err", "{}err", "{}_error", "{}_unc", "{}_sigma", "sigma_{}"),
    "mag",
    ("{}_ivar", "ivar_{}"),
)
FLUX = Layout(
    "flux_{}",
    _errors("flux"),
    "flux",
    ("flux_ivar_{}", "ivar_flux_{}", "flux_{}_ivar"),
    corrected="maybe",
)
MAG = Layout("mag_{}", _errors("mag"), "mag", corrected="maybe")
LAYOUTS = (
    FLUX,
    MAG,
    Layout("dered_{}", ("err_{}", "modelmagerr_{}", "e_dered_{}", "dered_err_{}", "dered_{}_err"),
            "mag", corrected=True, sdss=True, aperture="model", survey="sdss"),
    *(layout for a in ("model", "cmodel", "petro", "psf") for layout in _sdss(a)),
    *(
        Layout(f"{a}_flux_{{}}", (), "flux", (f"{a}_flux_ivar_{{}}",), sdss=True, unit="nmgy",
                aperture=a, survey="nsa")
        for a in ("elpetro", "sersic")
    ),
    *(layout for a in ("cmodel", "kron", "psf") for layout in _rubin(a)),
    Layout("mag_auto_{}", ("magerr_auto_{}", "mag_auto_err_{}"), "mag", aperture="auto",
           survey="auto"),
    Layout("flux_auto_{}", ("fluxerr_auto_{}", "flux_auto_err_{}"), "flux", aperture="auto",
           survey="auto"),
    Layout("flux_{}t", ("flux_err_{}t",), "flux", unit="Jy"),
    Layout("{}_m_ext", ("{}_msig_ext",), "mag", vega=True, survey="2mass"),
    Layout("{}_m_k20fe", ("{}_msig_k20fe",), "mag", vega=True, survey="2mass"),
    Layout("{}_m", ("{}_msigcom", "{}_cmsig"), "mag", vega=True, survey="2mass", point=True),
    Layout("{}gmag", ("{}gerr",), "mag", vega=True, survey="wise"),
    Layout("{}mpro", ("{}sigmpro",), "mag", vega=True, survey="wise", point=True),
    Layout("{}_flux", ("{}_fluxerr", "{}_flux_err", "e_{}_flux"), "flux", ("{}_flux_ivar",),
           survey="galex"),
    Layout("{}_mag", ("{}_magerr", "{}_mag_err", "e_{}_mag"), "mag", survey="galex"),
    Layout("{}mag", ("e_{}mag", "{}magerr", "{}mag_err"), "mag"),
    BARE,
)  # fmt: skip
SURVEYS = {"legacy": "the Legacy Surveys", "sdss": "SDSS"}
VEGA_BANDS = ("j", "h", "ks", "w1", "w2", "w3", "w4")
OTHER_BANDS = ("fuv", "nuv", "u", "w1", "w2", "w3", "w4", "y", "j", "h", "k", "ks")
VECTORS = {  # columns with a value per band: name of the parts, bands
    **{
        f"{a}flux{end}": (f"{a}flux{end.replace('_', '')}_{{}}", "ugriz")
        for a in ("model", "cmodel", "petro", "psf")
        for end in ("", "_ivar")
    },
    **{
        f"{prefix}{a}_flux{end}": (f"{a}_flux{end}_{{}}", "".join(BANDS))
        for a in ("elpetro", "sersic")
        for end in ("", "_ivar")
        for prefix in ("", "nsa_")
    },
    "decam_flux": ("flux_{}", "ugrizY"),
    "decam_flux_ivar": ("flux_ivar_{}", "ugrizY"),
    "decam_mw_transmission": ("mw_transmission_{}", "ugrizY"),
    "extinction": ("extinction_{}", "ugriz"),
    "nsa_extinction": ("extinction_{}", "".join(BANDS)),
}
