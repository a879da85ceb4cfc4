r"""Chempy marginalised over several yield sets.

Simulations come from the yield sets in equal shares, all stars of a galaxy from the same one
(:class:`sbi_core.MixtureSimulator`), so that the inference includes the uncertainty of the yields.
The other options are those of ``chempy`` and apply to every set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from sbi_chempy.config import ChempyConfig
from sbi_chempy.simulator import ChempySimulator
from sbi_core import MixtureSimulator, Observations, Rng

__all__ = ["ChempyMarginalConfig", "ChempyMarginalSimulator"]


class ChempyMarginalConfig(ChempyConfig):
    """Options of :class:`ChempyMarginalSimulator`: those of ``chempy``, and the yield sets."""

    sets: tuple[str, ...] = Field(
        ("default", "iwamoto99-w7+limongi18-v150+karakas10", "iwamoto99-w7+nomoto13-net+karakas16"),
        min_length=2,
        description="Yield sets in equal shares, as in `yields` (which is not used).",
    )


class ChempyMarginalSimulator(MixtureSimulator):
    """Chempy with several yield sets.

    Parameters
    ----------
    config
        Options.
    """

    def __init__(self, config: ChempyMarginalConfig | None = None) -> None:
        self.config = config or ChempyMarginalConfig()
        shared = self.config.model_dump(exclude={"sets", "yields"})
        super().__init__(
            [ChempySimulator(ChempyConfig(yields=name, **shared)) for name in self.config.sets],
            name="chempy-marginal",
        )

    def observations_of(self, table: Any, source: str) -> Observations:
        """Return the stars of a table like ``chempy``."""
        return self.simulators[0].observations_of(table, source)

    def read_table(self, path: str | Path) -> Any:
        """Return the table of a file like ``chempy``."""
        return self.simulators[0].read_table(path)

    def example_observations(self, rng: Rng, n: int = 100) -> Observations:
        """Return the example stars of the first yield set."""
        return self.simulators[0].example_observations(rng, n)
