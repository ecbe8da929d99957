"""Measures of people on their feet, from joints and flesh rather than from what was asked for."""

import functools
import itertools

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, flesh, poses, stance

COUNT = 200
SIDES = ("left", "right")
BODIES = 200
BONES = (
    ("upper_arm", "shoulder", "elbow"), ("forearm", "elbow", "wrist"), ("thigh", "hip", "knee"),
    ("shank", "knee", "ankle"),
)  # fmt: skip


@functools.cache
def draws(posture, kind, seed=0):
    """Return COUNT of (body, act, figure), of BODIES different people."""
    rng = np.random.default_rng(seed)
    ages = (10, 34) if kind == "toddler" else (240, 480)
    people = [bodies.draw(rng, kind, rng.uniform(*ages), bool(i % 2)) for i in range(BODIES)]
    found = []
    for body, _ in zip(itertools.cycle(people), range(COUNT), strict=False):
        act = posture(rng, body)
        found.append((body, act, poses.pose_body(body, act.pose)))
    return found


def step_ratio(body, figure):
    """Distance of the ankles across the pelvis's forward way, over that of the hips; signed."""
    ahead = figure.frames["pelvis"][:2, 0] / np.linalg.norm(figure.frames["pelvis"][:2, 0])
    way = (figure.joints["left_ankle"] - figure.joints["right_ankle"])[:2]
    return (ahead[0] * way[1] - ahead[1] * way[0]) / body.hips


def arm_of(figure, side):
    """Shoulder, elbow and wrist of a side."""
    return [figure.joints[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist")]


def soles(body, figure):
    """Heights of the skin below heel, big toe and small toe, metres: (2 sides, 3)."""
    return np.array([[figure.joints[f"{side}_{part}"][2] - 0.35 * body.foot_height
                      for part in ("heel", "big_toe", "small_toe")] for side in SIDES])  # fmt: skip


def lowest(some):
    """Height of the lowest point of each solid but boxes, metres."""
    turned, size = some.frame_p33, some.size_p3
    ends = some.centre_p3[:, 2] + turned[:, 0, 2] * size[:, 0]
    cones = np.minimum(some.centre_p3[:, 2] - size[:, 1], ends - size[:, 2])
    balls = some.centre_p3[:, 2] - np.linalg.norm(turned[:, :, 2] * size, axis=1)
    return np.where(some.kind_p == solids.CONE, cones, balls)


def lowest_of(body, figure, segment):
    """Height of the lowest flesh of a segment, metres."""
    some = flesh.solids_of(body, figure)
    return lowest(some)[some.segment_p == solids.SEGMENTS.index(segment)].min()


def in_boxes(points_n3, things):
    """How deep each point is in the boxes, metres; negative outside."""
    own = np.einsum("pij,pnj->pni", things.frame_p33, points_n3[None] - things.centre_p3[:, None])
    return (things.size_p3[:, None] - np.abs(own)).min(-1).max(0)


def assert_anatomy(found):
    """Bones keep their lengths, knees and elbows bend one way, feet point about to the front."""
    for body, _, figure in found:
        joints, frames = figure.joints, figure.frames
        for i, side in enumerate(SIDES):
            for bone, a, b in BONES:
                length = np.linalg.norm(joints[f"{side}_{a}"] - joints[f"{side}_{b}"])
                assert abs(length - getattr(body, bone)[i]) < 1e-12
            hip, knee, ankle = (joints[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
            line = (ankle - hip) / np.linalg.norm(ankle - hip)
            before = (knee - hip) - ((knee - hip) @ line) * line
            assert before @ frames[f"{side}_thigh"][:, 0] > 0
            _, elbow, wrist = arm_of(figure, side)
            assert (wrist - elbow) @ frames[f"{side}_upper_arm"][:, 0] > -1e-9
            # A knee and its foot face the same way, whatever the hip does.
            toe, heel = joints[f"{side}_big_toe"], joints[f"{side}_heel"]
            assert (toe - heel) @ frames[f"{side}_shank"][:, 0] > 0.1 * body.foot[i]
        apart = np.linalg.norm(joints["left_hip"] - joints["right_hip"])
        assert abs(apart - body.hips) < 1e-12


def assert_sound(posture, found):
    """Assert anatomy, contact with the floor, name, range of motion, and no part inside another."""
    assert_anatomy(found)
    assert_on_floor(found)
    for body, act, figure in found:
        assert act.posture == posture.__name__
        assert not acts.beyond_range(act.pose)
        assert not acts.overlaps(body, figure)


def assert_on_floor(found, slack=0.012):
    """Nothing is below the floor by more than skin gives way, and something is on it."""
    for body, _, figure in found:
        low = lowest(flesh.solids_of(body, figure)).min()
        assert -slack - 1e-3 < low < 0.005


def assert_symmetric(found):
    """Left and right are alike in distribution: means mirror within 4 standard errors."""
    rows = []
    for body, act, _ in found:
        pose = act.pose
        sides = [np.concatenate([arm.shoulder_3[:2], [arm.elbow], arm.wrist_3, leg.hip_3,
                                 [leg.knee], leg.ankle_3, np.ravel(arm.hand.fingers_43)])
                 for arm, leg in zip(pose.arms, pose.legs, strict=True)]  # fmt: skip
        middle = [*pose.spine_3[1:], *pose.neck_3[1:], pose.place_3[1] / body.stature]
        rows.append(np.concatenate([sides[0] - sides[1], middle, pose.turn_33[1, [0, 2]]]))
    rows = np.array(rows)
    error = rows.std(0) / np.sqrt(len(rows))
    assert (np.abs(rows.mean(0)) <= 4 * error + 1e-12).all(), np.abs(rows.mean(0)) / error


JOINTS = ["head", *(f"{side}_{part}" for side in SIDES for part in
          ("shoulder", "elbow", "wrist", "middle_finger4", "hip", "knee", "ankle"))]  # fmt: skip


def assert_varied(found):
    """No two draws are alike: nearest poses differ by more than 1 % of stature per joint."""
    rows = [[(figure.joints[name] - figure.joints["pelvis"]) / body.stature for name in JOINTS]
            for body, _, figure in found]  # fmt: skip
    rows = np.array(rows)
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1).mean(-1)
    assert apart[~np.eye(len(rows), dtype=bool)].min() > 0.01


def assert_deterministic(posture, kind):
    """The same generator state gives the same act, to the byte, and leaves the same state."""
    body = bodies.draw(np.random.default_rng(3), kind, 20, False)
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    one, other = posture(first, body), posture(second, body)
    assert flat(one) == flat(other)
    assert first.bit_generator.state == second.bit_generator.state
    assert flat(posture(first, body)) != flat(one)


def assert_seldom_refused(posture, kind, monkeypatch, count=60):
    """Fewer than 60 % of the draws are not sound."""
    drawn, first_sound = [], stance.first_sound

    def listening(body, draw):
        return first_sound(body, lambda: drawn.append(posture) or draw())

    monkeypatch.setattr(stance, "first_sound", listening)
    rng = np.random.default_rng(1)
    for _ in range(count):
        posture(rng, bodies.draw(rng, kind, rng.uniform(10, 34), False))
    assert count <= len(drawn) < count / 0.4


def flat(thing):
    """Return all numbers of nested tuples as bytes."""
    if isinstance(thing, tuple):
        return b"".join(flat(part) for part in thing)
    if isinstance(thing, str):
        return thing.encode()
    return b"" if thing is None else np.asarray(thing).tobytes()
