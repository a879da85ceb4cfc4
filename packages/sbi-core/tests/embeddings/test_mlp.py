import pytest
import torch
from pydantic import ValidationError
from torch import nn

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding


@pytest.mark.parametrize("layer_norm", [False, True])
def test_it_returns_as_many_features_as_it_says(layer_norm):
    embedding = MlpEmbedding(MlpConfig(hidden=(16, 5), layer_norm=layer_norm))
    module = embedding.build(InputShape((2, 3), context=2, has_mask=True))
    out = module(torch.randn(4, 2, 3), None, torch.ones(4, 2, 3), torch.randn(4, 2))
    assert out.shape == (4, module.out_features) == (4, 5)
    assert any(isinstance(m, nn.LayerNorm) for m in module.modules()) == layer_norm


def test_its_options_are_recorded():
    assert isinstance(MlpEmbedding(), Embedding)
    made = MlpEmbedding(MlpConfig(hidden=(8,)))
    assert made.name == "mlp"
    assert made.config.model_dump(mode="json") == {"hidden": [8], "layer_norm": False}


def test_unknown_or_empty_options_are_refused():
    with pytest.raises(ValidationError):
        MlpConfig(widths=(3,))
    with pytest.raises(ValidationError):
        MlpConfig(hidden=())
