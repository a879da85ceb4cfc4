"""Fixtures of the core tests: a seeded generator and a tiny plugin with an exact posterior."""

import os
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

TOY = Path(__file__).parent / "toy"
if str(TOY) not in sys.path:  # worker processes inherit the path and import the toy from it
    sys.path.insert(0, str(TOY))

import sbi_toy  # noqa: E402

from sbi_core.pipeline.config import resolve  # noqa: E402
from sbi_core.pipeline.runner import Run, execute  # noqa: E402
from sbi_core.registry import Registry  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(20251)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy():
    """The simulator x_i = A Lambda + B Theta_i + eps."""
    return sbi_toy.ToySimulator()


@pytest.fixture
def registry():
    """The built-in components and the plugin ``toy``."""
    return Registry(["toy"], extra={"toy": sbi_toy})


@pytest.fixture
def toy_run(registry, tmp_path):
    """``toy_run("simulate.n=400", out=...)`` executes the quick preset of the toy."""

    def run(*overrides, out="run", preset="quick", seed=1, **options):
        config = resolve(registry, "toy", preset=preset, overrides=overrides, seed=seed)
        return execute(config, tmp_path / out, registry, **options)

    return run


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    """One finished run of the quick preset; tests work on copies."""
    out = tmp_path_factory.mktemp("finished") / "run"
    registry = Registry(["toy"], extra={"toy": sbi_toy})
    execute(resolve(registry, "toy", preset="quick"), out, registry)
    return out


@pytest.fixture
def finished(_finished, registry, tmp_path):
    """A finished run of the quick preset, in ``tmp_path / "run"``; yours to alter."""
    shutil.copytree(_finished, tmp_path / "run")
    return Run(tmp_path / "run", registry)


class Hostile:
    """Unpickling it creates the file ``path``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def hostile(tmp_path):
    """An object whose unpickling is noticed: no test that uses it may leave it executed."""
    trace = tmp_path / "executed"
    yield Hostile(trace)
    assert not trace.exists(), "something stored in a file was executed"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install("my-dist", {"name": "module"}, module=source)`` puts a distribution on the path.

    Returns the folder; subprocesses find it in PYTHONPATH, too.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), str(TOY), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))
    made = []

    def put(distribution, plugins, version="0.1", **modules):
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = "".join(f"{name} = {module}\n" for name, module in plugins.items())
        (info / "entry_points.txt").write_text(f"[sbi_core]\n{lines}")
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(source))
            made.append(name)
        import importlib

        importlib.invalidate_caches()
        return folder

    yield put
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def toy_installed(install):
    """The toy as an installed distribution, for tests of the command line."""
    return install("sbi-toy", {"toy": "sbi_toy"})
