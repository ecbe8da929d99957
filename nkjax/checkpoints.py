"""Trees of arrays on disk, through orbax v1; nothing else in nkjax imports orbax."""

import contextlib
import ctypes
import gc
import hashlib
import logging
import sys
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
_SMALL_FILE = 1 << 24  # above the index of the largest state: 50 bytes for each of its chunks
_GROUP_BYTES = 1 << 26  # small leaves travel together: each call to orbax costs a tenth of a second


AGAIN = "convert or train again"


class BadCheckpoint(ValueError):
    """Say in one line which checkpoint is not what was expected, and what to do."""


def absolute(path) -> epath.Path:
    """Return the path as orbax wants it: absolute; buckets stay as they are."""
    return epath.Path(path).expanduser().resolve()


def _plain_context() -> ocp.Context:
    context = ocp.Context()
    context.array_options.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array_options.saving.use_compression = False
    return context


def _context(leaf_bytes: int) -> ocp.Context:
    context = _plain_context()
    context.memory_options.deepcopy_host_arrays = False
    # The reader refuses a leaf that is not smaller than its limit.
    context.memory_options.read_concurrent_bytes = leaf_bytes + 1
    context.pytree_options.loading.partial_load = True
    return context


@contextlib.contextmanager
def _reading(path, what: str, remedy: str = AGAIN):
    """Turn whatever orbax does with a damaged checkpoint into one BadCheckpoint of one line."""
    # It logs, raises bare Exceptions, and leaves coroutines behind that print hundreds of lines.
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda unraisable: None
    reason = None
    try:
        yield
    except (BadCheckpoint, OSError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, jax.errors.JaxRuntimeError):  # out of device memory, say
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
    finally:
        gc.collect()
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    if reason is not None:
        raise BadCheckpoint(
            f"{path}: {what} cannot be read, files are missing or damaged ({reason}); {remedy}"
        )


def _release() -> None:
    gc.collect()  # orbax's finished coroutines still hold the arrays
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # glibc: or its arenas keep the read buffers, 0.2 x the file
        libc.malloc_trim(0)


def save_leaves(path, leaves: Iterable[tuple[str, np.ndarray]]) -> None:
    """Save a stream of ('a/b/c', array) as one checkpoint, holding one or two leaves at a time.

    The checkpoint appears at `path` when the last leaf is written, not before; a failure leaves
    nothing behind. Raises FileExistsError when there is one already.
    """
    path = absolute(path)
    if path.exists():
        raise FileExistsError(f"{path} exists: remove it, or save elsewhere")
    try:
        for group in _groups(leaves):
            with _context(_nbytes(group.values())):
                ocp.partial.save(path, trees.unflatten(group))
            del group
            _release()
        ocp.partial.finalize(path)
    except BaseException:
        for left in path.parent.glob(f"{path.name}.partial_save*"):
            left.rmtree()
        raise


def start_save(path, tree) -> ocp.AsyncResponse[None]:
    """Begin to save nested dicts of jax arrays at `path`; every process calls it with its shards.

    The values are copied to the host before it returns: the arrays may be donated at once. The
    checkpoint is there when `.result()` of what is returned has come back, in every process.
    """
    with _plain_context():
        return ocp.save_async(absolute(path), tree)


def list_files(path) -> dict[str, dict]:
    """Return {relative path: {'bytes', and of small files 'sha256'}} of a finished checkpoint.

    Small files are the index, whose damage orbax meets with crashes; numbers have checksums of
    their own.
    """
    path = absolute(path)
    return {str(file.relative_to(path)): _file_facts(file) for file in _walk(path)}


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _file_facts(file: epath.Path) -> dict:
    size = file.stat().length
    return {"bytes": size} if size > _SMALL_FILE else {"bytes": size, "sha256": _sha256(file)}


def _sha256(file: epath.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_as_told(file: epath.Path, facts: dict) -> bool:
    return file.stat().length == facts["bytes"] and (
        "sha256" not in facts or _sha256(file) == facts["sha256"]
    )


def check_files(
    path, wanted: dict[str, dict], remedy: str = "copy the folder again, or convert again"
) -> None:
    """Raise BadCheckpoint, naming the file, unless all that `list_files` told is still there.

    To be called before reading: a read that fails half way may take the process down.
    """
    path = absolute(path)
    for file, facts in ((path / name, facts) for name, facts in wanted.items()):
        found = file.exists() and not file.is_dir()
        if not found or not _is_as_told(file, facts):
            what = "damaged" if found else "missing"
            raise BadCheckpoint(f"{file} is {what}; {remedy}")


def describe(path) -> dict[str, jax.ShapeDtypeStruct]:
    """Return {'a/b/c': shape and dtype} of a checkpoint without reading its arrays.

    Raises BadCheckpoint when `path` holds no finished orbax checkpoint.
    """
    path = absolute(path)
    with _reading(path, "its index"):
        if not path.is_dir() or not ocp.is_orbax_checkpoint(path):
            rule = "no finished orbax checkpoint here"
            raise BadCheckpoint(f"{path}: {rule}; convert or train again")
        tree = ocp.metadata(path).metadata
        if tree is None:
            raise BadCheckpoint(f"{path}: its index is damaged; convert or train again")
    return {
        name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
        for name, leaf in trees.flatten(tree).items()
    }


def load_leaves(path, wanted: dict, shardings: dict) -> Iterator[tuple[str, jax.Array]]:
    """Yield ('a/b/c', array) for each wanted leaf, the largest first, on its sharding.

    `wanted` maps paths to ShapeDtypeStructs, `shardings` the same paths to shardings. Raises
    BadCheckpoint, naming leaf and shapes, when the checkpoint does not hold just what is wanted.
    """
    compare(path, spell(wanted), spell(describe(path)))
    yield from read_leaves(path, wanted, shardings)


def read_leaves(
    path, wanted: dict, shardings: dict, remedy: str = AGAIN
) -> Iterator[tuple[str, jax.Array]]:
    """Yield as `load_leaves` does, from a checkpoint that was compared before and may hold more.

    Only the wanted leaves are read.
    """
    largest_first = sorted(wanted.items(), key=lambda item: -_nbytes([item[1]]))
    for group in _groups(largest_first):
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
            for name, leaf in group.items()
        }
        what = next(iter(group)) + (f" or {len(group) - 1} others" if len(group) > 1 else "")
        with _reading(path, what, remedy), _context(_nbytes(group.values())):
            tree = jax.block_until_ready(ocp.load(absolute(path), trees.unflatten(template)))
        yield from trees.flatten(tree).items()
        del tree
        _release()


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


def spell(leaves: dict) -> dict[str, str]:
    """Spell shape and dtype of each leaf: {'a/b/c': 'float32[3, 4]'}."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def compare(path, wanted: dict[str, str], found: dict[str, str], remedy: str = AGAIN) -> None:
    """Raise BadCheckpoint, naming leaves, unless two `spell`ed trees are equal."""
    # orbax would cast a dtype silently and report a shape or a name unreadably (notes/jax.md B2).
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in wanted]
    for name, shape in wanted.items():
        if found.get(name, shape) != shape:
            problems.append(f"{name} is {found[name]}, not {shape}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BadCheckpoint(f"{path}: {'; '.join(problems[:3])}{more}; {remedy}")
