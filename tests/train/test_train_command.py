"""The command: equal runs, exit codes, damaged states, converted weights from end to end."""

import re
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import train

from convert_weights.__main__ import main as convert
from nkjax import runs
from nkjax.models import sapiens
from nkjax.train import job
from tests.data_io import packed
from tests.train import small_run
from tests.train.test_resume import leaves

POSE = small_run.ROOT / "tests/data/fixtures/tiny_pose.pth"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 6 steps by the command."""
    folder = tmp_path_factory.mktemp("command") / "run"
    code, said = small_run.run(small_run.config(), folder)
    assert code == 0, said
    return folder


def test_equal_runs_write_equal_lines(run, tmp_path):
    assert small_run.run(small_run.config(), tmp_path / "again")[0] == 0
    assert small_run.lines(tmp_path / "again") == small_run.lines(run)
    assert leaves(tmp_path / "again", 6) == leaves(run, 6)


def test_another_seed_is_another_run(run, tmp_path):
    assert small_run.run(small_run.config(seed=1), tmp_path / "other")[0] == 0
    for one, other in zip(small_run.lines(tmp_path / "other"), small_run.lines(run), strict=True):
        assert one["step"] == other["step"] and one != other


def test_a_finished_run_says_so(run):
    code, said = small_run.run(small_run.config(), run)
    assert code == 0 and said == f"{run}: finished already, at step 6\n"


@pytest.mark.parametrize("damaged", ["largest file", "record.json"])
def test_a_damaged_state_is_named_and_the_remedy_works(run, tmp_path, damaged):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    unfinished(copy)
    newest = copy / "checkpoints" / "4"
    files = [path for path in (newest / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    flip_a_byte(newest / "record.json" if damaged == "record.json" else largest)
    code, said = small_run.run(small_run.config(), copy)
    error = said.splitlines()[-1]
    assert code == 2 and error.startswith("error: ") and said.count("error") == 1, said
    assert damaged != "record.json" or "record.json is damaged" in error
    remove = re.search(r"remove (\S+) to go on from step 2$", error)[1]
    assert remove == str(newest)
    shutil.rmtree(remove)
    code, said = small_run.run(small_run.config(), copy)
    assert code == 0 and "training from step 2 to 6" in said, said
    assert leaves(copy, 6) == leaves(run, 6) and small_run.lines(copy) == small_run.lines(run)


def unfinished(folder):
    """Make of a finished run one that was killed after step 5."""
    shutil.rmtree(folder / "checkpoints" / "6")


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_rate_that_leaves_no_number_ends_with_1(tmp_path):
    """The gradient of step 1 is finite, the parameters after it are not, and are never saved."""
    config = small_run.config(optimizer__learning_rate=1e39, optimizer__warmup=0)
    code, said = small_run.run(config, tmp_path / "run")
    assert code == 1 and "Traceback" not in said, said
    error = said.splitlines()[-1]
    assert re.match("failed: Diverged: step 2 is not saved: .* is not finite; lower the", error)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_bad_data_ends_with_2_and_leaves_nothing(tmp_path):
    code, said = small_run.run(small_run.config(data=str(tmp_path / "none")), tmp_path / "run")
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
def test_processes_that_do_not_meet_end_with_1(monkeypatch, capsys, kind):
    def start(*given):
        raise kind("DEADLINE_EXCEEDED:\nnobody came")

    monkeypatch.setattr(train.mesh, "start", start)
    assert train.main(small_run.command(small_run.config(data="none"), "run")) == 1
    name = kind.__name__
    assert capsys.readouterr().err == f"failed: {name}: DEADLINE_EXCEEDED: nobody came\n"


def test_what_a_disk_says_is_one_line(monkeypatch, capsys):
    def full(*given):
        raise ValueError("RESOURCE_EXHAUSTED:\nNo space left on device")

    monkeypatch.setattr(train.mesh, "start", lambda *given: None)
    monkeypatch.setattr(train.loop, "train", full)
    assert train.main(small_run.command(small_run.config(data="none"), "run")) == 1
    said = capsys.readouterr().err
    assert said == "failed: ValueError: RESOURCE_EXHAUSTED: No space left on device\n"


@pytest.mark.parametrize("code", [0, 1])
def test_who_fails_leaves_without_the_others(monkeypatch, code):
    """They may be waiting for it in a step, so that they never come to say farewell."""
    others, left = threading.Event(), []
    monkeypatch.setattr(train, "FAREWELL_S", 0.01)
    monkeypatch.setattr(train.jax, "process_count", lambda: 2)
    monkeypatch.setattr(train.jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(train.jax.distributed, "shutdown", others.wait)
    monkeypatch.setattr(train.os, "_exit", left.append)
    with pytest.raises(SystemExit):
        train.leave(code)
    others.set()
    assert left == [1] * code


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    assert convert([str(POSE), "--out", str(folder / "pose"), "--heads", "4"]) == 0
    rows = packed.drawn_rows(24)
    packed.write(folder / "data", {"train": rows[:16], "val": rows[16:], "test": rows[:1]})
    return folder


def test_converted_weights_are_trained_and_come_back(converted, tmp_path):
    """What a run's folder gives is the averaged network that the run had, bit for bit."""
    config = small_run.config(data=str(converted / "data"), init=str(converted / "pose"))
    seen = []

    def watched(*given):
        programs = small_run.compile_once(*given)

        def step(state, batch):
            state, metrics = programs.step(state, batch)
            seen.append(jax.device_get(state.ema))
            return state, metrics

        return job.dataclasses.replace(programs, step=step)

    assert small_run.train(config, tmp_path / "run", programs=watched) == 6
    spec, params, step = runs.load(tmp_path / "run", "last")
    assert step == 6 and spec.skeleton.keypoints == packed.COCO17.keypoints
    _, start = sapiens.load(converted / "pose")
    picture = jax.random.normal(jax.random.key(0), (1, 64, 48, 3))
    network = jax.jit(lambda params: sapiens.apply(params, spec, picture)["pose"])
    maps = network(params)
    np.testing.assert_array_equal(maps, network(seen[-1]))
    assert (np.asarray(maps) != network(seen[0])).any() and (maps != network(start)).any()


@pytest.mark.slow
def test_the_smallest_release_takes_two_steps_on_a_cpu(tmp_path):
    config = small_run.config(
        size="0.3b", steps=2, batch=1, optimizer__warmup=0, evaluation__every=2,
        evaluation__batch=1, save_every=2, remat="full",
    )  # fmt: skip
    code, said = small_run.finish(small_run.start(config, tmp_path / "run"), 1200)
    assert code == 0, said
    lines = [line for line in small_run.lines(tmp_path / "run") if "train/loss" in line]
    assert [line["train/skipped"] for line in lines] == [0, 0]
    assert all(0 < line["train/loss"] < 10 and line["train/grad_norm"] > 0 for line in lines)
