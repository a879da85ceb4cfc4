"""Every check that a person or CI runs.

``nox`` runs all of it; ``nox -l`` lists the sessions; ``nox -s "tests(sbi-chempy)" -- -k sign``
hands arguments on to pytest.

`lint`, `tests` and `docs` share one environment (.nox/dev: every package editable, everything
pinned by constraints.txt), which is rebuilt only when a pyproject.toml or constraints.txt changes.
`wheel` and `plugin` build their own fresh ones, because what they prove is that nothing else is
needed. So do `dists`, `lowest` and `newest`, and `tests-3.12` and `tests-3.13`, which need these
versions of Python; none of them is part of a plain ``nox``.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

from lowest import lowest_versions  # noqa: E402
from workspace import Package, examples, packages  # noqa: E402

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = False
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "tests", "wheel", "plugin", "docs"]

CONSTRAINTS = ROOT / "constraints.txt"
DEV = ROOT / ".nox" / "dev"
# pip compiles every file of torch otherwise, which costs more than unpacking it.
PIP_INSTALL = ("--no-compile", "-c", str(CONSTRAINTS))

TRIES = 3  # of an installation: a broken download is no verdict on the code
PAUSE_S = 20

PACKAGES = packages()
CORE = next((package for package in PACKAGES if package.is_core), None)
DOMAINS = [package for package in PACKAGES if package.plugins and not package.is_core]
EXAMPLES = examples()

OTHER_PYTHONS = ("3.12", "3.13")

# What a plugin's default run needs beside its package: fetched as its documentation says.
DATA = {"sedflow": "bc03-miles"}

# The domain plugins this project publishes, whether or not their folder exists yet.
OFFICIAL_PLUGINS = ("chempy", "casbi", "sfh", "sedflow")


def each(found: list[Package]) -> "nox.parametrize":
    """Parametrise a session by package, with the package's name as the id."""
    return nox.parametrize("package", [nox.param(p, id=p.name) for p in found])


# ------------------------------------------------------------------------------------ sessions


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, types and import contracts."""
    python = dev_environment(session)
    session.run(python, "-m", "ruff", "check", ".")
    session.run(python, "-m", "ruff", "format", "--check", ".")
    session.run(python, "tools/contracts.py")
    session.run(python, "tools/typecheck.py")


@nox.session(venv_backend="none")
@each(PACKAGES)
def tests(session: nox.Session, package: Package) -> None:
    """Run the tests of one package."""
    if not any(package.tests.rglob("test_*.py")):
        session.skip(f"{package.name} has no tests yet")
    python = dev_environment(session)
    session.run(
        *(python, "-m", "pytest", str(package.tests), "-n", "auto", "--maxprocesses", "4"),
        *session.posargs,
        env=run_environment(),
    )


@nox.session
@each(DOMAINS)
def wheel(session: nox.Session, package: Package) -> None:
    """Install the core and one plugin as wheels, alone, and run its quick preset elsewhere."""
    assert CORE is not None, "a plugin without packages/sbi-core"
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        outside = Path(folder)
        install(session, *build_wheels(session, [CORE, package], outside / "wheels"))
        check_absent(session, [o.import_name for o in DOMAINS if o is not package] + ["pynbody"])
        listed = session.run("sbi-run", "plugins", silent=True, env=bare_environment())
        plugin = package.plugins[0]
        if plugin not in str(listed):
            session.error(f"`sbi-run plugins` does not list {plugin}:\n{listed}")
        if plugin in DATA:
            fetch = ("sbi-run", "data", "fetch", DATA[plugin])
            again(session, lambda: session.run(*fetch, env=bare_environment()))
        run_quick(session, plugin, outside / "out")
        check_names_missing_plugin(session, package)
    discard_environment(session)
    session.log(f"{package.name}: installed alone, ran, and knows what is not there")


@nox.session
def plugin(session: nox.Session) -> None:
    """Build, install and test plugins as a stranger would: examples, a new one, a broken one."""
    if not EXAMPLES:
        session.skip("there is no plugin below examples/")
    assert CORE is not None, "an example without packages/sbi-core"
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        outside = Path(folder)
        wheels = build_wheels(session, [CORE, *EXAMPLES], outside / "wheels")
        install(session, *wheels, "pytest")
        new = new_plugin(session, "toymodel")
        install(session, f"./{new}")
        # Not from the folder of the sources: what is tested is what was installed.
        for name, tests in [*((e.name, e.tests) for e in EXAMPLES), (new, outside / new / "tests")]:
            copy = shutil.copytree(tests, outside / f"tests-{name}")
            session.run("python", "-m", "pytest", str(copy), env=bare_environment())
        check_broken_plugin(session, new_plugin(session, "broken"))
        # One stranger's simulator, another stranger's combiner, a third one's mistake beside them.
        run_quick(session, "toymodel", outside / "out", "--set", "combiner.name=floored")
    discard_environment(session)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors; run its notebooks and examples."""
    python = dev_environment(session)
    # -E: a page that no longer warns because it was cached would hide a broken link.
    session.run(
        *(python, "-m", "sphinx", "-W", "--keep-going", "-E", "-q"),
        *("-b", "html", "docs", "docs/_build/html"),
        env=run_environment(),
    )
    session.run(python, "tools/links.py", "docs/_build/html")
    session.run(python, "tools/run_examples.py", env=run_environment())


