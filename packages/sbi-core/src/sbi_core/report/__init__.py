"""The report of a run: one self-contained page, and its plots for use in notebooks.

The page is made of :class:`ReportInputs`, plain data, and knows no stage of the pipeline:

>>> from sbi_core.report import ReportInputs, render
>>> page = render(ReportInputs(report={"plugin": "chempy", "preset": "quick", "seed": 1}))
>>> page.startswith("<!doctype html>")
True

:mod:`sbi_core.report.plots` draws the single figures on any matplotlib axes.
"""

from sbi_core.report import plots
from sbi_core.report.card import CardInputs, model_card
from sbi_core.report.html import render, write_html
from sbi_core.report.inputs import ReportInputs
from sbi_core.report.text import measurement

__all__ = [
    "CardInputs",
    "ReportInputs",
    "measurement",
    "model_card",
    "plots",
    "render",
    "write_html",
]
