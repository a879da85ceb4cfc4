"""A full disk and its kin cost one sentence, whoever wrapped them."""

import errno
import logging
import os

import pytest

from sbi_core import cli
from sbi_core.cli.system_errors import explain
from sbi_core.data.writing import write_atomic
from sbi_core.pipeline.runner import _logging_to


def _full(name="run/sims/part-000001.h5.tmp4711"):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def test_the_file_is_named_by_its_final_name():
    words = explain(_full())
    assert words == (
        "'run/sims/part-000001.h5': the disk is full; free some space or use another --out. "
        "Finished files are whole: the same command goes on from here"
    )


def test_a_number_in_the_text_is_enough():
    text = "Can't write (file write failed: filename = 'posterior.nc.tmp7', errno = 28, buf = 0x1)"
    assert explain(OSError(text)).startswith("'posterior.nc': the disk is full")


def test_causes_are_read_too():
    outer, inner = RuntimeError("later"), RuntimeError("in between")
    outer.__cause__, inner.__context__ = inner, _full()
    assert explain(outer) == explain(_full())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "can only be read"),
        (errno.EDQUOT, "quota"),
        (errno.EMFILE, "ulimit"),
        (errno.EISDIR, "move it elsewhere"),
        (errno.EIO, "input/output error"),
    ],
)
def test_what_can_be_mended_is_explained(number, words):
    assert words in explain(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("error", [ValueError("errno 28"), OSError("no number"), KeyError("x")])
def test_other_errors_keep_their_traceback(error):
    assert explain(error) is None


def test_the_command_line_says_it_in_one_line(monkeypatch, capsys):
    def main(**_):
        raise _full()

    monkeypatch.setattr(cli.app, "main", main)
    with pytest.raises(SystemExit) as end:
        cli.main(["plugins"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("sbi-run: 'run/sims/part-000001.h5': the disk is full")
    with pytest.raises(OSError, match="No space left"):
        cli.main(["plugins", "--debug"])


def test_a_log_that_cannot_be_written_prints_nothing(tmp_path, capsys):
    class Full:
        def write(self, _):
            raise _full()

        def flush(self):
            """Nothing is held back."""

        def close(self):
            """Nothing is open."""

    log = logging.getLogger("sbi_core")
    with _logging_to(tmp_path / "log.txt"):
        log.handlers[-1].stream.close()
        log.handlers[-1].stream = Full()
        log.warning("lost")
    assert "Traceback" not in capsys.readouterr().err


def test_a_long_name_and_a_pipe_are_explained(tmp_path):
    with pytest.raises(OSError, match="too long") as long:
        (tmp_path / ("a" * 300)).touch()
    assert "name is too long" in str(explain(long.value))
    os.mkfifo(tmp_path / "p.csv")
    with pytest.raises(FileExistsError) as pipe:
        write_atomic(tmp_path / "p.csv", b"")
    assert "a pipe, a device" in str(explain(pipe.value))
