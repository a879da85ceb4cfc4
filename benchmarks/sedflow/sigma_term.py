"""Do errors that follow the flux tell anything about the galaxy beyond the flux itself?

Errors are a covariate of the posterior, and the likelihood leaves out p(sigma | f). Here it is put
back: draws of a trained run are weighted by the exact likelihood without and with that term, and
posterior means (in units of the posterior's sd) and widths of both are compared, for mock galaxies
with an effective sample size of 200 or more under either.

    python benchmarks/sedflow/sigma_term.py runs/sedflow-standard --out sigma-term.json
"""

from __future__ import annotations

import numpy as np
from calibration import mocks
from common import arguments, write
from scipy import special

from sbi_core import Observations, load_run
from sbi_sedflow.likelihood import Galaxies, log_likelihood

LEAST = 200.0  # effective draws


def moments(y, log_w):
    """Return mean, sd (n, 11) and effective number (n,) of weighted draws y (S, n, 11)."""
    w = special.softmax(log_w, axis=0)
    mean = (w[..., None] * y).sum(0)
    sd = np.sqrt((w[..., None] * (y - mean) ** 2).sum(0))
    return mean, sd, 1.0 / (w**2).sum(0)


def main():
    args = arguments(__doc__, run=True, objects={"type": int, "default": 100},
                     draws={"type": int, "default": 10_000})  # fmt: skip
    run = load_run(args.run)
    simulator, posterior = run.simulator, run.posterior
    batch = mocks(simulator, 20 if args.quick else args.objects, "complete", args.seed)
    observations = Observations.from_batch(batch)
    galaxies = Galaxies.of(observations)
    theta = posterior.sample(observations, args.draws, seed=args.seed).values
    s, n, d = theta.shape
    y = posterior.space.to_unconstrained(theta.reshape(s * n, d)).reshape(s, n, -1)
    log_prior = posterior.space.log_prob(theta.reshape(s * n, d)).reshape(s, n)
    rest = log_prior - posterior.log_prob(theta, observations)
    plain = log_likelihood(simulator, theta, galaxies)
    # a sum over 450 nodes per draw: few galaxies at a time
    full = np.concatenate(
        [
            log_likelihood(simulator, theta[:, k : k + 5], galaxies[k : k + 5], sigma_term=True)
            for k in range(0, n, 5)
        ],
        axis=1,
    )
    without, term = moments(y, plain + rest), moments(y, full + rest)
    known = np.minimum(without[2], term[2]) >= LEAST
    shift = np.abs(term[0] - without[0])[known] / without[1][known]
    width = (term[1] / without[1])[known]
    # means of weighted draws scatter themselves: the same of two halves of the draws
    halves = [moments(y[k::2], plain[k::2] + rest[k::2])[0] for k in (0, 1)]
    noise = np.abs(halves[0] - halves[1])[known] / without[1][known] / 2
    numbers = {
        "galaxies": int(known.sum()),
        "shift_sd_median": float(np.median(shift)),
        "shift_sd_90": float(np.quantile(shift, 0.9)),
        "shift_sd_max": float(shift.max()),
        "shift_of_sampling_90": float(np.quantile(noise, 0.9)),
        "width_ratio_5_50_95": np.quantile(width, [0.05, 0.5, 0.95]).tolist(),
    }
    print(f"{numbers['galaxies']} of {n} galaxies with {LEAST:.0f} effective draws")
    print(
        f"|shift of means| with p(sigma | f): median {numbers['shift_sd_median']:.3f}, 90 % "
        f"{numbers['shift_sd_90']:.3f}, largest {numbers['shift_sd_max']:.3f} sd (sampling alone: "
        f"90 % {numbers['shift_of_sampling_90']:.3f}); widths "
        + "-".join(f"{v:.3f}" for v in numbers["width_ratio_5_50_95"])
    )
    write(args, numbers)


if __name__ == "__main__":
    main()
