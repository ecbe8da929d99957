"""Count what bones and joints do in labelled poses and in samples of a prior, to compare them.

In: poses of a `coordinates.Part` in any unit, labelled ones and samples; p-values of people. Out:
plain counts per bin. Left and right are counted together, turns of the right with their sign
reversed. Lengths and angles are projected: of the picture, not of the body.
"""

import re
from typing import NamedTuple

import numpy as np

from nkjax.kinematics import limbs, scale
from nkjax.prior.coordinates import Part
from nkjax.skeleton import Skeleton

BINS = 30
ANGLE_EDGES = np.linspace(-180.0, 180.0, 25)  # degrees
P_EDGES = np.linspace(0.0, 1.0, 21)
REJECTED = 0.05
LONGEST, BEYOND = 0.995, 1.25  # the last bin of a bone ends so far beyond this quantile of it


class Poses(NamedTuple):
    """B poses of a part: points (B, J, 2), read only where valid_bj; one unit for each pose."""

    points_bj2: np.ndarray
    valid_bj: np.ndarray


class Histogram(NamedTuple):
    """How many labelled values and how many of samples fall between edges (E + 1).

    Values beyond the edges are counted in the outermost bins, so that none is lost.
    """

    name: str
    edges: np.ndarray
    labelled: np.ndarray
    samples: np.ndarray


class Rejections(NamedTuple):
    """The p-values of the people of a posture: counts per bin of P_EDGES, and p < REJECTED."""

    posture: str
    counts: np.ndarray
    people: int
    rejected: int


def lengths(part: Part, skeleton: Skeleton, labelled: Poses, samples: Poses) -> list[Histogram]:
    """Count lengths of bones relative to the person (`scale.person_scale`), a histogram per bone.

    What is usual is read off the labelled poses alone; bones that nobody has are left out.
    """
    bones = limbs.bones(skeleton)
    both = [_logs(part, skeleton, poses, bones) for poses in (labelled, samples)]
    usual = scale.usual_lengths(np.where(_tell_scale(bones, both[0])[None], both[0], np.nan))
    # A person all of whose bones coincide has no size, and a bone of no length no logarithm.
    relative = [np.exp(logs - scale.person_scale(logs, usual)[:, None]) for logs in both]
    found = []
    for i, bone in enumerate(bones):
        columns = [i, bone.mirror] if i < bone.mirror else [i]
        values = [known(lengths[:, columns]) for lengths in relative]
        if i <= bone.mirror and len(values[0]):
            longest = BEYOND * np.quantile(values[0], LONGEST)
            edges = np.linspace(0.0, longest, BINS + 1)
            found.append(Histogram(plain(bone.name), edges, *(count(v, edges) for v in values)))
    return found


def angles(
    part: Part, skeleton: Skeleton, labelled: Poses, samples: Poses
) -> dict[str, list[Histogram]]:
    """Count projected turns at joints in degrees: {how the body is held: a histogram per joint}.

    Bodies are sorted by `limbs.posture_cluster`, hands are not. Angles that nobody has are left
    out; every list has the same ones in the same order. Bodies held nobody knows how count only
    where that is so of all.
    """
    of = limbs.angles(skeleton)
    both = [_whole(part, skeleton, poses) for poses in (labelled, samples)]
    turns = [np.degrees(limbs.turns(*whole, of)) for whole in both]
    held = [["hand"] * len(points) for points, _ in both]
    if part.name == "body":
        held = [np.array(limbs.CLUSTERS)[limbs.posture_cluster(*w, skeleton)] for w in both]
    held = [np.array(h, str) for h in held]
    there = [name for name in ("hand", *limbs.CLUSTERS) if (held[0] == name).any()]
    names = [name for name in there if name != "unknown"] or there
    found = {name: [] for name in names}
    for i, angle in enumerate(of):
        columns = [i, angle.mirror] if i < angle.mirror else [i]
        signs = np.array([1.0, -1.0])[: len(columns)]
        if i > angle.mirror or not len(known(turns[0][:, columns])):
            continue
        for name in names:
            values = [known(t[h == name][:, columns] * signs[None]) for t, h in
                      zip(turns, held, strict=True)]  # fmt: skip
            counts = (count(v, ANGLE_EDGES) for v in values)
            found[name].append(Histogram(plain(angle.name), ANGLE_EDGES, *counts))
    return found


def rejections(p_n, posture_n) -> list[Rejections]:
    """Count p-values per posture, the most frequent first; '' is called 'not labelled'.

    People without a p-value (NaN) are not counted. Everybody together comes first.
    """
    p, posture = np.asarray(p_n, np.float64), np.asarray(posture_n, str)
    p, posture = p[np.isfinite(p)], posture[np.isfinite(p)]
    names, counts = np.unique(posture, return_counts=True)
    ordered = names[np.lexsort((names, -counts))]
    groups = [("everybody", p), *((name or "not labelled", p[posture == name]) for name in ordered)]
    return [
        Rejections(str(name).replace("_", " "), count(values, P_EDGES), len(values),
                   int((values < REJECTED).sum()))
        for name, values in groups
    ]  # fmt: skip


def count(values_n, edges) -> np.ndarray:
    """Count values between edges; those beyond are counted in the outermost bins."""
    return np.histogram(np.clip(values_n, edges[0], edges[-1]), edges)[0]


def known(values) -> np.ndarray:
    """Return the values that are not NaN, as one list."""
    values = np.asarray(values).ravel()
    return values[np.isfinite(values)]


def plain(name: str) -> str:
    """Return the name of a bone or an angle without sides and underscores."""
    return re.sub(r"(?i)\b(left|right)[_ -]?", "", name).replace("_", " ").replace(":", ": ")


def _whole(part, skeleton, poses):
    """Return points (B, K, 2) of all joints of the skeleton, NaN but in the part; and validity."""
    shape = (len(poses.points_bj2), len(skeleton.keypoints))
    points, valid = np.full((*shape, 2), np.nan), np.zeros(shape, bool)
    points[:, list(part.joints)] = poses.points_bj2
    valid[:, list(part.joints)] = poses.valid_bj
    return points, valid


def _logs(part, skeleton, poses, bones):
    return limbs.log_lengths(*_whole(part, skeleton, poses), bones)


def _tell_scale(bones, logs_nb):
    """Choose the bones that tell a person's scale: of the body, as in statistics; else all."""
    of_body = np.array([bone.part == "body" for bone in bones], bool)
    there = np.isfinite(logs_nb).any(0)
    return of_body if (of_body & there).sum() >= scale.FEWEST_BONES else there
