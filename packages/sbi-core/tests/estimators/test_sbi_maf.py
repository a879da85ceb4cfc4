import pytest

from sbi_core.adapters.sbi import maf_head
from sbi_core.errors import ConfigError
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


def test_every_parameter_depends_on_the_data_whatever_the_seed():
    """sbi shuffles coordinates at random; unlucky shuffles leave one without the features."""
    import torch

    for seed in range(40):
        torch.manual_seed(seed)
        head = maf_head(3, 2, hidden=8, transforms=2)
        noise = torch.randn(1, 2)
        changed = head.draw(noise, torch.randn(1, 3)) != head.draw(noise, torch.randn(1, 3))
        assert changed.all(), seed


def test_one_transformation_is_refused():
    with pytest.raises(ConfigError, match="transforms >= 2"):
        maf_head(3, 2, hidden=8, transforms=1)
