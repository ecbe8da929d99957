"""A pose head for another skeleton: shared joints keep their filters, the others are named."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from convert_weights.__main__ import main
from nkjax import skeleton
from nkjax.models import sapiens
from tests.convert_weights.crafting import safetensors

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
BUILT_IN = {17: "coco17", 133: "wholebody133", 308: "goliath308"}

# Another order and another spelling; `toy` and the two `..._tip` are in no built-in set.
LAB = {
    "name": "lab12",
    "keypoints": ["RightWrist", "left wrist", "toy", "L-Eye", "nose", "r_eye", "left_hip",
                  "RIGHT_HIP", "left_tip", "right_tip", "rAnkle", "lAnkle"],
    "limbs": [["left_tip", "left wrist"]],
}  # fmt: skip
SHARED = {0: "right_wrist", 1: "left_wrist", 3: "left_eye", 4: "nose", 5: "right_eye",
          6: "left_hip", 7: "right_hip", 10: "right_ankle", 11: "left_ankle"}  # fmt: skip
NEW = [2, 8, 9]
MIRRORED = [1, 0, 2, 5, 4, 3, 7, 6, 9, 8, 11, 10]


def tiny_pose(path: Path, joints: int) -> Path:
    """Write a random one-block pose checkpoint of so many joints, in the file's own names."""
    rng = np.random.default_rng(joints)
    shapes = {
        "backbone.pos_embed": (1, 12, 32),
        "backbone.patch_embed.projection.weight": (32, 3, 16, 16),
        "backbone.patch_embed.projection.bias": (32,),
        "backbone.ln1.weight": (32,),
        "backbone.ln1.bias": (32,),
        "head.deconv_layers.0.weight": (32, 16, 4, 4),
        "head.deconv_layers.3.weight": (16, 16, 4, 4),
        "head.conv_layers.0.weight": (16, 16, 1, 1),
        "head.conv_layers.0.bias": (16,),
        "head.final_layer.weight": (joints, 16, 1, 1),
        "head.final_layer.bias": (joints,),
    }
    block = {"ln1": (32,), "attn.qkv": (96, 32), "attn.proj": (32, 32), "ln2": (32,),
             "ffn.layers.0.0": (128, 32), "ffn.layers.1": (32, 128)}  # fmt: skip
    for name, shape in block.items():
        shapes[f"backbone.layers.0.{name}.weight"] = shape
        shapes[f"backbone.layers.0.{name}.bias"] = shape[:1]
    header, body = {}, b""
    for key, shape in shapes.items():
        data = rng.normal(0, 0.2, shape).astype("<f4").tobytes()
        place = [len(body), len(body) + len(data)]
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": place}
        body += data
    path.write_bytes(safetensors(header, body))
    return path


def heatmaps(folder):
    spec, params = sapiens.load(folder)
    images = np.random.default_rng(1).normal(size=(2, 64, 48, 3)).astype(np.float32)
    maps = np.asarray(sapiens.apply(params, spec, images)["pose"])
    return spec, maps, jax.tree.map(np.asarray, params["head"]["final"])


@pytest.fixture
def lab(tmp_path):
    path = tmp_path / "lab12.json"
    path.write_text(json.dumps(LAB))
    return path


@pytest.mark.parametrize("joints", BUILT_IN)
def test_known_joints_keep_their_heatmaps(joints, lab, tmp_path, capsys):
    file = tiny_pose(tmp_path / "pose.safetensors", joints)
    for out, more in (("old", []), ("new", ["--keypoints", str(lab)])):
        argv = [str(file), "--out", str(tmp_path / out), "--heads", "2", *more]
        assert main(argv) == 0
    said = capsys.readouterr().out
    old_spec, old, old_final = heatmaps(tmp_path / "old")
    spec, new, final = heatmaps(tmp_path / "new")

    assert old_spec.skeleton == skeleton.load(BUILT_IN[joints])
    assert spec.skeleton == skeleton.parse(LAB, "lab") and spec.head.outputs == 12
    assert list(spec.skeleton.flip_indices) == MIRRORED
    assert spec.backbone == old_spec.backbone and new.shape == (2, 16, 12, 12)
    for joint, name in SHARED.items():
        channel = old_spec.skeleton.keypoints.index(name)
        for part in ("kernel", "bias"):
            assert np.array_equal(final[part][..., joint], old_final[part][..., channel]), name
        # A product of another width is summed in another order: the last bit may differ.
        np.testing.assert_allclose(new[..., joint], old[..., channel], atol=3e-6, err_msg=name)
    for joint in NEW:
        spread = new[..., joint].std()
        assert 0 < spread < 0.1 * old.std()  # small, not zero, and no other joint's

    line = "new joints, to be trained: toy, left_tip, right_tip"
    findings = json.loads((tmp_path / "new" / "model.json").read_text())["findings"]
    assert line in said.splitlines() and line in findings
    assert "skeleton lab12: 9 joints keep their filters" in findings
    assert main(["verify", str(tmp_path / "new")]) == 0


