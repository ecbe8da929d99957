"""The ViT: pictures of any size, one traced block whatever the depth, remat without effect."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.models import sapiens, vit
from nkjax.models.vit import Backbone
from nkjax.precision import BF16, FP32

TINY = Backbone(32, 2, 4, (4, 3), 2)


def torch_like_patches(images, padding):
    """Cut patches as a strided 16x16 convolution meets them, pixel by pixel."""
    _, h, w, _ = images.shape
    if padding == "corner":
        edges = ((0, 0), (0, -h % 16), (0, -w % 16), (0, 0))
    else:
        edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, edges)
    rows = range(0, padded.shape[1] - 15, 16)
    columns = range(0, padded.shape[2] - 15, 16)
    cut = [padded[:, r : r + 16, c : c + 16] for r in rows for c in columns]
    flat = np.stack(cut, axis=1).reshape(len(images), len(cut), -1)
    return flat, (len(rows), len(columns))


@pytest.mark.parametrize("padding", [0, 2, 15, "corner"])
@pytest.mark.parametrize("size", [(64, 48), (65, 47), (50, 77), (16, 16), (31, 33)], ids=str)
def test_patches_of_any_picture_size(size, padding):
    spec = dataclasses.replace(TINY, patch_padding=padding)
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    wanted, grid = torch_like_patches(images, padding)
    assert vit.grid_of(spec, size) == grid
    np.testing.assert_array_equal(vit.patches(spec, jnp.asarray(images)), wanted)


@pytest.mark.parametrize("padding", [2, "corner"])
@pytest.mark.parametrize("size", [(64, 48), (70, 100), (33, 17)], ids=str)
def test_features_of_any_picture_size(size, padding):
    spec = dataclasses.replace(TINY, patch_padding=padding)
    params = jax.jit(vit.init, static_argnums=1)(jax.random.key(0), spec)
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    run = jax.jit(lambda params, images: vit.apply(params, spec, images, policy=FP32))
    out = run(params, images)
    assert list(out) == ["features"] and np.isfinite(out["features"]).all()
    assert out["features"].shape == (2, *vit.grid_of(spec, size), 32)
    swapped = run(params, images[::-1])["features"]
    np.testing.assert_allclose(out["features"], swapped[::-1], atol=1e-5)


@pytest.mark.parametrize(("padding", "size"), [(0, (15, 64)), (2, (64, 11)), ("corner", (0, 8))])
def test_a_picture_smaller_than_a_patch_is_one_line(padding, size):
    spec = dataclasses.replace(TINY, patch_padding=padding)
    with pytest.raises(ValueError, match="holds no patch of 16"):
        vit.grid_of(spec, size)


@pytest.mark.parametrize("change", [{"heads": 5}, {"patch_padding": 16}, {"patch_padding": -1}])
def test_a_spec_that_cannot_be(change):
    with pytest.raises(ValueError, match="does not divide|neither 0 to 15"):
        dataclasses.replace(TINY, **change)


def keys_kernel(t, a=-0.75):
    """Weigh a sample at distance t as torch's bicubic does (Keys 1981; most others take -0.5)."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def cubic_matrix(old, new):
    """Return the (new, old) weights: half-pixel centres, samples clamped at the border."""
    weights = np.zeros((new, old))
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), old - 1)] += keys_kernel(at - j)
    return weights


@pytest.mark.parametrize("new", [(16, 12), (5, 9), (8, 7)], ids=str)
def test_positions_are_resized_as_torch_does(new):
    positions = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    assert vit.resize_positions(positions, (8, 6), (8, 6)) is positions
    ours = vit.resize_positions(jnp.asarray(positions), (8, 6), new)
    rows, columns = cubic_matrix(8, new[0]), cubic_matrix(6, new[1])
    wanted = np.einsum("ih,jw,hwd->ijd", rows, columns, positions.reshape(8, 6, 3))
    np.testing.assert_allclose(np.asarray(ours).reshape(*new, 3), wanted, atol=1e-5)


def equations(jaxpr) -> int:
    """Count the equations of a jaxpr and of all jaxprs in it."""
    count = 0
    for eqn in jaxpr.eqns:
        count += 1
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            count += equations(inner) if hasattr(inner, "eqns") else 0
    return count


def full_size(depth):
    spec = sapiens.make_spec("0.6b", "pose")
    return dataclasses.replace(spec, backbone=dataclasses.replace(spec.backbone, depth=depth))


@pytest.mark.parametrize("remat", ["none", "full"])
def test_traced_program_does_not_grow_with_depth(remat):
    def size(depth):
        spec = full_size(depth)
        params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
        images = jax.ShapeDtypeStruct((1, 1024, 768, 3), jnp.float32)

        def loss(params, images):
            out = sapiens.apply(params, spec, images, policy=BF16, remat=remat)
            return jnp.square(out["pose"].astype(jnp.float32)).mean()

        return equations(jax.make_jaxpr(jax.value_and_grad(loss))(params, images).jaxpr)

    sizes = [size(depth) for depth in (2, 48)]
    assert sizes[0] == sizes[1] > 300


@functools.cache
def gradients(remat):
    params = jax.jit(vit.init, static_argnums=1)(jax.random.key(0), TINY)
    images = np.random.default_rng(1).normal(size=(2, 64, 48, 3)).astype(np.float32)

    def loss(params):
        features = vit.apply(params, TINY, images, policy=FP32, remat=remat)["features"]
        return jnp.sum(jnp.sin(features))

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("remat", ["light", "full"])
def test_remat_changes_no_gradient(remat):
    ours, wanted = gradients(remat), gradients("none")
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)
        assert np.abs(other).max() > 1e-3 or other.shape[-1] == 96  # biases of keys have none


def test_remat_saves_memory_in_order():
    spec = dataclasses.replace(TINY, width=64, depth=8, grid=(8, 8))
    params = jax.eval_shape(lambda: vit.init(jax.random.key(0), spec))
    images = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)

    def temporary(remat):
        def loss(params, images):
            out = vit.apply(params, spec, images, policy=FP32, remat=remat)["features"]
            return jnp.square(out).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    none, light, full = map(temporary, ("none", "light", "full"))
    assert full < 0.7 * light < 0.7 * 0.9 * none, (none, light, full)


def test_layer_norm_far_from_zero():
    x = np.random.default_rng(0).normal(1000, 0.1, (3, 5, 256)).astype(np.float32)
    norm = vit._layer_norm()
    y = np.asarray(norm.init_with_output(jax.random.key(0), jnp.asarray(x))[0])
    exact = x.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    assert abs(y.std() - 1) < 0.01
    np.testing.assert_allclose(y, wanted, atol=5e-3)


def test_class_token_comes_back():
    spec = dataclasses.replace(TINY, class_token=True)
    params = vit.init(jax.random.key(0), spec)
    params["class_token"]["token"] = jnp.ones(32)
    images = jax.random.normal(jax.random.key(1), (2, 64, 48, 3))
    out = vit.apply(params, spec, images, policy=FP32)
    assert out["class_token"].shape == (2, 32) and out["features"].shape == (2, 4, 3, 32)
    moved, rest = vit.move(spec, params, (96, 80), "corner")
    assert moved.grid == (6, 5) and not moved.class_token and "class_token" not in rest
    assert rest["pos_embed"].shape == (30, 32)


def test_bfloat16_compute_keeps_float32_parameters():
    params = vit.init(jax.random.key(0), TINY)
    out = vit.apply(params, TINY, jnp.ones((1, 64, 48, 3)), policy=BF16)
    assert out["features"].dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
