"""Posteriors as users see them: a trained posterior, its samples, and combinations.

``PosteriorSamples.values`` has dims (draw, object, parameter), physical units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from astropy.table import MaskedColumn, Table, vstack
from numpy.typing import NDArray

from sbi_core.components import Estimator, Rng
from sbi_core.data.arrays import parameters_of
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Excluded, Observations
from sbi_core.data.shown import SummaryTable
from sbi_core.data.writing import written
from sbi_core.errors import ConfigError, DensityUnavailableError, counted, near_matches
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, stream, torch_defaults
from sbi_core.validation import checked_device

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "UNLIKE",
    "UNLIKE_NOMINAL",
    "Calibration",
    "CombinedPosterior",
    "Posterior",
    "PosteriorSamples",
    "combined_from_gaussian",
    "gaussian_draws",
    "unlike",
]

F64 = NDArray[np.float64]
UNLIKE = "unlike_the_simulator"  # flag of objects that the simulator does not make
UNLIKE_NOMINAL = "unlike_nominal_model"  # likewise, with nominal values of the nuisance parameters
_ROWS_PER_CALL = 262_144  # draws x objects handed to the estimator, which cuts them further
_MOMENT_ROWS = 65_536


@dataclass(frozen=True)
class PosteriorSamples:
    """Draws for n objects, with everything that the tables of results hold.

    Parameters
    ----------
    values
        (draw, object, parameter), physical units.
    space
        The parameters.
    id
        Object identifiers, (object,).
    flags
        Per object, words such as ``"outside_training"``, separated by commas; empty where all is
        well.
    derived
        Draws of derived quantities by name, (draw, object) each, or (draw, object, member) for
        quantities of the members of a set.
    columns
        Further numbers per object by name, (object,) each, e.g. ``support_percentile``.
    labels
        Columns of the observations that are passed on, (object,) each, e.g. ``ra``.
    units
        Units of derived quantities and columns, as astropy writes them.
    rows
        Position of every object in its source, (object,); default: one after the other.
    excluded
        Rows of the source that could not be inferred, with their reasons.
    meta
        Header of the summary table: plugin, prior, source, draws.
    """

    values: F64
    space: ParameterSpace
    id: NDArray[np.str_]
    flags: tuple[str, ...] = ()
    derived: Mapping[str, F64] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    rows: NDArray[np.int64] | None = None
    excluded: tuple[Excluded, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order of the last axis."""
        return self.space.names

    def __getitem__(self, name: str) -> F64:
        """Return the draws of one parameter or derived quantity, (draw, object)."""
        if name in self.derived:
            return self.derived[name]
        if name not in self.names:
            known = [*self.names, *self.derived]
            msg = (
                f"no draws of '{name}'{near_matches(name, known)} (drawn: {', '.join(known)}); "
                "which parameters are inferred is set by estimator.parameters"
            )
            raise ConfigError(msg)
        return self.values[:, :, self.space.index([name])[0]]

    def described(
        self,
        *,
        values: F64 | None = None,
        derived: Mapping[str, F64] | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
        units: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> PosteriorSamples:
        """Return a copy with more results; flags are added to those that are there.

        Parameters
        ----------
        values
            Draws that replace the present ones.
        derived, columns, units
            See :class:`PosteriorSamples`.
        flags
            Per object, further words separated by commas.
        """
        old = self.flags or ("",) * len(self.id)
        if len(flags) not in (0, len(old)):
            msg = f"{len(flags)} flags for {len(old)} objects; give one per object, '' for none"
            raise ConfigError(msg)
        joined = (",".join(filter(None, words)) for words in zip(old, flags or old, strict=True))
        return replace(
            self,
            values=self.values if values is None else values,
            derived={**self.derived, **(derived or {})},
            columns={**self.columns, **(columns or {})},
            units={**self.units, **(units or {})},
            flags=tuple(joined) if flags else old,
        )

    @staticmethod
    def cat(parts: Sequence[PosteriorSamples]) -> PosteriorSamples:
        """Join the objects of consecutive parts of one source (their rows count on)."""
        first = parts[0]
        if len(parts) == 1:
            return first

        def joined(name: str, axis: int) -> dict[str, NDArray[Any]]:
            found = [getattr(p, name) for p in parts]
            return {k: np.concatenate([f[k] for f in found], axis) for k in found[0]}

        return replace(
            first,
            values=np.concatenate([p.values for p in parts], 1),
            id=np.concatenate([p.id for p in parts]),
            flags=tuple(f for p in parts for f in p.flags),
            derived=joined("derived", 1),
            columns=joined("columns", 0),
            labels=joined("labels", 0),
            rows=np.concatenate([p.rows for p in parts if p.rows is not None]),
            excluded=tuple(e for p in parts for e in p.excluded),
        )

    def to_xarray(self) -> xr.DataArray:
        """Return an array with dims (draw, object, parameter)."""
        import xarray as xr

        return xr.DataArray(
            self.values,
            dims=("draw", "object", "parameter"),
            coords={"object": self.id.astype(object), "parameter": list(self.names)},
            name="posterior",
        )

    def of(self, object: str | None = None) -> F64:  # noqa: A002
        """Return the draws of one object, (draw, parameter).

        Raises
        ------
        ConfigError
            If no object has that identifier, or none is named and there are several.
        """
        if object is None and len(self.id) == 1:
            return self.values[:, 0]
        known = self.id.tolist()
        if object is None or str(object) not in known:
            what = "which object" if object is None else f"no object '{object}'"
            near = "" if object is None else near_matches(str(object), known)
            more = ", ..." if len(known) > 5 else ""
            msg = f"{what}{near}; there are {len(known)}: {', '.join(known[:5])}{more}"
            raise ConfigError(msg)
        return self.values[:, known.index(str(object))]

    def to_dataset(self) -> xr.Dataset:
        """Return a variable per parameter with dims (chain, draw, object), as ArviZ wants them.

        The chain axis has length 1; float32.
        """
        import xarray as xr

        variables: dict[str, Any] = {
            name: (("chain", "draw", "object"), self[name][None].astype(np.float32), {"units": u})
            for name, u in zip(self.names, self.space.units, strict=True)
        }
        for name, drawn in self.derived.items():
            dims = ("chain", "draw", "object", "member")[: drawn.ndim + 1]
            units = {"units": self.units.get(name, "")}
            variables[name] = (dims, drawn[None].astype(np.float32), units)
        draws = np.arange(len(self.values))
        coords = {"chain": [0], "draw": draws, "object": self.id.astype(np.object_)}
        return xr.Dataset(variables, coords=coords, attrs={"prior_hash": self.space.hash})

    def to_netcdf(self, path: str | Path) -> Path:
        """Write the group ``posterior`` of a netCDF file that ArviZ and xarray read."""
        path = Path(path)
        try:
            with written(path) as temporary:
                self.to_dataset().to_netcdf(temporary, group="posterior", engine="h5netcdf")
        except OSError as error:
            msg = f"cannot write '{path}': {error.strerror or error}"
            raise ConfigError(msg) from None
        return path

    def to_arviz(self) -> Any:
        """Return an ArviZ object with the group ``posterior``.

        ``InferenceData`` up to ArviZ 0.23, a ``DataTree`` from 1.0 on.

        Raises
        ------
        ConfigError
            If ArviZ is not installed.
        """
        try:
            import arviz
        except ImportError as error:
            msg = f"needs ArviZ: pip install 'sbi-core[arviz]' ({error})"
            raise ConfigError(msg) from None
        if hasattr(arviz, "InferenceData"):
            return arviz.InferenceData(posterior=self.to_dataset())
        import xarray as xr

        return xr.DataTree.from_dict({"posterior": self.to_dataset()})

    @classmethod
    def from_arviz(cls, data: Any, space: ParameterSpace) -> PosteriorSamples:
        """Return the draws of an ArviZ object, or of a dataset as :meth:`to_dataset` returns it.

        Chains are joined one after the other.

        Parameters
        ----------
        data
            ``InferenceData``, ``DataTree`` with the group ``posterior``, or a dataset.
        space
            The parameters; each is a variable with dims (chain, draw) or (chain, draw, object).

        Raises
        ------
        ConfigError
            If a parameter is missing, or its dims are others.
        """
        group = getattr(data, "posterior", data)
        columns = []
        for name in space.names:
            if name not in group:
                known = [str(v) for v in getattr(group, "data_vars", group)]
                msg = f"no variable '{name}' in the posterior{near_matches(name, known)}"
                raise ConfigError(msg)
            found = group[name]
            if tuple(found.dims) not in (("chain", "draw"), ("chain", "draw", "object")):
                msg = f"variable '{name}' has dims {found.dims}: expected chain, draw and object"
                raise ConfigError(msg)
            values = np.asarray(found.values, np.float64)
            columns.append(values.reshape(values.shape[0] * values.shape[1], -1))
        ids = group["object"].values if "object" in group.coords else np.asarray(["0"])
        return cls(np.stack(columns, -1), space, np.asarray(ids, np.str_))

    def summary(self) -> Table:
        """Return one row per row of the source, those that could not be inferred included.

        Columns: ``id``, labels; ``_p16, _p50, _p84, _mean, _sd`` of every parameter and derived
        quantity; ``flags``, masked where all is well; further columns. NaN, and the reason in
        ``flags``, where a row could not be inferred. The same is read from the table of
        ``sbi-run infer``. It is shown with two digits of the errors; all digits are there, and are
        written to files.
        """
        units = {**dict(zip(self.names, self.space.units, strict=True)), **self.units}
        drawn = {name: self.values[:, :, k] for k, name in enumerate(self.names)}
        drawn |= {name: d for name, d in self.derived.items() if d.ndim == 2}
        statistics: dict[str, F64] = {}
        for name, d in drawn.items():
            low, middle, high = np.quantile(d, [0.16, 0.5, 0.84], axis=0)
            statistics |= {f"{name}_p16": low, f"{name}_p50": middle, f"{name}_p84": high}
            statistics |= {f"{name}_mean": d.mean(0), f"{name}_sd": d.std(0, ddof=1)}
            unit = units.get(name, "")
            units |= {f"{name}_{s}": unit for s in ("p16", "p50", "p84", "mean", "sd")}
        flags = np.asarray(self.flags or [""] * len(self.id), np.str_)
        columns = {"id": self.id, **self.labels, **statistics, "flags": flags, **self.columns}
        table = SummaryTable(columns)
        table.meta = dict(self.meta)
        for column in table.colnames[1:]:
            if units.get(column):
                table[column].unit = units[column]
        if self.excluded:
            table = self._with_excluded(table)
        for column in table.colnames[1:]:  # as files give them back: no word is masked
            if table[column].dtype.kind == "U" and (table[column] == "").any():
                table[column] = MaskedColumn(table[column], mask=table[column] == "")
        return table

    def _with_excluded(self, table: Table) -> Table:
        """Return the table with the rows that could not be inferred, in the order of the source."""
        ids = np.asarray([e.id for e in self.excluded], np.str_)
        rest = Table({"id": ids})
        for name in table.colnames[1:]:
            old = np.asarray(table[name])
            empty = {"f": np.nan, "U": ""}.get(old.dtype.kind, 0)
            rest[name] = np.full(len(ids), empty, old.dtype)
        rest["flags"] = np.asarray([e.reason for e in self.excluded], np.str_)
        both = vstack([table, rest], metadata_conflicts="silent")
        places = [*self._places, *(e.row for e in self.excluded)]
        return both[np.argsort(places, kind="stable")]

    @property
    def _places(self) -> list[int]:
        return list(range(len(self.id))) if self.rows is None else self.rows.tolist()

    def __repr__(self) -> str:
        s, n, _ = self.values.shape
        return f"PosteriorSamples(draws={s}, objects={n}, parameters={list(self.names)})"

    def _repr_html_(self) -> str:
        table = self.summary()[:10]
        rest = len(self.id) + len(self.excluded) - len(table)
        more = f"<p>and {counted(rest, 'more row')}</p>" if rest else ""
        return f"{table._repr_html_()}{more}"


@dataclass(frozen=True)
class CombinedPosterior:
    """Posterior of the shared parameters given N objects.

    Parameters
    ----------
    combiner
        Name of the rule.
    space
        The shared parameters.
    n
        Number of objects combined.
    mean, cov
        Mean (d,) and covariance (d, d) in physical units.
    samples
        Draws (S, d) in physical units.
    z_mean, z_cov
        The same in unconstrained units (standard deviations of the prior).
    diagnostics
        Numbers about the combination, e.g. ``consistency_chi2``, ``consistency_p``.
    flags
        Words of warning.
    excluded
        Rows of the source that are not combined, with their reasons.
    """

    combiner: str
    space: ParameterSpace
    n: int
    mean: F64
    cov: F64
    samples: F64
    z_mean: F64
    z_cov: F64
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names."""
        return self.space.names

    @property
    def sd(self) -> F64:
        """Standard deviations, (d,)."""
        return np.sqrt(np.diag(self.cov))

    @property
    def warning(self) -> str:
        """The sentence that comes before the numbers where the check of the model failed."""
        if UNLIKE not in self.flags:
            return ""
        chi2, dof = (self.diagnostics.get(f"misspecification_{k}") for k in ("chi2", "dof"))
        return unlike(chi2, dof)

    def sample(self, draws: int, rng: Rng) -> F64:
        """Return draws (S, d): Gaussian in unconstrained space, mapped to physical units."""
        return gaussian_draws(self.z_mean, self.z_cov, self.space, draws, rng)

    def summary(self, truth: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return the entry of ``report.json``: mean, sd and, where known, truth; flags."""
        parameters: dict[str, dict[str, float]] = {}
        for k, name in enumerate(self.names):
            parameters[name] = {"mean": float(self.mean[k]), "sd": float(self.sd[k])}
            if truth and name in truth:
                parameters[name]["truth"] = float(truth[name])
        out: dict[str, Any] = {
            "combiner": self.combiner,
            "n": self.n,
            "parameters": parameters,
            "cov": self.cov.tolist(),
        }
        for key in ("consistency_chi2", "consistency_p"):
            if key in self.diagnostics:
                out[key] = float(self.diagnostics[key])
        if self.flags:
            out["flags"] = list(self.flags)
        return out

    def __repr__(self) -> str:
        numbers = ", ".join(
            f"{n} = {m:.4g} +- {s:.2g}"
            for n, m, s in zip(self.names, self.mean, self.sd, strict=True)
        )
        first = f"{self.warning}\n" if self.warning else ""
        return f"{first}CombinedPosterior({self.combiner}, n={self.n}: {numbers})"

    def _repr_html_(self) -> str:
        head = "<tr><th>parameter</th><th>mean</th><th>sd</th><th>unit</th></tr>"
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{mean:.4g}</td><td>{sd:.2g}</td>"
            f"<td>{escape(unit)}</td></tr>"
            for name, mean, sd, unit in zip(
                self.names, self.mean, self.sd, self.space.units, strict=True
            )
        )
        flags = f"<br>flags: {escape(', '.join(self.flags))}" if self.flags else ""
        first = f"<p><strong>{escape(self.warning)}</strong></p>" if self.warning else ""
        what = f"<b>{escape(self.combiner)}</b>, {counted(self.n, 'object')}{flags}"
        return f"{first}{what}<table>{head}{rows}</table>"


