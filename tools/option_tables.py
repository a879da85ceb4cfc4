"""Write the tables of docs that follow from the code.

``python tools/option_tables.py`` replaces what stands between ``<!-- begin NAME -->`` and
``<!-- end -->``: the options of a stage or of every built-in component (docs/configuration.md), and
the prior families (docs/write-a-plugin.md). A test compares.
"""

import json
import re
import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from workspace import ROOT

from sbi_core.pipeline import config
from sbi_core.priors.families import FAMILIES
from sbi_core.registry import Registry
from sbi_core.simulate.emulator import EmulatorConfig
from sbi_core.training.config import TrainConfig

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("configuration", "write-a-plugin")]
STAGES: dict[str, type[BaseModel]] = {
    "simulate": config.SimulateSection,
    "emulate": EmulatorConfig,
    "train": TrainConfig,
    "diagnose": config.DiagnoseSection,
    "infer": config.InferSection,
    "combine": config.CombineSection,
}
HEAD = ["| key | default | meaning |", "|---|---|---|"]


def main() -> int:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def filled(text: str) -> str:
    """Return the page with all tables as the code has them."""

    def table(found: re.Match[str]) -> str:
        name = found[1]
        made = {"components": components, "families": families}
        lines = made[name]() if name in made else stage(name)
        return f"<!-- begin {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- begin ([\w-]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def stage(name: str) -> Iterator[str]:
    yield from HEAD
    if name == "emulate":
        yield "| `emulate.enabled` | `false` | whether an emulator is trained |"
    yield from rows(name, STAGES[name])


def components() -> Iterator[str]:
    for kind in ("embedding", "estimator", "combiner", "analysis"):
        for c in (c for c in Registry([]).components() if c.kind == kind):
            options = c.options.model_fields if c.options else {}
            yield f"`{kind} = {c.name}`: {c.summary}" + ("" if options else " (no options)")
            yield ""
            if c.options and options:
                yield from [*HEAD, *rows(kind, c.options), ""]


def families() -> Iterator[str]:
    yield from ["| family | numbers | distribution | support |", "|---|---|---|---|"]
    for name, made in FAMILIES.items():
        needed, optional = made.numbers()
        numbers = ", ".join([*(f"`{n}`" for n in needed), *(f"[`{n}`]" for n in optional)])
        text = (made.__doc__ or "").partition("\n\n")[0]
        yield f"| `{name}` | {numbers} | {' '.join(text.split()).rstrip('.')} | {made.domain} |"


def rows(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        meaning = (field.description or "").rstrip(".").replace("|", "\\|")
        yield f"| `{prefix}.{name}` | {default(field)} | {meaning} |"


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    return f"`{value}`" if isinstance(value, float) else f"`{json.dumps(value, default=str)}`"


if __name__ == "__main__":
    sys.exit(main())
