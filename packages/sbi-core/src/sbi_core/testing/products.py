"""One product: a run, ``sbi-run infer`` and Python give the same table for the same objects."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from astropy.table import Table

from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.catalogue import infer_catalogue
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.runner import Run
from sbi_core.pipeline.stages.infer import execute
from sbi_core.progress import Progress

__all__ = ["assert_one_product"]


def assert_one_product(run: Run, observations: str | Path, folder: Path) -> Table:
    """Raise AssertionError where the three ways to infer a file differ; return the table.

    Compared are ``summary.ecsv`` of a run with these observations, the table of
    ``sbi-run infer``, and ``Run.infer(...).summary()``: columns, units, flags and numbers.

    Parameters
    ----------
    run
        A finished run.
    observations
        File of objects.
    folder
        An empty folder for copies.
    """
    directory = RunDirectory(folder / "run")
    shutil.copytree(run.directory.root, directory.root)
    config = run.config.model_copy(deep=True)
    config.infer.observations = str(observations)
    context = run._context
    execute(Context(config, context.registry, directory, Progress()))
    by_run = Table.read(directory.summary, format="ascii.ecsv")
    target = folder / "infer.ecsv"
    infer_catalogue(context, observations, target, draws=config.infer.draws)
    by_command = Table.read(target, format="ascii.ecsv")
    in_python = run.infer(observations).summary()
    _same(by_run, by_command, "sbi-run infer")
    _same(by_run, in_python, "Python")
    assert directory.posterior.exists()
    return by_run


def _same(one: Table, other: Table, name: str) -> None:
    assert one.colnames == other.colnames, f"{name}: other columns"
    for column in one.colnames:
        a, b = one[column], other[column]
        assert a.unit == b.unit, f"{name}: other unit of {column}"
        if a.dtype.kind == "f":
            x, y = (np.ma.filled(np.ma.asarray(v).astype(float), np.nan) for v in (a, b))
            close = np.isclose(x, y, rtol=1e-9, atol=0, equal_nan=True)
            assert close.all(), f"{name}: other numbers in {column}"
        else:
            same = [str(v) for v in np.ma.filled(a, "")] == [str(v) for v in np.ma.filled(b, "")]
            assert same, f"{name}: other values in {column}"
