"""Base of the conformance classes: one method per requirement.

A class is inherited in a test file, and pytest runs its methods ``test_*``::

    class TestCluster(SimulatorChecks):
        def make(self):
            return ClusterSimulator()

Without pytest, ``SimulatorChecks.of(ClusterSimulator).run()`` does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar
from unittest import SkipTest

__all__ = ["Checks", "fail", "once", "skip"]

T = TypeVar("T")
Subject = TypeVar("Subject")


def fail(message: str) -> NoReturn:
    """Fail the test."""
    __tracebackhide__ = True
    raise AssertionError(message)


def skip(reason: str) -> NoReturn:
    """Skip the test: the requirement does not apply."""
    raise SkipTest(reason)  # pytest skips as well


class once(Generic[T]):  # noqa: N801
    """A property that is computed once per class: pytest makes a new object for every test."""

    def __init__(self, method: Callable[[Any], T]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_once_{name}"

    def __get__(self, instance: Any, owner: type) -> T:
        if self.name not in vars(owner):
            setattr(owner, self.name, self.method(owner() if instance is None else instance))
        value: T = vars(owner)[self.name]
        return value


class Checks(Generic[Subject]):
    """Tests of one component; subclasses define ``make``, which returns it."""

    def make(self) -> Subject:
        """Return the component that is tested."""
        raise NotImplementedError

    @once
    def subject(self) -> Subject:
        """The component, made once."""
        return self.make()

    @classmethod
    def of(cls, make: Callable[[], Any], **attributes: Any) -> type[Checks[Subject]]:
        """Return the tests of what ``make`` returns.

        Parameters
        ----------
        make
            Returns the component: its class will do.
        attributes
            Attributes of the tests, e.g. ``exact=True`` for a combiner.
        """
        body = {"make": lambda self: make(), "__module__": cls.__module__, **attributes}
        return type(cls.__name__, (cls,), body)

    @classmethod
    def checks(cls) -> dict[str, Callable[[], None]]:
        """Return the tests by the name of the requirement, e.g. ``same-seed-same-bits``."""
        names = [n for base in cls.__mro__[::-1] for n in vars(base) if n.startswith("test_")]
        return {
            name.removeprefix("test_").replace("_", "-"): partial(_call, cls, name)
            for name in dict.fromkeys(names)
            if callable(getattr(cls, name))  # a subclass sets None to leave a test out
        }

    @classmethod
    def run(cls, *only: str) -> dict[str, str]:
        """Run the tests, or ``only`` some; return ``passed`` or ``skipped: why`` by name.

        Raises
        ------
        AssertionError
            After the last test, if any failed: all messages.
        """
        outcomes: dict[str, str] = {}
        failures = []
        chosen = {k: check for k, check in cls.checks().items() if not only or k in only}
        for name, check in chosen.items():
            try:
                check()
                outcomes[name] = "passed"
            except SkipTest as reason:
                outcomes[name] = f"skipped: {reason}"
            except AssertionError as error:
                failures.append(f"{name}: {error}")
            except Exception as error:
                failures.append(f"{name}: raised {type(error).__name__}: {error}")
        if failures:
            listed = "\n".join(f"  {k}. {line}" for k, line in enumerate(failures, 1))
            fail(f"{len(failures)} of {len(chosen)} checks failed:\n{listed}")
        return outcomes


def _call(cls: type[Checks[Any]], name: str) -> None:
    __tracebackhide__ = True
    getattr(cls(), name)()
