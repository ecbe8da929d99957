"""Planted mistakes: each changes what it says, and nothing else, in people who can carry it."""

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.kinematics import corruptions, limbs

COCO = skeletons.load("coco17")
WHOLE = skeletons.load("wholebody133")
# Facing the camera, arms out, the left knee (at +x) bent outwards by about 60 degrees.
FIGURE = {
    "shoulder": (10, 0), "elbow": (30, 5), "wrist": (48, 0), "hip": (7, 40), "knee": (15, 70),
    "ankle": (-8, 88),
}  # fmt: skip


def people(skeleton, count=40, seed=0):
    """Frontal people, all much alike; joints beside arms and legs lie near one of these."""
    rng = np.random.default_rng(seed)
    points = np.zeros((len(skeleton.keypoints), 2))
    for i, name in enumerate(skeleton.keypoints):
        side = -1 if "right" in name else 1
        near = next((x for joint, x in FIGURE.items() if name.endswith(joint)), None)
        if near is None:
            hand = i in {*skeleton.groups["left_hand"], *skeleton.groups["right_hand"]}
            foot = i in skeleton.groups["feet"]
            near = FIGURE["wrist" if hand else "ankle" if foot else "shoulder"]
            near = near + rng.normal(size=2) * 4
        points[i] = side * near[0], near[1]
    # Only the left knee is bent.
    right = [skeleton.keypoints.index(f"right_{name}") for name in ("hip", "knee", "ankle")]
    points[right] = [(-7, 40), (-9, 71), (-11, 100)]
    sizes = rng.uniform(0.7, 1.4, (count, 1, 1))
    return (sizes * (points[None] + rng.normal(size=(count, *points.shape)) * 0.2) + 200), sizes


def lengths(points, bone):
    return np.hypot(*(points[:, bone.b] - points[:, bone.a]).T)


def bones(skeleton):
    return {bone.name: bone for bone in limbs.bones(skeleton)}


@pytest.mark.parametrize("bone", corruptions.BONES)
def test_a_stretched_bone_alone_is_longer_and_what_hangs_on_it_moves_along(bone):
    points, _ = people(WHOLE)
    found = corruptions.stretched_bone(points, WHOLE, 0, bones=(bone,))
    assert found.usable_n.all()
    named = bones(WHOLE)
    ratio = {n: lengths(found.points_nk2, b) / lengths(points, b) for n, b in named.items()}
    stretched = np.stack([ratio[f"left_{bone}"], ratio[f"right_{bone}"]], 1)
    np.testing.assert_allclose(np.sort(stretched, 1), np.tile([1, 1.8], (40, 1)), atol=1e-3)
    assert 5 < (stretched[:, 0] > 1.5).sum() < 35  # either side
    for name, value in ratio.items():
        if not name.endswith((bone, "torso", "line")):
            np.testing.assert_allclose(value, 1, atol=2e-3, err_msg=name)
    hanging = {"upper_arm": 23, "forearm": 22, "thigh": 5, "shank": 4}[bone]
    assert (found.moved_nk.sum(1) == hanging).all()


def test_a_foreshortened_bone_is_not_stretched():
    points, _ = people(COCO)
    named = bones(COCO)
    for side in ("left", "right"):
        bone = named[f"{side}_forearm"]
        points[0, bone.b] = points[0, bone.a] + 0.5 * (points[0, bone.b] - points[0, bone.a])
        points[1, bone.b] = np.nan
    found = corruptions.stretched_bone(points, COCO, 0, bones=("forearm",))
    assert found.usable_n.tolist() == [False, False] + [True] * 38
    np.testing.assert_array_equal(found.points_nk2[:2], points[:2].astype(np.float32))
    assert not found.moved_nk[:2].any()


def test_a_reversed_knee_bends_as_much_the_other_way():
    points, _ = people(WHOLE)
    found = corruptions.reversed_knee(points, WHOLE, 0)
    assert found.usable_n.all()
    valid = np.ones(points.shape[:2], bool)
    knees = [a for a in limbs.angles(WHOLE) if a.name in ("left_knee", "right_knee")]
    before, after = (np.asarray(limbs.turns(p, valid, tuple(knees))) for p in (points, found[0]))
    # The straight right knee is never the one.
    np.testing.assert_allclose(after, before * [[-1, 1]], atol=1e-3)
    for name, bone in bones(WHOLE).items():
        before, after = lengths(points, bone), lengths(found.points_nk2, bone)
        np.testing.assert_allclose(after, before, rtol=2e-3, err_msg=name)
    assert (found.moved_nk.sum(1) == 4).all()  # ankle, two toes, heel


