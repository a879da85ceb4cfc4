r"""Priors as data: a family and numbers, from which everything else is built.

A :class:`ParameterSpace` is an ordered list of :class:`Parameter`; its unconstrained
coordinates :math:`z = \Phi^{-1}(F(\theta))` are exactly standard normal under the prior, so

.. math:: \log\left|\frac{\partial z}{\partial\theta}\right|
          = \log p(\theta) - \log N(z; 0, I).

The identity of a prior is the SHA-256 of its canonical JSON (sorted keys, numbers as
``float.hex``, order of parameters kept, labels and units left out).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_core.errors import ConfigError, DensityUnavailableError, near_matches
from sbi_core.priors.adapter import Draw, adapt
from sbi_core.priors.families import FAMILIES, Family
from sbi_core.rng import as_generator

if TYPE_CHECKING:
    import torch

__all__ = [
    "Parameter",
    "ParameterSpace",
    "Prior",
    "Scope",
    "as_float64",
    "canonical_hash",
    "is_unit",
]

F64 = NDArray[np.float64]
Scope = Literal["global", "local", "nuisance"]
_SCOPES = ("global", "local", "nuisance")
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def as_float64(values: ArrayLike | torch.Tensor) -> F64:
    """Return any array or tensor (CUDA too) as a numpy float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _canonical(value[k]) for k in sorted(value)}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_canonical(v) for v in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    return float(value).hex()


