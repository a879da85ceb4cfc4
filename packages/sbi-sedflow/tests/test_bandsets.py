"""Sets of bands: presets, curves of the user, errors, masks, reading, redshifts up to 1."""

import json

import numpy as np
import pytest
import speclite.filters
import torch
from astropy import units
from astropy.cosmology import Planck13
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_core import ConfigError, InputShape
from sbi_sedflow.bandsets import PRESETS, load_bands, longest
from sbi_sedflow.columns import Choices, photometry_of_table
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.constants import BANDS
from sbi_sedflow.cosmology import age_gyr
from sbi_sedflow.embedding import SedConfig, SedEmbedding
from sbi_sedflow.filters import projection
from sbi_sedflow.forward import ForwardModel
from sbi_sedflow.history import EDGES
from sbi_sedflow.masks import draw_masks
from sbi_sedflow.noise import NoiseModel, fitted, floor_error
from sbi_sedflow.parameters import parameter_space
from sbi_sedflow.photometry import observations_of
from sbi_sedflow.simulator import SedflowSimulator
from sbi_sedflow.ssp import load_library
from sbi_sedflow.ssp.rebin import pixel_edges

AGREED = Choices(extinction="corrected")


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def toy_of(bands, **options):
    return SedflowSimulator(
        SedflowConfig(ssp="toy", pixels=256, allow_toy=True, bands=str(bands), **options)
    )


def write_set(folder, text, curve="decamDR1-g", name="my_g.dat"):
    known = speclite.filters.load_filter(curve)
    columns = np.stack([known.wavelength, known.response], 1)
    np.savetxt(folder / name, columns, header="wavelength response")
    (folder / "set.toml").write_text(text, encoding="utf-8")
    return folder / "set.toml"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_what_reading_and_simulation_need(name):
    bands = load_bands(name)
    assert len(set(bands.names)) == len(bands) > 2
    assert (np.diff(bands.pivots) > 0).all()
    assert bands.names[bands.reference] == "r"
    assert all(b.extinction is not None and b.error is not None for b in bands.bands)
    flux = torch.full((500, len(bands)), 50.0, dtype=torch.float64)
    sigma = NoiseModel(bands).sigma(flux, generator())
    assert sigma.shape == flux.shape
    assert torch.isfinite(sigma).all()
    json.dumps(bands.identity)


def test_the_default_is_the_set_of_the_package_under_its_old_identity():
    assert load_bands().names == BANDS
    assert load_bands().identity == "speclite"
    assert toy_of("galex-sdss").model.identity["filters"] == "speclite"


def test_a_curve_of_the_user_gives_the_photometry_of_the_same_curve_of_speclite(tmp_path):
    path = write_set(
        tmp_path,
        '[g]\nfilter = "my_g.dat"\nerror = [0.01, -2.3, 0.7]\n[r]\nfilter = "decamDR1-r"\n',
    )
    mine, theirs = load_bands(str(path)), load_bands("decamDR1-g,decamDR1-r")
    library = load_library("toy", pixels=256)
    theta = parameter_space().sample(20, np.random.default_rng(1))
    fluxes = [ForwardModel(library, b).photometry(theta, 0.1) for b in (mine, theirs)]
    assert_allclose(*fluxes, rtol=1e-12)
    assert mine.names == theirs.names == ("g", "r")
    assert mine.softening == theirs.softening
    identity = mine.identity
    (tmp_path / "other").mkdir()
    other = write_set(tmp_path / "other", path.read_text(), curve="sdss2010-g")
    assert load_bands(str(other)).identity != identity  # the hash of the curves


