"""Summary networks: observed data to features.

``name`` and ``config`` of an embedding are what is stored of it beside its weights; whoever loads
the estimator builds it again from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbi_core.components import Embedding
from sbi_core.embeddings.cnn import CnnEmbedding
from sbi_core.embeddings.conv1d_attention import Conv1dAttentionEmbedding
from sbi_core.embeddings.deepset import DeepsetEmbedding
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.embeddings.transformer import TransformerEmbedding

__all__ = ["BUILTIN", "embedding_spec"]

BUILTIN: Mapping[str, type[Any]] = {
    c.name: c
    for c in (
        IdentityEmbedding,
        MlpEmbedding,
        CnnEmbedding,
        Conv1dAttentionEmbedding,
        DeepsetEmbedding,
        TransformerEmbedding,
    )
}


def embedding_spec(embedding: Embedding) -> dict[str, Any]:
    """Return name and options of an embedding, JSON-serialisable."""
    config = embedding.config
    options = {} if config is None else config.model_dump(mode="json")
    return {"name": embedding.name, "options": options}