def canonical_hash(value: Any) -> str:
    """Return the SHA-256 (hex) of a value made of mappings, lists, numbers and words."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Prior:
    """One prior: a family and its numbers.

    Parameters
    ----------
    family
        Name of the family; docs/write-a-plugin.md has the table of all.
    values
        The numbers of the family, e.g. ``{"loc": -2.3, "scale": 0.3}``.

    Raises
    ------
    ConfigError
        If the family is unknown, or a number is missing, unknown or outside its range.

    See Also
    --------
    Prior.of : A prior from a distribution of torch or scipy, or from a log density.

    Examples
    --------
    >>> Prior("normal", {"loc": -2.3, "scale": 0.3})
    Prior(normal, loc=-2.3, scale=0.3)
    """

    family: str
    values: Mapping[str, Any] = field(default_factory=dict)
    _law: Family = field(init=False, repr=False, compare=False)
    _draw: Draw | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        family: Any = self.family
        values: Any = self.values
        if not isinstance(family, str) or not isinstance(values, Mapping):
            msg = (
                "a prior is the name of a family and a table of its numbers, e.g. "
                "Prior('normal', {'loc': 0, 'scale': 1}); for a distribution of torch or scipy, or "
                f"a log density, use Prior.of(...); got {_short(family)}, {_short(values)}"
            )
            raise ConfigError(msg)
        if self.family not in FAMILIES:
            msg = (
                f"unknown prior family '{self.family}'{near_matches(self.family, FAMILIES)}"
                f" (known: {', '.join(FAMILIES)})"
            )
            raise ConfigError(msg)
        made = FAMILIES[self.family]
        needed, optional = made.numbers()
        missing = [k for k in needed if k not in self.values]
        unknown = [k for k in self.values if k not in (*needed, *optional)]
        if missing or unknown:
            problem = f"lacks {missing}" if missing else f"has no number {unknown}"
            msg = f"prior '{self.family}' {problem}; its numbers are {[*needed, *optional]}"
            raise ConfigError(msg)
        try:
            for key in (k for k in self.values if k not in ("sampler", "spec")):
                _check_numbers(key, self.values[key], infinite=key in optional)
            object.__setattr__(self, "_law", made(**self.values))
        except (ValueError, TypeError) as error:
            msg = f"prior '{self.family}': {error}"
            raise ConfigError(msg) from None

    @classmethod
    def of(
        cls,
        distribution: Any,
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> Prior:
        """Return the prior of a distribution of torch or scipy, or of a log density.

        Distributions that are also families of :class:`Prior` become that family. Any other in one
        dimension becomes a ``table`` of its density, and one in several dimensions becomes
        ``implicit``: it can be drawn from, but has no density here.

        Parameters
        ----------
        distribution
            A ``torch.distributions`` object, a frozen ``scipy.stats`` distribution, any object with
            ``sample(n, rng)`` and ``log_prob(x)``, or a function that takes an array (n,) and
            returns the log density at each of its points, (n,), up to a constant.
        low, high
            Ends of the table; needed where the support is unbounded and quantiles are unknown.

        Raises
        ------
        ConfigError
            If it has neither a sampler nor a density, or its density cannot be tabulated.

        Examples
        --------
        >>> from scipy import stats
        >>> Prior.of(stats.uniform(2, 3))
        Prior(uniform, low=2.0, high=5.0)
        """
        family, values, draw = adapt(distribution, low, high)
        prior = cls(family, values)
        object.__setattr__(prior, "_draw", draw)
        return prior

    @property
    def size(self) -> int:
        """Number of components of theta."""
        return self._law.size

    @property
    def z_size(self) -> int:
        """Number of unconstrained components."""
        return self._law.z_size

    @property
    def continuous(self) -> bool:
        """True for priors with unconstrained coordinates; False for discrete ones."""
        return self._law.continuous

    @property
    def clamps(self) -> bool:
        """True if z is limited to the normal quantiles of 1e-7 and 1 - 1e-7."""
        return self._law.clamps

    @property
    def has_density(self) -> bool:
        """False for implicit priors, which can only be drawn from."""
        return self._law.has_density

    @property
    def support(self) -> tuple[F64, F64]:
        """Lower and upper ends, each (size,)."""
        return self._law.support

    def _need_density(self, purpose: str) -> None:
        if not self.has_density:
            name = self.values["sampler"]
            msg = f"{purpose} needs a prior density, but this prior is implicit (sampler '{name}')"
            raise DensityUnavailableError(msg)

    def outcomes(self) -> tuple[F64, F64]:
        """Return the values of a discrete prior, increasing, and their probabilities, all positive.

        Raises
        ------
        ConfigError
            If the prior is not discrete.
        """
        if self.continuous:
            msg = f"prior {self} is not discrete"
            raise ConfigError(msg)
        values, pmf = self._law.table
        order = np.argsort(values)
        order = order[pmf[order] > 0]
        return values[order], pmf[order]

    def moments(self) -> tuple[F64, F64]:
        """Return mean and standard deviation, each (size,)."""
        if self._draw is not None:
            draws = self._draw(20_000, as_generator(0))
            return draws.mean(0), draws.std(0)
        self._need_density("moments")
        return self._law.moments()

    def sample(self, n: int, rng: np.random.Generator | int) -> F64:
        """Return n draws, shape (n, size)."""
        if self._draw is not None:
            return self._draw(n, as_generator(rng))
        self._need_density("sampling outside the simulator")
        return self._law.sample(n, as_generator(rng))

    def log_prob(self, theta: ArrayLike | torch.Tensor) -> F64:
        """Return the log density of theta (n, size) or (n,), shape (n,)."""
        self._need_density("log_prob")
        return self._law.log_prob(self._rows(theta))

    def inside(self, theta: ArrayLike | torch.Tensor) -> NDArray[np.bool_]:
        """Return which rows of theta lie in the closed support, shape (n,)."""
        return self._law.inside(self._rows(theta))

    def to_unconstrained(self, theta: ArrayLike | torch.Tensor) -> F64:
        """Return z (n, z_size) of theta (n, size) inside the support."""
        self._need_density("the map to unconstrained space")
        return self._law.to_z(self._rows(theta))

    def from_unconstrained(self, z: ArrayLike | torch.Tensor) -> F64:
        """Return theta (n, size) of z (n, z_size)."""
        self._need_density("the map from unconstrained space")
        return self._law.from_z(as_float64(z))

    def _rows(self, theta: ArrayLike | torch.Tensor) -> F64:
        rows = as_float64(theta)
        return rows[:, None] if rows.ndim == 1 else rows

    def to_spec(self) -> dict[str, Any]:
        """Return the prior as a JSON-serialisable table."""
        arrays = (list, tuple, np.ndarray, np.generic)
        plain = {
            k: np.asarray(v).tolist() if isinstance(v, arrays) else v
            for k, v in self.values.items()
        }
        return {"family": self.family, **plain}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Prior:
        """Build the prior from the table that :meth:`to_spec` returns."""
        if "family" not in spec:
            msg = f"a prior needs the key 'family', got {sorted(spec)}"
            raise ConfigError(msg)
        return cls(str(spec["family"]), {k: v for k, v in spec.items() if k != "family"})

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return canonical_hash(self.to_spec())

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={_short(v)}" for k, v in self.to_spec().items() if k != "family")
        return f"Prior({self.family}, {numbers})"


def _short(value: Any) -> str:
    """Return a value as text: long lists by their length."""
    if isinstance(value, list) and len(value) > 12:
        return f"[{len(value)} numbers]"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check_numbers(key: str, value: Any, *, infinite: bool) -> None:
    numbers = np.asarray(value, dtype=np.float64)
    if np.isnan(numbers).any() or (np.isinf(numbers).any() and not infinite):
        msg = f"'{key}' must be finite, got {value}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Parameter:
    r"""One parameter (or block of parameters with a joint prior).

    Parameters
    ----------
    name
        Identifier; a block of size k > 1 makes columns ``name1 .. namek``.
    prior
        Its prior.
    label
        TeX label without dollars, e.g. ``r"\alpha_\mathrm{IMF}"``.
    unit
        astropy unit string; empty for dimensionless.
    scope
        ``"global"``: shared by all objects of a group; ``"local"``: one value per object;
        ``"nuisance"``: shared by a group and marginalised, in ``Simulator.nuisances`` only.
    description
        One line for people.
    repeat
        Name of the integer parameter with the number of repetitions of this one in an object: a
        set-valued parameter, see ``members`` of :class:`ParameterSpace`. Empty: it does not repeat.
    """

    name: str
    prior: Prior
    label: str = ""
    unit: str = ""
    scope: Scope = "local"
    description: str = ""
    repeat: str = ""

    def __post_init__(self) -> None:
        name: Any = self.name
        prior: Any = self.prior
        if not isinstance(name, str) or not name.strip():
            msg = f"a parameter needs a name, got {name!r}"
            raise ConfigError(msg)
        if "/" in name or not name.isprintable():
            msg = (
                f"parameter name {name!r}: results are stored under it, so that it may contain "
                "neither '/' nor control characters; use `label` for TeX"
            )
            raise ConfigError(msg)
        if not isinstance(prior, Prior):
            msg = (
                f"parameter '{name}': the prior must be a Prior, got {_short(prior)}; "
                "Prior.of(...) takes a distribution of torch or scipy"
            )
            raise ConfigError(msg)
        if self.scope not in _SCOPES:
            msg = (
                f"parameter '{self.name}': scope must be 'global', 'local' or 'nuisance', got "
                f"'{self.scope}'"
            )
            raise ConfigError(msg)
        if self.unit and not is_unit(self.unit):
            msg = (
                f"parameter '{self.name}': '{self.unit}' is not a unit of astropy; write e.g. "
                "'Gyr', or leave it empty"
            )
            raise ConfigError(msg)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names in theta."""
        if self.prior.size == 1:
            return (self.name,)
        return tuple(f"{self.name}{k + 1}" for k in range(self.prior.size))

    @property
    def labels(self) -> tuple[str, ...]:
        """TeX labels of the columns."""
        label = self.label or self.name.replace("_", r"\_")
        if self.prior.size == 1:
            return (label,)
        return tuple(f"{{{label}}}_{{{k + 1}}}" for k in range(self.prior.size))

    def to_spec(self) -> dict[str, Any]:
        """Return the parameter as a JSON-serialisable table."""
        spec = {
            "name": self.name,
            "label": self.label,
            "unit": self.unit,
            "scope": self.scope,
            "description": self.description,
            "prior": self.prior.to_spec(),
        }
        return {**spec, "repeat": self.repeat} if self.repeat else spec

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Parameter:
        """Build the parameter from the table that :meth:`to_spec` returns."""
        rest = {k: v for k, v in spec.items() if k != "prior"}
        return cls(prior=Prior.from_spec(spec["prior"]), **rest)


