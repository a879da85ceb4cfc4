"""The schema of report.json. Its keys are API: a test compares them with the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sbi_core.validation import validate

__all__ = ["REPORT_SCHEMA", "Report", "check_report"]

REPORT_SCHEMA = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Simulation(_Part):
    """Simulator health."""

    n: int
    failed: int
    per_second: float
    failures: dict[str, int] = {}
    messages: list[str] = []


class EmulatorErrors(_Part):
    """Error of the surrogate per output, on rows it never saw."""

    median_abs_error: dict[str, float]
    p95_abs_error: dict[str, float] = {}


class TrainingPart(_Part):
    """Length and result of training."""

    epochs: int
    seconds: float
    test_nll: float
    best_epoch: int | None = None
    still_improving: bool = False
    skipped_steps: int = 0


class ParameterCalibration(_Part):
    """SBC p-value and coverage of central intervals."""

    sbc_p: float
    coverage: dict[str, float]


class Calibration(_Part):
    """Calibration of single-object posteriors on held-out simulations."""

    objects: int
    parameters: dict[str, ParameterCalibration]
    tarp: dict[str, float]
    verdict: str


class Accuracy(_Part):
    """Posterior mean against truth."""

    mae: float
    rmse: float
    r2: float
    median_ape: float


class ParameterPart(_Part):
    """One column of theta."""

    label: str
    unit: str
    scope: str
    description: str
    prior: dict[str, Any]
    inferred: bool


class Check(_Part):
    """Outcome of one test: pass, warn or fail."""

    stage: str
    test: str
    level: Literal["pass", "warn", "fail"]
    sentence: str


class Width(_Part):
    """Standard deviation of the prior, and of the posterior of an object (median)."""

    prior: float
    posterior: float


class ObservationsPart(_Part):
    """What was inferred."""

    n: int
    source: str
    unsupported: int
    notes: list[str] = []


class CombinedParameter(_Part):
    """One shared parameter."""

    mean: float
    sd: float
    truth: float | None = None


class Combined(_Part):
    """One combination."""

    combiner: str
    n: int
    parameters: dict[str, CombinedParameter]
    cov: list[list[float]]
    consistency_chi2: float | None = None
    consistency_p: float | None = None
    group: str | None = None
    flags: list[str] = []


class CombinedCalibration(_Part):
    """Combined posteriors of simulated groups against their truths."""

    combiner: str
    n: int
    z_rms: float
    coverage_68: float
    coverage_95: float | None = None
    repeats: int | None = None
    parameters: dict[str, dict[str, float]] = {}


class Marginalised(_Part):
    """Result with nuisance parameters: error budget, and results without each observable.

    Standard deviations are in the order of the shared parameters.
    """

    nominal: str
    budget: dict[str, list[float]]
    without: dict[str, dict[str, list[float]]]
    group: str | None = None


class Misspecification(_Part):
    """Observed objects against simulated ones with the combined parameters."""

    n: int
    p: float
    verdict: str
    chi2: float | None = None
    dof: int | None = None
    comparisons: dict[str, float]
    observables: dict[str, dict[str, float]]
    group: str | None = None


class Report(_Part):
    """report.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    schema_: int
    plugin: str
    preset: str
    seed: int
    status: Literal["ok", "calibration_failed", "unlike_the_simulator"]
    versions: dict[str, str]
    timing: dict[str, float]
    created: str = ""
    command: str = ""
    parameters: dict[str, ParameterPart] = {}
    checks: list[Check] = []
    simulation: Simulation | None = None
    emulator: EmulatorErrors | None = None
    training: TrainingPart | None = None
    calibration: Calibration | None = None
    accuracy: dict[str, Accuracy] | None = None
    observations: ObservationsPart | None = None
    widths: dict[str, Width] | None = None
    combined: list[Combined] | None = None
    combined_calibration: list[CombinedCalibration] | None = None
    marginalised: list[Marginalised] | None = None
    misspecification: list[Misspecification] | None = None
    domain: dict[str, Any] | None = None
    flags: list[str] = []
    references: list[str] = []


def check_report(report: Mapping[str, Any]) -> None:
    """Raise ConfigError when a report does not follow the schema."""
    renamed = {("schema_" if k == "schema" else k): v for k, v in report.items()}
    validate(Report, renamed, "report.json")
