import pytest
import torch

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.conv1d_attention import Conv1dAttentionConfig, Conv1dAttentionEmbedding
from sbi_core.errors import ConfigError


@pytest.mark.parametrize("preset", ["small", "medium", "large"])
@pytest.mark.parametrize("shape", [(300,), (2, 300)])
def test_it_returns_as_many_features_as_it_says(preset, shape):
    embedding = Conv1dAttentionEmbedding(Conv1dAttentionConfig(preset=preset))
    assert isinstance(embedding, Embedding)
    module = embedding.build(InputShape(shape, context=1, has_err=True, has_mask=True))
    x = torch.randn(3, *shape)
    out = module(x, torch.randn(3, *shape), torch.ones(3, *shape), torch.randn(3, 1))
    assert out.shape == (3, module.out_features)


def test_options_replace_those_of_the_preset():
    config = Conv1dAttentionConfig(preset="small", queries=3, hidden=(7,))
    assert Conv1dAttentionEmbedding(config).build(InputShape((100,))).out_features == 7
    with pytest.raises(ConfigError, match="2 and 2 for 1"):
        Conv1dAttentionConfig(preset="small", channels=(8,)).resolved()
    with pytest.raises(ConfigError, match=r"\(1, 2, 3\)"):
        Conv1dAttentionEmbedding().build(InputShape((1, 2, 3)))


def test_it_knows_where_a_line_is():
    torch.manual_seed(1)
    module = Conv1dAttentionEmbedding(Conv1dAttentionConfig(preset="small")).build(
        InputShape((320,))
    )
    x = torch.zeros(2, 320)
    x[0, 100:104] = x[1, 212:216] = 5.0  # a multiple of the strides apart
    a, b = module(x, None, None, None)
    assert (a - b).abs().max() > 1e-3


def test_pixels_that_were_not_observed_get_no_attention():
    module = Conv1dAttentionEmbedding(Conv1dAttentionConfig(preset="small")).build(
        InputShape((320,), has_mask=True)
    )
    mask = torch.ones(1, 320)
    mask[:, 160:] = 0
    x = torch.randn(1, 320) * mask
    scores = []
    hook = module.keys_values.register_forward_hook(lambda m, i, o: scores.append(o))
    out = module(x, None, mask, None)
    hook.remove()
    assert torch.isfinite(out).all()
    seen = module.seen(mask[:, None])[0, 0]
    assert seen[0] == 1
    assert seen[-1] == 0
    # an object without any data has finite features, too
    nothing = module(torch.zeros(1, 320), None, torch.zeros(1, 320), None)
    assert torch.isfinite(nothing).all()
    nothing.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())
