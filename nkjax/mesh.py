"""Devices to mesh, with axis types written out; processes to one run, which stops as one."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

BATCH_AXES = ("data", "fsdp")  # the batch is split over both; parameters over the second
# Seconds a lone process may stand still (Ctrl-Z, a suspended laptop) before it is taken for dead.
PATIENCE = 10**8
REST = -1  # as a size of the mesh: the devices that the other size leaves


def make_mesh(data: int, fsdp: int, devices=None) -> Mesh:
    """Return a (data, fsdp) mesh over `devices` (default: all), with automatic partitioning.

    One of the two sizes may be -1, what the other one leaves. Raises ValueError when the sizes do
    not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp = _sizes(data, fsdp, len(devices), devices[0].device_kind)
    # jax.make_mesh defaults to Explicit axes, under which convolutions with sharded weights and
    # products over a sharded dimension raise (notes/jax.md B3).
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def _sizes(data: int, fsdp: int, count: int, kind: str) -> tuple[int, int]:
    asked, given = f"mesh {data} x {fsdp}", [size for size in (data, fsdp) if size != REST]
    if not given or min(given) < 1:
        raise ValueError(
            f"{asked}: sizes are 1 or more, and one of the two may be {REST} (what is left); there "
            f"are {count} devices ({kind})"
        )
    if len(given) == 1 and count % given[0]:
        raise ValueError(
            f"{asked} wants a multiple of {given[0]} devices, there are {count} ({kind}): "
            "give a size that divides that"
        )
    data = count // fsdp if data == REST else data
    fsdp = count // data if fsdp == REST else fsdp
    if data * fsdp != count:
        raise ValueError(
            f"{asked} wants {data * fsdp} devices, there are {count} ({kind}): "
            "change the mesh so that its sizes multiply to that"
        )
    return data, fsdp


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join the processes of a run; to be called before anything else asks jax for devices.

    coordinator: 'host:port' of process 0, processes: how many, process: which one this is, from 0;
    all three, or none of them. Without them they are taken from SLURM, Open MPI, Kubernetes or the
    TPU VM where one started this process, and elsewhere this is a run of one process. One process
    joins too: without it SIGTERM ends the process at once (notes/jax.md B9). A second call does
    nothing. Raises ValueError when the three do not make sense.
    """
    if jax.distributed.is_initialized():
        return
    given = _checked(coordinator, processes, process)
    with _without_proxies():
        if given:
            # Only what was said: a run started by hand inside a SLURM job is not that job.
            jax.distributed.initialize(
                coordinator, processes, process, cluster_detection_method="deactivate"
            )
        elif not _joined_cluster():
            _start_alone()


def preempted(step: int) -> bool:
    """Say whether this is the step after which all processes save and stop, one having got SIGTERM.

    Every process has to ask at every step, with the same numbers. False when `start` was not
    called. The answer comes some steps after the signal, so ask until it is True.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def _checked(coordinator: str, processes: int, process: int) -> bool:
    told = f"--coordinator={coordinator!r} --processes={processes} --process={process}"
    given = (coordinator != "", processes != 0, process != -1)
    if not any(given):
        return False
    if not all(given):
        raise ValueError(f"{told}: give all three, or none to have the cluster found")
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(f"{told}: processes count from 0, so process is 0 to processes - 1")
    if not re.fullmatch(r"[^\s/]+:[0-9]{1,5}", coordinator):
        raise ValueError(f"{told}: the coordinator is host:port of process 0, node01:29500 say")
    return True


@contextlib.contextmanager
def _without_proxies() -> Iterator[None]:
    """Talk to the run's own hosts directly: gRPC sends even 127.0.0.1 through http_proxy."""
    names = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy")]
    names += [name for name in os.environ if name == "grpc_proxy"]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _joined_cluster() -> bool:
    try:
        jax.distributed.initialize()
    except ValueError as error:
        # jax has no public way to ask whether it sees a cluster.
        if "coordinator_address should be defined" in str(error):
            return False
        raise
    return True


def _start_alone() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # Bound to this machine: by default the coordinator listens to everybody.
    jax.distributed.initialize(
        address, 1, 0, cluster_detection_method="deactivate", coordinator_bind_address=address,
        heartbeat_timeout_seconds=PATIENCE,
    )  # fmt: skip
