r"""A surrogate of the library: planes of galaxies at any stellar mass, dark mass and infall time.

Galaxies of equal theta differ. A flow p([Fe/H], [O/Fe] | theta) would learn the mean of the
population without the scatter between galaxies; its templates would be too broad, and inferred
masses too precise. Therefore it has two levels,

.. math:: s \sim p(s\,|\,\theta), \qquad
          ([\mathrm{Fe/H}], [\mathrm{O/Fe}]) \sim p(\cdot\,|\,\theta, s),

with s the means, log widths and correlation of the plane. Both are neural spline flows, trained on
the training stems only. Theta outside the convex hull of the library is refused.

References:
    | Durkan et al. 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.spatial import Delaunay
from torch import Tensor, nn

from sbi_casbi.config import CasbiConfig
from sbi_casbi.library import Library, make_templates, split_stems
from sbi_casbi.plane import FINE, FINE_PER_PIXEL
from sbi_core import (
    ConfigError,
    DataFileError,
    checked_file,
    read_text,
    seeded,
    stream,
    written,
)

__all__ = ["Surrogate", "SurrogateConfig", "shape_of", "surrogate_library", "train_surrogate"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_SHAPE = 5


@dataclass(frozen=True)
class SurrogateConfig:
    """Options of the training.

    Parameters
    ----------
    stars
        Stars per snapshot in one pass.
    steps_shape, steps_stars
        Steps of both flows.
    batch
        Rows per step.
    hidden, transforms, bins
        Size of the flows.
    learning_rate
        Initial value of a cosine schedule.
    seed
        Random seed.
    """

    stars: int = 64
    steps_shape: int = 3000
    steps_stars: int = 2000
    batch: int = 1024
    hidden: int = 96
    transforms: int = 3
    bins: int = 12
    learning_rate: float = 3e-3
    seed: int = 1


def shape_of(library: Library) -> F64:
    """Return means, log widths and transformed correlation of every template, (n, 5).

    For the templates alone, without mixing, which is added later.
    """
    m = replace(library, mixing=(0.0, 0.0)).moments
    width = np.log(np.maximum(m[:, 2:4], 1e-3))
    return np.concatenate([m[:, :2], width, np.arctanh(np.clip(m[:, 4:], -0.995, 0.995))], axis=1)


def _with_moments(points: F64, shape: F64) -> F64:
    """Return points (n, stars, 2), each row mapped linearly to the moments s (n, 5)."""
    off = points - points.mean(1, keepdims=True)
    own = np.linalg.cholesky(off.transpose(0, 2, 1) @ off / points.shape[1])
    rho, width = np.tanh(shape[:, 4]), np.exp(shape[:, 2:4])
    want = np.zeros_like(own)
    want[:, 0, 0], want[:, 1, 0], want[:, 1, 1] = 1.0, rho, np.sqrt(1.0 - rho**2)
    turn = width[:, :, None] * want @ np.linalg.inv(own)
    return np.asarray(shape[:, None, :2] + off @ turn.transpose(0, 2, 1))


class Surrogate(nn.Module):
    """Both flows and the standardisation of their input.

    Parameters
    ----------
    dim
        Numbers per galaxy: 3, or 2 without the dark mass.
    config
        Options.
    """

    def __init__(self, dim: int, config: SurrogateConfig) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        size = {"transforms": config.transforms, "hidden_features": [config.hidden] * 2}
        self.shape_flow = zuko.flows.NSF(_SHAPE, dim, bins=config.bins, **size)
        self.star_flow = zuko.flows.NSF(2, dim + _SHAPE, bins=config.bins, **size)
        for name, k in (("theta", dim), ("shape", _SHAPE)):
            self.register_buffer(f"{name}_mean", torch.zeros(k))
            self.register_buffer(f"{name}_sd", torch.ones(k))
        self.hull: Delaunay | None = None

    def standard(self, theta: F64, shape: F64 | None = None) -> Tensor:
        """Return standardised context (n, dim) or (n, dim + 5)."""
        parts = [(torch.as_tensor(theta).float() - self.theta_mean) / self.theta_sd]  # type: ignore[operator]
        if shape is not None:
            parts.append((torch.as_tensor(shape).float() - self.shape_mean) / self.shape_sd)  # type: ignore[operator]
        return torch.cat(parts, -1)

    def check(self, theta: F64) -> None:
        """Raise ConfigError if a galaxy is outside the training library."""
        assert self.hull is not None
        outside = self.hull.find_simplex(theta) < 0
        if outside.any():
            k = int(np.flatnonzero(outside)[0])
            msg = (
                f"row {k}: theta = {np.round(theta[k], 3).tolist()} is outside the library the "
                f"surrogate was trained on ({int(outside.sum())} such rows)"
            )
            raise ConfigError(msg)

    @torch.no_grad()
    def draw_shapes(self, theta: F64, seed: int) -> F64:
        """Return s (n, 5) of galaxies theta (n, dim)."""
        with seeded(seed):
            z = self.shape_flow(self.standard(theta)).sample()
        return np.asarray((z * self.shape_sd + self.shape_mean).double().numpy())  # type: ignore[operator]

    @torch.no_grad()
    def stars_of(self, theta: F64, shape: F64, stars: int, seed: int) -> tuple[F64, F64]:
        """Return points [Fe/H] and [O/Fe] (n, stars) for templates of galaxies with theta and s.

        These are no random samples of stars: base points are a Sobol sequence, shifted at random
        per galaxy, and the points of a galaxy are scaled and sheared to have exactly the means,
        widths and correlation s.
        """
        rng = np.random.default_rng(seed)
        engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=int(rng.integers(0, 2**31)))
        even = engine.draw(stars)
        out = np.empty((len(theta), stars, 2))
        step = max(1, 200_000 // stars)
        for k in range(0, len(theta), step):
            part = slice(k, k + step)
            context = self.standard(theta[part], shape[part])
            shift = torch.as_tensor(rng.random((len(context), 2)), dtype=torch.float32)
            base = torch.special.ndtri(((even[:, None] + shift) % 1.0).clamp(1e-6, 1 - 1e-6))
            z = self.star_flow(context).transform.inv(base)
            out[part] = z.transpose(0, 1).double().numpy()
        values = _with_moments(out, shape)
        return values[..., 0], values[..., 1]

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and options (JSON)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written(folder / "weights.safetensors") as temporary:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, temporary)
        assert self.hull is not None
        facts = {"dim": self.dim, "options": vars(self.config), "hull": self.hull.points.tolist()}
        with written(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Surrogate:
        """Read files of :meth:`save`.

        Raises
        ------
        DataFileError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            facts = json.loads(read_text(folder / "config.json"))
            made = cls(int(facts["dim"]), SurrogateConfig(**facts["options"]))
            made.load_state_dict(load_file(checked_file(folder / "weights.safetensors")))
            made.hull = Delaunay(np.asarray(facts["hull"]))
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            msg = f"'{folder}' has no surrogate, or a damaged one: {error}"
            raise DataFileError(msg) from None
        return made.eval()


