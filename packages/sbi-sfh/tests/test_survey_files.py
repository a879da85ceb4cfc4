"""Files as surveys, instruments and codes write them: tiny ones, with their names and cards."""

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_core import ObservationError
from sbi_sfh.formats import frame_of, read_raw
from sbi_sfh.formats.spectrum import RawSpectrum, UnusableSpectrumError

LOGLAM = 3.55 + 1e-4 * np.arange(300)
WAVE = 10**LOGLAM
FLUX = 5.0 + np.sin(np.arange(300) / 9.0)
ERR = 0.1 + 0.001 * np.arange(300)
IVAR = ERR**-2.0
GRID = 4000.0 + 1.25 * np.arange(300)


def table(columns, name="", **cards):
    hdu = fits.table_to_hdu(Table(columns))
    hdu.header.update(cards)
    hdu.name = name
    return hdu


def image(values, name="", **cards):
    hdu = fits.ImageHDU(np.asarray(values), name=name)
    hdu.header.update({k.replace("__", "-"): v for k, v in cards.items()})
    return hdu


def write(path, *hdus, values=None, **cards):
    primary = fits.PrimaryHDU(values)
    primary.header.update({k.replace("__", "-"): v for k, v in cards.items()})
    fits.HDUList([primary, *hdus]).writeto(path)
    return list(read_raw(path))


def is_the_spectrum(raw, wave=WAVE, *, errors=True):
    assert isinstance(raw, RawSpectrum)
    assert_allclose(raw.wave, wave, rtol=1e-6)
    assert_allclose(raw.flux, FLUX, rtol=1e-6)
    if errors:
        assert_allclose(raw.ivar, IVAR, rtol=1e-5)
    return raw


# -- SDSS, LAMOST, DESI ----------------------------------------------------------------------


def coadd(**more):
    return table({"flux": FLUX, "loglam": LOGLAM, "ivar": IVAR, **more}, "COADD")


@pytest.mark.parametrize("name", ["SPECOBJ", "SPALL", ""])
def test_sdss_has_its_redshift_in_a_table_of_one_row(tmp_path, name):
    pipeline = {"Z": [0.031], "VDISP": [150.0], "VDISP_ERR": [9.0], "ZWARNING": [0],
                "CLASS": ["GALAXY"]}  # fmt: skip
    lines = table({"LINENAME": ["Ha", "Hb"], "LINEZ": [0.0, 0.0]}, "SPZLINE")
    (raw,) = write(
        tmp_path / "spec-0266-51602-0012.fits",
        coadd(),
        table(pipeline, name),
        lines,
        NAME="0266",
        FIBERID=12,
    )
    is_the_spectrum(raw)
    assert (raw.redshift, raw.sigma) == (pytest.approx(0.031), 150.0)
    assert (raw.id, raw.unit) == ("spec-0266-51602-0012", "Angstrom")
    assert (raw.vacuum, raw.usual[1], raw.flags) == (None, True, ())


@pytest.mark.parametrize(
    ("facts", "flags", "sigma"),
    [
        ({"ZWARNING": [4]}, ("redshift_uncertain",), 150.0),
        ({"ZWARNING": [16]}, (), 150.0),
        ({"CLASS": ["STAR"]}, ("not_a_galaxy",), 150.0),
        ({"VDISP_ERR": [-3.0]}, (), None),
        ({"VDISP": [850.0]}, (), None),
    ],
)
def test_what_the_pipeline_of_sdss_doubts_is_flagged(tmp_path, facts, flags, sigma):
    pipeline = table({"Z": [0.03], "VDISP": [150.0], **facts}, "SPALL")
    (raw,) = write(tmp_path / "spec.fits", coadd(), pipeline)
    assert (raw.flags, raw.sigma) == (flags, sigma)


def test_only_bits_of_pixels_mask_pixels_of_sdss(tmp_path):
    mask = np.full(300, 1 << 8)  # near a whopping fibre: the whole spectrum
    mask[40] |= 1 << 23  # bright sky
    (raw,) = write(tmp_path / "spec.fits", coadd(and_mask=mask))
    assert np.flatnonzero(~raw.good).tolist() == [40]
    assert any("bits 256" in note for note in raw.notes)


def test_the_resolution_of_sdss_v_is_in_angstrom(tmp_path):
    (raw,) = write(tmp_path / "spec.fits", coadd(wresl=np.full(300, 1.2)))
    assert_allclose(raw.resolution, WAVE / (1.2 * 2.3548), rtol=1e-4)


