"""A fixed set of simulations as a simulator: it hands out what there is, each row once.

Copies must not sit in the training and in the test set: simulations with the same parameters, the
same data or the same group (``group_column``) share their ``split_key``. The same data are no sign
of a copy where they are whole numbers, or where more than 1 % of the simulations have them.
Copies whose numbers were rounded differently are found by :mod:`sbi_core.simulate.copies`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sbi_core.components import Rng, Simulator
from sbi_core.data.arrays import numbers_of
from sbi_core.data.batch import Batch
from sbi_core.data.gate import open_hdf5, read_npz
from sbi_core.data.observations import Observable, Observations, holds_arrays
from sbi_core.data.simulations import Simulations, open_simulations
from sbi_core.data.tables import (
    ColumnReader,
    checked,
    observations_from_columns,
    unit_factor,
)
from sbi_core.errors import ConfigError, ObservationError, SimulationError, counted, near_matches
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, splitmix64, torch_generator
from sbi_core.simulate.copies import NearCopies
from sbi_core.simulate.plausibility import Digits, PriorFollowed
from sbi_core.training.rows import snap_to_support
from sbi_core.validation import Options

__all__ = ["NEEDS_SIMULATOR", "ArraySimulator", "SimulationsConfig", "split_keys", "units_of"]

F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
_BLOCK_NUMBERS = 1 << 22  # that are read at a time
_FREQUENT = 0.01  # share of the simulations above which equal data are no copies
_COUNTED = ("fixed", "integer", "discrete")  # families whose draws repeat anyway
NEEDS_SIMULATOR = (
    "{} needs new simulations, but the simulations are a fixed set; for that, write a plugin with "
    "your simulator (sbi-run new-plugin NAME)"
)
_POSITIVE = np.uint64(2**63 - 1)
_NO_ERRORS = (
    "{}: the network was trained with errors, but the objects have none: give them as x_err beside "
    "x, or in columns e_NAME"
)
_ROUNDED = (
    "{} of {} are copies of others but for rounding (their parameters agree to about a thousandth "
    "of their spread, or parameters and data do); copies are kept together in the training or in "
    "the test set"
)


class SimulationsConfig(Options):
    """Options of a fixed set of simulations; ``sbi-run --simulations`` fills them in."""

    file: str = Field("", description="File of the simulations; empty: they were in memory.")
    sha256: str = Field("", description="SHA-256 of the simulations.")
    prior: str = Field("", description="File of the priors.")
    parameters: list[dict[str, Any]] = Field([], description="Parameters with their priors.")
    observables: list[str] = Field([], description="Columns of the data; empty for images.")
    units: list[str] = Field([], description="Their units.")
    shape: list[int] = Field([], description="Shape of the data of one simulation.")
    errors: bool = Field(False, description="True if the simulations come with errors.")
    noise: list[float] = Field(
        [],
        description="Standard deviation of Gaussian noise that is drawn anew in every epoch: one "
        "number, or one per column; empty: the data are as observed.",
    )
    nan: Literal["error", "missing", "drop"] = Field(
        "error", description="NaN in the data: refused, not measured, or the simulation left out."
    )
    group_column: str = Field(
        "", description="Column of groups (cosmology, galaxy) that are never split."
    )

    @field_validator("noise", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, (int, float)) else value

    @field_validator("noise")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not all(np.isfinite(v) and v > 0 for v in value):
            msg = "must be positive"
            raise ValueError(msg)
        return value


class ArraySimulator(Simulator):
    """A fixed set of simulations.

    Parameters
    ----------
    config
        What they are.
    simulations
        The simulations; default: those in the file. Neither is needed to infer objects with a
        trained posterior.
    """

    name = "simulations"
    version = "1"
    fixed_set = True
    rows_are_objects = False

    def __init__(self, config: SimulationsConfig, simulations: Simulations | None = None) -> None:
        if not config.parameters:
            msg = "a fixed set of simulations needs its file and its priors: sbi-run --simulations"
            raise ConfigError(f"{msg} FILE --prior FILE")
        self.config = config
        self.parameters = ParameterSpace.from_spec({"parameters": config.parameters})
        units = config.units or [""] * len(config.observables)
        self.observables = tuple(
            Observable(name, unit=unit)
            for name, unit in zip(config.observables, units, strict=True)
        )
        self.default_error = config.noise[0] if len(config.noise) == 1 else None
        if config.noise and config.errors:
            msg = "the simulations come with errors (x_err): leave noise out"
            raise ConfigError(msg)
        if len(config.noise) > 1 and [len(config.noise)] != config.shape:
            msg = f"{len(config.noise)} numbers of noise for data of shape {config.shape}"
            raise ConfigError(msg)
        self._given = simulations

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version and the content of the simulations."""
        return {"name": self.name, "version": self.version, "sha256": self.config.sha256}

    @cached_property
    def simulations(self) -> Simulations:
        """The simulations, opened when they are first read."""
        if self._given is not None:
            return self._given
        c = self.config
        if not c.file:
            msg = "the simulations of this run were arrays in memory; call sbi_core.fit again"
            raise SimulationError(msg)
        space = self.parameters
        simulations = open_simulations(c.file, space.names, c.group_column, c.observables)
        return simulations.in_units_of(space.names, space.units)

    @cached_property
    def _units(self) -> Checked:
        return units_of(self.simulations, self.parameters, self.config.nan)

    @property
    def keys(self) -> I64:
        """Unit of splitting of every simulation, (n,).

        Raises
        ------
        ObservationError
            If parameters or data cannot be used.
        """
        return self._units.keys

    @property
    def near_copies(self) -> int:
        """Number of simulations that are copies of others but for rounding."""
        return self._units.near_copies

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the simulations, in sentences."""
        return self._units.notes

    @property
    def columns(self) -> str:
        """How the columns of the file are used, in one sentence; empty for arrays."""
        return self.simulations.columns

    def stored_rows(self, start: int, stop: int) -> Batch:
        """Return simulations start .. stop, with the keys that keep copies together."""
        keys = self.keys[start:stop]
        rows = self.simulations.read(start, stop)
        theta = snap_to_support(np.asarray(rows["theta"], np.float64), self.parameters)
        x = np.asarray(rows["x"])
        x = x if x.dtype.kind == "f" else x.astype(np.float32)
        seen = ~np.isnan(x)
        some = seen.reshape(len(x), -1)
        ok = some.any(1) if self.config.nan == "missing" else some.all(1)
        err = rows.get("x_err")
        return Batch.of_arrays(
            x=x,
            theta=theta,
            x_err=None if err is None else np.where(seen, err, np.nan).astype(np.float32),
            mask=seen if self.config.nan == "missing" else None,
            ok=ok,
            failure=(~ok).astype(np.int64),
            split_key=keys,
        )

    failures = {0: "ok", 1: "NaN in the data"}

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Refuse: there is no simulator.

        Raises
        ------
        SimulationError
            Always.
        """
        raise SimulationError(NEEDS_SIMULATOR.format("this"))

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n simulations of the set, drawn with replacement."""
        rows = np.sort(as_generator(rng).integers(len(self.simulations), size=n))
        return Batch.cat([self.stored_rows(int(k), int(k) + 1) for k in rows])

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with fresh Gaussian noise, or as it is where no noise is given."""
        noise = self.config.noise
        if len(noise) < 2:
            return super().observe(batch, rng)
        gen = torch_generator(rng, batch.x.device)
        draw = torch.randn(batch.x.shape, generator=gen, device=batch.x.device)
        err = torch.as_tensor(noise, dtype=batch.x.dtype, device=batch.x.device)
        err = err.expand(batch.x.shape).clone()
        return batch.with_(x=batch.x + err * draw.to(batch.x.dtype), x_err=err)

    # -- objects --------------------------------------------------------------------------------

    def observations_of(self, table: Any, source: str) -> Observations:
        """Return the objects of a table: a column per observable, vectors, or one column ``x``."""
        reader = ColumnReader(_flat(table), source)
        columns = any(reader.find([o.name]) for o in self.observables)
        if "x" in table.colnames and (table["x"].ndim > 1 or not columns):
            return self.objects_of(
                {k: table[k] for k in ("x", "x_err") if k in table.colnames}, source
            )
        if not self.observables:
            msg = f"{source}: data of shape {tuple(self.config.shape)} are read from an array x"
            raise ObservationError(msg)
        noise = self.config.noise
        self._check_columns(reader)
        objects = observations_from_columns(
            reader, self.observables, default_error=self.default_error
        )
        if len(noise) > 1 and objects.batch.x_err is None:
            return _with(objects, x_err=np.full(objects.batch.x.shape, noise, np.float32))
        if objects.batch.x_err is None and self.config.errors:
            raise ObservationError(_NO_ERRORS.format(source))
        if objects.batch.x_err is not None and not (noise or self.config.errors):
            return _with(objects, x_err=None)
        return self._checked_mask(objects)

    def _check_columns(self, reader: ColumnReader) -> None:
        """Check that all columns are there, unless values may be missing.

        Raises
        ------
        ObservationError
            With the names of those that are not.
        """
        lost = [o.name for o in self.observables if reader.find([o.name]) is None]
        if not lost or self.config.nan == "missing":
            return
        have = reader.table.colnames
        names = ", ".join(f"'{name}'" for name in lost[:5])
        msg = (
            f"{reader.source}: there is no column {names}{near_matches(lost[0], have)} "
            f"(columns: {', '.join(have[:20])})"
        )
        raise ObservationError(msg)

    def _checked_mask(self, objects: Observations) -> Observations:
        """Return the objects with a mask where the network was trained with one.

        Raises
        ------
        ObservationError
            If values are missing, but none was in the simulations.
        """
        missing = int((~objects.batch.observed).sum())
        if missing and self.config.nan != "missing":
            gaps = (~objects.batch.observed).reshape(len(objects), -1).any(0).tolist()
            names = [o.name for o, gap in zip(self.observables, gaps, strict=False) if gap]
            where = f" ({', '.join(names[:5])})" if names else ""
            msg = (
                f"{objects.source}: {counted(missing, 'value')} not observed{where}, but every "
                "simulation has all values: train with nan = 'missing' on simulations with gaps"
            )
            raise ObservationError(msg)
        return _with(objects, mask=objects.batch.observed if missing else None)

    def read_observations(self, path: str | Path) -> Observations:
        """Return the objects of a file: arrays ``x`` (and ``x_err``), or a table."""
        path = Path(path)
        if holds_arrays(path):
            return Observations.read(path)
        if path.suffix == ".npz":
            return self.objects_of(read_npz(path), str(path))
        if path.suffix in (".h5", ".hdf5"):
            with open_hdf5(path) as f:
                if "x" in f and hasattr(f["x"], "shape"):
                    return self.objects_of(
                        {k: f[k][()] for k in ("x", "x_err") if k in f}, str(path)
                    )
        return checked(self.observations_of(self.read_table(path), str(path)))

    def objects_of(self, arrays: Any, source: str = "array in memory") -> Observations:
        """Return the objects of arrays ``x`` (n, ...) or of one object, and ``x_err`` like it."""
        shape = tuple(self.config.shape)
        if "x" not in arrays:
            msg = f"{source}: there is no array x of shape (objects, {str(shape)[1:]}"
            raise ObservationError(msg)
        x = self._in_our_units(arrays["x"], "x", source)
        single = x.shape == shape and shape != (1,)
        x = x[:, None] if shape == (1,) and x.ndim == 1 else x[None] if single else x
        if x.shape[1:] != shape:
            columns = ", ".join(map(str, shape))
            msg = f"{source}: x has shape {x.shape}, expected (objects, {columns}) or ({columns})"
            raise ObservationError(msg)
        err = arrays.get("x_err")
        if err is not None:
            err = self._in_our_units(err, "x_err", source)
            err = err.reshape(x.shape) if err.size == x.size else err
        if err is None and self.config.noise:
            err = np.broadcast_to(np.asarray(self.config.noise), x.shape)
        if err is None and self.config.errors:
            raise ObservationError(_NO_ERRORS.format(source))
        mask = ~np.isnan(x)
        kept = None
        if self.config.noise or self.config.errors:
            kept = np.full(x.shape, err, np.float32)
        batch = Batch.of_arrays(x=x.astype(np.float32), x_err=kept, mask=mask)
        objects = Observations.from_batch(batch, observables=self.observables, source=source)
        return self._checked_mask(objects)

    def _in_our_units(self, values: Any, what: str, source: str) -> F64:
        """Return an array of data as numbers in the units of the simulations.

        Raises
        ------
        ObservationError
            If its unit cannot be converted.
        """
        rows = numbers_of(np.asarray(values)[None], what)[0][0]
        unit, given = str(getattr(values, "unit", None) or ""), f"{source}: {what}"
        factors = [unit_factor(unit, o.unit, given) for o in self.observables]
        if unit and not factors:
            unit_factor(unit, "", given)
        fits = len(factors) == 1 or rows.shape[-1:] == (len(factors),)
        return np.asarray(rows * factors) if unit and fits else rows