def test_fluxes_are_those_of_speclite_for_the_spectrum_of_the_model(bc03_library):
    bands = load_bands("lsst")
    model = ForwardModel(bc03_library, bands)
    theta, z = parameter_space().sample(5, np.random.default_rng(2)), 0.1
    wave, lum = model.spectrum(theta, z)
    flux = model.photometry(theta, z).numpy()
    curves = [speclite.filters.load_filter(b.curve.name) for b in bands.bands]
    unit = units.erg / (units.s * units.cm**2 * units.AA)
    reference = np.stack(
        [c.get_ab_maggies(lum * unit, wave * (1 + z) * units.AA) for c in curves], 1
    )
    assert_allclose(flux / flux[:, 2:3], reference / reference[:, 2:3], rtol=5e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[g]\nfilter = "nothing"\n[r]\nfilter = "decamDR1-r"\n', "neither a curve of speclite"),
        ('[g]\nfilter = "my_g.dat"\n', "at least two"),
        ("[g]\ncurve = 1\n", "filter = CURVE"),
        ('[g]\nfilter = "my_g.dat"\nerror = [1.0]\n', "error = .c, a, b."),
        ("g = ", "cannot be read as TOML"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_bands(str(write_set(tmp_path, text)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("4000 0.1\n4000 0.2\n4100 0\n", "not a response curve"),
        ("4000 a\n", "two columns"),
        ("0.4 0.1\n0.5 0.2\n0.6 0.1\n", "must be in Angstrom"),
        ("4000 -1\n4100 0.2\n4200 0.1\n", "not negative"),
    ],
)
def test_a_curve_that_cannot_be_used_is_refused(tmp_path, rows, message):
    path = write_set(tmp_path, '[g]\nfilter = "bad.dat"\n[r]\nfilter = "decamDR1-r"\n')
    (tmp_path / "bad.dat").write_text(rows)
    with pytest.raises(ConfigError, match=message):
        load_bands(str(path))


@pytest.mark.parametrize("which", ["nothing", "decamDR1-g", "sdss2010-g,decamDR1-g"])
def test_an_unknown_or_ambiguous_list_is_refused(which):
    with pytest.raises(ConfigError, match=r"simulator.bands = "):
        load_bands(which)


def test_a_filter_beyond_the_spectra_is_refused_with_the_remedy():
    edges = pixel_edges(256)
    with pytest.raises(ConfigError, match="galex-fuv.*lower simulator.z_max"):
        projection(load_bands().curves, edges, 1.0)
    with pytest.raises(ConfigError, match="wise2010-W1"):
        projection(load_bands("legacy").curves, edges)


def test_spectra_reach_as_far_as_the_filters_with_pixels_of_the_same_width():
    plain, far = load_library("toy", pixels=256), load_library("toy", pixels=256, top=39000.0)
    assert far.edges[-1] == pytest.approx(39000.0)
    assert np.diff(np.log(far.edges))[0] == pytest.approx(np.diff(np.log(plain.edges))[0], rel=0.01)
    assert longest(load_bands("sdss")) < plain.edges[-1]
    assert "top" in far.identity
    assert "top" not in plain.identity


def test_errors_are_fitted_to_a_catalogue(tmp_path):
    path = write_set(
        tmp_path, '[g]\nfilter = "my_g.dat"\n[r]\nfilter = "decamDR1-r"\nerror = [0.01, 0, 1]\n'
    )
    bands, rng = load_bands(str(path)), np.random.default_rng(3)
    with pytest.raises(ConfigError, match="band g .* has no error .*noise=fitted"):
        NoiseModel(bands).sigma(torch.ones(5, 2), generator())
    flux = 10 ** rng.uniform(-1, 4, (3000, 2))
    planted = np.sqrt((0.02 / 1.0857 * flux) ** 2 + 10 ** (-2 + 0.8 * np.log10(flux.clip(1))))
    sigma = planted * 10 ** (0.1 * rng.standard_normal(flux.shape))
    sigma[:50] *= 20  # outliers
    for band in fitted(bands, flux, sigma).bands:
        assert_allclose(band.error, (0.02, -2.0, 0.8), atol=0.06)
        assert band.error[0] == pytest.approx(0.02, rel=0.15)
        assert band.scatter == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ConfigError, match="at least 100 errors in every band.* 50 in g"):
        fitted(bands, flux[:50], sigma[:50])


def test_a_catalogue_of_the_user_sets_the_errors_of_the_simulator(tmp_path):
    rng = np.random.default_rng(4)
    table = Table({"z": np.full(300, 0.05)})
    for b in "ugriz":
        table[f"flux_{b}"] = 10 ** rng.uniform(0, 3, 300)
        table[f"flux_err_{b}"] = np.full(300, 0.37)
        for c in (f"flux_{b}", f"flux_err_{b}"):
            table[c].unit = "nmgy"
    table.write(tmp_path / "t.ecsv")
    simulator = toy_of("sdss", noise="fitted", noise_catalogue=str(tmp_path / "t.ecsv"))
    sigma = simulator.noise.sigma(torch.full((2000, 5), 10.0), generator())
    assert_allclose(np.median(sigma, axis=0), 0.37, rtol=0.1)


@pytest.mark.parametrize("name", ["sdss", "legacy", "galex-sdss-2mass"])
def test_masks_of_other_sets_cover_every_pattern_and_miss_whole_surveys_often(name):
    bands = load_bands(name)
    masks = draw_masks(200_000, generator(), bands).numpy()
    patterns, counts = np.unique(masks, axis=0, return_counts=True)
    share = {tuple(p): c / len(masks) for p, c in zip(patterns.tolist(), counts, strict=True)}
    assert len(share) == 2 ** len(bands)
    assert share[(True,) * len(bands)] == pytest.approx(0.45, abs=0.03)
    assert share[(False,) * len(bands)] == pytest.approx(0.01, abs=0.005)
    parts = bands.groups if len(bands.groups) > 1 else [(k,) for k in range(len(bands))]
    for part in parts:
        without = tuple(k not in part for k in range(len(bands)))
        assert share[without] > 0.18 / len(parts)


def test_half_of_the_masks_are_those_of_the_catalogue_of_the_user(tmp_path):
    table = Table({"z": np.full(400, 0.05)})
    for b in "ugriz":
        table[f"flux_{b}"], table[f"flux_err_{b}"] = 10.0, np.full(400, 0.37)
        for c in (f"flux_{b}", f"flux_err_{b}"):
            table[c].unit = "nmgy"
    table["flux_i"][:200] = np.nan
    table.write(tmp_path / "t.ecsv")
    plain = toy_of("sdss").masks(20_000, generator())
    simulator = toy_of("sdss", noise="fitted", noise_catalogue=str(tmp_path / "t.ecsv"))
    theirs = simulator.masks(20_000, generator())
    without_i = torch.tensor([True, True, True, False, True])
    before, after = (float((m == without_i).all(1).double().mean()) for m in (plain, theirs))
    assert after == pytest.approx(0.25 + before / 2, abs=0.015)
    seen = simulator.observe(simulator.draw(2000, np.random.default_rng(2)), 3).mask
    assert float((seen == without_i).all(1).double().mean()) == pytest.approx(after, abs=0.05)


def legacy_table(n=3):
    table = Table({"TARGETID": np.arange(n), "Z": np.full(n, 0.05)})
    for b, f in zip(("G", "R", "Z", "W1", "W2"), (20.0, 40.0, 60.0, 50.0, 30.0), strict=True):
        table[f"FLUX_{b}"], table[f"FLUX_IVAR_{b}"] = f, 4.0
        table[f"MW_TRANSMISSION_{b}"] = 0.5
    return table


def test_tables_are_read_in_the_bands_of_the_set():
    bands = load_bands("legacy")
    photometry = photometry_of_table(legacy_table(), "t", bandset=bands)
    assert_allclose(photometry.flux[0], [40, 80, 120, 100, 60])
    assert_allclose(photometry.sigma, 1.0)
    assert not any("not used" in n or "differ" in n for n in photometry.notes)
    found = observations_of(photometry, (0.003, 0.2), bands)
    assert [o.name for o in found.observables][-1] == "lupt_W2"
    assert found.labels["nmgy_W1"].tolist() == [100.0] * 3
    default = photometry_of_table(legacy_table(), "t")
    assert any("not used, other bands: FLUX_W1, FLUX_W2" in n for n in default.notes)
    assert any("filters of the Legacy Surveys differ" in n for n in default.notes)


def test_magnitudes_of_wise_and_2mass_are_vega_unless_said_otherwise():
    bands = load_bands("decamDR1-r,wise2010-W1,twomass-Ks")
    table = Table({"z": [0.05]})
    for name in ("W1mag", "Kmag", "mag_r"):
        table[name] = [15.0]
    for name in ("e_W1mag", "e_Kmag", "mag_err_r"):
        table[name] = [0.02]
    found = photometry_of_table(table, "t", AGREED, bands)
    ab = 10 ** (0.4 * (22.5 - 15.0 - np.array([0.0, 2.699, 1.85])))
    assert_allclose(found.flux[0], ab)
    assert "Vega magnitudes of W1 converted to AB by adding +2.699" in found.notes
    table["W1mag"].unit = units.ABmag
    table.rename_columns(["Kmag", "e_Kmag"], ["mag_Ks", "mag_err_Ks"])
    found = photometry_of_table(table, "t", AGREED, bands)
    assert_allclose(found.flux[0], 1000.0)


def test_a_simulator_of_other_bands_draws_observes_and_makes_examples():
    simulator = toy_of("galex-sdss-2mass")
    batch = simulator.draw(50, np.random.default_rng(1))
    assert batch.x.shape == (50, 10)
    seen = simulator.observe(batch, 3)
    again = simulator.observe_like(batch, seen, 4)
    assert again.x.shape == (50, 10)
    assert np.isfinite(simulator.log_likelihood(batch, seen)).all()
    example = simulator.example_observations(5, 40)
    assert example.observables == simulator.observables
    assert simulator.identity["filters"]["bands"][-1] == "Ks"
    shape = InputShape(x=(10,), has_err=True, has_mask=True, context=2)
    network = SedEmbedding(SedConfig(hidden=(8,))).build(shape)
    assert network(torch.randn(4, 10), torch.ones(4, 10), None, torch.zeros(4, 2)).shape[0] == 4


def test_the_floor_of_a_band_that_the_model_lacks_dust_for_is_wider():
    assert_allclose(toy_of("legacy").floor, [0.03, 0.03, 0.03, 0.10, 0.15])
    simulator = toy_of("decamDR1-g,decamDR1-r,wise2010-W1")
    flux = torch.full((1, 3), 1085.7362)
    assert_allclose(floor_error(flux, simulator.floor), [[30.0, 30.0, 100.0]], rtol=1e-5)
    assert toy_of("sdss").floor == 0.03
    json.dumps(simulator.identity["floor"])


# -- redshifts up to 1 ---------------------------------------------------------------------


def test_no_star_is_older_than_the_universe_at_any_redshift():
    model = ForwardModel(load_library("toy", pixels=256), load_bands("sdss"), z_max=1.0)
    theta = parameter_space().sample(60, np.random.default_rng(5))
    z = np.linspace(0.05, 1.0, 60)
    edges, rate, _ = model.sfh(theta, z)
    assert (edges <= age_gyr(z)[:, None] + 1e-9).all()
    derived = model.derived(theta, z)
    assert (derived["tage_mw"] < age_gyr(z)).all()
    assert all(np.isfinite(v).all() for v in derived.values())
    width = np.diff(edges, axis=1)
    formed = np.where(width > 0, np.nan_to_num(rate) * width, 0.0).sum(1) * 1e9
    visible = theta[:, 6] < age_gyr(z)
    assert_allclose(formed[visible] / 10 ** theta[visible, 0], 1.0, rtol=1e-9)


def test_fluxes_are_continuous_where_the_age_of_the_universe_crosses_a_bin():
    model = ForwardModel(load_library("toy", pixels=256), load_bands("sdss"), z_max=1.0)
    theta = parameter_space().sample(1, np.random.default_rng(6))
    theta[0, 5] = 0.0  # no burst, which may disappear
    for age in EDGES[-3:]:
        grid = np.linspace(0.0, 1.25, 4001)
        z = float(np.interp(-age, -age_gyr(grid), grid)) + np.array([-2e-4, -1e-4, 1e-4, 2e-4])
        flux = np.log(model.photometry(np.repeat(theta, 4, 0), z).numpy())
        step = flux[2] - flux[1]
        around = (flux[1] - flux[0]) + (flux[3] - flux[2])  # over the same distance
        assert_allclose(step, around, atol=2e-3)


def test_the_high_redshift_tables_continue_the_low_ones():
    z = np.array([0.2499999, 0.2500001])
    assert abs(np.diff(age_gyr(z))[0]) < 1e-5
    assert age_gyr(1.0) == pytest.approx(Planck13.age(1.0).value, abs=1e-6)


def test_redshifts_beyond_the_model_are_refused():
    model = ForwardModel(load_library("toy", pixels=256), load_bands("sdss"))
    theta = parameter_space().sample(1, np.random.default_rng(7))
    with pytest.raises(ConfigError, match=r"lies outside \(0, 0.2\].*z_max"):
        model.photometry(theta, 0.5)


# -- files of curves ------------------------------------------------------------------------


def n545():
    wave = np.linspace(5150, 5750, 121)
    return wave, 1 / (1 + ((wave - 5450) / 150) ** 12)


def text_of(wave, response, sep=" "):
    return "".join(f"{w:.6g}{sep}{r:.6g}\n" for w, r in zip(wave, response, strict=True))


def pivot_of(tmp_path, content, unit=""):
    path = write_set(tmp_path, f'[x]\nfilter = "x.dat"\n{unit}\n[r]\nfilter = "decamDR1-r"\n')
    (tmp_path / "x.dat").write_bytes(content)
    return load_bands(str(path)).bands[0].pivot


@pytest.mark.parametrize(
    ("header", "sep", "encoding"),
    [
        ("wavelength response\n", " ", "utf-8"),
        ("lambda,T\n", ",", "utf-8"),
        ("", "; ", "utf-8"),
        ("! of the observatory\n", "\t", "utf-8"),
        ("# wavelength [\u00c5], response [%]\n", " ", "latin-1"),
    ],
)
def test_a_curve_is_read_in_any_order_scale_and_form(tmp_path, header, sep, encoding):
    wave, response = n545()
    order = np.random.default_rng(0).permutation(len(wave))
    text = header + text_of(wave[order], 100 * response[order], sep)
    assert_allclose(pivot_of(tmp_path, text.encode(encoding)), 5449.2, atol=0.1)


@pytest.mark.parametrize("unit", ["nm", "micron"])
def test_wavelengths_in_other_units_are_asked_about_and_never_taken_as_angstrom(tmp_path, unit):
    wave, response = n545()
    text = text_of(wave / {"nm": 10, "micron": 1e4}[unit], response)
    with pytest.raises(ConfigError, match="must be in Angstrom, or the table of the band needs"):
        pivot_of(tmp_path, text.encode())
    for content, given in ((text, f'unit = "{unit}"'), (f"# wavelength [{unit}]\n{text}", "")):
        assert_allclose(pivot_of(tmp_path, content.encode(), given), 5449.2, atol=0.1)


def test_a_header_that_contradicts_the_numbers_is_asked_about(tmp_path):
    wave, response = n545()
    content = "# wavelength [nm]\n" + text_of(wave, response)
    with pytest.raises(ConfigError, match="its header names nm"):
        pivot_of(tmp_path, content.encode())
    assert_allclose(pivot_of(tmp_path, content.encode(), 'unit = "Angstrom"'), 5449.2, atol=0.1)
    with pytest.raises(ConfigError, match="is the unit .* of this band right"):
        pivot_of(tmp_path, text_of(wave / 10, response).encode(), 'unit = "Angstrom"')


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("softening = 0", "softening = 0, expected a number, positive"),
        ("scatter = -1", "scatter = -1, expected a number, not negative"),
        ("error = [0.1, nan, 1]", "error = .c, a, b."),
        ("floor = 0.1", "unknown key 'floor'; the keys are filter, unit, error, scatter"),
        ('unit = "AA"', "expected Angstrom, nm, micron"),
        ("[R]\nfilter = 'decamDR1-r'", "two bands 'R' and 'r'"),
    ],
)
def test_values_of_a_band_that_cannot_be_right_are_refused(tmp_path, facts, message):
    text = f'[g]\nfilter = "decamDR1-g"\n{facts}\n[r]\nfilter = "decamDR1-r"\n'
    with pytest.raises(ConfigError, match=message):
        load_bands(str(write_set(tmp_path, text)))


def test_a_noise_catalogue_with_other_names_is_refused_with_the_remedy(tmp_path):
    table = Table({"z": [0.05], "myr": [10.0]})
    table.write(tmp_path / "t.ecsv")
    simulator = toy_of("sdss", noise="fitted", noise_catalogue=str(tmp_path / "t.ecsv"))
    with pytest.raises(ConfigError, match="noise_catalogue: .* no photometry.* are for --obs"):
        simulator.noise  # noqa: B018
