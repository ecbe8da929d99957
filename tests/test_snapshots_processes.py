"""Snapshots between processes: two save together, one is killed again and again, one is silent."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from nkjax.snapshots import Snapshots

KILLER = Path(__file__).parent / "save_and_kill.py"
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
TOGETHER = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=process)
from nkjax.mesh import make_mesh
from nkjax.snapshots import Snapshots

mesh = make_mesh(2, 4)
places = {"kernel": NamedSharding(mesh, PartitionSpec("data", "fsdp")),
          "step": NamedSharding(mesh, PartitionSpec())}
make = jax.jit(lambda n: {"kernel": jnp.arange(512.0).reshape(16, 32) + n, "step": n},
               out_shardings=places, static_argnums=0)
saved = Snapshots(folder, keep=2, best="ap")
assert saved.latest() == (5 if "again" in sys.argv else None)
if "again" not in sys.argv:
    for step, ap in ((1, 3.0), (3, 9.0), (4, 2.0), (5, 1.0)):
        saved.save(step, make(step), {"step": step}, {"ap": ap})
    saved.wait()
assert saved.steps() == [3, 4, 5] and saved.best() == 3 and saved.latest() == 5
wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
                      make(0))
found, facts = saved.restore(5, wanted)
same = jax.jit(lambda a, b: jax.tree.map(lambda x, y: (x == y).all(), a, b))(found, make(5))
assert all(bool(x) for x in jax.tree.leaves(same)) and facts == {"step": 5}
bad = jax.jit(lambda s: s | {"kernel": s["kernel"].at[15, 31].set(jnp.nan)})(found)
try:  # the number lies in the second process: both must refuse
    saved.save(6, bad, {}, {})
    raise SystemExit("saved what is not finite")
except ValueError as error:
    assert "kernel is not finite" in str(error)
saved.close()
print("done")
"""


def environment(devices: int) -> dict[str, str]:
    """What a process of so many CPU devices is started with."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def run(*command, **variables) -> subprocess.CompletedProcess:
    """Run Python in a process of one device."""
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment(1) | variables,
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def run_two(folder, *words) -> None:
    """Run the program in two processes of four devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-c", TOGETHER, address]
    both = [
        subprocess.Popen([*command, str(i), str(folder), *words], env=environment(4), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(2)
    ]  # fmt: skip
    try:
        told = [each.communicate(timeout=120) for each in both]
    finally:
        for each in both:
            each.kill()
    assert [each.returncode for each in both] == [0, 0], told
    assert all("done" in output for output, _ in told)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_two(folder)
    return folder


def test_one_process_reads_what_two_saved(together):
    wanted = {"kernel": jax.ShapeDtypeStruct((16, 32), np.float32, sharding=ONE),
              "step": jax.ShapeDtypeStruct((), np.int32, sharding=ONE)}  # fmt: skip
    saved = Snapshots(together, keep=2)
    assert saved.steps() == [3, 4, 5]
    found, _ = saved.restore(3, wanted)
    assert np.array_equal(found["kernel"], np.arange(512.0).reshape(16, 32) + 3)
    assert int(found["step"]) == 3


def test_two_go_on_where_two_were(together):
    (together / "checkpoints" / "9" / "state").mkdir(parents=True)  # left by a kill
    run_two(together, "again")


def test_killed_twenty_times(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
             "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
    done = run(KILLER, tmp_path, 20, 5, **cache)
    assert done.returncode == 0, done.stderr
    lives = json.loads(done.stdout)
    assert len(lives) == 21 and lives[0][0] == 0
    for (_, finished, _), (found, _, _) in zip(lives, lives[1:], strict=False):
        assert finished <= found <= finished + 2  # the one being written may be finished, or not
    assert sum(unfinished > 0 for *_, unfinished in lives) >= 5  # else nothing was cut short
    assert lives[-1][2] == 0
    last = lives[-1][0] + 3
    assert last >= 20
    walk = list(range(5))
    for _ in range(last):
        walk = [(x * 1664525 + 1013904223) % 2**32 for x in walk]
    params = {f"w{i}": np.full((50, 60), last, np.float32) for i in range(6)}
    wanted = {"step": np.int32(last), "walk": np.array(walk, np.uint32), "params": params}
    saved = Snapshots(tmp_path, keep=2, best="height")
    assert saved.latest() == last
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=ONE), wanted)
    found, _ = saved.restore(last, shapes)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, wanted))
    assert last in saved.steps() and len(saved.steps()) <= 3


def test_orbax_is_not_heard(tmp_path):
    program = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "import jax, jax.numpy as jnp; from nkjax.snapshots import Snapshots\n"
        "state = {'a': jnp.ones(3)}\n"
        "s = Snapshots(sys.argv[1], keep=1); s.save(1, state, {}, {}); s.close()\n"
        "one = jax.sharding.SingleDeviceSharding(jax.devices()[0])\n"
        "s.restore(1, {'a': jax.ShapeDtypeStruct((3,), jnp.float32, sharding=one)})\n"
    )
    done = run("-c", program, tmp_path)
    assert done.returncode == 0 and "orbax" not in done.stderr.lower(), done.stderr
    assert "absl" not in done.stderr and done.stdout == "", done.stderr
