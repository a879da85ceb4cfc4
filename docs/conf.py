"""Sphinx configuration. Builds without a network: `SBI_DOCS_INTERSPHINX=1` links other projects."""

import os
import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
# autodoc reads the sources of this checkout, installed or not.
sys.path[:0] = [str(ROOT / "docs" / "_ext")]
sys.path[:0] = [str(src) for src in sorted(ROOT.glob("packages/*/src"))]

import sbi_core  # noqa: E402

# autodoc imports with typing.TYPE_CHECKING set, under which pydantic cannot build models: load
# everything it documents before it starts.
for _name in sbi_core.__all__:
    getattr(sbi_core, _name)

project = "sbi-astro"
author = "The sbi-astro developers"
project_copyright = "2026, The sbi-astro developers"
release = version = sbi_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "_ext", "conf.py", "figures/*.py"]
nitpicky = True
nitpick_ignore_regex = [
    # Shapes such as "(B, d)" and words stand where numpydoc has types: they are no references.
    ("py:class", r"[A-Za-z]|[a-z_]+|[a-z_]+_68|[a-z]+ in 0..S|the simulator|\"[a-z]+\""),
    # Other projects: linked with SBI_DOCS_INTERSPHINX.
    ("py:.*", r"(numpy|astropy|torch|xarray|pandas)\..*"),
    # Documented in the sources, as text.
    ("py:(mod|class)", r"sbi_casbi\..*|SetDensity|sbi_core\.estimators\.ordinal"),
    ("py:exc", "UnsafeFileError"),  # one kind of DataFileError
]
suppress_warnings = ["myst.strikethrough"]

# Notebooks are Python files; `rm -r docs/_build` runs those again whose text did not change.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = os.environ.get("SBI_DOCS_NOTEBOOKS", "cache")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"

copybutton_prompt_text = "$ "

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True  # "References:" blocks of module docstrings
napoleon_numpy_docstring = True
napoleon_use_ivar = True
napoleon_attr_annotations = False  # full types of arrays are no reading matter

if os.environ.get("SBI_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "astropy": ("https://docs.astropy.org/en/stable", None),
        "sbi": ("https://sbi.readthedocs.io/en/latest", None),
    }

html_static_path = ["_static"]
html_css_files = ["formulae.css", "pages.css"]
html_theme = "pydata_sphinx_theme"
html_title = f"sbi-astro {release}"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 3,  # one line at the width of a laptop
}
html_show_sourcelink = False


def _changelogs() -> str:
    """Return the changelogs of all packages that are present, one heading deeper."""
    parts = []
    for file in sorted(ROOT.glob("packages/*/CHANGELOG.md")):
        with (file.parent / "pyproject.toml").open("rb") as toml:
            name = tomllib.load(toml)["project"]["name"]
        body = re.sub(r"\A# .*\n", "", file.read_text(encoding="utf-8"))
        parts.append(f"## {name}\n\n" + re.sub(r"^(#+ )", r"#\1", body, flags=re.MULTILINE))
    return "\n\n".join(parts)


def _fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "changelog":
        source[0] = source[0].replace("<!-- changelogs of packages/* -->", _changelogs())
    if docname == "understand" and not (ROOT / "docs" / "chempy-model.md").is_file():
        source[0] = source[0].replace("chempy-model\n", "")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _fill_in)
