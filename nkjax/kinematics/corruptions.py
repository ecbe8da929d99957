"""Plant known mistakes in labelled poses, to see whether a plausibility or a prior notices them.

Points (N, K, 2) in px, NaN where not labelled, go in; a copy comes out in which every person that
can carry the mistake has one. A mistake that leaves a possible pose (a bone that points at the
camera made longer, a straight knee reversed) tells nothing: such people are not used, by the rule
that each function states. Which limb is hit depends on the seed alone.
"""

from typing import NamedTuple

import numpy as np

from nkjax.kinematics import limbs, scale
from nkjax.skeleton import Skeleton

BONES = ("upper_arm", "forearm", "thigh", "shank")
SIDES = ("left", "right")
STRETCH = 1.8
# A bone shorter than this share of its usual length, at the person's size, is foreshortened so much
# that 1.8 times as long it is still no longer than bones near the camera may look.
LEAST_SHARE = 0.75
LEAST_BEND = np.radians(30.0)  # of a knee, against straight
# A pair is seen from the front or from behind where it is at least so wide, against its usual
# width; its limbs lie apart where they are as far from each other in the same direction.
LEAST_WIDTH = 0.6


class Corrupted(NamedTuple):
    """Points with a mistake (N, K, 2) px, who has one (N,), which joints it moved (N, K)."""

    points_nk2: np.ndarray
    usable_n: np.ndarray
    moved_nk: np.ndarray


def stretched_bone(
    points_nk2, skeleton: Skeleton, seed: int, bones=BONES, factor: float = STRETCH
) -> Corrupted:
    """Make one bone `factor` times as long about its proximal joint; what hangs on it moves along.

    bones: of BONES, those to choose from, left or right. Used: a bone of at least LEAST_SHARE of
    its usual length, which is the set's for that bone at the person's size (`kinematics.scale`).
    """
    body = _Body(points_nk2, skeleton)
    wanted = [f"{side}_{bone}" for bone in bones for side in SIDES]
    can = np.stack([body.shares[name] >= LEAST_SHARE for name in wanted], 1)
    return _planted(body.points, can, seed, [_stretch(body.beyond(n), factor) for n in wanted])


def reversed_knee(points_nk2, skeleton: Skeleton, seed: int) -> Corrupted:
    """Mirror one shank, with its foot, about the line of the thigh.

    Used: a knee bent by at least LEAST_BEND as seen, of whose bones neither is foreshortened
    (LEAST_SHARE): less is within what straight legs and labels do.
    """
    body = _Body(points_nk2, skeleton)
    can = [body.in_plane(f"{s}_thigh", f"{s}_shank") & (body.bend(s) >= LEAST_BEND) for s in SIDES]
    changes = [_reverse(body.beyond(f"{s}_thigh")) for s in SIDES]
    return _planted(body.points, np.stack(can, 1), seed, changes)


def swapped_sides(points_nk2, skeleton: Skeleton, seed: int) -> Corrupted:
    """Exchange left and right: elbows and wrists with their hands, or knees, ankles and feet.

    Used: a person seen so much from the front or from behind that the shoulders (hips) are at
    least LEAST_WIDTH of their usual width apart, whose elbows and wrists (knees and ankles) each
    lie as far apart in the same direction. Seen from the side either leg may be in front.
    """
    body = _Body(points_nk2, skeleton)
    can, changes = [], []
    for line, upper, lower in (
        ("shoulder_line", "upper_arm", "forearm"),
        ("hip_line", "thigh", "shank"),
    ):
        across = body.way(line)
        width = np.hypot(*across.T)
        ends = [[body.bones[f"{s}_{bone}"].b for s in SIDES] for bone in (upper, lower)]
        apart = [
            ((body.points[:, right] - body.points[:, left]) * across).sum(-1) / width
            for left, right in ends
        ]
        usual = width / body.shares[line]
        can.append(np.minimum(width, np.minimum(*apart)) >= LEAST_WIDTH * usual)
        limb = [joint for s in SIDES for joint in body.beyond(f"{s}_{upper}")[1:]]
        changes.append(_exchange(limb, skeleton.flip_indices))
    return _planted(body.points, np.stack(can, 1), seed, changes)


def collapsed_arm(points_nk2, skeleton: Skeleton, seed: int) -> Corrupted:
    """Put elbow and wrist of one arm on its shoulder; the hand moves along with the wrist.

    Used: an arm of which neither bone is foreshortened (LEAST_SHARE).
    """
    body = _Body(points_nk2, skeleton)
    can = [body.in_plane(f"{s}_upper_arm", f"{s}_forearm") for s in SIDES]
    changes = [
        _collapse(body.bones[f"{s}_upper_arm"].a, body.beyond(f"{s}_forearm")) for s in SIDES
    ]
    return _planted(body.points, np.stack(can, 1), seed, changes)


