"""The features: what they hold, and where they end."""

import pytest
import torch
from torch.testing import assert_close

from sbi_core import ConfigError, InputShape
from sbi_sedflow.embedding import SedEmbedding

BANDS = 6


@pytest.fixture(scope="module")
def network():
    return SedEmbedding().build(InputShape(x=(BANDS,), has_err=True, has_mask=True, context=2))


def features(network, x, mask=None):
    x = torch.as_tensor(x, dtype=torch.float32)[None]
    mask = torch.ones_like(x) if mask is None else torch.as_tensor(mask, dtype=torch.float32)[None]
    with torch.no_grad():
        return network(x, torch.zeros_like(x), mask, torch.zeros(1, 2))[0, -(3 * BANDS + 5) :]


def test_colours_are_differences_from_the_mean_of_the_observed_bands(network):
    found = features(network, [18.0, 19.0, 20.0, 0.0, 17.0, 16.0], [1, 1, 1, 0, 1, 1])
    assert_close(found[:BANDS], torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, -2.0]))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_band_far_from_all_others_has_a_limited_colour(network, sign):
    """A negative flux of a bright galaxy in a survey with a faint softening: 25 mag."""
    plain = torch.tensor([15.0, 15.0, 15.0, 15.0, 15.0, 15.0])
    limit, far = plain.clone(), plain.clone()
    limit[2] += sign * 14.4  # 12 from the mean
    far[2] += sign * 40.0
    assert float(features(network, limit)[2]) == pytest.approx(sign * 12.0, abs=1e-4)
    assert float(features(network, far)[2]) == sign * 12.0
    assert torch.isfinite(network(far[None], *torch.ones(2, 1, BANDS), torch.zeros(1, 2))).all()


def test_data_without_errors_are_refused():
    with pytest.raises(ConfigError, match="needs bands with errors"):
        SedEmbedding().build(InputShape(x=(BANDS,), has_err=False, has_mask=False, context=2))
