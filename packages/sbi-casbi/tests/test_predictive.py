import numpy as np
import pytest

from sbi_casbi.config import CasbiConfig
from sbi_casbi.members import MemberSamples
from sbi_casbi.predictive import deviance, predictive_planes
from sbi_casbi.simulator import CasbiSimulator

OPTIONS = {"counts": "shape", "n_star": (20_000, 20_000), "sigma_fe": (0.1, 0.1)}


@pytest.mark.parametrize("counts", ["shape", "absolute"])
def test_predicted_planes_have_the_zero_points_of_the_data(library, rng, counts):
    """Halos whose [O/Fe] is moved by 0.09 dex: within two of 0.05 dex, but not where none vary."""
    options = OPTIONS | {"counts": counts}
    fixed, varied = (
        CasbiSimulator(CasbiConfig(zero_point=z, **options), library) for z in (0.0, 0.05)
    )
    halos = fixed.draw_from(6, rng, "train")
    values, count = halos.theta_set.numpy(), halos.theta_mask.sum(1).numpy()
    members = MemberSamples(values[None], count[None], fixed.member_names, np.arange(6).astype(str))
    x = fixed.observe(halos, rng).x.numpy()
    moved = x.copy()
    pixels = round(0.09 / library.plane.pixel[1])
    plane = np.roll(x[:, :4096].reshape(6, 64, 64), pixels, axis=2)
    moved[:, :4096] = plane.reshape(6, -1)
    good = deviance(x, predictive_planes(fixed, members, x, 1))
    odd = deviance(moved, predictive_planes(fixed, members, moved, 1))
    followed = deviance(moved, predictive_planes(varied, members, moved, 1))
    assert (odd > 3 * good).all()
    assert (followed < 0.5 * odd).all()


def test_predicted_planes_follow_the_physics_that_varies(library, rng):
    """Of the true members, at a physics that is not the library's: an excess of 1, not of 10."""
    plain, varied = (
        CasbiSimulator(CasbiConfig(physics_spread=s, **OPTIONS), library) for s in (0.0, 0.1)
    )
    halos = varied.draw_from(12, rng, "train")
    values, count = halos.theta_set.numpy(), halos.theta_mask.sum(1).numpy()
    members = MemberSamples(
        values[None], count[None], varied.member_names, np.arange(12).astype(str)
    )
    x = varied.observe(halos, rng).x.numpy()
    fixed, followed = (deviance(x, predictive_planes(s, members, x, 1)) for s in (plain, varied))
    assert np.median(fixed) > 10 * 256
    assert np.median(followed) < 2 * 256
    assert (followed < fixed).all()
