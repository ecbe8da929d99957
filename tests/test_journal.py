"""Curves that survive a kill, accounts that add up, run.json."""

import json
import math
import os
import re
import struct
import subprocess
import sys
import time

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nkjax import config as configs
from nkjax import journal as journals
from nkjax import provenance


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_steps(folder, first, last, step=0):
    journal = journals.Journal(folder, step, writes=True)
    for number in range(first, last + 1):
        journal.write(number, {"train/loss": 1 / number})
    journal.close()


def test_a_line_is_sorted_json_that_reads_back_equal(tmp_path):
    journal = journals.Journal(tmp_path / "run", 0, writes=True)
    odd = {"b": np.float32(0.1), "a": 1 / 3, "time/step": 2, "n": math.nan, "i": -math.inf}
    journal.write(np.int32(10), odd)
    # Before close(): what was written is there after kill -9.
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    journal.close()
    assert text == (
        '{"a": 0.3333333333333333, "b": 0.10000000149011612, "i": "-inf", "n": "nan", '
        '"step": 10, "time/step": 2.0}\n'
    )


@pytest.mark.parametrize("tail", [b"", b'{"step": 8, "tra', b"\0\0\0\n", b"7\n", b'{"s": 1}\n'])
def test_a_resume_drops_what_came_after_its_step(tmp_path, tail):
    write_steps(tmp_path, 1, 7)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(tail)
    write_steps(tmp_path, 6, 6, step=5)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.partial"))


def test_a_last_line_without_its_end_is_kept_whole(tmp_path):
    write_steps(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    write_steps(tmp_path, 3, 3, step=2)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]


def test_a_start_at_0_begins_anew(tmp_path):
    for value in (0.25, 0.5):  # the first was killed before it saved
        journal = journals.Journal(tmp_path, 0, writes=True)
        journal.write(0, {"val/pck": value})
        journal.write(1, {"train/loss": value})
        journal.close()
    assert lines_of(tmp_path) == [{"step": 0, "val/pck": 0.5}, {"step": 1, "train/loss": 0.5}]


def test_other_processes_write_nothing(tmp_path):
    journal = journals.Journal(tmp_path / "run", 0, writes=False)
    journal.write(1, {"train/loss": 1.0})
    journal.close()
    assert not (tmp_path / "run").exists()


def test_a_line_written_is_there_after_kill_9(tmp_path):
    program = (
        "import os, sys; from nkjax.journal import Journal\n"
        "journal = Journal(sys.argv[1], 0, True)\n"
        "for step in range(1, 40): journal.write(step, {'train/loss': 1.0})\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path]).returncode == -9
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 40))


def events(folder) -> list:
    """Read TensorBoard's files, oldest first: records of length, crc, bytes, crc."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_tensorboard_gets_the_same_numbers_and_forgets_later_steps(tmp_path):
    write_steps(tmp_path, 1, 4)
    write_steps(tmp_path, 4, 5, step=3)
    seen = events(tmp_path)
    scalars = [(e.step, e.summary.value[0]) for e in seen if e.summary.value]
    assert [step for step, _ in scalars] == [1, 2, 3, 4, 4, 5]
    assert {value.tag for _, value in scalars} == {"train/loss"}
    assert [v.simple_value for _, v in scalars] == pytest.approx(
        [1, 1 / 2, 1 / 3, 1 / 4, 1 / 4, 0.2]
    )
    # TensorBoard drops what it knew of the step of a START and later ones.
    starts = [e.step for e in seen if e.HasField("session_log") and e.session_log.status == 1]
    assert starts == [0, 4]


def test_no_tensorflow_comes_with_the_journal(tmp_path):
    program = (
        "import sys; from nkjax.journal import Journal\n"
        "Journal(sys.argv[1], 0, True).close()\n"
        "sys.exit('tensorflow' in sys.modules or 'tensorboardX' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path]).returncode == 0


class Bucket(MemoryFileSystem):
    """Objects in memory, in the place of a bucket: no appending, no renaming."""

    protocol = "gcs"
    store, pseudo_dirs = {}, [""]

    def __init__(self, finalize_on_close=False, **options):
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")

    def _open(self, path, mode="rb", **options):
        assert "a" not in mode, "an object cannot be appended to"
        return super()._open(path, mode, **options)

    def mv(self, *paths, **options):
        raise AssertionError("an object cannot be renamed")


def test_a_bucket_gets_whole_files(monkeypatch):
    Bucket.store.clear()
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    write_steps("gs://bucket/run", 1, 4)
    write_steps("gs://bucket/run", 3, 3, step=2)
    journals.write_once("gs://bucket/run/run.json", {"a": 1})
    stored = {name: file.getvalue() for name, file in Bucket.store.items()}
    assert sorted(stored) == ["/bucket/run/metrics.jsonl", "/bucket/run/run.json"]
    lines = stored["/bucket/run/metrics.jsonl"].decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deeper" / "run.json"
    journals.write_once(path, {"a": [1, 0.1]})
    with pytest.raises(ValueError):
        journals.write_once(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": [1, 0.1]}
    assert os.listdir(path.parent) == ["run.json"]


class Time:
    """A time that passes only when told; binary fractions, so that sums are exact."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("text", "why"), [
    (None, "cannot be opened (No such file or directory)"), ("{", "not a JSON file (Expecting"),
    ("[" * 200_000, "not a JSON file ("), ("[1]", "not a JSON object"), ("\0", "not a JSON file ("),
], ids=["nothing", "cut", "deep", "list", "zero"])  # fmt: skip
def test_a_json_object_is_read_back_or_one_line_says_why_not(tmp_path, text, why):
    path = tmp_path / "x.json"
    journals.write_once(path, {"a": [1.5]})
    assert journals.read_object(path, KeyError, "make it again") == {"a": [1.5]}
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ZeroDivisionError) as error:
        journals.read_object(path, ZeroDivisionError, "make it again")
    said = str(error.value)
    assert said.startswith(f"{path}: {why}") and said.endswith("; make it again")
    assert "\n" not in said and len(said) < len(str(path)) + 300


