"""Loss and gradient of one small pose network and batch on any mesh, before the optimiser."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import sharding
from nkjax.config import Config, Heatmaps, Optimizer
from nkjax.models import sapiens
from nkjax.train import job, step

CONFIG = Config(
    size="tiny", image_hw=(64, 48), batch=16, compute="float32", remat="none", augment="plain",
    steps=10, optimizer=Optimizer(warmup=0), heatmaps=Heatmaps(sigma=1.0),
)  # fmt: skip
SPEC = sapiens.make_spec("tiny", "pose", image_size=CONFIG.image_hw)


def batch() -> dict:
    """Return 16 people as arrays of the host: noise, joints in the crop, one of them not valid."""
    rng, (height, width) = np.random.default_rng(0), CONFIG.image_hw
    points = rng.uniform(0, (width - 1, height - 1), (CONFIG.batch, 17, 2))
    return {
        "image": rng.integers(0, 256, (CONFIG.batch, height, width, 3), np.uint8),
        "index": np.arange(CONFIG.batch, dtype=np.uint32),
        "valid": np.arange(CONFIG.batch) != 3,
        "points": points.astype(np.float32),
        "visible": rng.choice([2, 2, 2, 1, 0], (CONFIG.batch, 17)).astype(np.int8),
    }


def everywhere(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device has all of."""
    return NamedSharding(mesh, PartitionSpec())


def compiled(mesh: Mesh, compute: str):
    """Return (params, batch) -> (loss, gradient), placed as in the step, and the parameters."""
    config = dataclasses.replace(CONFIG, compute=compute)
    shapes = job.abstract_state(SPEC, config, mesh).params
    placed = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    with jax.set_mesh(mesh):
        params = jax.jit(lambda: sapiens.init(jax.random.key(0), SPEC), out_shardings=placed)()
        jitted = jax.jit(
            jax.value_and_grad(step.make_loss(SPEC, config)),
            out_shardings=(everywhere(mesh), placed),
        )
        return jitted.lower(shapes, job.abstract_batch(SPEC, config, mesh)).compile(), params


def on(mesh: Mesh, compute: str = "float32"):
    """Return loss and gradient of the batch on a mesh of this process, as arrays of the devices."""
    run, params = compiled(mesh, compute)
    with jax.set_mesh(mesh):
        return run(params, sharding.share(batch(), mesh))
