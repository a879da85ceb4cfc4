"""posterior.nc: what ArviZ and xarray expect, whole or absent."""

import numpy as np
import pytest
import sbi_toy
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.files.posterior_file import Part, read_posterior, write_posterior
from sbi_core.posterior import PosteriorSamples


@pytest.fixture
def samples(rng):
    space = sbi_toy.SPACE.select("global")
    values = rng.normal(size=(50, 4, 2))
    return PosteriorSamples(
        values,
        space,
        np.array(["a", "b", "c", "dé"]),
        ("", "outside_training,odd", "", "odd"),
        derived={"age": values[..., 0] ** 2},
        columns={"support_percentile": np.arange(4.0), "method": np.array(["a", "b", "a", "a"])},
        units={"age": "Gyr"},
    )


def write(path, samples, observations):
    part = Part.of(samples, observations)
    names = tuple(o.name for o in observations.observables)
    write_posterior(path, lambda: iter([part]), 4, prior=np.zeros((10, 2)), observables=names)
    return path


def test_draws_and_coordinates_come_back(samples, toy, rng, tmp_path):
    observations = toy.example_observations(rng, 4)
    path = write(tmp_path / "p.nc", samples, observations)
    got = read_posterior(path)
    assert got["slope"].dims == ("chain", "draw", "object")
    assert got.sizes == {"chain": 1, "draw": 50, "object": 4}
    assert got["object"].values.tolist() == ["a", "b", "c", "dé"]
    assert_allclose(got["offset"][0], samples["offset"], rtol=1e-6)
    assert got["offset"].attrs["units"] == "dex"
    assert got.attrs["prior_hash"] == samples.space.hash
    assert [p.name for p in tmp_path.iterdir()] == ["p.nc"]


def test_the_other_groups_are_there(samples, toy, rng, tmp_path):
    observations = toy.example_observations(rng, 4)
    path = write(tmp_path / "p.nc", samples, observations)
    assert read_posterior(path, "prior").sizes == {"chain": 1, "draw": 10}
    observed = read_posterior(path, "observed_data")
    assert observed["observable"].values.tolist() == ["a", "b", "c"]
    assert_allclose(observed["x"], observations.batch.x, rtol=1e-6)
    stats = read_posterior(path, "sample_stats")
    assert_array_equal(stats["outside_training"], [0, 1, 0, 0])
    assert stats["flags"].values.tolist() == ["", "outside_training,odd", "", "odd"]
    assert stats["method"].values.tolist() == ["a", "b", "a", "a"]
    derived = read_posterior(path, "derived")
    assert_allclose(derived["age"][0], samples.derived["age"], rtol=1e-6)
    assert derived["age"].attrs["units"] == "Gyr"
    assert_array_equal(stats["support_percentile"], np.arange(4))


def test_images_are_written_as_they_are(samples, rng, tmp_path):
    images = Observations.from_batch(Batch(x=rng.normal(size=(4, 2, 3))))
    path = write(tmp_path / "p.nc", samples, images)
    assert read_posterior(path, "observed_data")["x"].shape == (4, 2, 3)


def test_an_interrupted_file_is_absent(samples, toy, rng, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sbi_core.data.writing.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "p.nc", samples, toy.example_observations(rng, 4))
    assert list(tmp_path.iterdir()) == []


def test_xarray_opens_it_without_our_help(samples, toy, rng, tmp_path):
    path = write(tmp_path / "p.nc", samples, toy.example_observations(rng, 4))
    with xr.open_dataset(path, group="posterior", engine="h5netcdf") as data:
        assert set(data.data_vars) == {"slope", "offset"}