@nox.session(venv_backend="none")
@each(PACKAGES)
def coverage(session: nox.Session, package: Package) -> None:
    """Run the tests of one package and list the lines that they do not reach."""
    python = dev_environment(session)
    session.run(
        *(python, "-m", "pytest", str(package.tests), "-n", "auto", "--maxprocesses", "4"),
        *(f"--cov={package.import_name}", "--cov-report=term", "--cov-report=xml"),
        *session.posargs,
        env=run_environment(),
    )


@nox.session
def dists(session: nox.Session) -> None:
    """Build sdists, and wheels from them; install each package alone, then all, from both."""
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        outside = Path(folder)
        built = outside / "dist"
        build(session, [package.path for package in PACKAGES], built, "--sdist")
        for sdist in sorted(built.glob("*.tar.gz")):
            # as an index would: from the sdist, outside any checkout
            unpacked = outside / sdist.name.removesuffix(".tar.gz")
            shutil.unpack_archive(sdist, outside, filter="data")
            build(session, [unpacked], built, "--wheel")
        install(session, "twine", "hatchling", *sorted(map(str, built.glob("*.whl"))))
        session.run("twine", "check", "--strict", *map(str, built.iterdir()))
        names = [package.name for package in PACKAGES]
        for form in ("--only-binary", "--no-binary"):
            pip = ("pip", "install", "--quiet", "--no-index", "--no-build-isolation")
            pip = (*pip, "--find-links", str(built), form, ",".join(names))
            for order in (*([name] for name in names), names, names[::-1]):
                session.run("pip", "uninstall", "--quiet", "--yes", *names)
                for name in order:
                    session.run(*pip, name)
                session.run("pip", "check", silent=True)
                check_listed(session, order)
    discard_environment(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the fast tests with the lowest versions that the packages accept."""
    pinned = Path(session.create_tmp()) / "lowest.txt"
    pinned.write_text("\n".join(lowest_versions(PACKAGES)), encoding="utf-8")
    run_fast_tests(session, "-c", str(pinned))


@nox.session
def newest(session: nox.Session) -> None:
    """Run the fast tests with the newest versions that the packages accept."""
    run_fast_tests(session, "--upgrade")


def other_python(session: nox.Session) -> None:
    """Run the fast tests with another version of Python."""
    run_fast_tests(session, "-c", str(CONSTRAINTS))


for version in OTHER_PYTHONS:
    nox.session(other_python, python=version, name=f"tests-{version}")


# ------------------------------------------------------------------------------------- helpers


def run_fast_tests(session: nox.Session, *pip: str) -> None:
    """Install all packages into the session's own environment and run their fast tests."""
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "test")
    again(session, lambda: session.install("--no-compile", *pip, *groups, *editable()))
    for package in PACKAGES:
        session.run(
            *("python", "-m", "pytest", str(package.tests), "-m", "not slow", "-n", "auto"),
            *("--maxprocesses", "4", *session.posargs),
            env=run_environment(),
        )
    discard_environment(session)


def editable() -> list[str]:
    """Return the arguments of pip that install all packages from this tree."""
    extras = ["[test]" if "test" in package.extras else "" for package in PACKAGES]
    paths = [f"{p.path}{extra}" for p, extra in zip(PACKAGES, extras, strict=True)]
    return [word for path in paths for word in ("-e", path)]


def dev_environment(session: nox.Session) -> str:
    """Path of the python in the shared environment, built first where it is missing or stale."""
    python = DEV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = DEV / "stamp"
    wanted = fingerprint()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return str(python)

    pip = (str(python), "-m", "pip", "install", "--quiet", *PIP_INSTALL)
    session.run(sys.executable, "-m", "virtualenv", "--clear", "--quiet", str(DEV))
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "dev")
    again(session, lambda: session.run(*pip, *groups))
    if PACKAGES:
        again(session, lambda: session.run(*pip, "--no-build-isolation", *editable()))
    stamp.write_text(wanted)
    return str(python)


def install(session: nox.Session, *wanted: str) -> None:
    """Install into the session's own environment, pinned."""
    again(session, lambda: session.install(*PIP_INSTALL, *wanted))


def again(session: nox.Session, step: Callable[[], object]) -> None:
    """Take a step that downloads; where it fails, wait and try again, ``TRIES`` times in all."""
    for attempt in range(1, TRIES + 1):
        try:
            step()
            return
        except CommandFailed:
            if attempt == TRIES:
                raise
            session.warn(f"installation failed, try {attempt} of {TRIES}; again in {PAUSE_S} s")
            time.sleep(PAUSE_S)


