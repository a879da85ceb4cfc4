"""Promises of a simulator: it describes itself, repeats itself, and flags what fails."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import stream
from sbi_core.testing.outcome import NotApplicable, bind, require, run_all
from sbi_core.testing.priors import PRIOR_CHECKS

__all__ = ["SIMULATOR_CHECKS", "check_simulator"]

_N = 12  # rows; a simulator may be slow
_MANY = 160
_FROM_RNG = (
    "take every random number from the argument: as_generator(rng) for numpy, "
    "torch_generator(rng) for torch; never from numpy.random or torch's global generator"
)


def _drawn(simulator: Simulator, n: int = _N, seed: int = 1) -> Batch:
    batch = simulator.draw(n, stream(seed, "draw"))
    require(
        isinstance(batch, Batch),
        f"draw returns {type(batch).__name__}, not a Batch",
        "return sbi_core.Batch(x=..., theta=...)",
    )
    return batch


def _differs(a: Batch, b: Batch) -> str:
    """Return the first field and row in which two batches differ, or an empty text."""
    one, two = a.numpy(), b.numpy()
    if one.keys() != two.keys():
        return f"fields {sorted(one.keys() ^ two.keys())} are present only once"
    for name, value in one.items():
        if value.shape != two[name].shape:
            return f"field '{name}' has shape {value.shape} and {two[name].shape}"
        same = (value == two[name]) | (
            np.isnan(value) & np.isnan(two[name]) if value.dtype.kind == "f" else False
        )
        if not same.all():
            at = tuple(int(k) for k in np.argwhere(~same)[0])
            return f"field '{name}' at {at} is {value[at]} and {two[name][at]}"
    return ""


# -- what it says about itself ------------------------------------------------------------------


def check_describes_itself(simulator: Simulator) -> None:
    """Name, version, parameters and observables are there, with units astropy knows."""
    from astropy import units

    for name in ("name", "version"):
        value = getattr(simulator, name, None)
        require(
            isinstance(value, str) and value != "",
            f"attribute '{name}' is {value!r}",
            f'write {name} = "..." in the class',
        )
    space = getattr(simulator, "parameters", None)
    require(
        isinstance(space, ParameterSpace),
        f"attribute 'parameters' is {type(space).__name__}",
        "declare parameters = ParameterSpace((Parameter(...), ...))",
    )
    described = [(p.name, p.unit) for p in simulator.parameters.parameters]
    described += [(o.name, o.unit) for o in simulator.observables]
    for name, unit in described:
        try:
            units.Unit(unit)
        except ValueError:
            require(
                False,
                f"'{name}' has the unit '{unit}', which astropy does not know",
                "write an astropy unit string, e.g. 'Gyr' or 'mag', or leave it empty",
            )
    names = [o.name for o in simulator.observables]
    twice = sorted({n for n in names if names.count(n) > 1})
    require(not twice, f"observables {twice} appear more than once", "give each its own name")


def check_identity_can_be_recorded(simulator: Simulator) -> None:
    """``identity`` is JSON with name and version, the same every time."""
    identity = simulator.identity
    try:
        back = json.loads(json.dumps(identity))
    except TypeError as error:
        back = str(error)
    require(
        back == identity,
        f"identity {identity!r} does not survive JSON ({back!r})",
        "use numbers, text, lists and dicts in identity; no tuples, arrays or objects",
    )
    require(
        simulator.identity == identity,
        "identity changes from one call to the next",
        "let it depend on options and data only: finished stages are recognised by it",
    )
    missing = [k for k in ("name", "version") if k not in identity]
    require(not missing, f"identity lacks {missing}", "extend super().identity, do not replace it")


# -- what simulate returns ------------------------------------------------------------------------


def check_rows_have_the_declared_shape(simulator: Simulator) -> None:
    """The rows, theta as asked for, a column of x per observable, finite x where ok."""
    batch = _drawn(simulator)
    require(len(batch) == _N, f"draw({_N}) returns {len(batch)} rows", "return a row per draw")
    require(
        batch.theta is not None,
        "the batch has no theta",
        "return Batch(x=..., theta=theta)",
    )
    assert batch.theta is not None
    d = simulator.parameters.dim
    if batch.theta_mask is None:
        require(
            tuple(batch.theta.shape) == (_N, d),
            f"theta has shape {tuple(batch.theta.shape)}, the parameters have {d} columns",
            "return theta with a column per parameter, in the order of `parameters`",
        )
    columns, names = batch.x.shape[1:], simulator.observables
    require(
        not names or batch.x.ndim != 2 or len(names) == columns[0],
        f"x has {tuple(columns)} columns per row, observables names {len(names)}",
        "name every column of x in `observables`, or none for images and spectra",
    )
    ok = batch.succeeded
    require(
        bool(torch.isfinite(ok.x).flatten(1).all(1)[ok.observed.flatten(1).all(1)].all()),
        "rows that are not marked as failed hold x that is not finite",
        "return ok=False (and a code in `failure`) for them, or mask=False for missing values",
    )


def check_theta_comes_back(simulator: Simulator) -> None:
    """``simulate(theta)`` returns the theta it was given, row by row."""
    try:
        theta = simulator.parameters.sample(_N, stream(2, "theta"))
    except Exception as error:
        msg = f"the prior can only be drawn by draw() ({error})"
        raise NotApplicable(msg) from None
    batch = simulator.simulate(theta, stream(2, "x"))
    require(len(batch) == _N, f"simulate returns {len(batch)} rows for {_N}", "keep failed rows")
    require(batch.theta is not None, "the batch has no theta", "return Batch(x=..., theta=theta)")
    assert batch.theta is not None
    got = batch.theta.double().numpy()
    require(
        got.shape == theta.shape and np.allclose(got, theta, rtol=1e-5, atol=1e-6),
        "theta of the returned batch is not the theta that was asked for",
        "return theta=theta, unsorted and unscaled",
    )
    single = simulator.simulate(theta[:1], stream(2, "one"))
    require(len(single) == 1, f"one row gives {len(single)}", "keep the batch axis")


def check_same_seed_same_bits(simulator: Simulator) -> None:
    """The same generator state gives the same bits, whatever the global generators do."""
    first = _drawn(simulator)
    with _shaken_globals():
        second = _drawn(simulator)
    found = _differs(first, second)
    require(not found, f"draw with the same rng gives other numbers: {found}", _FROM_RNG)
    seen = [simulator.observe(first.succeeded, stream(3, "noise"))]
    with _shaken_globals():
        seen.append(simulator.observe(first.succeeded, stream(3, "noise")))
    found = _differs(*seen)
    require(not found, f"observe with the same rng gives other numbers: {found}", _FROM_RNG)


def check_global_generators_are_left_alone(simulator: Simulator) -> None:
    """Neither numpy's nor torch's global generator is seeded or used."""
    before, torch_before = _numpy_state(), torch.get_rng_state()
    batch = _drawn(simulator).succeeded
    if len(batch):
        simulator.observe(batch, stream(4, "noise"))
    require(_numpy_state() == before, "numpy's global random state has changed", _FROM_RNG)
    same = torch.equal(torch_before, torch.get_rng_state())
    require(same, "torch's global random state has changed", _FROM_RNG)


def _numpy_state() -> str:
    return repr([np.asarray(part).tolist() for part in np.random.get_state()])  # noqa: NPY002


def check_rows_do_not_depend_on_their_company(simulator: Simulator) -> None:
    """The same rows in two calls: equal where simulate is deterministic, else equal in law."""
    theta = _thetas(simulator)
    one, other = (simulator.simulate(theta[:_N], stream(k, "same")) for k in (1, 2))
    if not _differs(one, other):
        _same_rows(simulator, theta[:_N], one)
    else:
        _same_law(simulator, theta)


def _thetas(simulator: Simulator) -> NDArray[np.float64]:
    batch = _drawn(simulator, _MANY, seed=5)
    assert batch.theta is not None
    if batch.theta_mask is not None:
        msg = "set-valued parameters are simulated by draw alone"
        raise NotApplicable(msg)
    return batch.theta.double().numpy()


def _same_rows(simulator: Simulator, theta: NDArray[np.float64], whole: Batch) -> None:
    cut = _N // 3
    parts = [simulator.simulate(t, stream(7, "part")) for t in (theta[:cut], theta[cut:])]
    x = torch.cat([p.x for p in parts]).flatten(1).double().numpy()
    want = whole.x.flatten(1).double().numpy()
    close = np.isclose(x, want, rtol=1e-4, atol=1e-6 * np.nanmax(np.abs(want)), equal_nan=True)
    row = int(np.argmin(close.all(1)))
    require(
        bool(close.all()),
        f"row {row} differs when it is simulated with fewer others: {x[row][~close[row]][:3]} "
        f"and {want[row][~close[row]][:3]}",
        "compute every row from its own theta; no mean or scale over the batch",
    )


def _same_law(simulator: Simulator, theta: NDArray[np.float64]) -> None:
    """Two-sample Kolmogorov-Smirnov per column, one false alarm in a million."""
    gen = stream(8, "parts")
    size = _MANY // 16
    parts = [simulator.simulate(theta[k : k + size], gen) for k in range(0, _MANY, size)]
    whole = simulator.simulate(theta, stream(9, "whole"))
    again = simulator.simulate(theta[:size], gen)
    require(
        bool(_differs(parts[0], again)),
        "two calls with one generator return the same random numbers",
        "do not seed a generator inside simulate; " + _FROM_RNG,
    )
    one = torch.cat([p.x for p in parts]).flatten(1).double().numpy()
    two = whole.x.flatten(1).double().numpy()
    columns = min(one.shape[1], 20)
    for k in np.linspace(0, one.shape[1] - 1, columns).astype(int):
        a, b = one[np.isfinite(one[:, k]), k], two[np.isfinite(two[:, k]), k]
        p = float(stats.ks_2samp(a, b).pvalue) if len(a) and len(b) else 1.0
        require(
            p > 1e-6 / columns,
            f"column {k} of x is distributed otherwise when {_MANY} rows are simulated "
            f"{size} at a time (Kolmogorov-Smirnov p = {p:.1g})",
            "compute every row from its own theta; no mean or scale over the batch",
        )


# -- what fails ---------------------------------------------------------------------------------


def check_the_edges_of_the_prior_are_survived(simulator: Simulator) -> None:
    """At the ends of the prior rows are finite, or flagged; no exception."""
    space = simulator.parameters
    if any(not p.prior.has_density or not p.prior.continuous for p in space.parameters):
        msg = "the prior is implicit or discrete"
        raise NotApplicable(msg)
    z = np.concatenate([np.zeros((1, space.z_dim)), *(s * np.eye(space.z_dim) for s in (-5, 5))])
    z = np.concatenate([z, np.full((1, space.z_dim), -5.0), np.full((1, space.z_dim), 5.0)])
    theta = space.from_unconstrained(z)
    batch = simulator.simulate(theta, stream(10, "edges"))
    bad = ~torch.isfinite(batch.x.where(batch.observed, 0.0)).flatten(1).all(1) & batch.ok
    row = int(torch.argmax(bad.int()))
    values = ", ".join(f"{n} = {v:.4g}" for n, v in zip(space.names, theta[row], strict=True))
    require(
        not bool(bad.any()),
        f"{int(bad.sum())} of {len(z)} rows at the ends of the prior hold x that is not finite and "
        f"are not flagged, e.g. {values}",
        "return ok=False with a reason code for them, or narrow the prior",
    )


def check_failures_are_explained(simulator: Simulator) -> None:
    """Failed rows carry a code that ``failures`` explains; the others carry 0."""
    batch = _drawn(simulator, _MANY, seed=11)
    wrong = int((batch.failure[batch.ok] != 0).sum())
    require(wrong == 0, f"{wrong} rows are ok and carry a failure code", "give them code 0")
    codes = {int(c) for c in batch.failure[~batch.ok]}
    unknown = sorted(codes - (set(simulator.failures) - {0}))
    require(
        not unknown,
        f"failed rows carry the codes {unknown}, `failures` explains {dict(simulator.failures)}",
        "add every code to `failures`, with what it means; 0 is for rows that are ok",
    )
    require(
        bool(batch.ok.any()),
        f"all {_MANY} simulations from the prior failed",
        "narrow the prior, or let fewer rows fail",
    )


# -- observe ------------------------------------------------------------------------------------


def check_observe_adds_fresh_noise_and_honest_masks(simulator: Simulator) -> None:
    """Errors are positive, NaN stands only where mask is False, theta and input are untouched."""
    clean = _drawn(simulator).succeeded
    before = {k: v.copy() for k, v in clean.numpy().items()}
    seen = simulator.observe(clean, stream(12, "noise"))
    changed = [k for k, v in clean.numpy().items() if not np.array_equal(v, before[k], True)]
    require(
        not changed,
        f"observe changes {changed} of the batch it was given",
        "return batch.with_(x=..., x_err=..., mask=...); no assignment into tensors",
    )
    require(len(seen) == len(clean), f"observe returns {len(seen)} rows for {len(clean)}", "keep")
    kept = seen.theta is not None and clean.theta is not None
    require(
        kept and torch.equal(seen.theta, clean.theta),  # type: ignore[arg-type]
        "observe changes theta",
        "leave theta alone",
    )
    bad = ~torch.isfinite(seen.x) & seen.observed
    require(
        not bool(bad.any()),
        f"{int(bad.sum())} observed values are not finite",
        "set mask=False where a value is missing; where NaN stands, mask must be False",
    )
    if seen.x_err is not None:
        bad = ~(torch.isfinite(seen.x_err) & (seen.x_err > 0)) & seen.observed
        require(
            not bool(bad.any()),
            f"{int(bad.sum())} errors of observed values are not positive",
            "give x_err > 0 wherever a value is observed",
        )
    if seen.context is not None:
        columns = seen.context.shape[1]
        require(
            columns == len(simulator.context_names),
            f"context has {columns} columns, context_names {len(simulator.context_names)}",
            "name every column of context in `context_names`",
        )


def check_noise_is_drawn_anew(simulator: Simulator) -> None:
    """Two calls of observe with one generator give two realisations of the noise."""
    clean = _drawn(simulator).succeeded
    gen = stream(13, "noise")
    one, two = simulator.observe(clean, gen), simulator.observe(clean, gen)
    if not _differs(one, clean):
        msg = "observe adds nothing: simulate is stochastic itself, or data have no noise"
        raise NotApplicable(msg)
    require(
        bool(_differs(one, two)),
        "observe returns the same noise twice",
        "draw the noise in observe from its argument rng: a network that sees one frozen "
        "realisation becomes overconfident",
    )


def check_missing_values_leak_nothing(simulator: Simulator) -> None:
    """Where mask is False the value itself is gone (NaN), so that no reader can use it."""
    seen = simulator.observe(_drawn(simulator).succeeded, stream(14, "noise"))
    if seen.mask is None or bool(seen.mask.all()):
        msg = "nothing is missing"
        raise NotApplicable(msg)
    left = torch.isfinite(seen.x) & ~seen.mask & (seen.x != 0)
    require(
        not bool(left.any()),
        f"{int(left.sum())} values that mask calls missing still stand in x",
        "set x to NaN (or 0) where mask is False: x = torch.where(mask, x, torch.nan)",
    )


# -- objects ------------------------------------------------------------------------------------


def check_example_objects_can_be_inferred(simulator: Simulator) -> None:
    """Mock objects look like observed simulations, know their truth, and share the globals."""
    try:
        found = simulator.example_observations(stream(15, "example"), 6)
    except TypeError:
        found = simulator.example_observations(stream(15, "example"))
    require(len(found) > 0, "example_observations returns no object", "return at least one")
    like = simulator.observe(_drawn(simulator).succeeded, stream(16, "noise"))
    want, got = tuple(like.x.shape[1:]), tuple(found.batch.x.shape[1:])
    sets = len(want) == 2 and len(got) == 2 and want[1] == got[1]
    require(
        got == want or sets,
        f"example objects have x {got} per object, observed simulations {want}",
        "make them with observe(simulate(theta)), or in the same layout",
    )
    for name in ("x_err", "context"):
        has = getattr(found.batch, name) is not None
        require(
            has == (getattr(like, name) is not None),
            f"'{name}' is {'present' if has else 'absent'} in example objects only",
            "what the network is trained with must be there when it is used, and vice versa",
        )
    shared = [p.name for p in simulator.parameters.parameters if p.scope == "global"]
    truth = found.truth or {}
    for name in shared:
        if name in truth:
            for group, rows in found.groups.items():
                spread = float(np.ptp(truth[name][rows]))
                require(
                    spread <= 1e-6 * max(1.0, float(np.abs(truth[name][rows]).max())),
                    f"parameter '{name}' is global, but differs by {spread:.2g} within the "
                    f"example group '{group}'",
                    "give all objects of a group one value, or make the parameter local",
                )


def check_written_objects_read_back(simulator: Simulator) -> None:
    """What example objects are written as is read by ``read_observations`` as it was."""
    found = simulator.example_observations(stream(17, "example"), 4)
    x = found.batch.x
    if x.ndim != 2 or len(found.observables) != x.shape[1] or found.batch.context is not None:
        msg = "objects are not plain tables of observables"
        raise NotApplicable(msg)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.ecsv"
        found.write(path)
        back = simulator.read_observations(path)
    want = torch.where(found.batch.observed, x, torch.nan).double().numpy()
    got = torch.where(back.batch.observed, back.batch.x, torch.nan).double().numpy()
    require(
        got.shape == want.shape and np.allclose(got, want, rtol=1e-5, equal_nan=True),
        "objects written as a table are read back otherwise",
        "read the columns named in `observables`; convert units from those of the file",
    )


def check_it_travels_to_worker_processes(simulator: Simulator) -> None:
    """Pickled and back, it simulates the same bits."""
    try:
        copy = pickle.loads(pickle.dumps(simulator))
    except Exception as error:
        require(
            False,
            f"cannot be pickled: {type(error).__name__}: {error}",
            "keep no open files, lambdas or locks on the simulator; open them when needed",
        )
    found = _differs(_drawn(simulator), _drawn(copy))
    require(not found, f"a pickled copy simulates other numbers: {found}", "pickle all its state")


@contextmanager
def _shaken_globals() -> Iterator[None]:
    """Disturb the global generators, and put them back."""
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    np.random.seed(4321)  # noqa: NPY002
    torch.manual_seed(4321)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def check_its_priors_keep_their_promises(simulator: Simulator) -> None:
    """Every parameter's prior passes the checks of priors."""
    for parameter in simulator.parameters.parameters:
        for check in PRIOR_CHECKS:
            try:
                check(parameter.prior)
            except NotApplicable:
                continue


SIMULATOR_CHECKS = (
    check_describes_itself,
    check_identity_can_be_recorded,
    check_its_priors_keep_their_promises,
    check_rows_have_the_declared_shape,
    check_theta_comes_back,
    check_same_seed_same_bits,
    check_global_generators_are_left_alone,
    check_rows_do_not_depend_on_their_company,
    check_the_edges_of_the_prior_are_survived,
    check_failures_are_explained,
    check_observe_adds_fresh_noise_and_honest_masks,
    check_noise_is_drawn_anew,
    check_missing_values_leak_nothing,
    check_example_objects_can_be_inferred,
    check_written_objects_read_back,
    check_it_travels_to_worker_processes,
)


def check_simulator(simulator: Simulator) -> None:
    """Run all checks of a simulator.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    name = str(getattr(simulator, "name", type(simulator).__name__))
    run_all(bind("simulator", name, SIMULATOR_CHECKS, lambda: simulator))
