"""Bones, angles and posture clusters against hand-drawn figures and hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.kinematics import limbs

COCO = skeletons.load("coco17")
# A lab's own: other spelling, a neck, one-point hands, toes; 27 joints.
LAB_NAMES = ["Nose", "Neck", "MidHip", *(f"{side}-{joint}" for joint in (
    "Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "BigToe", "Heel", "Thumb1",
    "Thumb2") for side in "LR")]  # fmt: skip
LAB_LIMBS = [
    ["Nose", "Neck"], ["Neck", "MidHip"],
    *([f"{side}-{a}", f"{side}-{b}"] for side in "LR" for a, b in (
        # Some of them written from the far end.
        ("Elbow", "Shoulder"), ("Elbow", "Wrist"), ("Hip", "Knee"), ("Ankle", "Knee"),
        ("BigToe", "Ankle"), ("Thumb2", "Thumb1"), ("Thumb1", "Wrist"))),
    ["Neck", "L-Shoulder"], ["Neck", "R-Shoulder"],
]  # fmt: skip
# Standing, seen from the front, in units of a limb bone of 1; the child's left is at +x.
STANDING = {
    "nose": (0, -3.2), "eye": (0.1, -3.3), "ear": (0.2, -3.3), "shoulder": (0.5, -2.6),
    "elbow": (0.6, -1.6), "wrist": (0.7, -0.6), "hip": (0.3, -1), "knee": (0.3, 0),
    "ankle": (0.3, 1),
}  # fmt: skip


def lab(limbs_=LAB_LIMBS):
    data = {"name": "lab27", "keypoints": LAB_NAMES, "limbs": limbs_}
    return skeletons.parse(data, "lab27")


def figure(joints):
    """Return points (1, 17, 2) of coco17: the left side as given, the right one mirrored."""
    points = []
    for name in COCO.keypoints:
        x, y = joints[name.removeprefix("left_").removeprefix("right_")]
        points.append((-x if name.startswith("right") else x, y))
    return np.array([points], np.float32)


def cluster(points, valid=None):
    valid = np.ones(points.shape[:2], bool) if valid is None else valid
    return [limbs.CLUSTERS[c] for c in limbs.posture_cluster(points, valid, COCO)]


def by_name(items):
    return {item.name: item for item in items}


@pytest.mark.parametrize(
    ("name", "bones", "angles"),
    # 12 of the body; 6 of the feet; 2 x 20 of the hands. 8; 6 at ankles; 2 x 5 x 3 in fingers.
    [("coco17", 12, 8), ("wholebody133", 58, 44), ("goliath308", 58, 44)],
)
def test_built_in_skeletons_have_the_bones_of_body_feet_and_hands(name, bones, angles):
    skeleton = skeletons.load(name)
    found = limbs.bones(skeleton)
    assert (len(found), len(limbs.angles(skeleton))) == (bones, angles)
    head = {*skeleton.groups["head"]}
    assert not any({bone.a, bone.b} & head for bone in found)
    joints = {frozenset((bone.a, bone.b)) for bone in found}
    wanted = {frozenset(limb) for limb in skeleton.limbs if not {*limb} & head}
    assert joints == wanted


def test_bones_lead_outwards_and_only_the_sides_of_the_torso_bend():
    bones = by_name(limbs.bones(COCO))
    names = {bone.name: (COCO.keypoints[bone.a], COCO.keypoints[bone.b]) for bone in bones.values()}
    assert names["left_forearm"] == ("left_elbow", "left_wrist")
    assert names["right_shank"] == ("right_knee", "right_ankle")
    assert names["hip_line"] == ("left_hip", "right_hip")
    assert {n for n, bone in bones.items() if not bone.rigid} == {"left_torso", "right_torso"}


def test_a_lab_skeleton_has_the_same_body_whether_or_not_it_has_limbs():
    bare, whole = limbs.bones(lab([])), limbs.bones(lab())
    assert [b.name for b in bare] == [b.name for b in limbs.bones(COCO)]
    assert [(b.name, b.a, b.b) for b in whole[:12]] == [(b.name, b.a, b.b) for b in bare]
    more = {bone.name: bone for bone in whole[12:]}
    assert more.keys() == {
        "L-Ankle-L-BigToe", "R-Ankle-R-BigToe", "L-Wrist-L-Thumb1", "R-Wrist-R-Thumb1",
        "L-Thumb1-L-Thumb2", "R-Thumb1-R-Thumb2", "Neck-MidHip", "L-Shoulder-Neck",
        "R-Shoulder-Neck"}  # fmt: skip
    assert {more[name].part for name in more if "Toe" in name} == {"foot"}
    assert {more[name].part for name in more if "Thumb" in name} == {"hand"}
    assert {name for name in more if not more[name].rigid} == {
        "Neck-MidHip", "L-Shoulder-Neck", "R-Shoulder-Neck"}  # fmt: skip
    angles = {a.name for a in limbs.angles(lab())} - {a.name for a in limbs.angles(COCO)}
    assert angles == {"L-Ankle:L-BigToe", "R-Ankle:R-BigToe",
                      "L-Thumb1:L-Thumb2", "R-Thumb1:R-Thumb2"}  # fmt: skip


@pytest.mark.parametrize("skeleton", [COCO, lab(), skeletons.load("wholebody133")])
def test_mirrors_name_the_same_bone_and_angle_of_the_other_side(skeleton):
    flip = skeleton.flip_indices
    bones, angles = limbs.bones(skeleton), limbs.angles(skeleton)
    for bone in bones:
        other = bones[bone.mirror]
        assert {other.a, other.b} == {flip[bone.a], flip[bone.b]}
    for angle in angles:
        other = angles[angle.mirror]
        assert (other.a, other.j, other.b) == (flip[angle.a], flip[angle.j], flip[angle.b])


def test_a_skeleton_of_other_words_has_no_bones_and_no_posture():
    skeleton = skeletons.parse({"name": "x", "keypoints": ["head", "tail"]}, "x")
    assert limbs.bones(skeleton) == limbs.angles(skeleton) == ()
    points = np.zeros((3, 2, 2), np.float32)
    known = np.ones((3, 2), bool)
    assert limbs.log_lengths(points, known, ()).shape == (3, 0)
    assert limbs.posture_cluster(points, known, skeleton).tolist() == [3, 3, 3]


def test_lengths_are_log_px():
    points = figure(STANDING)
    points[0, COCO.keypoints.index("left_wrist")] = (0.6 + 3, -1.6 - 4)
    lengths = limbs.log_lengths(points, np.ones((1, 17), bool), limbs.bones(COCO))
    names = [bone.name for bone in limbs.bones(COCO)]
    assert lengths[0, names.index("left_forearm")] == pytest.approx(np.log(5))
    assert lengths[0, names.index("shoulder_line")] == pytest.approx(np.log(1))


@pytest.mark.parametrize(
    ("b", "turn"),
    # a is above j: the way leads down the picture, and turning to its right is a negative angle.
    [((0, 2), 0), ((1, 1), -np.pi / 2), ((-1, 1), np.pi / 2), ((1, 2), -np.pi / 4),
     ((-0.001, 0.5), 3.139593)],
)  # fmt: skip
def test_angles_are_signed_turns(b, turn):
    angle = limbs.Angle("one", 0, 1, 2, 0, "body")
    points = np.array([[(0, 0), (0, 1), b]], np.float32)
    found = limbs.turns(points, np.ones((1, 3), bool), (angle,))
    assert found[0, 0] == pytest.approx(turn, abs=1e-6)


def test_a_mirrored_picture_with_sides_exchanged_negates_the_angles():
    points = np.random.default_rng(0).normal(size=(20, 17, 2))
    mirrored = (points * [-1, 1])[:, list(COCO.flip_indices)]
    valid, angles = np.ones((20, 17), bool), limbs.angles(COCO)
    other = [angle.mirror for angle in angles]
    np.testing.assert_allclose(
        limbs.turns(mirrored, valid, angles)[:, other], -limbs.turns(points, valid, angles)
    )


def test_joints_that_are_not_valid_are_nan_alone_and_change_no_bit_of_the_rest():
    points = np.random.default_rng(1).normal(size=(4, 17, 2)).astype(np.float32)
    wrist = COCO.keypoints.index("left_wrist")
    valid = np.ones((4, 17), bool)
    valid[:, wrist] = False
    measured = []
    for place in (np.nan, 0, 1e3):
        points[:, wrist] = place
        measured.append(limbs.log_lengths(points, valid, limbs.bones(COCO)))
        measured.append(limbs.turns(points, valid, limbs.angles(COCO)))
    for lengths, turns in zip(measured[::2], measured[1::2], strict=True):
        np.testing.assert_array_equal(lengths, measured[0])
        np.testing.assert_array_equal(turns, measured[1])
        unknown = [limbs.bones(COCO)[i].name for i in np.flatnonzero(np.isnan(lengths[0]))]
        assert unknown == ["left_forearm"]


def test_numpy_and_jit_agree_and_gradients_are_finite_at_nan_joints_and_bones_of_no_length():
    points = np.random.default_rng(2).normal(size=(6, 17, 2)).astype(np.float32)
    valid = np.random.default_rng(3).random((6, 17)) < 0.8
    points[0, 7], valid[0, [5, 7, 9]] = points[0, 5], True
    points = np.where(valid[..., None], points, np.nan).astype(np.float32)
    bones, angles = limbs.bones(COCO), limbs.angles(COCO)

    def measure(points, valid):
        return (limbs.log_lengths(points, valid, bones), limbs.turns(points, valid, angles),
                limbs.posture_cluster(points, valid, COCO))  # fmt: skip

    def total(points):
        return sum(jnp.nansum(values) for values in measure(points, valid)[:2])

    for ours, compiled in zip(measure(points, valid), jax.jit(measure)(points, valid), strict=True):
        assert ours.dtype == compiled.dtype
        np.testing.assert_allclose(ours, compiled, rtol=1e-5, atol=1e-5)
    gradient = np.asarray(jax.grad(total)(jnp.asarray(points)))
    assert np.isfinite(gradient).all() and not gradient[~valid].any() and gradient[valid].any()


ON_ALL_FOURS = STANDING | {  # from the front: hips behind the shoulders, knees below the hips
    "shoulder": (0.5, -0.8), "hip": (0.3, -1), "knee": (0.3, 0), "ankle": (0.3, -0.2),
    "elbow": (0.6, -0.3), "wrist": (0.6, 0.4)}  # fmt: skip
SITTING = STANDING | {"knee": (1.2, -1.1), "ankle": (2.2, -0.9)}
BEAR = STANDING | {"shoulder": (1.9, -0.2), "elbow": (2, 0.3), "wrist": (2, 1)}


# The same height of the shoulders: from behind and above on hands and knees, and sitting bent.
FROM_ABOVE = STANDING | {"shoulder": (0.5, -1.9), "elbow": (0.6, -1.2), "wrist": (0.6, -0.5)}
BENT = SITTING | {"shoulder": (0.7, -1.9), "elbow": (1.4, -1.3), "wrist": (2.2, -1.1)}


@pytest.mark.parametrize(
    ("joints", "wanted"),
    [(STANDING, "upright"), (ON_ALL_FOURS, "prone"), (FROM_ABOVE, "prone"), (BEAR, "prone"),
     (SITTING, "seated"), (BENT, "seated")],
)  # fmt: skip
def test_posture_clusters_of_drawn_figures_whatever_their_size_place_and_side(joints, wanted):
    points = figure(joints)
    assert cluster(points) == [wanted]
    assert cluster(points * 57 + 300) == [wanted]
    assert cluster((points * [-1, 1]).astype(np.float32)[:, list(COCO.flip_indices)]) == [wanted]


def test_posture_needs_shoulders_hips_legs_and_three_limb_bones():
    points = np.repeat(figure(SITTING), 6, 0)
    valid = np.ones((6, 17), bool)
    index = COCO.keypoints.index
    valid[0, [index("left_ankle"), index("right_ankle"), index("right_hip")]] = False
    valid[1, [index("left_shoulder"), index("right_shoulder")]] = False
    valid[2, [index("left_hip"), index("right_hip")]] = False
    valid[3, 13:] = False  # no knees, no ankles
    valid[4, [index(f"{s}_{j}") for s in ("left", "right") for j in ("elbow", "ankle")]] = False
    # Knees so far below the hips stand, where no ankle is known.
    points[5] = figure(STANDING | {"knee": (0.8, -0.4)})[0]
    valid[5, [index("left_ankle"), index("right_ankle")]] = False
    points[~valid] = np.nan
    wanted = ["seated", "unknown", "unknown", "unknown", "unknown", "upright"]
    assert cluster(points, valid) == wanted
    np.testing.assert_array_equal(
        [limbs.CLUSTERS.index(name) for name in wanted],
        jax.jit(lambda p, v: limbs.posture_cluster(p, v, COCO))(points, valid),
    )


def test_quantiles_of_rows_are_numpys():
    values = np.random.default_rng(4).normal(size=(50, 7))
    values[np.random.default_rng(5).random((50, 7)) < 0.5] = np.nan
    values[:, 0], values[3, 1:] = 1, np.nan
    for q in (0, 0.3, 0.75, 1):
        np.testing.assert_allclose(limbs.quantile(values, q), np.nanquantile(values, q, axis=1))
    assert np.isnan(limbs.quantile(np.full((2, 3), np.nan), 0.5)).all()
