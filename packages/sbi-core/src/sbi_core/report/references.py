"""References of a run: the software, its methods, and the references of the plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["METHODS", "bibtex", "references"]

METHODS = {  # name in tables: address
    "SBC": "https://arxiv.org/abs/1804.06788",
    "TARP": "https://arxiv.org/abs/2302.03026",
}
_TITLE = "sbi-astro: plugin-based simulation-based inference for astronomy"
_AUTHORS = "The sbi-astro developers"
_SBC = (
    "Talts et al. 2018, arXiv:1804.06788 (simulation-based calibration)",
    "Säilynoja, Bürkner & Vehtari 2022, arXiv:2103.10522 (confidence bands of rank plots)",
)
_TARP = "Lemos et al. 2023, arXiv:2302.03026 (TARP)"
_ZUKO = "Rozet et al., zuko, https://github.com/probabilists/zuko (normalising flows)"
_SBI = "Tejero-Cantero et al. 2020, doi:10.21105/joss.02505 (sbi)"
_CORNER = "Foreman-Mackey 2016, doi:10.21105/joss.00024 (corner plots)"


def references(
    versions: Mapping[str, str], own: Iterable[str], *, calibrated: bool, estimator: str = ""
) -> list[str]:
    """Return what to cite: the software, the plugin's references, and the methods used.

    Parameters
    ----------
    versions
        Distributions and their versions.
    own
        References of the plugin.
    calibrated
        True if the calibration was tested.
    estimator
        Registry name of the density estimator.
    """
    number = versions.get("sbi-core", "")
    software = f"{_AUTHORS}, {_TITLE}{f', version {number}' if number else ''}"
    backend = _SBI if estimator.startswith("sbi") else _ZUKO
    methods = [*((*_SBC, _TARP) if calibrated else ()), backend, _CORNER]
    return list(dict.fromkeys([software, *own, *methods]))


def bibtex(versions: Mapping[str, str], year: str) -> str:
    """Return the BibTeX entry of the software."""
    fields: dict[str, Any] = {
        "author": f"{{{_AUTHORS}}}",
        "title": f"{{{_TITLE}}}",
        "version": versions.get("sbi-core", ""),
        "year": year,
    }
    lines = [f"  {key:<7} = {{{value}}}," for key, value in fields.items() if value]
    return "\n".join(["@software{sbi-astro,", *lines, "}"])
