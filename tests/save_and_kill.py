"""Train a toy and save every step, killed with SIGKILL again and again (test_snapshots_processes).

save_and_kill.py FOLDER KILLS SEED. Each life is a child that restores the newest step, refuses
one that does not hold together, and goes on until it is killed; the last life makes three more
steps and stops. The parent never starts jax, so that forking is safe and a life begins at once.
Prints, as JSON and for each life, the step that it found, the last one known to be finished at its
death, and how many unfinished ones it left behind.
"""

import dataclasses
import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.snapshots import Snapshots

LAST_LIFE_STEPS = 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Toy:
    """A state whose every leaf tells its step; `walk` tells of every step before it too."""

    step: jax.Array
    walk: jax.Array
    params: dict


def advance(toy: Toy) -> Toy:
    """Make one step."""
    params = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), toy.params)
    return Toy(toy.step + 1, toy.walk * jnp.uint32(1664525) + jnp.uint32(1013904223), params)


def beginning() -> Toy:
    """Return the state of step 0; equal shapes, so that little is compiled in every life."""
    params = {f"w{i}": np.zeros((50, 60), np.float32) for i in range(6)}
    return Toy(np.int32(0), np.arange(5, dtype=np.uint32), params)


def live(folder: str, tell, last: bool) -> None:
    """Go on from the newest step on disk, telling through a pipe which steps are finished."""
    snapshots = Snapshots(folder, keep=2, best="height")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    toy, start = beginning(), snapshots.latest()
    if start is not None:
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), toy)
        toy, facts = snapshots.restore(start, wanted)
        values = {int(toy.step), facts["step"], *np.unique(np.concatenate(
            [np.ravel(leaf) for leaf in toy.params.values()]))}  # fmt: skip
        assert values == {start}, f"step {start} is mixed: {values}"
    toy, one = jax.device_put(toy, here), jax.jit(advance, donate_argnums=0)
    step = start or 0
    while not last or step < (start or 0) + LAST_LIFE_STEPS:
        toy, step = one(toy), step + 1
        # A highest point that moves now and then: retention works while the process is killed.
        snapshots.save(step, toy, {"step": step}, {"height": float(step % 7)})
        known = "found" if step - 1 == (start or 0) else "finished"
        tell.write(f"{known} {step - 1}\n")  # all is compiled; save waits for the one before
    snapshots.close()
    tell.write(f"finished {step}\n")


def one_life(folder: str, seconds: float | None) -> tuple[int, int, int]:
    """Fork, kill the child so long after it began to train, return what it told."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(mouth, "w", buffering=1) as tell:
                live(folder, tell, last=seconds is None)
            status = 0
        finally:
            os._exit(status)
    os.close(mouth)
    with os.fdopen(ear) as told:
        first = told.readline()
        if seconds is not None and first:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        lines = [first, *told]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != (0 if seconds is None else -signal.SIGKILL):
        raise SystemExit(f"a life ended by itself with {status} after {lines}")
    found = int(lines[0].split()[1])
    unfinished = [path for path in (Path(folder) / "checkpoints").iterdir()
                  if not (path / "record.json").exists()]  # fmt: skip
    return found, max([found, *(int(line.split()[1]) for line in lines[1:])]), len(unfinished)


if __name__ == "__main__":
    where, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    gc.freeze()  # the children need not look through what was imported
    lives = [one_life(where, moments.uniform(0.0, 0.4)) for _ in range(kills)]
    print(json.dumps([*lives, one_life(where, None)]))