def test_accounts_add_up_to_the_wall_time(monkeypatch):
    watch = Time()
    monkeypatch.setattr(journals, "time", watch)
    clock = journals.Clock()
    watch.passes(1)
    with clock.account("step"):
        watch.passes(2)
        with clock.account("data"):
            watch.passes(4)
            with clock.account("step"):  # an account may be open twice
                watch.passes(8)
        watch.passes(16)
    with pytest.raises(RuntimeError), clock.account("eval"):
        watch.passes(32)
        raise RuntimeError
    watch.passes(64)
    with clock.account("save"):
        watch.passes(128)
        totals = clock.totals()  # also in the midst of an account
    booked = {"other": 65, "step": 26, "data": 4, "eval": 32, "save": 128}
    assert totals == dict.fromkeys(journals.ACCOUNTS, 0) | booked
    assert sum(totals.values()) == watch.now - 1000


def test_accounts_measure_real_time_within_2_percent():
    clock, start = journals.Clock(), time.perf_counter()
    with clock.account("step"):
        time.sleep(0.5)
    wall = time.perf_counter() - start
    assert sum(clock.totals().values()) == pytest.approx(wall, rel=0.02)


def test_accounts_go_on_from_an_earlier_session():
    clock = journals.Clock({"step": 100.0, "save": 1.0})
    with clock.account("step"):
        time.sleep(0.01)
    totals = clock.totals()
    assert 100.01 <= totals["step"] < 101 and totals["save"] == 1.0
    assert list(totals) == list(journals.ACCOUNTS)
    with pytest.raises(KeyError, match="no account 'compute'"), clock.account("compute"):
        pass


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 min"), (1, "1 min"), (61, "2 min"), (3540, "59 min"), (3541, "1 h 00 min"),
     (3900, "1 h 05 min"), (86399, "1 d 0 h"), (2 * 86400 + 3600, "2 d 1 h"), (math.inf, "? min")],
)  # fmt: skip
def test_progress_is_one_line_with_a_readable_eta(seconds, said):
    line = journals.progress(1200, 20000, 0.00123456, 1085.25, 0.034, seconds)
    assert line == (f"step 1,200 of 20,000  loss 0.001235  1,085.2 images/s  data 3%  {said} to go")


CONFIG = configs.Config(seed=7)
MODEL = {"source": {"sha256": "ab"}, "licence": "L", "spec_sha256": "cd", "leaves": {"x": 1}}


def test_a_record_says_where_a_run_comes_from():
    command = ["train.py", "--workdir=/lab/run", "--coordinator=node01:29500", "--process=0"]
    record = provenance.record(command, configs.to_json(CONFIG), "ef", MODEL, [{"step": 3}])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    hidden = ["train.py", "--workdir=/lab/run", "--coordinator=[host]", "--process=0"]
    assert record["command"] == hidden and record["from_step"] == 0
    assert record["seed"] == 7 and record["data_sha256"] == "ef"
    assert record["weights"] == {"source": {"sha256": "ab"}, "licence": "L", "spec_sha256": "cd"}
    assert record["parents"] == [{"step": 3}]
    assert record["config_sha256"] == configs.sha256(CONFIG)
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["versions"]["jax"] == jax.__version__
    packages = "nkjax jax jaxlib flax optax orbax-checkpoint grain numpy opencv-python-headless"
    assert list(record["versions"]) == ["python", *packages.split()]
    assert record["processes"] == 1 and record["devices"]["count"] == len(jax.devices())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["started"])
    assert provenance.record(["x"], configs.to_json(CONFIG), "", {})["weights"] == {}


def test_no_host_name_is_written():
    command = ["train.py", "--coordinator", "node01:29500", "--processes", "2"]
    record = provenance.record(command, configs.to_json(CONFIG), "", {})
    assert record["command"] == ["train.py", "--coordinator", "[host]", "--processes", "2"]
    assert os.uname().nodename not in json.dumps(record)


def test_a_resume_adds_a_session_and_leaves_the_first():
    record = provenance.record(["first"], configs.to_json(CONFIG), "ef", {})
    before = json.dumps(record)
    once = provenance.resumed(record, ["second"], 1000)
    twice = provenance.resumed(once, ["third"], 2000)
    assert json.dumps(record) == before
    sessions = twice.pop("sessions")
    assert twice == {name: value for name, value in record.items() if name != "sessions"}
    assert [(s["command"], s["from_step"]) for s in sessions] == [
        (["first"], 0), (["second"], 1000), (["third"], 2000),
    ]  # fmt: skip
    assert set(sessions[0]) == {
        "started", "command", "from_step", "versions", "git", "processes", "devices",
    }  # fmt: skip
    with pytest.raises(ValueError, match="not a run.json of nkjax"):
        provenance.resumed({"format": 2}, [], 0)


def test_git_tells_the_commit_and_whether_files_changed(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, text=True,
                              capture_output=True)  # fmt: skip
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.git_state() == {}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    assert provenance.git_state() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a").write_text("2")
    assert provenance.git_state()["changed"] is True
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path / "site-packages")
    assert provenance.git_state() == {}
