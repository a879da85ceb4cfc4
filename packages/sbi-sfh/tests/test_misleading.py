"""Spectra that would be misread, and the options that tell what files lack."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose
from survey_spectra import FWHM, GRID, galaxy, write

from sbi_core import ObservationError
from sbi_core.data.reading import Reading, using
from sbi_core.pipeline.reading import read_objects
from sbi_sfh.artefacts import emission, scatter_of, spikes_in
from sbi_sfh.config import SfhConfig
from sbi_sfh.continuum import Continuum, calzetti
from sbi_sfh.formats.spectrum import UnusableSpectrumError
from sbi_sfh.formats.units import kind_of
from sbi_sfh.masks import emission_mask
from sbi_sfh.readers import read_spectra
from sbi_sfh.simulator import SfhSimulator
from sbi_sfh.velocity import Velocities

CONFIG = {"mode": "observed", "redshift": 0.03}


@pytest.fixture
def columns(simulator, rng):
    """Columns of a noisy spectrum at S/N 50, without facts."""
    made, _, _ = galaxy(simulator)
    made["FLUX"] = made["FLUX"] + rng.standard_normal(len(made["FLUX"])) / np.sqrt(made["IVAR"])
    return made


@pytest.fixture(scope="module")
def continuum(simulator):
    return Continuum(simulator.library)


FACTS = {"VACUUM": True, "REDSHIFT": 0.03}


def read(path, continuum=None, velocities=None, **options):
    config = SfhConfig(**CONFIG, **options)
    return read_spectra(path, GRID, config, fwhm=FWHM, continuum=continuum, velocities=velocities)


def flags(found, k=0):
    return [w for w in str(found.labels["reading"][k]).split(",") if w]


def noted(found, text):
    return any(text in note for note in found.notes)


# -- cosmic rays, emission, dust, noise ---------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3])
def test_cosmic_rays_are_masked_and_counted(columns, tmp_path, width):
    clean = read(write(tmp_path / "a.fits", columns, FACTS))
    columns["FLUX"][1500 : 1500 + width] *= 30
    found = read(write(tmp_path / "b.fits", columns, FACTS))
    assert noted(found, f"{width + 2} pixels that stand out")
    both = (found.batch.mask & clean.batch.mask)[0].numpy()
    # beside the masked pixels, new ones are the mean of fewer old ones
    assert_allclose(found.batch.x[0].numpy()[both], clean.batch.x[0].numpy()[both], rtol=0.03)


def test_lines_of_stars_are_no_cosmic_rays(simulator):
    spectra = simulator.telescope.noise_free(simulator.draw(40, 3).x).double().numpy()
    good = np.ones(len(GRID), bool)
    for flux in spectra:
        assert not spikes_in(flux, (200 / flux) ** 2, good).any()


def test_a_dead_pixel_is_masked():
    flux = np.full(200, 10.0)
    flux[77] = 0.5
    masked = spikes_in(flux, np.full(200, 25.0), np.ones(200, bool))
    assert np.flatnonzero(masked).tolist() == [76, 77, 78]


def lines(width, size):
    """A flat spectrum with [OIII] and Halpha of a velocity dispersion [km/s]."""
    sigma = width / 299792.458
    bumps = (np.exp(-0.5 * ((GRID / line - 1) / sigma) ** 2) for line in (5006.84, 6562.8))
    return 1.0 + size * sum(bumps)


@pytest.mark.parametrize(
    ("width", "size", "masked", "felt"),
    [
        (80, 3.0, True, False),
        (800, 1.0, True, True),
        (80, 3.0, False, True),
        (80, 0.0, False, False),
    ],
)
def test_emission_is_reported_and_flagged_where_it_is_felt(width, size, masked, felt):
    flux = lines(width, size)
    notes, result = emission(GRID, flux, np.full(len(GRID), 1e-4), np.ones(len(GRID), bool),
                             masked=masked)  # fmt: skip
    assert result == felt
    assert bool(notes) == (size > 0)


def test_strong_emission_is_said_in_the_notes(columns, tmp_path):
    columns["FLUX"] *= np.interp(columns["WAVE"] / 1.0303, GRID, lines(100, 2.0))
    found = read(write(tmp_path / "a.fits", columns, FACTS))
    assert noted(found, "emission lines masked: [OIII] 5007")
    assert "emission_lines" not in flags(found)


@pytest.mark.parametrize(("a_v", "flagged"), [(0.0, False), (1.5, True)])
def test_dusty_galaxies_are_flagged(observed_simulator, continuum, a_v, flagged):
    """Of 300 simulated galaxies one is flagged without dust, and 294 are with A_V = 1.5."""
    import torch

    telescope = observed_simulator.telescope
    batch = observed_simulator.draw(40, 3).succeeded
    rows = telescope.draw(len(batch), torch.Generator().manual_seed(1))
    rows.snr.clamp_(min=20.0)
    seen = telescope.observe_as(batch, rows, 5)
    dust = 10 ** (-0.4 * a_v * calzetti(GRID) / 4.05)
    found = [
        continuum.reddening(np.nan_to_num(x * dust), m)
        for x, m in zip(seen.x.double().numpy(), seen.mask.numpy(), strict=True)
    ]
    assert sum(f is not None for f in found) >= 38 if flagged else sum(map(bool, found)) <= 2
    if flagged:
        assert np.median([f for f in found if f is not None]) == pytest.approx(a_v, abs=0.3)


def test_dust_of_the_model_is_not_flagged(columns, tmp_path, continuum):
    columns["FLUX"] *= 10 ** (-0.4 * 2.0 * calzetti(columns["WAVE"] / 1.03) / 4.05)
    path = write(tmp_path / "a.fits", columns, FACTS)
    assert "continuum_unlike_model" not in flags(read(path, continuum, dust=0.8))
    assert "continuum_unlike_model" in flags(read(path, continuum, dust=0.2))


@pytest.mark.parametrize(("ends", "flagged"), [((5700.0, 7500.0), True), ((6200.0, 6300.0), False)])
def test_a_missing_arm_is_masked(columns, tmp_path, ends, flagged):
    wave = columns["WAVE"]
    there = (wave < ends[0]) | (wave > ends[1])
    found = read(write(tmp_path / "a.fits", {n: v[there] for n, v in columns.items()}, FACTS))
    used, rest = found.batch.observed[0].numpy(), GRID * 1.03
    assert not used[(rest > ends[0] + 3) & (rest < ends[1] - 3)].any()
    whole = read(write(tmp_path / "b.fits", columns, FACTS)).batch.observed[0].numpy()
    away = (rest < ends[0] - 5) | (rest > ends[1] + 5)
    np.testing.assert_array_equal(used[away], whole[away])
    assert noted(found, "1 gap of ")
    assert ("many_masked_pixels" in flags(found)) == flagged


def test_the_flag_of_dust_names_its_size(columns, tmp_path, continuum):
    columns["FLUX"] *= 10 ** (-0.4 * 2.0 * calzetti(columns["WAVE"] / 1.03) / 4.05)
    found = read(write(tmp_path / "a.fits", columns, FACTS), continuum)
    assert "continuum_unlike_model" in flags(found)
    assert noted(found, "reddened by A_V of about 2")


@pytest.mark.parametrize(
    ("factor", "flagged"), [(1.0, False), (1 / 3, True), (3.0, True), (1.5, False)]
)
def test_errors_off_by_three_are_flagged(columns, tmp_path, factor, flagged):
    columns["IVAR"] /= factor**2
    found = read(write(tmp_path / "a.fits", columns, FACTS))
    assert ("errors_unlike_scatter" in flags(found)) == flagged


def test_noise_that_resampling_correlates_is_told_from_wrong_errors(columns, tmp_path):
    wave = columns["WAVE"]
    grid = np.arange(wave[1], wave[-1], 1.0)
    resampled = {k: np.interp(grid, wave, columns[k]) for k in ("FLUX", "IVAR")}
    found = read(write(tmp_path / "a.fits", {"WAVE": grid, **resampled}, FACTS))
    assert flags(found) == []
    assert noted(found, "correlated")
    resampled["IVAR"] /= 9
    found = read(write(tmp_path / "b.fits", {"WAVE": grid, **resampled}, FACTS))
    assert flags(found) == ["errors_unlike_scatter"]


# -- units of the flux --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        ("1E-17 erg/cm^2/s/Ang/spaxel", "wavelength"),
        ("10**(-20)*erg/s/cm**2/Angstrom", "wavelength"), ("erg/s/cm2/A", "wavelength"),
        ("erg cm-2 s-1 angstrom-1", "wavelength"),
        ("W / (m2 um)", "wavelength"), ("mJy", "frequency"), ("erg/s/cm2/Hz", "frequency"),
        ("nanomaggies", "frequency"), ("photon / (s cm2 Angstrom)", "photons"),
        ("erg / (A s cm2)", "wavelength"), ("log(erg/s/cm2/A)", "logarithms"),
        ("ABmag", "magnitudes"), ("adu", "other"), ("counts/s", "other"), ("erg/s/cm2", "other"),
        ("", ""), ("arbitrary", ""),
    ],
)  # fmt: skip
def test_units_of_flux_are_understood(unit, kind):
    assert kind_of(unit) == kind


@pytest.mark.parametrize("unit", ["Jy", "photon / (s cm2 Angstrom)"])
def test_an_image_in_another_unit_becomes_flux_per_wavelength(columns, tmp_path, unit):
    grid = np.arange(3640.0, 7660.0, 0.9)
    flux, ivar = (np.interp(grid, columns["WAVE"], columns[k]) for k in ("FLUX", "IVAR"))
    results = []
    for name, power in (("", 0), (unit, 2 if unit == "Jy" else 1)):
        factor = grid**power
        hdu = fits.PrimaryHDU(flux * factor)
        hdu.header.update({"CRVAL1": grid[0], "CDELT1": 0.9, "CUNIT1": "Angstrom", "BUNIT": name,
                           **FACTS})  # fmt: skip
        path = tmp_path / f"{power}.fits"
        fits.HDUList([hdu, fits.ImageHDU(ivar / factor**2, name="IVAR")]).writeto(path)
        results.append(read(path).batch.x[0].numpy())
    assert_allclose(results[1], results[0], rtol=1e-4)


def test_counts_are_flagged_and_magnitudes_refused(columns, tmp_path):
    table = Table({k: columns[k] for k in ("WAVE", "FLUX", "IVAR")}, meta=FACTS)
    table["WAVE"].unit, table["FLUX"].unit = "Angstrom", "adu"
    table.write(tmp_path / "a.ecsv")
    assert flags(read(tmp_path / "a.ecsv")) == ["flux_not_calibrated"]
    table["FLUX"].unit = "mag(AB)"
    table.write(tmp_path / "b.ecsv")
    with pytest.raises(UnusableSpectrumError, match="in magnitudes"):
        read(tmp_path / "b.ecsv")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("1e-17 erg / (s cm2 Angstrom)", 1.0), ("erg / (s cm2 Angstrom)", 1e-17), ("%", None)],
)
def test_errors_in_another_unit_are_converted(columns, tmp_path, unit, factor):
    table = Table({k: columns[k] for k in ("WAVE", "FLUX")}, meta=FACTS)
    err = columns["IVAR"] ** -0.5
    table["ERR"] = 100 * err / np.abs(columns["FLUX"]) if factor is None else err * factor
    table["WAVE"].unit, table["ERR"].unit = "Angstrom", unit
    table["FLUX"].unit = "1e-17 erg / (s cm2 Angstrom)"
    table.write(tmp_path / "a.ecsv")
    found = read(tmp_path / "a.ecsv")
    assert flags(found) == []
    # pixels of 0.9 Angstrom hold 0.6 to 0.9 of a pixel of the file
    assert 10 ** float(found.batch.context[0, 0]) == pytest.approx(50, rel=0.25)
    table["ERR"].unit = "adu"
    table.write(tmp_path / "b.ecsv")
    with pytest.raises(UnusableSpectrumError, match="the errors are in 'adu', the flux in"):
        read(tmp_path / "b.ecsv")


# -- options for what files lack ----------------------------------------------------------------


def test_units_are_given_by_the_option(columns, tmp_path):
    plain = read(write(tmp_path / "a.fits", columns, FACTS)).batch.x[0].numpy()
    columns["FLUX"] = columns["FLUX"] * columns["WAVE"] ** 2
    columns["IVAR"] = columns["IVAR"] / columns["WAVE"] ** 4
    columns["WAVE"] = columns["WAVE"] / 10
    path = write(tmp_path / "b.fits", columns, FACTS, unit=None)
    for units in ({"flux": "Jy", "wave": "nm"}, {"FLUX": "Jy", "": "nm"}):
        with using(Reading(units=units)):
            assert_allclose(read(path).batch.x[0].numpy(), plain, rtol=1e-4)


@pytest.mark.parametrize("option", [50.0, "scatter"])
def test_a_signal_to_noise_serves_files_without_errors(columns, tmp_path, option):
    del columns["IVAR"]
    path = write(tmp_path / "a.fits", columns, FACTS)
    with pytest.raises(UnusableSpectrumError, match="needs a column IVAR or ERR.*assumed_snr=50"):
        read(path)
    found = read(path, assumed_snr=option)
    # pixels of 0.9 Angstrom hold 0.6 to 0.9 of a pixel of the file
    assert 10 ** float(found.batch.context[0, 0]) == pytest.approx(50, rel=0.3)
    assert flags(found) == []


def test_the_scatter_of_white_noise_is_measured(rng):
    sigma = np.linspace(0.5, 2.0, 4000)
    assert_allclose(scatter_of(100 + sigma * rng.standard_normal(4000)), sigma, rtol=0.35)


def test_masks_that_are_true_for_good_pixels_need_the_option(columns, tmp_path):
    columns["MASK"] = np.ones(len(columns["WAVE"]), int)
    columns["MASK"][1000:1020] = 0
    path = write(tmp_path / "a.fits", columns, FACTS)
    with pytest.raises(UnusableSpectrumError, match="the other way round.*mask_good=true"):
        read(path)
    mask = read(path, mask_good=True).batch.mask[0].numpy()
    assert 0.85 < mask.mean() < 0.95


def test_redshifts_come_from_the_file_then_the_catalogue_then_the_option(columns, tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.fits", columns, {"VACUUM": True})
    write(tmp_path / "three.fits", columns, FACTS)
    Table({"id": ["one", "three"], "z": [0.028, 0.05], "VDISP": [120.0, 130.0]}).write(
        tmp_path / "z.csv"
    )
    (tmp_path / "z.csv").rename(tmp_path.parent / f"{tmp_path.name}.csv")
    found = read(tmp_path, catalogue=str(tmp_path.parent / f"{tmp_path.name}.csv"),
                 default_redshift=0.029)  # fmt: skip
    z = dict(zip(found.id.tolist(), found.labels["redshift"].tolist(), strict=True))
    assert z == {"one": 0.028, "two": 0.029, "three": 0.03}
    sigma = dict(zip(found.id.tolist(), found.batch.context[:, 1].tolist(), strict=True))
    assert sigma["one"] == pytest.approx(1.2)
    assert sigma["three"] == pytest.approx(1.3)


def as_ecsv(path, columns, meta):
    table = Table({k: columns[k] for k in ("WAVE", "FLUX", "IVAR")}, meta=meta)
    table["WAVE"].unit = "Angstrom"
    table.write(path.with_suffix(".ecsv"), overwrite=True)
    return path.with_suffix(".ecsv")


def as_text(path, columns, meta):
    facts = "".join(f"# {k} = {v}\n" for k, v in meta.items())
    rows = np.stack([columns["WAVE"], columns["FLUX"], columns["IVAR"] ** -0.5], 1)
    lines = "\n".join(" ".join(f"{v:.8g}" for v in row) for row in rows)
    path.with_suffix(".txt").write_text(f"{facts}# wave [Angstrom] flux err\n{lines}\n")
    return path.with_suffix(".txt")


def as_npz(path, columns, meta):
    np.savez(path.with_suffix(".npz"), **columns, **meta, waveunit="Angstrom")
    return path.with_suffix(".npz")


def as_image(path, columns, meta):
    hdus = [fits.ImageHDU(columns[k], name=k) for k in ("WAVE", "FLUX", "IVAR")]
    hdus[0].header["BUNIT"] = "Angstrom"
    hdus[0].header.update({k: v for k, v in meta.items() if v == v})  # a card holds no NaN
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path.with_suffix(".fits"))
    return path.with_suffix(".fits")


WRITERS = {"ecsv": as_ecsv, "text": as_text, "npz": as_npz, "image": as_image}


@pytest.fixture(params=WRITERS)
def saved(request, columns, tmp_path):
    """``saved(**facts)`` writes the spectrum with these facts in one of several formats."""

    def save(name="mine", **facts):
        return WRITERS[request.param](tmp_path / name, columns, {"VACUUM": True, **facts})

    return save


@pytest.mark.parametrize("facts", [{}, {"Z": -1.0}, {"REDSHIFT": -9999.0}, {"REDSHIFT": "none"}])
def test_no_redshift_or_a_failed_one_is_never_replaced_in_silence(saved, facts):
    path = saved(**facts)
    bare = SfhConfig(mode="observed")
    lack = "marks a failed fit" if facts and facts != {"REDSHIFT": "none"} else "no redshift"
    with pytest.raises(ObservationError, match=f"{path.name}.*{lack}.*default_redshift=0.03"):
        read_spectra(path, GRID, bare, fwhm=FWHM)
    found = read(path)  # the redshift of the training
    assert flags(found) == ["redshift_assumed"]
    assert noted(found, "0.03 is used (simulator.redshift)")
    given = read(path, default_redshift=0.031)
    assert float(given.labels["redshift"][0]) == 0.031
    assert flags(given) == (["redshift_assumed"] if "failed" in lack else [])
    assert noted(given, "0.031 is used (simulator.default_redshift)")


@pytest.mark.parametrize(
    ("facts", "z"),
    [
        ({"VRAD": 8993.8}, 0.03),
        ({"CZ": "8993.8 km/s"}, 0.03),
        ({"Z": -1.0, "VHELIO": 8993.8}, 0.03),
        ({"REDSHIFT": "0.03 +/- 0.0001"}, 0.03),
        ({"VHELIO": 17.2}, None),  # of the Earth
        ({"CZ": 0.03}, None),  # a redshift, but by its name a velocity
        ({"CZ": -999.0}, None),
    ],
)
def test_a_velocity_is_used_where_it_clearly_is_one(saved, facts, z):
    found = read(saved(**facts))
    assert flags(found) == ([] if z else ["redshift_assumed"])
    assert float(found.labels["redshift"][0]) == pytest.approx(0.03, rel=1e-4)


def test_a_velocity_under_the_name_of_a_redshift_is_refused(columns, tmp_path):
    path = write(tmp_path / "a.fits", columns, {"VACUUM": True, "REDSHIFT": 8993.8})
    with pytest.raises(UnusableSpectrumError, match="8993.8 is outside.*a velocity.*cz"):
        read(path)


@pytest.mark.parametrize(
    ("facts", "z"),
    [
        ({"REDSHIFT": 0.0}, None),
        ({"FRAME": "rest"}, None),
        ({"FRAME": "rest-frame", "Z": -1.0}, None),
        ({"SPECSYS": "SOURCE", "Z": 0.03}, 0.03),
        ({"REST": "T", "REDSHIFT": 0.03}, 0.03),
    ],
)
def test_spectra_at_rest_are_not_shifted_and_have_the_redshift_of_the_galaxy(
    saved, columns, facts, z
):
    observed = read(saved(REDSHIFT=0.03)).batch
    columns["WAVE"] = columns["WAVE"] / 1.03
    found = read(saved("rest", **facts))
    both = (observed.mask & found.batch.mask)[0].numpy()
    assert both.mean() > 0.9
    off = found.batch.x[0].numpy()[both] / observed.x[0].numpy()[both] - 1
    assert np.abs(off).std() < 0.01
    redshift, age = (float(found.labels[n][0]) for n in ("redshift", "age_universe"))
    assert (redshift == z) if z else np.isnan(redshift)
    assert np.isnan(age) == (z is None)
    assert flags(found) == []


def test_a_catalogue_needs_identifiers_and_redshifts(columns, tmp_path):
    path = write(tmp_path / "a.fits", columns, FACTS)
    Table({"id": ["a"], "ra": [0.1]}).write(tmp_path / "z.csv")
    with pytest.raises(ObservationError, match="needs columns id and redshift, has id, ra"):
        read(path, catalogue=str(tmp_path / "z.csv"))


def test_repeated_identifiers_of_a_catalogue_need_one_redshift(columns, tmp_path):
    path = write(tmp_path / "a.fits", columns, {"VACUUM": True})
    table = Table({"id": ["a", "b", "a"], "z": [0.03, 0.1, 0.2]})
    table.write(tmp_path / "z.csv")
    with pytest.raises(ObservationError, match="'a' has the redshifts 0.03 and, in row 2, 0.2"):
        read(path, catalogue=str(tmp_path / "z.csv"))
    table["z"][2] = 0.0302  # another observation
    table.write(tmp_path / "z.csv", overwrite=True)
    assert read(path, catalogue=str(tmp_path / "z.csv")).labels["redshift"].tolist() == [0.03]


def test_a_failed_redshift_of_a_catalogue_is_none(columns, tmp_path):
    path = write(tmp_path / "a.fits", columns, {"VACUUM": True})
    Table({"id": ["a"], "z": [-1.0]}).write(tmp_path / "z.csv")
    found = read(path, catalogue=str(tmp_path / "z.csv"), default_redshift=0.031)
    assert found.labels["redshift"].tolist() == [0.031]
    assert flags(found) == ["redshift_assumed"]
    assert noted(found, "-1, marks a failed fit")


def test_zero_with_a_warning_is_a_failed_redshift(columns, tmp_path):
    facts = {"VACUUM": True, "REDSHIFT": 0.0, "ZWARNING": 4}
    found = read(write(tmp_path / "a.fits", columns, facts))
    assert flags(found) == ["redshift_uncertain", "redshift_assumed"]
    assert found.labels["redshift"].tolist() == [0.03]


@pytest.mark.parametrize(
    "header", ["wave[Angstrom] {}[{}] err[{}]", "wave(Angstrom) {}({}) err({})"]
)
def test_units_in_the_names_of_text_columns_are_used(header, columns, tmp_path):
    per_nu = columns["WAVE"] ** 2 / 2.998e18  # erg/s/cm2/Hz for erg/s/cm2/A
    rows = np.stack([columns["WAVE"], columns["FLUX"] * per_nu * 1e23,
                     columns["IVAR"] ** -0.5 * per_nu * 1e26], 1)  # fmt: skip

    def found(flux, flux_unit, err_unit):
        text = ["# VACUUM = T", "# REDSHIFT = 0.03", header.format(flux, flux_unit, err_unit)]
        text += [" ".join(f"{v:.9g}" for v in row) for row in rows]
        (tmp_path / "a.txt").write_text("\n".join(text))
        return read(tmp_path / "a.txt")

    want = read(write(tmp_path / "b.fits", columns, FACTS))
    got = found("flux", "Jy", "mJy")
    both = (want.batch.mask & got.batch.mask)[0].numpy()
    assert_allclose(got.batch.x[0].numpy()[both], want.batch.x[0].numpy()[both], rtol=2e-3)
    assert_allclose(got.batch.x_err[0].numpy()[both], want.batch.x_err[0].numpy()[both], rtol=2e-3)
    with pytest.raises(UnusableSpectrumError, match="magnitudes"):
        found("flux", "ABmag", "ABmag")


def test_the_age_of_the_universe_is_that_of_the_cosmic_redshift(columns, tmp_path):
    near = write(tmp_path / "a.fits", columns, {**FACTS, "Z_COSMIC": 0.0})
    assert flags(read(near)) == ["redshift_unlike_model"]
    far = write(tmp_path / "b.fits", columns, {**FACTS, "Z_COSMIC": 0.6})
    with pytest.raises(UnusableSpectrumError, match="at redshift 0.6 the Universe"):
        read(far)
    assert float(read(near).labels["redshift"][0]) == 0.03


def test_spectra_below_a_signal_to_noise_are_left_out(columns, tmp_path):
    wave = columns["WAVE"]
    rows = {"FLUX": np.stack([columns["FLUX"]] * 4), "IVAR": np.stack([columns["IVAR"]] * 4)}
    rows["IVAR"][1:3] /= 100.0
    hdus = [fits.ImageHDU(v, name=n) for n, v in rows.items()]
    axis = fits.ImageHDU(wave, name="WAVE")
    axis.header.update({"BUNIT": "Angstrom", **FACTS})
    fits.HDUList([fits.PrimaryHDU(), axis, *hdus]).writeto(tmp_path / "a.fits")
    found = read(tmp_path / "a.fits", min_snr=20.0)
    assert [(e.row, e.reason) for e in found.excluded] == [(1, "low_snr"), (2, "low_snr")]
    assert [n for n in found.notes if "not inferred" in n] == [
        next(n for n in found.notes if n.startswith("not inferred: 2 spectra (low_snr), the first"))
    ]
    with pytest.raises(UnusableSpectrumError, match=r"none of 4 spectra.*: 4 spectra \(low_snr\)"):
        read(tmp_path / "a.fits", min_snr=1000.0)


def test_spectra_of_a_rotating_galaxy_are_aligned(columns, simulator, tmp_path):
    velocities = Velocities(simulator.library)
    rest = read(write(tmp_path / "rest.fits", columns, FACTS), velocities=velocities)
    columns["WAVE"] = columns["WAVE"] * (1 + 180 / 299792.458)
    path = write(tmp_path / "a.fits", columns, FACTS)
    assert flags(read(path, velocities=velocities)) == ["velocity_offset"]
    found = read(path, velocities=velocities, align=True)
    assert flags(found) == []
    assert float(found.labels["velocity"][0]) == pytest.approx(180, abs=10)
    both = (found.batch.mask & rest.batch.mask)[0].numpy()
    off = found.batch.x[0].numpy()[both] / rest.batch.x[0].numpy()[both] - 1
    assert off.std() < 0.01


@pytest.mark.parametrize(
    ("head", "vacuum"),
    [
        ("# wavelengths in air\n# wave flux err", False),
        ("# vacuum\n# wave flux err", True),
        ("# air/vacuum: vacuum\nlambda[A] f e_f", True),
        ("# Wavelengths are in vacuum.\nwl flx err", True),
        ("# medium = air\nspectral flux err", False),
    ],
)
def test_text_states_air_and_vacuum_in_words(columns, tmp_path, head, vacuum):
    err = columns["IVAR"] ** -0.5
    rows = zip(columns["WAVE"], columns["FLUX"], err, strict=True)
    lines = "\n".join(f"{a:.4f} {b:.6g} {c:.6g}" for a, b, c in rows)
    (tmp_path / "a.txt").write_text(f"# z = 0.03\n{head}\n{lines}\n")
    same = read(write(tmp_path / "b.fits", columns, {**FACTS, "VACUUM": vacuum}))
    found = read(tmp_path / "a.txt")
    both = (found.batch.mask & same.batch.mask)[0]
    assert_allclose(found.batch.x[0][both], same.batch.x[0][both], rtol=1e-2)
    assert float(found.labels["redshift"][0]) == 0.03


def test_a_file_that_states_air_and_vacuum_needs_the_option(columns, tmp_path):
    grid = np.arange(3640.0, 7660.0, 0.9)
    flux, ivar = (np.interp(grid, columns["WAVE"], columns[k]) for k in ("FLUX", "IVAR"))
    hdu = fits.PrimaryHDU(flux)
    hdu.header.update({"CRVAL1": grid[0], "CDELT1": 0.9, "CUNIT1": "Angstrom", "CTYPE1": "AWAV",
                       **FACTS})  # fmt: skip
    path = tmp_path / "a.fits"
    fits.HDUList([hdu, fits.ImageHDU(ivar, name="IVAR")]).writeto(path)
    with pytest.raises(UnusableSpectrumError, match="states both air and vacuum"):
        read(path)
    assert noted(read(path, vacuum=True), "taken as vacuum")


def test_an_option_that_the_file_contradicts_is_not_used_in_silence(columns, tmp_path):
    path = write(tmp_path / "a.fits", columns, FACTS)
    one, two = read(path), read(path, vacuum=False)
    assert_allclose(two.batch.x.numpy(), one.batch.x.numpy())
    assert noted(two, "the file states vacuum: simulator.vacuum is not used")


def test_pixels_at_the_ends_that_no_training_uses_need_no_data(columns, simulator, tmp_path):
    keep = (columns["WAVE"] > 3549.0 * 1.03) & (columns["WAVE"] < 7383.0 * 1.03)
    path = write(tmp_path / "a.fits", {k: v[keep] for k, v in columns.items()}, FACTS)
    mask = read(path).batch.mask[0].numpy()
    assert not mask[GRID < 3555].any()
    assert not mask[GRID > 7376].any()
    assert mask[(GRID > 3560) & (GRID < 7370) & ~emission_mask(GRID)].mean() > 0.98
    with pytest.raises(UnusableSpectrumError, match="covers 3548-738"):
        read_spectra(path, GRID, SfhConfig(redshift=0.03), fwhm=FWHM)


def test_columns_are_named_by_the_option(columns, tmp_path):
    config = SfhConfig(**CONFIG, vacuum=True, wave_unit="Angstrom")
    simulator = SfhSimulator(config)
    names = {"wave": "X", "flux": "Y", "err": "Z1", "redshift": "ZBEST2"}
    table = Table({"X": columns["WAVE"], "Y": columns["FLUX"], "Z1": columns["IVAR"] ** -0.5})
    table.meta["ZBEST2"] = 0.03
    table.write(tmp_path / "a.ecsv")
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(table)]).writeto(tmp_path / "a.fits")
    np.savez(tmp_path / "a.npz", **{n: table[n] for n in table.colnames}, ZBEST2=0.03)
    results = [
        read_objects(simulator, source, Reading(columns=names))
        for source in (tmp_path / "a.ecsv", tmp_path / "a.fits", tmp_path / "a.npz", table)
    ]
    for found in results:
        assert_allclose(found.batch.x.numpy(), results[0].batch.x.numpy(), rtol=1e-5)
        assert found.labels["redshift"].tolist() == [0.03]
    with pytest.raises(ObservationError, match="no column 'FLUXX'"):
        read_objects(simulator, tmp_path / "a.ecsv", Reading(columns={**names, "flux": "FLUXX"}))
    with pytest.raises(ObservationError, match="'colour' is not a column of a spectrum"):
        read_objects(simulator, tmp_path / "a.ecsv", Reading(columns={**names, "colour": "X"}))
    with using(Reading()), pytest.raises(ObservationError, match="--column wave=NAME"):
        simulator.read_observations(tmp_path / "a.ecsv")


def test_options_of_reading_are_no_part_of_the_simulations():
    plain = SfhConfig()
    more = SfhConfig(vacuum=True, assumed_snr="scatter", min_snr=3.0, mask_good=True,
                     default_redshift=0.1, catalogue="z.csv")  # fmt: skip
    assert plain.of_training == more.of_training
    assert plain.of_training != SfhConfig(snr=50.0).of_training
    with pytest.raises(ValueError, match="assumed_snr"):
        SfhConfig(assumed_snr=-1.0)


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("VHELIO [m/s]", 8.994e6, 0.03),
        ("cz (km/s)", 8994.0, 0.03),
        ("CZ [KM/SEC]", 8994.0, 0.03),
        ("cz [Angstrom]", 8994.0, None),
    ],
)
def test_velocities_have_the_unit_in_their_name(name, value, want, columns, tmp_path):
    spectrum = {n: np.asarray(v)[None] for n, v in columns.items()}
    path = write(tmp_path / "a.fits", spectrum | {name: np.array([value])}, {"VACUUM": True})
    if want is None:
        with pytest.raises(UnusableSpectrumError, match=r"cz \[Angstrom\] is in 'Angstrom'"):
            read(path)
    else:
        assert_allclose(float(read(path).labels["redshift"][0]), want, rtol=1e-3)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"CZ": 15000.0}, "also states a velocity of 15000 km/s"),
        ({"Z_SPEC": 0.05}, "also states Z_SPEC = 0.05"),
        ({"CZ": 8990.0}, ""),
        ({"CZ": 8862.0}, ""),  # c ln(1 + z)
        ({"Z": 0.0008}, ""),  # may be a metallicity
        ({"Z_SPEC": -9.0}, ""),
    ],
)
def test_a_second_redshift_that_differs_is_told(facts, said, columns, tmp_path):
    found = read(write(tmp_path / "a.fits", columns, FACTS | facts))
    assert found.labels["redshift"].tolist() == [0.03]
    assert flags(found) == (["redshift_uncertain"] if said else [])
    assert not said or noted(found, said)


def test_a_text_with_two_redshifts_is_refused(columns, tmp_path):
    rows = np.stack([columns["WAVE"], columns["FLUX"], columns["IVAR"] ** -0.5], 1)
    for second, refused in (("0.05", True), ("0.03", False)):
        text = ["# VACUUM = T", "# REDSHIFT = 0.03", f"# REDSHIFT = {second}", "wave flux err"]
        text += [" ".join(f"{v:.9g}" for v in row) for row in rows]
        (tmp_path / "a.txt").write_text("\n".join(text))
        if refused:
            with pytest.raises(ObservationError, match=r"two values of REDSHIFT, 0\.03 and 0\.05"):
                read(tmp_path / "a.txt")
        else:
            assert read(tmp_path / "a.txt").labels["redshift"].tolist() == [0.03]


@pytest.mark.parametrize("mark", [1e30, 99999.0])
def test_errors_that_mark_bad_pixels_are_masked(mark, columns, tmp_path):
    err = columns.pop("IVAR") ** -0.5
    third = np.arange(len(err)) % 3 == 0
    found = read(write(tmp_path / "a.fits", columns | {"ERR": np.where(third, mark, err)}, FACTS))
    assert noted(found, f"{third.sum()} pixels with an error of more than 100 times the median")
    assert flags(found) == []
    assert float(found.batch.x_err[found.batch.mask].max()) < 1
    path = write(tmp_path / "b.fits", columns | {"ERR": np.full(len(err), mark)}, FACTS)
    with pytest.raises(UnusableSpectrumError, match="errors in another unit than the flux"):
        read(path)


@pytest.mark.parametrize(
    ("mark", "masked"), [(-9999.0, True), (0.0, True), (1e20, True), (9.5, False)]
)
def test_fluxes_that_mark_bad_pixels_are_masked(mark, masked, columns, tmp_path):
    good = read(write(tmp_path / "a.fits", columns, FACTS))
    columns["FLUX"][1000:1040] = mark
    found = read(write(tmp_path / "b.fits", columns, FACTS))
    assert noted(found, "a mark of bad ones, masked") == masked
    less = good.batch.mask.numpy().sum() - found.batch.mask.numpy().sum()
    assert (less > 20) == masked


def test_counts_of_photons_may_be_zero(columns, tmp_path, rng):
    columns["FLUX"] = rng.poisson(2.0, len(columns["FLUX"])).astype(float)
    columns["IVAR"] = np.full(len(columns["FLUX"]), 0.5)
    assert not noted(read(write(tmp_path / "a.fits", columns, FACTS)), "a mark of bad ones")


@pytest.mark.parametrize("unit", ["dex(erg s-1 cm-2 Angstrom-1)", "log(erg/s/cm2/A)"])
def test_logarithms_of_the_flux_are_refused(unit, columns, tmp_path):
    columns["FLUX"] = np.log10(100 * columns["FLUX"])
    path = write(tmp_path / "a.fits", columns, FACTS)
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["TUNIT2"] = unit
    with pytest.raises(UnusableSpectrumError, match="the flux is in logarithms"):
        read(path)


def test_a_unit_in_the_name_of_a_column_may_have_brackets(columns, tmp_path):
    lines = zip(*(columns[n] for n in ("WAVE", "FLUX", "IVAR")), strict=True)
    text = "\n".join(f"{w!r},{f!r},{i!r}" for w, f, i in lines).replace("np.float64", "")
    head = "# REDSHIFT = 0.03\nwave_vac[Angstrom],flux[erg/(s cm2 AA)],ivar\n"
    (tmp_path / "a.csv").write_text(head + text.replace("(", "").replace(")", ""))
    found = read(tmp_path / "a.csv")
    assert np.median(found.batch.x.numpy()[found.batch.mask.numpy()]) == pytest.approx(1, rel=0.02)
    assert "flux_not_calibrated" not in flags(found)


def test_a_spectrum_off_the_model_names_an_assumed_redshift(columns, tmp_path):
    columns["WAVE"] = columns["WAVE"] * 1.02
    with pytest.raises(UnusableSpectrumError, match="or give its redshift: that of the options"):
        read(write(tmp_path / "a.fits", columns, {"VACUUM": True}))


@pytest.mark.parametrize(
    ("name", "power", "unit"),
    [("VAR", 2, "erg2 s-2 cm-4 Angstrom-2"), ("IVAR", -2, "erg-2 s2 cm4 Angstrom2")],
)
def test_variances_in_another_unit_are_converted(name, power, unit, columns, tmp_path):
    good = read(write(tmp_path / "a.fits", columns, FACTS))
    error = 1 / np.sqrt(columns.pop("IVAR"))
    columns[name] = (1e-10 * error) ** power
    path = write(tmp_path / "b.fits", columns, FACTS)
    with fits.open(path, mode="update") as hdus:
        names = hdus[1].columns.names
        hdus[1].header[f"TUNIT{names.index('FLUX') + 1}"] = "1e-10 erg s-1 cm-2 Angstrom-1"
        hdus[1].header[f"TUNIT{names.index(name) + 1}"] = unit
    mask = good.batch.mask.numpy()
    assert_allclose(read(path).batch.x_err.numpy()[mask], good.batch.x_err.numpy()[mask], rtol=1e-3)


def test_a_galaxy_that_is_not_in_the_catalogue_is_told(columns, tmp_path):
    Table({"id": ["other"], "redshift": [0.03]}).write(tmp_path / "c.csv")
    found = read(
        write(tmp_path / "a.fits", columns, {"VACUUM": True}), catalogue=str(tmp_path / "c.csv")
    )
    assert noted(found, "not in the catalogue (compare the identifiers)")
    assert "redshift_assumed" in flags(found)