def test_spspec_and_early_lamost_are_told_apart(tmp_path):
    cards = {"COEFF0": LOGLAM[0], "COEFF1": 1e-4, "Z": 0.03}
    none = np.zeros(300)
    (sdss,) = write(
        tmp_path / "spSpec.fit", values=np.array([FLUX, none, ERR, none, none]), VEL_DIS=140.0,
        OBJECT="266", **cards,
    )  # fmt: skip
    is_the_spectrum(sdss)
    assert (sdss.sigma, sdss.id) == (140.0, "spSpec")
    rows = np.array([FLUX, IVAR, WAVE, none, none])
    rows[3, 7] = 1
    (lamost,) = write(tmp_path / "spec.fits", values=rows, TELESCOP="LAMOST", **cards)
    is_the_spectrum(lamost)
    assert np.flatnonzero(~lamost.good).tolist() == [7]


def test_lamost_has_a_table_of_one_row_and_marks_redshifts_that_it_lacks(tmp_path):
    arrays = {"FLUX": FLUX, "IVAR": IVAR, "WAVELENGTH": WAVE, "ANDMASK": np.zeros(300, int),
              "ORMASK": np.ones(300, int)}  # fmt: skip
    hdu = table({k: [v] for k, v in arrays.items()}, "COADD")
    (raw,) = write(tmp_path / "a.fits", hdu, Z=-9999.0)
    is_the_spectrum(raw)
    assert (raw.redshift, raw.unit, raw.good.all()) == (None, "Angstrom", True)
    assert raw.usual == ("LAMOST", True)


def test_spplate_without_names_is_read_by_place_and_sky_fibres_are_left_out(tmp_path):
    both = np.stack([FLUX, FLUX])
    plug = table({"FIBERID": [7, 8], "OBJTYPE": ["GALAXY", "SKY"]})
    one, sky = write(
        tmp_path / "spPlate.fits", image(np.stack([IVAR, IVAR])), image(np.zeros((2, 300), int)),
        image(np.ones((2, 300), int)), image(np.full((2, 300), 1.0)), plug,
        values=both, COEFF0=LOGLAM[0], COEFF1=1e-4,
    )  # fmt: skip
    is_the_spectrum(one)
    assert one.id == "7"
    assert one.good.all()
    assert_allclose(one.resolution, 1 / (1e-4 * np.log(10) * 2.3548), rtol=1e-4)
    assert isinstance(sky, UnusableSpectrumError)
    assert sky.reason == "not_a_galaxy"


def test_redshifts_of_desi_are_found_by_target_and_the_resolution_by_its_matrix(tmp_path):
    hdus = [table({"TARGETID": [11, 12], "OBJTYPE": ["TGT", "TGT"]}, "FIBERMAP")]
    steps = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (steps / 1.3) ** 2)
    for arm, wave in (("B", 3600 + 0.8 * np.arange(100)), ("R", 3672 + 0.8 * np.arange(100))):
        band = np.tile(kernel[None, :, None], (2, 1, 100))
        hdus += [
            image(wave, f"{arm}_WAVELENGTH", BUNIT="Angstrom"),
            image(np.full((2, 100), 3.0), f"{arm}_FLUX"),
            image(np.full((2, 100), 4.0), f"{arm}_IVAR"),
            image(np.zeros((2, 100), int), f"{arm}_MASK"),
            image(band, f"{arm}_RESOLUTION"),
        ]
    hdus.append(table({"TARGETID": [12, 11], "Z": [0.2, 0.1], "SPECTYPE": ["QSO", "GALAXY"],
                       "ZWARN": [0, 0]}, "REDSHIFTS"))  # fmt: skip
    one, two = write(tmp_path / "coadd.fits", *hdus)
    assert (one.id, one.redshift, one.flags) == ("11", 0.1, ())
    assert (two.id, two.redshift, two.flags) == ("12", 0.2, ("not_a_galaxy",))
    assert one.usual == ("DESI", True)
    assert len(one.wave) == 190
    inside = (one.wave > 3672) & (one.wave < 3679)
    assert_allclose(one.ivar[inside], 8.0)
    assert_allclose(one.resolution, one.wave / (2.3548 * 1.3 * 0.8), rtol=0.02)


