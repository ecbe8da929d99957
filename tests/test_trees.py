"""Paths, counts and checksums of parameter trees."""

import hashlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nkjax import trees


def test_flatten_and_unflatten():
    tree = {"b": {"x": 1, "a": {"y": 2}}, "a": 3}
    flat = trees.flatten(tree)
    assert list(flat.items()) == [("a", 3), ("b/a/y", 2), ("b/x", 1)]
    assert trees.unflatten(flat) == tree
    assert trees.flatten({}) == {} and trees.unflatten({}) == {}


def test_path_name():
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path({"a": [0, {"b": 1}]})[0]]
    assert [trees.path_name(path) for path in paths] == ["a/0", "a/1/b"]


def test_count():
    shape = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert trees.count({"a": np.zeros((4, 5)), "b": {"c": np.float32(1), "d": shape}}) == 27


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 2, 3)])
def test_checksum_is_sha256_of_dtype_shape_and_bytes(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    text = f"{np.dtype(dtype).name}[{', '.join(map(str, shape))}]".encode()
    wanted = hashlib.sha256(text + array.tobytes()).hexdigest()
    assert trees.checksum(array) == wanted
    assert trees.checksum(jnp.asarray(array)) == wanted


def test_checksum_does_not_depend_on_slicing_or_memory_order(monkeypatch):
    array = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    whole = trees.checksum(array)
    monkeypatch.setattr(trees, "_SLICE_BYTES", 16)
    assert trees.checksum(array) == whole
    assert trees.checksum(np.asfortranarray(array)) == whole
    assert trees.checksum(array.T.copy().T) == whole
    half = array.astype(ml_dtypes.bfloat16)
    text = f"bfloat16{[7, 5, 3]}".encode()
    assert trees.checksum(half) == hashlib.sha256(text + half.tobytes()).hexdigest()


def test_checksum_tells_values_shapes_and_dtypes_apart():
    array = np.arange(6, dtype=np.float32)
    flipped = array.copy()
    flipped.view(np.uint8)[13] ^= 1
    others = [flipped, array.reshape(2, 3), array.view(np.int32), -array, array[:5]]
    assert len({trees.checksum(a) for a in [array, *others]}) == 6
