"""Each classic mistake, planted on purpose, must turn the comparison of the heatmaps red.

The golden maps and what each mistake costs: README of the reference (notes/sapiens.md). Where it
gives no figure, the change must exceed the tolerance ten times over.
"""

import functools
from pathlib import Path

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from convert_weights import mapping
from convert_weights.__main__ import main
from nkjax.geometry.heatmaps import flip_average
from nkjax.models import heads, sapiens, vit
from nkjax.precision import FP32

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
TOLERANCE = 3e-5
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="session")
def pose(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("w") / "pose")


def converted(out, name="tiny_pose", *options):
    assert main([str(FIXTURES / f"{name}.pth"), "--out", str(out), "--heads", "4", *options]) == 0
    return sapiens.load(out)


@functools.cache
def golden(name="tiny_pose"):
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return dict(arrays)


def pictures(mean=MEAN, std=STD, bgr=False):
    image = golden()["image_bgr_u8"].astype(np.float32)
    image = image if bgr else image[..., ::-1]
    return jnp.asarray((image - np.float32(mean)) / np.float32(std))


def error(spec, params, images=None):
    """Return the largest difference from the golden heatmaps, of one picture, without a jit."""
    images = pictures() if images is None else images
    maps = sapiens.apply(params, spec, images[:1])["pose"]
    return np.abs(np.moveaxis(np.asarray(maps), -1, 1) - golden()["heatmaps_sample0"]).max()


def seen(found, figure):
    assert found > TOLERANCE and figure / 3 < found < figure * 3, found


def test_without_a_mistake_it_passes(pose):
    assert error(*pose) < TOLERANCE


def test_patch_padding_0(tmp_path):
    seen(error(*converted(tmp_path / "w", "tiny_pose", "--patch_padding", "0")), 8.9)


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1)], ids=["none", "rows", "columns"])
def test_deconvolution_kernel_flipped_wrongly(flip, tmp_path, monkeypatch):
    def wrong(x):
        return x.transpose(2, 3, 0, 1)[:: flip[0], :: flip[1]]

    monkeypatch.setattr(mapping, "_deconv", wrong)
    seen(error(*converted(tmp_path / "w")), 9.1)


def test_bgr_as_rgb(pose):
    seen(error(*pose, pictures(bgr=True)), 7.7)


def test_weights_rounded_to_bfloat16(pose):
    spec, params = pose
    rounded = jax.tree.map(lambda w: w.astype(ml_dtypes.bfloat16).astype(jnp.float32), params)
    seen(error(spec, rounded), 7.6e-2)


def test_mean_and_std_of_the_lite_demos(pose):
    seen(error(*pose, pictures((123.5, 116.5, 103.5), (58.5, 57.0, 57.5))), 5.9e-2)


def test_unbiased_variance_in_instance_norm(pose, monkeypatch):
    def wrong(x):
        n = x.shape[1] * x.shape[2]
        centred = x - x.mean((1, 2), keepdims=True)
        variance = jnp.square(centred).sum((1, 2), keepdims=True) / (n - 1)
        return centred * jax.lax.rsqrt(variance + 1e-5)

    monkeypatch.setattr(heads, "instance_norm", wrong)
    seen(error(*pose), 9.3e-3)


def test_tanh_gelu(pose, monkeypatch):
    gelu = nn.gelu
    monkeypatch.setattr(nn, "gelu", lambda x, approximate: gelu(x, approximate=True))
    seen(error(*pose), 1.3e-3)


def test_instance_norm_epsilon(pose, monkeypatch):
    monkeypatch.setattr(heads, "NORM_EPS", 1e-6)
    seen(error(*pose), 1.7e-4)


def test_layer_norm_epsilon(pose, monkeypatch):
    monkeypatch.setattr(vit, "LAYER_NORM_EPS", 1e-5)
    seen(error(*pose), 6.1e-5)


