"""Fingerprints of leaves: every bit counts, the mesh does not."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nkjax import trees
from nkjax.mesh import make_mesh

KINDS = {"float32": np.uint32, "bfloat16": np.uint16, "float16": np.uint16, "int32": np.uint32,
         "uint32": np.uint32, "int8": np.uint8, "uint8": np.uint8}  # fmt: skip
one_leaf = jax.jit(trees.fingerprint)


def values(leaf) -> tuple[int, ...]:
    return tuple(int(x) for x in jax.device_get(one_leaf(leaf)))


def scramble(word: int) -> int:
    word = ((word ^ (word >> 16)) * 0x85EBCA6B) % 2**32
    word = ((word ^ (word >> 13)) * 0xC2B2AE35) % 2**32
    return word ^ (word >> 16)


def by_hand(words) -> tuple[int, int]:
    """The same in Python's own integers: what runs of today have on disk must stay readable."""
    return tuple(
        sum(scramble(int(w) ^ scramble((i + salt) % 2**32)) for i, w in enumerate(words)) % 2**32
        for salt in (0x9E3779B9, 0x7F4A7C15)
    )


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_equal_to_arithmetic_by_hand(dtype, shape):
    size = int(np.prod(shape))
    words = np.random.default_rng(1).integers(0, 2**32, size, dtype=np.uint32)
    words = words.astype(KINDS[dtype])
    leaf = words.reshape(shape).view(getattr(ml_dtypes, dtype, dtype))
    assert values(leaf) == by_hand(words)  # numbers that are not finite among them


def test_bools_and_keys():
    flags = np.array([True, False, True, True])
    assert values(flags) == by_hand([1, 0, 1, 1])
    keys = jax.random.split(jax.random.key(5), 3)
    assert values(keys) == by_hand(np.asarray(jax.random.key_data(keys)).ravel())


@pytest.mark.parametrize("dtype", KINDS)
def test_every_flipped_bit_changes_both_hashes(dtype):
    words = np.random.default_rng(2).integers(0, 2**8, (3, 5)).astype(KINDS[dtype])
    real = getattr(ml_dtypes, dtype, dtype)
    before = values(words.view(real))
    for place in np.ndindex(3, 5):
        for bit in range(8 * words.itemsize):
            flipped = words.copy()
            flipped[place] ^= KINDS[dtype](1) << KINDS[dtype](bit)
            after = values(flipped.view(real))
            assert after[0] != before[0] and after[1] != before[1], (place, bit)


def test_changes_of_several_elements_are_seen():
    leaf = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    others = [leaf.copy() for _ in range(6)]
    others[0][[0, 2], 1] = leaf[[2, 0], 1]  # swapped along each axis
    others[1][1, [3, 4]] = leaf[1, [4, 3]]
    others[2][[0, 3], [0, 5]] *= -1  # two signs: a sum weighted by place alone would miss this
    others[3][::] = -leaf
    others[4][0, 0], others[4][0, 1] = 2.0, 1.0
    others[5] = leaf[::-1].copy()
    assert len({values(each) for each in [leaf, *others, leaf.T.copy()]}) == 8


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or forced")
@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (2, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_equal_on_every_mesh(shape, dtype):
    leaf = np.random.default_rng(3).normal(size=(8, 16, 3)).astype(dtype)
    words = leaf.view(KINDS[np.dtype(dtype).name]).ravel()
    mesh = make_mesh(*shape, devices=jax.devices()[:8])
    for axes in [(), ("data",), ("fsdp", "data"), (("data", "fsdp"),), (None, "fsdp")]:
        divided = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes)))
        assert values(divided) == by_hand(words), axes


def test_of_a_tree():
    tree = {"b": (jnp.ones(3), jnp.int32(4)), "a": jnp.ones(3)}
    found = jax.device_get(jax.jit(trees.fingerprints)(tree))
    assert list(found) == ["a", "b/0", "b/1"]
    assert (found["a"] == found["b/0"]).all() and tuple(found["b/1"]) == by_hand([4])
    assert all(each.shape == (2,) and each.dtype == np.uint32 for each in found.values())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_needs_no_memory(dtype):
    shape = jax.ShapeDtypeStruct((128, 256, 16), dtype)
    memory = jax.jit(trees.fingerprint).lower(shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1 << 16  # of 2 MB and 1 MB