def _flat(table: Any) -> Any:
    """Return the table with a column ``NAME1``, ``NAME2``, ... per number of a vector column."""
    wide = [name for name in table.colnames if table[name].ndim == 2]
    if not wide:
        return table
    flat = table.copy(copy_data=False)
    for name in wide:
        for k in range(table[name].shape[1]):
            flat[f"{name}{k + 1}"] = table[name][:, k]
    flat.remove_columns(wide)
    return flat


def _with(objects: Observations, **fields: Any) -> Observations:
    return replace(objects, batch=objects.batch.with_(**fields))


# -- copies ---------------------------------------------------------------------------------------


@dataclass
class _Bad:
    """Rows that cannot be used: how many values and rows, and the first of them."""

    values: int = 0
    rows: int = 0
    first: str = ""

    def add(self, bad: NDArray[np.bool_], start: int, name: Any) -> None:
        rows = bad.reshape(len(bad), -1)
        if rows.any():
            row, column = np.argwhere(rows)[0]
            self.first = self.first or f"row {start + row}, {name(int(row), int(column))}"
            self.values += int(rows.sum())
            self.rows += int(rows.any(1).sum())


def split_keys(simulations: Simulations, space: ParameterSpace, nan: str = "error") -> I64:
    """Return the keys of :func:`units_of`."""
    return units_of(simulations, space, nan).keys


