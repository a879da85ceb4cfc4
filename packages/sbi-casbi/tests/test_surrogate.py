import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_casbi.config import CasbiConfig
from sbi_casbi.surrogate import (
    Surrogate,
    SurrogateConfig,
    shape_of,
    surrogate_library,
    train_surrogate,
)
from sbi_core import ConfigError, DataFileError


@pytest.fixture(scope="module")
def trained(library):
    config = SurrogateConfig(steps_shape=250, steps_stars=120, hidden=32, transforms=2, bins=6)
    return train_surrogate(library, config)


def test_shapes_follow_mass_and_time(trained, library):
    rows = library.rows("train")
    drawn = trained.draw_shapes(library.theta[rows], 1)
    true = shape_of(library)[rows]
    assert np.abs(drawn[:, 0].mean() - true[:, 0].mean()) < 0.08
    assert np.corrcoef(drawn[:, 0], true[:, 0])[0, 1] > 0.7
    # galaxies of one theta differ: the scatter is there, not averaged away
    assert drawn[:, 0].std() > 0.75 * true[:, 0].std()


def test_points_have_the_moments_that_were_asked(trained, library):
    rows = library.rows("train")[:40]
    shape = shape_of(library)[rows]
    fe_h, o_fe = trained.stars_of(library.theta[rows], shape, 256, 2)
    assert_allclose(fe_h.mean(1), shape[:, 0], atol=1e-9)
    assert_allclose(o_fe.mean(1), shape[:, 1], atol=1e-9)
    assert_allclose(np.log(fe_h.std(1)), shape[:, 2], atol=1e-9)
    assert_allclose(np.log(o_fe.std(1)), shape[:, 3], atol=1e-9)
    rho = ((fe_h - fe_h.mean(1)[:, None]) * (o_fe - o_fe.mean(1)[:, None])).mean(1)
    assert_allclose(rho / fe_h.std(1) / o_fe.std(1), np.tanh(shape[:, 4]), atol=1e-9)


def test_points_fill_the_distribution_more_evenly_than_random_ones(trained, library):
    row = library.rows("train")[:1]
    theta, shape = library.theta[row], shape_of(library)[row]
    many, _ = trained.stars_of(theta, shape, 65_536, 1)
    levels = np.quantile(many[0], np.arange(1, 20) / 20)

    def miss(seed):
        few, _ = trained.stars_of(theta, shape, 1024, seed)
        return np.abs((few[0][:, None] < levels).mean(0) - np.arange(1, 20) / 20).max()

    # 1024 random ones: about 0.8 / sqrt(1024) = 0.025
    assert np.mean([miss(seed) for seed in range(2, 8)]) < 0.012


def test_points_follow_their_seed(trained, library):
    row = library.rows("train")[:3]
    theta, shape = library.theta[row], shape_of(library)[row]
    a, b, c = (trained.stars_of(theta, shape, 64, seed)[0] for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()
    assert not np.allclose(a[0] - a[0].mean(), a[1] - a[1].mean())


def test_outside_the_library_it_refuses(trained):
    with pytest.raises(ConfigError, match="outside the library"):
        trained.check(np.array([[11.5, 13.0, 5.0]]))


def test_what_is_saved_is_loaded(trained, library, tmp_path):
    trained.save(tmp_path)
    again = Surrogate.load(tmp_path)
    theta = library.theta[:5]
    assert (again.draw_shapes(theta, 3) == trained.draw_shapes(theta, 3)).all()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataFileError, match="no surrogate"):
        Surrogate.load(tmp_path)


def test_a_library_of_the_surrogate_can_be_simulated(trained, library, tmp_path):
    from sbi_casbi.simulator import CasbiSimulator

    trained.save(tmp_path)
    config = CasbiConfig(
        library="surrogate", surrogate_file=str(tmp_path), split_fractions=(0.6, 0.2, 0.2)
    )
    made = surrogate_library(library, config, stars=100)
    assert len(made) == len(library)
    assert len(np.unique(made.stem)) == len(made)
    batch = CasbiSimulator(config.model_copy(update={"library": "embedded"}), made).draw(10, 1)
    assert np.isfinite(batch.x.numpy()).all()
