"""The command line: one sentence and the right exit code for every mistake."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import sbi_toy
from astropy.table import Table

import sbi_core
from sbi_core.cli import EXIT_CALIBRATION, main
from sbi_core.registry import Registry

pytestmark = pytest.mark.usefixtures("toy_installed")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """``cli("--plugin", "toy")`` -> (exit code, stdout, stderr), in an empty directory."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*args):
        with pytest.raises(SystemExit) as raised:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        return raised.value.code, out, err

    call.work = work
    return call


@pytest.fixture
def toy_file(tmp_path, toy, rng):
    path = tmp_path / "objects.ecsv"
    toy.example_observations(rng, 8).write(path)
    return path


def sbi_run(*args, **environment):
    code = "from sbi_core.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plugin", "nonsense"], "unknown plugin 'nonsense' (installed: "),
        (["--plugin", "toyy"], "unknown plugin 'toyy'; did you mean 'toy'?"),
        (["--plugin", "toy", "--preset", "quik"], "no preset 'quik'; did you mean 'quick'?"),
        (["--plugin", "toy", "--set", "simulate.m=5"], "unknown option 'simulate.m'"),
        (["--plugin", "toy", "--set", "simulat.n=5"], "did you mean 'simulate'"),
        (["--plugin", "toy", "--set", "simulate.n=x"], "option 'simulate.n' = 'x'"),
        (["--plugin", "toy", "--set", "simulate.n"], "cannot read --set 'simulate.n'"),
        (["--plugin", "toy", "--config", "no.toml"], "configuration file 'no.toml' does not"),
        (["--plugin", "toy", "--stages", "simulate,trian"], "did you mean 'train'?"),
        (["--plugin", "toy", "--restart", "infr"], "did you mean 'infer'?"),
        (["--plugin", "toy", "--executor", "serail"], "did you mean 'serial'?"),
        (["--plugin", "toy", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["--plugin", "toy", "--observations", "no.csv"], "'no.csv' does not exist"),
        (["--plugin", "toy", "--seed", "-1"], "--seed"),
        (["--plugin", "toy", "--seed", "one"], "--seed"),
        (["--plugin", "toy", "--draws", "3"], "--draws"),
        (["--plugin", "toy", "--workers", "0"], "--workers"),
        (["--plugin", "toy", "--presett", "quick"], "--preset"),
        (["--plugin"], "requires an argument"),
        (["plugin"], "no command 'plugin'; did you mean 'plugins'"),
        (["toyy"], "no command 'toyy'; did you mean 'toy'?"),
        (["toy", "--preset", "quick"], "no option --preset; to run the pipeline: sbi-run run toy"),
        (["--preset", "quick", "run", "toy"], "put --preset after the command's name"),
        (["--preset", "quick"], "--preset: name the plugin to run, with --plugin NAME"),
        (["run"], "name the plugin to run, or give --simulations FILE; see `sbi-run plugins`"),
        (["--simulations", "s.csv"], "--simulations needs --prior FILE"),
        (["run", "toy", "--simulations", "s.csv", "--prior", "p"], "leave out 'toy'"),
        (["run", "toy", "--group-column", "halo"], "--group-column goes with --simulations FILE"),
        (["--simulations", "s.csv", "--prior", "p.toml"], "file of priors 'p.toml' does not exist"),
        (["show", "nonsense"], "unknown plugin 'nonsense'"),
        (["show", "toy", "--preset", "huge"], "has no preset 'huge'"),
        (["show"], "missing argument 'NAME'; see `sbi-run "),
        (["infer", "no-run", "--observations", "x.csv"], "run directory 'no-run' does not exist"),
        (["infer", ".", "--observations", "x.csv"], "holds no run"),
        (["combine", "no-run", "--observations", "x.csv"], "run directory 'no-run' does not"),
        (["report", "no-run"], "run directory 'no-run' does not exist"),
        (["cite", "no-run"], "run directory 'no-run' does not exist"),
        (["data", "fetch", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_a_mistake_costs_one_sentence_and_exit_code_2(args, message, cli):
    code, out, err = cli(*args)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert err.startswith("sbi-run: ")
    assert err.count("\n") == 1
    assert list(cli.work.iterdir()) == []  # nothing half-written


def test_a_bad_observations_file_leaves_no_run_directory(cli, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text("a,e_a\n1,-1\n")
    code, _, err = cli("--plugin", "toy", "--preset", "quick", "--observations", file)
    assert code == 2
    assert "error column 'e_a' must be positive, but is -1 in row 0" in err
    assert list(cli.work.iterdir()) == []


def test_debug_shows_the_traceback(capsys):
    from sbi_core.errors import PluginError

    with pytest.raises(PluginError):
        main(["--debug", "--plugin", "nonsense"])


def test_a_directory_with_foreign_files_is_refused(cli, tmp_path):
    (cli.work / "mine").mkdir()
    (cli.work / "mine" / "thesis.tex").touch()
    code, _, err = cli("--plugin", "toy", "--preset", "quick", "--out", "mine")
    assert code == 2
    assert "not empty and holds no run (thesis.tex)" in err


def test_a_broken_plugin_does_not_disturb_another(cli, install):
    install("sbi-bad", {"bad": "bad_plugin"}, bad_plugin="import nothing_of_that_name")
    code, out, _ = cli("show", "toy")
    assert code == 0
    code, out, _ = cli("plugins")
    assert code == 0
    assert "bad  (sbi-bad 0.1)  [failed]" in out
    assert "problem: ModuleNotFoundError: No module named 'nothing_of_that_name'" in out
    code, _, err = cli("--plugin", "bad")
    assert code == 2
    assert "plugin 'bad' (sbi-bad) could not be loaded" in err


# -- a whole run ----------------------------------------------------------------------------------


def test_a_run_prints_its_result_and_where_the_report_is(cli):
    code, out, err = cli("--plugin", "toy", "--preset", "quick", "--out", "r", "--seed", "4")
    assert code == 0, err
    assert "gaussian, N = 20: slope = " in out
    assert "toy-wrong, N = 20: slope = " in out
    assert "(comparison only)" in out
    assert "calibration: pass" in out
    assert "report: r/report.html" in out.replace(os.sep, "/")
    assert "simulate: 6 shards" in err
    report = json.loads((cli.work / "r" / "report.json").read_text())
    assert (report["seed"], report["status"], report["plugin"]) == (4, "ok", "toy")
    code, out, err = cli("--plugin", "toy", "--preset", "quick", "--out", "r", "--seed", "4")
    assert code == 0
    assert err.count("already done") == 7


def test_the_default_directory_is_named_after_plugin_and_preset(cli):
    code, *_ = cli("--plugin", "toy", "--preset", "quick", "--stages", "simulate", "--quiet")
    assert code == 0
    assert (cli.work / "runs" / "toy-quick" / "run.toml").exists()


def test_quiet_is_quiet(cli):
    code, out, err = cli(
        "--plugin", "toy", "--preset", "quick", "--stages", "simulate", "--quiet", "--out", "r"
    )
    assert (code, out, err) == (0, "", "")


def test_set_reaches_the_seed_and_a_named_seed_wins(cli):
    words = ["--plugin", "toy", "--preset", "quick", "--stages", "simulate", "--set", "seed=9"]
    cli(*words, "--out", "a")
    cli(*words, "--out", "b", "--seed", "3")
    assert "seed = 9" in (cli.work / "a" / "run.toml").read_text()
    assert "seed = 3" in (cli.work / "b" / "run.toml").read_text()


def test_a_failed_calibration_is_exit_code_3(cli, install):
    """A posterior twice too narrow: finished, reported, but not to be trusted."""
    source = """
        import numpy as np
        import sbi_toy
        from sbi_core import hookimpl

        class Narrow(sbi_toy.ExactEstimator):
            name = "narrow"

            def gaussian_moments(self, batch):
                mean, cov = super().gaussian_moments(batch)
                return mean, cov / 9

            def sample(self, batch, draws, rng):
                theta = super().sample(batch, draws, rng)
                return theta.mean(0) + (theta - theta.mean(0)) / 3

        @hookimpl
        def register_estimators(register):
            register("narrow", Narrow)
    """
    install("sbi-narrow", {"narrow": "narrow_plugin"}, narrow_plugin=source)
    code, out, _ = cli(
        "--plugin", "toy", "--preset", "quick", "--out", "r", "--set", "estimator.name=narrow"
    )
    assert code == 3
    assert "calibration: fail" in out
    report = json.loads((cli.work / "r" / "report.json").read_text())
    assert report["status"] == "calibration_failed"
    assert "calibration_failed" in report["flags"]


def test_objects_that_the_model_does_not_make_are_the_first_line(cli, toy):
    objects = toy.example_observations(np.random.default_rng(1), 60)
    x = objects.batch.x.clone()
    x[:, 2] += 2.0
    replace(objects, batch=objects.batch.with_(x=x)).write(cli.work / "o.npz")
    words = ["--plugin", "toy", "--preset", "quick", "--set", "combine.reference=500"]
    code, out, _ = cli(*words, "--out", "r", "--observations", "o.npz")
    assert code == 0
    assert out.startswith("These objects are not what this model makes (chi2 = ")
    assert "calibration: pass" in out
    cli(*words, "--out", "good")
    code, out, _ = cli("combine", "good", "--observations", "o.npz")
    assert code == 0
    lines = [line for line in out.splitlines() if not line.startswith("observations:")]
    assert lines[0].startswith("These objects are not what this model makes (chi2 = ")
    assert lines[1].startswith("gaussian, N = 60: ")


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_that_a_simulator_leaves_do_not_keep_the_command_alive(workers, tmp_path):
    options = ("simulator.name=fragile", "simulator.how=thread", "simulate.executor=process")
    words = ["run", "toy", "--preset", "quick", "--out", tmp_path / "r", "--workers", workers]
    words += ["--stages", "simulate", *(w for o in options for w in ("--set", o))]
    done = sbi_run(*words)
    assert done.returncode == 0, done.stderr
    assert "simulate: 6 shards" in done.stderr


def test_an_interrupt_is_exit_code_130_and_can_be_resumed(cli, monkeypatch):
    from sbi_core.pipeline.stages import train

    def stop(context):
        raise KeyboardInterrupt

    words = ["--plugin", "toy", "--preset", "quick", "--out", "r"]
    with monkeypatch.context() as patch:
        patch.setattr(train, "execute", stop)
        code, _, err = cli(*words)
    assert code == 130
    assert "interrupted; the same command continues from here" in err
    code, _, err = cli(*words)
    assert code == 0
    assert "simulate: already done" in err


def test_the_command_in_the_report_can_be_repeated(cli, toy_file):
    cli("--plugin", "toy", "--preset", "quick", "--out", "r", "--observations", toy_file)
    html = (cli.work / "r" / "report.html").read_text()
    command = unescape(re.search(r"<pre>sbi-run (.*?)</pre>", html)[1])
    assert command.startswith("run toy --preset quick --seed 1 --observations")
    code, _, err = cli(*shlex.split(command))
    assert code == 0
    assert "infer: already done" in err


# -- commands on a finished run -------------------------------------------------------------------


@pytest.fixture
def done(cli, _finished):
    shutil.copytree(_finished, cli.work / "r")
    return cli


def test_infer_writes_a_summary_of_a_catalogue(done, toy_file):
    code, out, err = done("infer", "r", "--observations", toy_file)
    assert code == 0, err
    assert "8 objects, 0 outside the training set: r" in out
    table = Table.read(done.work / "r" / "infer-objects.ecsv")
    assert len(table) == 8
    assert {"id", "slope_p50", "offset_sd", "flags", "support_percentile"} <= set(table.colnames)
    assert table["offset_p50"].unit == "dex"
    assert table.meta["draws"] == 100


def test_infer_counts_the_flags_of_objects(done, toy_file):
    table = Table.read(toy_file)
    numbers = [c for c in table.colnames if table[c].dtype.kind == "f"]
    table[numbers[0]][0] += 1000.0
    table.write(toy_file, overwrite=True)
    _, out, _ = done("infer", "r", "--observations", toy_file)
    assert "8 objects, 1 outside the training set" in out
    assert "objects with flags: far_outside_training 1, outside_training 1" in out


def test_infer_writes_draws_where_asked(done, toy_file):
    from sbi_core.files.posterior_file import read_posterior

    code, _, err = done(
        "infer", "r", "--observations", toy_file, "--out", "s.csv", "--draws", "30",
        "--samples", "d.nc",
    )  # fmt: skip
    assert code == 0, err
    assert len(Table.read(done.work / "s.csv")) == 8
    assert read_posterior(done.work / "d.nc").sizes == {"chain": 1, "draw": 30, "object": 8}


def test_infer_refuses_a_bad_file_and_writes_nothing(done, tmp_path):
    bad = tmp_path / "bad.ecsv"
    bad.write_text("")
    before = sorted((done.work / "r").iterdir())
    code, _, err = done("infer", "r", "--observations", bad)
    assert code == 2
    assert "is empty" in err
    assert sorted((done.work / "r").iterdir()) == before


def test_infer_never_overwrites_its_input(done, toy_file):
    before = toy_file.read_bytes()
    link = done.work / "link.ecsv"
    link.symlink_to(toy_file)
    for out in (toy_file, link):
        code, _, err = done("infer", "r", "--observations", toy_file, "--out", out)
        assert (code, "is a file that the command reads" in err) == (2, True)
    assert toy_file.read_bytes() == before
    summary = done.work / "r" / "summary.ecsv"
    before = summary.read_bytes()
    code, _, err = done("infer", "r", "--observations", toy_file, "--out", summary)
    assert (code, "is a result of the run itself" in err) == (2, True)
    assert summary.read_bytes() == before


def test_results_of_files_with_one_stem_stand_beside_each_other(done, toy_file):
    table = Table.read(toy_file)
    for name in ("objects.csv", "objects.fits"):
        table.write(done.work / name)
    table.write(done.work / "r" / "objects.csv")
    made = []
    for name in (toy_file, "objects.csv", "objects.fits", "objects.csv"):
        code, out, err = done("infer", "r", "--observations", name, "--quiet")
        assert code == 0, err
        made.append(out.split()[-1].replace(os.sep, "/"))
    first, csv = "r/infer-objects.ecsv", "r/infer-objects.csv.ecsv"
    assert made == [first, csv, "r/infer-objects.fits.ecsv", csv]
    code, _, err = done("infer", "r", "--observations", "r/objects.csv")
    assert (code, "holds the results of another file" in err) == (2, True)


def test_options_of_reading_reach_infer_and_combine_also_in_workers(done, toy_file):
    words = ["--observations", toy_file, "--set", "simulator.shift=1"]
    tables = []
    for out, *more in (("a",), ("b", *words[2:]), ("c", *words[2:], "--workers", "2")):
        code, _, err = done("infer", "r", *words[:2], "--out", f"{out}.ecsv", *more)
        assert code == 0, err
        tables.append(Table.read(done.work / f"{out}.ecsv"))
    assert (tables[0]["offset_p50"] != tables[1]["offset_p50"]).all()
    assert (tables[1]["offset_p50"] == tables[2]["offset_p50"]).all()
    assert done("combine", "r", *words)[1] != done("combine", "r", *words[:2])[1]
    code, _, err = done("infer", "r", *words[:2], "--set", "simulator.error=1")
    assert (code, "is fixed by the training" in err) == (2, True)


def test_columns_can_have_other_names(done, toy_file):
    table = Table.read(toy_file)
    table.rename_column("a", "MyA")
    table.write(done.work / "mine.ecsv")
    words = ["--observations", "mine.ecsv", "--column", "a=MyA"]
    assert done("infer", "r", *words, "--out", "a.ecsv")[0] == 0
    assert done("infer", "r", "--observations", toy_file, "--out", "b.ecsv")[0] == 0
    a, b = (Table.read(done.work / f"{name}.ecsv") for name in "ab")
    assert (a["slope_p50"] == b["slope_p50"]).all()
    assert done("combine", "r", *words)[:2] == done("combine", "r", "--observations", toy_file)[:2]


def test_combine_says_which_rows_are_left_out(done, toy_file):
    table = Table.read(toy_file)
    table["e_a"][2] = -1
    table.write(done.work / "bad.ecsv")
    code, out, err = done("combine", "r", "--observations", "bad.ecsv")
    assert code == 0, err
    assert "1 row cannot be inferred (not_positive:e_a): row 2" in out


def test_columns_are_named_as_pairs(done, toy_file):
    code, _, err = done("infer", "r", "--observations", toy_file, "--column", "a")
    assert (code, "write NAME=COLUMN, for example fe_h=FeH, not 'a'" in err) == (2, True)


def test_a_name_of_two_columns_is_refused_in_one_sentence(done, toy_file):
    words = ["--observations", toy_file, "--column", "a=b", "--column", "a=c"]
    for command in (
        ["infer", "r"],
        ["combine", "r"],
        ["compare", "r", "r"],
        ["refine", "r", "--object", "0"],
    ):
        code, _, err = done(*command, *words)
        assert (code, "a is given 2 columns; keep one" in err) == (2, True)


def test_units_are_those_of_the_option(done, toy_file):
    words = ["--observations", toy_file, "--out", "u.ecsv"]
    assert done("infer", "r", *words, "--unit", "dex", "--unit", "b=dex")[0] == 0
    code, _, err = done("infer", "r", *words, "--unit", "a=kg")
    assert (code, "column 'a' has unit 'kg'" in err) == (2, True)
    for bad in ("a=", "=kg", "a=b=kg"):
        code, _, err = done("infer", "r", *words, "--unit", bad)
        assert (code, "write UNIT or NAME=UNIT" in err) == (2, True)
    code, _, err = done("infer", "r", *words, "--unit", "a=kg", "--unit", "a=g")
    assert (code, "a: 2 units; keep one" in err) == (2, True)


def test_bad_rows_are_left_out_unless_strict(done, toy_file):
    table = Table.read(toy_file)
    table["a"][1], table["e_b"][2] = -9999.0, 0.0
    table.write(done.work / "bad.csv")
    words = ["--observations", "bad.csv", "--out", "bad.ecsv"]
    code, out, err = done("infer", "r", *words)
    assert code == 0, err
    assert "1 row cannot be inferred (not_positive:e_b): row 2" in out
    assert "1 value of 'a' at a mark of missing values" in out
    code, _, err = done("infer", "r", *words, "--strict")
    assert (code, "'e_b' must be positive, but is 0 in row 2" in err) == (2, True)
    code, _, err = done("infer", "r", *words, "--missing", "0,-9999")
    assert (code, len(Table.read(done.work / "bad.ecsv"))) == (0, len(table))
    assert done("combine", "r", "--observations", "bad.csv", "--strict")[0] == 2


@pytest.mark.parametrize("out", ["no/such/folder/s.ecsv", "s.unknown"])
def test_infer_refuses_an_output_it_cannot_write(out, done, toy_file):
    code, _, err = done("infer", "r", "--observations", toy_file, "--out", out)
    assert code == 2
    assert err.startswith("sbi-run: cannot write")


def test_combine_prints_every_size(done, toy_file):
    code, out, err = done("combine", "r", "--observations", toy_file, "--sizes", "1,1,8")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("gaussian")]
    assert [line.split(":")[0] for line in lines] == [f"gaussian, N = {n}" for n in (1, 8)]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["--sizes", "1,two"],
            "--sizes takes whole numbers above 0, separated by commas, got '1,two'",
        ),
        (["--sizes", "9"], "--sizes 9: the file has 8 objects"),
        (["--sizes", "-1"], "--sizes takes whole numbers above 0, separated by commas, got '-1'"),
        (["--sizes", "1,0"], "--sizes takes whole numbers above 0, separated by commas, got '1,0'"),
        (["--sizes", ""], "--sizes takes whole numbers above 0"),
        (["--combiner", "gausian"], "unknown combiner 'gausian'; did you mean 'gaussian'"),
    ],
)
def test_combine_explains_mistakes(extra, message, done, toy_file):
    code, _, err = done("combine", "r", "--observations", toy_file, *extra)
    assert code == 2
    assert message in err