def unlike(
    chi2: float | None = None, dof: float | None = None, objects: str = "These objects"
) -> str:
    """Return the sentence on objects that the model does not make."""
    size = "" if chi2 is None or dof is None else f" (chi2 = {chi2:.0f} for {dof:.0f} numbers)"
    return f"{objects} are not what this model makes{size}: the error bar does not hold."


def gaussian_draws(mean: F64, cov: F64, space: ParameterSpace, draws: int, rng: Rng) -> F64:
    """Return draws (S, d) of N(mean, cov) in unconstrained space, mapped to physical units."""
    noise = as_generator(rng).standard_normal((draws, len(mean)))
    return space.from_unconstrained(mean + noise @ np.linalg.cholesky(cov).T)


def combined_from_gaussian(
    combiner: str,
    space: ParameterSpace,
    n: int,
    z_mean: F64,
    z_cov: F64,
    *,
    draws: int,
    rng: Rng,
    diagnostics: Mapping[str, float] | None = None,
    flags: tuple[str, ...] = (),
) -> CombinedPosterior:
    """Build the result of a combiner from a Gaussian in unconstrained space.

    Mean and covariance in physical units are exact for normal priors (the map is affine) and
    taken from ``draws`` draws otherwise.
    """
    samples = gaussian_draws(z_mean, z_cov, space, draws, rng)
    if all(p.prior.family in ("normal", "mvnormal") for p in space.parameters):
        mean = space.from_unconstrained(z_mean)
        jacobian = space.from_unconstrained(np.eye(len(z_mean))) - space.from_unconstrained(
            np.zeros((1, len(z_mean)))
        )
        cov = jacobian.T @ z_cov @ jacobian
    else:
        mean, cov = samples.mean(0), np.atleast_2d(np.cov(samples.T))
    return CombinedPosterior(
        combiner, space, n, mean, cov, samples, z_mean, z_cov, diagnostics or {}, flags
    )


