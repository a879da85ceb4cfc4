"""Results as the commands print them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sbi_core.posterior import CombinedPosterior

__all__ = ["flag_sentences", "measured", "values_of"]


def measured(names: Iterable[str], mean: Iterable[float], sd: Iterable[float]) -> str:
    """Return ``"a = 1.0000 +- 0.1000, b = ..."``."""
    return ", ".join(f"{n} = {m:.4f} +- {s:.4f}" for n, m, s in zip(names, mean, sd, strict=True))


def values_of(combined: CombinedPosterior) -> str:
    """Return means and standard deviations of a combination."""
    return measured(combined.names, combined.mean, combined.sd)


def flag_sentences(flags: Iterable[str]) -> list[str]:
    """Return every flag with its meaning: ``"single_object: Only one object was given ..."``."""
    from sbi_core.report.view import FLAGS

    return [f"{flag}: {FLAGS[flag]}" if flag in FLAGS else flag for flag in flags]
