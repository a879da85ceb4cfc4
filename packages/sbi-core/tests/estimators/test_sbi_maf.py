import pytest

from sbi_core.estimators.sbi_maf import SbiMafEstimator

pytest.importorskip("sbi")


def test_the_default_is_the_published_configuration():
    head = SbiMafEstimator().build_head(8, 6)
    # 8 hidden units, 4 transforms, 6 parameters, 8 abundances (inference.md 3: "1 520 weights")
    assert sum(p.numel() for p in head.parameters()) == 1520


def test_its_density_is_that_of_sbi(barely, gaussian):
    import torch

    head = barely("sbi-maf").network.head
    h, noise = torch.randn(5, 9), torch.randn(3, 5, 2)
    z = head.draw(noise, h)
    back = head.estimator.inverse_transform(z, h)
    assert torch.allclose(back, noise, atol=1e-4)
    assert torch.allclose(head.log_prob(z, h), head.estimator.log_prob(z, h))
