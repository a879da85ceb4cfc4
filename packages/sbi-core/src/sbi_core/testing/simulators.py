"""Requirements on a simulator: it describes itself, repeats itself, and flags what fails."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.rng import stream
from sbi_core.simulate.child import described
from sbi_core.simulate.probe import (
    check_batch,
    check_copies,
    check_description,
    check_observed,
    check_theta,
)
from sbi_core.simulate.tolerance import Tolerance, values_of
from sbi_core.testing.checks import Checks, fail, skip
from sbi_core.testing.priors import PriorChecks

__all__ = ["SimulatorChecks"]

_N = 12  # rows; a simulator may be slow
_MANY = 160
_FROM_RNG = (
    "take every random number from the argument: as_generator(rng) for numpy, "
    "torch_generator(rng) for torch; never from numpy.random or torch's global generator"
)


class SimulatorChecks(Checks[Simulator]):
    """A simulator is reproducible, row by row, and its noise, failures and objects are sound."""

    def draw(self, n: int = _N, seed: int = 1) -> Batch:
        """Return draws from the prior."""
        batch = self.subject.draw(n, stream(seed, "draw"))
        assert isinstance(batch, Batch), (
            f"draw returns {type(batch).__name__}, not a Batch; "
            "return sbi_core.Batch(x=..., theta=...)"
        )
        return batch

    def observed(self, seed: int) -> Batch:
        """Return noisy draws from the prior."""
        return self.subject.observe(self.draw().succeeded, stream(seed, "noise"))

    def examples(self, n: int, seed: int) -> Observations:
        """Return mock objects, n where the simulator lets their number be chosen."""
        try:
            return self.subject.example_observations(stream(seed, "example"), n)
        except TypeError:
            return self.subject.example_observations(stream(seed, "example"))

    # -- description ------------------------------------------------------------------------

    def test_describes_itself(self) -> None:
        """Name, version, parameters and observables are there, with units of astropy."""
        check_description(self.subject)

    def test_identity_can_be_recorded(self) -> None:
        """``identity`` is JSON with name and version, the same every time."""
        identity = self.subject.identity
        try:
            back = json.loads(json.dumps(identity))
        except TypeError as error:
            back = str(error)
        assert back == identity, (
            f"identity {identity!r} does not survive JSON ({back!r}); "
            "use numbers, text, lists and dicts in identity; no tuples, arrays or objects"
        )
        assert self.subject.identity == identity, (
            "identity changes from one call to the next; "
            "let it depend on options and data only: finished stages are recognised by it"
        )
        missing = [k for k in ("name", "version") if k not in identity]
        assert not missing, f"identity lacks {missing}; extend super().identity"

    def test_its_priors_are_sound(self) -> None:
        """Every parameter's prior passes the checks of priors."""
        for parameter in self.subject.parameters:
            PriorChecks.of(partial(getattr, parameter, "prior")).run()

    def test_nominal_nuisance_parameters_change_nothing(self) -> None:
        """``simulate_nuisances`` gives the data of ``simulate`` where all families are NaN."""
        simulator = self.subject
        if not simulator.nuisances:
            skip("the simulator has no nuisance parameters")
        for name, space in simulator.nuisances.items():
            scopes = {p.scope for p in space.parameters}
            assert scopes == {"nuisance"}, (
                f"nuisances '{name}' have scopes {sorted(scopes)}; declare all as 'nuisance'"
            )
        theta = simulator.parameters.sample(_N, stream(1, "nuisances"))
        drawn = {k: s.sample(_N, stream(1, k)) for k, s in simulator.nuisances.items()}
        nominal = {k: np.full_like(v, np.nan) for k, v in drawn.items()}
        plain = simulator.simulate(theta, stream(1, "noise"))
        same = simulator.simulate_nuisances(theta, nominal, stream(1, "noise"))
        other = simulator.simulate_nuisances(theta, drawn, stream(1, "noise"))
        assert torch.allclose(plain.x, same.x, rtol=1e-5, atol=1e-6, equal_nan=True), (
            "simulate_nuisances with NaN differs from simulate; NaN stands for nominal values"
        )
        assert not torch.allclose(plain.x, other.x, rtol=1e-5, atol=1e-6, equal_nan=True), (
            "simulate_nuisances does not depend on the nuisance parameters; use its argument"
        )

    # -- simulate ---------------------------------------------------------------------------

    def test_rows_have_the_declared_shape(self) -> None:
        """A batch with a row per draw, a column of theta per parameter and of x per observable."""
        check_batch(self.subject, self.draw(), _N)

    def test_no_simulation_is_a_copy(self) -> None:
        """Draws with two generators share no simulation, unless ``split_key`` groups the copies."""
        check_copies(self.subject)

    def test_rows_fail_without_exceptions(self) -> None:
        """For draws from the prior, ``simulate`` raises nothing: failed rows are marked."""
        try:
            self.subject.draw(_MANY, stream(11, "draw"))
        except Exception as error:  # noqa: BLE001 - that of the rows is reported
            with Tolerance(1.0).active() as caught:
                self.subject.draw(_MANY, stream(11, "draw"))
            if not caught:
                fail(f"draw({_MANY}) raises {described(error)}; return a Batch for any prior draw")
            first = caught[0]
            fail(
                f"simulate raises for {len(caught)} of {_MANY} draws from the prior, e.g. "
                f"{values_of(self.subject, first.theta)}: {first.message}; return ok=False with a "
                "reason code for such rows; a run leaves them out, up to simulate.max_failed"
            )

    def test_theta_is_returned_unchanged(self) -> None:
        """``simulate(theta)`` returns the theta it was given, row by row, and leaves it alone."""
        batch = check_theta(self.subject, _N)
        if batch is None:
            skip("theta can only be drawn by draw()")
        single = self.subject.simulate(_theta(batch)[:1], stream(2, "one"))
        assert len(single) == 1, f"one row gives {len(single)}; keep the batch axis"

    def test_same_seed_same_bits(self) -> None:
        """The same generator state gives the same bits, whatever the global generators do."""
        first, seen = self.draw(), self.observed(3)
        with _shaken_globals():
            second, again = self.draw(), self.observed(3)
        off = _difference(first, second)
        assert not off, f"draw with the same rng gives other numbers: {off}; {_FROM_RNG}"
        off = _difference(seen, again)
        assert not off, f"observe with the same rng gives other numbers: {off}; {_FROM_RNG}"

    def test_global_generators_are_left_alone(self) -> None:
        """Neither numpy's nor torch's global generator is seeded or used."""
        before, torch_before = _numpy_state(), torch.get_rng_state()
        batch = self.draw().succeeded
        if len(batch):
            self.subject.observe(batch, stream(4, "noise"))
        assert _numpy_state() == before, f"numpy's global random state has changed; {_FROM_RNG}"
        same = torch.equal(torch_before, torch.get_rng_state())
        assert same, f"torch's global random state has changed; {_FROM_RNG}"

    def test_rows_are_independent(self) -> None:
        """The same rows in batches of another size: equal numbers, or equal in distribution."""
        batch = self.draw(_MANY, seed=5)
        if batch.theta_mask is not None:
            skip("set-valued parameters are simulated by draw alone")
        theta = _theta(batch)
        one, other = (self.subject.simulate(theta[:_N], stream(k, "same")) for k in (1, 2))
        if not _difference(one, other):
            self._same_rows(theta[:_N], one)
        else:
            self._same_law(theta)

    def _same_rows(self, theta: NDArray[np.float64], whole: Batch) -> None:
        cut = _N // 3
        parts = [self.subject.simulate(t, stream(7, "part")) for t in (theta[:cut], theta[cut:])]
        x = torch.cat([p.x for p in parts]).flatten(1).double().numpy()
        want = whole.x.flatten(1).double().numpy()
        close = np.isclose(x, want, rtol=1e-4, atol=1e-6 * np.nanmax(np.abs(want)), equal_nan=True)
        row = int(np.argmin(close.all(1)))
        assert close.all(), (
            f"row {row} differs when it is simulated with fewer others: {x[row][~close[row]][:3]} "
            f"and {want[row][~close[row]][:3]}; "
            "compute every row from its own theta; no mean or scale over the batch"
        )

    def _same_law(self, theta: NDArray[np.float64]) -> None:
        """Two-sample Kolmogorov-Smirnov per column, one false alarm in a million."""
        gen = stream(8, "parts")
        size = _MANY // 16
        parts = [self.subject.simulate(theta[k : k + size], gen) for k in range(0, _MANY, size)]
        whole = self.subject.simulate(theta, stream(9, "whole"))
        again = self.subject.simulate(theta[:size], gen)
        assert _difference(parts[0], again), (
            "two calls with one generator return the same random numbers; "
            f"{'do not seed a generator inside simulate; ' + _FROM_RNG}"
        )
        one = torch.cat([p.x for p in parts]).flatten(1).double().numpy()
        two = whole.x.flatten(1).double().numpy()
        columns = min(one.shape[1], 20)
        for k in np.linspace(0, one.shape[1] - 1, columns).astype(int):
            a, b = one[np.isfinite(one[:, k]), k], two[np.isfinite(two[:, k]), k]
            p = float(stats.ks_2samp(a, b).pvalue) if len(a) and len(b) else 1.0
            assert p > 1e-6 / columns, (
                f"column {k} of x is distributed otherwise when {_MANY} rows are simulated "
                f"{size} at a time (Kolmogorov-Smirnov p = {p:.1g}); "
                "compute every row from its own theta; no mean or scale over the batch"
            )

    def test_edges_of_the_prior_are_finite_or_flagged(self) -> None:
        """At the ends of the prior, rows are finite or flagged; no exception."""
        space = self.subject.parameters
        if any(not p.prior.has_density or not p.prior.continuous for p in space):
            skip("the prior is implicit or discrete")
        corners = np.array([[0.0], [-5.0], [5.0]]) * np.ones(space.z_dim)
        z = np.concatenate([corners, *(s * np.eye(space.z_dim) for s in (-5, 5))])
        theta = space.from_unconstrained(z)
        batch = self.subject.simulate(theta, stream(10, "edges"))
        bad = ~torch.isfinite(batch.x.where(batch.observed, 0.0)).flatten(1).all(1) & batch.ok
        row = int(torch.argmax(bad.int()))
        values = ", ".join(f"{n} = {v:.4g}" for n, v in zip(space.names, theta[row], strict=True))
        assert not bool(bad.any()), (
            f"{int(bad.sum())} of {len(z)} rows at the ends of the prior hold x that is not finite "
            f"and are not flagged, e.g. {values}; "
            "return ok=False with a reason code for them, or narrow the prior"
        )

    def test_failures_are_explained(self) -> None:
        """Failed rows carry a code that ``failures`` explains; the others carry 0."""
        batch, known = self.draw(_MANY, seed=11), self.subject.failures
        wrong = int((batch.failure[batch.ok] != 0).sum())
        assert wrong == 0, f"{wrong} rows are ok and carry a failure code; give them code 0"
        unknown = sorted({int(c) for c in batch.failure[~batch.ok]} - (set(known) - {0}))
        assert not unknown, (
            f"failed rows carry the codes {unknown}, `failures` explains {dict(known)}; "
            "add every code to `failures`, with its meaning; 0 is for rows that are ok"
        )
        taken = sorted(code for code in known if code < 0)
        assert not taken, (
            f"`failures` has the codes {taken}; use positive codes: negative ones are those of the "
            "run, for rows that raise, crash or exceed the time limit"
        )
        assert batch.ok.any(), (
            f"all {_MANY} simulations from the prior failed; "
            "narrow the prior, or let fewer rows fail"
        )

    # -- observe ----------------------------------------------------------------------------

    def test_observe_returns_valid_errors_and_masks(self) -> None:
        """Errors are positive, NaN stands only under the mask, theta and input are untouched."""
        clean = self.draw().succeeded
        before = {k: v.copy() for k, v in clean.numpy().items()}
        seen = self.subject.observe(clean, stream(12, "noise"))
        changed = [k for k, v in clean.numpy().items() if not np.array_equal(v, before[k], True)]
        assert not changed, (
            f"observe changes {changed} of the batch it was given; "
            "return batch.with_(x=..., x_err=..., mask=...); no assignment into tensors"
        )
        check_observed(self.subject, seen, clean)
        if seen.context is not None:
            columns, names = seen.context.shape[1], self.subject.context_names
            assert columns == len(names), (
                f"context has {columns} columns, context_names {len(names)}; "
                "name every column of context in `context_names`"
            )

    def test_noise_is_fresh_in_every_call(self) -> None:
        """Two calls of observe with one generator give two realisations of the noise."""
        clean, gen = self.draw().succeeded, stream(13, "noise")
        one, two = (self.subject.observe(clean, gen) for _ in range(2))
        if not _difference(one, clean):
            skip("observe adds nothing: simulate is stochastic itself, or data have no noise")
        assert _difference(one, two), (
            "observe returns the same noise twice; "
            "draw the noise in observe from its argument rng: a network that sees one frozen "
            "realisation becomes overconfident"
        )

    def test_masked_values_are_removed(self) -> None:
        """Where mask is False, x holds no number that a reader could use."""
        seen = self.observed(14)
        if seen.mask is None or bool(seen.mask.all()):
            skip("nothing is missing")
        left = int((torch.isfinite(seen.x) & ~seen.mask & (seen.x != 0)).sum())
        assert left == 0, (
            f"{left} masked values still stand in x; "
            "set x to NaN (or 0) where mask is False: x = torch.where(mask, x, torch.nan)"
        )

    # -- objects ----------------------------------------------------------------------------

    def test_example_objects_can_be_inferred(self) -> None:
        """Mock objects look like observed simulations, hold the truth, and share the globals."""
        objects, like = self.examples(6, 15), self.observed(16)
        assert len(objects) > 0, "example_observations returns no object; return at least one"
        want, got = tuple(like.x.shape[1:]), tuple(objects.batch.x.shape[1:])
        sets = len(want) == 2 and len(got) == 2 and want[1] == got[1]
        assert got == want or sets, (
            f"example objects have x {got} per object, observed simulations {want}; "
            "make them with observe(simulate(theta)), or in the same layout"
        )
        for name in ("x_err", "context"):
            has = getattr(objects.batch, name) is not None
            assert has == (getattr(like, name) is not None), (
                f"'{name}' is {'present' if has else 'absent'} in example objects only; "
                "objects need the same fields as the data the network is trained with"
            )
        truth = objects.truth or {}
        shared = [p.name for p in self.subject.parameters if p.scope == "global"]
        for name in (n for n in shared if n in truth):
            for group, rows in objects.groups.items():
                spread = float(np.ptp(truth[name][rows]))
                assert spread <= 1e-6 * max(1.0, float(np.abs(truth[name][rows]).max())), (
                    f"parameter '{name}' is global, but differs by {spread:.2g} within the "
                    f"example group '{group}'; "
                    "give all objects of a group one value, or make the parameter local"
                )

    def test_written_objects_read_back(self) -> None:
        """Example objects, written as a table, are read by ``read_observations`` as they were."""
        objects = self.examples(4, 17)
        x = objects.batch.x
        if (
            x.ndim != 2
            or len(objects.observables) != x.shape[1]
            or objects.batch.context is not None
        ):
            skip("objects are not plain tables of observables")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "objects.ecsv"
            objects.write(path)
            back = self.subject.read_observations(path)
        want = torch.where(objects.batch.observed, x, torch.nan).double().numpy()
        got = torch.where(back.batch.observed, back.batch.x, torch.nan).double().numpy()
        if got.shape != want.shape or not np.allclose(got, want, rtol=1e-5, equal_nan=True):
            fail(
                "objects written as a table are read back otherwise; read the columns named in "
                "`observables`, and convert units from those of the file"
            )

    def test_it_can_be_pickled(self) -> None:
        """Pickled and back, it simulates the same bits."""
        try:
            copy = pickle.loads(pickle.dumps(self.subject))
        except Exception as error:
            fail(
                f"cannot be pickled: {type(error).__name__}: {error}; "
                "keep no open files, lambdas or locks on the simulator; open them when needed"
            )
        off = _difference(self.draw(), copy.draw(_N, stream(1, "draw")))
        assert not off, f"a pickled copy simulates other numbers: {off}; pickle all its state"


def _theta(batch: Batch) -> NDArray[np.float64]:
    assert batch.theta is not None
    return np.asarray(batch.theta.double().numpy())


def _difference(a: Batch, b: Batch) -> str:
    """Return the first field and row in which two batches differ, or an empty text."""
    one, two = a.numpy(), b.numpy()
    if one.keys() != two.keys():
        return f"fields {sorted(one.keys() ^ two.keys())} are present only once"
    for name, value in one.items():
        if value.shape != two[name].shape:
            return f"field '{name}' has shape {value.shape} and {two[name].shape}"
        same = value == two[name]
        if value.dtype.kind == "f":
            same |= np.isnan(value) & np.isnan(two[name])
        if not same.all():
            at = tuple(int(k) for k in np.argwhere(~same)[0])
            return f"field '{name}' at {at} is {value[at]} and {two[name][at]}"
    return ""


def _numpy_state() -> str:
    return repr([np.asarray(part).tolist() for part in np.random.get_state()])  # noqa: NPY002


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