@pytest.mark.parametrize("arms", ["BR", "R"])
def test_the_order_of_desi_is_that_of_its_targets(tmp_path, arms):
    waves = {"B": 3600 + 0.8 * np.arange(100), "R": 3672 + 0.8 * np.arange(100)}
    hdus = [table({"TARGETID": [12, 13, 11], "Z": [0.2, 0.3, 0.1],
                   "SPECTYPE": ["GALAXY", "GALAXY", "GALAXY"]}, "REDSHIFTS"),
            table({"TARGETID": [11, 12, 13], "OBJTYPE": ["TGT", "TGT", "SKY"]},
                  "FIBERMAP")]  # fmt: skip
    for arm in arms:
        level = np.array([1.0, 2.0, 3.0])[:, None] * np.ones((3, 100))
        hdus += [image(waves[arm], f"{arm}_WAVELENGTH", BUNIT="Angstrom"),
                 image(level, f"{arm}_FLUX"), image(np.ones((3, 100)), f"{arm}_IVAR")]  # fmt: skip
    one, two, sky = write(tmp_path / "coadd.fits", *hdus)
    assert [(s.id, s.redshift, s.flux[0]) for s in (one, two)] == [("11", 0.1, 1.0),
                                                                   ("12", 0.2, 2.0)]  # fmt: skip
    assert one.usual == ("DESI", True)
    assert isinstance(sky, UnusableSpectrumError)
    assert sky.reason == "not_a_galaxy"


# -- ESO, specutils, PypeIt, IRAF --------------------------------------------------------------


@pytest.mark.parametrize(("ucd", "vacuum"), [("em.wl;obs.atmos", False), ("em.wl", True)])
def test_eso_phase_3_states_air_by_the_ucd(tmp_path, ucd, vacuum):
    quality = np.zeros(300, int)
    quality[9] = 1
    hdu = table({"WAVE": [GRID / 10], "FLUX": [FLUX], "ERR": [ERR], "QUAL": [quality]}, "SPECTRUM",
                TUNIT1="nm", TUCD1=ucd)  # fmt: skip
    (raw,) = write(tmp_path / "eso.fits", hdu, OBJECT="NGC 1")
    is_the_spectrum(raw, GRID / 10)
    assert (raw.id, raw.unit, raw.usual[1]) == ("NGC 1", "nm", vacuum)
    assert np.flatnonzero(~raw.good).tolist() == [9]


def test_columns_with_other_names_are_found_by_utype(tmp_path):
    hdu = table({"A": [GRID], "B": [FLUX], "C": [ERR]}, "SPECTRUM", TUNIT1="Angstrom",
                TUTYP1="spec:Data.SpectralAxis.Value", TUTYP2="spec:Data.FluxAxis.Value",
                TUTYP3="spec:Data.FluxAxis.Accuracy.StatError")  # fmt: skip
    is_the_spectrum(write(tmp_path / "vo.fits", hdu)[0], GRID)


@pytest.mark.parametrize(
    ("name", "values"), [("STD", ERR), ("VAR", ERR**2), ("IVAR", IVAR), ("UNCERT", ERR)]
)
def test_wcs1d_files_of_specutils(tmp_path, name, values):
    mask = image((np.arange(300) == 5).astype(int), "MASK")
    (raw,) = write(
        tmp_path / "a.fits", image(values, name), mask, values=FLUX, CTYPE1="AWAV", CRVAL1=4e-7,
        CDELT1=1.25e-10, CRPIX1=1.0, CUNIT1="m", BUNIT="Jy",
    )  # fmt: skip
    is_the_spectrum(raw, GRID * 1e-10)
    assert (raw.unit, raw.flux_unit, raw.vacuum) == ("m", "Jy", False)
    assert np.flatnonzero(~raw.good).tolist() == [5]


def test_masks_of_pypeit_are_true_where_a_pixel_is_good(tmp_path):
    good = np.ones(300, int)
    good[3] = 0
    hdu = table({"wave": WAVE, "flux": FLUX, "ivar": IVAR, "mask": good}, "SPECTRUM",
                DMODCLS="OneSpec")  # fmt: skip
    (raw,) = write(tmp_path / "coadd1d.fits", hdu)
    assert np.flatnonzero(~raw.good).tolist() == [3]
    assert raw.usual == ("PypeIt", True)


