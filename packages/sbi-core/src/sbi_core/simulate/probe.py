"""Checks of a simulator and what it returns, and a trial of it and the embedding on a few rows.

The trial runs before the first simulation of a run, so that a wrong shape costs a second and not
the simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch

from sbi_core.components import Combiner, Embedding, InputShape, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable
from sbi_core.errors import ConfigError, SbiError, SimulationError, counted, first_line
from sbi_core.priors.space import ParameterSpace, as_float64, is_unit
from sbi_core.rng import seeded, stream
from sbi_core.simulate.nuisances import OUTLIERS, POPULATION, SELECTION, ZERO_POINTS
from sbi_core.training.networks import Standardizer, pooling_of

__all__ = [
    "check_batch",
    "check_copies",
    "check_description",
    "check_observed",
    "check_theta",
    "observed",
    "refuse_other_theta",
    "try_components",
]

_ROWS = 8
_MANY = 512  # rows in which copies are searched, as far as they take
_SECONDS = 0.5
_COUNTED = ("fixed", "integer", "discrete")  # families whose draws repeat anyway


def check_description(simulator: Simulator) -> None:
    """Check the attributes by which a simulator describes itself.

    Raises
    ------
    SimulationError
        If one of them is wrong.
    """
    kind = type(simulator).__name__
    for name in ("name", "version"):
        value = getattr(simulator, name, None)
        if not isinstance(value, str) or not value:
            msg = f"simulator {kind}: '{name}' is {value!r}; write {name} = '...' in the class"
            raise SimulationError(msg)
    space = getattr(simulator, "parameters", None)
    if not isinstance(space, ParameterSpace):
        msg = (
            f"simulator '{simulator.name}': `parameters` is {type(space).__name__}; write "
            "parameters = ParameterSpace((Parameter(...), ...))"
        )
        raise SimulationError(msg)
    if all(p.prior.family == "fixed" for p in (*space, *space.members)):
        msg = f"simulator '{simulator.name}': all parameters are fixed; nothing can be inferred"
        raise SimulationError(msg)
    names: Any = simulator.observables
    if not isinstance(names, (tuple, list)) or any(not isinstance(o, Observable) for o in names):
        msg = (
            f"simulator '{simulator.name}': `observables` must be a tuple of Observable(...), "
            "empty for images and spectra"
        )
        raise SimulationError(msg)
    _check_observables(simulator)
    _check_nuisances(simulator)


def _check_observables(simulator: Simulator) -> None:
    """Check names and units of the columns of the data."""
    who = f"simulator '{simulator.name}': "
    names = [o.name for o in simulator.observables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{who}observables must have different names; more than once: {', '.join(twice)}"
        raise SimulationError(msg)
    for o in () if simulator.fixed_set else simulator.observables:  # files may have any
        if o.unit and not is_unit(o.unit):
            msg = (
                f"{who}observable '{o.name}': '{o.unit}' is not a unit of astropy; write e.g. "
                "'mag', or leave it empty"
            )
            raise SimulationError(msg)


def _check_nuisances(simulator: Simulator) -> None:
    """Check what a simulator says about nuisance parameters."""
    who = f"simulator '{simulator.name}': "
    declared: dict[str, Any] = dict(simulator.nuisances)
    for family, space in declared.items():
        if not isinstance(space, ParameterSpace):
            msg = f"{who}nuisances['{family}'] must be a ParameterSpace, not {type(space).__name__}"
            raise SimulationError(msg)
        if family in (POPULATION, ZERO_POINTS, OUTLIERS, SELECTION):
            msg = f"{who}'{family}' is a family that every simulator has; name yours differently"
            raise SimulationError(msg)
        other = [p.name for p in space.parameters if p.scope != "nuisance"]
        if other:
            msg = f"{who}'{other[0]}' in nuisances['{family}'] needs scope = 'nuisance'"
            raise SimulationError(msg)
    names = [p.name for p in simulator.parameters.parameters if p.scope == "local"]
    for name, widths in simulator.population.items():
        if name not in names:
            msg = f"{who}population names '{name}', which is no local parameter ({names})"
            raise SimulationError(msg)
        if np.shape(widths) != (2,) or not np.all(np.asarray(widths) >= 0):
            msg = f"{who}population['{name}'] must be two numbers, at least 0: of shift and width"
            raise SimulationError(msg)
    zero = simulator.zero_point
    if np.ndim(zero) or not float(zero) >= 0:
        msg = f"{who}zero_point must be one number, at least 0, got {zero!r}"
        raise SimulationError(msg)
    known = [o.name for o in simulator.observables]
    for name in simulator.selected_by:
        if name not in known:
            msg = f"{who}selected_by names '{name}', which is no observable ({known})"
            raise SimulationError(msg)


def check_batch(simulator: Simulator, batch: Any, rows: int, method: str = "") -> None:
    """Check type, rows, columns and finite values of noise-free simulations.

    Raises
    ------
    SimulationError
        If one of them is wrong; the message contains the remedy.
    """
    method = method or ("draw" if _draws(simulator) else "simulate")
    of = f"simulator '{simulator.name}': {method}"
    if not isinstance(batch, Batch):
        msg = f"{of} returned {type(batch).__name__}; return sbi_core.Batch(x=..., theta=...)"
        raise SimulationError(msg)
    if len(batch) != rows:
        got = counted(len(batch), "row")
        msg = f"{of} returned {got} for {rows}; keep failed rows, with ok=False"
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
    if batch.x[0].numel() == 0:
        msg = f"{of} returned x of shape {tuple(batch.x.shape)}: there is nothing to learn from"
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

    None where only the simulator itself can draw theta, or has only stored simulations.

    Raises
    ------
    SimulationError
        If theta changes; the message names row and values.
    """
    space = simulator.parameters
    if space.members or not all(p.prior.has_density for p in space):
        return None
    theta = space.sample(rows, stream(seed, "probe"))
    try:
        batch = simulator.simulate(theta.copy(), stream(seed, "probe", "simulate"))
    except Exception:
        if _draws(simulator):
            return None
        raise
    check_batch(simulator, batch, rows, "simulate")
    refuse_other_theta(simulator, batch, theta)
    return batch


