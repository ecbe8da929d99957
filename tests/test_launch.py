"""The launch files, with fakes of srun, scontrol, gcloud and train.py that note their calls."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "scripts" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
JOBSETS = [LAUNCH / "gke.yaml", LAUNCH / "gke_tpu.yaml"]
ARGUMENTS = ["--config=configs/a.py:0.6b", "--workdir=my runs/$HOME's", "--config.seed=7"]

# Ends as told by FAKE_TRAIN: an exit code, or on SIGTERM with the exit code behind 'until '.
TRAIN = """
import json, os, signal, sys, time
order = os.environ["FAKE_TRAIN"]
if order.startswith("until "):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(order.removeprefix("until "))))
with open("calls", "a") as calls:
    calls.write(json.dumps(["train", os.getcwd(), *sys.argv[1:]]) + "\\n")
while not order.isdigit():
    time.sleep(0.01)
sys.exit(int(order))
"""
# Notes its call; as srun, then does what it is called for.
FAKE = """#!/bin/bash
note='import json, sys; print(json.dumps(sys.argv[1:]))'
"$FAKE_PYTHON" -c "$note" "${0##*/}" "$@" >>"$FAKE_CALLS"
[ "${0##*/}" = srun ] || exit "${FAKE_CODE:-0}"
echo $$ >"$FAKE_CALLS.step"
while [[ "$1" = --* ]]; do shift; done
exec "$@"
"""


@pytest.fixture
def clone(tmp_path):
    """Make a clone with the launch files, a fake train.py, its environment and fake commands."""
    clone = tmp_path / "a clone"
    shutil.copytree(LAUNCH, clone / "scripts" / "launch")
    (clone / "scripts" / "train.py").write_text(TRAIN)
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / "fakes").mkdir()
    commands = {clone / "fakes" / name: FAKE for name in ("srun", "scontrol", "gcloud")}
    python = f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n'
    for path, text in (commands | {clone / ".venv" / "bin" / "python": python}).items():
        path.write_text(text)
        path.chmod(0o755)
    return clone


def start(clone, script, *arguments, folder=None, train="0", **environment):
    fakes = {"PATH": f"{clone / 'fakes'}:{os.environ['PATH']}", "FAKE_TRAIN": train}
    fakes |= {"FAKE_CALLS": str(clone / "calls"), "FAKE_PYTHON": sys.executable}
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "NKJAX_VENV"))}
    return subprocess.Popen(
        ["bash", script, *arguments], cwd=folder or clone, env=clean | fakes | environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


def calls(clone) -> list[list[str]]:
    path = clone / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until_training(clone, process):
    while not any(call[0] == "train" for call in calls(clone)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    subprocess.run(["shellcheck", *SCRIPTS], check=True)


# -- task.sh: one process ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_task_ends_as_train_does(clone, code):
    process = start(clone, "scripts/launch/task.sh", *ARGUMENTS, train=str(code))
    assert end(process)[0] == code
    assert calls(clone) == [["train", str(clone), *ARGUMENTS]]


@pytest.mark.parametrize(
    ("sent", "train", "code"),
    [
        (signal.SIGTERM, "until 0", 75),
        (signal.SIGINT, "until 0", 75),  # Ctrl-C at srun
        (signal.SIGTERM, "until 1", 1),  # it could not save
        (signal.SIGTERM, "killed", 75),  # train.py did not listen yet
    ],
)
def test_a_task_that_was_stopped_says_start_me_again(clone, sent, train, code):
    process = start(clone, "scripts/launch/task.sh", *ARGUMENTS, train=train)
    until_training(clone, process)
    process.send_signal(sent)
    process.send_signal(sent)
    assert end(process)[0] == code


JAX_TRAIN = """
import json, sys, time
from nkjax import mesh
mesh.start()
open("calls", "w").write(json.dumps(["train"]) + "\\n")
step = 0
while not mesh.preempted(step):
    step += 1
    time.sleep(0.01)
