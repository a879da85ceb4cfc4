"""A report like that of a small run, with every part present."""

import numpy as np
import pytest

from sbi_core.report import ReportInputs

NAMES = ["alpha_imf", "log10_n_ia"]
TRUTH = np.array([-2.1, -3.0])
PRIOR_MEAN = np.array([-2.3, -2.89])
SD = np.array([0.079, 0.116])


def parameters():
    """Specifications in the form of ``ParameterSpace.to_spec()["parameters"]``."""

    def one(name, label, unit, scope, description, **prior):
        keys = {"name": name, "label": label, "unit": unit, "scope": scope}
        return keys | {"description": description, "prior": prior}

    normal = {"family": "normal", "scale": 0.3}
    return [
        one(NAMES[0], r"\alpha_\mathrm{IMF}", "", "global", "high-mass IMF slope",
            loc=-2.3, **normal),
        one(NAMES[1], r"\log_{10} N_\mathrm{Ia}", "dex", "global", "SN Ia per solar mass",
            loc=-2.89, **normal),
        one("x_out", r"x_\mathrm{out}", "", "local", "outflow fraction to the corona",
            family="truncnormal", loc=0.5, scale=0.1, low=0.0, high=1.0),
        one("t_birth", r"t_\mathrm{birth}", "Gyr", "local", "time of birth",
            family="uniform", low=1.0, high=13.797617),
    ]  # fmt: skip


def combined_entries(rng):
    """Combinations that shrink as 1/sqrt(N); the published rule is pulled to the prior mean."""
    entries = []
    for combiner in ("recalibrated", "gaussian", "published"):
        for n in (1, 10, 100, 1000):
            sd = SD / np.sqrt(n)
            pull = 0.09 * (PRIOR_MEAN - TRUTH) if combiner == "published" and n > 1 else 0
            mean = TRUTH + pull + 0.7 * sd * rng.standard_normal(2)
            entry = {
                "combiner": combiner,
                "n": n,
                "parameters": {
                    name: {"mean": float(mean[k]), "sd": float(sd[k]), "truth": float(TRUTH[k])}
                    for k, name in enumerate(NAMES)
                },
                "cov": np.diag(sd**2).tolist(),
            }
            if combiner == "published":
                entry["flags"] = ["comparison_only"]
            if n >= 100:
                entry |= {"consistency_chi2": 17.2, "consistency_p": 0.51}
            entries.append(entry)
    return entries


def combined_calibration():
    """z-rms as the design measured it: 1 for a calibrated combiner, growing for the others."""
    laws = {"recalibrated": 0.004, "gaussian": 0.04, "published": 0.8}
    return [
        {
            "combiner": combiner,
            "n": n,
            "repeats": 200,
            "z_rms": float(np.sqrt(1 + f**2 * n)),
            "coverage_68": float(0.68 / np.sqrt(1 + f**2 * n)),
            "coverage_95": float(0.95 / np.sqrt(1 + f**2 * n)),
            "parameters": {"alpha_imf": {"sbc_p": float(0.6 / (1 + f**2 * n))}},
        }
        for combiner, f in laws.items()
        for n in (1, 10, 100, 1000)
    ]


def report(rng):
    """A ``report.json`` with every part."""
    coverage = {"0.50": 0.512, "0.68": 0.674, "0.90": 0.896, "0.95": 0.944}
    return {
        "schema": 1,
        "plugin": "chempy",
        "preset": "standard",
        "seed": 20260,
        "status": "finished",
        "versions": {"python": "3.12.4", "sbi-core": "0.1.0", "sbi-chempy": "0.1.0"},
        "timing": {"simulate_s": 41.2, "train_s": 131.0, "infer_s": 1.4, "total_s": 201.3},
        "simulation": {"n": 100_000, "failed": 312, "per_second": 2431.0},
        "emulator": {"median_abs_error": {"Fe_H": 0.0021, "O_Fe": 0.0017, "C_Fe": 0.0034}},
        "training": {"epochs": 30, "seconds": 129.5, "test_nll": -1.2345},
        "calibration": {
            "objects": 500,
            "parameters": {
                "alpha_imf": {"sbc_p": 0.41, "coverage": coverage},
                "log10_n_ia": {"sbc_p": 0.12, "coverage": coverage},
            },
            "tarp": {"max_deviation": 0.028},
            "verdict": "warn",
        },
        "accuracy": {
            name: {"mae": 0.061, "rmse": 0.078, "r2": 0.93, "median_ape": 2.31} for name in NAMES
        },
        "observations": {"n": 1000, "source": "stars.ecsv", "unsupported": 2},
        "combined": combined_entries(rng),
        "combined_calibration": combined_calibration(),
        "flags": ["comparison_only"],
    }


def complete(objects=500):
    """Inputs with every part present; the same at every call."""
    rng = np.random.default_rng(7)
    draws = 200
    full = report(rng)
    theta = PRIOR_MEAN + 0.3 * rng.standard_normal((objects, 2))
    mean = theta + SD * rng.standard_normal((objects, 2))
    levels = np.linspace(0.05, 0.95, 19)
    noise = 0.015 * rng.standard_normal((19, 2))
    largest = {e["combiner"]: e for e in full["combined"] if e["n"] == 1000}
    return ReportInputs(
        report=full,
        parameters=parameters(),
        inferred=NAMES,
        labels={p["name"]: p["label"] for p in parameters()},
        history=[
            {
                "epoch": k,
                "train_loss": 1.5 * np.exp(-k / 5) - 1.3,
                "val_loss": 1.5 * np.exp(-k / 5) - 1.25 + 0.004 * max(k - 20, 0),
                "learning_rate": 1e-3,
                "seconds": 4.3,
            }
            for k in range(1, 31)
        ],
        ranks=rng.integers(0, draws, size=(objects, 2), endpoint=True),
        draws=draws,
        coverage_levels=levels,
        coverage_values=np.clip(levels[:, None] + noise, 0, 1),
        tarp_levels=np.linspace(0, 1, 51),
        tarp_ecp=np.linspace(0, 1, 51) ** 1.05,
        truth_and_mean=(theta, mean, np.broadcast_to(SD, mean.shape)),
        combined_samples={
            name: rng.multivariate_normal(
                [e["parameters"][n]["mean"] for n in NAMES],
                np.asarray(e["cov"]) + [[0, 4e-6], [4e-6, 0]],
                size=4000,
            )
            for name, e in largest.items()
        },
        failures=[("outside the yield tables", 290), ("gas ran out", 22)],
        verdicts=[
            ("pass", "The SBC ranks of alpha_imf is consistent with calibration (p = 0.41)."),
            ("warn", "combined errors at N=1000 are 1.61 of the claimed ones: too small."),
        ],
        notes=["[X/H] converted to [X/Fe] with Fe_H", "3 stars without any abundance left out"],
        flagged=[("star 17", "unlike the simulations (99.7 %)"), ("star 201", "all masked")],
        citations=["Talts et al. 2018, arXiv:1804.06788", "doi:10.21105/joss.02505"],
        command="sbi-run --plugin chempy --observations stars.ecsv --seed 20260",
        config_toml='plugin = "chempy"\npreset = "standard"\n\n[train]\nepochs = 30\n',
        literature=[
            {
                "label": "Buck et al. 2025",
                "n": 200,
                "parameters": {
                    "alpha_imf": {"mean": -2.108, "sd": 0.006},
                    "log10_n_ia": {"mean": -2.989, "sd": 0.008},
                },
            }
        ],
    )


@pytest.fixture(scope="session")
def inputs():
    return complete()
