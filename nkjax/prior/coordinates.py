"""From joints in px to the coordinates of the prior, and back.

A part is a body, or one hand. Its frame has the mid-hip (or wrist) as root and the RMS radius of
its joints as scale, both without gradient: a loss on coordinates must not be lowered by growing the
person. Poses are (B, J, 2); all arithmetic is fp32. Source: notes method 2.1.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.data import crops
from nkjax.prior.people import People
from nkjax.skeleton import Skeleton

FEWEST_FOR_SCALE = 8  # valid joints of a body; with fewer, the box tells the scale
FEWEST_PALM = 3
SCALE_RANGE = (0.15, 0.45)  # of the box's diagonal
HAND_SCALE_RANGE = (0.1, 0.6)
MOST_OF_HEAD = 12  # joints, of which all belong to the body
CONTEXT = 5  # age, whether it is known, forearm (2), whether it is known
MIDDLE_AGE, AGE_SPREAD = 24.0, 12.0  # months that the age is told in units of
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
ARMS = ("left_elbow", "left_wrist", "right_elbow", "right_wrist")
TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
NAMED = skeletons.parse({"name": "named", "keypoints": [*FACE, *ARMS, *TORSO]}, "named")


@dataclasses.dataclass(frozen=True)
class Part:
    """Which joints of a skeleton are a body, or one hand; J of them, in this order.

    joints: their indices in the skeleton, of a hand those of the left one; mirrored: of the same
    joints seen in a mirror; flip: the latter as indices of the part (of a hand: its own order, as a
    right hand becomes a left one). root, fallback, sized: indices of the part of the joints whose
    middle is the root, of those that stand in for it, and whose radius is the scale. limbs: pairs
    within the part.
    """

    name: str
    keypoints: tuple[str, ...]
    joints: tuple[int, ...]
    mirrored: tuple[int, ...]
    flip: tuple[int, ...]
    root: tuple[int, ...]
    fallback: tuple[int, ...]
    sized: tuple[int, ...]
    limbs: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Units:
    """What normalised coordinates are measured in, fitted on labelled people.

    unit: standard deviation of coordinates in radii; box_scale: usual radius as a share of the
    box's diagonal; offset: from the stand-in of the root to the root, in radii.
    """

    unit: float
    box_scale: float
    offset: tuple[float, float]


class Poses(NamedTuple):
    """B poses of one part: points px, NaN where not valid (a hand that was a right one: -x).

    context_bc: age and forearm direction as `CONTEXT` says, 0 where unknown.
    """

    points_bj2: np.ndarray
    valid_bj: np.ndarray
    diagonal_b: np.ndarray
    context_bc: np.ndarray


class Frame(NamedTuple):
    """Where a pose is and how large: root (B, 2) and scale (B,) in px."""

    root_b2: jax.Array
    scale_b: jax.Array


def parts(skeleton: Skeleton) -> dict[str, Part]:
    """Return the parts of a skeleton: 'body', and 'hand' where it has hands.

    Of a head with many joints only nose, eyes and ears count: 68 points would outvote the limbs.
    """
    named = dict(zip(NAMED.keypoints, skeletons.match(skeleton, NAMED), strict=True))
    hands = {*skeleton.groups["left_hand"], *skeleton.groups["right_hand"]}
    head = set(skeleton.groups["head"])
    details = head - {named[name] for name in FACE} if len(head) > MOST_OF_HEAD else set()
    body = tuple(i for i in range(len(skeleton.keypoints)) if i not in hands | details)
    found = {"body": _part("body", skeleton, body, skeleton.flip_indices, named)}
    left = crops.hand_joints(skeleton, "left")
    if len(left) > 2:
        found["hand"] = _part("hand", skeleton, left, crops.hand_joints(skeleton, "right"), named)
    return found


def _part(name, skeleton, joints, mirrored, named) -> Part:
    place = {joint: i for i, joint in enumerate(joints)}
    limbs = tuple((place[a], place[b]) for a, b in skeleton.limbs if a in place and b in place)
    everything = tuple(range(len(joints)))
    keypoints = tuple(skeleton.keypoints[i] for i in joints)
    if name == "hand":
        root = _hand_root(keypoints, limbs, place.get(named["left_wrist"]))
        knuckles = tuple(sorted({j for limb in limbs if root in limb for j in limb}))
        sized = knuckles if len(knuckles) > FEWEST_PALM else everything
        return Part(name, keypoints, joints, mirrored, everything, (root,), (), sized, limbs)
    mirrored = tuple(mirrored[i] for i in joints)
    flip = tuple(place[i] for i in mirrored)

    def pair(what):
        both = (named[f"left_{what}"], named[f"right_{what}"])
        return () if None in both else tuple(place[i] for i in both)

    hips, shoulders = pair("hip"), pair("shoulder")
    return Part(name, keypoints, joints, mirrored, flip, hips, shoulders, everything, limbs)


def _hand_root(keypoints, limbs, wrist) -> int:
    """Return the joint that most limbs meet in, the wrist of hand and arm in all common sets."""
    meetings = np.bincount(np.array(limbs, int).ravel(), minlength=len(keypoints))
    if meetings.max(initial=0) > 2:
        return int(meetings.argmax())
    named = [i for i, name in enumerate(keypoints) if "root" in name.lower()]
    return wrist if wrist is not None else named[0] if named else 0


def take(part: Part, people: People, skeleton: Skeleton) -> tuple[Poses, np.ndarray]:
    """Return the poses of a part, and for each the number of the person it is of.

    Bodies: one per person. Hands: those with six labelled joints or more, the left ones first;
    right hands are mirrored. The diagonal of a hand is that of the box around its joints.
    """
    if part.name == "body":
        points = people.points_nk2[:, list(part.joints)]
        context = _context(people, None, 1, skeleton)
        valid = np.isfinite(points).all(-1)
        everybody = np.arange(len(points))
        return Poses(points, valid, people.diagonal_n.astype(np.float32), context), everybody
    found, whose = [], []
    for side, joints, sign in (("left", part.joints, 1), ("right", part.mirrored, -1)):
        points = people.points_nk2[:, list(joints)] * np.array([sign, 1], np.float32)
        valid = np.isfinite(points).all(-1)
        context = _context(people, side, sign, skeleton)
        good = np.flatnonzero(valid.sum(1) >= crops.FEWEST_HAND_JOINTS)
        found.append(Poses(points[good], valid[good], _diagonal(points[good]), context[good]))
        whose.append(good)
    both = Poses(*(np.concatenate(pair) for pair in zip(*found, strict=True)))
    return both, np.concatenate(whose)


def _diagonal(points_bj2):
    extent = np.nanmax(points_bj2, 1, initial=-np.inf) - np.nanmin(points_bj2, 1, initial=np.inf)
    return np.maximum(np.hypot(extent[:, 0], extent[:, 1]), 1.0).astype(np.float32)


def _context(people: People, side, sign, skeleton: Skeleton):
    context = np.zeros((len(people.age_n), CONTEXT), np.float32)
    known = np.isfinite(people.age_n)
    context[:, 0] = np.where(known, (people.age_n - MIDDLE_AGE) / AGE_SPREAD, 0)
    context[:, 1] = known
    named = dict(zip(NAMED.keypoints, skeletons.match(skeleton, NAMED), strict=True))
    elbow, wrist = named.get(f"{side}_elbow"), named.get(f"{side}_wrist")
    if None not in (elbow, wrist):
        arm = people.points_nk2[:, wrist] - people.points_nk2[:, elbow]
        length = np.hypot(arm[:, 0], arm[:, 1])
        seen = length > 0  # not for NaN either
        way = arm / np.where(seen, length, 1)[:, None] * np.array([sign, 1], np.float32)
        context[:, 2:4] = np.where(seen[:, None], way, 0)
        context[:, 4] = seen
    return context


def fit_units(part: Part, poses: Poses) -> Units:
    """Fit what coordinates are measured in on labelled poses, once for a prior."""
    plain = Units(1.0, 0.3 if part.name == "body" else 0.35, (0.0, 0.0))
    points, valid, diagonal, _ = (np.asarray(array) for array in poses)
    root, scale = (np.asarray(x) for x in frame(part, plain, points, valid, diagonal))
    whole = valid[:, list(part.sized)].all(1) & valid[:, list(part.root)].all(1)
    share = np.median((scale / diagonal)[whole]) if whole.any() else plain.box_scale
    offset = (0.0, 0.0)
    both = valid[:, list(part.root + part.fallback)].all(1)
    if part.fallback and part.root and both.any():
        stand_in = points[both][:, list(part.fallback)].mean(1)
        offset = ((root[both] - stand_in) / scale[both][:, None]).mean(0)
    units = Units(1.0, float(share), (float(offset[0]), float(offset[1])))
    radii = np.asarray(normalise(points, valid, frame(part, units, *poses[:3]), units))[valid]
    return dataclasses.replace(units, unit=float(radii.std()) if radii.size else 1.0)


def frame(part: Part, units: Units, points_bj2, valid_bj, diagonal_b) -> Frame:
    """Return root and scale of poses in px, without gradient.

    Root: the middle of the hips; else of the shoulders, shifted by the usual offset; else of all
    valid joints. Of a hand: its wrist, else the middle. Scale: RMS radius of the valid joints (of a
    hand: of wrist and knuckles) about the root, clipped to a range of the box's diagonal; the box
    tells it alone with fewer than eight valid joints, or no hip. points_bj2, diagonal_b: px of one
    frame; points of joints that are not valid are not read.
    """
    points, valid = jnp.asarray(points_bj2, jnp.float32), jnp.asarray(valid_bj)
    diagonal = jnp.asarray(diagonal_b, jnp.float32)
    points = jax.lax.stop_gradient(jnp.where(valid[..., None], points, 0.0))
    boxed = units.box_scale * diagonal
    root, has_root = _middle(points, valid, part.root)
    shifted, has_stand_in = _middle(points, valid, part.fallback)
    shifted = shifted + boxed[:, None] * jnp.array(units.offset, jnp.float32)[None]
    count = jnp.maximum(valid.sum(1), 1).astype(jnp.float32)
    middle = points.sum(1) / count[:, None]
    stand_in = jnp.where(has_stand_in[:, None], shifted, middle)
    root = jnp.where(has_root[:, None], root, stand_in)

    sized = np.array(part.sized)
    away = jnp.square(points[:, sized] - root[:, None]).sum(-1)
    known = valid[:, sized]
    square = jnp.where(known, away, 0.0).sum(1) / jnp.maximum(known.sum(1), 1)
    is_body = part.name == "body"
    enough = known.sum(1) >= (min(FEWEST_FOR_SCALE, len(sized)) if is_body else FEWEST_PALM)
    low, high = SCALE_RANGE if is_body else HAND_SCALE_RANGE
    radius = jnp.clip(jnp.sqrt(square), low * diagonal, high * diagonal)
    scale = jnp.where(enough & has_root, radius, boxed)
    return Frame(root, jnp.maximum(jax.lax.stop_gradient(scale), 1e-6))


def _middle(points_bj2, valid_bj, joints):
    """Return the middle of joints, and whether it can be told: all of them are valid."""
    if not joints:
        return points_bj2[:, 0] * 0.0, jnp.zeros(points_bj2.shape[0], bool)
    which = np.array(joints)
    return points_bj2[:, which].mean(1), valid_bj[:, which].all(1)


def normalise(points_bj2, valid_bj, at: Frame, units: Units):
    """Return points as coordinates of the prior (B, J, 2): variance 1, root at 0, 0 if not valid.

    Differentiable in the points of valid joints; those of others are not read.
    """
    points = jnp.asarray(points_bj2, jnp.float32)
    u = (points - at.root_b2[:, None]) / (at.scale_b * units.unit)[:, None, None]
    return jnp.where(jnp.asarray(valid_bj)[..., None], u, 0.0)


def restore(u_bj2, at: Frame, units: Units):
    """Return coordinates of the prior as points in the px of the frame; undoes `normalise`."""
    return u_bj2 * (at.scale_b * units.unit)[:, None, None] + at.root_b2[:, None]
