"""SIGTERM: all processes save the same step and end with 0; the same command goes on."""

import re

import pytest

from tests.train import small_run
from tests.train.test_resume import finished, leaves, pair

STEPS = 300  # more than are done before the processes have agreed where to stop


def config(looks=STEPS):
    # One program for all of these runs: the number of steps is a part of it.
    return small_run.config(
        steps=STEPS, save_every=STEPS, log_every=STEPS, evaluation__every=looks, keep=9
    )


def stopped_at(said):
    """Return the step of the line that says where a run has stopped."""
    return int(re.search(r"asked to stop: saved step ([\d,]+);", said)[1].replace(",", ""))


def stop(process, after):
    """Send SIGTERM once the process has said something; returns the step that it saved."""
    small_run.wait_for(process, after)
    small_run.terminate(process)
    code, said = small_run.finish(process)
    assert code == 0, said
    return stopped_at(said)


@pytest.mark.slow  # what two processes do below, alone
def test_a_process_saves_where_it_is_and_goes_on(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    step = stop(small_run.start(config(), run, slow=0.1), "training from")
    assert finished(run) == [step] and 0 < step < STEPS
    for folder in (run, whole):
        code, said = small_run.run(config(), folder)
        assert code == 0, said
    assert finished(run) == [step, STEPS]
    assert leaves(run, STEPS) == leaves(whole, STEPS)
    assert small_run.lines(run) == small_run.lines(whole)


def test_one_of_two_processes_is_told_and_both_stop(tmp_path):
    told, other = processes = pair(config(), tmp_path / "run", slow=0.1)[::-1]
    small_run.wait_for(other, "training from")  # the first process alone speaks
    small_run.terminate(told)
    ended = [small_run.finish(process) for process in processes]
    assert [code for code, _ in ended] == [0, 0], ended
    step = stopped_at(ended[1][1])
    assert finished(tmp_path / "run") == [step]
    # The same command goes on: from there, and is stopped again.
    again = pair(config(), tmp_path / "run", slow=0.1)
    line = small_run.wait_for(again[0], "training from")
    assert line == f"training from step {step:,} to {STEPS:,}\n"
    small_run.terminate(again[0])
    ended = [small_run.finish(process) for process in again]
    assert [code for code, _ in ended] == [0, 0], ended
    assert finished(tmp_path / "run") == [step, stopped_at(ended[0][1])]


@pytest.mark.parametrize("moment", ["compiling", "evaluating"])
def test_a_process_told_at_another_moment_stops_well(tmp_path, moment):
    # Evaluated after every step, so most of its time goes there.
    looks, after = (1, "val/") if moment == "evaluating" else (STEPS, "compiling")
    step = stop(small_run.start(config(looks), tmp_path / "run"), after)
    # What was looked at is saved, but nobody looks before stopping.
    assert finished(tmp_path / "run")[-1] == step
    assert not small_run.record(tmp_path / "run", step)["metrics"]
