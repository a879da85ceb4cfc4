"""Checkpoints of a training, without pickle: weights, best weights, optimizer and facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sbi_core.errors import DataFileError, TrainingError
from sbi_core.files.tensors import check_weights, read_tensors, write_tensors

__all__ = ["Checkpoint", "architecture", "digest", "write_checkpoint"]


def architecture(network: nn.Module) -> str:
    """Return a hash of layer types, names and shapes."""
    shapes = [[k, list(v.shape)] for k, v in network.state_dict().items()]
    layers = [[k, type(m).__name__] for k, m in network.named_modules()]
    return hashlib.sha256(json.dumps([shapes, layers]).encode()).hexdigest()


def digest(*tensors: Tensor) -> str:
    """Return a hash of the values; of every k-th row when there are more than 16 million."""
    total = hashlib.sha256()
    for t in tensors:
        part = t[:: 1 + t.numel() // 2**24].detach().cpu().contiguous()
        total.update(str(tuple(t.shape)).encode() + part.numpy().tobytes())
    return total.hexdigest()


def write_checkpoint(
    path: Path,
    network: nn.Module,
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path
        File to write.
    network, optimizer
        In evaluation mode, if the optimizer has modes.
    best
        The best weights so far.
    facts
        JSON-serialisable; :meth:`Checkpoint.check` compares the key ``fingerprint``.
    """
    state = optimizer.state_dict()
    tensors = {f"weights.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for i, entry in state["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in entry.items()}
    write_tensors(path, tensors, {**facts, "groups": state["param_groups"]})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that :func:`write_checkpoint` wrote."""

    path: Path
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        DataFileError
            If the file is damaged or holds something else.
        """
        tensors, facts = read_tensors(path)
        if not isinstance(facts, dict) or not {"fingerprint", "groups"} <= facts.keys():
            msg = f"{path} is damaged, or not a checkpoint of a training"
            raise DataFileError(msg)
        return cls(path, tensors, facts)

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Check that the checkpoint belongs to this training.

        Raises
        ------
        TrainingError
            If it belongs to another one; the message lists the differences.
        """
        stored = self.facts["fingerprint"]
        differ = [k for k in fingerprint if stored.get(k) != fingerprint[k]]
        if not differ:
            return
        old, new = stored.get("options", {}), fingerprint.get("options", {})
        changed = [f"{k} {old.get(k)} -> {new[k]}" for k in new if old.get(k) != new[k]]
        words = ", ".join(
            k if k != "options" else f"options ({'; '.join(changed)})" for k in differ
        )
        msg = f"{self.path} comes from another training (different {words}); remove it to restart"
        raise TrainingError(msg)

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Restore weights and optimizer state; return the best weights."""
        weights = self._below("weights")
        check_weights(network, weights, self.path)
        network.load_state_dict(weights)  # into the memory that is being trained
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in self._below("optimizer").items():
            i, key = name.split(".", 1)
            entries.setdefault(int(i), {})[key] = value
        optimizer.load_state_dict({"state": entries, "param_groups": self.facts["groups"]})
        now = network.state_dict()
        return {k: v.to(now[k].device) for k, v in self._below("best").items()}

    def _below(self, prefix: str) -> dict[str, Tensor]:
        start = len(prefix) + 1
        return {k[start:]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}
