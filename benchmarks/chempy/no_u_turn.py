r"""The No-U-Turn sampler: Hamiltonian Monte Carlo that chooses its own path length.

With momentum r, diagonal mass M and :math:`H = -\log p(z) + \tfrac12 r^T M^{-1} r`, a path of
leapfrog steps

.. math:: r \mathrel{+}= \tfrac{\epsilon}{2}\nabla\log p, \qquad z \mathrel{+}= \epsilon M^{-1} r,
          \qquad r \mathrel{+}= \tfrac{\epsilon}{2}\nabla\log p

doubles, forwards or backwards at random, until its ends approach each other; a point of it is drawn
with weight :math:`e^{-H}`. Step size (dual averaging) and masses adapt during warm-up.

References:
    | Hoffman & Gelman 2014, JMLR 15, 1593
    | Betancourt 2017, https://arxiv.org/abs/1701.02434 (multinomial draws, generalised criterion)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chain", "energy", "leapfrog", "nuts", "start"]

F64 = NDArray[np.float64]
LogDensity = Callable[[F64], tuple[float, F64]]
_DIVERGENT = 1000.0  # error of H beyond which a path is given up


@dataclass(frozen=True)
class Chain:
    """Draws after warm-up and how they were made.

    Parameters
    ----------
    draws : (S, d)
    accept : (S,)
        Mean acceptance probability along each path.
    depth : (S,)
        Doublings of each path.
    divergent : (S,) bool
    step : float
        Step size after warm-up.
    inverse_mass : (d,)
        Variances that stand for the inverse masses, after warm-up.
    gradients : int
        Gradients computed, warm-up included.
    """

    draws: F64
    accept: F64
    depth: NDArray[np.int64]
    divergent: NDArray[np.bool_]
    step: float
    inverse_mass: F64
    gradients: int


@dataclass(frozen=True)
class _State:
    z: F64
    r: F64
    log_p: float
    gradient: F64


@dataclass(frozen=True)
class _Tree:
    left: _State
    right: _State
    draw: _State
    log_weight: float
    momentum: F64  # sum over the path
    go_on: bool
    divergent: bool
    accept: float
    count: int


def leapfrog(density: LogDensity, state: _State, step: float, inverse_mass: F64) -> _State:
    """Return the state one step later; step may be negative."""
    r = state.r + 0.5 * step * state.gradient
    z = state.z + step * inverse_mass * r
    log_p, gradient = density(z)
    return _State(z, r + 0.5 * step * gradient, log_p, gradient)


def start(density: LogDensity, z: F64, r: F64) -> _State:
    """Return the state at a point with a momentum."""
    return _State(np.asarray(z, float), np.asarray(r, float), *density(np.asarray(z, float)))


def energy(state: _State, inverse_mass: F64) -> float:
    """Return H; infinite where the density is zero."""
    return -state.log_p + 0.5 * float(state.r @ (inverse_mass * state.r))


def nuts(
    density: LogDensity,
    start_at: F64,
    *,
    draws: int,
    warmup: int,
    rng: np.random.Generator,
    target_accept: float = 0.8,
    max_depth: int = 8,
    step: float = 0.1,
    inverse_mass: F64 | None = None,
) -> Chain:
    """Run one chain.

    Parameters
    ----------
    density
        z (d,) to log density and its gradient (d,).
    start_at : (d,)
        Where the density is positive.
    draws, warmup
        Lengths; masses are set from the second quarter of the warm-up.
    rng
    target_accept, max_depth, step
        Acceptance aimed at, longest path 2^depth, first step size.
    inverse_mass : (d,)
        First inverse masses, e.g. of another chain; default 1.

    Raises
    ------
    ValueError
        If the density is zero at the start.
    """
    d = len(start_at)
    inverse_mass = np.ones(d) if inverse_mass is None else inverse_mass
    state = start(density, start_at, np.zeros(d))
    if not np.isfinite(state.log_p):
        raise ValueError("the density is zero at the start of the chain")
    tuner = _DualAveraging(step, target_accept)
    seen: list[F64] = []
    kept: list[tuple[F64, float, int, bool]] = []
    gradients = 1
    for k in range(warmup + draws):
        size = tuner.step if k < warmup else tuner.final
        r = rng.standard_normal(d) / np.sqrt(inverse_mass)
        tree, depth = _path(density, replace(state, r=r), size, inverse_mass, max_depth, rng)
        state = tree.draw
        gradients += tree.count
        accept = tree.accept / max(tree.count, 1)
        if k >= warmup:
            kept.append((state.z, accept, depth, tree.divergent))
            continue
        tuner.update(accept)
        if k >= warmup // 4:
            seen.append(state.z)
        if k + 1 == warmup // 2 and len(seen) >= 10:
            n = len(seen)  # shrunk towards 1: few draws know little
            inverse_mass = (n * np.var(seen, axis=0) + 5.0) / (n + 5.0)
            tuner = _DualAveraging(tuner.final, target_accept)
    z, accepted, depths, divergent = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Chain(
        np.array(z).reshape(len(kept), d),
        np.array(accepted),
        np.array(depths, dtype=np.int64),
        np.array(divergent, dtype=bool),
        tuner.final,
        inverse_mass,
        gradients,
    )


def _path(
    density: LogDensity,
    first: _State,
    step: float,
    inverse_mass: F64,
    max_depth: int,
    rng: np.random.Generator,
) -> tuple[_Tree, int]:
    h0 = energy(first, inverse_mass)
    tree = _Tree(first, first, first, 0.0, first.r, True, False, 0.0, 0)
    depth = 0
    while tree.go_on and depth < max_depth:
        sign = 1 if rng.random() < 0.5 else -1
        end = tree.right if sign > 0 else tree.left
        new = _build(density, end, sign * step, depth, h0, inverse_mass, rng)
        tree = _join(tree, new, sign, inverse_mass, rng, biased=True)
        depth += 1
    return tree, depth


def _build(
    density: LogDensity,
    state: _State,
    step: float,
    depth: int,
    h0: float,
    inverse_mass: F64,
    rng: np.random.Generator,
) -> _Tree:
    """Return a path of 2^depth further steps."""
    if depth == 0:
        s = leapfrog(density, state, step, inverse_mass)
        error = energy(s, inverse_mass) - h0
        error = error if np.isfinite(error) else np.inf
        divergent = error > _DIVERGENT
        return _Tree(s, s, s, -error, s.r, not divergent, divergent, min(1.0, np.exp(-error)), 1)
    tree = _build(density, state, step, depth - 1, h0, inverse_mass, rng)
    if not tree.go_on:
        return tree
    sign = 1 if step > 0 else -1
    end = tree.right if sign > 0 else tree.left
    new = _build(density, end, step, depth - 1, h0, inverse_mass, rng)
    return _join(tree, new, sign, inverse_mass, rng, biased=False)


def _join(
    old: _Tree, new: _Tree, sign: int, inverse_mass: F64, rng: np.random.Generator, *, biased: bool
) -> _Tree:
    """Return the path made of two; the draw comes from the new part with its weight.

    ``biased`` prefers the new part, as at the top of the tree.
    """
    total = np.logaddexp(old.log_weight, new.log_weight)
    chance = new.log_weight - (old.log_weight if biased else total)
    take = new.go_on and np.log(rng.random()) < chance
    left, right = (old.left, new.right) if sign > 0 else (new.left, old.right)
    momentum = old.momentum + new.momentum
    turned = any(momentum @ (inverse_mass * s.r) <= 0 for s in (left, right))
    return _Tree(
        left,
        right,
        new.draw if take else old.draw,
        float(total),
        momentum,
        new.go_on and not turned,
        old.divergent or new.divergent,
        old.accept + new.accept,
        old.count + new.count,
    )


class _DualAveraging:
    """Step size that brings the acceptance to its target (Hoffman & Gelman 2014, section 3.2)."""

    def __init__(self, step: float, target: float) -> None:
        self.target, self.mu = target, np.log(10 * step)
        self.step = self.final = step
        self.error, self.log_final, self.count = 0.0, 0.0, 0

    def update(self, accept: float) -> None:
        """Learn from one path."""
        self.count += 1
        t = self.count
        self.error += (self.target - accept - self.error) / (t + 10)
        log_step = self.mu - np.sqrt(t) / 0.05 * self.error
        weight = t**-0.75
        self.log_final = weight * log_step + (1 - weight) * self.log_final
        self.step, self.final = float(np.exp(log_step)), float(np.exp(self.log_final))
