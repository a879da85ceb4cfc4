"""Batches of simulated or observed data.

Shapes: ``theta (n, d)``, ``x (n, ...)``, ``x_err`` and ``mask`` like ``x``, ``context (n, c)``,
``ok (n,)``, ``failure (n,)``. ``mask`` is True where a value was observed; NaN is allowed only
where it is False. Rows that failed stay in the batch, with a reason code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_core.data.alignment import aligned
from sbi_core.errors import SimulationError

__all__ = ["Batch"]

_FLOAT = ("theta", "x", "x_err", "context", "theta_set")


def _tensor(name: str, value: Any) -> Tensor | None:
    if value is None:
        return None
    tensor = value if isinstance(value, Tensor) else aligned(torch.as_tensor(np.asarray(value)))
    if name in ("mask", "ok", "theta_mask"):
        return tensor.to(torch.bool)
    if name in ("failure", "split_key"):
        return tensor.to(torch.int64)
    if tensor.is_complex():
        msg = f"batch field '{name}' is complex; give real and imaginary parts as columns"
        raise SimulationError(msg)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows of data, with or without the parameters that made them.

    Parameters
    ----------
    x
        Data, (n, ...); noise-free as ``simulate`` returns it, noisy after ``observe``.
    theta
        Parameters, (n, d), physical units.
    x_err
        One standard deviation, like ``x``; positive where observed.
    mask
        True where observed, like ``x``. Left out: everything is observed.
    context
        Conditioning that is not inferred, (n, c).
    ok
        Rows that succeeded. Left out: all.
    failure
        Reason code of rows that did not succeed; 0 elsewhere. Left out: all 0.
    split_key
        Unit of splitting, (n,) integers: rows with equal keys never sit on both sides of a
        split; -1, -2 and -3 name the side themselves (training, validation, test). Left out:
        the row number.
    theta_mask
        For set-valued parameters, (n, K): True where a member exists.
    theta_set
        Set-valued parameters (those with ``repeat``), (n, K, k), physical units, zero-padded.

    Raises
    ------
    SimulationError
        If shapes disagree; the message names field and shapes.
    """

    x: Tensor
    theta: Tensor | None = None
    x_err: Tensor | None = None
    mask: Tensor | None = None
    context: Tensor | None = None
    ok: Tensor = None  # type: ignore[assignment]  # filled in below when left out
    failure: Tensor = None  # type: ignore[assignment]
    split_key: Tensor | None = None
    theta_mask: Tensor | None = None
    theta_set: Tensor | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _tensor(f.name, getattr(self, f.name)))
        n, device = len(self.x), self.x.device
        for name, fill, dtype in (
            ("ok", torch.ones, torch.bool),
            ("failure", torch.zeros, torch.int64),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, fill(n, dtype=dtype, device=device))
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and len(value) != n:
                msg = f"batch field '{f.name}' has {len(value)} rows, x has {n}"
                raise SimulationError(msg)
        for name in ("x_err", "mask"):
            value = getattr(self, name)
            if value is not None and value.shape != self.x.shape:
                msg = (
                    f"batch field '{name}' has shape {tuple(value.shape)}, x {tuple(self.x.shape)}"
                )
                raise SimulationError(msg)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Batch:
        """Return the rows chosen by a slice, an index array or a boolean array."""
        if isinstance(rows, np.ndarray):
            rows = torch.as_tensor(np.ascontiguousarray(rows))
        if isinstance(rows, (int, np.integer)):
            row = range(len(self))[int(rows)]  # IndexError beyond the ends
            rows = slice(row, row + 1)
        chosen = {f.name: getattr(self, f.name) for f in fields(self)}
        picked: dict[str, Any] = {k: None if v is None else v[rows] for k, v in chosen.items()}
        return Batch(**picked)

    @classmethod
    def of_arrays(cls, **arrays: Any) -> Batch:
        """Build from arrays of any kind: numpy, lists, tensors."""
        tensors: dict[str, Any] = {name: _tensor(name, value) for name, value in arrays.items()}
        return cls(**tensors)

    @property
    def observed(self) -> Tensor:
        """The mask, all True when there is none; like ``x``."""
        return torch.ones_like(self.x, dtype=torch.bool) if self.mask is None else self.mask

    @property
    def succeeded(self) -> Batch:
        """The rows whose simulation succeeded."""
        return self if bool(self.ok.all()) else self[self.ok]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Move to a device; ``dtype`` applies to theta, x, x_err and context."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                value = value.to(device, dtype if f.name in _FLOAT else None)
            moved[f.name] = value
        return Batch(**moved)

    def with_(self, **changes: Any) -> Batch:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """Concatenate batches that carry the same fields.

        Raises
        ------
        SimulationError
            If a field is present in some and absent in others.
        """
        merged: dict[str, Any] = {}
        for f in fields(Batch):
            values = [getattr(b, f.name) for b in batches]
            if all(v is None for v in values):
                merged[f.name] = None
            elif any(v is None for v in values):
                msg = f"cannot join batches: field '{f.name}' is missing in some of them"
                raise SimulationError(msg)
            else:
                merged[f.name] = torch.cat(values)
        return Batch(**merged)

    def numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the fields that are present as numpy arrays."""
        present = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {k: v.detach().cpu().numpy() for k, v in present if v is not None}

    def __repr__(self) -> str:
        present = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        return f"Batch(n={len(self)}, x={tuple(self.x.shape[1:])}, {', '.join(present)})"
