"""Simulated folders read back, measured and drawn, against people built by hand."""

import json
import shutil

import numpy as np
import pytest

from nkjax.evaluate import simulated, simulated_charts, simulated_sheets
from nkjax.evaluate import simulated_measures as measures
from nkjax.toddlersim import solids, truth, world
from nkjax.toddlersim.lab_folder import folder

NAMES = world.SKELETON.keypoints
UP, FORWARD = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "lab"
    counts = {"labelled": 10, "test": 6}
    folder.write(out, "toddler", counts, (96, 128), 0, world.example, world.SKELETON)
    return out


@pytest.fixture(scope="module")
def pictures(lab):
    return list(simulated.read(lab, simulated.skeleton_of(lab), 4))


def standing():
    """Return joints (65, 3) of somebody facing +x, hips 0.1 wide, ankles 0.18 apart, as a dict."""
    at = dict.fromkeys(NAMES, np.zeros(3))
    for side, y in (("left", 1), ("right", -1)):
        at |= {f"{side}_hip": np.array([0, 0.05 * y, 0.5]),
               f"{side}_knee": np.array([0.02, 0.07 * y, 0.25]),
               f"{side}_ankle": np.array([0.06 * y, 0.09 * y, 0.05]),
               f"{side}_shoulder": np.array([0, 0.1 * y, 1.0]),
               f"{side}_wrist": np.array([0.3, 0.2 * y, 0.9])}  # fmt: skip
    return at


def stacked(at):
    return np.stack([at[name] for name in NAMES])


