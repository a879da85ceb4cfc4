r"""The combiners on exact single-object posteriors of a linear-Gaussian model.

    python benchmarks/combiners/exact_gaussian.py --json out.json

x_i = A Lambda + B Theta_i + eps with 2 shared and 4 local parameters and 8 observables; the truth
is 2 sigma off the prior mean. Printed: largest difference to the exact joint posterior, relative
to its standard deviation, and how far ``published`` is from the truth, in its own sigma, beside
the bias derived from the formula: (mu_0 - t) 2 P_0 / (2 P_0 + J) for one parameter.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from sbi_chempy.published import combine_published
from sbi_core.combiners.gaussian import combine_gaussian
from sbi_core.combiners.moments import Gaussian


def model(rng: np.random.Generator, d: int = 2, k: int = 4, m: int = 8):  # noqa: ANN201
    """A, and the covariance of x given Lambda (locals and noise integrated out)."""
    a, b = rng.standard_normal((m, d)), rng.standard_normal((m, k))
    return a, b @ b.T + 0.5**2 * np.eye(m)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    a, noise = model(rng)
    truth = np.full(2, 2.0)  # prior N(0, I)
    prior = Gaussian.standard(2)
    weight = a.T @ np.linalg.inv(noise)
    information = weight @ a  # of one object
    rows = []
    print(f"{'N':>6} {'gaussian: max |dmean|/sd':>26} {'max |dcov|/cov':>15} {'published: z':>14}")
    for n in (1, 10, 100, 1000, 10_000):
        x = a @ truth + rng.multivariate_normal(np.zeros(len(noise)), noise, size=n)
        cov = np.linalg.inv(np.eye(2) + information)
        mean = (weight @ x.T).T @ cov.T
        covs = np.broadcast_to(cov, (n, 2, 2))
        exact_cov = np.linalg.inv(np.eye(2) + n * information)
        exact_mean = exact_cov @ (weight @ x.sum(0))
        got = combine_gaussian(mean, covs, prior)
        sd = np.sqrt(np.diag(exact_cov))
        error = float(np.abs((got.mean - exact_mean) / sd).max())
        relative = float(np.abs(got.cov / exact_cov - 1).max())
        old = combine_published(mean, np.einsum("nii->ni", covs), prior)
        z = (old.mean - truth) / np.sqrt(np.diag(old.cov))
        print(f"{n:>6} {error:>26.1e} {relative:>15.1e} {z[0]:>+7.1f} {z[1]:>+6.1f}")
        rows.append({"n": n, "mean": error, "cov": relative, "published_z": z.tolist()})
    print("\none parameter, J = 10, truth +2: published bias at N = 1e6, measured and derived")
    j, n = 10.0, 1_000_000
    one = Gaussian(np.zeros(1), np.eye(1))
    # with the data at their expectation the single-object mean is J t / (1 + J)
    mean = np.full((n, 1), j * 2.0 / (1 + j))
    old = combine_published(mean, np.full((n, 1), 1 / (1 + j)), one)
    measured, derived = float(old.mean[0] - 2.0), float(-2.0 * 2 / (2 + j))
    print(f"{measured:+.6f} {derived:+.6f}")
    if options.json:
        record = {"rows": rows, "bias": {"measured": measured, "derived": derived}}
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
