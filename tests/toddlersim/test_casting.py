"""Pictures of solids against independent formulas, and what is seen of joints in small scenes."""

import numpy as np
import pytest

from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, solids
from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM

LEVEL = cameras.look_at((0, 0, 1), (3, 0, 1), 100, (101, 81))  # right is -y, middle px (50, 40)
JOINT = np.array([[2.0, 0, 1]])
SKIN = 0.05  # of the ball of flesh around JOINT


def random_camera(rng, size_wh=(64, 48)):
    """A camera about 2 m from the origin, which it sees."""
    position = rng.normal(size=3)
    position *= rng.uniform(1.5, 2.5) / np.linalg.norm(position)
    aim = rng.uniform(-0.1, 0.1, 3)
    return cameras.look_at(position, aim, rng.uniform(60, 90), size_wh, rng.uniform(-180, 180))


def all_rays(camera):
    width, height = camera.size_wh
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    return cameras.rays(camera, pixels)


def crowd(seed):
    """Solids of all kinds and sizes in a room, some behind the camera, some across its plane."""
    rng = np.random.default_rng(seed)
    made = [solids.make(ROOM, (0, 0, 0), solids.frame_along((3, 1, 0.2)), (5, 4, 3))]
    for kind in (CONE, BALL, BOX):
        for size in (0.004, 0.03, 0.1, 0.4):
            frames = [solids.frame_along(axis) for axis in rng.normal(size=(20, 3))]
            sizes = rng.uniform(0.5, 1, (20, 3)) * size * ((3, 1, 1) if kind == CONE else (1, 1, 1))
            made.append(solids.make(kind, rng.uniform(-2, 2, (20, 3)), frames, sizes))
    return solids.join(*made)


def test_depth_and_normal_of_a_sphere():
    rng = np.random.default_rng(0)
    for _ in range(6):
        camera, middle, radius = random_camera(rng), rng.uniform(-0.2, 0.2, 3), 0.4
        turned = solids.frame_along(rng.normal(size=3))
        hits = casting.cast(camera, solids.make(BALL, middle, turned, radius))
        ray = all_rays(camera)
        unit = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        # The foot of the centre on the ray, and from there back by Pythagoras.
        foot = unit @ (middle - camera.position_3)
        across = np.linalg.norm(camera.position_3 + foot[..., None] * unit - middle, axis=-1)
        met = across < radius
        np.testing.assert_array_equal(hits.solid_hw, np.where(met, 0, -1))
        way = foot[met] - np.sqrt(radius**2 - across[met] ** 2)
        hit = camera.position_3 + way[:, None] * unit[met]
        depth = (hit - camera.position_3) @ camera.axes_33[2]
        normal = (hit - middle) / radius @ camera.axes_33.T
        np.testing.assert_allclose(hits.depth_hw[met], depth, atol=1e-5)
        np.testing.assert_allclose(hits.normal_hw3[met], normal, atol=1e-5)
        assert np.isinf(hits.depth_hw[~met]).all() and 100 < met.sum() < 2000


