"""Tiny libraries in MILES format, reference data when they are there, and shared simulators."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from miles_files import alpha_factor, miles_name, write_spectrum  # noqa: E402

from sbi_sfh.config import SfhConfig  # noqa: E402
from sbi_sfh.simulator import SfhSimulator  # noqa: E402

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.setdefault("SBI_DATA_DIR", str(REFERENCE))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(7))


def reference_file(*parts: str) -> Path:
    """Return a reference file or folder, or skip with the reason."""
    path = Path(os.environ.get("SBI_DATA_DIR", str(REFERENCE))).joinpath("sfh", *parts)
    if not path.exists():
        pytest.skip(f"reference data {'/'.join(parts)} are not here (SBI_DATA_DIR)")
    return path


@pytest.fixture
def miles_directory() -> Path:
    return reference_file("miles", "MILES_BASTI_KB_Ep0.00")


@pytest.fixture
def manga_file() -> Path:
    return reference_file("manga_spectra_dev.fits")


@pytest.fixture(scope="session")
def simulator() -> SfhSimulator:
    return SfhSimulator(SfhConfig())


@pytest.fixture(scope="session")
def observed_simulator() -> SfhSimulator:
    return SfhSimulator(SfhConfig(mode="observed"))


@pytest.fixture
def make_library(tmp_path: Path, simulator: SfhSimulator) -> Callable[..., Path]:
    """Write a small cube of the embedded spectra as a MILES directory."""

    def make(
        name: str = "library",
        *,
        planes: tuple[float, ...] = (),
        swap: bool = False,
        every: tuple[int, int] = (3, 6),
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        library = simulator.library
        rows = range(0, len(library.mh), every[0])
        ages = range(0, len(library.age_gyr), every[1])
        spectra = library.spectra()
        for i in rows:
            for j in ages:
                mh, age = float(library.mh[i]), float(library.age_gyr[j])
                if not planes:
                    write_spectrum(folder / miles_name(mh, age), spectra[i, j])
                for a in planes:
                    enhanced = (a > 0) != swap
                    flux = spectra[i, j] * (alpha_factor(mh) if enhanced else 1.0)
                    write_spectrum(folder / miles_name(mh, age, a), flux, SYNTH=True)
        return folder

    return make
