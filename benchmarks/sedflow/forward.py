"""Is the forward model right, and how fast?

Reference draws: an independent evaluation at native resolution (1000 draws with burst), and the
emulator of PROVABGS (250 draws without burst; FSPS, so that offsets of the populations remain).
Speed: SEDs per processor second, batch 1 to 1e4, random redshifts and one redshift.

    SBI_DATA_DIR=... python benchmarks/sedflow/forward.py --out forward.json
"""

from __future__ import annotations

import time

import numpy as np
from common import Clock, arguments, reference, write

from sbi_sedflow.bases import provabgs_bases
from sbi_sedflow.constants import BANDS
from sbi_sedflow.emulator import ProvabgsEmulator
from sbi_sedflow.forward import ForwardModel
from sbi_sedflow.ssp import load_library


def magnitudes(flux):
    return 22.5 - 2.5 * np.log10(np.asarray(flux))


def prototype(folder, numbers):
    ref = np.load(folder / "ref_bc03_proto.npz")
    for pixels in (512, 1024, 2048):
        model = ForwardModel(load_library(pixels=pixels), bases=provabgs_bases(folder))
        flux = model.photometry(ref["theta"], ref["z"])
        off = magnitudes(flux) - magnitudes(ref["flux_nmgy_fullres"])
        rms, p99 = np.sqrt((off**2).mean(0)), np.percentile(np.abs(off), 99, axis=0)
        print(f"{pixels} pixels, |dm| rms / 99 % / max [mag]")
        for k, band in enumerate(BANDS):
            print(f"    {band}  {rms[k]:.4f}  {p99[k]:.4f}  {np.abs(off[:, k]).max():.4f}")
        numbers[f"photometry_{pixels}"] = {
            "rms": rms.tolist(), "p99": p99.tolist(), "max": np.abs(off).max(0).tolist(),
        }  # fmt: skip
    derived = model.derived(ref["theta"], ref["z"])
    names = {"sfr_1gyr": "sfr_1gyr", "z_mw": "z_mw", "tage_mw": "tage_mw_gyr",
             "msurv_frac": "msurv_frac"}  # fmt: skip
    worst = {k: float(np.abs(derived[k] / ref[v] - 1).max()) for k, v in names.items()}
    print("derived quantities, largest relative difference:", worst)
    numbers["derived"] = worst


def emulator(folder, numbers):
    ref = np.load(folder / "ref_provabgs_emulator.npz")
    t, n = ref["theta"], len(ref["z"])
    theta = np.concatenate([t[:, :5], np.tile([0.0, 1.0], (n, 1)), t[:, 5:]], axis=1)
    for variant in ("provabgs", "corrected"):
        model = ForwardModel(load_library(), bases=provabgs_bases(folder), variant=variant)
        off = magnitudes(model.photometry(theta, ref["z"])[:, 2:]) - ref["mags_sdss"]
        middle = np.median(off, axis=0)
        low, high = np.percentile(off, [16, 84], axis=0)
        print(f"BC03 - emulated FSPS, ugriz, {variant}: median {middle.round(3)}, half width "
              f"{((high - low) / 2).round(3)}")  # fmt: skip
        numbers[f"fsps_offset_{variant}"] = {
            "median": middle.tolist(), "half_width": ((high - low) / 2).tolist(),
        }  # fmt: skip
    edges, sfr, zh = model.sfh(theta, ref["z"])
    seen = ref["sfh_msun_yr"] > 1e-6 * ref["sfh_msun_yr"].max()
    numbers["sfh"] = float(np.abs(sfr / ref["sfh_msun_yr"] - 1)[seen].max())
    numbers["zh"] = float(np.abs(zh / ref["zh"] - 1).max())
    network = ProvabgsEmulator(folder / "provabgs_nmf_emulator.npz")
    k = ref["theta_unt"]
    with Clock() as clock:
        lum = network.luminosity(k[:, 1:4], k[:, 4:6], k[:, 6:9], ref["tage_gyr"])
    ours = lum * 10.0 ** k[:, :1]
    numbers["emulator"] = float(np.abs(ours / ref["lum_rest"] - 1).max())
    numbers["emulator_ms_per_sed"] = 1e3 * clock.cpu / n
    print({x: numbers[x] for x in ("sfh", "zh", "emulator", "emulator_ms_per_sed")})


def speed(args, numbers):
    rng = np.random.default_rng(args.seed)
    sizes = (1, 10, 64, 100, 1000, 10_000)
    from sbi_sedflow.parameters import parameter_space

    theta = parameter_space().sample(max(sizes), rng)
    z = rng.uniform(0.003, 0.2, max(sizes))
    found = {}
    for pixels in (512, 1024):
        model = ForwardModel(load_library(pixels=pixels))
        for n in sizes:
            rates = []
            for shift in (z[:n], 0.05):
                model.photometry(theta[:n], shift)
                repeats = max(3, 3000 // n)
                start = time.process_time()
                for _ in range(repeats):
                    model.photometry(theta[:n], shift)
                rates.append(n * repeats / (time.process_time() - start))
            found[f"{pixels}/{n}"] = rates
            print(f"{pixels} pixels, batch {n:>6}: {rates[0]:>9.0f} SEDs per core second, one z "
                  f"{rates[1]:>9.0f}")  # fmt: skip
    numbers["seds_per_core_second"] = found


def sanity(numbers):
    """Bolometric luminosity and living mass of the grid, solar metallicity."""
    from sbi_sedflow.ssp import bc03

    path = bc03.find()
    grid = bc03.read(path, bc03.sha256_of(path))
    lbol = np.trapezoid(grid.lum[:, 4], grid.wave, axis=-1)
    rows = {}
    for age in (0.001, 0.01, 0.1, 1.0, 10.0):
        k = int(np.argmin(np.abs(np.log(grid.age_gyr / age))))
        rows[str(age)] = [float(lbol[k]), float(grid.living[k, 4])]
    print("age [Gyr]: [Lsun, living mass] per Msun formed:", rows)
    numbers["populations"] = rows


def main():
    args = arguments(__doc__)
    folder, numbers = reference(), {}
    sanity(numbers)
    prototype(folder, numbers)
    emulator(folder, numbers)
    speed(args, numbers)
    write(args, numbers)


if __name__ == "__main__":
    main()