def test_depth_and_normal_of_a_cylinder():
    rng = np.random.default_rng(1)
    checked = 0
    for _ in range(6):
        camera, radius = random_camera(rng), 0.15
        start, end = rng.uniform(-0.5, 0.5, (2, 3))
        hits = casting.cast(camera, solids.cone(start, end, radius, radius))
        ray, axis = all_rays(camera), (end - start) / np.linalg.norm(end - start)
        # As far from the axis as its radius: |(position + t ray - start) x axis| = radius.
        moving, fixed = np.cross(ray, axis), np.cross(camera.position_3 - start, axis)
        a, b = (moving**2).sum(-1), (moving * fixed).sum(-1)
        with np.errstate(invalid="ignore"):
            depth = (-b - np.sqrt(b**2 - a * (fixed @ fixed - radius**2))) / a
        hit = camera.position_3 + depth[..., None] * ray
        along = (hit - start) @ axis
        side = (along > 0) & (along < np.linalg.norm(end - start))
        normal = (hit - start - along[..., None] * axis) / radius @ camera.axes_33.T
        np.testing.assert_allclose(hits.depth_hw[side], depth[side], atol=1e-5)
        np.testing.assert_allclose(hits.normal_hw3[side], normal[side], atol=1e-5)
        assert not np.isfinite(hits.depth_hw[np.isnan(depth)]).any()
        checked += side.sum()
    assert checked > 500


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_tiles_lose_nothing(seed):
    """The same as every ray against every solid, with pixels that fill no whole tile."""
    scene, rng = crowd(seed), np.random.default_rng(seed)
    camera = cameras.look_at(rng.uniform(-0.7, 0.7, 3), (0, 0, 0), 40, (61, 45), 20)
    depth_p = (scene.centre_p3 - camera.position_3) @ camera.axes_33[2]
    assert (depth_p < -1).sum() > 10 and (np.abs(depth_p) < 0.2).sum() > 10
    hits = casting.cast(camera, scene)
    points = camera.position_3 + all_rays(camera).reshape(-1, 3)
    depth, solid = casting.first_hits(camera.position_3, points, scene)
    np.testing.assert_allclose(hits.depth_hw.ravel(), depth, rtol=1e-9)
    np.testing.assert_array_equal(hits.solid_hw.ravel(), solid)
    assert len(np.unique(solid)) >= 10
    np.testing.assert_array_equal(casting.depth_only(camera, scene), hits.depth_hw)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normals_are_unit_and_face_the_camera(seed):
    camera, scene = random_camera(np.random.default_rng(seed)), crowd(seed)
    hits, ray = casting.cast(camera, scene), all_rays(camera)
    assert (hits.solid_hw >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(hits.normal_hw3, axis=-1), 1, atol=1e-12)
    assert (((hits.normal_hw3 @ camera.axes_33) * ray).sum(-1) <= 1e-6).all()


def test_own_points_are_the_hits_in_the_solid_s_own_frame():
    camera, scene = random_camera(np.random.default_rng(3)), crowd(3)
    hits = casting.cast(camera, scene)
    world = camera.position_3 + hits.depth_hw[..., None] * all_rays(camera)
    off = world - scene.centre_p3[hits.solid_hw]
    want = np.einsum("hwij,hwj->hwi", scene.frame_p33[hits.solid_hw], off)
    np.testing.assert_allclose(hits.own_hw3, want, atol=1e-9)


def test_the_work_is_cut_up_without_a_trace(monkeypatch):
    camera, scene = random_camera(np.random.default_rng(4), (61, 45)), crowd(4)
    want = [field.tobytes() for field in casting.cast(camera, scene)]
    assert [field.tobytes() for field in casting.cast(camera, scene)] == want
    for chunk, pixels in ((1, 50), (37, 1000), (10**6, 10**6)):
        monkeypatch.setattr(casting, "CHUNK", chunk)
        monkeypatch.setattr(casting, "PIXELS", pixels)
        assert [field.tobytes() for field in casting.cast(camera, scene)] == want


def test_of_equal_solids_the_first_counts():
    ball = solids.make(BALL, (2, 0, 1), np.eye(3), 0.4)
    same = solids.make(CONE, (2, 0, 1), solids.frame_along((-1, 2, 3)), (0.1, 0.4, 0.4))
    for pair in (solids.join(ball, same), solids.join(same, ball)):
        hits = casting.cast(LEVEL, pair)
        around = hits.solid_hw[38:43, 48:53]
        assert (around == 0).all() or hits.depth_hw[40, 50] < 1.6 - 1e-6
    # Thigh and shank share the ball of the knee: no speckles where rounding decides.
    hip, knee, foot = (2.3, 0.1, 1.5), (1.9, 0, 1), (2.2, -0.05, 0.5)
    leg = solids.join(solids.cone(hip, knee, 0.12, 0.1), solids.cone(knee, foot, 0.1, 0.07))
    hits = casting.cast(LEVEL, leg)
    on_ball = np.abs(np.linalg.norm(hits.own_hw3 - (0, 0, 0), axis=-1) - 0.1) < 1e-7
    ends = leg.size_p3[0, 0], 0, 0
    on_ball_of_thigh = np.abs(np.linalg.norm(hits.own_hw3 - ends, axis=-1) - 0.1) < 1e-7
    assert not (on_ball & (hits.solid_hw == 1)).any()
    assert (on_ball_of_thigh & (hits.solid_hw == 0)).sum() > 30


