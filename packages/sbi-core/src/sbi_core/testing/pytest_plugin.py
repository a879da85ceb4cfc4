"""pytest plugin: one test per conformance check of a plugin.

A test that asks for the fixture ``sbi_check`` and carries ``@pytest.mark.sbi_plugin(NAME)`` is
repeated for every check of that plugin. Sessions without such a test import nothing but this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sbi_core.testing.outcome import Check

__all__ = ["pytest_configure", "pytest_generate_tests", "sbi_check"]

MARK = "sbi_plugin(name, ...): conformance of a plugin; see sbi_core.testing.conformance_checks"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", MARK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a test with the fixture ``sbi_check`` for every check of its plugin."""
    if "sbi_check" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("sbi_plugin")
    if mark is None or not mark.args:
        where = metafunc.definition.nodeid
        msg = f"{where}: the fixture sbi_check needs @pytest.mark.sbi_plugin('NAME') on its test"
        raise pytest.UsageError(msg)
    from sbi_core.errors import SbiError
    from sbi_core.testing.plugins import conformance_checks

    try:
        checks: list[Any] = conformance_checks(*mark.args, **mark.kwargs)
    except (SbiError, TypeError) as error:
        msg = f"{metafunc.definition.nodeid}: {error}"
        raise pytest.UsageError(msg) from None
    metafunc.parametrize("sbi_check", checks, ids=str, indirect=True)


@pytest.fixture
def sbi_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """One conformance check: call it. A check that does not apply skips, and says why."""
    from sbi_core.testing.outcome import NotApplicable

    check: Check = request.param

    def run() -> None:
        __tracebackhide__ = True
        try:
            check()
        except NotApplicable as reason:
            pytest.skip(f"does not apply: {reason}")

    return run
