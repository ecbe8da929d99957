"""The solids of a body: joints inside, and seen from where they should be."""

import numpy as np
import pytest

from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, scenes, solids
from nkjax.toddlersim.people import bodies, flesh, poses
from nkjax.toddlersim.people.poses import Arm, Hand, Leg, Pose

NAMES = scenes.KEYPOINTS
RELAXED = Hand(np.tile([10.0, 15, 5], (4, 1)), np.array([40.0, 35, 10, 10]))
KINDS = ("toddler", "adult")


def body_of(kind, seed=0):
    rng = np.random.default_rng(seed)
    return bodies.draw(rng, kind, 18 if kind == "toddler" else 400, False)


def standing(abduction=40.0, elbow=20.0):
    # Palms to the front, so that no finger hides another.
    arm = Arm(np.array([5.0, abduction, 0]), elbow, np.array([-80.0, 0, 0]), RELAXED)
    leg = Leg(np.array([0.0, 8, 5]), 3.0, np.zeros(3))
    three = np.zeros(3)
    return Pose(np.array([0, 0, 0.5]), np.eye(3), three, three, np.zeros(2), (arm, arm), (leg, leg))


def inside(points_n3, made):
    """Tell which solids (n, p) hold which points, from the definitions of solids.py alone."""
    found = []
    for kind, centre, frame, size in zip(*made[:4], strict=True):
        own = (points_n3 - centre) @ frame.T
        if kind == solids.BALL:
            found.append(((own / size) ** 2).sum(1) <= 1)
            continue
        t = np.linspace(0, 1, 200)
        gap = np.linalg.norm(own[:, None] - np.outer(t, (size[0], 0, 0)), axis=-1)
        found.append((gap <= size[1] + t * (size[2] - size[1])).any(1))
    return np.stack(found, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_joint_is_inside_the_flesh_of_its_own_part_and_side(kind):
    for seed in range(5):
        body = body_of(kind, seed)
        figure = poses.pose_body(body, standing())
        made = flesh.solids_of(body, figure)
        points = np.stack([figure.joints[name] for name in NAMES])
        holds = inside(points, made)
        for name, row in zip(NAMES, holds, strict=True):
            segments = {solids.SEGMENTS[s] for s in made.segment_p[row]}
            assert segments, name
            other = {"left": "right", "right": "left"}.get(name.split("_")[0], "nobody")
            sided = {s for s in segments if s.startswith(("left", "right"))}
            assert not any(s.startswith(other) for s in sided), (name, segments)
            part = name.split("_")[-1].rstrip("1234")
            if part in ("finger", "forefinger", "thumb"):
                assert name.split("_")[0] + "_hand" in sided, (name, segments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_has_about_sixty_solids_and_stands_as_tall_as_it_is(kind):
    body = body_of(kind)._replace(hair=0.0)
    figure = poses.pose_body(body, standing())
    made = flesh.solids_of(body, figure)
    assert 50 <= len(made.kind_p) <= 80
    low, high = body.stature / 4, body.stature
    grid = np.stack([np.zeros(400), np.zeros(400), np.linspace(0.5 - high, 0.5 + high, 400)], 1)
    head = grid[inside(grid, made).any(1)][-1, 2]
    sole = figure.joints["left_ankle"][2] - body.foot_height
    assert head - sole == pytest.approx(body.stature, abs=0.03 * body.stature)
    assert low < figure.joints["left_hip"][2] - sole < high


def seen(kind, azimuth, elevation=5.0):
    """Return the keypoints of a standing person from an azimuth: 0 front, 90 its left side."""
    body = body_of(kind)
    figure = poses.pose_body(body, standing())
    made = flesh.solids_of(body, figure)
    made = made._replace(person_p=np.full(len(made.kind_p), solids.TARGET))
    a, e = np.radians((azimuth, elevation))
    middle, far = figure.joints["waist"], 3 * body.stature
    way = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    camera = cameras.look_at(middle + far * way, middle, 900, (384, 512))
    joints = np.stack([figure.joints[name] for name in NAMES])
    points = casting.keypoints(camera, made, joints, flesh.flesh_before(body, NAMES), solids.TARGET)
    return dict(zip(NAMES, points, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_front_the_left_hand_is_on_the_right_of_the_picture_and_all_is_seen(kind):
    points = seen(kind, 0)
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe"):
        assert points[f"left_{part}"][0] > points[f"right_{part}"][0], part
    hidden = [name for name in NAMES[:17] if points[name][2] != 2]
    assert not hidden
    fingers = [points[name][2] for name in NAMES if "finger" in name or "thumb" in name]
    assert np.mean(np.array(fingers) == 2) > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_from_behind_the_face_is_hidden_and_the_left_hand_is_on_the_left(kind):
    points = seen(kind, 180)
    assert all(points[name][2] == 1 for name in ("nose", "left_eye", "right_eye"))
    for part in ("shoulder", "wrist", "hip", "ankle"):
        assert points[f"left_{part}"][0] < points[f"right_{part}"][0], part
        assert points[f"left_{part}"][2] == points[f"right_{part}"][2] == 2, part


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_left_the_far_side_is_hidden(kind):
    points = seen(kind, 90, 0)
    for part in ("ear", "eye", "shoulder", "hip", "wrist"):
        assert points[f"left_{part}"][2] == 2, part
        assert points[f"right_{part}"][2] == 1, part
