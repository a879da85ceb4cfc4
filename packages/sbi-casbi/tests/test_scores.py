import numpy as np

from sbi_casbi.scores import miscovered


def test_columns_with_wrong_intervals_are_named(rng):
    """Of a calibrated, a too wide, a too narrow and a discrete calibrated column."""
    centre = rng.normal(size=(300, 4))
    truth = centre + rng.normal(size=centre.shape)
    drawn = centre + rng.normal(size=(100, 300, 4)) * np.array([1.0, 3.0, 0.4, 1.0])
    truth[:, 3], drawn[..., 3] = np.rint(truth[:, 3]), np.rint(drawn[..., 3])
    wrong = miscovered(drawn, truth, ("good", "wide", "narrow", "whole"))
    assert set(wrong) == {"wide", "narrow"}
    assert wrong["wide"] > 0.9
    assert wrong["narrow"] < 0.5
