import numpy as np
import pytest
import torch

from sbi_casbi.sets.number import NumberFlow, number_head

COUNTS = np.arange(2, 101.0)
KINDS = ("ordinal", "classes", "flow")


def fresh(kind):
    torch.manual_seed(0)
    return number_head(kind, 5, COUNTS)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one_and_draws_follow_them(kind):
    head = fresh(kind).eval()
    h = torch.randn(3, 5)
    places = torch.arange(99.0)[:, None, None].expand(99, 3, 1)
    with torch.no_grad():
        p = head.log_prob(places, h).exp()
        drawn = head.draw(torch.randn(20_000, 3, head.noise_size), h)[..., 0]
    np.testing.assert_allclose(p.sum(0), 1.0, atol=1e-4)
    for i in range(3):
        share = torch.bincount(drawn[:, i].long(), minlength=99) / len(drawn)
        # 99 cells of 2e4 draws: the sum of their deviations is 0.055 on average
        assert float((share - p[:, i]).abs().sum()) < 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_training_finds_a_number_that_the_summary_holds(kind):
    head = fresh(kind)
    gen = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    for _ in range(300):
        place = torch.randint(0, 99, (256, 1), generator=gen).float()
        h = torch.cat([place / 50 - 1, torch.zeros(256, 4)], 1)
        optimizer.zero_grad()
        head.loss(place, h).mean().backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        gain = np.log(99) + head.log_prob(place, h).mean()
    assert gain > 1.5


def test_the_dequantised_loss_bounds_the_exact_one():
    head = fresh("flow")
    assert isinstance(head, NumberFlow)
    place, h = torch.randint(0, 99, (500, 1)).float(), torch.randn(500, 5)
    with torch.no_grad():
        head.train()
        bound = torch.stack([head.loss(place, h) for _ in range(50)]).mean()
        exact = -head.log_prob(place, h).mean()
    assert bound > exact - 0.02
