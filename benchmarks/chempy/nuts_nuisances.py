r"""NUTS with nuisance parameters against ``group-moments``: same model, priors and stars.

    python -m pip install numpyro
    sbi-run --plugin chempy --out runs/standard
    python benchmarks/chempy/nuts_nuisances.py --run runs/standard --json out.json

NUTS cannot draw tables, so that both sides use the default table of each channel; all other
nuisance parameters have their priors: factors and slopes of the yields, shift and width of the
distribution of each local parameter, zero points, and a fraction of outliers, integrated per star:

.. math:: p(x_i\,|\,\theta_i, \phi) = (1 - u)\,N(x_i;\,f(\theta_i, \phi) + b,\ \sigma^2 + \rho^2)
          + u\,N(x_i;\,f + b,\ 25\sigma^2 + \rho^2)

with zero points b, fraction u and the error :math:`\rho` of an emulator of f(theta, phi), which is
trained here. ``group-moments`` learns anew, from groups of the same model. Galaxies are simulated
with the engine, every family on, errors of ``--error``, eight elements, no ages. Printed: means in
units of the standard deviations of NUTS, ratio of the standard deviations, quality of the chains.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from left_out import drawn
from torch import nn

import sbi_core
from sbi_chempy.simulator import ChempySimulator
from sbi_core import Batch, Observations, Parameter, ParameterSpace, Prior
from sbi_core.combiners.group_moments import GroupMomentsCombiner, GroupMomentsConfig
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream
from sbi_core.simulate.nuisances import (
    _FRACTION,
    _INFLATED,
    _LARGEST,
    _local,
    _widths,
    disturbed,
)

WIDTHS = (192, 192, 192)


class OneTable(ChempySimulator):
    """chempy whose yield tables are the simulator's own; factors and slopes have their priors."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        fixed = {"table": -1.0, "collapse": 100.0}
        spaces = {}
        for family, space in self.nuisances.items():
            parameters = []
            for p in space.parameters:
                value = fixed.get(p.name.split("_")[1])
                if value is not None:
                    p = Parameter(p.name, Prior("discrete", {"values": [value]}), scope=p.scope)
                parameters.append(p)
            spaces[family] = ParameterSpace(tuple(parameters))
        self.nuisances = spaces


def continuous(simulator: OneTable) -> list[tuple[str, int, float, float]]:
    """Family, column, degrees of freedom and scale of every continuous nuisance parameter."""
    return [
        (family, k, p.prior.values["df"], p.prior.values["scale"])
        for family, space in simulator.nuisances.items()
        for k, p in enumerate(space.parameters)
        if p.prior.family == "studentt"
    ]


