"""Print constraints that pin every direct dependency to the lowest version that is accepted.

``python tools/lowest.py > lowest.txt``, then ``pip install -c lowest.txt ...``; ``nox -s lowest``
runs the tests with them. Dependencies of dependencies are as new as these allow.
"""

import re
import tomllib

from workspace import Package, packages

__all__ = ["lowest_versions"]

# name, extras, first bound: "numpy>=1.26", "sbi>=0.27,<0.29", "fastar-astro==0.1.2"
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*([0-9][0-9.]*)")


def lowest_versions(wanted: list[Package]) -> list[str]:
    """Return ``name==version`` per dependency: the highest of the lower bounds of all packages."""
    own = {package.name for package in wanted}
    bounds = dict[str, tuple[tuple[int, ...], str]]()
    for package in wanted:
        text = (package.path / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
        test = project.get("optional-dependencies", {}).get("test", [])
        for line in [*project["dependencies"], *test]:
            match = REQUIREMENT.match(line)
            if match is None:
                msg = f"{package.name}: dependency '{line}' has no lower bound"
                raise ValueError(msg)
            name, version = match[1].lower().replace("_", "-"), match[2]
            bound = (tuple(int(part) for part in version.split(".")), version)
            bounds[name] = max(bound, bounds.get(name, bound))
    return [f"{name}=={bounds[name][1]}" for name in sorted(bounds.keys() - own)]


if __name__ == "__main__":
    print("\n".join(lowest_versions(packages())))
