"""Every Sapiens-1 fixture, through the command line, against the reference's recorded numbers.

Goldens: notes/sapiens.md; their README says how they were made. 3e-5 absolute separates every
classic mistake from rounding noise.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert_weights.__main__ import main
from convert_weights.readers import open_checkpoint
from nkjax import trees
from nkjax.geometry.heatmaps import flip_average
from nkjax.losses import dense, heatmap
from nkjax.models import heads, sapiens, vit
from nkjax.precision import FP32

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
TOLERANCE = 3e-5
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)

# What no key shows and no table knows for these widths.
OPTIONS = {
    "tiny_pose": ["--heads", "4"],
    "tiny_pose_batchnorm": ["--heads", "4"],
    "tiny_pose_torchscript": ["--heads", "4"],
    "tiny_seg": ["--heads", "4", "--input_size", "96x64"],
    "tiny_normal": ["--heads", "5", "--input_size", "96x64"],
    "tiny_depth": ["--heads", "4", "--input_size", "96x64"],
    "tiny_depth_bfloat16": ["--heads", "4", "--input_size", "96x64"],
    "tiny_depth_bfloat16_legacy_layout": ["--heads", "4", "--input_size", "96x64"],
    "tiny_pretrain_clean": ["--heads", "4"],
    "tiny_mae_raw_epoch": ["--heads", "4"],
}
FILES = {path.stem: path for path in FIXTURES.iterdir() if path.suffix in (".pth", ".pt2")}
POSE = ["tiny_pose", "tiny_pose_torchscript", "tiny_pose_batchnorm"]
DENSE = ["tiny_seg", "tiny_normal", "tiny_depth"]


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """Convert a fixture once through the command line and load it."""

    @functools.cache
    def converted(name, *more):
        out = tmp_path_factory.mktemp("weights") / name
        assert main([str(FILES[name]), "--out", str(out), *OPTIONS[name], *more]) == 0
        return sapiens.load(out)

    return converted


def golden(name):
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return dict(arrays)


def normalised(image_bgr_u8):
    image = np.asarray(image_bgr_u8, np.float32)[..., ::-1]
    image = (image - MEAN) / STD
    return jnp.asarray(image if image.ndim == 4 else image[None])


def close(ours, theirs, tolerance=TOLERANCE):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(np.asarray(ours, np.float64) - theirs).max()
    assert error <= tolerance, f"differs by {error:.2e}"


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, -3)


def test_every_fixture_is_tested():
    assert set(FILES) == set(OPTIONS)


@pytest.mark.parametrize("name", [*POSE, *DENSE])
def test_input_rule(name):
    g = golden(name)
    close(nchw(normalised(g["image_bgr_u8"]))[:1, :, :32, :32], g["input_sample0_crop32"], 1e-6)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [(n, n) for n in ["tiny_pose", *DENSE]] + [("tiny_pretrain_clean", "tiny_backbone")],
)
def test_features_part_by_part(convert, name, arrays):
    spec, params = convert(name)
    g = golden(arrays)
    images = normalised(g["image_bgr_u8"])[:1]
    backbone, p = spec.backbone, params["backbone"]

    with FP32.matmul():
        pixels = vit.patches(backbone, images)
        tokens = pixels @ p["patch_embed"]["kernel"] + p["patch_embed"]["bias"][None, None]
        close(tokens[:, :12], g["feat/patch_tokens"])
        x = vit.embed(p, backbone, images, jnp.float32)
        close(x, g["feat/tokens_after_pos"])
        block = vit.Block(backbone.width, backbone.heads, jnp.float32, vit.attend)
        for i in range(backbone.depth):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["blocks"])
            x, inside = block.apply({"params": layer}, x, capture_intermediates=True)
            close(x, g[f"feat/block{i}_out"])
            if i == 0:
                inside = inside["intermediates"]
                names = ("ln1", "qkv", "proj", "ln2", "fc1")
                parts = {name: inside[name]["__call__"][0] for name in names}
                gelu = jax.nn.gelu(parts["fc1"], approximate=False)
                close(parts["ln1"][:, :12], g["feat/block0_ln1"])
                close(parts["qkv"][:, :12], g["feat/block0_qkv"])
                close(parts["proj"], g["feat/block0_attn_out"])
                close(parts["ln2"][:, :12], g["feat/block0_ln2"])
                close(gelu[:, :12], g["feat/block0_ffn_hidden_gelu"])
        out = sapiens.apply(params, spec, images)
        x = np.asarray(out["features"]).reshape(1, -1, backbone.width)
        close(x, g["feat/final_norm_out"][:, spec.backbone.class_token :])
        if spec.head:
            net = heads.HeadNet(spec.head, jnp.float32)
            _, inside = net.apply(
                {"params": params["head"]}, out["features"], capture_intermediates=True
            )
            for i in range(len(spec.head.deconvs)):
                raw = nchw(inside["intermediates"][f"deconv_{i}"]["__call__"][0])
                close(raw[:, :2, :32, :32], g[f"feat/head_deconv{i}_raw"])


@pytest.mark.parametrize("name", [*POSE, *DENSE])
def test_whole_backbone(convert, name):
    spec, params = convert(name)
    g = golden(name)
    out = sapiens.apply(params, spec, normalised(g["image_bgr_u8"]))
    close(nchw(out["features"])[: len(g["featmap"])], g["featmap"])


@pytest.mark.parametrize("name", POSE)
def test_heatmaps_and_flip_test(convert, name):
    spec, params = convert(name)
    g = golden(name)
    images = normalised(g["image_bgr_u8"])
    maps = sapiens.apply(params, spec, images)["pose"]
    close(nchw(maps)[:1], g["heatmaps_sample0"])
    close(nchw(maps)[1:2, :4], g["heatmaps_sample1_ch0to3"].reshape(1, 4, *maps.shape[1:3]))
    mirrored = sapiens.apply(params, spec, images[:, :, ::-1])["pose"]
    close(nchw(mirrored)[:1, :4], g["heatmaps_of_flipped_input_sample0_ch0to3"])
    average = flip_average(maps, mirrored, spec.skeleton.flip_indices)
    close(nchw(average)[:1, :8], g["heatmaps_flip_averaged_sample0_ch0to7"])


@pytest.mark.parametrize("name", DENSE)
def test_dense_outputs(convert, name):
    spec, params = convert(name)
    g = golden(name)
    images = normalised(g["image_bgr_u8"])
    raw = sapiens.apply(params, spec, images)[spec.task]
    head_output = g["head_output"]
    close(nchw(raw)[: len(head_output), : head_output.shape[1]], head_output)
    resized = jax.image.resize(
        raw, (*raw.shape[:1], *images.shape[1:3], raw.shape[-1]), "bilinear", antialias=False
    )
    close(nchw(resized)[:1, :1], g["output_at_input_size_ch0"].reshape(1, 1, *images.shape[1:3]))
    if name == "tiny_seg":
        clear = np.asarray(g["argmax_margin_at_input_size"], np.float32) > 1e-3
        same = np.asarray(resized.argmax(-1)) == g["argmax_at_input_size"]
        assert clear.mean() > 0.9 and same[clear].all()


@pytest.mark.parametrize(
    "name", ["tiny_depth_bfloat16", "tiny_depth_bfloat16_legacy_layout"], ids=["new", "legacy"]
)
def test_bfloat16_exports(convert, name):
    spec, params = convert(name)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    g = golden("tiny_depth_bfloat16")
    images = normalised(g["image_bgr_u8"])
    depth = nchw(sapiens.apply(params, spec, images)["depth"])
    expected = g["fp32_compute_of_bf16_weights_output"]
    close(depth[: len(expected)], expected)
    spec, params = convert(name, "--dtype", "float32")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    close(nchw(sapiens.apply(params, spec, images)["depth"])[: len(expected)], expected)


@pytest.mark.parametrize("name", ["tiny_pretrain_clean", "tiny_mae_raw_epoch"])
def test_pretrained_backbone(convert, name):
    spec, params = convert(name)
    g = golden("tiny_backbone")
    assert spec.task == "backbone" and spec.backbone.class_token
    out = sapiens.apply(params, spec, normalised(g["image_bgr_u8"]))
    tokens = np.asarray(out["features"]).reshape(2, -1, spec.backbone.width)
    ours = np.concatenate([np.asarray(out["class_token"])[:, None], tokens], axis=1)
    close(ours[:1], g["raw_with_cls"])
    close(ours[1:, :4], g["raw_with_cls_sample1_first4tokens"].reshape(1, 4, -1))
    close(nchw(out["features"])[:1], g["featmap_with_cls_token_model"])


@pytest.mark.parametrize(
    ("tag", "image_hw", "padding"),
    [
        ("same_grid_corner", (128, 128), "corner"),
        ("8x6_pad2", (128, 96), 2),
        ("12x10_pad2", (192, 160), 2),
    ],
)
def test_backbone_moved_to_another_size(convert, tag, image_hw, padding):
    spec, params = convert("tiny_pretrain_clean")
    g = golden("tiny_backbone")
    tuned, p = vit.move(spec.backbone, params["backbone"], image_hw, padding)
    close(p["pos_embed"][None], g[f"finetune/{tag}/pos_embed_after_load"], 1e-5)
    images = normalised(g[f"finetune/{tag}/image_bgr_u8"])
    out = vit.apply(p, tuned, images, policy=FP32)
    assert "class_token" not in out
    close(nchw(out["features"]), g[f"finetune/{tag}/featmap"])
    if f"finetune/{tag}/runtime/image_bgr_u8" in g:
        images = normalised(g[f"finetune/{tag}/runtime/image_bgr_u8"])
        out = vit.apply(p, tuned, images, policy=FP32)
        close(nchw(out["features"]), g[f"finetune/{tag}/runtime/featmap"])


# ---- gradients -----------------------------------------------------------------------------


def pose_target(g):
    return np.moveaxis(np.asarray(g["loss_target_u8"], np.float32) / 255, 1, -1)


def pose_loss(g, maps):
    return heatmap.mse(maps, pose_target(g), g["loss_weights"])


def hardest_loss(g, maps):
    return heatmap.hardest(maps, pose_target(g), g["loss_weights"], 8)


def seg_loss(g, logits):
    return dense.segmentation(logits, g["loss_target_u8"][:, 0], np.ones(28, np.float32))


def weighted_loss(g, logits):
    return dense.segmentation(logits, g["loss_target_u8"][:, 0], g["loss_classweights"])


def dense_target(g, invalid):
    target = np.asarray(g["loss_target_blocks"], np.float32).repeat(8, -1).repeat(8, -2)
    target[..., : int(g["loss_invalid_first_columns"])] = invalid
    return np.moveaxis(target, 1, -1)


def depth_loss(g, depth):
    return dense.silog(depth, dense_target(g, -1)[..., 0])


def normal_loss(g, normals):
    return dense.normals(normals, dense_target(g, -1000))


LOSSES = {"pose": pose_loss, "seg": seg_loss, "depth": depth_loss, "normal": normal_loss}


@pytest.mark.parametrize("name", [*POSE, *DENSE])
def test_loss_and_gradient_norms(convert, name):
    from convert_weights import convert as conversion
    from convert_weights.detect import Overrides

    spec, params = convert(name)
    g = golden(name)
    images = normalised(g["image_bgr_u8"])

    def loss(p):
        return LOSSES[spec.task](g, sapiens.apply(p, spec, images)[spec.task])

    value, gradient = jax.value_and_grad(loss)(params)
    recorded = g["loss_keypoint_mse"] if spec.task == "pose" else g["loss/total"]
    np.testing.assert_allclose(value, recorded, rtol=1e-5)

    said = Overrides(heads=spec.backbone.heads, input_size=spec.image_size)
    plan = conversion.plan(FILES[name], said)
    flat = trees.flatten(gradient)
    ours: dict[str, float] = {}
    for leaf in plan.leaves:
        for i, key in enumerate(leaf.keys):
            part = flat[leaf.path][i] if leaf.stacked else flat[leaf.path]
            ours[plan.found.names[key]] = float(jnp.linalg.norm(part.ravel()))
    theirs = {k.removeprefix("gradnorm/"): float(v) for k, v in g.items() if "gradnorm/" in k}
    tiny = 1e-6 * max(theirs.values())
    assert set(theirs) == {key for key in ours if ".running_" not in key}
    for key, norm in theirs.items():
        both_tiny = norm < tiny and ours[key] < tiny
        assert both_tiny or abs(ours[key] - norm) <= 0.01 * norm, (key, ours[key], norm)


def test_hardest_joints_and_weighted_classes(convert):
    for name, loss, recorded in (
        ("tiny_pose", hardest_loss, "loss_ohkm_top8"),
        ("tiny_seg", weighted_loss, "loss/ce_classweighted_mean_over_all_pixels"),
    ):
        spec, params = convert(name)
        g = golden(name)
        raw = sapiens.apply(params, spec, normalised(g["image_bgr_u8"]))[spec.task]
        np.testing.assert_allclose(loss(g, raw), g[recorded], rtol=1e-5)


def test_model_json_tells_where_it_came_from(convert, tmp_path):
    out = tmp_path / "w"
    assert main([str(FILES["tiny_mae_raw_epoch"]), "--out", str(out), "--heads", "4"]) == 0
    document = json.loads((out / "model.json").read_text())
    assert document["licence"]["name"] == "CC BY-NC 4.0"
    keys = [key for key in open_checkpoint(FILES["tiny_mae_raw_epoch"]).tensors]
    decoder = sum(key.startswith("neck.") for key in keys)
    findings = document["findings"]
    assert any("decoder" in line and f"{decoder} keys" in line for line in findings), findings
    assert {"not read: optimizer", "not read: message_hub"} <= set(findings)
