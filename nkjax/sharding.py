"""One table from parameter path to PartitionSpec, and the shardings made from it."""

import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax.mesh import BATCH_AXES
from nkjax.trees import path_name

# First match wins. A spec is counted from the last axis, so that the stacked layer axis of
# `blocks` is never split: lax.scan slices it, one layer at a time. Works for optimiser moments
# and EMA too, because their paths end like the parameters'.
RULES = (
    (r"(qkv|fc1)/kernel$", ("fsdp", None)),
    (r"(proj|fc2)/kernel$", (None, "fsdp")),
    (r"(deconv|conv)_\d+/kernel$", ("fsdp", None)),
    (r"patch_embed/kernel$", (None, "fsdp")),
    (r"pos_embed$", (None, "fsdp")),
    (r"", ()),
)


def partition_spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Look up the spec of one leaf; an axis that the mesh does not divide stays whole."""
    rule = next(axes for pattern, axes in RULES if re.search(pattern, name))
    if len(rule) > len(shape):
        return PartitionSpec()
    axes = (None,) * (len(shape) - len(rule)) + tuple(
        axis if axis and size % mesh.shape.get(axis, size + 1) == 0 else None
        for axis, size in zip(rule, shape[len(shape) - len(rule) :], strict=True)
    )
    return PartitionSpec(*axes)


def shardings(tree, mesh: Mesh):
    """Return a NamedSharding for each leaf of a tree of arrays or ShapeDtypeStructs."""

    def shard(path, leaf):
        return NamedSharding(mesh, partition_spec(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(shard, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its leading axis over every device."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def share(local, mesh: Mesh):
    """Make global arrays of this process's part of a batch: a tree of numpy arrays.

    The leading axis of the results counts the people of all processes; each device holds its part.
    """
    over_all = batch_sharding(mesh)
    # With several processes jax takes this for a transfer that nobody asked for.
    with jax.transfer_guard("allow"):
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(over_all, x), local)