"""


def test_a_task_stops_jax_too(clone):
    (clone / "scripts" / "train.py").write_text(JAX_TRAIN)
    process = start(
        clone, "scripts/launch/task.sh", PYTHONPATH=f"{ROOT}:{os.environ['PYTHONPATH']}"
    )
    until_training(clone, process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75


# -- SLURM ---------------------------------------------------------------------------------------


def slurm(clone, *arguments, **options):
    # SLURM runs a copy of the script from its spool folder, and says where sbatch was called.
    spooled = clone.parent / "spool" / "slurm_script"
    spooled.parent.mkdir()
    shutil.copy(clone / "scripts" / "launch" / "slurm.sh", spooled)
    here = {"SLURM_SUBMIT_DIR": str(clone), "SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "8"}
    return start(clone, spooled, *arguments, folder=spooled.parent, **(here | options))


def test_slurm_passes_all_arguments_on(clone):
    assert end(slurm(clone, "--", *ARGUMENTS))[0] == 0
    srun, train = calls(clone)
    task = ["bash", "scripts/launch/task.sh", *ARGUMENTS]
    assert srun == ["srun", "--gpu-bind=none", "--cpus-per-task=8", *task]
    assert train == ["train", str(clone), *ARGUMENTS]


def test_slurm_puts_a_stopped_job_back_into_the_queue(clone):
    process = slurm(clone, "--", *ARGUMENTS, train="until 0")
    until_training(clone, process)
    # At --signal SLURM signals the processes of the step, but not the batch script.
    os.kill(int((clone / "calls.step").read_text()), signal.SIGTERM)
    code, out, _ = end(process)
    assert code == 0 and "back into the queue" in out
    assert calls(clone)[-1] == ["scontrol", "requeue", "77"]


def test_slurm_does_not_run_again_what_failed_or_was_cancelled(clone):
    assert end(slurm(clone, "--", *ARGUMENTS, train="2"))[0] == 2
    assert [call[0] for call in calls(clone)] == ["srun", "train"]


@pytest.mark.parametrize("arguments", [[], ["--"], ["--config=x"]])
def test_slurm_without_arguments_says_how(clone, arguments):
    code, _, errors = end(slurm(clone, *arguments))
    assert code == 2 and "sbatch scripts/launch/slurm.sh -- --config=" in errors
    assert errors.count("\n") == 1 and calls(clone) == []


def test_slurm_outside_the_clone_says_so(clone):
    process = slurm(clone, "--", *ARGUMENTS, SLURM_SUBMIT_DIR=str(clone.parent))
    code, _, errors = end(process)
    assert code == 2 and "call sbatch in the clone" in errors


def test_slurm_asks_for_a_warning_and_for_one_process_per_gpu():
    lines = (LAUNCH / "slurm.sh").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    asked = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in lines[:first]  # sbatch reads no further
        if line.startswith("#SBATCH")
    )
    assert asked["signal"] == "TERM@120" and "requeue" in asked
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] and "gpus-per-task" not in asked


# -- TPU VMs -------------------------------------------------------------------------------------


def test_tpu_vm_runs_the_line_on_every_host(clone):
    process = start(clone, "scripts/launch/tpu_vm.sh", "pod", "eu-4", "--project=p", "--",
                    *ARGUMENTS)  # fmt: skip
    assert end(process)[0] == 0
    (call,) = calls(clone)
    *call, command = call
    assert shlex.join(call) == (
        "gcloud compute tpus tpu-vm ssh pod --zone=eu-4 --worker=all --project=p"
    )
    # What a host does with it: its clone stands in the home folder.
    (clone.parent / "nkjax").symlink_to(clone)
    remote = clone.parent / "remote.sh"
    remote.write_text(command.removeprefix("--command="))
    assert end(start(clone, remote, folder=clone.parent))[0] == 0
    assert calls(clone)[-1][0] == "train" and calls(clone)[-1][2:] == ARGUMENTS


def test_tpu_vm_dry_run_prints_what_it_would_call(clone):
    script = "scripts/launch/tpu_vm.sh"
    code, out, _ = end(start(clone, script, "--dry_run", "pod", "eu-4", "--", *ARGUMENTS))
    assert code == 0 and calls(clone) == []
    end(start(clone, script, "pod", "eu-4", "--", *ARGUMENTS))
    assert shlex.split(out) == calls(clone)[0]


@pytest.mark.parametrize(
    "words", ["", "pod", "pod --", "pod eu --", "pod eu", "-- a", "--zone=eu pod -- a"]
)
def test_tpu_vm_with_missing_words_says_how(clone, words):
    code, _, errors = end(start(clone, "scripts/launch/tpu_vm.sh", *words.split()))
    assert code == 2 and "usage: tpu_vm.sh [--dry_run] NAME ZONE" in errors and calls(clone) == []


def test_tpu_vm_fails_as_gcloud_does(clone):
    process = start(clone, "scripts/launch/tpu_vm.sh", "pod", "eu", "--", "a", FAKE_CODE="3")
    assert end(process)[0] == 3


# -- Kubernetes ----------------------------------------------------------------------------------


def jobset_of(path):
    """Return the JobSet, its one Job, the Job's pod and the pod's one container."""
    jobset = yaml.safe_load(path.read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return jobset, job, pod, container


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_a_jobset_starts_all_again_when_a_pod_was_stopped(path):
    jobset, job, pod, container = jobset_of(path)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = job["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    # A pod that fails fails its Job, and with it all pods are made again ...
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] >= 100
    # ... save for exit code 2.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert pod["terminationGracePeriodSeconds"] >= 120


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_train_understands_what_a_jobset_passes_on(path):
    import run_config
    import train

    *_, container = jobset_of(path)
    assert container["command"] == ["bash", "scripts/launch/task.sh"]
    arguments = [word.replace("$(HOST_INDEX)", "1") for word in container["args"]]
    config, options = run_config.parse(arguments, "", train._OPTIONS)
    assert (config.size, config.data) == ("0.6b", "gs://BUCKET/DATA")
    assert options["workdir"] == "gs://BUCKET/RUN"


def test_gpu_pods_find_each_other():
    jobset, job, _, container = jobset_of(LAUNCH / "gke.yaml")
    flags = dict(word.split("=", 1) for word in container["args"])
    name = jobset["metadata"]["name"]
    assert flags["--coordinator"].split(":")[0] == f"{name}-{job['name']}-0-0.{name}"
    assert int(flags["--processes"]) == job["template"]["spec"]["parallelism"]
    assert job["replicas"] == 1 and flags["--process"] == "$(HOST_INDEX)"
    (index,) = [entry for entry in container["env"] if entry["name"] == "HOST_INDEX"]
    field = index["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_tpu_hosts_cover_the_slice():
    _, job, pod, container = jobset_of(LAUNCH / "gke_tpu.yaml")
    height, width = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["template"]["spec"]["parallelism"] * chips == int(height) * int(width)


@pytest.mark.parametrize("path", [*JOBSETS, LAUNCH / "slurm.sh", LAUNCH / "tpu_vm.sh"],
                         ids=lambda path: path.name)  # fmt: skip
def test_advice_for_clusters_is_there_and_off(path):
    text = path.read_text()
    live = [line.partition(" #")[0] for line in text.splitlines() if line.strip()[:1] != "#"]
    advice = ["JAX_COMPILATION_CACHE_DIR"]
    advice += [] if "tpu" in path.name else ["NCCL_IB_DISABLE"]
    advice += [] if path.name == "tpu_vm.sh" else ["--config.threads=4"]
    for setting in advice:
        assert setting in text and not any(setting in line for line in live), setting
        assert setting in (ROOT / "docs" / "launch.md").read_text()
