"""Tensors on disk: safetensors with a checksum, written atomically, read without executing.

A file is written to a temporary name, flushed to the disk and renamed, so that a file under its
final name is always whole. Its header carries one JSON text and the CRC-32 of all tensors.

References:
    | safetensors, https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sbi_core.data.alignment import align_weights, aligned
from sbi_core.data.gate import read_text, regular_file
from sbi_core.data.writing import write_atomic
from sbi_core.errors import DataFileError

__all__ = [
    "check_weights",
    "load_weights",
    "read_json",
    "read_tensors",
    "write_tensors",
]


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Any = None) -> None:
    """Write named tensors of any shape and device, and one JSON-serialisable value."""
    plain = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    # one entry: the library writes several in random order, and equal runs write equal bytes
    content = json.dumps({"meta": meta, "crc32": _checksum(plain)}, sort_keys=True)
    write_atomic(Path(path), save(plain, {"json": content}))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """Read what :func:`write_tensors` wrote.

    Returns
    -------
    tuple
        The tensors by name, on the CPU and aligned, and the value stored beside them.

    Raises
    ------
    DataFileError
        If the file is missing, truncated, altered, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"{path} does not exist"
        raise DataFileError(msg)
    regular_file(path)
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            tensors = {name: aligned(f.get_tensor(name)) for name in f.keys()}  # noqa: SIM118
        content = json.loads(header["json"])
        meta, stored = content["meta"], content["crc32"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        msg = f"{path} is damaged or was not written by sbi-core ({error})"
        raise DataFileError(msg) from None
    if stored != _checksum(tensors):
        msg = f"{path} is damaged: its checksum does not match its content"
        raise DataFileError(msg)
    return tensors, meta


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds a table.

    Raises
    ------
    DataFileError
        If it is missing or no such file.
    """
    path = Path(path)
    try:
        value = json.loads(read_text(path))
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or error})"
        raise DataFileError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not valid JSON ({error})"
        raise DataFileError(msg) from None
    if not isinstance(value, dict):
        msg = f"{path} does not hold a JSON table"
        raise DataFileError(msg)
    return value


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Check that names and shapes of tensors are those of a module.

    Raises
    ------
    DataFileError
        If names or shapes differ; the message gives the first of them.
    """
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        what = f"lacks '{missing[0]}'" if missing else f"has an unknown tensor '{extra[0]}'"
        msg = (
            f"{source} {what}: these weights belong to another network; if an earlier version "
            "made the run, train it again (--restart train)"
        )
        raise DataFileError(msg)
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            got, want = tuple(tensors[name].shape), tuple(value.shape)
            msg = f"{source}: '{name}' has shape {got}, this network needs {want}"
            raise DataFileError(msg)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Put tensors into a module after :func:`check_weights`; its weights end in aligned memory."""
    check_weights(module, tensors, source)
    module.load_state_dict(dict(tensors))
    align_weights(module)
