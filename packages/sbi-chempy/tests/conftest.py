"""Fixtures of the chempy tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sbi_chempy.engine import ChempyEngine
from sbi_chempy.yields import YieldSet, load_embedded_set, load_yields

CHECK_POINT = (-2.3, -2.89, -0.3, 0.55, 0.5, 10.0)


@pytest.fixture(autouse=True)
def one_thread():
    """Small batches run faster, and fairer to the neighbours, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chempy_data() -> Path:
    """Folder with outputs of the original code (``SBI_DATA_DIR/chempy``)."""
    root = os.environ.get("SBI_DATA_DIR")
    if not root:
        pytest.skip("SBI_DATA_DIR is not set: no reference outputs of the original code")
    folder = Path(root) / "chempy"
    if not (folder / "ref_tng.npz").is_file():
        pytest.skip(f"no chempy reference outputs in {folder}")
    return folder


@pytest.fixture(scope="session")
def default_yields() -> YieldSet:
    return load_embedded_set(name="default")


@pytest.fixture(scope="session")
def published_yields(chempy_data):
    """Loader of the sets that are not shipped."""
    return lambda name: load_yields(name, chempy_data.parent)


@pytest.fixture(scope="session")
def default_engine(default_yields) -> ChempyEngine:
    return ChempyEngine(default_yields)


@pytest.fixture
def check_point() -> torch.Tensor:
    return torch.tensor([CHECK_POINT], dtype=torch.float64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251)


@pytest.fixture
def prior_draws(rng):
    """Rows drawn from the prior."""

    def draw(n: int) -> torch.Tensor:
        theta = rng.normal((-2.3, -2.89, -0.3, 0.55, 0.5, 0), (0.3, 0.3, 0.3, 0.1, 0.1, 0), (n, 6))
        theta[:, 3] = theta[:, 3].clip(0.295)
        theta[:, 4] = theta[:, 4].clip(0.01, 0.99)
        theta[:, 5] = rng.uniform(1.0, 13.797, n)
        return torch.as_tensor(theta)

    return draw
