"""The report of a run: one self-contained page, and its plots for use in notebooks.

The page is a function of ``report.json`` and the arrays of a run:

>>> from sbi_core.report import render
>>> page = render({"plugin": "chempy", "preset": "quick", "seed": 1})
>>> page.startswith("<!doctype html>")
True

:mod:`sbi_core.report.plots` draws the single figures on any matplotlib axes.
"""

from sbi_core.report import plots
from sbi_core.report.card import model_card
from sbi_core.report.html import render, write_html
from sbi_core.report.text import interval, measurement

__all__ = ["interval", "measurement", "model_card", "plots", "render", "write_html"]