def test_combine_refuses_a_size_before_it_prints_the_results_of_others(done, toy_file):
    code, out, err = done("combine", "r", "--observations", toy_file, "--sizes", "1,9")
    assert (code, out) == (2, "")
    assert err == "sbi-run: --sizes 9: the file has 8 objects\n"


def test_combine_marks_rules_for_comparison(done, toy_file):
    code, out, _ = done("combine", "r", "--observations", toy_file, "--combiner", "toy-wrong")
    assert code == 0
    assert "comparison_only: A combination rule is shown for comparison only" in out


def test_report_is_written_again(done):
    (done.work / "r" / "report.html").unlink()
    code, out, _ = done("report", "r")
    assert code == 0
    assert "report.html" in out
    assert (done.work / "r" / "report.html").stat().st_size > 10_000


def test_cite_lists_references_and_versions(done):
    code, out, _ = done("cite", "r")
    assert code == 0
    assert "- Toy & Toy 2025" in out
    assert "sbi-core 0" in out


# -- what is installed ----------------------------------------------------------------------------


def test_plugins_lists_what_they_offer(cli):
    code, out, _ = cli("plugins")
    assert code == 0
    assert "toy  (sbi-toy 0.1)" in out
    assert re.search(r"    simulator  toy +linear and Gaussian", out)
    assert "combiner   gaussian" in out