@pytest.mark.parametrize(
    ("cards", "wave"),
    [
        ({"CRVAL1": 4000.0, "CD1_1": 1.25, "CTYPE1": "LINEAR"}, GRID),
        ({"CRVAL1": LOGLAM[0], "CD1_1": 1e-4, "DC__FLAG": 1, "CTYPE1": "LINEAR"}, WAVE),
        ({"CRVAL1": LOGLAM[0], "CDELT1": 1e-4, "CTYPE1": "LINEAR"}, WAVE),
        ({"CRVAL1": np.log(WAVE[0]), "CDELT1": 1e-4 * np.log(10)}, WAVE),
        ({"CRVAL1": 4002.5, "CDELT1": 1.25, "CRPIX1": 3.0, "CTYPE1": "WAVE"}, GRID),
        ({"CRVAL1": 4000.0, "CDELT1": 1.25, "CTYPE1": "AWAV-LOG"},
         4000.0 * np.exp(1.25 * np.arange(300) / 4000.0)),
    ],
)  # fmt: skip
def test_dispersions_of_one_spectrum(tmp_path, cards, wave):
    (raw,) = write(tmp_path / "a.fits", image(ERR, "ERR"), values=FLUX, **cards)
    is_the_spectrum(raw, wave)


CHEBYSHEV = "1 1 2 4000. 1.25 300 0. 1. 2. 1. 0. 1 2 1. 300. 4186.875 186.875"
LEGENDRE = "1 1 2 4000. 1.25 300 0. 1. 2. 1. 0. 2 2 1. 300. 4186.875 186.875"
CUBIC = "1 1 2 4000. 1.25 300 0. 1. 2. .16666666667 0. 3 1 1. 300. 3626.25 4000. 4373.75 4747.5"
BROKEN = "1 1 2 4000. 1.25 300 0. 1. 2. 1. 0. 4 1 1. 300. 4000. 4373.75"
SPECS = {
    "linear": ("1 1 0 4000. 1.25 300 0. 1. 2.", GRID),
    "log": (f"1 1 1 {LOGLAM[0]} 1e-4 300 0. 1. 2.", WAVE),
    "doppler": ("1 1 0 4000. 1.25 300 0.1 1. 2.", GRID / 1.1),
    "chebyshev": (CHEBYSHEV, GRID),
    "legendre": (LEGENDRE, GRID),
    "cubic spline": (CUBIC, GRID),
    "linear spline": (BROKEN, GRID),
}