def turn(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def test_step_ratio_is_the_lateral_distance_alone_and_has_a_sign():
    at = standing()
    assert measures.step_ratio(stacked(at), NAMES, FORWARD, UP) == pytest.approx(1.8)
    # A stride, a height and a turn of everything change nothing; crossed ankles are negative.
    at["left_ankle"] = at["left_ankle"] + [0.4, 0, 0.1]
    assert measures.step_ratio(stacked(at), NAMES, FORWARD, UP) == pytest.approx(1.8)
    turned = stacked(at) @ turn(70).T + [3, 2, 1]
    ratio = measures.step_ratio(turned, NAMES, turn(70) @ FORWARD, UP)
    assert ratio == pytest.approx(1.8)
    at["left_ankle"], at["right_ankle"] = at["right_ankle"], at["left_ankle"]
    assert measures.step_ratio(stacked(at), NAMES, FORWARD, UP) == pytest.approx(-1.8)


def test_a_normal_pose_forgets_place_heading_and_size_and_nothing_else():
    first = stacked(standing())
    same = measures.normal_pose(1.7 * first @ turn(130).T + [4, -2, 3], NAMES)
    pose = measures.normal_pose(first, NAMES)
    np.testing.assert_allclose(same, pose, atol=1e-12)
    at = dict(zip(NAMES, pose, strict=False))
    np.testing.assert_allclose(at["left_wrist"], (0.6, 0.4, 0.8))  # trunk of 0.5 m
    moved = standing() | {"left_wrist": np.array([0.3, 0.2, 1.07])}
    other = measures.normal_pose(stacked(moved), NAMES)
    apart = measures.nearest(pose[None], other[None])
    assert apart == pytest.approx([0.17 / 0.5 / 17])
    same_person = np.array([[True]])
    assert measures.nearest(pose[None], other[None], same_person) == [np.inf]


def test_a_bone_that_changes_within_a_person_is_seen(pictures):
    assert measures.largest_change(pictures, NAMES) < 1e-4  # truth is float32
    longer = pictures[0].joints_k3.copy()
    longer[NAMES.index("left_elbow")] += 0.01
    stretched = [pictures[0]._replace(joints_k3=longer), *pictures[1:]]
    assert measures.largest_change(stretched, NAMES) > 0.01


def test_a_folder_is_read_back_as_it_was_made(lab, pictures):
    assert [picture.role for picture in pictures] == ["labelled"] * 10 + ["test"] * 6
    for i, picture in enumerate(pictures):
        role, index = (picture.role, i if i < 10 else i - 10)
        made = world.example("toddler", role, index, (96, 128), 0)
        np.testing.assert_allclose(picture.keypoints_k3, made.keypoints_k3, atol=0.006)
        np.testing.assert_allclose(picture.joints_k3, made.joints_k3, atol=1e-5)
        assert (picture.posture, picture.grasp) == (made.labels.posture, made.labels.grasp)
        whole = index in ((0, 3, 6, 9) if role == "labelled" else (0, 1, 3, 5))
        assert (picture.image_hw3 is not None) == (picture.truth is not None) == whole


def test_test_poses_are_nobody_elses(tmp_path):
    poses = {}
    for role in ("labelled", "test"):
        made = [world.draw("toddler", role, i, (96, 128), 0)[2] for i in range(0, 240, 2)]
        poses[role] = np.stack([measures.normal_pose(scene.joints_k3, NAMES) for scene in made])
    # 120 of each: more than 3 % of the trunk's length, a joint, from the nearest.
    assert measures.nearest(poses["test"], poses["labelled"]).min() > 0.03


def test_sheet_chart_and_table(pictures):
    whole = [picture for picture in pictures if picture.truth is not None]
    sheet = simulated_sheets.sheet(whole, world.SKELETON, columns=4)
    assert sheet.shape[1] == 4 * (2 * 96 + 3) + 3 and sheet.dtype == np.uint8
    assert simulated_charts.chart(pictures, world.SKELETON)[:4] == b"\x89PNG"
    table = simulated_charts.table(pictures, world.SKELETON)
    assert "16 pictures of 3 people" in table and "| high_guard_walk |" in table


def test_panels_show_what_they_say(pictures):
    known = pictures[0].truth
    depth = simulated_sheets.depth_panel(known)[..., 0].astype(int)
    near, far = known.depth_hw.argmin(), known.depth_hw.argmax()
    assert depth.ravel()[near] > depth.ravel()[far]
    normals = simulated_sheets.normals_panel(known)
    facing = (known.normals_hw3[..., 2] < -0.9).nonzero()
    assert normals[facing][:, 2].min() > 240
    left = np.where(known.people_hw == solids.TARGET, known.parts_hw, 0)
    left[:] = solids.PARTS.index("left_hand")
    red, green, _ = simulated_sheets.parts_panel(known._replace(parts_hw=left))[0, 0]
    assert red > green


@pytest.mark.parametrize("missing", ["truth/people.csv", "labels.json", "images", "truth"])
def test_what_is_missing_is_named_in_one_line(lab, tmp_path, missing):
    copy = tmp_path / "lab"
    shutil.copytree(lab, copy)
    (shutil.rmtree if (copy / missing).is_dir() else lambda p: p.unlink())(copy / missing)
    with pytest.raises(truth.BadTruth) as error:
        list(simulated.read(copy, world.SKELETON, 4))
    assert "\n" not in str(error.value) and str(copy) in str(error.value)


def _fewer(entry, image):
    entry["keypoints"] = entry["keypoints"][:-3]


def _words(entry, image):
    entry["keypoints"][0] = "x"


def _nowhere(entry, image):
    entry["keypoints"][0] = float("nan")


def _box(entry, image):
    entry["bbox"] = entry["bbox"][:3]


def _no_box(entry, image):
    entry["bbox"] = None


def _wide(entry, image):
    image["width"] += 1


@pytest.mark.parametrize("change", [_fewer, _words, _nowhere, _box, _no_box, _wide])
@pytest.mark.parametrize("whole", [0, 4])
def test_labels_that_do_not_fit_are_one_line(lab, tmp_path, change, whole):
    copy = tmp_path / "lab"
    shutil.copytree(lab, copy)
    data = json.loads((copy / "labels.json").read_text())
    change(data["annotations"][0], data["images"][0])
    (copy / "labels.json").write_text(json.dumps(data))
    with pytest.raises(truth.BadTruth) as error:
        list(simulated.read(copy, world.SKELETON, whole))
    assert "\n" not in str(error.value) and str(copy) in str(error.value)


def test_pictures_and_truth_of_another_size_are_one_line(lab, tmp_path):
    small = tmp_path / "small"
    folder.write(small, "toddler", {"labelled": 1}, (64, 64), 0, world.example, world.SKELETON)
    name = "toddler_labelled_000000"
    for file in (f"images/{name}.jpg", f"truth/{name}.npz"):
        copy = tmp_path / file[:5]
        shutil.copytree(lab, copy)
        shutil.copy(small / file, copy / file)
        with pytest.raises(truth.BadTruth, match=f"{name}.jpg do not fit each other"):
            list(simulated.read(copy, world.SKELETON, 4))
