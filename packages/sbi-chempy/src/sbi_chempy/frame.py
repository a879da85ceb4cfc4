r"""Observed abundances and their reference element.

The engine gives [Fe/H] and [X/Fe]. With reference R the observed values are

.. math:: [X/R] = [X/Fe] - [R/Fe], \qquad [R/H] = [R/Fe] + [Fe/H],

so that R = Fe is the identity. R = Mg, which comes from core-collapse supernovae alone, is the
convention of Weinberg et al. 2019.

Errors in a frame with R other than Fe are correlated, because every value contains the noise of
[R/Fe]. Where the errors of [X/Fe] are independent, the noise of an observed value is
:math:`\mp n_s + n_X` with the shared part :math:`n_s \sim N(0, \sigma_s^2)` (plus for [R/H]) and
:math:`\sigma_s = \sigma_{[Fe/R]}`; the own part makes up the rest of the variance. Where
[Fe/R] is not observed, half of the smallest variance is shared, as for equal errors of all
[X/Fe].

References:
    | Weinberg et al. 2019, ApJ 874, 102
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import ABUNDANCES, ELEMENTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["OBSERVED", "Frame", "Reference"]

Reference = Literal["Fe", "Mg"]
OBSERVED = tuple(e for e in ELEMENTS if e != "H")
"""Elements that can be observed, in the order of the engine's output."""

_COLUMN = {name.split("_")[0]: k for k, name in enumerate(ABUNDANCES)}


@dataclass(frozen=True)
class Frame:
    """Elements in the order of the output, and the element they are relative to.

    Parameters
    ----------
    elements
        Symbols from :data:`OBSERVED`, no repeats. The reference may be absent: then [R/H] is
        not observed.
    reference
        ``"Fe"`` or ``"Mg"``.

    Raises
    ------
    ValueError
        If an element is unknown or repeated; the message lists those that the model follows.

    Example
    -------
    >>> Frame(("Fe", "Mg", "O"), "Mg").names
    ('fe_mg', 'mg_h', 'o_mg')
    """

    elements: tuple[str, ...] = OBSERVED
    reference: Reference = "Fe"

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(_symbol(e) for e in self.elements))
        if not self.elements:
            raise ValueError(f"elements is empty; choose from {', '.join(OBSERVED)}")
        twice = [e for e in self.elements if self.elements.count(e) > 1]
        if twice:
            raise ValueError(f"element '{twice[0]}' appears twice in elements")
        if self.reference not in ("Fe", "Mg"):
            raise ValueError(f"reference must be 'Fe' or 'Mg', got '{self.reference}'")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names: ``r_h`` of the reference, ``x_r`` of the others."""
        r = self.reference
        return tuple(f"{e}_{'H' if e == r else r}".lower() for e in self.elements)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Elements whose yields the observed values depend on, hydrogen left out."""
        reference = () if self.elements == (self.reference,) else (self.reference,)
        return tuple(dict.fromkeys((*self.elements, *reference)))

    @property
    def is_engine(self) -> bool:
        """True if the engine's output is observed unchanged."""
        return self.elements == OBSERVED and self.reference == "Fe"

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Observed values from the engine's eight, (k, 8) of 0, 1 and -1."""
        a = np.zeros((len(self.elements), len(ABUNDANCES)))
        for row, element in zip(a, self.elements, strict=True):
            row[_COLUMN[element]] = 1
            if self.reference != "Fe" and element == self.reference:
                row[_COLUMN["Fe"]] = 1
            elif self.reference != "Fe":
                row[_COLUMN["Fe"]] = 0  # [Fe/R] = -[R/Fe]: [Fe/H] takes no part
                row[_COLUMN[self.reference]] = -1
        return a

    def observed(self, x: Tensor) -> Tensor:
        """Return observed values (n, k) [dex] of the engine's output (n, 8)."""
        return x if self.is_engine else x @ x.new_tensor(self.matrix).T

    def errors(self, err: Tensor) -> Tensor:
        """Return standard deviations (n, k) [dex] for independent ones of [X/Fe], (n, 8)."""
        if self.is_engine:
            return err
        return (err**2 @ err.new_tensor(self.matrix**2).T).sqrt()

    def noise(self, err: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise (n, k) [dex] of these standard deviations, correlated as described.

        Parameters
        ----------
        err : (n, k) dex
            Where ``mask`` is False the value does not matter.
        mask : (n, k) bool
        generator
        """
        import torch  # not at the top: options are read before it is needed

        own = torch.randn(err.shape, generator=generator, device=err.device, dtype=err.dtype)
        if self.reference == "Fe":
            return err * own
        shape = (len(err), 1)
        shared = torch.randn(shape, generator=generator, device=err.device, dtype=err.dtype)
        variance = err**2
        part = self._shared_variance(variance, mask)
        sign = [1.0 if e == self.reference else -1.0 for e in self.elements]
        rest = torch.where(mask, variance - part, 0).clamp_min(0).sqrt()
        return err.new_tensor(sign) * part.sqrt() * shared + rest * own

    def _shared_variance(self, variance: Tensor, mask: Tensor) -> Tensor:
        """Variance of [R/Fe], at most that of any observed value, (n, 1)."""
        import torch  # not at the top: options are read before it is needed

        infinite = torch.full_like(variance, torch.inf)
        smallest = torch.where(mask, variance, infinite).amin(1, keepdim=True)
        part = 0.5 * smallest
        if "Fe" in self.elements:
            part = torch.where(mask[:, self.elements.index("Fe"), None], smallest, part)
        return torch.where(torch.isfinite(part), part, 0)


def _symbol(element: str) -> str:
    symbol = str(element).strip().capitalize()
    if symbol not in OBSERVED:
        raise ValueError(f"unknown element '{element}'; the model follows {', '.join(OBSERVED)}")
    return symbol
