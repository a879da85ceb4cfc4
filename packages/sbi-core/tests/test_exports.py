"""What other programs read."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import sbi_core
from sbi_core.errors import ConfigError
from sbi_core.posterior import PosteriorSamples, combined_from_gaussian
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

SPACE = ParameterSpace(
    (
        Parameter("age", Prior("uniform", {"low": 0.0, "high": 14.0}), r"t_\star", "Gyr"),
        Parameter("met", Prior("normal", {"loc": 0.0, "scale": 0.3}), "[Z/H]", "dex"),
    )
)


@pytest.fixture
def samples(rng):
    values = np.stack([SPACE.sample(50, rng) for _ in range(3)], axis=1)
    return PosteriorSamples(values, SPACE, np.array(["a", "M31", "x,y"]))


def test_netcdf_holds_what_arviz_wants(samples, tmp_path):
    path = samples.to_netcdf(tmp_path / "draws.nc")
    found = xr.load_dataset(path, group="posterior", engine="h5netcdf")
    assert found["age"].dims == ("chain", "draw", "object")
    assert found["age"].attrs["units"] == "Gyr"
    assert_allclose(found["met"].sel(object="M31").values[0], samples["met"][:, 1], rtol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


def test_arviz_reads_it(samples, tmp_path):
    arviz = pytest.importorskip("arviz", reason="arviz is an extra: sbi-core[arviz]")
    path = samples.to_netcdf(tmp_path / "draws.nc")
    for data in (samples.to_arviz(), arviz.from_netcdf(path)):
        assert_allclose(np.asarray(data["posterior"]["age"])[0], samples["age"], rtol=1e-6)
        summary = arviz.summary(data)
        assert "age[M31]" in summary.index


def test_draws_come_back_from_arviz(samples, tmp_path):
    arviz = pytest.importorskip("arviz", reason="arviz is an extra: sbi-core[arviz]")
    path = samples.to_netcdf(tmp_path / "draws.nc")
    for data in (samples.to_arviz(), arviz.from_netcdf(path)):
        back = PosteriorSamples.from_arviz(data, SPACE)
        assert back.id.tolist() == ["a", "M31", "x,y"]
        assert_allclose(back.values, samples.values, rtol=1e-6)


def test_draws_come_back_from_a_dataset(samples):
    back = PosteriorSamples.from_arviz(samples.to_dataset(), SPACE)
    assert_allclose(back.values, samples.values, rtol=1e-6)
    assert back.id.tolist() == samples.id.tolist()
    one = samples.to_dataset().isel(object=0, drop=True)
    assert_allclose(PosteriorSamples.from_arviz(one, SPACE).of(), samples.of("a"), rtol=1e-6)


def test_chains_are_joined(samples):
    data = samples.to_dataset()
    two = xr.concat([data, data.assign_coords(chain=[1])], "chain")
    back = PosteriorSamples.from_arviz(two, SPACE)
    assert back.values.shape == (100, 3, 2)
    assert_allclose(back.values[50:], samples.values, rtol=1e-6)


def test_other_variables_or_dims_are_named(samples):
    data = samples.to_dataset()
    with pytest.raises(ConfigError, match="no variable 'met' in the posterior; did you mean 'mat'"):
        PosteriorSamples.from_arviz(data.rename(met="mat"), SPACE)
    with pytest.raises(ConfigError, match="variable 'age' has dims"):
        PosteriorSamples.from_arviz(data.rename(draw="step"), SPACE)


def test_combined_results_show_themselves_in_a_notebook():
    made = combined_from_gaussian(
        "a<b", SPACE, 7, np.zeros(2), 0.1 * np.eye(2), draws=100, rng=1, flags=("broad",)
    )
    html = made._repr_html_()
    assert "<b>a&lt;b</b>, 7 objects" in html
    assert "flags: broad" in html
    assert "<td>age</td>" in html
    assert "<td>Gyr</td>" in html


def test_arviz_absent_is_said(samples, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ConfigError, match=r"sbi-core\[arviz\]"):
        samples.to_arviz()


def test_bad_input_is_named(samples, tmp_path):
    with pytest.raises(ConfigError, match="which object; there are 3: a, M31"):
        samples.of()
    with pytest.raises(ConfigError, match="no object 'M32'.*M31"):
        samples.of("M32")
    with pytest.raises(ConfigError, match="cannot write"):
        samples.to_netcdf(tmp_path / "nowhere" / "x.nc")


def test_the_corner_takes_what_users_hold(samples):
    figure = sbi_core.plot.corner(samples, object="M31")
    assert figure.axes[2].get_xlabel() == r"$t_\star$"
    one = PosteriorSamples(samples.values[:, :1], SPACE, samples.id[:1])
    assert len(sbi_core.plot.corner(one).axes) == 4
    with pytest.raises(ConfigError, match="which object"):
        sbi_core.plot.corner(samples)
    with pytest.raises(ConfigError, match="give labels"):
        sbi_core.plot.corner(samples.of("a"))
    for name in ("coverage", "convergence"):
        assert callable(getattr(sbi_core.plot, name))