def discard_environment(session: nox.Session) -> None:
    """Remove the session's own environment (over 1 GB) after success; a failed one is kept."""
    shutil.rmtree(session.virtualenv.location, ignore_errors=True)


def fingerprint() -> str:
    """Hash of all that decides what the shared environment contains."""
    files = [CONSTRAINTS, ROOT / "pyproject.toml", *(p.path / "pyproject.toml" for p in PACKAGES)]
    text = sys.version + "".join(file.read_text(encoding="utf-8") for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def run_environment() -> dict[str, str]:
    """One thread per process, and the reference data where it lies beside the repository."""
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    beside = ROOT.parent / "shared" / "data"
    if "SBI_DATA_DIR" not in os.environ and beside.is_dir():
        env["SBI_DATA_DIR"] = str(beside)
    return env


def bare_environment() -> dict[str, str | None]:
    """No reference data, no path into the tree: what a new user has."""
    return {"SBI_DATA_DIR": None, "PYTHONPATH": None}


def build_wheels(session: nox.Session, wanted: list[Package], out: Path) -> list[str]:
    """Build wheels with the shared environment's build backend; their paths."""
    build(session, [package.path for package in wanted], out, "--wheel")
    return [str(file) for file in sorted(out.glob("*.whl"))]


def build(session: nox.Session, folders: list[Path], out: Path, what: str) -> None:
    """Build distributions with the shared environment's build backend."""
    python = dev_environment(session)
    for folder in folders:
        session.run(
            *(python, "-m", "build", what, "--no-isolation", "--outdir", str(out), str(folder)),
            external=True,
            silent=True,
        )


def check_listed(session: nox.Session, names: list[str]) -> None:
    """Fail unless exactly the plugins of these packages are listed, without a problem."""
    listed = str(session.run("sbi-run", "plugins", silent=True, env=bare_environment()))
    wanted = {plugin for p in DOMAINS if p.name in names for plugin in p.plugins}
    there = {plugin for p in DOMAINS for plugin in p.plugins if f"\n{plugin} " in f"\n{listed}"}
    if there != wanted or "problem:" in listed:
        session.error(f"after installing {names}, `sbi-run plugins` lists:\n{listed}")


def check_absent(session: nox.Session, modules: list[str]) -> None:
    """Fail if any of these modules can be imported."""
    code = (
        "import sys, importlib.util as u; "
        "found = [name for name in sys.argv[1:] if u.find_spec(name)]; "
        "sys.exit(f'not needed, yet installed: {found}' if found else 0)"
    )
    session.run("python", "-c", code, *modules, env=bare_environment())


def run_quick(session: nox.Session, name: str, out: Path, *options: str) -> None:
    """Run the quick preset and read its report."""
    # 3: finished, but a calibration gate failed. The quick preset is a first look, and this
    # session proves the installation; calibration is proven by the packages' own tests.
    session.run(
        *("sbi-run", "--plugin", name, "--preset", "quick", "--out", str(out), "--quiet", *options),
        success_codes=[0, 3],
        env=bare_environment(),
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    if report["plugin"] != name or report["preset"] != "quick":
        session.error(f"{out / 'report.json'} speaks of another run: {report['plugin']}")
    if not (out / "report.html").is_file():
        session.error(f"no report.html in {out}")
    verdict = report.get("calibration", {}).get("verdict", "none")
    session.log(f"{name} quick: {report['timing']['total_s']:.0f} s, calibration {verdict}")


def check_names_missing_plugin(session: nox.Session, package: Package) -> None:
    """Asking for a known plugin that is not installed exits 2 and says how to install it."""
    other = "casbi" if "casbi" not in package.plugins else "chempy"
    command = [str(Path(session.bin) / "sbi-run"), "--plugin", other]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    if done.returncode != 2 or f"pip install sbi-{other}" not in said or "Traceback" in said:
        session.error(f"--plugin {other} exited {done.returncode} and said:\n{said}")


def new_plugin(session: nox.Session, name: str) -> str:
    """Generate a plugin here; its folder."""
    session.run("sbi-run", "new-plugin", name, env=bare_environment(), silent=True)
    return f"sbi-{name}"


def check_broken_plugin(session: nox.Session, folder: str) -> None:
    """A plugin that cannot be imported is listed with its problem; the list itself is fine."""
    (init,) = Path(folder).glob("src/*/__init__.py")
    init.write_text("raise RuntimeError('no licence')\n", encoding="utf-8")
    session.install("--no-deps", f"./{folder}")
    listed = str(session.run("sbi-run", "plugins", silent=True, env=bare_environment()))
    wanted = ["[failed]", "problem: RuntimeError: no licence", "floored", "lotka", "toymodel"]
    missing = [words for words in wanted if words not in listed]
    if missing:
        session.error(f"`sbi-run plugins` beside a broken plugin lacks {missing}:\n{listed}")