def rows_of(simulator: OneTable, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Simulations: unconstrained parameters (n, 6), nuisance parameters (n, k), abundances."""
    space = simulator.parameters
    z = rng.standard_normal((n, space.dim))
    for column, p in enumerate(space.parameters):
        if p.scope == "local":
            shift, width = _widths(simulator, p)
            stretch = np.exp(width * rng.standard_normal(n))
            z[:, column] = shift * rng.standard_normal(n) + stretch * z[:, column]
    z = np.clip(z, -_LARGEST, _LARGEST)
    values = {family: s.sample(n, rng) for family, s in simulator.nuisances.items()}
    batch = simulator.simulate_nuisances(space.from_unconstrained(z), values, rng)
    phi = np.stack([values[f][:, k] for f, k, _, _ in continuous(simulator)], 1)
    ok = batch.ok.numpy()
    return z[ok], np.clip(phi, -1, 1)[ok], batch.x.numpy()[ok]


def emulator(simulator: OneTable, options: argparse.Namespace) -> tuple[nn.Module, dict]:
    """Train a network on abundances of the engine; also scales and its rms error."""
    rng = stream(options.seed, "emulator")
    parts = [rows_of(simulator, 20_000, rng) for _ in range(options.simulations // 20_000)]
    z, phi, x = (np.concatenate(v) for v in zip(*parts, strict=True))
    scales = {"x_mean": x.mean(0), "x_scale": x.std(0), "phi_scale": phi.std(0)}
    inputs = torch.as_tensor(np.concatenate([z, phi / phi.std(0)], 1), dtype=torch.float32)
    target = torch.as_tensor((x - scales["x_mean"]) / scales["x_scale"], dtype=torch.float32)
    sizes = (inputs.shape[1], *WIDTHS, target.shape[1])
    layers: list[nn.Module] = []
    torch.manual_seed(options.seed)
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.SiLU()]
    network, held = nn.Sequential(*layers[:-1]), 20_000
    steps = options.epochs * (len(inputs) - held) // 1024
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    order = torch.Generator().manual_seed(options.seed)
    for _ in range(steps):
        own = torch.randint(held, len(inputs), (1024,), generator=order)
        loss = (network(inputs[own]) - target[own]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        off = (network(inputs[:held]) - target[:held]).numpy() * scales["x_scale"]
    scales["rms"] = np.sqrt((off**2).mean(0))
    return network, scales


def galaxy(
    simulator: OneTable, n: int, error: float, seed: int
) -> tuple[Observations, np.ndarray, np.ndarray]:
    """N stars with every family on, their shared parameters and factors."""
    rng = stream(seed, "galaxy", n)
    source = GroupSimulator(simulator, int(1.2 * n) + 5, marginalise=True, all_on=True)
    batch = source.draw(source.size, rng).succeeded[:n]
    theta = batch.theta.numpy()
    k = batch.x.shape[1]
    like = Batch(x=torch.zeros(1, k), x_err=torch.full((1, k), error))
    bare = batch.with_(theta=batch.theta[:, : simulator.parameters.dim])
    seen = simulator.observe_like(bare, like, rng)
    x = disturbed(seen.x.double().numpy(), seen.x_err.double().numpy(), simulator.zero_point, rng)
    objects = Observations.from_batch(seen.with_(x=torch.as_tensor(x).float(), theta=None))
    return objects, theta[0, :2], theta


def by_nuts(
    simulator: OneTable,
    network: nn.Module,
    scales: dict,
    objects: Observations,
    options: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """Sample the joint posterior of shared, local and nuisance parameters."""
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist
    from numpyro.diagnostics import effective_sample_size, gelman_rubin
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", val=True)
    n, space = len(objects), simulator.parameters
    weights = [
        tuple(jnp.asarray(p.detach().double().numpy()) for p in m.parameters())
        for m in network
        if isinstance(m, nn.Linear)
    ]
    x = jnp.asarray(objects.batch.x.double().numpy())
    err = jnp.asarray(objects.batch.x_err.double().numpy())
    rho = jnp.asarray(scales["rms"])
    priors = continuous(simulator)
    df, scale = (jnp.asarray([p[k] for p in priors]) for k in (2, 3))
    widths = np.array([_widths(simulator, p) for p in _local(simulator)])
    zero = simulator.zero_point

    def forward(z: Any, phi: Any) -> Any:
        w, b = weights[0]
        phi = jnp.clip(phi, -1, 1) / scales["phi_scale"]
        y = jax.nn.silu(z @ w[:, : space.dim].T + w[:, space.dim :] @ phi + b)
        for w, b in weights[1:-1]:
            y = jax.nn.silu(y @ w.T + b)
        w, b = weights[-1]
        return scales["x_mean"] + scales["x_scale"] * (y @ w.T + b)

    def model() -> None:
        shared = numpyro.sample("shared", dist.Normal(0, 1).expand([2]).to_event(1))
        own = numpyro.sample("own", dist.Normal(0, 1).expand([n, len(widths)]).to_event(2))
        move = numpyro.sample("move", dist.Normal(0, 1).expand([2, len(widths)]).to_event(2))
        factor = numpyro.sample("factor", dist.StudentT(df, 0, 1).to_event(1))
        shift = numpyro.sample("zero", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        odd = numpyro.sample("odd", dist.Uniform(0, _FRACTION))
        local = widths[:, 0] * move[0] + jnp.exp(widths[:, 1] * move[1]) * own
        z = jnp.concatenate([jnp.broadcast_to(shared, (n, 2)), local], 1)
        mean = forward(jnp.clip(z, -_LARGEST, _LARGEST), scale * factor) + zero * shift
        parts = [
            dist.Normal(mean, jnp.sqrt((k * err) ** 2 + rho**2)).log_prob(x).sum(1)
            for k in (1.0, _INFLATED)
        ]
        both = jnp.logaddexp(jnp.log1p(-odd) + parts[0], jnp.log(odd) + parts[1])
        numpyro.factor("stars", both.sum())

    z, phi, true = rows_of(simulator, 200, stream(seed, "check"))
    pairs = zip(z[:, None], phi, strict=True)
    ours = np.stack([forward(jnp.asarray(a), jnp.asarray(p))[0] for a, p in pairs])
    assert np.abs(ours - true).mean() < 3 * scales["rms"].mean(), "the emulator differs in jax"
    chains = MCMC(
        NUTS(model, target_accept_prob=0.85, max_tree_depth=options.depth),
        num_warmup=options.draws,
        num_samples=options.draws,
        num_chains=options.chains,
        chain_method="sequential",
        progress_bar=False,
    )
    start = time.perf_counter()
    chains.run(jax.random.PRNGKey(seed), extra_fields=("num_steps", "diverging"))
    draws = np.asarray(chains.get_samples(group_by_chain=True)["shared"])
    extra = chains.get_extra_fields()
    theta = space.select("global").from_unconstrained(draws.reshape(-1, 2))
    by_chain = theta.reshape(draws.shape)
    return {
        "mean": theta.mean(0),
        "sd": theta.std(0),
        "seconds": time.perf_counter() - start,
        "ess": [float(effective_sample_size(by_chain[..., k])) for k in range(2)],
        "r_hat": [float(gelman_rubin(by_chain[..., k])) for k in range(2)],
        "divergent": int(np.asarray(extra["diverging"]).sum()),
        "gradients_per_draw": float(np.asarray(extra["num_steps"]).mean()),
    }


def main() -> None:
    """Train, sample, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--stars", type=int, default=50)
    parser.add_argument("--galaxies", type=int, default=3)
    parser.add_argument("--error", type=float, default=0.05, help="of every element, dex")
    parser.add_argument("--groups", type=int, default=8000, help="for group-moments")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--train-epochs", type=int, default=8)
    parser.add_argument("--simulations", type=int, default=400_000, help="for the emulator")
    parser.add_argument("--epochs", type=int, default=25, help="of the emulator")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=500, help="per chain, after as long a warm-up")
    parser.add_argument("--depth", type=int, default=8, help="longest path 2^depth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--nuts", metavar="JSON", help="take NUTS from there: same seed, stars and error"
    )
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    simulator = OneTable(run.simulator.config)
    simulator.selected_by = ()  # the galaxies are not selected, and NUTS does not ask
    rule = GroupMomentsCombiner(
        GroupMomentsConfig(groups=options.groups, size=options.size, epochs=options.train_epochs)
    )
    rule.attach(simulator)
    rule.prepare(run.posterior, drawn(simulator, options.groups, options.size, options.seed))
    print("group-moments is trained", flush=True)
    known = json.loads(Path(options.nuts).read_text()) if options.nuts else []
    if not known:
        network, scales = emulator(simulator, options)
        print(f"emulator: rms {np.round(scales['rms'], 4).tolist()} dex", flush=True)
    record = []
    for k in range(options.galaxies):
        seed = options.seed + k
        objects, truth, _ = galaxy(simulator, options.stars, options.error, seed)
        if known:
            assert np.allclose(known[k]["truth"], truth), "another galaxy"
            nuts = known[k]["nuts"]
        else:
            nuts = by_nuts(simulator, network, scales, objects, options, seed)
        found = rule.combine(run.posterior, objects)
        off = (found.mean - np.asarray(nuts["mean"])) / nuts["sd"]
        ratio = found.sd / nuts["sd"]
        record.append(
            {
                "galaxy": k,
                "truth": truth.tolist(),
                "nuts": {a: np.asarray(v).tolist() for a, v in nuts.items()},
                "mean": found.mean.tolist(),
                "sd": found.sd.tolist(),
                "off": off.tolist(),
                "ratio": ratio.tolist(),
            }
        )
        print(
            f"galaxy {k}, truth {truth[0]:.3f} {truth[1]:.3f}: NUTS {nuts['mean'][0]:.3f} +- "
            f"{nuts['sd'][0]:.3f}, {nuts['mean'][1]:.3f} +- {nuts['sd'][1]:.3f} "
            f"({nuts['seconds']:.0f} s, ESS {nuts['ess'][0]:.0f} {nuts['ess'][1]:.0f}, R-hat "
            f"{nuts['r_hat'][0]:.3f} {nuts['r_hat'][1]:.3f}, {nuts['divergent']} divergent, "
            f"{nuts['gradients_per_draw']:.0f} gradients per draw); group-moments "
            f"{found.mean[0]:.3f} +- {found.sd[0]:.3f}, {found.mean[1]:.3f} +- "
            f"{found.sd[1]:.3f}: off {off[0]:+.2f} {off[1]:+.2f} sd, ratio {ratio[0]:.2f} "
            f"{ratio[1]:.2f}",
            flush=True,
        )
        if options.json:
            Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
