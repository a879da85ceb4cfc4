import pytest
import torch
from pydantic import ValidationError

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.identity import IdentityConfig, IdentityEmbedding


def test_everything_is_joined_in_order():
    module = IdentityEmbedding().build(InputShape((2,), context=1, has_err=True, has_mask=True))
    x, err, mask, context = (torch.full((3, k), float(v)) for v, k in enumerate((2, 2, 2, 1)))
    assert module(x, err, mask, context)[0].tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert module.out_features == 7


def test_images_are_flattened():
    module = IdentityEmbedding().build(InputShape((2, 3)))
    assert module(torch.zeros(4, 2, 3), None, None, None).shape == (4, module.out_features)


def test_it_is_an_embedding_without_options():
    assert isinstance(IdentityEmbedding(), Embedding)
    assert IdentityEmbedding().name == "identity"
    assert IdentityEmbedding().config.model_dump() == {}
    with pytest.raises(ValidationError):
        IdentityConfig(width=3)