def test_a_built_in_skeleton_is_chosen_by_name(tmp_path):
    file = tiny_pose(tmp_path / "pose.safetensors", 308)
    out = tmp_path / "w"
    argv = [str(file), "--heads", "2", "--keypoints", "coco17", "--out", str(out)]
    assert main(argv) == 0
    assert sapiens.read_model(out)[0].skeleton == skeleton.load("coco17")
    findings = json.loads((out / "model.json").read_text())["findings"]
    assert "skeleton coco17: 17 joints keep their filters" in findings
    assert not any("new joints" in line for line in findings)


def test_new_filters_are_the_same_every_time(lab, tmp_path):
    file = tiny_pose(tmp_path / "pose.safetensors", 17)
    sums = []
    for name in "ab":
        out = tmp_path / name
        argv = [str(file), "--heads", "2", "--keypoints", str(lab), "--out", str(out)]
        assert main(argv) == 0
        sums.append(json.loads((out / "model.json").read_text())["leaves"])
    assert sums[0] == sums[1]
    _, params = sapiens.load(tmp_path / "a")
    assert not np.asarray(params["head"]["final"]["bias"])[NEW].any()


def test_a_dry_run_shows_the_new_head(lab, tmp_path, capsys):
    file = tiny_pose(tmp_path / "pose.safetensors", 17)
    argv = [str(file), "--heads", "2", "--keypoints", str(lab), "--dry_run"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "head.final_layer.weight [17, 16, 1, 1] -> head/final/kernel [16, 12]" in out
    assert "new joints, to be trained: toy, left_tip, right_tip" in out


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"name": "x", "keypoints": ["left_tip", "right_tip"]}, "shares no joint name with coco17"),
        ({"name": "x", "keypoints": ["left_eye"]}, "no free partner on the other side"),
        ({"name": "x", "keypoints": ["nose", "Nose"]}, "are one name"),
        ({"name": "x"}, "'keypoints' must be a list of names"),
        ("{", "not a JSON file"),
        (None, "nor a file that opens"),
    ],
)
def test_a_skeleton_that_cannot_be_used_is_one_line(content, word, tmp_path, capsys):
    file, path = tiny_pose(tmp_path / "pose.safetensors", 17), tmp_path / "lab.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    argv = [str(file), "--heads", "2", "--keypoints", str(path), "--out", str(tmp_path / "w")]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(path) in err and word in err, err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", ["tiny_seg", "tiny_depth", "tiny_pretrain_clean"])
def test_other_networks_have_no_joints(name, lab, tmp_path, capsys):
    argv = [str(FIXTURES / f"{name}.pth"), "--heads", "4", "--keypoints", str(lab)]
    argv += [] if name == "tiny_pretrain_clean" else ["--input_size", "96x64"]
    assert main([*argv, "--out", str(tmp_path / "w")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "name a pose file" in err


def test_a_pose_network_of_unknown_joints(lab, tmp_path, capsys):
    file = tiny_pose(tmp_path / "pose.safetensors", 21)
    assert main([str(file), "--heads", "2", "--keypoints", str(lab), "--dry_run"]) == 2
    assert "without named joints" in capsys.readouterr().err


def test_a_file_of_other_joints_is_named_by_its_user(lab, tmp_path, capsys):
    path = tiny_pose(tmp_path / "12.safetensors", 12)
    options = [str(path), "--heads", "2"]
    assert main([*options, "--dry_run"]) == 0
    assert "joints unnamed" in capsys.readouterr().out
    assert main([*options, "--skeleton", str(lab), "--out", str(tmp_path / "w")]) == 0
    assert "joints lab12 (given" in capsys.readouterr().out
    spec, _ = sapiens.load(tmp_path / "w")
    assert list(spec.skeleton.keypoints) == LAB["keypoints"]
    assert list(spec.skeleton.flip_indices) == MIRRORED
    # Its own names are then what --keypoints matches.
    assert main([*options, "--skeleton", str(lab), "--keypoints", "coco17", "--dry_run"]) == 0
    assert f"{len(SHARED)} joints keep their filters" in capsys.readouterr().out
    assert main([*options, "--skeleton", "coco17", "--dry_run"]) == 2
    assert "has 12 keypoints, --skeleton coco17 names 17" in capsys.readouterr().err


def test_looked_up_joints_are_said(tmp_path, capsys):
    path = tiny_pose(tmp_path / "17.safetensors", 17)
    assert main([str(path), "--heads", "2", "--dry_run"]) == 0
    assert "joints coco17 (looked up for 17; no key shows it)" in capsys.readouterr().out
