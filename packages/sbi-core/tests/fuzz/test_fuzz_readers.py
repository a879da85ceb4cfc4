"""Whatever a file holds, reading it ends with observations or with one sentence."""

import io

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbi_core.data.chunks import open_slices, read_observations
from sbi_core.data.observations import Observable, Observations
from sbi_core.errors import SbiError
from sbi_core.files.directory import read_arrays, read_json, read_lines
from sbi_core.files.tensors import read_tensors

QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LETTERS = "ab.,;\"' \n\r\t#é星\u2028"
OBSERVABLES = (Observable("a", unit="dex"), Observable("b"))
READERS = {
    "read": lambda p: read_observations(p, OBSERVABLES, default_error=0.1),
    "chunks": lambda p: [s.read(k) for s in [open_slices(p, 2)] for k in range(len(s))],
}
pytestmark = pytest.mark.filterwarnings("ignore")


def tried(read, path):
    """Read; a user's error is one line that names the file."""
    try:
        return read(path)
    except SbiError as error:
        names_the_file(error, path)
        return None


def names_the_file(error, path):
    assert path.name in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "ecsv", "fits", "fits.gz", "vot", "h5", "npz"])
@QUICK
@given(content=st.binary(min_size=0, max_size=400))
def test_bytes_of_any_kind(reader, suffix, content, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    tried(READERS[reader], path)


CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=32).map(repr),
    st.text(LETTERS, max_size=8),
    st.sampled_from(["", "nan", "1e400", "-", "--", "0x1", "NULL", "1,2", '"', "=1+1"]),
)
NAMES = st.sampled_from(["a", "A", "[a]", "e_a", "a_err", "b", "id", "group", "z", "", "a b", '"'])


@pytest.mark.parametrize("reader", READERS)
@QUICK
@given(names=st.lists(NAMES, max_size=5), rows=st.lists(st.lists(CELLS, max_size=5), max_size=5))
def test_tables_of_any_words(reader, names, rows, tmp_path):
    path = tmp_path / "x.csv"
    text = "\n".join(",".join(cells) for cells in [names, *rows])
    path.write_text(text, encoding="utf-8", newline="")
    found = tried(READERS[reader], path)
    if isinstance(found, Observations):
        x = found.batch.x.numpy()[found.batch.observed.numpy()]
        assert np.isfinite(x).all()
        assert len(set(found.id.tolist())) == len(found)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes of a sound file of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    table = Table({"id": ["p", "q", "r"], "a": [1.0, 2.0, 3.0], "e_a": [0.1, 0.1, 0.2]})
    for suffix, form in (("fits", "fits"), ("vot", "votable"), ("ecsv", "ascii.ecsv")):
        table.write(folder / f"x.{suffix}", format=form)
    table.write(folder / "x.h5", path="t", format="hdf5", serialize_meta=True)
    f = io.BytesIO()
    np.savez_compressed(f, x=np.ones((3, 2)))
    (folder / "x.npz").write_bytes(f.getvalue())
    return {p.suffix: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".fits", ".vot", ".ecsv", ".h5", ".npz"])
@QUICK
@given(data=st.data())
def test_sound_files_with_a_few_bytes_changed(reader, suffix, data, originals, tmp_path):
    content = bytearray(originals[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bytes(content[:cut]))
    tried(READERS[reader], path)


@pytest.mark.parametrize("read", [read_json, read_lines, read_arrays, read_tensors])
@QUICK
@given(content=st.one_of(st.binary(max_size=200), st.just(b"[" * 100_000)))
def test_records_of_any_bytes(read, content, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(content)
    tried(read, path)


@QUICK
@given(
    name=st.text("aZ0 .-_/[]<>&\"'éß星\u2028", min_size=1, max_size=20),
    value=st.floats(-5, 5),
)
def test_what_is_written_comes_back(name, value, tmp_path):
    """Identifiers keep every character through npz and HDF5."""
    from sbi_core.data.batch import Batch

    for suffix in ("npz", "h5"):
        path = tmp_path / f"x.{suffix}"
        one = Observations.from_batch(Batch.of_arrays(x=[[value]]), id=[name])
        one.write(path, overwrite=True)
        assert Observations.read(path).id.tolist() == [name]