def test_plugins_names_hooks_it_does_not_know(cli, install):
    source = """
        from sbi_core import hookimpl

        @hookimpl
        def register_priors(register):
            pass
    """
    install("sbi-new", {"new": "new_plugin"}, new_plugin=source)
    _, out, _ = cli("plugins")
    assert "warning: hook 'register_priors' is unknown (HOOK_API 1) and ignored" in out


COMMANDS = """
    from sbi_core import hookimpl

    @hookimpl
    def register_commands(register):
        register("greet", "extra_commands:greet", summary="say hello")
"""
GREET = """
    import click

    @click.command("greet", help="Say hello.")
    @click.option("--name", default="stars")
    def greet(name):
        click.echo(f"hello {name}")
"""


def test_commands_of_plugins_are_imported_when_they_are_used(cli, install):
    install("sbi-extra", {"extra": "extra"}, extra=COMMANDS, extra_commands=GREET)
    code, out, _ = cli("extra")
    assert code == 0
    assert "sbi-run run extra" in out
    assert "greet  Say hello." in out
    assert "extra_commands" not in sys.modules
    assert cli("extra", "greet", "--name", "world")[:2] == (0, "hello world\n")
    code, _, err = cli("extra", "great")
    assert code == 2
    assert "no command 'great'; did you mean 'greet'?" in err
    assert "extra" in cli("--help")[1]