class Checked(NamedTuple):
    """What :func:`units_of` finds."""

    keys: I64  #: unit of splitting of every simulation, (n,)
    near_copies: int  #: simulations that are copies of others but for rounding
    notes: tuple[str, ...] = ()  #: what a user should know about the simulations


def units_of(simulations: Simulations, space: ParameterSpace, nan: str = "error") -> Checked:
    """Check all values, and return the units of splitting.

    Simulations with the same parameters, data or group have the same key, and so have copies whose
    numbers were rounded differently.

    Raises
    ------
    ObservationError
        If parameters or data are not finite, lose their digits in single precision, or parameters
        lie outside the prior; the message has the number of rows and the first of them.
    """
    n = len(simulations)
    step = max(1, _BLOCK_NUMBERS // int(np.prod(simulations.x.shape[1:])))
    of_theta, of_x = np.empty(n, np.uint64), np.empty(n, np.uint64)
    groups: list[NDArray[Any]] = []
    counted_only = all(p.prior.family in _COUNTED for p in space)
    near = NearCopies()
    bad, outside, gaps, errors = _Bad(), _Bad(), _Bad(), _Bad()
    digits, followed = Digits(), PriorFollowed(space, n)
    whole = True
    names, seen = space.names, simulations.observables
    for start in range(0, n, step):
        rows = simulations.read(start, start + step)
        part = slice(start, start + step)
        theta = np.asarray(rows["theta"], np.float64)
        x = np.asarray(rows["x"], np.float64).reshape(len(theta), -1)
        bad.add(~np.isfinite(theta), start, lambda _, c: f"'{names[c]}'")
        inside = space.inside(snap_to_support(theta.copy(), space)) | ~np.isfinite(theta).all(1)
        outside.add(~inside, start, lambda r, _, theta=theta: _values(names, theta[r]))
        name = (lambda _, c: f"'{seen[c]}'") if seen else (lambda _, c: f"number {c}")
        gaps.add(~np.isfinite(x) if nan == "error" else np.isinf(x), start, name)
        if "x_err" in rows:
            err = np.asarray(rows["x_err"], np.float64).reshape(len(theta), -1)
            errors.add(~((err > 0) & np.isfinite(err)) & np.isfinite(x), start, name)
        whole = whole and bool((x == np.round(x))[np.isfinite(x)].all())
        of_theta[part], of_x[part] = _hashed(theta), _hashed(x)
        near.add(theta, x)
        digits.add(x)
        followed.add(theta, start)
        if "group" in rows:
            groups.append(rows["group"])
    _refuse(simulations.source, n, bad, outside, gaps, errors, nan)
    notes = tuple(digits.notes(simulations.source, seen))
    labels = [of_theta, of_x]
    if counted_only or whole:
        labels[1] = splitmix64(of_x ^ splitmix64(of_theta))  # of parameters and data together
    if counted_only:
        labels = labels[1:]
    codes = [np.unique(label, return_inverse=True)[1].ravel() for label in labels]
    if len(codes) == 2:
        codes[1] = _rare(codes[1])
    if groups:
        codes.append(np.unique(np.concatenate(groups), return_inverse=True)[1].ravel())
    component, rounded = _components(codes), 0
    if not counted_only:
        component, rounded = near.joined(component)
    notes += tuple(followed.notes(component))
    smallest = np.full(component.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, component, labels[0] & _POSITIVE)
    if rounded:
        notes += (_ROUNDED.format(rounded, counted(n, "simulation")),)
    return Checked(smallest[component].astype(np.int64), rounded, notes)


def _values(names: Any, theta: F64) -> str:
    return ", ".join(f"{n} = {v:.4g}" for n, v in zip(names, theta, strict=True))


def _refuse(
    source: str, n: int, bad: _Bad, outside: _Bad, gaps: _Bad, errors: _Bad, nan: str
) -> None:
    """Raise the first complaint about values, if there is one."""
    of = f"of {counted(n, 'simulation')}"
    what, remedy = "infinite", "leave these simulations out, or write NaN where a value failed"
    if nan == "error":
        what = "NaN or infinite"
        remedy = (
            "nan = 'drop' leaves simulations with NaN out, nan = 'missing' takes NaN as not "
            "measured"
        )
    problems = (
        (bad, "theta has {values} that is not finite, in {rows} {of}", "leave these rows out"),
        (
            outside,
            "theta lies outside the prior in {rows} {of}",
            "give the prior that the simulations were drawn from",
        ),
        (gaps, f"x has {{values}} that is {what}, in {{rows}} {{of}}", remedy),
        (errors, "x_err has {values} that is not positive, in {rows} {of}", "mend them"),
    )
    for problem, sentence, advice in problems:
        if problem.values:
            text = sentence.format(
                values=counted(problem.values, "value"), rows=counted(problem.rows, "row"), of=of
            )
            msg = f"{source}: {text} (first: {problem.first}); {advice}"
            raise ObservationError(msg.replace("values that is", "values that are"))


def _hashed(rows: F64) -> U64:
    """Return a hash of every row in single precision, (n,)."""
    with np.errstate(over="ignore"):  # numbers too large for networks are refused later
        words = np.ascontiguousarray(rows + 0.0, np.float32).view(np.uint32).astype(np.uint64)
    salts = splitmix64(np.arange(1, words.shape[1] + 1, dtype=np.uint64) << np.uint64(32))
    total = np.zeros(len(rows), np.uint64)
    for column, salt in zip(words.T, salts, strict=True):
        total += splitmix64(column + salt)
    return splitmix64(total)


def _rare(codes: I64) -> I64:
    """Return codes of data; rows whose data are frequent get a code of their own."""
    counts = np.bincount(codes)
    frequent = counts[codes] > max(10, _FREQUENT * len(codes))
    return np.where(frequent, len(counts) + np.arange(len(codes)), codes)


def _components(codes: list[I64]) -> I64:
    """Return the numbers of the components in which rows with a common code lie, (n,)."""
    starts = np.cumsum([0, *(int(c.max()) + 1 for c in codes)])
    first = codes[0]
    edges = [(first, c + start) for c, start in zip(codes[1:], starts[1:], strict=False)]
    if not edges:
        return first.astype(np.int64)
    one, two = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(starts[-1], starts[-1]))
    return np.asarray(connected_components(graph, directed=False)[1][first], np.int64)