# What a plausibility must reject, by name.
ALL = {
    "stretched_bone": stretched_bone,
    "reversed_knee": reversed_knee,
    "swapped_sides": swapped_sides,
    "collapsed_arm": collapsed_arm,
}


class _Body:
    """The bones of some people: who they are, and how long against what is usual."""

    def __init__(self, points_nk2, skeleton: Skeleton):
        self.points = np.array(points_nk2, np.float64)
        self.skeleton = skeleton
        bones = [bone for bone in limbs.bones(skeleton) if bone.part == "body"]
        self.bones = {bone.name: bone for bone in bones}
        needed = [*(f"{s}_{bone}" for bone in BONES for s in SIDES), "shoulder_line", "hip_line"]
        absent = [name for name in needed if name not in self.bones]
        if absent:
            raise ValueError(
                f"skeleton {skeleton.name!r} has no {absent[0]}: mistakes are planted in arms and "
                "legs; use a skeleton with shoulders, elbows, wrists, hips, knees and ankles"
            )
        lengths = np.stack([np.hypot(*self.way(name).T) for name in self.bones], 1)
        logs = np.log(np.where(lengths > 0, lengths, np.nan))
        usual = scale.usual_lengths(logs)
        size = np.asarray(scale.person_scale(logs, usual))
        shares = np.exp(logs - usual[None] - size[:, None])
        self.shares = dict(zip(self.bones, shares.T, strict=True))

    def way(self, bone):
        """Return from where to where a bone leads, px (N, 2)."""
        return self.points[:, self.bones[bone].b] - self.points[:, self.bones[bone].a]

    def in_plane(self, *bones):
        """Tell who shows bones that are not foreshortened; NaN compares as false."""
        return np.all([self.shares[bone] >= LEAST_SHARE for bone in bones], 0)

    def bend(self, side):
        """Return by how much a knee is bent as seen, rad (N,): 0 straight."""
        thigh, shank = self.way(f"{side}_thigh"), self.way(f"{side}_shank")
        cross = thigh[:, 0] * shank[:, 1] - thigh[:, 1] * shank[:, 0]
        return np.abs(np.arctan2(cross, (thigh * shank).sum(-1)))

    def beyond(self, bone) -> list[int]:
        """Return the two ends of a bone and then the joints beyond; a hand hangs on its wrist."""
        hands = [
            (self.bones[f"{side}_forearm"].b, joint)
            for side in SIDES
            for joint in self.skeleton.groups[f"{side}_hand"]
        ]
        links = [*((b.a, b.b) for b in limbs.bones(self.skeleton)), *hands]
        found = [self.bones[bone].a, self.bones[bone].b]
        border = found[1:]
        while border:
            here = border.pop()
            new = {i for link in links if here in link for i in link} - {*found}
            found += sorted(new)
            border += sorted(new)
        return found


def _planted(points, can_nc, seed, changes) -> Corrupted:
    """Make of each person's possible changes one, drawn evenly."""
    draws = np.random.default_rng(seed).uniform(size=can_nc.shape)
    chosen = np.where(can_nc, draws, -1).argmax(1)
    usable = can_nc.any(1)
    corrupted = points.copy()
    for number, change in enumerate(changes):
        who = usable & (chosen == number)
        corrupted[who] = change(points[who])
    same = (corrupted == points) | (np.isnan(corrupted) & np.isnan(points))
    return Corrupted(corrupted.astype(np.float32), usable, ~same.all(-1))


def _stretch(beyond, factor):
    a, b, *_ = beyond

    def change(points):
        further = (factor - 1) * (points[:, b] - points[:, a])
        return _moved(points, beyond[1:], points[:, beyond[1:]] + further[:, None])

    return change


def _reverse(beyond):
    hip, knee, *hanging = beyond

    def change(points):
        thigh = points[:, knee] - points[:, hip]
        way = (thigh / np.hypot(*thigh.T)[:, None])[:, None]
        shank = points[:, hanging] - points[:, [knee]]
        mirrored = 2 * (shank * way).sum(-1, keepdims=True) * way - shank
        return _moved(points, hanging, points[:, [knee]] + mirrored)

    return change


def _exchange(joints, flip):
    return lambda points: _moved(points, joints, points[:, [flip[i] for i in joints]])


def _collapse(shoulder, forearm):
    elbow, wrist, *_ = forearm

    def change(points):
        to = points[:, [shoulder]] - points[:, [wrist]]
        points = _moved(points, forearm[1:], points[:, forearm[1:]] + to)
        return _moved(points, [elbow], points[:, [shoulder]])

    return change


def _moved(points, joints, to):
    points = points.copy()
    points[:, joints] = to
    return points
