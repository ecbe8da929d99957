"""The command: from a few options to a folder, one line for whatever is wrong with them."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nkjax.toddlersim.lab_folder import folder
from nkjax.toddlersim.lab_folder.defects import DEFECTS
from tests.toddlersim import simulate_imagined, written
from tests.toddlersim.simulate_imagined import ROOT

SMALL = ("--labelled", "5", "--unlabelled", "3", "--test", "2", "--workers", "1")


@pytest.fixture(scope="module")
def script():
    return simulate_imagined.load()


@pytest.fixture(autouse=True)
def same_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_folder_and_what_to_do_next(script, tmp_path, capfd, monkeypatch):
    out = tmp_path / "my lab"
    assert script.main(["--out", str(out), "--domain", "toddler", *SMALL, "--seed", "9"]) == 0
    told = capfd.readouterr()
    assert folder.settings(out) == {
        "format": 1, "nkjax": folder.nkjax.__version__, "domain": "toddler", "seed": 9,
        "size_wh": [96, 128], "counts": {"labelled": 5, "test": 2, "unlabelled": 3},
        "subjects": 4, "defects": [],
    }  # fmt: skip
    assert "pictures: 100%" in told.err and "10/10" in told.err
    next_lines = [shlex.split(line) for line in told.out.partition("next:\n")[2].splitlines()]
    names = [words[1] for words in next_lines]
    assert names == [f"scripts/{n}.py" for n in ("check_data", "pack_data", "show_simulated")]
    assert next_lines[2][2:] == ["--lab", str(out), "--out", f"{out}_look"]
    # The commands that are told work as they are.
    before = written.tree(out)
    for words in next_lines:
        done = run([sys.executable, *words[1:]])
        assert done.returncode == 0, done.stderr
    assert written.tree(out) == before and (tmp_path / "my lab_packed/manifest.json").exists()
    assert (tmp_path / "my lab_look/measures.png").exists()
    # And those of the README, from within the folder.
    told = (out / "README.txt").read_text().split("python NKJAX/")
    words = shlex.split(told[1].replace("\\\n", " "))
    assert words[0] == "scripts/check_data.py" and len(told) == 3
    done = run([sys.executable, str(ROOT / words[0]), *words[1:]], cwd=out)
    assert done.returncode == 0 and "0 error" in done.stdout, done.stdout + done.stderr


def run(command, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_size_is_height_by_width(script, tmp_path):
    options = ["--domain", "adult", "--size", "70x100", *SMALL]
    assert script.main(["--out", str(tmp_path / "lab"), *options]) == 0
    image = written.labels(tmp_path / "lab")["images"][0]
    assert (image["height"], image["width"]) == (70, 100)


def test_workers_do_not_show(script, tmp_path):
    for name, workers in (("a", "1"), ("b", "2")):
        options = ["--out", str(tmp_path / name), "--domain", "toddler", *SMALL[:-1], workers]
        assert script.main(options) == 0
    assert written.tree(tmp_path / "a") == written.tree(tmp_path / "b")


def test_defaults_and_what_atypical_takes(script, tmp_path, capfd):
    def counts(*options):
        return script._counts(script._parser().parse_args(["--out", "x", *options]))

    assert counts("--domain", "toddler") == {"labelled": 200, "unlabelled": 800, "test": 25}
    assert counts("--domain", "atypical") == {"labelled": 0, "unlabelled": 0, "test": 25}
    assert counts("--domain", "adult", "--test", "0")["test"] == 0
    out = ["--out", str(tmp_path / "lab"), "--domain", "atypical", "--workers", "1"]
    for role in ("--labelled", "--unlabelled"):
        assert script.main([*out, role, "1"]) == 2
        assert capfd.readouterr().err.startswith("error: atypical people are for tests alone")
    assert script.main([*out, "--labelled", "0", "--test", "2"]) == 0
    assert folder.settings(tmp_path / "lab")["counts"]["test"] == 2


@pytest.mark.parametrize(("options", "why"), [
    (["--domain", "toddler"], "--out and --domain are needed"),
    (["--out", "x"], "--out and --domain are needed"),
    (["--out", "x", "--domain", "infant"], "invalid choice"),
    (["--out", "", "--domain", "adult"], "empty or has a line break"),
    (["--out", "x\ny", "--domain", "adult"], "empty or has a line break"),
    (["--out=-x", "--domain", "adult"], "write ./-x"),
    *((["--out", "x", "--domain", "adult", *more], why) for more, why in (
        (["--size", "128"], "HEIGHTxWIDTH"), (["--size", "63x64"], "from 64 to 1024"),
        (["--size", "64x1025"], "from 64 to 1024"), (["--size", "64X64"], "HEIGHTxWIDTH"),
        (["--size", "300x99"], "3 times as long"), (["--size", "64x193"], "3 times as long"),
        (["--size", "-64x64"], "expected one argument"), (["--labelled", "-1"], "argument"),
        (["--labelled", "1000000"], "0 to 999999"), (["--test", "1e3"], "0 to 999999"),
        (["--seed", "x"], "is not a number"), (["--seed", "4294967296"], "is not a number"),
        (["--workers", "0"], "from 1 to"), (["--unlabelled", "²"], "0 to 999999"),
    )),
])  # fmt: skip
def test_bad_options_are_one_line(script, tmp_path, monkeypatch, capfd, options, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        script.main(options)
    last = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "simulate.py: error: " in last and why in last
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "why"), [
    (["--labelled", "0", "--unlabelled", "0", "--test", "0"], "no picture to make"),
    ([*SMALL, "--defects", "typo"], "no mistake is called 'typo'"),
    ([*SMALL, "--defects", ""], "no mistake is named"),
    ([*SMALL, "--defects", "swapped"], "at least 51 labelled"),
    ([*SMALL, "--size", "64x64", "--defects", "exif_turn"], "not square"),
])  # fmt: skip
def test_what_cannot_be_made_is_told_before_anything_is(script, tmp_path, capfd, options, why):
    out = tmp_path / "lab"
    assert script.main(["--out", str(out), "--domain", "toddler", *options]) == 2
    told = capfd.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and why in told
    assert not out.exists()


def test_nothing_is_written_over(script, tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    options = ["--out", str(tmp_path), "--domain", "toddler", *SMALL]
    assert script.main(options) == 2
    assert "exists and is not an empty folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    options[1] = str(tmp_path / "notes.txt" / "lab")
    assert script.main(options) == 2
    assert "notes.txt/lab: cannot be made (Not a directory)" in capfd.readouterr().err


def test_what_cannot_be_shown_is_not_told_to_be(script, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start, end = ["--domain", "toddler", "--workers", "1", "--seed", "3"], []
    for name, end in (
        ("planted", ["--labelled", "2", "--unlabelled", "0", "--test", "1", "--defects", "nan"]),
        ("unlabelled", ["--labelled", "0", "--unlabelled", "3", "--test", "0"]),
    ):
        assert script.main(["--out", name, *start, *end]) == 0
        told = capfd.readouterr().out
        assert f"--out {name}_packed" in told and "show_simulated" not in told
    # From within an empty folder the others lie beside it.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    end = ["--labelled", "0", "--unlabelled", "0", "--test", "1"]
    assert script.main(["--out", ".", *start, *end]) == 0
    assert f"--lab . --out {tmp_path}/here_look" in capfd.readouterr().out


REAL = f"{shlex.quote(sys.executable)} scripts/simulate.py"
FEW = "--domain toddler --size 64x64 --labelled 3 --unlabelled 0 --test 0 --workers 1"


@pytest.mark.parametrize(("command", "whole"), [
    (f"{REAL} --defects list | head -1", False), (f"{REAL} --defects list | true", False),
    (f"{REAL} --help | true", False), (f"{REAL} --defects list >&-", False),
    (f"{REAL} --out $OUT {FEW} | true", True), (f"{REAL} --out $OUT {FEW} 2>&1 | true", True),
    (f"{REAL} --out $OUT {FEW} >&-", True), (f"{REAL} --out $OUT {FEW} >&- 2>&-", True),
    (f"{REAL} --out $OUT {FEW} 2>&-", True),
])  # fmt: skip
def test_nobody_has_to_read_what_it_says(tmp_path, command, whole):
    out = tmp_path / "lab"
    command = command.replace("$OUT", shlex.quote(str(out)))
    done = run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert not whole or folder.settings(out)["counts"]["labelled"] == 3


def test_defects_are_listed_and_planted(script, tmp_path, capfd):
    assert script.main(["--defects", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(DEFECTS)
    assert all(code in line for line, d in zip(lines, DEFECTS.values(), strict=True)
               for code in d.codes)  # fmt: skip
    out = tmp_path / "lab"
    options = ["--out", str(out), "--domain", "toddler", *SMALL, "--defects", "missing,nan"]
    assert script.main(options) == 0
    assert "planted 2 kinds of mistakes: missing, nan" in capfd.readouterr().out
    assert {"NK131", "NK211"} <= written.found(out).keys()
    assert folder.settings(out)["defects"] == ["missing", "nan"]


def test_help_says_who_may_read_the_truth(script, capfd):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    told = " ".join(capfd.readouterr().out.split())
    assert stop.value.code == 0 and "Nothing may learn from the truth of toddlers" in told
    for option in ("out", "domain", "labelled", "unlabelled", "test", "size", "seed", "workers",
                   "defects"):  # fmt: skip
        assert f"--{option}" in told


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def deaf_to_ctrl_c(pid):
    """Tell whether a process blocks or ignores SIGINT, signal 2: bit 1."""
    status = dict(line.split(":\t", 1) for line in
                  Path(f"/proc/{pid}/status").read_text().splitlines())  # fmt: skip
    return bool((int(status["SigBlk"], 16) | int(status["SigIgn"], 16)) & 2)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_leaves_no_process_and_an_unfinished_folder(tmp_path, how):
    out = tmp_path / "lab"
    command = [sys.executable, simulate_imagined.__file__, "--out", str(out), "--domain", "toddler",
               "--labelled", "99999", "--workers", "2"]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               start_new_session=True)  # fmt: skip
    wait_for(lambda: (out / "images").exists() and len(list((out / "images").iterdir())) > 3)
    workers = children(running.pid)
    assert len(workers) >= 2 and all(map(deaf_to_ctrl_c, workers))
    # Ctrl-C reaches the workers too, kill does not.
    (os.killpg if how == signal.SIGINT else os.kill)(running.pid, how)
    told = running.communicate(timeout=60)[1]
    if how != signal.SIGKILL:
        assert running.returncode == 1 and "Traceback" not in told
        assert told.splitlines()[-1] == f"stopped; {out} is unfinished: remove it"
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "an unfinished simulated folder; remove it" in done.stderr


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
