"""Formulae as MathML, made when the pages are built: to read them, nothing is fetched or run.

Browsers draw MathML by themselves (Chrome and Edge since 109, Firefox, Safari).
"""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_log = logging.getLogger(__name__)
# a logarithm before its argument, unless that stands in brackets
_FUNCTION = re.compile(
    r"(<mi>(log|ln)</mi>|<msub><mi>log</mi><mrow><mn>10</mn></mrow></msub>)(?!<mrow>|<mo)"
)


def _mathml(node: nodes.Element, display: str) -> str:
    source = node.astext().replace("{aligned}", "{align*}")  # the name that the converter knows
    if display == "block" and ("\\\\" in source or "&" in source) and "\\begin" not in source:
        source = rf"\begin{{align*}}{source}\end{{align*}}"
    try:
        made = _FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', convert(source, display=display))
        if "\\" in made:
            raise ValueError("the converter left a command as it is")
        return made
    except Exception as error:  # the converter raises many kinds
        _log.warning("formula cannot be shown: %s (%r)", source, error, location=node)
        raise nodes.SkipNode from error


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math notranslate">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
