"""Catalogues: the same numbers as read whole, whatever the chunks, the order and the executor."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import read_table
from sbi_core.data.observations import FORMATS, Observations
from sbi_core.data.reading import Reading
from sbi_core.errors import ConfigError, DataFileError, ObservationError, RunDirectoryError
from sbi_core.files.lock import locked
from sbi_core.files.posterior_file import read_posterior
from sbi_core.pipeline import catalogue, chunk_files
from sbi_core.pipeline.catalogue import infer_catalogue

N = 23


@pytest.fixture
def objects(toy, rng, tmp_path):
    path = tmp_path / "objects.fits"
    toy.example_observations(rng, N).to_table().write(path)
    return path


@pytest.fixture
def infer(finished, tmp_path):
    """``infer(path, rows=7)`` -> (what became of it, the table)."""

    def call(path, out="out.ecsv", **options):
        target = tmp_path / out
        options = {"draws": 50, "rows": 7, **options}
        result = infer_catalogue(finished._context, path, target, **options)
        return result, read_table(target)

    return call


def rows_of(table):
    return {str(i): k for k, i in enumerate(table["id"])}


def test_the_draws_are_those_of_the_file_read_whole(finished, infer, objects, tmp_path):
    result, table = infer(objects)
    whole = finished.infer(objects, 50).summary()
    assert (result.n, result.excluded, result.chunks, result.resumed) == (N, 0, 4, 0)
    flags = [flag for word in np.ma.filled(whole["flags"], "") for flag in word.split(",") if flag]
    assert result.flags == {flag: flags.count(flag) for flag in flags}
    assert table.colnames == whole.colnames
    assert table.colnames[-2:] == ["flags", "support_percentile"]
    for name in whole.colnames[1:]:
        if name != "flags":
            assert_allclose(table[name], whole[name], rtol=1e-12)
    assert table["offset_mean"].unit == whole["offset_mean"].unit
    assert (
        sorted(p.name for p in tmp_path.iterdir() if ".tmp" in p.name or "chunks" in p.name) == []
    )


def test_neither_order_nor_chunks_matter(infer, objects, tmp_path, rng):
    _, one = infer(objects)
    shuffled = tmp_path / "shuffled.fits"
    Table.read(objects)[rng.permutation(N)].write(shuffled)
    _, other = infer(shuffled, rows=5)
    order = [rows_of(other)[str(i)] for i in one["id"]]
    for name in one.colnames[1:]:
        if name != "flags":
            assert_allclose(one[name], other[name][order], rtol=1e-9)


@pytest.mark.parametrize("suffix", [".ecsv", ".csv", ".tsv", ".fits", ".h5", ".parquet", ".vot"])
def test_every_format_comes_back(suffix, infer, objects):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    _, reference = infer(objects)
    _, table = infer(objects, out=f"t{suffix}")
    assert table.colnames == reference.colnames
    assert [str(v) for v in table["id"]] == [str(v) for v in reference["id"]]
    assert_allclose(table["slope_p50"], reference["slope_p50"], rtol=1e-12)
    assert suffix in FORMATS


def test_an_interrupted_catalogue_goes_on(infer, objects, monkeypatch):
    real, seen = chunk_files.write_chunk, []

    def breaks(work, chunk):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(chunk)
        return real(work, chunk)

    monkeypatch.setattr(chunk_files, "write_chunk", breaks)
    with pytest.raises(KeyboardInterrupt):
        infer(objects)
    monkeypatch.setattr(chunk_files, "write_chunk", real)
    result, table = infer(objects)
    assert result.resumed == 2
    _, calm = infer(objects, out="calm.ecsv")
    assert_array_equal(table["slope_mean"], calm["slope_mean"])
    result, _ = infer(objects, draws=51)
    assert result.resumed == 0


def test_chunks_of_other_rows_or_damaged_ones_are_done_again(infer, objects, monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "write_parts", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        infer(objects)
    folder = tmp_path / ".out.ecsv.chunks"
    chunks = sorted(folder.glob("chunk-*.h5"))
    assert len(chunks) == 4
    content = bytearray(chunks[0].read_bytes())
    content[len(content) // 2] ^= 255
    chunks[0].write_bytes(content)
    chunks[1].write_bytes(b"")
    monkeypatch.undo()
    result, table = infer(objects)
    assert result.resumed in (2, 3)  # a flipped byte may lie between the data
    _, calm = infer(objects, out="calm.ecsv")
    assert_array_equal(table["slope_mean"], calm["slope_mean"])


def test_a_bad_row_is_found_before_anything_is_inferred(infer, objects, monkeypatch, tmp_path):
    table = Table.read(objects)
    table["e_b"][16] = -1.0
    table.write(tmp_path / "bad.fits")
    result, out = infer(tmp_path / "bad.fits")
    assert (result.n, result.excluded) == (N - 1, 1)
    assert result.notes[-1].startswith(
        "1 row cannot be inferred (not_positive:e_b): row 16; error column"
    )
    assert out["flags"][16] == "not_positive:e_b"
    monkeypatch.setattr(chunk_files, "write_chunk", None)
    message = r"bad.fits: error column 'e_b' must be positive, but is -1 in row 2.* from row 14"
    with pytest.raises(ObservationError, match=message):
        infer(tmp_path / "bad.fits", reading=Reading(strict=True))


def test_of_an_identifier_in_several_chunks_the_first_complete_row_counts(
    infer, finished, objects, tmp_path
):
    table = Table.read(objects)
    for row, of in ((20, 1), (22, 1), (9, 2), (10, 3)):
        table["id"][row] = table["id"][of]
    table["b"][[1, 10]] = np.nan  # row 20 has more than row 1, row 10 less than row 3
    path = tmp_path / "twice.fits"
    table.write(path)
    result, out = infer(path)
    assert (result.n, result.excluded) == (N - 4, 4)
    note = "4 rows cannot be inferred (repeated_id): rows 1, 9, 10, 22"
    assert result.notes[-1] == f"{note}; '{table['id'][1]}' appears again in row 1"
    assert np.flatnonzero(out["flags"] == "repeated_id").tolist() == [1, 9, 10, 22]
    whole = finished.infer(path, 50).summary()
    for name in ("slope_mean", "support_percentile"):
        assert_allclose(np.ma.filled(out[name], np.nan), np.ma.filled(whole[name], np.nan))
    with pytest.raises(ObservationError, match="repeated_id"):
        infer(path, reading=Reading(strict=True))


def test_a_made_up_identifier_is_that_of_no_row_of_another_chunk(finished, infer, objects):
    table = read_table(objects)
    table["id"] = [f"row-{k + 7}" for k in range(N)]  # row-15 is in the chunk before
    table["id"][15] = ""
    path = objects.with_suffix(".ecsv")
    table.write(path)
    result, out = infer(path)
    assert (result.n, result.excluded) == (N, 0)
    assert out["id"].tolist() == finished.infer(path, 50).id.tolist()


def test_rows_without_any_value_are_counted(infer, objects, tmp_path):
    table = Table.read(objects)
    for name in "abc":
        table[name][6:15] = np.nan  # a whole chunk and parts of its neighbours
    table.write(tmp_path / "gaps.fits")
    result, out = infer(tmp_path / "gaps.fits")
    assert (result.n, result.excluded, len(out)) == (N - 9, 9, N)
    assert (
        result.notes[-1] == "9 rows cannot be inferred (nothing_observed): rows 6, 7, 8, 9, 10, ..."
    )
    assert out["flags"].tolist()[5:16].count("nothing_observed") == 9
    assert np.isnan(np.ma.filled(out["slope_mean"][6:15], np.nan)).all()
    assert np.isfinite(out["slope_mean"][15:]).all()
    for name in "abc":
        table[name][:] = np.nan
    table.write(tmp_path / "empty.fits")
    with pytest.raises(ObservationError, match="nothing to infer: 23 row"):
        infer(tmp_path / "empty.fits")


def test_counts_of_chunks_are_summed_with_their_noun(infer, objects):
    whole = infer(objects)[0].notes
    table = read_table(objects)
    for rows, count in ([3], "1 limit"), ([3, 9], "2 limits"), ([3, 4, 9], "3 limits"):
        table["l_a"] = [">" if k in rows else "" for k in range(N)]
        path = objects.with_suffix(".ecsv")
        table.write(path, overwrite=True)
        new = set(infer(path)[0].notes) - set(whole)
        assert f"{count} of 'a': treated as unobserved" in new


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_notes_of_a_file_of_observations_are_not_summed_over_its_chunks(
    suffix, infer, toy, rng, tmp_path
):
    path = tmp_path / f"objects{suffix}"
    notes = ("2 rows without identifier", "3 of 5 numbers are odd")
    replace(toy.example_observations(rng, N), notes=notes).write(path)
    assert infer(path)[0].notes == notes


def test_draws_are_written_when_asked(finished, infer, objects, tmp_path):
    infer(objects, samples=tmp_path / "draws.nc")
    whole = finished.infer(objects, 50)
    found = read_posterior(tmp_path / "draws.nc")
    assert_allclose(found["slope"].values[0], whole["slope"], rtol=1e-6)
    assert found["object"].values.tolist() == whole.id.tolist()
    stats = read_posterior(tmp_path / "draws.nc", "sample_stats")
    assert stats["support_percentile"].shape == (N,)
    observed = read_posterior(tmp_path / "draws.nc", "observed_data")
    assert observed["x"].shape == (N, 3)
    assert observed["observable"].values.tolist() == ["a", "b", "c"]
    assert "slope" in read_posterior(tmp_path / "draws.nc", "prior")


def test_files_whose_rows_are_not_objects_are_read_whole(finished, infer, objects):
    simulator = finished.simulator

    class Own(type(simulator)):
        rows_are_objects = False

        def observations_of(self, table, source):
            assert len(table) == N
            return super().observations_of(table, source)

    _, reference = infer(objects)
    simulator.__class__ = Own
    result, table = infer(str(objects))
    assert result.n == N
    assert_array_equal(table["slope_mean"], reference["slope_mean"])


def test_two_processes_on_one_target_are_refused(infer, objects, tmp_path):
    folder = tmp_path / ".out.ecsv.chunks"
    folder.mkdir()
    with locked(folder), pytest.raises(RunDirectoryError, match="is in use by process"):
        infer(objects)


def test_what_cannot_fit_is_refused_with_numbers(infer, objects, monkeypatch):
    monkeypatch.setattr("sbi_core.data.limits.available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"7 objects with 50 draws would take .* 0.0 MiB are fr"):
        infer(objects)


def test_arrays_of_another_plugin_are_refused_in_a_sentence(infer, finished, rng, tmp_path):
    batch = Batch.of_arrays(x=rng.normal(size=(4, 30)).astype(np.float32))
    Observations.from_batch(batch).write(tmp_path / "other.npz")
    with pytest.raises(ObservationError, match=r"shape \(30,\), but \(\d,\).*plugin 'toy'"):
        infer(tmp_path / "other.npz")
    with pytest.raises(ObservationError, match="not those of plugin 'toy'"):
        finished.infer(tmp_path / "other.npz", 20)


def test_a_missing_file_is_named(infer, tmp_path):
    with pytest.raises(DataFileError, match="none.fits' does not exist"):
        infer(tmp_path / "none.fits")


@pytest.mark.parametrize("suffix", [".fits", ".ecsv", ".csv", ".h5", ".parquet"])
def test_a_catalogue_that_changes_ends_the_run(suffix, infer, objects, tmp_path, monkeypatch):
    """No chunk is stored under the identity of rows that it was not inferred from."""
    path, other = tmp_path / f"cat{suffix}", tmp_path / f"new{suffix}"
    table = read_table(objects)
    form = (
        {"format": FORMATS[suffix], "path": "t"} if suffix == ".h5" else {"format": FORMATS[suffix]}
    )
    table.write(path, **form)
    changed = table.copy()
    changed[table.colnames[2]] = np.asarray(table[table.colnames[2]]) + 0.25
    changed.write(other, **form)
    whole = chunk_files.infer_chunk
    done = []

    def infer_chunk(*args):
        if len(done) == 2:
            path.write_bytes(other.read_bytes())
        done.append(1)
        return whole(*args)

    _, before = infer(path)
    content = path.read_bytes()
    monkeypatch.setattr(chunk_files, "infer_chunk", infer_chunk)
    if suffix == ".parquet":  # its rows were in memory
        infer(path, out="again.ecsv")
    else:
        with pytest.raises(DataFileError, match="changed while it was inferred"):
            infer(path, out="again.ecsv")
    monkeypatch.setattr(chunk_files, "infer_chunk", whole)
    path.write_bytes(content)
    result, after = infer(path, out="again.ecsv")
    assert [before[c].tolist() for c in before.colnames] == [
        after[c].tolist() for c in after.colnames
    ]


def test_intermediate_results_are_not_written_through_a_link(infer, objects, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")
    (tmp_path / ".out.ecsv.chunks").symlink_to(home)
    with pytest.raises(RunDirectoryError, match="is a link"):
        infer(objects)
    assert [p.name for p in home.iterdir()] == ["thesis.txt"]


def test_files_of_others_among_the_chunks_stay(infer, objects, tmp_path):
    folder = tmp_path / ".out.ecsv.chunks"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    infer(objects)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
