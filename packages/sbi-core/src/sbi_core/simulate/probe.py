"""Checks of what a simulator returns, and a trial of simulator and embedding on a few rows.

The trial runs before the first simulation of a run, so that a wrong shape costs a second and not
the simulations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sbi_core.components import Embedding, InputShape, Simulator
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, SbiError, SimulationError
from sbi_core.rng import seeded, stream
from sbi_core.training.networks import Standardizer, pooling_of

__all__ = ["check_batch", "check_theta", "try_components"]

_ROWS = 8


def check_batch(simulator: Simulator, batch: Any, rows: int, method: str = "draw") -> None:
    """Check type, rows, columns and finite values of noise-free simulations.

    Raises
    ------
    SimulationError
        If one of them is wrong; the message contains the remedy.
    """
    of = f"simulator '{simulator.name}': {method}"
    if not isinstance(batch, Batch):
        msg = f"{of} returned {type(batch).__name__}; return sbi_core.Batch(x=..., theta=...)"
        raise SimulationError(msg)
    if len(batch) != rows:
        msg = f"{of} returned {len(batch)} rows for {rows}; keep failed rows, with ok=False"
        raise SimulationError(msg)
    if batch.theta is None:
        msg = f"{of} returned no theta; return Batch(x=..., theta=theta)"
        raise SimulationError(msg)
    d = simulator.parameters.dim
    if batch.theta_mask is None and tuple(batch.theta.shape) != (rows, d):
        msg = (
            f"{of} returned theta of shape {tuple(batch.theta.shape)}, not ({rows}, {d}); return a "
            "column per parameter, in the order of `parameters`"
        )
        raise SimulationError(msg)
    if batch.x.ndim < 2:
        msg = f"{of} returned x of shape {tuple(batch.x.shape)}; return (rows, columns)"
        raise SimulationError(msg)
    names = simulator.observables
    if names and batch.x.ndim == 2 and batch.x.shape[1] != len(names):
        msg = (
            f"{of} returned x with {batch.x.shape[1]} columns, but `observables` names "
            f"{len(names)}; name every column, or none for spectra"
        )
        raise SimulationError(msg)
    good = batch.succeeded
    if bool((~torch.isfinite(good.x) & good.observed).any()):
        msg = (
            f"{of} returned x that is not finite in rows marked ok; return ok=False (and a code in "
            "`failure`) for such rows, or mask=False for missing values"
        )
        raise SimulationError(msg)
    if not bool(torch.isfinite(batch.theta).all()):
        msg = f"{of} returned theta that is not finite"
        raise SimulationError(msg)


def check_theta(simulator: Simulator, rows: int, seed: int = 0) -> Batch | None:
    """Check that ``simulate`` returns the theta it is given, and return its batch.

    None where only the simulator itself can draw theta.

    Raises
    ------
    SimulationError
        If theta changes; the message names row and values.
    """
    space = simulator.parameters
    if space.members or not all(p.prior.has_density for p in space):
        return None
    theta = space.sample(rows, stream(seed, "probe"))
    batch = simulator.simulate(theta.copy(), stream(seed, "probe", "simulate"))
    check_batch(simulator, batch, rows, "simulate")
    assert batch.theta is not None
    got = batch.theta.double().numpy()
    same = np.isclose(got, theta, rtol=1e-5, atol=1e-6).all(1)
    if not same.all():
        k = int(np.argmin(same))
        msg = (
            f"simulator '{simulator.name}': simulate returned theta {got[k].tolist()} in row {k}, "
            f"but was given {theta[k].tolist()}; return theta=theta and assign nothing into it"
        )
        raise SimulationError(msg)
    return batch


def try_components(simulator: Simulator, embedding: Embedding, seed: int) -> None:
    """Simulate, observe and embed a few rows.

    Raises
    ------
    SimulationError
        If the simulator returns something else than it should.
    ConfigError
        If the embedding does not work with the data.
    """
    batch = check_theta(simulator, _ROWS, seed)
    if batch is None:
        batch = simulator.draw(_ROWS, stream(seed, "probe", "draw"))
        check_batch(simulator, batch, _ROWS)
    clean = batch.succeeded
    if len(clean) == 0:
        return
    seen: Any = simulator.observe(clean, stream(seed, "probe", "observe"))
    if not isinstance(seen, Batch) or len(seen) != len(clean):
        msg = (
            f"simulator '{simulator.name}': observe returned {_described(seen)} for a Batch of "
            f"{len(clean)} rows; return batch.with_(x=..., x_err=..., mask=...)"
        )
        raise SimulationError(msg)
    _try_embedding(embedding, seen, seed)


def _described(value: Any) -> str:
    return f"{len(value)} rows" if isinstance(value, Batch) else type(value).__name__


def _try_embedding(embedding: Embedding, batch: Batch, seed: int) -> None:
    shape = InputShape.of(batch)
    name = f"embedding '{embedding.name}'"
    try:
        with seeded(seed), torch.no_grad():
            module = embedding.build(shape).eval()
            standardizer = Standardizer(shape, pooling_of(shape, embedding)).fit(batch)
            inputs = standardizer(batch.to("cpu", torch.float32))
            out = module(*inputs)
    except SbiError:
        raise
    except Exception as error:
        msg = f"{name} does not work with {shape}: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    width = getattr(module, "out_features", None)
    if tuple(out.shape) != (len(batch), width):
        msg = (
            f"{name} returns {tuple(out.shape)} for {len(batch)} rows, and its out_features is "
            f"{width}; return (n, out_features)"
        )
        raise ConfigError(msg)
