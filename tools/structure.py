"""Count what the structure of the packages costs a reader: ``python tools/structure.py [RUN]``.

Lines and files of the core, loose modules at its root, import statements inside functions (all
packages), import circles (deferred and type-only imports included), and the files that a table of
stars passes from the command line to the report.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from workspace import ROOT, packages

CORE = ROOT / "packages" / "sbi-core" / "src" / "sbi_core"
SOURCES = [p.src for p in packages()]


def main() -> int:
    files = sorted(CORE.rglob("*.py"))
    lines = sum(len(f.read_text(encoding="utf-8").splitlines()) for f in files)
    loose = [f for f in CORE.glob("*.py") if f.name != "__init__.py"]
    print(f"sbi_core: {lines} lines in {len(files)} files")
    for source in SOURCES[1:]:
        parts = sorted(source.rglob("*.py"))
        count = sum(len(f.read_text(encoding="utf-8").splitlines()) for f in parts)
        print(f"{source.parent.name}: {count} lines in {len(parts)} files")
    print(f"loose modules at the root of sbi_core: {len(loose)}")
    print(f"import statements inside functions: {sum(map(deferred, sources()))}")
    found = circles()
    print(f"import circles: {len(found)}")
    for circle in found:
        print(f"    {' <-> '.join(sorted(circle))}")
    if len(sys.argv) > 1:
        print(f"files a table of stars passes: {len(passed(sys.argv[1]))}")
    return 0


def sources() -> list[Path]:
    return [f for source in SOURCES for f in sorted(source.rglob("*.py"))]


def deferred(file: Path) -> int:
    """Return the number of import statements inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = (n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f))
    return len({id(n) for n in inside if isinstance(n, (ast.Import, ast.ImportFrom))})


def module_of(file: Path, source: Path) -> str:
    name = ".".join(file.relative_to(source).with_suffix("").parts)
    return name.removesuffix(".__init__")


def circles() -> list[set[str]]:
    """Return the strongly connected parts of the graph of imports with more than one module."""
    files = {module_of(f, s): f for s in SOURCES for f in s.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{a.name}" for a in node.names]
                names = [n if n in files else node.module for n in names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            graph[name] |= {n for n in names if n in files and n != name}
    # The public fronts re-export lazily: whoever imports them imports what stands behind.
    fronts = {p.import_name for p in packages()}
    return [c for c in components({k: v - fronts for k, v in graph.items() if k not in fronts})]


def components(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = set()
            while True:
                part.add(top := stack.pop())
                if top == node:
                    break
            if len(part) > 1:
                found.append(part)

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


TRACED = """
import sys
seen = set()
def trace(frame, event, arg):
    name = frame.f_code.co_filename
    if ('/sbi_core/' in name or '/sbi_chempy/' in name) and frame.f_code.co_name != '<module>':
        seen.add(name)
from sbi_core.cli import main
run, stars = sys.argv[1:]
words = f'--plugin chempy --preset quick --seed 1 --workers 1 --out {run} --restart infer --quiet'
sys.setprofile(trace)
try:
    main([*words.split(), '--observations', stars])
except SystemExit as done:
    if done.code not in (0, 3):
        raise
sys.setprofile(None)
print('\\n'.join(sorted(seen)))
"""


def passed(run: str) -> set[str]:
    """Return the files of sbi_core and sbi_chempy that work between a table and its report.

    ``run`` is a finished run of chempy, preset quick, seed 1; a copy of it infers ten stars.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy, stars = Path(folder) / "run", Path(folder) / "stars.csv"
        shutil.copytree(run, copy)
        rows = "".join(f"s{k},{0.01 * k},0.05,0.1,0.05\n" for k in range(10))
        stars.write_text("id,fe_h,e_fe_h,mg_fe,e_mg_fe\n" + rows, encoding="utf-8")
        call = [sys.executable, "-c", TRACED, str(copy), str(stars)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
    return set(re.findall(r"^/.*\.py$", done.stdout, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
