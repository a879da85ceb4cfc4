"""What a check finds: nothing, a broken promise, or that it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from sbi_core.errors import SbiError

__all__ = [
    "Check",
    "ConformanceError",
    "NotApplicable",
    "Result",
    "bind",
    "require",
    "run_all",
]

Subject = TypeVar("Subject")


class ConformanceError(AssertionError):
    """A promise of the contract is broken: the check, the values found, and the fix."""


class NotApplicable(Exception):  # noqa: N818  (no error: a reason)
    """The component makes no such promise; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one component; call it.

    Parameters
    ----------
    kind
        ``simulator``, ``embedding``, ``estimator``, ``combiner``, ``pipeline``, ``plugin``, ...
    component
        Its name.
    name
        The promise, e.g. ``same-seed-same-bits``.
    run
        Does the work.
    """

    kind: str
    component: str
    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Do the check.

        Raises
        ------
        ConformanceError
            If the promise is broken, or the component raised something unforeseen.
        NotApplicable
            If the component makes no such promise.
        """
        __tracebackhide__ = True
        where = f"{self.kind} '{self.component}', check {self.name}"
        try:
            self.run()
        except ConformanceError as error:
            raise ConformanceError(f"{where}: {error}") from None
        except NotApplicable:
            raise
        except SbiError as error:
            msg = f"{where}: refused with {type(error).__name__}: {error}"
            raise ConformanceError(msg) from error
        except Exception as error:
            msg = (
                f"{where}: raised {type(error).__name__}: {error}. To fix it: follow the "
                "traceback above; a component reports failure by flags or by the errors of "
                "sbi_core, never by other exceptions"
            )
            raise ConformanceError(msg) from error

    def __str__(self) -> str:
        return f"{self.kind}-{self.component}-{self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check."""

    check: Check
    outcome: Literal["passed", "failed", "not applicable"]
    message: str = ""

    def __str__(self) -> str:
        return f"{self.outcome:<15}{self.check}" + (f"\n    {self.message}" if self.message else "")


def require(ok: bool, problem: str, fix: str) -> None:
    """Raise ConformanceError with the problem and the fix unless ``ok``."""
    __tracebackhide__ = True
    if not ok:
        msg = f"{problem}. To fix it: {fix}"
        raise ConformanceError(msg)


def bind(
    kind: str,
    component: str,
    checks: Iterable[Callable[[Subject], None]],
    subject: Callable[[], Subject],
) -> list[Check]:
    """Return one :class:`Check` per function; the subject is made when the first one runs."""

    def make(check: Callable[[Subject], None]) -> Check:
        name = check.__name__.removeprefix("check_").replace("_", "-")
        return Check(kind, component, name, lambda: check(subject()))

    return [make(check) for check in checks]


def run_all(checks: Iterable[Check]) -> list[Result]:
    """Run every check and return what became of each.

    Raises
    ------
    ConformanceError
        After the last check, if any failed: all messages.
    """
    results = []
    for check in checks:
        try:
            check()
        except ConformanceError as error:
            results.append(Result(check, "failed", str(error)))
        except NotApplicable as reason:
            results.append(Result(check, "not applicable", str(reason)))
        else:
            results.append(Result(check, "passed"))
    failed = [r.message for r in results if r.outcome == "failed"]
    if failed:
        listed = "\n".join(f"  {k}. {message}" for k, message in enumerate(failed, 1))
        msg = f"{len(failed)} of {len(results)} checks failed:\n{listed}"
        raise ConformanceError(msg)
    return results
