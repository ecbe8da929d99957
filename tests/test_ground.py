"""What a bare clone stands on: the lock, the set-up scripts, the closed network."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
RELEASES = [
    Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if line[:1].isalnum()
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")


def _releases(python: str, system="linux", machine="x86_64") -> dict[str, Requirement]:
    """Return name -> line of the lock that pip would install there."""
    there = default_environment() | {
        "python_full_version": python, "python_version": python.rsplit(".", 1)[0],
        "sys_platform": system, "platform_machine": machine,
    }  # fmt: skip
    chosen = [line for line in RELEASES if line.marker is None or line.marker.evaluate(there)]
    assert len({line.name for line in chosen}) == len(chosen), "two releases of one package"
    return {_plain(line.name): line for line in chosen}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(release: Requirement) -> str:
    (pin,) = release.specifier
    assert pin.operator == "==", f"{release} is not one release"
    return pin.version


# --- the lock


def test_every_release_has_a_version_and_hashes():
    entries = re.split(r"\n(?=[a-z])", LOCK)[1:]  # the first part is the heading
    assert len(entries) == len(RELEASES)
    for entry in entries:
        release, *hashes = [line for line in entry.splitlines() if not line.strip().startswith("#")]
        assert re.match(r"[\w.-]+==\S+ ", release)
        assert hashes, release
        for line in hashes:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), release


def test_the_lock_names_no_place():
    assert not re.search(r"://|@ |--index|--extra-index|--find-links|-i |(^|\s)/\w", LOCK)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", ["linux x86_64", "linux aarch64", "darwin arm64"])
def test_the_lock_answers_the_project(python, system):
    releases = _releases(python, *system.split())
    tests = PROJECT["optional-dependencies"]["test"]
    for wanted in map(Requirement, PROJECT["dependencies"] + tests):
        if wanted.name != PROJECT["name"]:
            assert _version(releases[_plain(wanted.name)]) in wanted.specifier, wanted


def test_libtpu_stands_where_it_has_wheels():
    assert "libtpu" in _releases("3.11.0")
    assert "libtpu" not in _releases("3.11.0", "linux", "aarch64")
    assert "libtpu" not in _releases("3.11.0", "darwin", "arm64")


def test_jax_is_the_last_for_311_and_newer_after():
    versions = [_version(_releases(python)["jax"]) for python in PYTHONS]
    assert versions[0].startswith("0.10.") and versions[1] == versions[2]
    assert tuple(map(int, versions[1].split(".")[:2])) >= (0, 11)


def test_no_torch_and_no_tensorflow():
    names = {_plain(release.name) for release in RELEASES}
    assert "jax" in names
    assert not names & {"torch", "tensorflow", "tensorflow-cpu", "keras", "nvidia-cudnn-cu13"}


def test_this_environment_is_the_locked_one():
    if Path(sys.prefix, "nkjax-setup").exists():
        from importlib.metadata import version

        here = ".".join(map(str, sys.version_info[:3]))
        releases = _releases(here, sys.platform, os.uname().machine)
        assert {n: version(n) for n in releases} == {n: _version(r) for n, r in releases.items()}


# --- the files


# Addresses of package registries, and paths of somebody's machine.
PLACES = re.compile(r"--(extra-)?index-url|pypi\.org|pythonhosted|/simple/?[\"' ]"
                    r"|(?<![\w.])/(home|root|tmp|work|Users)/\w")  # fmt: skip


def test_no_text_file_names_a_registry_or_a_machine():
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for file in _text_files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if PLACES.search(line)
    ]
    assert not found, "\n" + "\n".join(found)


# Written in two parts each, so that no search for such places stops here.
@pytest.mark.parametrize("line", ["pip install --index" "-url=x", "https://pypi" ".org/x",
                                  "a='/tm" "p/x'", "cd /wo" "rk/main", "x = /ho" "me/ann/nkjax"])
def test_a_planted_place_is_found(line):
    assert PLACES.search(line)


def _text_files():
    ours = ("nkjax", "convert_weights", "configs", "scripts", "tests", ".ci", "docs")
    endings = (".py", ".sh", ".md", ".json", ".yaml", ".toml", ".lock", "")
    files = [file for folder in ours for file in (ROOT / folder).rglob("*") if file.is_file()]
    tops = [file for file in ROOT.iterdir() if file.is_file()]
    arrays = ROOT / "tests" / "data" / "prior" / "params" / "state"
    for file in [*files, *tops]:
        skipped = file in (Path(__file__), ROOT / ".git") or arrays in file.parents
        if file.suffix in endings and not skipped:
            yield file


@pytest.mark.parametrize("name", ["scripts/test.sh", "scripts/quickstart.sh", "scripts/lock.sh",
                                  ".ci/run"])  # fmt: skip
def test_scripts_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / name], check=True)


# --- setting up


@pytest.fixture
def clone(tmp_path):
    """A folder with a space in its path that holds what setup.sh reads."""
    folder = tmp_path / "a clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "scripts/test.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _set_up(clone, **environment):
    return subprocess.run(
        [clone / "scripts" / "test.sh"], cwd=clone.parent, text=True, capture_output=True,
        env=os.environ | {"PYTHON": sys.executable, "NKJAX_VENV": ""} | environment,
    )  # fmt: skip


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("python", ["no-such-python", "old"])
def test_an_unfit_python_is_refused_in_one_line(clone, python):
    _script(clone / "old", "exit 1")  # what `sys.version_info >= (3, 11)` does to an old one
    done = _set_up(clone, PYTHON=str(clone / python))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert python in done.stderr and "3.11 or newer" in done.stderr
    assert not (clone / ".venv").exists()


def test_no_python_at_all_is_said_in_one_line(clone, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    for name in ("bash", "dirname", "env"):
        (empty / name).symlink_to(shutil.which(name))
    done = _set_up(clone, PYTHON="", PATH=str(empty))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "no Python 3.11 or newer found" in done.stderr


def test_a_broken_shim_is_passed_over(clone, tmp_path):
    first = tmp_path / "bin"
    first.mkdir()
    _script(first / "python3", "echo 'shim: not installed' >&2; exit 127")
    _script(first / "python3.13", f'[ "$2" = venv ] && echo CHOSEN >&2 && exit 1; '
                                  f'exec "{sys.executable}" "$@"')  # fmt: skip
    done = _set_up(clone, PYTHON="", PATH=f"{first}:{os.environ['PATH']}")
    assert done.returncode == 1 and "CHOSEN" in done.stderr
    assert "python3.13 cannot make virtual environments" in done.stderr


def test_a_folder_of_somebody_else_is_left_alone(clone):
    theirs = clone / "theirs" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    done = _set_up(clone, NKJAX_VENV="theirs")
    assert done.returncode == 2 and "was not made by this script" in done.stderr
    assert [theirs] == list(theirs.parent.iterdir()) and theirs.read_text() == "years of work"


def test_no_index_is_said_and_the_next_run_tries_again(clone):
    alone = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    for _ in range(2):
        done = _set_up(clone, **alone)
        assert done.returncode == 1, done.stderr
        assert "pip could not install requirements.lock" in done.stderr.splitlines()[-1]
        assert (clone / ".venv" / "nkjax-setup").read_text() == ""


def test_an_environment_is_made_once_and_again_when_the_lock_changes(clone):
    # An interpreter whose `-m venv --clear DIR` puts itself there, and whose pip has it easy.
    python = _script(clone / "python", f"""case "$1 $2" in
        "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
        "-m pip") ;;
        -c*) exec "{sys.executable}" "$@" ;;
        *) echo "ran $*" ;;
        esac""")
    first, second = (_set_up(clone, PYTHON=str(python)) for _ in range(2))
    assert "setup: installing into" in first.stderr and second.stderr == ""
    lint, tests = first.stdout.splitlines()
    assert lint == "ran -m ruff check ." and tests.startswith("ran -m pytest")
    assert second.stdout == first.stdout

    for name in ("requirements.lock", "pyproject.toml"):
        with (clone / name).open("a") as file:
            file.write("# changed\n")
        assert "setup: installing into" in _set_up(clone, PYTHON=str(python)).stderr


# --- the network


def test_the_network_is_closed():
    with socket.socket() as outside, pytest.raises(PermissionError, match="without a network"):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(PermissionError, match="without a network"):
        socket.getaddrinfo("example.com", 80)


def test_loopback_and_unix_sockets_are_open(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("localhost", server.getsockname()[1])) as client:
            client.sendall(b"here")
            assert server.accept()[0].recv(4) == b"here"
    one, two = socket.socketpair()
    with one, two:
        one.sendall(b"here")
        assert two.recv(4) == b"here"


def test_the_network_is_closed_to_commands_too():
    reach_out = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", reach_out], text=True, capture_output=True)
    assert "the tests run without a network" in done.stderr
