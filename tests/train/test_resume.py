"""A run that is stopped, killed or moved to other devices ends as one that was left alone."""

import functools
import random
import shutil
import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from nkjax import mesh
from nkjax.config import Mesh
from nkjax.snapshots import Snapshots
from nkjax.train import job
from tests.train import small_run

STEPS = 30


def leaves(workdir, step):
    """Return the saved fingerprint of every leaf of a state."""
    return small_run.record(workdir, step)["leaves"]


def losses(workdir, after):
    lines = [line for line in small_run.lines(workdir) if line["step"] > after]
    return np.array([line["train/loss"] for line in lines if "train/loss" in line])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 6 steps on a mesh of 8 x 1 that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert small_run.train(small_run.config(), folder) == 6
    return folder


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """The same run, stopped after step 3."""
    folder = tmp_path_factory.mktemp("halted") / "run"
    assert small_run.train(small_run.config(), folder, lambda step: step == 3) == 3
    return folder


@pytest.fixture
def half(halted, tmp_path):
    """A copy of the stopped run to go on with."""
    return Path(shutil.copytree(halted, tmp_path / "half"))


def test_steps_in_two_parts_are_the_same_steps(whole, half):
    assert small_run.train(small_run.config(), half) == 6
    assert leaves(half, 6) == leaves(whole, 6) != leaves(half, 4)
    assert small_run.lines(half) == small_run.lines(whole)
    # Not by our own fingerprints alone: the numbers themselves.
    (one, _), (other, _) = (restored(folder, 6) for folder in (whole, half))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert int(one.step) == int(one.updates) == 6


def restored(folder, step):
    config = small_run.config()
    devices = mesh.make_mesh(8, 1)
    spec = job.sapiens.read_model(folder)[0]
    return Snapshots(folder, keep=1).restore(step, job.abstract_state(spec, config, devices))


@pytest.mark.slow  # two processes are another mesh too
def test_a_run_goes_on_with_another_mesh(whole, half):
    other = small_run.config(mesh=Mesh(2, 4))
    assert small_run.train(other, half) == 6
    np.testing.assert_allclose(losses(half, 3), losses(whole, 3), rtol=1e-6)


def test_a_run_goes_on_with_one_device(whole, half):
    code, said = small_run.run(small_run.config(), half)
    assert code == 0, said
    np.testing.assert_allclose(losses(half, 3), losses(whole, 3), rtol=1e-6)


def test_a_run_goes_on_with_two_processes(whole, half):
    both = pair(small_run.config(mesh=Mesh(2, 4)), half)
    ended = [small_run.finish(process) for process in both]
    assert [code for code, _ in ended] == [0, 0], ended
    np.testing.assert_allclose(losses(half, 3), losses(whole, 3), rtol=1e-6)
    assert leaves(half, 6).keys() == leaves(whole, 6).keys()


def pair(config, workdir, slow=0):
    """Start a run of two processes with four devices each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{probe.getsockname()[1]}"
    start = functools.partial(small_run.start, config, workdir, where, "--processes=2")
    return [start(f"--process={number}", devices=4, slow=slow) for number in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of a process that nobody kills, every saved state kept."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    code, said = small_run.run(long_config(keep=100), folder)
    assert code == 0, said
    return folder


def long_config(**changes):
    return small_run.config(**{"steps": STEPS, "evaluation__every": 10, "keep": 2} | changes)


def live_and_die(workdir, rng):
    """Start the run, kill it at some moment; returns whether it had ended before."""
    if STEPS in finished(workdir):
        return True
    process = small_run.start(long_config(), workdir, slow=0.05)
    try:
        before = finished(workdir)
        if rng.random() < 0.85 or not before:  # else it may die before it has begun
            small_run.wait_for(process, "training from step")
            # However slow the machine, the first life leaves a state behind.
            while not before and not finished(workdir) and process.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1.2))
        else:
            time.sleep(rng.uniform(0, 8))
        return process.poll() is not None
    finally:
        process.kill()
        process.communicate()


def finished(workdir):
    folders = (Path(workdir) / "checkpoints").glob("*/record.json")
    return sorted(int(path.parent.name) for path in folders)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing(alone, tmp_path, kills):
    """Restoring verifies every bit, so each life that goes on proves what was on disk."""
    run, rng, found = tmp_path / "run", random.Random(kills), [[]]
    for _ in range(kills):
        if live_and_die(run, rng):
            break
        found.append(finished(run))
        assert max(found[-1], default=0) >= max(found[-2], default=0), "a state was lost"
        for step in found[-1]:
            assert leaves(run, step) == leaves(alone, step), "a state is not of this run"
    code, said = small_run.run(long_config(), run)
    assert code == 0, said
    assert any(found), "killed before anything was saved: nothing was tested"
    assert leaves(run, STEPS) == leaves(alone, STEPS)
    assert small_run.lines(run) == small_run.lines(alone)