def test_a_finger_of_4_mm_is_seen_from_4_m():
    # 1.5 px of focal 1500 / 4 m * 4 mm: a row of pixels along it must not break.
    camera = cameras.look_at((-4, 0, 1), (0, 0, 1), 1500, (384, 512))
    finger = solids.cone((0, -0.02, 1), (0, 0.02, 1.002), 0.002, 0.002)
    hits = casting.cast(camera, finger)
    columns = np.flatnonzero((hits.solid_hw == 0).any(0))
    assert 14 <= len(columns) <= 18 and (np.diff(columns) == 1).all()
    np.testing.assert_allclose(hits.depth_hw[hits.solid_hw == 0], 3.999, atol=1.1e-3)


def test_what_is_close_is_seen():
    near = solids.make(BALL, [(0.03, 0, 1), (0.3, -0.1, 1)], np.eye(3), [(0.01,) * 3, (0.1,) * 3])
    hits = casting.cast(LEVEL, near)
    assert hits.depth_hw[40, 50] == pytest.approx(0.02) and (hits.solid_hw == 1).any()
    # From within a ball its skin is not seen; what is behind it is.
    hits = casting.cast(LEVEL, solids.join(flesh((0.1, 0, 1), 0.2), flesh((2, 0, 1), 0.5)))
    assert hits.solid_hw[40, 50] == 1 and not (hits.solid_hw == 0).any()


def test_nothing_is_seen_of_nothing():
    hits = casting.cast(LEVEL, solids.none())
    assert np.isinf(hits.depth_hw).all() and (hits.solid_hw == -1).all()
    assert not hits.normal_hw3.any() and not hits.own_hw3.any()
    assert casting.visible_joints(LEVEL, solids.none(), JOINT, [SKIN], 1).tolist() == [True]


def flesh(at=(2, 0, 1), radius=SKIN, person=1):
    return solids.make(BALL, at, np.eye(3), radius, person=person)


def plate(x, y, person=solids.NOBODY):
    """A plate across the view, 1 mm thick and 0.4 m wide and high."""
    return solids.make(BOX, (x, y, 1), np.eye(3), (0.0005, 0.2, 0.2), person=person)


def seen(*scene, joints=JOINT, depth=SKIN + 1e-3):
    depths = np.full(len(joints), depth)
    found = casting.visible_joints(LEVEL, solids.join(flesh(), *scene), joints, depths, 1)
    return bool(found[0]) if len(found) == 1 else found.tolist()


def test_flesh_around_a_joint_does_not_hide_it():
    assert seen() and seen(depth=SKIN)
    assert not seen(depth=SKIN - 1e-3)


def test_a_plate_hides_what_is_behind_it():
    assert not seen(plate(1, 0)) and not seen(plate(1, 0, person=2))
    assert not seen(plate(2 - SKIN - 0.01, 0))  # 1 cm before the skin
    assert not seen(plate(2 - SKIN - 0.01, 0), depth=0.2)  # it is not the person's own flesh
    assert seen(plate(2.5, 0))
    assert casting.visible_joints(LEVEL, plate(2.1, 0), JOINT, [0.0], 1).all()


