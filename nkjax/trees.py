"""Parameter trees as flat tables: paths, counts, checksums, fingerprints."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

_SLICE_BYTES = 1 << 24
_SALTS = (0x9E3779B9, 0x7F4A7C15)


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


def fingerprints(tree) -> dict[str, jax.Array]:
    """Return {'a/b/c': uint32 [2]}, two hashes of the bits of each leaf; call it inside jit.

    Each element is scrambled together with its place in the global array, and the results are
    summed modulo 2^32: a sum of integers is the same on any mesh and in any order. Scrambling is
    one-to-one, so any change within one element changes both hashes for certain; changes of
    several elements cancel out in one of 2^64 cases. Leaves: bool, or at most 32 bits wide, or
    typed PRNG keys.
    """
    return {name: fingerprint(leaf) for name, leaf in flatten(tree).items()}


def fingerprint(leaf) -> jax.Array:
    """Return uint32 [2] of one leaf, as `fingerprints` does."""
    words = _words(leaf)
    places = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = int(np.prod(words.shape[axis + 1 :], dtype=object)) % (1 << 32)
        steps = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        places = places + steps * jnp.uint32(stride)
    hashes = [_scramble(words ^ _scramble(places + jnp.uint32(salt))) for salt in _SALTS]
    # One reduction over both: two of them write the hashes out, twice the leaf in memory.
    zeros, axes = [jnp.zeros((), jnp.uint32)] * 2, tuple(range(words.ndim))
    return jnp.stack(jax.lax.reduce(hashes, zeros, _add_pairs, axes))


def _add_pairs(left: list, right: list) -> list:
    return [left[0] + right[0], left[1] + right[1]]


def _words(leaf) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return jnp.asarray(leaf, jnp.uint32)
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _scramble(words: jax.Array) -> jax.Array:
    # The last step of MurmurHash3: shifts and odd factors, each of them one-to-one.
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
