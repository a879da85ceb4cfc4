import pytest
import torch

from sbi_core.estimators.sbi_nsf import SbiNsfConfig, SbiNsfEstimator

pytest.importorskip("sbi")


def test_its_density_is_that_of_sbi(barely):
    head = barely("sbi-nsf").network.head
    h, noise = torch.randn(5, 9), torch.randn(3, 5, 2)
    with torch.no_grad():
        z = head.draw(noise, h)
        assert torch.allclose(head.estimator.inverse_transform(z, h), noise, atol=1e-3)
        assert torch.allclose(head.log_prob(z, h), head.estimator.log_prob(z, h))


def test_one_parameter_has_a_spline_too():
    head = SbiNsfEstimator(SbiNsfConfig(hidden=8, transforms=2)).build_head(3, 1)
    h, noise = torch.randn(5, 3), torch.randn(4, 5, 1)
    with torch.no_grad():
        z = head.draw(noise, h)
        assert z.shape == (4, 5, 1)
        assert torch.isfinite(head.log_prob(z, h)).all()
