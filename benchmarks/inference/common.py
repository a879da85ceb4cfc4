"""What the benchmarks of the inference engine share: the problem, the machine, the JSON file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from sbi_core.data.batch import Batch
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator


@dataclass
class Toy:
    """Six uniform parameters, a fixed random network of two tanh layers, eight outputs, 5 % noise.

    Like the emulator of a chemical-evolution model in size and smoothness, and free of its data.
    """

    noise: float = 0.05
    space: ParameterSpace = ParameterSpace(
        tuple(Parameter(f"t{k}", Prior("uniform", {"low": -2.0, "high": 2.0})) for k in range(6))
    )

    def simulate(self, n: int, seed: int) -> Batch:
        """Return n noise-free rows."""
        theta = self.space.sample(n, stream(seed, "theta"))
        rng, h = stream(2024, "weights"), theta
        for a, b in ((6, 32), (32, 32)):
            h = np.tanh(h @ rng.normal(size=(a, b)) / np.sqrt(a) + 0.3 * rng.normal(size=b))
        x = h @ rng.normal(size=(32, 8)) / np.sqrt(8)
        return Batch(x=torch.as_tensor(x).float(), theta=torch.as_tensor(theta).float())

    def observe(self, batch: Batch, rng) -> Batch:
        """Return the rows with noise."""
        noise = torch.randn(batch.x.shape, generator=torch_generator(rng, batch.x.device))
        return batch.with_(x=batch.x + self.noise * noise.to(batch.x))


@dataclass
class Chempy:
    """The plugin's one-zone engine: six parameters, eight abundances, all with 0.05 dex.

    Nothing is missing and no age is known, so that packages that cannot use either see the same
    information.
    """

    def __post_init__(self) -> None:
        from sbi_core import get_simulator

        self.simulator = get_simulator("chempy", noise="fixed", ages=False)
        self.space = self.simulator.parameters

    def simulate(self, n: int, seed: int) -> Batch:
        """Return n noise-free rows that succeeded."""
        parts, have = [], 0
        while have < n:
            parts.append(self.simulator.draw(10_000, stream(seed, len(parts))).succeeded)
            have += len(parts[-1])
        batch = Batch.cat(parts)[:n]
        return batch.with_(split_key=None).to("cpu", torch.float32)

    def observe(self, batch: Batch, rng) -> Batch:
        """Return the rows with the plugin's noise; the constant errors are no input."""
        return self.simulator.observe(batch, rng).with_(x_err=None, mask=None, context=None)


def problem(name: str) -> Toy | Chempy:
    """Return the problem of that name."""
    return {"toy": Toy, "chempy": Chempy}[name]()


def one_thread() -> None:
    """Use one thread, as the comparison promises."""
    torch.set_num_threads(1)


def environment() -> dict:
    """Return machine, versions and commit."""
    found = {}
    for name in ("sbi-core", "torch", "sbi", "zuko", "nflows", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    info = Path("/proc/cpuinfo")
    names = (
        [ln for ln in info.read_text().splitlines() if "model name" in ln] if info.exists() else []
    )
    return {
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit,
        "versions": found,
        "python": platform.python_version(),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def report(path: str | None, result: dict) -> None:
    """Print the result and write it with the environment beside it."""
    content = {"environment": environment(), **result}
    print(json.dumps(result, indent=1))
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
