import time

import numpy as np
import pytest
from miles_files import WAVE, miles_name, write_spectrum
from numpy.testing import assert_allclose

from sbi_sfh.alpha import check_alpha
from sbi_sfh.miles import LibraryError, parse_name, read_cube, read_miles


def test_names_are_read_as_numbers():
    name = parse_name("Mku1.30Zm0.25T00.0300_iTp0.00_baseFe.fits")
    assert (name.afe, name.mh, name.age_gyr) == (0.0, -0.25, 0.03)
    assert parse_name("Mkb1.30Zp0.06T10.0000_iTp0.40_Ep0.40.fits").afe == 0.4
    assert parse_name("Mkb1.30Zp0.06T10.0000_iTp0.00_Ep0.40.fits").afe == 0.4
    assert parse_name("Ebi1.30Zm0.40T02.5000_iPp0.00_baseFe_linear.fits").kind[0] == "E"
    assert parse_name("notes.fits") is None


def test_a_cube_comes_back_sorted(make_library, simulator):
    wave, (afe, mh, age), cube, meta = read_cube(make_library())
    assert_allclose(wave, WAVE)
    assert afe.tolist() == [0.0]
    assert (np.diff(mh) > 0).all()
    assert (np.diff(age) > 0).all()
    assert_allclose(cube[0], simulator.library.spectra()[::3, ::6], rtol=1e-6)
    assert not meta["synthetic"]


def test_the_second_reading_uses_the_cache_and_a_change_is_seen(make_library):
    folder = make_library()
    first = read_cube(folder)[2]
    assert_allclose(read_cube(folder)[2], first, rtol=0)
    victim = sorted(folder.glob("*.fits"))[0]
    victim.unlink()
    write_spectrum(victim, np.full(4300, 7e-5))
    assert (read_cube(folder)[2] == np.float32(7e-5)).any()


def test_missing_files_are_named(make_library):
    folder = make_library()
    for victim in sorted(folder.glob("*Zm2.27*"))[:7]:
        victim.unlink()
    with pytest.raises(LibraryError, match=r"incomplete.*\[M/H\] -2.27, .* and 2 more"):
        read_cube(folder)


def test_mixed_libraries_are_named(make_library, simulator):
    folder = make_library()
    write_spectrum(folder / miles_name(0.06, 0.03, imf="bi"), np.ones(4300))
    with pytest.raises(LibraryError, match="mixes libraries.*Mbi1.30"):
        read_cube(folder)


def test_base_and_enhanced_do_not_mix(make_library):
    folder = make_library()
    write_spectrum(folder / miles_name(0.06, 0.03, 0.4), np.ones(4300))
    with pytest.raises(LibraryError, match="mixes libraries"):
        read_cube(folder)


def test_strange_names_are_listed(make_library):
    folder = make_library()
    write_spectrum(folder / "readme.fits", np.ones(4300))
    with pytest.raises(LibraryError, match=r"without the name of a MILES.*readme\.fits"):
        read_cube(folder)


def test_other_wavelengths_are_refused(make_library):
    folder = make_library()
    victim = sorted(folder.glob("*.fits"))[3]
    victim.unlink()
    write_spectrum(victim, np.ones(4300), CRVAL1=3541.4)
    with pytest.raises(LibraryError, match=rf"'{victim.name}' has wavelengths 3541.4"):
        read_cube(folder)


def test_the_reference_pixel_is_honoured(make_library):
    folder = make_library()
    for path in folder.glob("*.fits"):
        from astropy.io import fits

        flux = fits.getdata(path)
        path.unlink()
        write_spectrum(path, flux, CRVAL1=WAVE[9], CRPIX1=10.0)
    assert_allclose(read_cube(folder)[0], WAVE)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1e-5])
def test_flux_that_is_no_flux_is_refused(make_library, value):
    folder = make_library()
    victim = sorted(folder.glob("*.fits"))[5]
    victim.unlink()
    flux = np.ones(4300)
    flux[17] = value
    write_spectrum(victim, flux)
    with pytest.raises(LibraryError, match=rf"{victim.name}': flux in pixel 18"):
        read_cube(folder)


def test_a_folder_without_spectra_is_refused(tmp_path):
    with pytest.raises(LibraryError, match="not a directory"):
        read_miles(tmp_path / "nothing")
    with pytest.raises(LibraryError, match="no FITS file"):
        read_miles(tmp_path)


def test_truncated_files_are_refused(make_library):
    folder = make_library()
    victim = sorted(folder.glob("*.fits"))[2]
    victim.write_bytes(victim.read_bytes()[:3000])
    with pytest.raises(LibraryError, match="is not a FITS spectrum"):
        read_cube(folder)


def test_two_planes_pass_the_alpha_check_and_say_synthetic(make_library):
    library = read_miles(make_library("two-planes-synthetic", planes=(0.0, 0.4)))
    assert library.synthetic
    assert library.afe.tolist() == [0.0, 0.4]
    check = check_alpha(library)
    assert not check.problems
    assert set(check.right_sign.values()) == {1.0}
    assert 1.2 < check.ratio[0] < check.ratio[2] < 2.5


def test_swapped_planes_are_detected(make_library):
    library = read_miles(make_library("swapped-synthetic", planes=(0.0, 0.4), swap=True))
    assert "swapped" in check_alpha(library).problems[0]


def test_real_cube_loads_completely(miles_directory):
    start = time.process_time()
    library = read_miles(miles_directory)
    assert time.process_time() - start < 60  # a hang, not a benchmark
    assert library.coeff.shape == (1, 12, 53, 65)
    cube = read_cube(miles_directory)[2]
    ten = int(np.argmin(np.abs(library.age_gyr - 10)))
    solar = int(np.argmin(np.abs(library.mh - 0.06)))
    assert np.median(cube[0, solar, ten]) == pytest.approx(1.75e-5, rel=0.01)
    error = (library.coeff @ library.basis) / cube - 1
    assert np.sqrt((error**2).mean()) < 1e-3  # stars of a real library differ one by one
