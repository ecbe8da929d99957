"""Parts of skeletons, frames, and the way to data units and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_prior import LAB27, SKELETONS, people

from nkjax import skeleton as skeletons
from nkjax.prior import coordinates
from nkjax.toddlersim import world


def poses_of(skeleton, part="body", **kwargs):
    of_part = coordinates.parts(skeleton)[part]
    poses, who = coordinates.take(of_part, people(skeleton, **kwargs), skeleton)
    return of_part, poses, who


@pytest.mark.parametrize(("name", "body", "hand"), [
    ("coco17", 17, 0), ("wholebody133", 23, 22), ("goliath308", 0, 0)])  # fmt: skip
def test_parts_of_built_in_skeletons(name, body, hand):
    found = coordinates.parts(skeletons.load(name))
    if name == "goliath308":  # its face has 238 points
        assert len(found["body"].joints) < 60 and len(found["hand"].joints) == 21
        (root,) = found["hand"].root  # the last of its hand
        assert root > 0 and "wrist" in found["hand"].keypoints[root]
        return
    assert len(found["body"].joints) == body
    assert ("hand" in found) == bool(hand)
    if hand:
        assert len(found["hand"].joints) == 22 or len(found["hand"].joints) == 21


def test_parts_of_a_lab_of_its_own():
    body = coordinates.parts(LAB27)["body"]
    assert len(body.joints) == 27 and "hand" not in coordinates.parts(LAB27)
    names = [body.keypoints[i] for i in body.root]
    assert names == ["LeftHip", "RightHip"]
    assert [body.keypoints[i] for i in body.fallback] == ["LeftShoulder", "RightShoulder"]


def test_the_hand_has_wrist_and_knuckles():
    hand = coordinates.parts(world.SKELETON)["hand"]
    assert hand.keypoints[hand.root[0]] == "left_hand_root"
    sized = {hand.keypoints[i] for i in hand.sized}
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    assert sized == {"left_hand_root", *(f"left_{name}1" for name in fingers)}
    for left, right in zip(hand.joints, hand.mirrored, strict=True):
        names = world.SKELETON.keypoints[left], world.SKELETON.keypoints[right]
        assert names[0].replace("left", "right") == names[1]


def test_flip_is_an_involution_of_sides():
    for skeleton in SKELETONS.values():
        body = coordinates.parts(skeleton)["body"]
        assert [body.flip[i] for i in body.flip] == list(range(len(body.flip)))
        swapped = [body.keypoints[i] for i in body.flip]
        for own, other in zip(body.keypoints, swapped, strict=True):
            mirror = own.replace("left", "#").replace("right", "left").replace("#", "right")
            mirror = mirror.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
            assert other == mirror


def test_frame_by_hand():
    part, _, _ = poses_of(SKELETONS["coco17"])
    units = coordinates.Units(1.0, 0.3, (0.0, -1.0))
    points = np.zeros((1, 17, 2), np.float32)
    points[0, :, 0] = np.arange(17)
    points[0, [11, 12]] = [[40, 50], [60, 50]]
    valid = np.ones((1, 17), bool)
    root, scale = coordinates.frame(part, units, points, valid, np.array([100.0]))
    assert np.allclose(root, [[50, 50]])
    radius = np.sqrt(np.square(points[0] - [50, 50]).sum(-1).mean())
    assert np.allclose(scale, np.clip(radius, 15, 45), rtol=1e-6) and radius > 45
    near = 0.01 * points + 0.99 * np.array([50, 50])
    assert np.allclose(coordinates.frame(part, units, near, valid, np.array([100.0]))[1], 15)
    # Eight joints, still far apart; of seven the box tells the scale.
    valid[0, :9] = False
    assert np.allclose(coordinates.frame(part, units, points, valid, np.array([100.0]))[1], 45)
    valid[0, :10] = False
    assert np.allclose(coordinates.frame(part, units, points, valid, np.array([100.0]))[1], 30)
    # No left hip: shoulders, shifted; nor a shoulder: the middle of what there is.
    valid[:] = True
    valid[0, 11] = False
    root, scale = coordinates.frame(part, units, points, valid, np.array([100.0]))
    assert np.allclose(root, points[0, [5, 6]].mean(0) + [0, -30]) and np.allclose(scale, 30)
    valid[0, 5] = False
    root, _ = coordinates.frame(part, units, points, valid, np.array([100.0]))
    assert np.allclose(root, points[0, valid[0]].mean(0))


@pytest.mark.parametrize(("hips", "wanted"), [(True, 25.0), (False, 30.0)])
def test_frame_of_a_skeleton_of_few_joints(hips, wanted):
    """All six of it tell the scale; of one without hips the box does, however many there are."""
    names = ["shoulder", "hip", "knee"] if hips else ["shoulder", "elbow", "wrist", "knee", "ankle"]
    keypoints = [f"{side}_{name}" for name in names for side in ("left", "right")]
    few = skeletons.parse({"name": "few", "keypoints": keypoints}, "few")
    part = coordinates.parts(few)["body"]
    points = np.tile(np.array([[25.0, 50.0], [75.0, 50.0]], np.float32), (len(names), 1))[None]
    units = coordinates.Units(1.0, 0.3, (0.0, 0.0))
    valid = np.ones(points.shape[:2], bool)
    root, scale = coordinates.frame(part, units, points, valid, np.array([100.0]))
    assert np.allclose(root, [[50, 50]]) and np.allclose(scale, wanted)


def test_frame_of_a_hand_by_hand():
    """Wrist and knuckles tell the scale, three of them or more: 0.1 to 0.6 of the diagonal."""
    hand = coordinates.parts(world.SKELETON)["hand"]
    units, joints = coordinates.Units(1.0, 0.35, (0.0, 0.0)), len(hand.joints)
    knuckles = [i for i in hand.sized if i != hand.root[0]]
    points = np.random.default_rng(0).uniform(0, 100, (1, joints, 2)).astype(np.float32)
    points[0, hand.root[0]], points[0, knuckles] = [10, 20], [40, 60]  # 50 px from the wrist
    fingertips = np.setdiff1d(np.arange(joints), hand.sized)

    def frame(shown, diagonal=100.0):
        valid = np.zeros((1, joints), bool)
        valid[0, [*fingertips, *shown]] = True
        root, scale = coordinates.frame(hand, units, points, valid, np.array([diagonal]))
        return np.asarray(root)[0], float(scale[0]), points[0, valid[0]].mean(0)

    root, scale, _ = frame([hand.root[0], *knuckles[:2]])
    assert np.allclose(root, [10, 20]) and np.isclose(scale, 50 * np.sqrt(2 / 3))
    assert np.isclose(frame([hand.root[0], knuckles[0]])[1], 35)
    root, scale, middle = frame(knuckles)
    assert np.allclose(root, middle) and np.isclose(scale, 35)
    for diagonal, clipped in ((1000.0, 100), (50.0, 30)):
        assert np.isclose(frame([hand.root[0], *knuckles], diagonal)[1], clipped)


@pytest.mark.parametrize("name", SKELETONS)
@pytest.mark.parametrize("part", ["body", "hand"])
def test_there_and_back_in_data_units(name, part):
    if part not in coordinates.parts(SKELETONS[name]):
        pytest.skip("no hands")
    of_part, poses, _ = poses_of(SKELETONS[name], part, count=60)
    units = coordinates.fit_units(of_part, poses)
    at = coordinates.frame(of_part, units, *poses[:3])
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, units)
    assert np.isfinite(u).all() and (np.asarray(u)[~poses.valid_bj] == 0).all()
    assert abs(float(np.asarray(u)[poses.valid_bj].std()) - 1) < 1e-3
    back = np.asarray(coordinates.restore(u, at, units))
    assert np.allclose(back[poses.valid_bj], poses.points_bj2[poses.valid_bj], atol=1e-3)


def test_units_are_those_of_the_labelled_people():
    """By hand: the usual radius of whole people, and the way from their shoulders to their hips."""
    part, poses, _ = poses_of(SKELETONS["coco17"], count=40)
    shares, ways = [], []
    for points, valid in zip(poses.points_bj2, poses.valid_bj, strict=True):
        root = points[[11, 12]].mean(0)
        radius = np.sqrt(np.square(points[valid] - root).sum(1).mean())
        if valid.all():
            shares.append(radius / 141.4)
        if valid[[5, 6, 11, 12]].all():
            ways.append((root - points[[5, 6]].mean(0)) / radius)
    units = coordinates.fit_units(part, poses)
    assert 3 < len(shares) < len(ways) < 40
    assert np.isclose(units.box_scale, np.median(shares), rtol=1e-5)
    assert np.allclose(units.offset, np.mean(ways, 0), atol=1e-5)


@pytest.mark.parametrize(("name", "usual"), [("body", 0.3), ("hand", 0.35)])
def test_where_nobody_shows_the_root_units_are_the_usual_ones(name, usual):
    part, poses, _ = poses_of(SKELETONS["toddlersim65"], name)
    valid = poses.valid_bj.copy()
    valid[:, list(part.root)] = False
    units = coordinates.fit_units(part, poses._replace(valid_bj=valid))
    assert units.box_scale == usual and units.offset == (0.0, 0.0)


def test_the_diagonal_of_a_hand_is_that_of_its_joints():
    hand = coordinates.parts(world.SKELETON)["hand"]
    some = people(world.SKELETON, 2, missing=0.0)
    some.points_nk2[0, list(hand.joints)] = 7.0  # all at one place: a pixel
    some.points_nk2[1, hand.joints[0]] = np.nan
    poses, _ = coordinates.take(hand, some, world.SKELETON)
    sides = [hand.joints[1:], hand.mirrored, hand.mirrored]
    wanted = [
        np.linalg.norm(np.ptp(some.points_nk2[who, list(joints)], 0))
        for who, joints in zip((1, 0, 1), sides, strict=True)
    ]
    assert poses.diagonal_b[0] == 1 and np.allclose(poses.diagonal_b[1:], wanted, rtol=1e-6)


def test_larger_and_elsewhere_is_the_same_pose():
    part, poses, _ = poses_of(SKELETONS["coco17"])
    units = coordinates.fit_units(part, poses)

    def u(points, diagonal):
        at = coordinates.frame(part, units, points, poses.valid_bj, diagonal)
        return np.asarray(coordinates.normalise(points, poses.valid_bj, at, units))

    moved = u(poses.points_bj2 * 3 + 77, poses.diagonal_b * 3)
    assert np.abs(moved - u(poses.points_bj2, poses.diagonal_b)).max() < 1e-4


def test_root_and_scale_have_no_gradient():
    part, poses, _ = poses_of(SKELETONS["coco17"], missing=0.0)
    units = coordinates.fit_units(part, poses)

    def total(points):
        at = coordinates.frame(part, units, points, poses.valid_bj, poses.diagonal_b)
        return coordinates.normalise(points, poses.valid_bj, at, units).sum()

    gradient = jax.grad(total)(jnp.asarray(poses.points_bj2))
    at = coordinates.frame(part, units, *poses[:3])
    expected = 1 / (np.asarray(at.scale_b) * units.unit)
    assert np.allclose(gradient, expected[:, None, None], rtol=1e-5)


def test_a_joint_that_is_not_there_moves_nothing():
    part, poses, _ = poses_of(SKELETONS["toddlersim65"], count=30, missing=0.3)
    units = coordinates.fit_units(part, poses)

    def outputs(points):
        def u(points):
            at = coordinates.frame(part, units, points, poses.valid_bj, poses.diagonal_b)
            return coordinates.normalise(points, poses.valid_bj, at, units)

        points = jnp.asarray(points)
        return np.asarray(u(points)), np.asarray(jax.grad(lambda x: jnp.sin(u(x)).sum())(points))

    zero = np.where(poses.valid_bj[..., None], poses.points_bj2, 0)
    far = np.where(poses.valid_bj[..., None], poses.points_bj2, 1e3)
    for other in (far, poses.points_bj2):
        for a, b in zip(outputs(zero), outputs(other), strict=True):
            assert (a == b).all() and np.isfinite(a).all()


def test_right_hands_become_left_ones():
    skeleton = world.SKELETON
    hand = coordinates.parts(skeleton)["hand"]
    some = people(skeleton, 3, missing=0.0)
    mirrored = some.points_nk2[:, list(skeleton.flip_indices)] * np.array([-1, 1], np.float32)
    poses, who = coordinates.take(hand, some, skeleton)
    of_mirror, _ = coordinates.take(hand, some._replace(points_nk2=mirrored), skeleton)
    assert who.tolist() == [0, 1, 2, 0, 1, 2]
    swap = [3, 4, 5, 0, 1, 2]
    for ours, theirs in zip(poses, of_mirror, strict=True):
        assert np.allclose(ours, theirs[swap], atol=1e-5)
    # The forearm points from the elbow to the wrist.
    elbow, wrist = (skeleton.keypoints.index(f"left_{name}") for name in ("elbow", "wrist"))
    way = some.points_nk2[0, wrist] - some.points_nk2[0, elbow]
    assert np.allclose(poses.context_bc[0, 2:], [*(way / np.hypot(*way)), 1], atol=1e-6)


def test_what_is_not_known_of_age_and_forearm_is_told_as_that():
    skeleton = world.SKELETON
    some = people(skeleton, 3, missing=0.0)
    points, ages = some.points_nk2.copy(), np.array([18, np.nan, 36], np.float32)
    points[0, skeleton.keypoints.index("left_elbow")] = np.nan
    some, found = some._replace(points_nk2=points, age_n=ages), coordinates.parts(skeleton)
    body, hand = (coordinates.take(found[name], some, skeleton)[0] for name in ("body", "hand"))
    # Months, told from two years on in years.
    assert body.context_bc[:, :2].tolist() == [[-0.5, 1], [0, 0], [1, 1]]
    assert not body.context_bc[:, 2:].any()
    assert (hand.context_bc[:, :2] == np.tile(body.context_bc[:, :2], (2, 1))).all()
    assert hand.context_bc[0, 2:].tolist() == [0, 0, 0] and (hand.context_bc[1:, 4] == 1).all()


def test_hands_with_five_joints_are_left_out():
    skeleton = world.SKELETON
    hand = coordinates.parts(skeleton)["hand"]
    some = people(skeleton, 2, missing=0.0)
    points = some.points_nk2.copy()
    points[0, list(hand.joints)[5:]] = np.nan
    points[0, list(hand.mirrored)[6:]] = np.nan
    some = some._replace(points_nk2=points)
    _, who = coordinates.take(hand, some, skeleton)
    assert who.tolist() == [1, 0, 1]
    body = coordinates.parts(skeleton)["body"]
    assert coordinates.take(body, some, skeleton)[1].tolist() == [0, 1]