def test_the_edge_of_a_plate_decides():
    assert not seen(plate(1, 0.2 - 1e-6)) and not seen(plate(1, -0.2 + 1e-6))
    assert seen(plate(1, 0.2 + 1e-6)) and seen(plate(1, -0.2 - 1e-6))


def test_what_lies_within_its_flesh_does_not_hide_a_joint():
    assert seen(plate(2 - SKIN + 0.01, 0))  # behind the skin, before the joint
    assert not seen(plate(2 - SKIN - 1e-3, 0))


def test_own_body_in_front_hides():
    trunk = solids.cone((2, 0, 0.5), (2, 0, 1.3), 0.12, 0.1)._replace(person_p=np.array([1]))
    behind, before = (2.3, 0, 1), (1.7, 0, 1)
    wrists = solids.join(trunk, flesh(behind, 0.03), flesh(before, 0.03))
    # Each on its own, since the wrist in front hides the one behind too.
    for wrist, expected in ((behind, False), (before, True)):
        scene = solids.join(trunk, flesh(wrist, 0.03))
        found = casting.visible_joints(LEVEL, scene, np.array([wrist]), [0.035], 1)
        assert found.tolist() == [expected]
    found = casting.visible_joints(LEVEL, wrists, np.array([behind, before]), [0.035, 0.035], 1)
    assert found.tolist() == [False, True]


def test_of_a_pelvis_from_the_side_only_the_near_hip_is_seen():
    pelvis = flesh((2, 0, 1), 0.12)
    hips = np.array([(1.95, 0, 1), (2.05, 0, 1)])  # 0.07 and 0.17 m behind the skin
    found = casting.visible_joints(LEVEL, pelvis, hips, [0.08, 0.08], 1)
    assert found.tolist() == [True, False]


def test_the_depth_of_flesh_counts_along_a_slanted_ray_in_metres():
    """At 45 degrees depth and way differ by sqrt 2; the skin is 0.05 m along the ray."""
    joint, camera = np.array([(1.0, 1.0, 1.0)]), LEVEL
    ball = flesh(joint[0])
    assert casting.visible_joints(camera, ball, joint, [0.0501], 1).all()
    assert not casting.visible_joints(camera, ball, joint, [0.0499], 1).any()


def test_a_room_hides_nobody_inside_it():
    room = solids.make(ROOM, (0, 0, 1), np.eye(3), (3, 3, 1.2))
    assert seen(room)
    assert casting.visible_joints(LEVEL, room, JOINT, [0.0], 1).all()


def test_first_hits_measure_the_way_to_the_point():
    scene = solids.join(plate(1, 0), plate(3, 0))
    points = [(2, 0, 1), (0.5, 0, 1), (2, 3, 1), (-2, 0, 1)]
    fraction, solid = casting.first_hits(LEVEL.position_3, points, scene)
    np.testing.assert_allclose(fraction, (0.9995 / 2, 0.9995 / 0.5, np.inf, np.inf))
    assert solid.tolist() == [0, 0, -1, -1]


def test_keypoints_know_the_edges_of_the_picture():
    """Focal 100 and depth 2 m: 1 m is 50 px, and the last pixels are 100 and 80."""
    joints = np.array([
        (2, 0, 1), (2, -1, 1.8), (2, -1.0001, 1), (2, 1, 0.2), (2, 1.0001, 1), (2, 0, 1.8001),
        (2, 0, 0.1999), (-2, 0, 1), (0, 0, 1.5), (2, 0.5, 1.25),
    ])  # fmt: skip
    scene = solids.make(BOX, (1, 0.25, 1.125), np.eye(3), (0.01, 0.05, 0.05))
    got = casting.keypoints(LEVEL, scene, joints, np.zeros(len(joints)), 1)
    want = np.zeros((len(joints), 3))
    want[0], want[1], want[3], want[9] = (50, 40, 2), (100, 0, 2), (0, 80, 2), (25, 27.5, 1)
    np.testing.assert_allclose(got, want, atol=1e-9)
