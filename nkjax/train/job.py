"""A run's programs, compiled once for its mesh: the step, and the look at the validation split."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import sharding
from nkjax.config import Config
from nkjax.data import augment, dense_labels, streams
from nkjax.data.samples import Look
from nkjax.data.streams import Stream
from nkjax.evaluate import packed, scores
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy
from nkjax.train import optimizer as optimizers
from nkjax.train import state as states
from nkjax.train import step as steps
from nkjax.train.begin import Start
from nkjax.train.step import FIELDS, STREAM

RECIPES = {
    "plain": augment.PLAIN,
    "weak": augment.WEAK,
    "sapiens": augment.SAPIENS,
    "dense": augment.DENSE,
}


@dataclasses.dataclass(frozen=True)
class Job:
    """Programs of a run.

    abstract: the state as ShapeDtypeStructs with shardings. first(params) -> state; step(state,
    batch) -> (state, metrics), which takes the state's memory; look(params, rows) -> ({metric},
    number of rows that could not be read).
    """

    mesh: Mesh
    abstract: states.State
    first: Callable
    step: Callable
    look: Callable


def abstract_state(spec: Spec, config: Config, mesh: Mesh) -> states.State:
    """Return the state of a run as shapes with their places on the mesh; no array is made."""
    optimizer = optimizers.make(config.optimizer, config.steps)
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    shapes = jax.eval_shape(functools.partial(states.init, optimizer=optimizer), params)
    return _placed(shapes, sharding.shardings(shapes, mesh))


def abstract_batch(spec: Spec, config: Config, mesh: Mesh) -> dict:
    """Return the batch of a step as shapes with their places on the mesh."""
    count, (height, width) = config.batch, config.image_hw
    joints = spec.head.outputs
    fields = {
        "image": ((height, width, 3), jnp.uint8),
        "index": ((), jnp.uint32),
        "valid": ((), jnp.bool),
        "points": ((joints, 2), jnp.float32),
        "visible": ((joints,), jnp.int8),
    }
    if config.task != "pose":
        kind = dense_labels.KINDS[config.task]
        fields["label"] = ((height, width, *kind.shape), kind.dtype)
    names = ("image", "index", "valid", *FIELDS[config.task])
    over_all = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((count, *fields[name][0]), fields[name][1], sharding=over_all)
        for name in names
    }


def lower_step(spec: Spec, config: Config, mesh: Mesh, attention: str = "auto"):
    """Lower the step of a run for a mesh, with the state donated; `.compile()` makes it run."""
    optimizer = optimizers.make(config.optimizer, config.steps)
    state = abstract_state(spec, config, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(
        steps.make_step(spec, config, optimizer, attention),
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), everywhere),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, abstract_batch(spec, config, mesh))


def compile_job(start: Start, config: Config, mesh: Mesh) -> Job:
    """Compile all that a run will call, so that nothing is compiled after its first step."""
    spec = start.spec
    optimizer = optimizers.make(config.optimizer, config.steps)
    state = abstract_state(spec, config, mesh)
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    with jax.set_mesh(mesh):
        # The parameters' memory becomes the state's.
        first = jax.jit(
            functools.partial(states.init, optimizer=optimizer),
            out_shardings=placed,
            donate_argnums=0,
        )
        first = first.lower(state.params).compile()
    look = _look_at_poses if config.task == "pose" else _look_at_loss
    return Job(
        mesh=mesh,
        abstract=state,
        first=first,
        step=lower_step(spec, config, mesh).compile(),
        look=look(spec, config, mesh, state.params),
    )


def training_batches(start: Start, config: Config, step: int):
    """Yield this process's part of every batch from a step on, for ever, as the step takes it."""
    height, width = config.image_hw
    look = Look((width, height), ((config.augment, RECIPES[config.augment]),))
    batches = streams.endless(
        {STREAM: Stream(start.train, look, config.batch)},
        seed=config.seed,
        start_step=step,
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=config.threads,
        max_failed=config.max_failed,
    )
    try:
        for batch in batches:
            yield steps.host_batch(batch[STREAM], config.task)
    finally:
        batches.close()


def _placed(shapes, shardings):
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        shapes,
        shardings,
    )


def _look_at_poses(spec, config, mesh, params):
    settings = config.evaluation
    policy = Policy(compute=config.compute)
    network = packed.compile_network(
        spec, params, mesh, settings.batch, policy, settings.flip_test
    )

    def look(params, rows):
        keypoints = packed.find(network, params, rows, spec, mesh, settings.batch, config.threads)
        unread = len(rows) - int(keypoints.read_n.sum())
        return scores.measure(packed.found(rows, keypoints, spec), spec.skeleton), unread

    return look


def _look_at_loss(spec, config, mesh, params):
    plain = dataclasses.replace(
        config,
        augment="plain",
        batch=config.evaluation.batch,
        optimizer=dataclasses.replace(config.optimizer, accumulate=1),
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        loss_of = steps.make_loss(spec, plain)
        jitted = jax.jit(
            lambda params, batch: (loss_of(params, batch), batch["valid"].sum()),
            out_shardings=everywhere,
        )
        loss = jitted.lower(params, abstract_batch(spec, plain, mesh)).compile()

    def look(params, rows):
        height, width = config.image_hw
        stream = Stream(rows, Look((width, height), (("plain", augment.PLAIN),)), plain.batch)
        total = people = 0
        for batch in streams.finite(
            stream,
            process=jax.process_index(),
            processes=jax.process_count(),
            threads=config.threads,
        ):
            shared = sharding.share(steps.host_batch(batch, config.task), mesh)
            value, valid = jax.device_get(loss(params, shared))
            # The mean of normals is over labelled px; in the others' all rows of the batch count.
            total += float(value) * (int(valid) if config.task == "normal" else plain.batch)
            people += int(valid)
        return {"loss": total / people if people else math.nan}, len(rows) - people

    return look
