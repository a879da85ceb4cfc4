import pytest
import torch

from sbi_core.estimators._inverse import inverse, plan

zuko = pytest.importorskip("zuko")


@pytest.mark.parametrize("flow", [zuko.flows.MAF, zuko.flows.NSF])
@pytest.mark.parametrize("passes", [None, 2, 3])
@pytest.mark.parametrize("hidden", [(16, 16), (13,), (7, 20, 9)])
def test_it_is_the_inverse_of_zuko(flow, passes, hidden):
    made = flow(5, 3, transforms=2, passes=passes, hidden_features=hidden, randperm=True).double()
    for p in made.parameters():
        p.data += 0.2 * torch.randn_like(p)
    h, y = torch.randn(4, 3).double(), 2 * torch.randn(6, 4, 5).double()
    for transform in made.transform.transforms:
        steps = plan(transform)
        assert steps is not None
        z = inverse(steps, y, h)
        assert torch.allclose(z, transform(h).inv(y), atol=1e-8)
        assert torch.allclose(transform(h)(z), y, atol=1e-8)


def test_what_it_does_not_know_is_left_to_zuko():
    assert plan(zuko.flows.NSF(1, 3, transforms=1).transform.transforms[0]) is None
    residual = zuko.flows.MAF(3, 2, transforms=1, hidden_features=(8, 8), residual=True)
    assert plan(residual.transform.transforms[0]) is None


def test_what_is_beyond_the_spline_is_left_alone():
    transform = zuko.flows.NSF(3, 2, transforms=1).double().transform.transforms[0]
    h, y = torch.randn(2, 2).double(), torch.tensor([[-7.0, 5.5, 5.0], [0.1, -5.0, 9.0]]).double()
    z = inverse(plan(transform), y[None], h)
    assert torch.allclose(z, transform(h).inv(y)[None], atol=1e-8)
    assert (z[0, 0, :2] == y[0, :2]).all()


def test_draws_with_gradients_are_those_without():
    from sbi_core.estimators.flows import NsfEstimator

    head = NsfEstimator().build_head(3, 4).double()
    h, noise = torch.randn(5, 3).double(), torch.randn(2, 5, 4).double()
    slow = head.draw(noise, h)
    assert slow.requires_grad
    with torch.no_grad():
        assert torch.allclose(head.draw(noise, h), slow, atol=1e-8)
        assert torch.allclose(head.draw(noise[0], h), slow[0], atol=1e-8)
