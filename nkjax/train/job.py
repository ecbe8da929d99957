"""Programs of the pose network and of dense tasks: the step, the look at the validation split."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import runs, sharding
from nkjax.config import Config
from nkjax.data import augment, dense_labels, streams
from nkjax.data.samples import Look
from nkjax.data.streams import Stream
from nkjax.evaluate import packed, scores, topdown
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy
from nkjax.train import begin, work
from nkjax.train import state as states
from nkjax.train import step as steps
from nkjax.train.begin import Start
from nkjax.train.step import FIELDS, STREAM
from nkjax.train.work import Job, Work

RECIPES = {
    "plain": augment.PLAIN,
    "weak": augment.WEAK,
    "sapiens": augment.SAPIENS,
    "dense": augment.DENSE,
}


def abstract_state(spec: Spec, config: Config, mesh: Mesh) -> states.State:
    """Return the state of a run as shapes with their places on the mesh; no array is made."""
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    return work.abstract_state(params, config, mesh)


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
    loss = steps.make_loss(spec, config, attention)
    state, batch = abstract_state(spec, config, mesh), abstract_batch(spec, config, mesh)
    return work.lower_step(loss, state, batch, config, mesh)


def compile_job(start: Start, config: Config, mesh: Mesh) -> Job:
    """Compile all that a run will call, so that nothing is compiled after its first step."""
    spec = start.spec
    state = abstract_state(spec, config, mesh)
    look = _look_at_poses if config.task == "pose" else _look_at_loss
    return Job(
        mesh=mesh,
        abstract=state,
        first=work.compile_first(state, config, mesh),
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


def _look_at_poses(spec, config, mesh, params):
    settings = config.evaluation
    policy = Policy(compute=config.compute)
    forward = topdown.make_forward(spec, policy, settings.flip_test)
    network = packed.compile_network(spec, params, mesh, settings.batch, forward)

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


POSE = Work(
    begin=begin.begin,
    first_params=begin.first_params,
    compile=compile_job,
    batches=training_batches,
    model_document=lambda start: runs.model_document(start.spec, start.weights),
    check_model=sapiens.read_model,
    best=lambda config: config.evaluation.best,
    unit="images",
)
