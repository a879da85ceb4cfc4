import pytest
import torch

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.deepset import DeepsetConfig, DeepsetEmbedding
from sbi_core.embeddings.transformer import TransformerConfig, TransformerEmbedding
from sbi_core.errors import ConfigError

SMALL = {
    "deepset": lambda: DeepsetEmbedding(DeepsetConfig(member=(16, 16), hidden=(12, 8))),
    "transformer": lambda: TransformerEmbedding(TransformerConfig(width=16, hidden=(8,))),
}


@pytest.fixture(params=sorted(SMALL))
def case(request):
    """A module for sets of up to 7 members, and 4 sets with 1, 3, 5 and 7 of them."""
    torch.manual_seed(2)
    embedding = SMALL[request.param]()
    assert isinstance(embedding, Embedding)
    assert embedding.takes_sets
    module = embedding.build(InputShape((7, 3), context=1, has_err=True, has_mask=True))
    mask = (torch.arange(7) < torch.tensor([[1], [3], [5], [7]])).float()[..., None].expand(4, 7, 3)
    x, err = torch.randn(4, 7, 3) * mask, torch.randn(4, 7, 3) * mask
    return module, x, err, mask.clone(), torch.randn(4, 1)


def test_it_returns_as_many_features_as_it_says(case):
    module, *data = case
    assert module(*data).shape == (4, module.out_features) == (4, 8)


def test_the_order_of_members_does_not_matter(case):
    module, x, err, mask, context = case
    order = torch.randperm(7)
    shuffled = module(x[:, order], err[:, order], mask[:, order], context)
    assert torch.allclose(shuffled, module(x, err, mask, context), atol=1e-5)


def test_padding_does_not_matter(case):
    module, x, err, mask, context = case
    pad = torch.zeros(4, 5, 3)
    padded = [torch.cat([t, pad], 1) for t in (x, err, mask)]
    assert torch.allclose(module(*padded, context), module(x, err, mask, context), atol=1e-6)


def test_the_number_of_members_matters(case):
    module, x, err, mask, context = case
    same = [t[3:, :1].expand(1, 7, 3).clone() for t in (x, err)]
    one = torch.zeros(1, 7, 3)
    one[:, 0] = 1
    seven = torch.ones(1, 7, 3)
    first = module(same[0] * one, same[1] * one, one, context[:1])
    assert (module(*same, seven, context[:1]) - first).abs().max() > 1e-3


def test_an_empty_set_has_a_finite_summary(case):
    module, x, _, _, context = case
    zero = torch.zeros_like(x)
    out = module(zero, zero, zero, context)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


def test_a_set_without_mask_is_complete(case):
    _, x, _, _, _ = case
    for make in SMALL.values():
        assert make().build(InputShape((7, 3)))(x, None, None, None).shape == (4, 8)


def test_vectors_are_no_sets():
    with pytest.raises(ConfigError, match=r"got \(8,\)"):
        DeepsetEmbedding().build(InputShape((8,)))
