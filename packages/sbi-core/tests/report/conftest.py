"""A report like that of a small run, with every part present."""

import numpy as np
import pytest
from astropy.table import Table

NAMES = ["alpha_imf", "log10_n_ia"]
TRUTH = np.array([-2.1, -3.0])
PRIOR_MEAN = np.array([-2.3, -2.89])
SD = np.array([0.079, 0.116])


def parameters():
    """``report["parameters"]``: two inferred columns and two that are marginalised."""

    def one(label, unit, scope, description, inferred, **prior):
        keys = {"label": label, "unit": unit, "scope": scope, "inferred": inferred}
        return keys | {"description": description, "prior": prior}

    normal = {"family": "normal", "scale": 0.3}
    return {
        NAMES[0]: one(r"\alpha_\mathrm{IMF}", "", "global", "high-mass IMF slope", True,
                      loc=-2.3, **normal),
        NAMES[1]: one(r"\log_{10} N_\mathrm{Ia}", "dex", "global", "SN Ia per solar mass", True,
                      loc=-2.89, **normal),
        "x_out": one(r"x_\mathrm{out}", "", "local", "outflow fraction to the corona", False,
                     family="truncnormal", loc=0.5, scale=0.1, low=0.0, high=1.0),
        "t_birth": one(r"t_\mathrm{birth}", "Gyr", "local", "time of birth", False,
                       family="uniform", low=1.0, high=13.797617),
    }  # fmt: skip


def combined_entries(rng):
    """Combinations that shrink as 1/sqrt(N); the published rule is pulled to the prior mean."""
    entries = []
    for combiner in ("simulated-moments", "gaussian", "published"):
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
    laws = {"simulated-moments": 0.004, "gaussian": 0.04, "published": 0.8}
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
        "status": "ok",
        "created": "2026-03-04T05:06:07+00:00",
        "command": "sbi-run --plugin chempy --observations stars.ecsv --seed 20260",
        "versions": {"python": "3.12.4", "sbi-core": "0.1.0", "sbi-chempy": "0.1.0"},
        "timing": {"simulate_s": 41.2, "train_s": 131.0, "infer_s": 1.4, "total_s": 201.3},
        "parameters": parameters(),
        "checks": [
            {
                "stage": "diagnose",
                "test": "sbc",
                "level": "pass",
                "sentence": "SBC ranks of alpha_imf are consistent with uniformity (p = 0.41).",
            },
            {
                "stage": "combine",
                "test": "z_rms",
                "level": "warn",
                "sentence": "RMS z-score of the combined posterior (N = 1000): 1.61: too small.",
            },
        ],
        "simulation": {
            "n": 100_000,
            "failed": 312,
            "per_second": 2431.0,
            "failures": {"outside the yield tables": 290, "gas ran out": 22},
        },
        "emulator": {"median_abs_error": {"Fe_H": 0.0021, "O_Fe": 0.0017, "C_Fe": 0.0034}},
        "training": {"epochs": 30, "seconds": 129.5, "test_nll": -1.2345},
        "calibration": {
            "objects": 500,
            "parameters": {
                "alpha_imf": {"sbc_p": 0.41, "coverage": coverage},
                "log10_n_ia": {"sbc_p": 0.12, "coverage": coverage},
            },
            "tarp": {"max_deviation": 0.028, "p_uniform": 0.4, "p_data": 0.03},
            "verdict": "warn",
        },
        "accuracy": {
            name: {"mae": 0.061, "rmse": 0.078, "r2": 0.93, "median_ape": 2.31} for name in NAMES
        },
        "observations": {
            "n": 1000,
            "source": "stars.ecsv",
            "unsupported": 2,
            "notes": ["[X/H] converted to [X/Fe] with Fe_H", "3 stars left out"],
        },
        "widths": {
            NAMES[0]: {"prior": 0.3, "posterior": 0.08},
            NAMES[1]: {"prior": 0.3, "posterior": 0.29},
        },
        "combined": combined_entries(rng),
        "combined_calibration": combined_calibration(),
        "misspecification": [
            {"n": 1000, "p": 0.4, "verdict": "Consistent with the simulator.",
             "comparisons": {"means": 0.4, "spreads": 0.7}, "observables": {}},
        ],
        "flags": ["comparison_only"],
        "references": ["Talts et al. 2018, arXiv:1804.06788", "doi:10.21105/joss.02505"],
    }  # fmt: skip


def objects(n=4):
    """``summary.ecsv`` of n stars, with true values."""
    sd = np.array([0.1, 0.2])
    table = Table({"id": [f"star {k}" for k in range(n)]})
    for k, name in enumerate(NAMES):
        for column, shift in (("p16", -1), ("p50", 0), ("p84", 1)):
            table[f"{name}_{column}"] = TRUTH[k] + shift * sd[k] + 0.001 * np.arange(n)
        table[f"{name}_mean"], table[f"{name}_sd"] = TRUTH[k], sd[k]
        table[f"true_{name}"] = TRUTH[k]
    table["flags"] = ["outside_training", "odd,outside_training", "", ""][:n]
    table["support_percentile"] = [99.5, 99.9, 40.0, 60.0][:n]
    return table


def complete(objects_tested=500):
    """Everything :func:`sbi_core.report.render` takes; the same at every call."""
    rng = np.random.default_rng(7)
    draws, n = 200, objects_tested
    full = report(rng)
    theta = PRIOR_MEAN + 0.3 * rng.standard_normal((n, 2))
    mean = theta + SD * rng.standard_normal((n, 2))
    levels = np.linspace(0.05, 0.95, 19)
    noise = 0.015 * rng.standard_normal((19, 2))
    largest = {e["combiner"]: e for e in full["combined"] if e["n"] == 1000}
    arrays = {
        "ranks": rng.integers(0, draws, size=(n, 2), endpoint=True),
        "draws": np.array(draws),
        "coverage_levels": levels,
        "coverage_values": np.clip(levels[:, None] + noise, 0, 1),
        "tarp_levels": np.linspace(0, 1, 51),
        "tarp_ecp": np.linspace(0, 1, 51) ** 1.05,
        "theta": theta,
        "mean": mean,
        "sd": np.broadcast_to(SD, mean.shape),
    }
    for name, e in largest.items():
        centre = [e["parameters"][n]["mean"] for n in NAMES]
        cov = np.asarray(e["cov"]) + [[0, 4e-6], [4e-6, 0]]
        arrays[f"combined/all/{name}"] = rng.multivariate_normal(centre, cov, size=4000)
    return {
        "report": full,
        "arrays": arrays,
        "history": [
            {
                "epoch": k,
                "train_loss": 1.5 * np.exp(-k / 5) - 1.3,
                "val_loss": 1.5 * np.exp(-k / 5) - 1.25 + 0.004 * max(k - 20, 0),
                "learning_rate": 1e-3,
                "seconds": 4.3,
            }
            for k in range(1, 31)
        ],
        "objects": objects(),
        "meanings": {"odd": "The spectrum is odd; look at it."},
        "warnings": {"published": "It counts the prior too often."},
        "config": 'plugin = "chempy"\npreset = "standard"\n\n[train]\nepochs = 30\n',
    }


@pytest.fixture(scope="session")
def inputs():
    return complete()