def is_unit(text: str) -> bool:
    """Return whether astropy knows a unit."""
    from astropy import units  # slow to import

    try:
        units.Unit(text)
    except (ValueError, TypeError):
        return False
    return True


@dataclass(frozen=True)
class ParameterSpace:
    """An ordered set of parameters with independent priors.

    Parameters
    ----------
    parameters
        The parameters, in the order of the columns of theta.
    version
        Human-readable version of the prior.
    members
        Parameters that repeat a random number of times (``repeat`` names how often), in the order
        of the last axis of ``Batch.theta_set``. They are not columns of theta.

    Examples
    --------
    >>> space = ParameterSpace((Parameter("mu", Prior("normal", {"loc": 0, "scale": 2})),))
    >>> space.sample(3, rng=1).shape
    (3, 1)
    """

    parameters: tuple[Parameter, ...]
    version: str = "1"
    members: tuple[Parameter, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "members", tuple(self.members))
        if not self.parameters:
            msg = "a parameter space needs at least one parameter"
            raise ConfigError(msg)
        self._check_members()
        names = (*self.names, *(c for p in self.members for c in p.columns))
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            msg = f"parameter names must be unique; {twice} appear more than once"
            raise ConfigError(msg)

    def _check_members(self) -> None:
        for p in self.parameters:
            if p.repeat:
                msg = f"parameter '{p.name}' repeats: list it under 'members', not 'parameters'"
                raise ConfigError(msg)
        for p in self.members:
            counts = [q.name for q in self.parameters if not q.prior.continuous]
            if p.repeat not in counts:
                msg = (
                    f"member parameter '{p.name}' repeats '{p.repeat}' times, which is none of "
                    f"the integer parameters {counts}"
                )
                raise ConfigError(msg)

    # -- what is in it -------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of theta, (dim,)."""
        return tuple(c for p in self.parameters for c in p.columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """TeX labels of the columns, (dim,)."""
        return tuple(c for p in self.parameters for c in p.labels)

    @property
    def units(self) -> tuple[str, ...]:
        """Astropy unit strings of the columns, (dim,)."""
        return tuple(p.unit for p in self.parameters for _ in p.columns)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Scope of each column, (dim,)."""
        return tuple(p.scope for p in self.parameters for _ in p.columns)

    @property
    def dim(self) -> int:
        """Number of columns of theta."""
        return sum(p.prior.size for p in self.parameters)

    @property
    def z_dim(self) -> int:
        """Number of unconstrained coordinates."""
        return sum(p.prior.z_size for p in self.parameters)

    def __len__(self) -> int:
        return self.dim

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        for p in self.parameters:
            if p.name == name:
                return p
        msg = f"no parameter '{name}'{near_matches(name, [p.name for p in self.parameters])}"
        raise ConfigError(msg)

    def index(self, names: Sequence[str]) -> list[int]:
        """Return the column numbers of the given column names."""
        columns = self.names
        for name in names:
            if name not in columns:
                msg = f"no parameter '{name}'{near_matches(name, columns)}"
                raise ConfigError(msg)
        return [columns.index(name) for name in names]

    def select(self, which: str | Sequence[str]) -> ParameterSpace:
        """Return the sub-space of ``"all"``, ``"global"``, ``"local"`` or named parameters.

        Raises
        ------
        ConfigError
            If a name is unknown or nothing is left.
        """
        if which == "all":
            return self
        if isinstance(which, str) and which in ("global", "local"):
            chosen = tuple(p for p in self.parameters if p.scope == which)
        else:
            wanted = [which] if isinstance(which, str) else list(which)
            chosen = tuple(self[name] for name in wanted)
        if not chosen:
            msg = (
                f"no parameter of scope '{which}' in {list(self.names)}; set estimator.parameters "
                "to all, to a scope that they have, or to a list of names"
            )
            raise ConfigError(msg)
        return ParameterSpace(chosen, self.version)

    def blocks(self, *, z: bool = False) -> Iterator[tuple[Parameter, slice]]:
        """Yield every parameter with its columns of theta, or its unconstrained coordinates."""
        start = 0
        for p in self.parameters:
            size = p.prior.z_size if z else p.prior.size
            yield p, slice(start, start + size)
            start += size

    # -- probability ---------------------------------------------------------------

    def _rows(self, theta: ArrayLike | torch.Tensor) -> F64:
        rows = as_float64(theta)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            msg = (
                f"theta must have shape (n, {self.dim}) with columns {list(self.names)}, "
                f"got {rows.shape}"
            )
            raise ConfigError(msg)
        return rows

    def sample(self, n: int, rng: np.random.Generator | torch.Generator | int) -> F64:
        """Return n independent draws, shape (n, dim)."""
        gen = as_generator(rng)
        return np.concatenate([p.prior.sample(n, gen) for p in self.parameters], axis=1)

    def log_prob(self, theta: ArrayLike | torch.Tensor) -> F64:
        """Return the log prior density of theta (n, dim), shape (n,)."""
        rows = self._rows(theta)
        return np.asarray(np.sum([p.prior.log_prob(rows[:, s]) for p, s in self.blocks()], axis=0))

    def inside(self, theta: ArrayLike | torch.Tensor) -> NDArray[np.bool_]:
        """Return which rows of theta (n, dim) lie in the support, shape (n,)."""
        rows = self._rows(theta)
        return np.asarray(np.all([p.prior.inside(rows[:, s]) for p, s in self.blocks()], axis=0))

    @property
    def support(self) -> tuple[F64, F64]:
        """Lower and upper ends of the columns, each (dim,)."""
        ends = [p.prior.support for p in self.parameters]
        return np.concatenate([e[0] for e in ends]), np.concatenate([e[1] for e in ends])

    def moments(self) -> tuple[F64, F64]:
        """Return prior mean and standard deviation of the columns, each (dim,)."""
        both = [p.prior.moments() for p in self.parameters]
        return np.concatenate([m for m, _ in both]), np.concatenate([s for _, s in both])

    def to_unconstrained(self, theta: ArrayLike | torch.Tensor) -> F64:
        """Return z (n, z_dim) of theta (n, dim).

        Raises
        ------
        ConfigError
            If a row lies outside the support (the message names row and parameter), or a
            parameter is discrete.
        """
        rows = self._rows(theta)
        parts = []
        for p, s in self.blocks():
            outside = ~p.prior.inside(rows[:, s])
            if outside.any():
                k = int(np.flatnonzero(outside)[0])
                msg = f"row {k}: {p.name} = {rows[k, s]} lies outside its prior {p.prior}"
                raise ConfigError(msg)
            if not p.prior.continuous:
                msg = f"parameter '{p.name}' is discrete and has no unconstrained coordinate"
                raise ConfigError(msg)
            parts.append(p.prior.to_unconstrained(rows[:, s]))
        return np.concatenate(parts, axis=1)

    def from_unconstrained(self, z: ArrayLike | torch.Tensor) -> F64:
        """Return theta (..., dim) of z (..., z_dim); never outside the support."""
        values = as_float64(z)
        rows = values.reshape(-1, values.shape[-1])
        parts = [p.prior.from_unconstrained(rows[:, s]) for p, s in self.blocks(z=True)]
        return np.concatenate(parts, axis=1).reshape(*values.shape[:-1], self.dim)

    def log_abs_det(self, theta: ArrayLike | torch.Tensor) -> F64:
        """Return log |dz/dtheta| at theta (n, dim), shape (n,): log p(theta) - log N(z)."""
        rows = self._rows(theta)
        z = self.to_unconstrained(rows)
        return np.asarray(self.log_prob(rows) + (0.5 * z**2).sum(1) + z.shape[1] * _LOG_SQRT_2PI)

    def clamped(self, theta: ArrayLike | torch.Tensor) -> int:
        """Return how many rows touch the clamp of F(theta) at 1e-7 from its ends."""
        z = self.to_unconstrained(theta)
        bounded = [s for p, s in self.blocks(z=True) if p.prior.clamps]
        limit = 5.1993  # |Phi^-1(1e-7)| = 5.19934
        rows = np.zeros(len(z), bool)
        for s in bounded:
            rows |= (np.abs(z[:, s]) >= limit).any(1)
        return int(rows.sum())

    # -- identity ------------------------------------------------------------------

    def to_spec(self) -> dict[str, Any]:
        """Return the space as a JSON-serialisable table."""
        spec = {"version": self.version, "parameters": [p.to_spec() for p in self.parameters]}
        return {**spec, "members": [p.to_spec() for p in self.members]} if self.members else spec

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> ParameterSpace:
        """Build the space from the table that :meth:`to_spec` returns."""
        parameters = tuple(Parameter.from_spec(p) for p in spec["parameters"])
        members = tuple(Parameter.from_spec(p) for p in spec.get("members", ()))
        return cls(parameters, str(spec.get("version", "1")), members)

    @property
    def hash(self) -> str:
        """SHA-256 of names, scopes and priors; labels, units and version are left out."""
        parts: list[Any] = [[p.name, p.scope, p.prior.to_spec()] for p in self.parameters]
        parts += [[p.name, p.scope, p.prior.to_spec(), p.repeat] for p in self.members]
        return canonical_hash(parts)

    def __repr__(self) -> str:
        return f"ParameterSpace({', '.join(self.names)}; {self.hash[:12]})"

    def _repr_html_(self) -> str:
        head = "<tr><th>parameter</th><th>unit</th><th>scope</th><th>prior</th></tr>"
        rows = "".join(
            f"<tr><td>{escape(p.name)}</td><td>{escape(p.unit)}</td><td>{p.scope}</td>"
            f"<td>{escape(repr(p.prior))}</td></tr>"
            for p in (*self.parameters, *self.members)
        )
        return f"<table>{head}{rows}</table>"
