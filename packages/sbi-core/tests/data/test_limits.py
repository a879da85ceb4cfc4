"""Bounds of memory and disk, and the table of limits."""

import pytest

from sbi_core.data import limits
from sbi_core.data.chunks import read_table
from sbi_core.errors import ConfigError, DataFileError


def test_memory_is_known():
    assert 2**20 < limits.available_memory() < 2**50


def test_sizes_are_words():
    assert limits.gib(3 * 2**30) == "3.0 GiB"
    assert limits.gib(2**19) == "0.5 MiB"


def test_what_exceeds_memory_or_disk_is_refused_with_numbers(tmp_path):
    limits.check_memory("a little", 1000, "")
    limits.check_disk("a little", 1000, tmp_path / "not" / "there", "")
    with pytest.raises(
        ConfigError, match=r"^it would take 9\d+.* GiB of memory, .* are free; less$"
    ):
        limits.check_memory("it", 1e18, "less")
    with pytest.raises(ConfigError, match=r"^it would take 9\d+.* GiB of disk, .* are free there"):
        limits.check_disk("it", 1e18, tmp_path, "less")


def test_limits_are_raised_by_name_and_unknown_ones_are_refused(monkeypatch):
    assert limits.limits() == limits.Limits()
    monkeypatch.setenv("SBI_LIMITS", "expansion=1000, columns=5e4")
    assert limits.limits() == limits.Limits(expansion=1000, columns=50_000)
    for words, message in (("colums=1", "did you mean 'columns'"), ("line=x", "line=NUMBER")):
        monkeypatch.setenv("SBI_LIMITS", words)
        with pytest.raises(ConfigError, match=message):
            limits.limits()


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a, b,a\n1,2,3\n")
    with pytest.raises(DataFileError, match="column 'a' appears 2 times; keep one"):
        read_table(tmp_path / "a.csv")
