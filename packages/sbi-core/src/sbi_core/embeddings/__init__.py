"""Summary networks: observed data to features.

An embedding that is to be stored and loaded needs, beside ``build`` and ``takes_sets``, a
``name`` and a ``config`` (a pydantic model with its options).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbi_core.components import Embedding
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.embeddings.mlp import MlpEmbedding

__all__ = ["BUILTIN", "embedding_spec"]

BUILTIN: Mapping[str, type[Any]] = {"identity": IdentityEmbedding, "mlp": MlpEmbedding}


def embedding_spec(embedding: Embedding) -> dict[str, Any]:
    """Return name and options of an embedding, JSON-serialisable."""
    config = getattr(embedding, "config", None)
    options = {} if config is None else config.model_dump(mode="json")
    return {"name": getattr(embedding, "name", type(embedding).__name__), "options": options}