def train_surrogate(library: Library, config: SurrogateConfig | None = None) -> Surrogate:
    """Return a surrogate trained on the training stems of a library.

    Parameters
    ----------
    library
        Snapshots.
    config
        Options.
    """
    c = config or SurrogateConfig()
    train = library.take(library.rows("train"))
    theta, shape = _theta(train), shape_of(train)
    rng = stream(c.seed, "surrogate")
    with seeded(int(rng.integers(0, 2**31))):
        made = Surrogate(theta.shape[1], c)
        for name, values in (("theta", theta), ("shape", shape)):
            getattr(made, f"{name}_mean").copy_(torch.as_tensor(values.mean(0)))
            getattr(made, f"{name}_sd").copy_(torch.as_tensor(np.maximum(values.std(0), 1e-6)))
        made.hull = Delaunay(theta)
        z = (torch.as_tensor(shape).float() - made.shape_mean) / made.shape_sd  # type: ignore[operator]
        context = made.standard(theta)

        def shape_batch() -> tuple[Tensor, Tensor]:
            rows = torch.as_tensor(rng.integers(0, len(theta), min(c.batch, len(theta))))
            jitter = 0.02 * torch.randn(len(rows), context.shape[1])
            return z[rows], context[rows] + jitter

        _fit(made.shape_flow, shape_batch, c.steps_shape, c.learning_rate)
        full = made.standard(theta, shape)

        def star_batch() -> tuple[Tensor, Tensor]:
            rows = rng.integers(0, len(theta), max(1, c.batch // c.stars))
            stars = _stars_of(train, rows, c.stars, rng)
            mean, width = shape[rows, None, :2], np.exp(shape[rows, None, 2:4])
            y = torch.as_tensor((stars - mean) / width).float().flatten(0, 1)
            return y, full[torch.as_tensor(rows)].repeat_interleave(c.stars, 0)

        _fit(made.star_flow, star_batch, c.steps_stars, c.learning_rate)
    return made.eval()


def _fit(flow: Any, batch: Any, steps: int, peak: float) -> None:
    optimizer = torch.optim.Adam(flow.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        y, context = batch()
        optimizer.zero_grad()
        loss = -flow(context).log_prob(y).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        schedule.step()


def _theta(library: Library) -> F64:
    return library.theta if library.has_dark_mass else library.theta[:, [0, 2]]


def _stars_of(library: Library, rows: I64, stars: int, rng: np.random.Generator) -> F64:
    """Return stars (n, stars, 2) drawn from templates, uniform within fine bins."""
    low, width = library.plane.fine_low, library.plane.pixel
    out = np.empty((len(rows), stars, 2))
    t = library.templates
    for i, row in enumerate(rows):
        part = slice(t.indptr[row], t.indptr[row + 1])
        cdf = np.cumsum(t.data[part], dtype=float)
        bins = t.indices[part][np.searchsorted(cdf / cdf[-1], rng.random(stars))]
        for j, place in enumerate(np.divmod(bins, FINE)):
            h = width[j] / FINE_PER_PIXEL
            out[i, :, j] = low[j] + (place + rng.random(stars)) * h
    return out


def surrogate_library(library: Library, config: CasbiConfig, stars: int = 1000) -> Library:
    """Return a library with the same number of galaxies, drawn from the surrogate.

    Theta is that of random training snapshots, shifted by a tenth of its scatter within the hull,
    so that gaps are filled. All galaxies have different stems.

    Parameters
    ----------
    library
        Training library of the surrogate.
    config
        ``surrogate_file`` names a trained surrogate; by default, one is trained.
    stars
        Number of points per template.
    """
    made = (
        Surrogate.load(config.surrogate_file)
        if config.surrogate_file is not None
        else train_surrogate(library, SurrogateConfig(seed=config.library_seed))
    )
    rng = stream(config.library_seed, "surrogate library")
    source = library.rows("train")
    theta = _theta(library)[source]
    n = len(library)
    drawn = np.empty((n, theta.shape[1]))
    todo = np.arange(n)
    assert made.hull is not None
    while len(todo):
        rows = rng.integers(0, len(theta), len(todo))
        moved = theta[rows] + 0.1 * theta.std(0) * rng.standard_normal((len(todo), theta.shape[1]))
        inside = made.hull.find_simplex(moved) >= 0
        drawn[todo[inside]] = moved[inside]
        todo = todo[~inside]
    made.check(drawn)
    shape = made.draw_shapes(drawn, int(rng.integers(0, 2**31)))
    fe_h, o_fe = made.stars_of(drawn, shape, stars, int(rng.integers(0, 2**31)))
    weight = np.full(fe_h.shape, 1.0 / stars)
    names = np.char.add("sg", np.char.zfill(np.arange(n).astype(str), 6))
    dark = drawn[:, 1] if library.has_dark_mass else np.full(n, np.nan)
    return replace(
        library,
        templates=make_templates(library.plane, fe_h, o_fe, weight),
        galaxy_name=names,
        stem=names,
        log_mstar=drawn[:, 0],
        log_mdm=dark,
        log_mgas=np.full(n, np.nan),
        tau=drawn[:, -1],
        z=np.full(n, np.nan),
        n_star=np.zeros(n, np.int64),
        n_masked=np.zeros(n, np.int64),
        n_over=np.zeros(n, np.int64),
        split=split_stems(names, drawn[:, 0], config.library_seed, config.split_fractions),
        tau_width=0.0,
        source=f"surrogate (library_seed {config.library_seed}) of {library.source}",
    )
