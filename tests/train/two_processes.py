"""One of two processes of a step: `coordinator process out` computes loss and gradient of a batch.

Process 0 writes them to a file. Run by test_meshes.py, with four devices for each.
"""

import sys

import jax
import numpy as np

from nkjax import mesh as meshes
from nkjax import sharding, trees
from tests.train import on_meshes


def main(coordinator: str, process: str, out: str) -> None:
    """Join, take every second person of the batch, and write what both computed."""
    meshes.start(coordinator, 2, int(process))
    assert (jax.process_count(), jax.device_count()) == (2, 8)
    mesh = meshes.make_mesh(2, 4)
    # As the stream hands them out: process i has people i, i + 2, ...
    mine = {name: x[int(process) :: 2] for name, x in on_meshes.batch().items()}
    compiled, params = on_meshes.compiled(mesh, "float32")
    with jax.set_mesh(mesh):
        value, gradient = compiled(params, sharding.share(mine, mesh))
        gather = jax.jit(lambda x: x, out_shardings=on_meshes.everywhere(mesh))
        whole = jax.device_get(gather((value, gradient)))
    if process == "0":
        np.savez(out, loss=whole[0], **trees.flatten(whole[1]))
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