@dataclass(frozen=True)
class Calibration:
    """Result of the calibration tests on held-out simulations.

    Parameters
    ----------
    verdict
        ``pass``, ``warn`` or ``fail``.
    sentences
        Tests that did not pass, in words.
    objects
        Number of held-out simulations.
    table
        One row per parameter: p-value of the SBC ranks, and the fraction of true values inside
        central intervals (``coverage_0.68`` ...).
    """

    verdict: str
    sentences: tuple[str, ...]
    objects: int
    table: Table

    def __repr__(self) -> str:
        head = f"calibration on {counted(self.objects, 'held-out simulation')}: {self.verdict}"
        lines = [head, *(f"  {s}" for s in self.sentences), *self.table.pformat(max_width=-1)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = f"calibration on {counted(self.objects, 'held-out simulation')}"
        failed = "".join(f"<li>{escape(s)}</li>" for s in self.sentences)
        return (
            f"<p>{head}: <strong>{escape(self.verdict)}</strong></p><ul>{failed}</ul>"
            f"{self.table._repr_html_()}"
        )


class RunOf(Protocol):
    """Run that a posterior belongs to (:class:`sbi_core.Run`)."""

    def observations(self, source: Any) -> Observations:
        """Return the objects of a file, a table or an array."""
        ...

    def outside(self, observations: Observations) -> tuple[str, ...]:
        """Return the flags of objects unlike the simulations of a fixed set."""
        ...

    def calibrate(self, *, quiet: bool) -> Calibration:
        """Test the posterior on held-out simulations."""
        ...

    def finish(self, path: str | Path | None, observations: Any, *, quiet: bool) -> Path:
        """Write the report; return its path."""
        ...

    def save(self, directory: str | Path) -> None:
        """Copy the run directory."""
        ...


class Posterior:
    """q(theta | x): an estimator with its record of what it was trained on.

    Parameters
    ----------
    estimator
        A trained estimator.
    seed
        Root seed of the draws; each object has its own stream, named by its id.
    device
        Torch device; the estimator is moved there.
    run
        The run that it belongs to; reads objects, tests the calibration and writes the report.

    Raises
    ------
    ConfigError
        If the device is not there.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        seed: int = 0,
        device: str = "cpu",
        run: RunOf | None = None,
    ) -> None:
        checked_device(device)
        self.run = run
        self.estimator = estimator.to(device) if hasattr(estimator, "to") else estimator
        self.seed = seed
        self.device = device

    @property
    def space(self) -> ParameterSpace:
        """The inferred parameters, with the prior the estimator was trained under."""
        return self.estimator.space

    def _of_run(self) -> RunOf:
        if self.run is None:
            msg = "this posterior belongs to no run; take that of sbi_core.fit or sbi_core.load_run"
            raise ConfigError(msg)
        return self.run

    def _objects(self, observations: Any) -> Observations:
        if isinstance(observations, Observations):
            return observations
        return self._of_run().observations(observations)

    @torch_defaults()
    def sample(
        self, observations: Any, draws: int = 1000, *, seed: int | None = None
    ) -> PosteriorSamples:
        """Return draws for every object.

        Objects are independent streams: neither order nor company of an object changes its
        draws beyond floating-point rounding. Objects unlike the simulations of :func:`fit` are
        flagged ``outside_training``, unless they are given as :class:`Observations`.

        Parameters
        ----------
        observations
            :class:`Observations`; for a posterior of a run also a file, a table, or an array of
            one object or of several, one per row.
        draws
            Number of draws per object.
        seed
            Root seed; default: that of the posterior.

        Raises
        ------
        ConfigError
            If ``draws`` is no whole number, or negative.
        """
        if not hasattr(draws, "__index__") or draws < 0:
            msg = f"draws = {draws!r} is not a number of draws; give a whole number, e.g. 1000"
            raise ConfigError(msg)
        given, observations = observations, self._objects(observations)
        root = self.seed if seed is None else seed
        n = len(observations)
        values = np.empty((draws, n, self.space.dim))
        step = max(1, _ROWS_PER_CALL // max(draws, 1))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            rngs = [stream(root, "infer", str(i)) for i in observations.id[rows]]
            values[:, rows] = self.estimator.sample(observations.batch[rows], draws, rngs)
        flags: tuple[str, ...] = ()
        if self.run is not None and given is not observations:
            flags = self.run.outside(observations)
        return PosteriorSamples(values, self.space, observations.id, flags)

    @torch_defaults()
    def log_prob(self, theta: Any, observations: Any) -> F64:
        """Return log q of theta, in the units of the parameters.

        Parameters
        ----------
        theta
            (n, d) or (S, n, d) for n objects; for one object also (d,) or (S, d). An array, or
            columns by name in any order (pandas, astropy, xarray, a mapping).
        observations
            The objects, as in :meth:`sample`.

        Returns
        -------
        array
            The shape is that of theta without its last axis.
        """
        batch, space = self._objects(observations).batch, self.space
        values = parameters_of(theta, space.names, space.units)
        if values.ndim < 2 and space.dim == 1:
            values = values.reshape(-1, 1)
        if len(batch) != 1 or values.ndim > 2 or values.shape[-1:] != (space.dim,):
            return self.estimator.log_prob(values, batch)
        log_q = self.estimator.log_prob(values.reshape(-1, 1, space.dim), batch)
        return log_q.reshape(values.shape[:-1])

    def calibrate(self, *, quiet: bool = False) -> Calibration:
        """Test the posterior on simulations that the training never saw: SBC, coverage, TARP.

        Parameters
        ----------
        quiet
            Show no progress.

        Raises
        ------
        ConfigError
            If the posterior belongs to no run.
        """
        return self._of_run().calibrate(quiet=quiet)

    def report(
        self,
        path: str | Path | None = None,
        observations: Any = None,
        *,
        quiet: bool = False,
    ) -> Path:
        """Write the report of the run as one HTML file; return its path.

        Parameters
        ----------
        path
            The file; default: ``report.html`` in the run directory.
        observations
            Objects that are inferred in it; default: held-out simulations.
        quiet
            Show no progress.
        """
        return self._of_run().finish(path, observations, quiet=quiet)

    @torch_defaults()
    def gaussian_moments(
        self, batch: Batch, *, draws: int = 4000, rng: Rng = 0
    ) -> tuple[F64, F64, int | None]:
        """Return mean (n, k), covariance (n, k, k) in unconstrained space, and draws used.

        Exact where the estimator has a closed form (draws used: None), otherwise from draws.
        """
        try:
            mean, cov = self.estimator.gaussian_moments(batch)
        except DensityUnavailableError:
            return (*self._sampled_moments(batch, draws, rng), draws)
        return mean, cov, None

    def _sampled_moments(self, batch: Batch, draws: int, rng: Rng) -> tuple[F64, F64]:
        gen = as_generator(rng)
        names = [p.name for p in self.space.parameters if p.prior.z_size]  # not discrete ones
        space = self.space.select(names)
        columns = self.space.index(space.names)
        means, covs = [], []
        step = max(1, _MOMENT_ROWS // draws)
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            theta = self.estimator.sample(part, draws, gen)
            flat = space.to_unconstrained(theta.reshape(-1, self.space.dim)[:, columns])
            z = flat.reshape(draws, len(part), -1)
            mean = z.mean(0)
            means.append(mean)
            covs.append(np.einsum("sni,snj->nij", z - mean, z - mean) / (draws - 1))
        return np.concatenate(means), np.concatenate(covs)

    def select(self, names: Sequence[str]) -> list[int]:
        """Return the unconstrained coordinates of the named parameters.

        Raises
        ------
        ConfigError
            If the estimator was not trained on one of them.
        """
        known = [p.name for p in self.space.parameters]
        for name in names:
            if name not in known:
                msg = (
                    f"the estimator was not trained on parameter '{name}'"
                    f"{near_matches(name, known)} (trained on: {', '.join(known)})"
                )
                raise ConfigError(msg)
        coordinates = np.arange(self.space.z_dim)
        return [
            int(k) for p, s in self.space.blocks(z=True) if p.name in names for k in coordinates[s]
        ]

    def save(self, directory: str | Path) -> None:
        """Copy the run directory, which :func:`sbi_core.load_run` reads.

        Without a run: write the estimator (safetensors and JSON).
        """
        if self.run is None:
            self.estimator.save(directory)
        else:
            self.run.save(directory)

    def __repr__(self) -> str:
        return f"Posterior({self.estimator.name}, {list(self.space.names)})"

    def _repr_html_(self) -> str:
        n = counted(self.space.dim, "parameter")
        head = f"<b>{escape(self.estimator.name)}</b>: posterior of {n}"
        record = getattr(self.estimator, "record", None)
        split = record.split if record else {}
        if "train" in split:
            head += f", trained on {counted(int(split['train']), 'simulation')}"
        return f"<p>{head}</p>{self.space._repr_html_()}"