def multispec_cards(*specs):
    text = "wtype=multispec " + " ".join(f'spec{k + 1} = "{s}"' for k, s in enumerate(specs))
    cards = {f"WAT2_{k + 1:03d}": text[68 * k : 68 * (k + 1)] for k in range(len(text) // 68 + 1)}
    return {"CTYPE1": "MULTISPE", "CTYPE2": "MULTISPE", "WCSDIM": 3,
            "WAT0_001": "system=multispec",
            "WAT1_001": "wtype=multispec label=Wavelength units=angstroms", **cards}  # fmt: skip


@pytest.mark.parametrize("kind", list(SPECS))
def test_multispec_of_iraf(tmp_path, kind):
    spec, wave = SPECS[kind]
    bands = np.array([[FLUX], [FLUX + 1], [0 * FLUX], [ERR]])
    ids = {"BANDID1": "spectrum - background fit", "BANDID2": "raw - background fit",
           "BANDID3": "background - background fit",
           "BANDID4": "sigma - background fit, weights none"}  # fmt: skip
    (raw,) = write(tmp_path / "a.ms.fits", values=bands, **multispec_cards(spec), **ids)
    is_the_spectrum(raw, wave)
    assert raw.unit == "angstroms"


def test_every_aperture_of_multispec_has_its_dispersion(tmp_path):
    cards = multispec_cards("1 1 0 4000. 1.25 300 0. 1. 2.", "2 2 0 5000. 1.25 300 0. 1. 2.")
    values = np.array([[FLUX, FLUX], [FLUX, FLUX], [FLUX, FLUX], [ERR, ERR]])
    one, two = write(tmp_path / "a.fits", values=values, **cards)
    is_the_spectrum(one, GRID)
    is_the_spectrum(two, GRID + 1000)


def test_rows_that_the_header_names_are_no_galaxies(tmp_path):
    rows = np.array([FLUX, ERR, FLUX * 3, ERR * 3, FLUX * 0])
    cards = {"ROW1": "Spectrum", "ROW2": "Error", "ROW3": "Spectrum, no flux calibration",
             "ROW5": "Sky", "CRVAL1": 4000.0, "CD1_1": 1.25}  # fmt: skip
    (raw,) = write(tmp_path / "g.fit", values=rows, **cards)
    is_the_spectrum(raw, GRID)


def test_a_velocity_axis_is_refused(tmp_path):
    with pytest.raises(ObservationError, match="VRAD is not an axis of wavelengths"):
        write(tmp_path / "a.fits", image(ERR, "ERR"), values=FLUX, CRVAL1=1.0, CDELT1=2.0,
              CTYPE1="VRAD")  # fmt: skip


# -- cubes and rows ----------------------------------------------------------------------------


def cube(values, ny=2, nx=3):
    out = np.broadcast_to(values[:, None, None], (300, ny, nx)).copy()
    out[:, 1, 2] *= 2
    return out


def places(spectra):
    return [(raw.labels["x"], raw.labels["y"]) for raw in spectra]


def test_a_manga_cube_has_a_spectrum_per_spaxel(tmp_path):
    mask = np.zeros((300, 2, 3), int)
    mask[7] = 1 << 10
    spectra = write(
        tmp_path / "manga-8485-1901-LOGCUBE.fits", image(cube(FLUX), "FLUX"),
        image(cube(IVAR), "IVAR"), image(mask, "MASK"), image(WAVE, "WAVE"),
        image(np.full(300, 2000.0), "SPECRES"), image(np.zeros((2, 3)), "GIMG"),
        PLATEIFU="8485-1901", MNGTARG1=1,
    )  # fmt: skip
    raw = is_the_spectrum(spectra[0])
    assert raw.id == "manga-8485-1901-LOGCUBE-x0-y0"
    assert places(spectra) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert_allclose(spectra[5].flux, 2 * FLUX)
    assert (raw.usual, raw.unit) == (("MaNGA", True), "Angstrom")
    assert np.flatnonzero(~raw.good).tolist() == [7]
    assert_allclose(raw.resolution, 2000.0)


def test_manga_rows_share_their_wavelengths(tmp_path):
    two = [image(np.stack([v, v]), n) for v, n in ((FLUX, "FLUX"), (IVAR, "IVAR"))]
    spectra = write(tmp_path / "LOGRSS.fits", *two, image(WAVE, "WAVE"), PLATEIFU="1-2")
    assert len(spectra) == 2
    is_the_spectrum(spectra[1])


AXIS3 = {"CRVAL3": 4000.0, "CRPIX3": 1.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}


@pytest.mark.parametrize(
    ("primary", "hdus", "cards", "air"),
    [  # MUSE, CALIFA, SAMI, KCWI
        (None, [("DATA", 1), ("STAT", 2)], {"CD3_3": 1.25, "CTYPE3": "AWAV"}, "stated"),
        (1, [("ERROR", 1), ("ERRWEIGHT", 1)], {"CDELT3": 1.25, "MED_VEL": 3000.0}, "CALIFA"),
        (1, [("VARIANCE", 2), ("WEIGHT", 0)],
         {"CDELT3": 1.25, "CTYPE3": "Wavelength", "CUNIT3": "Angstroms",
          "INSTRUME": "AAOMEGA-SAMI"}, "SAMI"),
        (1, [("UNCERT", 1)], {"CD3_3": 1.25, "CTYPE3": "AWAV", "CUNIT3": "Angstrom"}, "stated"),
    ],
)  # fmt: skip
def test_cubes_with_wavelengths_in_the_header(tmp_path, primary, hdus, cards, air):
    cards = AXIS3 | cards
    powers = {0: 0 * ERR, 1: ERR, 2: ERR**2}
    made = [
        image(cube(FLUX) if name == "DATA" else cube(powers[p]), name, **cards) for name, p in hdus
    ]
    values = None if primary is None else cube(FLUX)
    spectra = write(tmp_path / "cube.fits", *made, values=values, **(cards if primary else {}))
    assert len(spectra) == 6
    raw = is_the_spectrum(spectra[0], GRID)
    assert raw.vacuum is False if air == "stated" else raw.usual == (air, False)
    if air == "CALIFA":
        assert raw.redshift == pytest.approx(3000 / 299792.458)


def test_one_galaxy_per_row_with_wavelengths_in_another_extension(tmp_path):
    rows = table({"ID": [5, 6], "Z": [0.1, 0.2], "FLUX": [FLUX, FLUX], "IVAR": [IVAR, IVAR],
                  "SIGMA": [100.0, 200.0]}, "SPECTRA")  # fmt: skip
    for k, wave in enumerate(
        [image(WAVE, "WAVELENGTH", BUNIT="Angstrom"), image(LOGLAM, "LOGLAM"),
         table({"lam": WAVE}, "AXIS", TUNIT1="Angstrom")]
    ):  # fmt: skip
        one, two = write(tmp_path / f"{k}.fits", rows.copy(), wave)
        is_the_spectrum(one)
        assert (two.id, two.redshift, two.sigma, two.unit) == ("6", 0.2, 200.0, "Angstrom")


def test_a_bad_row_is_left_out_and_the_others_are_read(tmp_path):
    rows = table({"ID": [5, 6], "Z": ["0.1", "?"], "WAVE": [WAVE, WAVE], "FLUX": [FLUX, FLUX],
                  "IVAR": [IVAR, IVAR]}, "SPECTRA")  # fmt: skip
    one, two = write(tmp_path / "a.fits", rows)
    is_the_spectrum(one)
    assert isinstance(two, UnusableSpectrumError)
    assert (two.id, two.reason) == ("6", "facts_missing")


def test_binned_spectra_of_gist_are_at_rest_with_natural_logarithms(tmp_path):
    spectra = table({"SPEC": [FLUX, FLUX], "ESPEC": [ERR, ERR]}, "BIN_SPECTRA")
    log = table({"LOGLAM": np.log(WAVE)}, "LOGLAM")
    one, _ = write(tmp_path / "r_BinSpectra.fits", spectra, log)
    is_the_spectrum(one)
    assert (one.rest, one.vacuum, one.usual) == (True, None, None)
    with h5py.File(tmp_path / "r_BinSpectra.hdf5", "w") as f:
        f["SPEC"], f["ESPEC"] = np.stack([FLUX] * 2, 1), np.stack([ERR] * 2, 1)
        f["LOGLAM"] = np.log(WAVE)
    one, _ = read_raw(tmp_path / "r_BinSpectra.hdf5")
    is_the_spectrum(one)
    assert one.rest


# -- arrays and text ---------------------------------------------------------------------------


def test_hdf5_has_arrays_with_attributes_or_a_group_per_galaxy(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as f:
        f["wavelength"], f["flux"], f["error"] = WAVE, FLUX, ERR
        f["wavelength"].attrs["unit"] = "Angstrom"
        f.attrs["redshift"] = 0.04
    (raw,) = read_raw(tmp_path / "one.h5")
    is_the_spectrum(raw)
    assert (raw.unit, raw.redshift) == ("Angstrom", 0.04)
    with h5py.File(tmp_path / "two.h5", "w") as f:
        for name in ("NGC1", "NGC2"):
            g = f.create_group(name)
            g["wave"], g["flux"], g["ivar"] = WAVE, FLUX, IVAR
            g.attrs["z"] = 0.05
    one, two = read_raw(tmp_path / "two.h5")
    is_the_spectrum(two)
    assert (one.id, two.id, two.redshift) == ("NGC1", "NGC2", 0.05)


def test_hdf5_groups_may_be_nested(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        for name in ("NGC1", "NGC2"):
            g = f.create_group(f"galaxies/{name}")
            g.attrs["redshift"] = 0.05
            g["spectrum/wave"], g["spectrum/flux"], g["spectrum/err"] = WAVE, FLUX, ERR
    _, two = read_raw(tmp_path / "a.h5")
    is_the_spectrum(two)
    assert (two.id, two.redshift) == ("galaxies/NGC2/spectrum", 0.05)


def test_a_long_table_has_the_pixels_of_several_galaxies(tmp_path):
    table = Table(
        {
            "id": ["a"] * 300 + ["b"] * 300,
            "z": [0.1] * 300 + [0.2] * 300,
            "wave": np.tile(WAVE, 2),
            "flux": np.tile(FLUX, 2),
            "err": np.tile(ERR, 2),
        }
    )
    table.write(tmp_path / "a.csv")
    one, two = read_raw(tmp_path / "a.csv")
    is_the_spectrum(one)
    is_the_spectrum(two)
    assert [(r.id, r.redshift) for r in (one, two)] == [("a", 0.1), ("b", 0.2)]


def test_a_galaxy_per_column_is_turned(tmp_path):
    np.savez(
        tmp_path / "a.npz", wave=WAVE, flux=np.stack([FLUX] * 2, 1), err=np.stack([ERR] * 2, 1)
    )
    one, _ = read_raw(tmp_path / "a.npz")
    is_the_spectrum(one)


ROWS = "\n".join(f"{w!r},{f!r},{e!r}" for w, f, e in
                 zip(WAVE.tolist(), FLUX.tolist(), ERR.tolist(), strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ROWS),
        ("b.csv", "Wavelength (Angstrom),Flux,Uncertainty\n" + ROWS),
        ("c.csv", "wave_vac,flux,sigma\n" + ROWS),
        ("d.asc", ROWS.replace(",", " ")),
        ("e.spec", "# wave flux err\n" + ROWS.replace(",", " ")),
        ("f.csv", "\ufefflambda,f_lambda,e_f_lambda\n" + ROWS),
    ],
)
def test_text_of_many_kinds(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    (raw,) = read_raw(tmp_path / name)
    is_the_spectrum(raw)
    assert raw.vacuum is (True if name == "c.csv" else None)
    assert raw.unit == ("Angstrom" if name == "b.csv" else None)


def test_padding_at_the_ends_is_dropped(tmp_path):
    pad = [np.r_[0.0, 0.0, v, np.nan] for v in (WAVE, FLUX, ERR)]
    np.savez(tmp_path / "a.npz", wave=pad[0], flux=pad[1], err=pad[2])
    is_the_spectrum(next(iter(read_raw(tmp_path / "a.npz"))))


@pytest.mark.parametrize(
    ("cards", "name", "stated"),
    [
        ({"CTYPE1": "AWAV", "VACUUM": True}, "IVAR", "VACUUM = True and CTYPE1 = AWAV"),
        ({"CTYPE1": "AWAV", "VACUUM": False}, "IVAR", ""),
        ({"CTYPE1": "WAVE", "VACUUM": False}, "IVAR", ""),
    ],
)
def test_contradictions_are_noticed(tmp_path, cards, name, stated):
    (raw,) = write(tmp_path / "a.fits", image(IVAR, name), values=FLUX, CRVAL1=4000.0, CDELT1=1.25,
                   **cards)  # fmt: skip
    assert raw.contradiction == stated


# -- files that were read in part, or whose facts were not ------------------------------------


def versions(*, numbered):
    """Two spectra as extensions of the same names, with EXTVER or without."""
    hdus = []
    for k in (1, 2):
        for name, values in (("SCI", k * FLUX), ("VAR", (k * ERR) ** 2)):
            hdu = image(values, name, CRVAL1=4000.0, CDELT1=1.25, OBJECT=f"g{k}")
            hdu.ver = k if numbered else 1
            hdus.append(hdu)
    return hdus


@pytest.mark.parametrize("numbered", [True, False])
def test_extensions_of_the_same_names_are_several_spectra(tmp_path, numbered):
    one, two = write(tmp_path / "a.fits", *versions(numbered=numbered))
    is_the_spectrum(one, GRID)
    assert_allclose(two.flux, 2 * FLUX)
    assert_allclose(two.ivar, IVAR / 4)
    assert [r.id for r in (one, two)] == ["g1", "g2"]
    with pytest.raises(ObservationError, match="holds 2 versions of its extensions"):
        frame_of(tmp_path / "a.fits")


@pytest.mark.parametrize(("second", "z"), [(0.1, None), (0.05, 0.05)])
def test_tables_of_one_row_that_differ_are_of_no_spectrum_among_several(tmp_path, second, z):
    hdus = []
    for k, redshift in enumerate((0.05, second)):
        hdus += [table({"Z": [redshift]}, f"META{k}"),
                 table({"wave": WAVE, "flux": FLUX, "err": ERR}, f"SPEC{k}")]  # fmt: skip
    spectra = write(tmp_path / "a.fits", *hdus)
    assert [r.redshift for r in spectra] == [z, z]


def test_counts_and_sky_of_weave_are_told(tmp_path):
    arm = {"RED_DATA": FLUX, "RED_IVAR": IVAR, "RED_SENSFUNC": FLUX}
    rows = [image(np.stack([v] * 2), n, CRVAL1=4000.0, CDELT1=1.25) for n, v in arm.items()]
    fibres = table({"TARGUSE": ["T", "S"]}, "FIBTABLE")
    one, sky = write(tmp_path / "a.fits", *rows, fibres)
    assert is_the_spectrum(one, GRID).flux_unit == "counts (not multiplied by RED_SENSFUNC)"
    assert isinstance(sky, UnusableSpectrumError)
    assert sky.reason == "not_a_galaxy"


def test_rows_of_different_lengths_are_read(tmp_path):
    cells = {n: [v, v[:200]] for n, v in (("wave", WAVE), ("flux", FLUX), ("err", ERR))}
    columns = [fits.Column(n, "PD()", array=np.array(v, object)) for n, v in cells.items()]
    one, two = write(tmp_path / "a.fits", fits.BinTableHDU.from_columns(columns))
    is_the_spectrum(one)
    assert_allclose(two.wave, WAVE[:200])
    assert_allclose(two.flux, FLUX[:200])


def test_a_column_with_one_value_is_a_fact(tmp_path):
    columns = {"wave": WAVE, "flux": FLUX, "err": ERR, "z": np.full(300, 0.08), "id": ["n"] * 300}
    Table(columns).write(tmp_path / "a.csv")
    (raw,) = read_raw(tmp_path / "a.csv")
    assert (is_the_spectrum(raw).redshift, raw.id) == (0.08, "n")
    Table(columns | {"z": WAVE}).write(tmp_path / "b.csv")
    assert next(iter(read_raw(tmp_path / "b.csv"))).redshift is None


@pytest.mark.parametrize(
    ("comment", "redshift", "rest", "vacuum"),
    [
        ("# rest-frame wavelengths", None, True, None),
        ("# wavelengths in vacuum, at rest", None, True, True),
        ("# z 0.05", 0.05, False, None),
        ("# the rest of the spectra is in vacuum", None, False, None),
    ],
)
def test_comments_of_a_few_words_state_facts(tmp_path, comment, redshift, rest, vacuum):
    (tmp_path / "a.dat").write_text(f"{comment}\nwave flux err\n" + ROWS.replace(",", " "))
    (raw,) = read_raw(tmp_path / "a.dat")
    found = is_the_spectrum(raw)
    assert (found.redshift, found.rest) == (redshift, rest)
    assert found.vacuum is (True if vacuum else None)


@pytest.mark.parametrize("header", ["", "wave flux err mask\n"])
def test_words_of_other_programs_are_numbers(tmp_path, header):
    lines = ROWS.replace(",", " ").split("\n")
    if header:
        lines = [f"{line} {k == 5}" for k, line in enumerate(lines)]
    else:
        lines = [" ".join(f"{float(v):.9e}".replace("e", "D") for v in x.split()) for x in lines]
    lines[7] = lines[7].replace(lines[7].split()[1], "INDEF")
    (tmp_path / "a.asc").write_text(header + "\n".join(lines))
    (raw,) = read_raw(tmp_path / "a.asc")
    assert np.flatnonzero(np.isnan(raw.flux)).tolist() == [7]
    assert_allclose(np.delete(raw.flux, 7), np.delete(FLUX, 7), rtol=1e-6)
    assert np.flatnonzero(~raw.good).tolist() == ([5] if header else [])


def test_decimal_commas_are_named(tmp_path):
    rows = ROWS.replace(",", " ").replace(".", ",")
    (tmp_path / "a.txt").write_text(rows)
    with pytest.raises(UnusableSpectrumError, match=r"e\.g\. '3548,1.*'; write decimal points"):
        list(read_raw(tmp_path / "a.txt"))


def test_logarithms_in_a_header_are_known_by_their_size(tmp_path):
    cards = {"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 3.55, "CD1_1": 1e-4}
    (raw,) = write(tmp_path / "a.fits", image(IVAR, "IVAR"), values=FLUX, **cards)
    is_the_spectrum(raw)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz"])
def test_names_of_galaxies_are_those_of_files_before_compression(tmp_path, name):
    import bz2
    import gzip
    import lzma

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[name.split(".")[-1]]
    (tmp_path / name).write_bytes(pack(b"wave,flux,err\n" + ROWS.encode()))
    assert is_the_spectrum(next(iter(read_raw(tmp_path / name)))).id == "a"


def test_a_file_without_a_spectrum_is_described(tmp_path):
    other = table({"LAMBDA_GAL": WAVE, "COUNTS": FLUX})
    with pytest.raises(ObservationError, match=r"SPECTRUM VR, HDU 2 \(LAMBDA_GAL, COUNTS\)"):
        write(tmp_path / "a.fits", image(np.stack([FLUX] * 3), "SPECTRUM VR"), other)
    (left,) = read_raw(tmp_path)
    assert isinstance(left, UnusableSpectrumError)
    assert left.reason == "unreadable"


@pytest.mark.parametrize("name", ["good", "goodpixels", "valid"])
def test_columns_of_good_pixels_are_no_masks_of_bad_ones(tmp_path, name):
    good = (np.arange(300) != 9).astype(int)
    Table({"wave": WAVE, "flux": FLUX, "err": ERR, name: good}).write(tmp_path / "a.csv")
    (raw,) = read_raw(tmp_path / "a.csv")
    assert np.flatnonzero(~raw.good).tolist() == [9]
    assert raw.fixed_mask