def refuse_other_theta(simulator: Simulator, batch: Batch, theta: Any) -> None:
    """Check that a batch of ``simulate`` has the theta that was given.

    Raises
    ------
    SimulationError
        If theta changed; the message names row and values.
    """
    assert batch.theta is not None
    got, given = as_float64(batch.theta), as_float64(theta)
    same = np.isclose(got, given, rtol=1e-5, atol=1e-6).all(1)
    if not same.all():
        k = int(np.argmin(same))
        msg = (
            f"simulator '{simulator.name}': simulate returned theta {got[k].tolist()} in row {k}, "
            f"but was given {given[k].tolist()}; return theta=theta and assign nothing into it"
        )
        raise SimulationError(msg)


def observed(simulator: Simulator, clean: Batch, rng: Rng) -> Batch:
    """Return what ``observe`` returns for noise-free simulations.

    Raises
    ------
    SimulationError
        If it fails; the message has the number of rows.
    """
    try:
        return simulator.observe(clean, rng)
    except (SbiError, MemoryError):
        raise
    except Exception as error:
        msg = (
            f"simulator '{simulator.name}': observe raised {type(error).__name__}: "
            f"{first_line(error)} for a Batch of {counted(len(clean), 'row')}"
        )
        raise SimulationError(msg) from error


def check_observed(simulator: Simulator, seen: Any, clean: Batch) -> None:
    """Check what ``observe`` returns for noise-free simulations.

    Raises
    ------
    SimulationError
        If rows, columns, errors or mask are wrong.
    """
    of = f"simulator '{simulator.name}': observe"
    if not isinstance(seen, Batch) or len(seen) != len(clean):
        msg = (
            f"{of} returned {_described(seen)} for a Batch of "
            f"{counted(len(clean), 'row')}; return batch.with_(x=..., x_err=..., mask=...)"
        )
        raise SimulationError(msg)
    check_batch(simulator, seen, len(clean), "observe")
    values = seen.succeeded.x[seen.succeeded.observed]
    if not bool(torch.isfinite(values.float()).all()):
        msg = (
            f"{of} returned x up to {float(values.abs().max()):.3g}, but networks take at most "
            f"{torch.finfo(torch.float32).max:.3g} (single precision); rescale x or take logarithms"
        )
        raise SimulationError(msg)
    assert seen.theta is not None
    assert clean.theta is not None
    if not torch.equal(seen.theta, clean.theta):
        msg = f"{of} changed theta; return batch.with_(x=..., x_err=..., mask=...)"
        raise SimulationError(msg)
    if seen.x_err is not None:
        good = torch.isfinite(seen.x_err) & (seen.x_err > 0)
        if bool((~good & seen.observed).any()):
            msg = f"{of} returned x_err that is not positive; it is one standard deviation"
            raise SimulationError(msg)


