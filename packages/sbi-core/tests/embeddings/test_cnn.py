import pytest
import torch
from torch import nn

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.cnn import CnnConfig, CnnEmbedding
from sbi_core.errors import ConfigError


@pytest.mark.parametrize(("shape", "pool"), [((2, 16, 12), 1), ((1, 20, 20), 4), ((3, 50), 2)])
def test_it_returns_as_many_features_as_it_says(shape, pool):
    embedding = CnnEmbedding(CnnConfig(channels=(4, 8), pool=pool, hidden=(9, 5)))
    assert isinstance(embedding, Embedding)
    module = embedding.build(InputShape(shape, context=2, has_err=True, has_mask=True))
    x = torch.randn(6, *shape)
    out = module(x, torch.randn(6, *shape), torch.ones(6, *shape), torch.randn(6, 2))
    assert out.shape == (6, module.out_features) == (6, 5)


def test_a_row_does_not_depend_on_the_others():
    module = CnnEmbedding().build(InputShape((1, 16, 16)))
    x = torch.randn(5, 1, 16, 16)
    together = module(x, None, None, None)
    alone = torch.cat([module(x[k : k + 1], None, None, None) for k in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in module.modules())


def test_leading_axes_are_kept():
    module = CnnEmbedding().build(InputShape((1, 16, 16)))
    x = torch.randn(3, 5, 1, 16, 16)
    out = module(x, None, None, None)
    assert out.shape == (3, 5, 64)
    assert torch.allclose(out[1], module(x[1], None, None, None), atol=1e-6)


def test_shapes_that_are_no_image_are_refused():
    with pytest.raises(ConfigError, match=r"got \(8,\)"):
        CnnEmbedding().build(InputShape((8,)))
    with pytest.raises(ConfigError, match="pool = 9"):
        CnnEmbedding(CnnConfig(pool=9)).build(InputShape((1, 8, 8)))
