"""What the loop runs: programs, compiled once for a mesh, and what a kind of run has of its own.

In flow a config and what a run starts from, out functions that the loop calls; the kinds are
`job.POSE` and `prior.PRIOR`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import sharding
from nkjax.train import optimizer as optimizers
from nkjax.train import state as states
from nkjax.train import step as steps


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


@dataclasses.dataclass(frozen=True)
class Work:
    """What a kind of run has of its own, as plain functions.

    begin(config) -> start, which has data_sha256, weights, parent and val; first_params(start,
    config, mesh) -> parameters; compile(start, config, mesh) -> Job; batches(start, config, step)
    -> iterator of this process's part of every batch from a step on; model_document(start) -> what
    model.json holds; check_model(folder): raises BadCheckpoint where that is not such a one;
    best(config): the metric whose best state is kept, '' for none; unit: what is counted a second.
    """

    begin: Callable
    first_params: Callable
    compile: Callable
    batches: Callable
    model_document: Callable
    check_model: Callable
    best: Callable
    unit: str


def abstract_state(params, config, mesh: Mesh) -> states.State:
    """Return the state of a run as shapes with their places on the mesh; no array is made.

    params: its parameters as ShapeDtypeStructs.
    """
    optimizer = optimizers.make(config.optimizer, config.steps)
    shapes = jax.eval_shape(functools.partial(states.init, optimizer=optimizer), params)
    return placed(shapes, sharding.shardings(shapes, mesh))


def placed(shapes, shardings):
    """Return shapes with a sharding each."""
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        shapes,
        shardings,
    )


def lower_step(loss: Callable, state: states.State, batch, config, mesh: Mesh):
    """Lower the step of a run for a mesh, with the state donated; `.compile()` makes it run.

    loss(params, batch) -> scalar; state, batch: ShapeDtypeStructs with shardings.
    """
    optimizer = optimizers.make(config.optimizer, config.steps)
    everywhere = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(
        steps.make_step(loss, config, optimizer),
        out_shardings=(_shardings(state), everywhere),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, batch)


def compile_first(state: states.State, config, mesh: Mesh) -> Callable:
    """Compile first(params) -> state; the parameters' memory becomes the state's."""
    optimizer = optimizers.make(config.optimizer, config.steps)
    with jax.set_mesh(mesh):
        first = jax.jit(
            functools.partial(states.init, optimizer=optimizer),
            out_shardings=_shardings(state),
            donate_argnums=0,
        )
        return first.lower(state.params).compile()


def _shardings(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)