def check_copies(simulator: Simulator, seed: int = 0, *, shards: int = 2) -> None:
    """Check that simulations differ from each other, within a shard and between shards.

    Copies that fall into training and test sets make tests optimistic. Only simulators that
    override ``draw``, and priors that are only samplers, can return them.

    Raises
    ------
    SimulationError
        If there are copies whose ``split_key`` differs.
    """
    space = simulator.parameters
    if all(p.prior.family in _COUNTED for p in (*space, *space.members)):
        return
    parts: list[Batch] = []
    if _draws(simulator):
        start = perf_counter()
        simulator.draw(_ROWS, stream(seed, "probe", "time"))
        affordable = _ROWS * _SECONDS / max(perf_counter() - start, 1e-9)
        rows = int(min(_MANY, max(_ROWS, affordable)))
        for k in range(min(shards, 2)):
            parts.append(simulator.draw(rows, stream(seed, "probe", "copies", k)))
    elif not all(p.prior.has_density for p in space):
        for k in range(2):
            theta = space.sample(_MANY, stream(seed, "probe", "copies", k))
            parts.append(Batch.of_arrays(x=theta[:, :0], theta=theta))
    copies: dict[bytes, int] = {}
    twice, example = 0, ""
    for number, part in enumerate(parts):
        assert part.theta is not None
        content = torch.cat([part.theta.double(), part.x.flatten(1).double()], 1).numpy()
        keys = range(len(part)) if part.split_key is None else part.split_key.tolist()
        for row, key in zip(content, keys, strict=True):
            own = key if part.split_key is not None else (number << 32) + key
            if copies.setdefault(row.tobytes(), own) != own:
                twice, example = twice + 1, f"{row[: space.dim].tolist()}"
    if twice > 1:
        total = sum(map(len, parts))
        msg = (
            f"simulator '{simulator.name}': {twice} of {total} simulations are copies of others "
            f"(e.g. theta = {example}), which would be both in the training and in the test set; "
            "return Batch(split_key=...) with the number of the stored simulation, or use each "
            "once, in one shard (simulate.shard_size >= simulate.n)"
        )
        raise SimulationError(msg)


def try_components(
    simulator: Simulator,
    embedding: Embedding,
    seed: int,
    *,
    shards: int = 2,
    combiners: Sequence[Combiner] = (),
) -> None:
    """Simulate, observe and embed a few rows; see if combiners take such data.

    Raises
    ------
    SimulationError
        If the simulator returns something else than it should.
    ConfigError
        If the embedding does not work with the data.
    ObservationError
        If a combiner does not take such data.
    """
    batch = check_theta(simulator, _ROWS, seed)
    if batch is None:
        batch = simulator.draw(_ROWS, stream(seed, "probe", "draw"))
        check_batch(simulator, batch, _ROWS)
    check_copies(simulator, seed, shards=shards)
    clean = batch.succeeded
    if len(clean) == 0:
        return
    seen = observed(simulator, clean, stream(seed, "probe", "observe"))
    check_observed(simulator, seen, clean)
    for combiner in combiners:
        combiner.check_shape(InputShape.of(seen))
    if not bool(seen.observed.any()):  # perhaps by chance
        many = clean[torch.arange(len(clean)).repeat(_MANY // len(clean))]
        if not bool(simulator.observe(many, stream(seed, "probe", "mask")).observed.any()):
            msg = (
                f"simulator '{simulator.name}': all values of all rows are masked; mask is True "
                "where a value was observed"
            )
            raise SimulationError(msg)
    _try_embedding(embedding, seen, seed)


def _draws(simulator: Simulator) -> bool:
    """Return whether theta and data are drawn by code of the simulator."""
    return type(simulator).draw is not Simulator.draw


def _described(value: Any) -> str:
    return counted(len(value), "row") if isinstance(value, Batch) else type(value).__name__


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
    if not isinstance(out, torch.Tensor):
        msg = f"{name} returns {type(out).__name__}; return a torch tensor (n, out_features)"
        raise ConfigError(msg)
    width = getattr(module, "out_features", None)
    if tuple(out.shape) != (len(batch), width):
        msg = (
            f"{name} returns {tuple(out.shape)} for {len(batch)} rows, and its out_features is "
            f"{width}; return (n, out_features)"
        )
        raise ConfigError(msg)