# ---- not in the table --------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["q k v by head", "k and q", "v first"])
def test_order_of_queries_keys_and_values(order, pose):
    spec, params = pose
    patterns = {"q k v by head": "three h d -> h three d"}
    orders = {"k and q": (1, 0, 2), "v first": (2, 0, 1)}

    def wrong(w):
        parts = einops.rearrange(w, "... (three h d) -> ... three h d", three=3, h=4)
        if order in orders:
            parts = parts[..., np.array(orders[order]), :, :]
            return einops.rearrange(parts, "... three h d -> ... (three h d)")
        pattern = patterns[order].replace("->", "-> ...")
        return einops.rearrange(parts, f"... {pattern}").reshape(w.shape)

    qkv = jax.tree.map(wrong, params["backbone"]["blocks"]["qkv"])
    blocks = params["backbone"]["blocks"] | {"qkv": qkv}
    backbone = params["backbone"] | {"blocks": blocks}
    assert error(spec, params | {"backbone": backbone}) > 10 * TOLERANCE


def test_scale_of_attention(pose, monkeypatch):
    attend = vit.attend

    def wrong(q, k, v, backend):
        return attend(q * 2, k, v, backend=backend)

    monkeypatch.setattr(vit, "attend", wrong)
    assert error(*pose) > 10 * TOLERANCE


def test_flip_test_without_swapping_left_and_right(pose):
    spec, params = pose
    maps = sapiens.apply(params, spec, pictures()[:1])["pose"]
    mirrored = sapiens.apply(params, spec, pictures()[:1, :, ::-1])["pose"]
    wanted = golden()["heatmaps_flip_averaged_sample0_ch0to7"]

    def difference(indices):
        average = np.moveaxis(np.asarray(flip_average(maps, mirrored, indices)), -1, 1)
        return np.abs(average[:1, :8] - wanted).max()

    assert difference(spec.skeleton.flip_indices) < TOLERANCE
    assert difference(tuple(range(17))) > 10 * TOLERANCE


def test_fast_variance_of_layer_norm(monkeypatch):
    # Harmless on the fixtures, whose means are small; not where a mean is far from 0.
    x = jnp.asarray(np.random.default_rng(0).normal(1000, 0.1, (1, 4, 64)), jnp.float32)

    def spread():
        y, _ = vit._layer_norm().init_with_output(jax.random.key(0), x)
        return float(y.std())

    assert abs(spread() - 1) < 0.02
    norm = nn.LayerNorm
    monkeypatch.setattr(nn, "LayerNorm", lambda **k: norm(**k | {"use_fast_variance": True}))
    assert abs(spread() - 1) > 0.1


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("w") / "backbone", "tiny_pretrain_clean")


def moved_error(backbone):
    """Return the largest error of the embedding and of the features after a move to 8x6 patches."""
    spec, params = backbone
    tag, g = "finetune/8x6_pad2", golden("tiny_backbone")
    image = g[f"{tag}/image_bgr_u8"].astype(np.float32)[None, ..., ::-1]
    image = jnp.asarray((image - np.float32(MEAN)) / np.float32(STD))
    tuned, p = vit.move(spec.backbone, params["backbone"], image.shape[1:3], 2)
    positions = np.abs(np.asarray(p["pos_embed"])[None] - g[f"{tag}/pos_embed_after_load"]).max()
    features = np.moveaxis(np.asarray(vit.apply(p, tuned, image, policy=FP32)["features"]), -1, 1)
    return positions, np.abs(features - g[f"{tag}/featmap"].reshape(features.shape)).max()


def test_moving_a_backbone_without_a_mistake(backbone):
    assert max(moved_error(backbone)) < TOLERANCE


def test_class_slot_kept_and_last_patch_dropped(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "_patch_positions", lambda x: x[0, :-1])
    assert min(moved_error(converted(tmp_path / "w", "tiny_pretrain_clean"))) > 10 * TOLERANCE


@pytest.mark.parametrize(("method", "antialias"), [("cubic", False), ("cubic-pytorch", True),
                                                   ("linear", False)])  # fmt: skip
def test_another_interpolation_of_positions(method, antialias, backbone, monkeypatch):
    resize = jax.image.resize

    def wrong(x, shape, *_, **__):
        return resize(x, shape, method, antialias=antialias)

    monkeypatch.setattr(jax.image, "resize", wrong)
    assert min(moved_error(backbone)) > 10 * TOLERANCE
