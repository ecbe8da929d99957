"""Parameter trees as flat tables: paths, counts, checksums."""

import hashlib

import jax
import numpy as np

_SLICE_BYTES = 1 << 24


def path_name(path) -> str:
    """Spell a jax key path as 'backbone/blocks/ln1/scale'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree) -> dict:
    """Flatten nested dicts to {'a/b/c': leaf}, in sorted order of the paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return dict(sorted((path_name(path), leaf) for path, leaf in leaves))


def unflatten(flat: dict) -> dict:
    """Nest {'a/b/c': leaf} into dicts, the inverse of `flatten`."""
    tree: dict = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def count(tree) -> int:
    """Count the elements of all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def checksum(leaf) -> str:
    """Return the sha256 of a leaf's dtype, shape and row-major little-endian bytes.

    A leaf on the host is hashed in slices of its leading axis, without a second copy of it.
    """
    array = np.asarray(leaf)
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    if array.ndim == 0 or array.nbytes <= _SLICE_BYTES:
        digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
    for row in array:
        digest.update(np.ascontiguousarray(row).view(np.uint8))
    return digest.hexdigest()
