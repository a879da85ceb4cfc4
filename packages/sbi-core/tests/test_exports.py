"""What other programs read."""

import csv

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import sbi_core
from sbi_core.errors import ConfigError
from sbi_core.exports import safe_name, write_csv, write_getdist
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


def test_a_getdist_chain_has_names_ranges_and_equal_weights(samples, tmp_path):
    files = samples.to_getdist(tmp_path / "m31", "M31")
    assert [f.name for f in files] == ["m31.txt", "m31.paramnames", "m31.ranges"]
    chain = np.loadtxt(files[0])
    assert_allclose(chain[:, 2:], samples.values[:, 1], rtol=1e-8)
    assert (chain[:, 0] == 1).all()
    assert files[1].read_text() == "age\tt_\\star\nmet\t[Z/H]\n"
    assert files[2].read_text() == "age\t0\t14\nmet\tN\tN\n"


def test_getdist_reads_it(samples, tmp_path):
    getdist = pytest.importorskip("getdist", reason="getdist is not installed")
    samples.to_getdist(tmp_path / "m31", "M31")
    chain = getdist.loadMCSamples(str(tmp_path / "m31"), settings={"ignore_rows": 0})
    assert_allclose(chain.getMeans()[:2], samples.values[:, 1].mean(0), rtol=1e-6)


def test_combined_posteriors_are_chains_too(tmp_path):
    combined = combined_from_gaussian(
        "gaussian", SPACE, 3, np.zeros(2), 0.1 * np.eye(2), draws=40, rng=1
    )
    chain = np.loadtxt(combined.to_getdist(tmp_path / "all")[0])
    assert_allclose(chain[:, 2:], combined.samples, rtol=1e-8)


def test_csv_quotes_what_needs_it(samples, tmp_path):
    path = write_csv(tmp_path / "d.csv", samples.values, samples.names, samples.id.tolist())
    with path.open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 150
    assert rows[100]["id"] == "x,y"
    assert_allclose(float(rows[100]["age"]), samples["age"][0, 2], rtol=1e-8)
    assert len(np.loadtxt(write_csv(tmp_path / "o.csv", samples.of("a"), SPACE.names),
                          delimiter=",", skiprows=1)) == 50  # fmt: skip


def test_bad_input_is_named(samples, tmp_path):
    with pytest.raises(ConfigError, match=r"which object\? There are 3: a, M31"):
        samples.to_getdist(tmp_path / "x")
    with pytest.raises(ConfigError, match="no object 'M32'.*M31"):
        samples.of("M32")
    with pytest.raises(ConfigError, match="does not exist"):
        samples.to_getdist(tmp_path / "nowhere" / "x", "a")
    with pytest.raises(ConfigError, match="cannot write"):
        samples.to_netcdf(tmp_path / "nowhere" / "x.nc")
    with pytest.raises(ConfigError, match="draws must be"):
        write_getdist(tmp_path / "x", np.zeros(3), ["a"])
    assert safe_name("../a b") == "_a_b"


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
