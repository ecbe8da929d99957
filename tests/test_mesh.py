"""Sizes of a mesh; processes that join, and that stop as one on SIGTERM (real processes)."""

import os
import signal
import socket
import subprocess
import sys
import threading

import jax
import pytest

from nkjax import mesh as meshes

DEVICES = jax.devices()


@pytest.mark.parametrize(
    ("asked", "devices", "expected"),
    [((-1, 2), 8, (4, 2)), ((2, -1), 8, (2, 4)), ((-1, 1), 1, (1, 1)), ((1, -1), 6, (1, 6))],
)
def test_one_size_may_be_what_the_other_leaves(asked, devices, expected):
    devices = (DEVICES * 8)[:devices]
    if len(devices) > len(DEVICES):
        pytest.skip("an accelerator has fewer devices")
    mesh = meshes.make_mesh(*asked, devices)
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == expected


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ((-1, -1), "one of the two may be -1"),
        ((0, -1), "sizes are 1 or more"),
        ((-2, 4), "sizes are 1 or more"),
        ((-1, 3), "wants a multiple of 3 devices, there are 8"),
        ((5, -1), "wants a multiple of 5 devices, there are 8"),
        ((16, 1), "mesh 16 x 1 wants 16 devices, there are 8"),
        ((1, 4), "mesh 1 x 4 wants 4 devices, there are 8"),
    ],
)
def test_impossible_sizes_name_rule_and_devices(asked, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        meshes.make_mesh(*asked, (DEVICES * 8)[:8])
    assert DEVICES[0].device_kind in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (dict(coordinator="node01:29500"), "give all three"),
        (dict(processes=2), "give all three"),
        (dict(coordinator="node01:29500", process=0), "give all three"),
        (dict(process=0), "give all three"),
        (dict(coordinator="node01:29500", processes=2, process=2), "0 to processes - 1"),
        (dict(coordinator="node01:29500", processes=-1, process=0), "0 to processes - 1"),
        (dict(coordinator="node01", processes=1, process=0), "host:port"),
        (dict(coordinator="http://node01:80", processes=1, process=0), "host:port"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        meshes.start(**flags)
    assert "--coordinator=" in str(caught.value) and "\n" not in str(caught.value)
    assert not jax.distributed.is_initialized()


def test_without_start_nothing_is_ever_preempted():
    assert meshes.preempted(1) is False


# Takes the flags of a launch, joins, adds up numbers over all devices until it is to stop.
STEPS = """
import sys, time
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from nkjax import mesh as meshes
flags = dict(zip(("coordinator", "processes", "process"), sys.argv[1:]))
flags = {name: value if name == "coordinator" else int(value) for name, value in flags.items()}
meshes.start(**flags)
meshes.start(**flags)  # once more does nothing
mesh = meshes.make_mesh(-1, 1)
rows = NamedSharding(mesh, PartitionSpec(meshes.BATCH_AXES))
numbers = np.arange(mesh.size, dtype=np.float32)
numbers = jax.make_array_from_callback(numbers.shape, rows, lambda part: numbers[part])
total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
print("joined", jax.process_index(), jax.process_count(), jax.device_count(), float(total(numbers)),
      flush=True)
for step in range(1, 3000):
    total(numbers).block_until_ready()
    time.sleep(0.005)
    if step == 5:
        print("training", flush=True)
    if meshes.preempted(step):
        print("stopped at", step, flush=True)
        sys.exit(0)
sys.exit(3)
"""


def launch(*flags, devices=1, **environment):
    forced = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    clean = {name: value for name, value in os.environ.items() if not _of_a_cluster(name)}
    return subprocess.Popen(
        [sys.executable, "-c", STEPS, *map(str, flags)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean | forced | {"JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip


def _of_a_cluster(name: str) -> bool:
    return name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORD", "JAX_LOCAL", "TPU_"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def words_after(process, word: str) -> list[str]:
    """Read on to `word`, and return what follows on its line; gloo writes to stdout too."""
    for line in process.stdout:
        if word in line:
            return line.partition(word)[2].split()
    raise AssertionError((word, process.wait(), process.stderr.read()[-2000:]))


def until_training(process) -> list[str]:
    """Wait until the process trains; return what it said when it had joined."""
    joined = words_after(process, "joined")
    assert words_after(process, "training") == []
    return joined


def last_step(process) -> int:
    """Wait for the process's end, which is to be a good one, and return its last step."""
    (step,) = words_after(process, "stopped at")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors[-2000:]
    return int(step)


@pytest.fixture
def started():
    """Give `launch`; what it started outlives neither the test nor a minute."""
    processes, alarms = [], []

    def keep(*flags, **options):
        processes.append(launch(*flags, **options))
        alarms.append(threading.Timer(60, processes[-1].kill))
        alarms[-1].start()
        return processes[-1]

    yield keep
    for process, alarm in zip(processes, alarms, strict=True):
        alarm.cancel()
        process.kill()
        process.communicate()


def test_one_process_stops_on_sigterm_and_exits_0(started):
    # A proxy that answers nobody: the processes of a run must not talk through it.
    proxy = f"http://127.0.0.1:{free_port()}"
    process = started(http_proxy=proxy, https_proxy=proxy)
    assert until_training(process) == ["0", "1", "1", "0.0"]
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # SLURM and a wrapper may both send one
    assert last_step(process) > 5


def test_two_processes_stop_at_the_same_step_when_one_gets_sigterm(started):
    address = f"127.0.0.1:{free_port()}"
    both = [started(address, 2, process, devices=4) for process in (0, 1)]
    # 0 + 1 + ... + 7: each saw the numbers of the other.
    assert [until_training(p) for p in both] == [["0", "2", "8", "28.0"], ["1", "2", "8", "28.0"]]
    both[1].send_signal(signal.SIGTERM)
    assert last_step(both[0]) == last_step(both[1]) > 5


def test_a_slurm_task_finds_its_job(started):
    task = dict(SLURM_JOB_ID="77", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2")
    task |= dict(JAX_COORDINATOR_PORT=str(free_port()))
    both = [started(devices=2, **task, SLURM_PROCID=str(n), SLURM_LOCALID=str(n)) for n in (0, 1)]
    assert [until_training(p) for p in both] == [["0", "2", "4", "6.0"], ["1", "2", "4", "6.0"]]
    both[0].send_signal(signal.SIGTERM)
    assert last_step(both[0]) == last_step(both[1]) > 5