def test_commands_of_a_plugin_that_is_not_installed(cli, monkeypatch):
    monkeypatch.setattr("sbi_core.registry.entry_points", lambda group: [])
    code, _, err = cli("casbi", "build")
    assert (code, err) == (
        2,
        "sbi-run: plugin 'casbi' is not installed; run: pip install sbi-casbi\n",
    )


def test_run_name_is_the_same_as_the_option(cli):
    words = ["--preset", "quick", "--stages", "simulate", "--quiet", "--seed", "4"]
    assert cli("run", "toy", *words, "--out", "a")[0] == 0
    assert cli("--plugin", "toy", *words, "--out", "b")[0] == 0
    assert (cli.work / "a" / "run.toml").read_text() == (cli.work / "b" / "run.toml").read_text()


def test_a_tilde_after_an_equals_sign_is_the_home_directory(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ["run", "toy", "--preset", "quick", "--stages", "simulate", "--quiet"]
    assert cli(*words, "--out=~/mine")[0] == 0
    assert (tmp_path / "home" / "mine" / "run.toml").exists()
    assert cli("report", "~/nothing")[2].count(str(tmp_path / "home" / "nothing")) == 1


def test_show_names_parameters_observables_options_and_presets(cli):
    code, out, _ = cli("show", "toy", "--preset", "quick")
    assert code == 0
    for word in (
        "slope", "global", "normal, mean 1, sd 0.5", "dex", "mag_a", "quick     1200 simulations",
        "standard deviation of the noise", "n = 1200",
    ):  # fmt: skip
        assert word in out, word


def test_the_options_that_are_shown_can_be_given(cli, tmp_path):
    _, out, _ = cli("show", "toy", "--preset", "quick")
    options = textwrap.dedent(out[out.index("options of preset") :].partition("\n\n")[2])
    (tmp_path / "o.toml").write_text(options)
    words = ["--preset", "quick", "--stages", "simulate", "--quiet"]
    assert cli("run", "toy", *words, "--out", "a")[0] == 0
    assert cli("run", "toy", *words, "--out", "b", "--config", tmp_path / "o.toml")[0] == 0
    assert (cli.work / "a" / "run.toml").read_text() == (cli.work / "b" / "run.toml").read_text()


def test_data_list_says_when_there_is_none(cli, monkeypatch):
    monkeypatch.setenv("SBI_LOAD_PLUGINS", "toy")
    code, out, _ = cli("data", "list")
    assert (code, out) == (0, "no installed plugin declares data sets\n")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_shows_options_and_commands(args, cli):
    code, out, _ = cli(*args)
    assert code == 0
    assert "--plugin" in out
    for command in ("plugins", "show", "infer", "combine", "report", "data", "cite"):
        assert command in out


def test_version_is_that_of_the_package(cli):
    import sbi_core

    code, out, _ = cli("--version")
    assert (code, out.split()[-1]) == (0, sbi_core.__version__)


# -- in a process of its own ----------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["plugins"], ["--plugin", "nonsense"]])
def test_light_commands_do_not_import_torch(args):
    code = (
        "import sys\n"
        "from sbi_core.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'scipy', 'astropy', 'matplotlib', 'xarray'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    env = {**os.environ, "SBI_BLOCK_PLUGINS": "toy"}  # this one imports torch on its own account
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr


def test_the_installed_command_answers_with_exit_code_2():
    done = sbi_run("--plugin", "casbii")
    assert done.returncode == 2
    assert done.stderr == (
        "sbi-run: unknown plugin 'casbii'; did you mean 'casbi'? (installed: "
        + done.stderr.partition("(installed: ")[2]
    )


def test_a_closed_pipe_is_not_an_error():
    code = "from sbi_core.cli import main; main(['plugins'])"
    job = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    job.stdout.close()  # like `sbi-run plugins | head -0`
    err = job.stderr.read()
    job.stderr.close()
    job.wait()
    assert "Traceback" not in err


# -- plugins that change the working directory ----------------------------------------------------


@pytest.fixture
def wandering(monkeypatch, tmp_path):
    """The toy, which changes to this folder when it is loaded, built or called."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def moving(method):
        def call(*args, **options):
            os.chdir(folder)
            return method(*args, **options)

        return call

    for name in ("__init__", "simulate", "observe", "observations_of"):
        method = getattr(sbi_toy.ToySimulator, name)
        monkeypatch.setattr(sbi_toy.ToySimulator, name, moving(method))
    monkeypatch.setattr(Registry, "plugin", moving(Registry.plugin))
    return folder


def test_relative_paths_are_those_of_the_start(wandering, cli, toy_file):
    shutil.copy(toy_file, cli.work / "objects.ecsv")
    (cli.work / "mine.toml").write_text("[simulate]\nn = 700\n")
    run = ["run", "toy", "--preset", "quick", "--observations", "objects.ecsv", "--workers", 1]
    run += ["--config", "mine.toml", "--out", "mine", "--quiet"]
    rows = ["--observations", "objects.ecsv"]
    identity = str(Table.read(toy_file)["id"][0])
    for words in (
        run,
        run,
        ["infer", "mine", *rows, "--out", "o.ecsv", "--samples", "o.nc", "--chunk", 3, "--quiet"],
        ["combine", "mine", *rows],
        ["refine", "mine", *rows, "--object", identity, "--rounds", 1, "--out", "refined.nc"],
        ["export", "mine", "--out", "exported"],
    ):
        os.chdir(cli.work)
        code, out, err = cli(*words)
        assert code in (0, 3), (words, out, err)
        assert str(cli.work) not in out
    assert list(wandering.iterdir()) == []
    made = {"objects.ecsv", "mine.toml", "mine", "o.ecsv", "o.nc", "exported"}
    assert {p.name for p in cli.work.iterdir()} == made | {"refined.nc", "refined.json"}
    report = json.loads((cli.work / "mine" / "report.json").read_text())
    assert report["simulation"]["n"] == 700
    assert "--observations objects.ecsv --out mine" in report["command"]


def test_relative_paths_in_python_are_those_of_the_call(wandering, cli, toy_file):
    shutil.copy(toy_file, cli.work / "objects.ecsv")
    os.chdir(cli.work)
    made = sbi_core.run(
        "toy", preset="quick", observations=Table.read(toy_file), out="mine",
        overrides={"simulate.workers": 1, "simulate.n": 700},
    )  # fmt: skip
    assert {p.name for p in cli.work.iterdir()} == {"objects.ecsv", "mine", "mine-observations.npz"}
    os.chdir(cli.work)
    assert made.infer("objects.ecsv", 10).values.shape[1] == 8
    os.chdir(cli.work)
    made.write_figures("png", "drawn")
    assert (cli.work / "drawn").is_dir()
    assert list(wandering.iterdir()) == []


def test_a_file_of_simulations_gets_a_run(cli):
    rng = np.random.default_rng(1)
    theta = rng.uniform(size=400)
    x = theta[:, None] + 0.1 * rng.standard_normal((400, 3))
    np.savez("mine.npz", theta=theta[:, None], x=x)
    np.savez("objects.npz", x=x[:4])
    Path("prior.toml").write_text("a = { family = 'uniform', low = 0, high = 1 }\n")
    words = ["--simulations", "mine.npz", "--prior", "prior.toml", "--preset", "quick"]
    fast = ["--set", "train.epochs=2", "--set", "estimator.name=mixture"]
    code, out, _ = cli(*words, *fast, "--observations", "objects.npz")
    assert code in (0, EXIT_CALIBRATION)
    assert "runs/mine-quick/report.html" in out
    report = sbi_core.load_run("runs/mine-quick").report
    assert report["observations"]["n"] == 4
    assert report["command"].startswith("sbi-run --simulations mine.npz --prior prior.toml")
    code, out, err = cli(*words, *fast, "--observations", "objects.npz")
    assert "train: already done" in err
