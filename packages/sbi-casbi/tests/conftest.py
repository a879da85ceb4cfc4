import numpy as np
import pytest

from sbi_casbi.config import CasbiConfig
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.simulator import CasbiSimulator


@pytest.fixture(scope="session")
def library():
    return build_dwarfs(DwarfConfig(stems=400), fractions=(0.6, 0.2, 0.2))


@pytest.fixture(scope="session")
def simulator(library):
    return CasbiSimulator(CasbiConfig(sigma_fe=(0.1, 0.1), sigma_o=(0.05, 0.05)), library)


@pytest.fixture
def rng():
    return np.random.default_rng(11)
