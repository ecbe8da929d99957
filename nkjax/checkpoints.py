"""Trees of arrays on disk, through orbax v1; nothing else in nkjax imports orbax."""

import gc
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from nkjax import trees

# Whole-tree saves and reads hold two to three copies of the weights. Leaf by leaf the extra
# memory is that of one leaf, and small chunks keep the allocator from hoarding read buffers.
# Weights are noise: compression would cost a pass and win 7 %.
_CHUNK_BYTES = 1 << 20
_GROUP_BYTES = 1 << 26  # small leaves travel together: each call to orbax costs a tenth of a second


class BadCheckpoint(ValueError):
    """Say in one line which checkpoint is not what was expected, and what to do."""


def _absolute(path) -> epath.Path:
    return epath.Path(path).expanduser().resolve()  # orbax wants it so; buckets stay as they are


def _context(leaf_bytes: int) -> ocp.Context:
    context = ocp.Context()
    context.array_options.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array_options.saving.use_compression = False
    context.memory_options.deepcopy_host_arrays = False
    # The reader refuses a leaf that is not smaller than its limit.
    context.memory_options.read_concurrent_bytes = leaf_bytes + 1
    context.pytree_options.loading.partial_load = True
    return context


def save_leaves(path, leaves: Iterable[tuple[str, np.ndarray]]) -> None:
    """Save a stream of ('a/b/c', array) as one checkpoint, holding one or two leaves at a time.

    The checkpoint appears at `path` when the last leaf is written, not before; a failure leaves
    nothing behind. Raises FileExistsError when there is one already.
    """
    path = _absolute(path)
    if path.exists():
        raise FileExistsError(f"{path} exists: remove it, or save elsewhere")
    try:
        for group in _groups(leaves):
            with _context(_nbytes(group.values())):
                ocp.partial.save(path, trees.unflatten(group))
            del group
            gc.collect()  # orbax's finished coroutines still hold the arrays
        ocp.partial.finalize(path)
    except BaseException:
        for left in path.parent.glob(f"{path.name}.partial_save*"):
            left.rmtree()
        raise


def describe(path) -> dict[str, jax.ShapeDtypeStruct]:
    """Return {'a/b/c': shape and dtype} of a checkpoint without reading its arrays.

    Raises BadCheckpoint when `path` holds no finished orbax checkpoint.
    """
    path = _absolute(path)
    if not path.is_dir() or not ocp.is_orbax_checkpoint(path):
        raise BadCheckpoint(f"{path}: no finished orbax checkpoint here; convert or train again")
    tree = ocp.metadata(path).metadata
    return {
        name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
        for name, leaf in trees.flatten(tree).items()
    }


def load_leaves(path, wanted: dict, shardings: dict) -> Iterator[tuple[str, jax.Array]]:
    """Yield ('a/b/c', array) for each wanted leaf, the largest first, on its sharding.

    `wanted` maps paths to ShapeDtypeStructs, `shardings` the same paths to shardings. Raises
    BadCheckpoint, naming leaf and shapes, when the checkpoint does not hold just what is wanted.
    """
    _compare(path, wanted, describe(path))
    largest_first = sorted(wanted.items(), key=lambda item: -_nbytes([item[1]]))
    for group in _groups(largest_first):
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
            for name, leaf in group.items()
        }
        with _context(_nbytes(group.values())):
            tree = ocp.load(_absolute(path), trees.unflatten(template))
        yield from trees.flatten(jax.block_until_ready(tree)).items()
        del tree
        gc.collect()


def _groups(leaves: Iterable[tuple[str, object]]) -> Iterator[dict]:
    group: dict = {}
    for name, leaf in leaves:
        if group and _nbytes([*group.values(), leaf]) > _GROUP_BYTES:
            yield group
            group = {}
        group[name] = leaf
        del leaf
    if group:
        yield group


def _nbytes(leaves) -> int:
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def _compare(path, wanted: dict, found: dict) -> None:
    # orbax would cast a dtype silently and report a shape or a name unreadably (notes/jax.md B2).
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in wanted]
    for name, leaf in wanted.items():
        stored = found.get(name, leaf)
        if (tuple(leaf.shape), leaf.dtype) != (tuple(stored.shape), stored.dtype):
            problems.append(
                f"{name} is {stored.dtype}{list(stored.shape)}, "
                f"not {np.dtype(leaf.dtype)}{list(leaf.shape)}"
            )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BadCheckpoint(f"{path}: {'; '.join(problems[:3])}{more}; convert or train again")
