r"""NUTS against the combination of single-star posteriors: same model, priors and stars.

The joint posterior of 2 shared and 4 local parameters per star (2 + 4 N variables) is sampled by
numpyro's NUTS (not a dependency of the project: ``python -m pip install numpyro``) with the
gradients of the run's emulator, and compared with the run's combiners on the same stars::

    sbi-run --plugin chempy --out runs/standard
    python benchmarks/chempy/nuts.py --run runs/standard --json nuts.json

Stars are simulated with the engine, errors of ``--error``, no ages; their shared parameters are
drawn from the prior. ``likelihood`` uses the emulator and adds its error, as NUTS does. NUTS:
non-centred standard normal variables, the emulator's rms added to the errors in quadrature,
acceptance 0.9, warm-up as long as the chain. Printed per N: mean difference in sigma (of NUTS),
ratio of standard deviations, wall and CPU time of both, and the quality of the chains. Monte-Carlo
errors of the NUTS mean are 1 / sqrt(ESS) sigma.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sbi_core
from sbi_core import Batch, Observations
from sbi_core.rng import stream
from sbi_core.simulate.emulator import Emulator, EmulatorSimulator


def stars(simulator: Any, n: int, error: float, seed: int) -> tuple[Observations, np.ndarray]:
    """N stars of one galaxy, and its shared parameters."""
    rng = stream(seed, "nuts", n)
    theta = simulator.parameters.sample(int(1.1 * n) + 5, rng)
    theta[:, :2] = theta[0, :2]
    batch = simulator.simulate(theta, rng).succeeded[:n]
    like = Batch(x=torch.zeros(1, 8), x_err=torch.full((1, 8), error))
    noisy = simulator.observe_like(batch, like, rng)
    return Observations.from_batch(noisy, observables=simulator.observables), theta[0, :2]


def ours(run: Any, rule: Any, objects: Observations) -> dict[str, Any]:
    """Combine; the time is that of the second of two runs, if they are not slow."""
    for _ in range(1 if rule.takes_emulator else 2):
        wall, cpu = time.perf_counter(), time.process_time()
        found = rule.combine(run.posterior, objects)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    times = {"seconds": wall, "cpu_seconds": cpu}
    return {"mean": found.mean, "sd": found.sd, **times, "diagnostics": dict(found.diagnostics)}


def by_nuts(
    emulator: Emulator, space: Any, objects: Observations, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Sample the joint posterior."""
    import jax
    import jax.numpy as jnp
    import numpyro
    from jax.scipy.special import ndtr, ndtri
    from numpyro import distributions as dist
    from numpyro.diagnostics import effective_sample_size, gelman_rubin
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", val=True)
    network, n = emulator.network, len(objects)
    layers = [m for m in network.layers if isinstance(m, torch.nn.Linear)]
    weights = [
        tuple(jnp.asarray(p.detach().double().numpy()) for p in m.parameters()) for m in layers
    ]
    centre, scale, x_mean, x_scale = (
        jnp.asarray(getattr(network, f"{name}_{what}").numpy())
        for name in ("theta", "x")
        for what in ("mean", "scale")
    )
    act = {"silu": jax.nn.silu, "tanh": jnp.tanh}[emulator.config.activation]
    rho = jnp.asarray([emulator.rms[name] for name in emulator.names])
    x = jnp.asarray(objects.batch.x.double().numpy())
    err = jnp.asarray(objects.batch.x_err.double().numpy())
    sigma = jnp.sqrt(err**2 + rho**2)

    def quantile(prior: Any, z: Any) -> Any:
        v = prior.values
        if prior.family == "normal":
            return v["loc"] + v["scale"] * z
        if prior.family == "uniform":
            return v["low"] + (v["high"] - v["low"]) * ndtr(z)
        low = ndtr((v.get("low", -np.inf) - v["loc"]) / v["scale"])
        high = ndtr((v.get("high", np.inf) - v["loc"]) / v["scale"])
        return v["loc"] + v["scale"] * ndtri(low + (high - low) * ndtr(z))

    priors = [p.prior for p in space.parameters]

    def forward(theta: Any) -> Any:
        y = (theta - centre) / scale
        for w, b in weights[:-1]:
            y = act(y @ w.T + b)
        w, b = weights[-1]
        return x_mean + x_scale * (y @ w.T + b)

    def model() -> None:
        shared = numpyro.sample("shared", dist.Normal(0, 1).expand([2]).to_event(1))
        own = numpyro.sample("own", dist.Normal(0, 1).expand([n, 4]).to_event(2))
        z = jnp.concatenate([jnp.broadcast_to(shared, (n, 2)), own], 1)
        theta = jnp.stack([quantile(p, z[:, k]) for k, p in enumerate(priors)], 1)
        numpyro.sample("x", dist.Normal(forward(theta), sigma).to_event(2), obs=x)

    check = space.sample(50, stream(seed, "check"))
    difference = np.abs(np.asarray(forward(jnp.asarray(check))) - emulator.predict(check)).max()
    assert difference < 1e-4, f"emulator differs between torch and jax by {difference}"
    chains = MCMC(
        NUTS(model, target_accept_prob=0.9, max_tree_depth=options.depth),
        num_warmup=options.draws,
        num_samples=options.draws,
        num_chains=options.chains,
        chain_method="sequential",
        progress_bar=False,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    chains.run(jax.random.PRNGKey(seed), extra_fields=("num_steps", "diverging"))
    z = np.asarray(chains.get_samples(group_by_chain=True)["shared"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    extra = chains.get_extra_fields()
    theta = np.stack([np.asarray(quantile(p, z[..., k])) for k, p in enumerate(priors[:2])], -1)
    flat = theta.reshape(-1, 2)
    return {
        "mean": flat.mean(0),
        "sd": flat.std(0),
        "seconds": wall,
        "cpu_seconds": cpu,
        "variables": 2 + 4 * n,
        "ess": [float(effective_sample_size(theta[..., k])) for k in range(2)],
        "r_hat": [float(gelman_rubin(theta[..., k])) for k in range(2)],
        "divergent": int(np.asarray(extra["diverging"]).sum()),
        "gradients_per_draw": float(np.asarray(extra["num_steps"]).mean()),
        "chains": options.chains,
        "draws": options.draws,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--galaxies", type=int, default=1, help="per size")
    parser.add_argument("--rules", nargs="+", default=["gaussian", "simulated-moments"])
    parser.add_argument("--error", type=float, default=0.05, help="of every element, dex")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=500, help="per chain, after as long a warm-up")
    parser.add_argument("--depth", type=int, default=8, help="longest path 2^depth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--known", metavar="JSON", help="NUTS from a file of --json, same options")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    emulator = Emulator.load(Path(options.run) / "emulator")
    rules = {name: sbi_core.get_combiner(name) for name in options.rules}
    for rule in rules.values():
        if rule.takes_emulator:
            rule.attach(EmulatorSimulator(run.simulator, emulator, carry_error=True))
        else:
            rule.attach(run.simulator)
    record, known = [], {}
    if options.known:
        stored = json.loads(Path(options.known).read_text())
        known = {(e["n"], e["galaxy"]): e["nuts"] for e in stored}
    for n in options.sizes:
        for galaxy in range(options.galaxies):
            seed = options.seed + galaxy
            objects, truth = stars(run.simulator, n, options.error, seed)
            reference = known.get((n, galaxy))
            if reference is None:
                reference = by_nuts(emulator, run.simulator.parameters, objects, options, seed)
            print(
                f"\nN = {n} (galaxy {galaxy}, truth {truth[0]:.3f}, {truth[1]:.3f}): NUTS "
                f"alpha {reference['mean'][0]:.4f} +- {reference['sd'][0]:.4f}, log10 N_Ia "
                f"{reference['mean'][1]:.4f} +- {reference['sd'][1]:.4f}; "
                f"{reference['seconds']:.0f} s wall, {reference['cpu_seconds']:.0f} s CPU, "
                f"{options.chains} x {options.draws} draws, ESS "
                f"{', '.join(f'{v:.0f}' for v in reference['ess'])}, R-hat "
                f"{', '.join(f'{v:.3f}' for v in reference['r_hat'])}, "
                f"{reference['divergent']} divergent, "
                f"{reference['gradients_per_draw']:.0f} gradients per draw",
                flush=True,
            )
            entry: dict[str, Any] = {"n": n, "galaxy": galaxy, "truth": truth.tolist()}
            entry["nuts"] = reference
            for name, rule in rules.items():
                found = ours(run, rule, objects)
                found["off_sigma"] = (found["mean"] - np.array(reference["mean"])) / reference["sd"]
                found["sd_ratio"] = found["sd"] / reference["sd"]
                entry[name] = found
                print(
                    f"  {name:<14} off {found['off_sigma'][0]:+.2f} {found['off_sigma'][1]:+.2f} "
                    f"sigma, sd ratio {found['sd_ratio'][0]:.3f} {found['sd_ratio'][1]:.3f}, "
                    f"{found['seconds']:.3f} s wall, {found['cpu_seconds']:.3f} s CPU: "
                    f"{reference['cpu_seconds'] / max(found['cpu_seconds'], 1e-6):.0f} times less "
                    "CPU",
                    flush=True,
                )
            record.append(entry)
            if options.json:
                text = json.dumps(record, indent=1, default=lambda v: v.tolist())
                Path(options.json).write_text(text)
        for name in rules:
            of_rule = [e[name] for e in record if e["n"] == n]
            off, ratio = (
                np.array([e[what] for e in of_rule]) for what in ("off_sigma", "sd_ratio")
            )
            print(
                f"N = {n}, {name}: rms off {np.sqrt((off**2).mean()):.3f} sigma (largest "
                f"{np.abs(off).max():.2f}), sd ratio {ratio.mean():.3f} ({ratio.min():.3f} to "
                f"{ratio.max():.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
