"""Measures posed bodies in ways of their own: balls along cones, points all over ellipsoids."""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, flesh, poses

T = np.linspace(0, 1, 60)
_GRID = np.random.default_rng(0).normal(size=(1500, 3))
ROUND = _GRID / np.linalg.norm(_GRID, axis=1, keepdims=True)
_UP = 1 - (2 * np.arange(2000) + 1) / 2000
_TURN = np.arange(2000) * np.pi * (3 - np.sqrt(5))  # evenly, by the golden angle
EVEN = np.stack([np.sqrt(1 - _UP**2) * np.cos(_TURN), np.sqrt(1 - _UP**2) * np.sin(_TURN), _UP], 1)


def some_bodies(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    return [bodies.draw(rng, kind, rng.uniform(10, 34), bool(i % 2)) for i in range(count)]


def draws(draw, count=200, seed=1):
    """Draw acts over and over: list of (body, act, figure)."""
    rng, people, found = np.random.default_rng(seed), some_bodies("toddler", count), []
    for body in people:
        act = draw(rng, body)
        found.append((body, act, poses.pose_body(body, act.pose)))
    return found


def distance(points, things):
    """Distance of points (n, 3) to the nearest solid's surface, metres, negative within."""
    points, best = np.asarray(points, float).reshape(-1, 3), []
    for kind, centre, frame, size in zip(*things[:4], strict=True):
        own = (points - centre) @ frame.T
        if kind == solids.CONE:
            off = np.linalg.norm(own[:, 1:], axis=1)[:, None]
            apart = np.sqrt((own[:, :1] - T * size[0]) ** 2 + off**2)
            best.append((apart - (size[1] + T * (size[2] - size[1]))).min(1))
        elif kind == solids.BALL:
            surface = EVEN * size
            # |a - b|^2 as one matrix product: there are millions of pairs.
            apart2 = (surface**2).sum(1) - 2 * own @ surface.T
            apart = np.sqrt(np.maximum(apart2.min(1) + (own**2).sum(1), 0))
            best.append(np.where(np.linalg.norm(own / size, axis=1) < 1, -apart, apart))
        else:
            off = np.abs(own) - size
            best.append(np.linalg.norm(np.maximum(off, 0), axis=1) + np.minimum(off.max(1), 0))
    return np.min(best, 0)


def chosen(body, figure, *names):
    """The solids of these segments, named without side or with it."""
    made = flesh.solids_of(body, figure)
    own = np.array(solids.SEGMENTS)[made.segment_p]
    bare = [name.replace("left_", "").replace("right_", "") for name in own]
    keep = [a in names or b in names for a, b in zip(own, bare, strict=True)]
    return solids.Solids(*(field[keep] for field in made))


def lowest(things):
    """Height of the lowest point of solids, metres."""
    low = []
    for kind, centre, frame, size in zip(*things[:4], strict=True):
        if kind == solids.CONE:
            balls = centre[2] + T * size[0] * frame[0, 2] - (size[1] + T * (size[2] - size[1]))
            low.append(balls.min())
        elif kind == solids.BALL:
            low.append((centre + (ROUND * size) @ frame)[:, 2].min())
        else:
            corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T * size
            low.append((centre + corners @ frame)[:, 2].min())
    return min(low)


def knee_bend(figure, side):
    """Flexion of a knee from the places of the joints, degrees; negative where it is backwards."""
    hip, knee, ankle = (figure.joints[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
    thigh, shank = (knee - hip), (ankle - knee)
    hinge = figure.frames[f"{side}_thigh"][:, 1]
    return float(np.degrees(np.arctan2(np.cross(thigh, shank) @ hinge, thigh @ shank)))


def bones_keep_their_length(body, figure):
    at = figure.joints
    for i, side in enumerate(("left", "right")):
        for a, b, long in (
            ("hip", "knee", body.thigh), ("knee", "ankle", body.shank),
            ("shoulder", "elbow", body.upper_arm), ("elbow", "wrist", body.forearm),
        ):  # fmt: skip
            found = np.linalg.norm(at[f"{side}_{a}"] - at[f"{side}_{b}"])
            assert abs(found - long[i]) < 1e-12, (side, a)
        toe = np.linalg.norm(at[f"{side}_big_toe"] - at[f"{side}_ankle"])
        assert abs(toe - np.linalg.norm(poses.foot_points(body, i)["big_toe"])) < 1e-12


def angles(pose):
    """All angles of a pose: of the middle (to the left positive), left limbs, right limbs."""
    middle = np.array([pose.spine_3[1], pose.spine_3[2], pose.neck_3[1], pose.neck_3[2]])
    sides = []
    for arm, leg in zip(pose.arms, pose.legs, strict=True):
        three = [arm.shoulder_3, [arm.elbow], arm.wrist_3, leg.hip_3, [leg.knee], leg.ankle_3,
                 arm.hand.fingers_43.ravel(), arm.hand.thumb_4]  # fmt: skip
        sides.append(np.concatenate(three))
    return middle, *sides


def assert_mirrored(acts):
    """Left and right differ by chance alone: means within 4 standard errors."""
    middle, left, right = (np.array(part) for part in zip(*[angles(a.pose) for a in acts],
                                                          strict=True))  # fmt: skip
    for values in (middle, np.sin(np.radians(left)) - np.sin(np.radians(right)),
                   np.cos(np.radians(left)) - np.cos(np.radians(right))):  # fmt: skip
        error = values.std(0) / np.sqrt(len(values)) + 1e-9
        worst = np.abs(values.mean(0) / error)
        assert worst.max() < 4, (worst.argmax(), worst.max())


def assert_all_different(acts, least):
    """No two acts are closer than `least` degrees, root mean square over trunk and limbs."""
    rows = np.array([np.concatenate([m, le[:14], r[:14]]) for m, le, r in
                     (angles(a.pose) for a in acts)])  # fmt: skip
    apart = (rows[:, None] - rows[None] + 180) % 360 - 180
    rms = np.sqrt((apart**2).mean(-1)) + 1e3 * np.eye(len(rows))
    assert rms.min() > least, rms.min()
