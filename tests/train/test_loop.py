"""The loop: what it writes, refuses, skips and accounts for; nothing compiles or moves unseen."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import config as configs
from nkjax import runs, typed
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig, Mesh
from nkjax.snapshots import Snapshots, read_facts
from nkjax.train import begin, job, loop
from nkjax.train import step as steps
from tests.train import small_run

WATCHED = """
import json, sys
import jax
from tests.train import small_run
from nkjax.train import job, loop
done, compiled = [0], []

def listen(event, seconds, **facts):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append((done[0], str(facts.get("fun_name"))))

def preempted(step):
    done[0] = step
    return False

jax.monitoring.register_event_duration_secs_listener(listen)
loop.train(job.POSE, small_run.config(data=sys.argv[1]), sys.argv[2], preempted=preempted)
done[0] += 1
jax.jit(lambda x: x * 3)(2.0)  # or nobody listens
print(json.dumps(compiled))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 6 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("loop") / "run"
    assert small_run.train(small_run.config(), folder) == 6
    return folder


def test_nothing_is_compiled_after_the_first_step(tmp_path):
    """Not by evaluations (steps 4, 6) nor by saves (2, 4, 6)."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, small_run.data(), str(tmp_path / "run")],
        env=small_run.environment(), cwd=small_run.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    assert {step for step, _ in compiled} == {0, 7}, compiled
    assert "jit(step)" in [name for _, name in compiled]


def test_an_implicit_transfer_is_an_error(tmp_path):
    def careless(*given):
        programs = small_run.compile_once(*given)

        def step(state, batch):
            state.step + 1  # the 1 goes to the device unasked
            return programs.step(state, batch)

        return dataclasses.replace(programs, step=step)

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        small_run.train(small_run.config(), tmp_path / "run", programs=careless)


def test_curves_hold_what_is_asked_for(run, tmp_path):
    lines = small_run.lines(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert [line["step"] for line in lines if "val/pck_torso@0.1" in line] == [4, 6]
    small_run.train(small_run.config(log_every=3), tmp_path / "run")
    fewer = small_run.lines(tmp_path / "run")
    assert [line["step"] for line in fewer] == [3, 4, 6, 6] and all(line in lines for line in fewer)


def test_the_folder_is_enough_to_start_the_run_again(run, tmp_path):
    plain = json.loads((run / "config.json").read_text())
    again = configs.from_json(plain, "config.json")
    assert again == small_run.config()
    document = json.loads((run / "run.json").read_text())
    assert document["config_sha256"] == configs.sha256(again)
    assert document["seed"] == again.seed and len(document["sessions"]) == 1
    small_run.train(again, tmp_path / "again", lambda step: step == 3)
    first = [line for line in small_run.lines(run) if line["step"] <= 3]
    assert small_run.lines(tmp_path / "again") == first


def test_sessions_are_listed(tmp_path, capsys):
    small_run.train(small_run.config(), tmp_path, lambda step: step == 3)
    started = json.loads((tmp_path / "run.json").read_text())
    small_run.train(small_run.config(), tmp_path)
    # What the run is was said once.
    said = capsys.readouterr().err.splitlines()
    assert said.count("  optimizer: learning_rate=0.001 warmup=2") == 1
    assert said.count("  steps: 6") == 1 and not [line for line in said if "  seed:" in line]
    document = json.loads((tmp_path / "run.json").read_text())
    assert [session["from_step"] for session in document.pop("sessions")] == [0, 3]
    assert document == {k: v for k, v in started.items() if k != "sessions"}


def test_time_accounts_add_up(tmp_path, monkeypatch):
    """To the wall time of all sessions, each up to its last save."""
    ends, save = [], Snapshots.save

    def saved(self, *given):
        ends.append(time.perf_counter())
        save(self, *given)

    monkeypatch.setattr(Snapshots, "save", saved)
    wall = 0.0
    for stop in (3, None):
        begin = time.perf_counter()
        small_run.train(small_run.config(), tmp_path, lambda step, stop=stop: step == stop)
        wall += ends[-1] - begin
    accounts = read_facts(tmp_path, 6)["facts"]["seconds"]
    assert sum(accounts.values()) == pytest.approx(wall, rel=0.02)
    assert all(accounts[name] > 0 for name in ("init", "compile", "restore", "step", "eval"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"optimizer__clip": 2.0}, "(optimizer.clip was 1.0 and is 2.0)"),
        ({"evaluation__every": 2}, "(evaluation.every was 4 and is 2)"),
        ({"steps": 9}, "steps was 6 and is 9"),
    ],
)
def test_a_changed_run_is_refused(run, changes, words):
    with pytest.raises(BadConfig) as caught:
        small_run.train(small_run.config(**changes), run)
    assert words in str(caught.value) and "--workdir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_finished_run_says_so_whatever_may_change(run, capsys):
    before = (run / "run.json").read_bytes()
    changed = small_run.config(
        mesh=Mesh(2, 4), threads=1, keep=7, log_every=5, max_failed=0.5, remat="full",
        evaluation__batch=16, data=f"{small_run.data()}/.",
    )  # fmt: skip
    assert small_run.train(changed, run) == 6
    assert "finished already, at step 6" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize("workdir", ["memory://run", "ftp://host/run"])
def test_a_place_that_cannot_be_reached_is_refused(workdir):
    with pytest.raises(BadConfig, match=f"--workdir={workdir}: cannot be reached"):
        small_run.train(small_run.config(), workdir)


# Traced steps 2 and 3; up to the last step; stopped in the middle; begun in the middle.
@pytest.mark.parametrize(("window", "stops"), [((1, 2), []), ((4, 2), []), ((1, 4), [3])])
def test_a_profile_appears(tmp_path, window, stops):
    for stop in [*stops, None]:
        small_run.train(
            small_run.config(profile=window), tmp_path, lambda step, stop=stop: step == stop
        )
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.fixture
def one_bad_step(monkeypatch):
    """Let the loss be infinite for the batch with the person of index 20: step 3 of the run."""
    make = steps.make_loss

    def make_bad(*given):
        loss = make(*given)

        def bad(params, batch):
            return loss(params, batch) * jnp.where((batch["index"] == 20).any(), jnp.inf, 1.0)

        return bad

    monkeypatch.setattr(steps, "make_loss", make_bad)


def test_one_bad_step_is_skipped_and_counted(tmp_path, one_bad_step, capsys):
    config = small_run.config(save_every=1, keep=9)
    assert small_run.train(config, tmp_path, programs=job.compile_job) == 6
    lines = [line for line in small_run.lines(tmp_path) if "train/loss" in line]
    assert [line["train/skipped"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert [line["train/loss"] == "inf" for line in lines] == [step == 3 for step in range(1, 7)]
    assert "step 3 skipped" in capsys.readouterr().err
    before, after, later = (small_run.record(tmp_path, n)["leaves"] for n in (2, 3, 4))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"step", "skipped", "in_a_row"}
    kernels = [name for name in before if name.endswith("kernel")]
    assert kernels and all(before[name] != later[name] for name in kernels)


def test_a_run_that_stays_bad_ends_and_keeps_its_last_good_state(tmp_path):
    """A rate of 1e30 leaves finite parameters after one step, but no finite loss ever again."""
    config = small_run.config(optimizer__learning_rate=1e30, optimizer__warmup=0, abort_after=3)
    words = "3 steps in a row to step 4.*last good state is step 2"
    with pytest.raises(loop.Diverged, match=words):
        small_run.train(config, tmp_path, programs=job.compile_job)
    spec = job.sapiens.read_model(tmp_path)[0]
    mesh = loop.mesh.make_mesh(1, 8)
    state, _ = Snapshots(tmp_path, keep=1).restore(2, job.abstract_state(spec, config, mesh))
    assert int(state.updates) == 1 and int(state.skipped) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def never(*given):
    raise AssertionError("compiled")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.json", None, "no config.json; restore the file, or name a new --workdir"),
        ("run.json", None, "no run.json; restore"),
        ("model.json", None, "no model.json; restore"),
        ("run.json", "{}", "run.json: damaged, or not a run.json of nkjax; restore the file"),
        ("run.json", '{"format": 1', "run.json: damaged"),
        ("run.json", "[]", "run.json: damaged"),
        ("model.json", "{", "not a model.json"),
        ("config.json", '{"evaluation": 5}', "config.json: holds no settings"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(run, tmp_path, name, text, words):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / name).unlink()
    if text is not None:
        (copy / name).write_text(text)
    with pytest.raises(BadCheckpoint, match=words) as caught:
        small_run.train(small_run.config(), copy, programs=never)
    assert "\n" not in str(caught.value)


def check_same(folder):
    now = configs.to_json(small_run.config())
    return runs.check_same(folder, now, job.POSE.check_model)


def test_a_start_that_was_cut_short_begins_again(run, tmp_path):
    for name in ("run.json", "model.json"):  # config.json is written last
        shutil.copy(run / name, tmp_path)
    assert check_same(tmp_path) is None
    shutil.copy(run / "config.json", tmp_path)
    assert check_same(tmp_path)["format"] == 1


@pytest.mark.parametrize("below", [".", "run"])
def test_a_place_that_cannot_be_written_to_is_refused_before_compiling(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    workdir = tmp_path / "file" / below
    with pytest.raises(BadConfig, match=f"--workdir={workdir}: cannot be written to .*; name an"):
        small_run.train(small_run.config(), workdir, programs=never)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_no_divergence(tmp_path, monkeypatch):
    def full(*given):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(Snapshots, "save", full)
    with pytest.raises(ValueError, match="No space left"):  # Diverged is none
        small_run.train(small_run.config(), tmp_path)


@pytest.mark.parametrize("fails", [True, False])
def test_who_fails_waits_for_nobody(tmp_path, monkeypatch, fails):
    closed, close = [], Snapshots.close

    def watched(self, alone=False):
        closed.append(alone)
        close(self, alone)

    def preempted(step):
        if fails and step == 3:
            raise RuntimeError("only here")
        return False

    monkeypatch.setattr(Snapshots, "close", watched)
    with pytest.raises(RuntimeError, match="only here") if fails else contextlib.nullcontext():
        small_run.train(small_run.config(), tmp_path, preempted)
    assert closed == [fails]
    assert Snapshots(tmp_path, keep=1).latest() == (2 if fails else 6)


def test_what_was_looked_at_is_saved(tmp_path):
    config = small_run.config(save_every=6, evaluation__every=2, keep=9)
    small_run.train(config, tmp_path)
    assert Snapshots(tmp_path, keep=9).steps() == [2, 4, 6]
    assert all(read_facts(tmp_path, step)["metrics"]["pck_torso@0.1"] >= 0 for step in (2, 4, 6))


def test_who_is_told_to_stop_saves_and_does_not_look(tmp_path):
    config = small_run.config(save_every=6, evaluation__every=2)
    assert small_run.train(config, tmp_path, lambda step: step == 2) == 2
    assert read_facts(tmp_path, 2)["metrics"] == {}
    assert [line["step"] for line in small_run.lines(tmp_path)] == [1, 2]


def looking(look):
    """Return programs of a run whose look at the validation split is another one."""
    return lambda *given: dataclasses.replace(small_run.compile_once(*given), look=look)


@pytest.mark.parametrize("most", [0.001, 0.25])
def test_people_that_cannot_be_read_are_told_and_many_spoil_a_look(tmp_path, capsys, most):
    def look(params, rows):
        return {"pck_torso@0.1": 0.5}, 2  # of 8

    small_run.train(small_run.config(max_failed=most), tmp_path, programs=looking(look))
    said, stored = capsys.readouterr().err, read_facts(tmp_path, 6)["metrics"]
    assert "step 6  2 of 8 people of val could not be read" in said
    if most == 0.25:
        assert stored == {"pck_torso@0.1": 0.5, "unread": 2.0} and "no figures" not in said
    else:
        assert stored == {} and "step 6  no figures: more than max_failed, 0.10%, were" in said


def test_a_look_that_fails_loses_no_state(tmp_path):
    def look(params, rows):
        raise RuntimeError("a damaged record")

    config = small_run.config(save_every=6)
    with pytest.raises(RuntimeError, match="a damaged record"):
        small_run.train(config, tmp_path, programs=looking(look))
    assert Snapshots(tmp_path, keep=1).steps() == [4]
    assert read_facts(tmp_path, 4)["metrics"] == {}


def test_speed_is_of_data_and_steps_alone(capsys):
    spent = dict(data=10.0, step=20.0, eval=5.0, save=0.0)
    clock = types.SimpleNamespace(totals=lambda: spent)
    run = loop._Run(job.POSE, small_run.config(steps=244), None, None, None, None, clock, None)
    run.marked = (0, dict(spent))
    spent |= dict(data=11.0, step=23.0, eval=900.0, save=99.0)
    # 4 steps of 8 people in 1 + 3 s; 240 steps are to go.
    found = run._speed(4, {"train/loss": 1.0})
    assert found == {"time/images_per_s": 8.0, "time/data_share": 0.25}
    assert capsys.readouterr().err.endswith("data 25%  4 min to go\n")


def test_the_first_parameters_are_of_the_step_that_was_written_down(run, monkeypatch):
    config = small_run.config(init=str(run))
    start = begin.begin(config)._replace(parent={"folder": str(run), "step": 4})
    asked = []
    monkeypatch.setattr(begin.runs, "load", lambda *given: asked.append(given) or never())
    with pytest.raises(AssertionError):
        begin.first_params(start, config, loop.mesh.make_mesh(-1, 1))
    assert asked[0][:2] == (str(run), "4")


def test_what_may_change_is_a_setting():
    assert set(runs.MAY_CHANGE) <= typed.kinds(configs.Config).keys()