def test_a_straight_knee_is_not_reversed():
    points, _ = people(COCO)
    joints = [COCO.keypoints.index(f"left_{name}") for name in ("hip", "knee", "ankle")]
    points[3, joints] = [(207, 240), (209, 271), (211, 300)]
    assert np.flatnonzero(~corruptions.reversed_knee(points, COCO, 0).usable_n).tolist() == [3]


def test_swapped_sides_exchange_a_whole_limb():
    points, _ = people(WHOLE)
    found = corruptions.swapped_sides(points, WHOLE, 0)
    arms = found.moved_nk[:, WHOLE.keypoints.index("left_wrist")]
    legs = found.moved_nk[:, WHOLE.keypoints.index("left_knee")]
    # Ankles cross here: the left one is on the right, so that only arms lie apart.
    assert found.usable_n.all() and arms.all() and not legs.any()
    flip = list(WHOLE.flip_indices)
    moved = found.moved_nk[0]
    assert moved.sum() == 2 * (2 + 21)
    wanted = np.where(moved[None, :, None], points[:, flip], points)
    np.testing.assert_allclose(found.points_nk2, wanted, rtol=1e-6)
    assert not moved[[WHOLE.keypoints.index(f"{s}_shoulder") for s in ("left", "right")]].any()


def test_sides_are_not_swapped_in_profile():
    points, _ = people(COCO)
    points[5] = (points[5] - 200) * [0.3, 1] + 200
    assert np.flatnonzero(~corruptions.swapped_sides(points, COCO, 0).usable_n).tolist() == [5]


def test_a_collapsed_arm_lies_on_its_shoulder_and_keeps_its_hand():
    points, _ = people(WHOLE)
    found = corruptions.collapsed_arm(points, WHOLE, 0)
    assert found.usable_n.all() and (found.moved_nk.sum(1) == 23).all()
    for n in range(40):
        side = "left" if found.moved_nk[n, WHOLE.keypoints.index("left_wrist")] else "right"
        at = {j: WHOLE.keypoints.index(f"{side}_{j}") for j in ("shoulder", "elbow", "wrist")}
        new, old = found.points_nk2[n], points[n]
        for joint in ("elbow", "wrist"):
            np.testing.assert_allclose(new[at[joint]], old[at["shoulder"]], rtol=1e-6)
        hand = list(WHOLE.groups[f"{side}_hand"])
        np.testing.assert_allclose(
            new[hand] - new[at["wrist"]], old[hand] - old[at["wrist"]], atol=1e-3
        )


@pytest.mark.parametrize("name", sorted(corruptions.ALL))
def test_the_seed_decides_and_input_and_unlabelled_joints_stay(name):
    points, _ = people(WHOLE, 60)
    unlabelled = np.random.default_rng(3).uniform(size=points.shape[:2]) < 0.1
    points[unlabelled] = np.nan
    before = points.copy()
    first, again = (corruptions.ALL[name](points, WHOLE, 5) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(points, before)
    unusable = ~first.usable_n
    assert first.usable_n.any() and unusable.any()
    np.testing.assert_array_equal(first.points_nk2[unusable], points[unusable].astype(np.float32))
    kept = ~first.moved_nk & ~unlabelled
    np.testing.assert_array_equal(first.points_nk2[kept], points[kept].astype(np.float32))
    if name in ("stretched_bone", "collapsed_arm"):
        other = corruptions.ALL[name](points, WHOLE, 6)
        assert (other.moved_nk != first.moved_nk).any()


def test_a_skeleton_without_knees_is_refused_in_one_line():
    names = [f"{s}_{j}" for s in ("left", "right") for j in ("shoulder", "elbow", "wrist", "hip")]
    half = skeletons.parse({"name": "half", "keypoints": names}, "half")
    with pytest.raises(ValueError, match="'half' has no left_thigh.*use a skeleton") as error:
        corruptions.reversed_knee(np.zeros((3, 8, 2)), half, 0)
    assert "\n" not in str(error.value)
