"""The heads against jax's own transposed convolution, the formulas, and the reference's counts."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import trees
from nkjax.models import heads, sapiens
from nkjax.precision import BF16

FACTS = json.loads((Path(__file__).parents[1] / "data" / "keys" / "sapiens1.json").read_text())


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (1, 1, 1, 3), (1, 8, 6, 16)], ids=str)
def test_deconvolution_is_the_transposed_convolution(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(4, 4, shape[-1], 9)).astype(np.float32)
    ours = heads.Deconv(9, jnp.float32).apply({"params": {"kernel": kernel}}, x)
    # Ours correlates; `transpose_kernel` takes the kernel of the convolution being transposed.
    forward = kernel[::-1, ::-1].swapaxes(2, 3)
    wanted = jax.lax.conv_transpose(
        x, forward, (2, 2), ((2, 2), (2, 2)), transpose_kernel=True, precision="highest"
    )
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_deconvolution_of_one_pixel_by_hand():
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1] = 1
    taps = np.arange(16, dtype=np.float32).reshape(4, 4)  # torch's: out[2i - 1 + a] += x[i] w[a]
    kernel = taps[::-1, ::-1, None, None]
    ours = heads.Deconv(1, jnp.float32).apply({"params": {"kernel": kernel}}, x)
    wanted = np.zeros((6, 6))
    wanted[1:5, 1:5] = taps
    np.testing.assert_array_equal(ours[0, :, :, 0], wanted)


def test_instance_norm_formula():
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 7, 4))
    wanted = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(heads.instance_norm(x.astype(np.float32)), wanted, atol=2e-6)


def test_instance_norm_of_bfloat16_is_computed_in_float32():
    x = np.random.default_rng(0).normal(20, 1, (1, 48, 48, 3)).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean((1, 2), keepdims=True)) / exact.std((1, 2), keepdims=True)
    ours = heads.instance_norm(jnp.asarray(x))
    assert ours.dtype == jnp.bfloat16
    # One rounding of the result, at 8 bits; bf16 arithmetic is off by 0.1 here.
    np.testing.assert_allclose(np.asarray(ours, np.float64), wanted, rtol=2**-8, atol=1e-3)


def test_batch_norm_formula_and_its_frozen_statistics():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 3, 5)).astype(np.float32)
    p = {k: rng.uniform(0.5, 2, 5).astype(np.float32) for k in ("scale", "bias", "mean", "var")}
    norm = heads.FrozenBatchNorm(jnp.float32)
    wanted = (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(norm.apply({"params": p}, x), wanted, atol=1e-5)
    gradient = jax.grad(lambda p: jnp.square(norm.apply({"params": p}, x)).sum())(p)
    assert not gradient["mean"].any() and not gradient["var"].any() and gradient["scale"].any()


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("task", ["pose", "seg", "depth", "normal"])
def test_sizes_and_dtypes_of_every_head(task, norm):
    spec = heads.Head((8,) * len(sapiens.HEADS[task][0]), (6, 5), 3, norm)
    params = heads.init(jax.random.key(0), spec, 12)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    scale = 2 ** len(spec.deconvs)
    out = heads.apply(params, spec, jnp.ones((2, 3, 5, 12), jnp.bfloat16), jnp.bfloat16)
    assert out.shape == (2, 3 * scale, 5 * scale, 3) and out.dtype == jnp.bfloat16
    assert {"pose": 4, "seg": 8, "normal": 8, "depth": 16}[task] == scale


def released():
    for name in FACTS:
        size, kind, *dataset = name.split("_")
        if dataset != ["mae", "full"]:
            task = "backbone" if kind == "pretrain" else kind
            outputs = int("0" + re.sub(r"\D", "", "".join(dataset)))
            yield pytest.param(name, size, task, outputs, id=name)


@pytest.mark.parametrize(("name", "size", "task", "outputs"), released())
def test_parameter_count_and_layout_of_every_released_network(name, size, task, outputs):
    facts, spec = FACTS[name], sapiens.make_spec(size, task, outputs)
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    assert trees.count(shapes) == facts["num_elements"]
    assert trees.count(shapes["backbone"]) == facts["backbone_elements"]
    backbone = spec.backbone
    assert (list(backbone.grid), list(spec.image_size)) == (facts["grid"], facts["image_hw"])
    assert (backbone.heads, backbone.class_token) == (facts["heads"], facts["class_token"])
    wanted = facts["adaptive_padding"] or facts["conv_padding"][0]
    assert backbone.patch_padding == wanted


def test_all_released_networks_are_counted():
    assert len(list(released())) == len(FACTS) - 4  # the four MAE files hold a decoder as well


def test_bfloat16_policy_of_a_whole_network():
    spec = sapiens.make_spec("tiny", "pose", image_size=(64, 48))
    params = sapiens.init(jax.random.key(0), spec)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    images = jax.random.normal(jax.random.key(1), (2, 64, 48, 3))
    out = sapiens.apply(params, spec, images, policy=BF16)
    exact = sapiens.apply(params, spec, images)
    assert out["pose"].shape == (2, 16, 12, 17) and out["features"].shape == (2, 4, 3, 64)
    for name in ("pose", "features"):
        assert (out[name].dtype.name, exact[name].dtype.name) == ("bfloat16", "float32")
        error = np.asarray(out[name], np.float64) - np.asarray(exact[name], np.float64)
        assert 0 < error.std() < 0.05 * np.asarray(exact[name]).std()
    gradient = jax.grad(
        lambda p: sapiens.apply(p, spec, images, policy=BF16)["pose"].astype(jnp.float32).sum()
    )(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {"float32"}
