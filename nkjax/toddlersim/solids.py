"""Solid shapes as plain arrays: what every person, toy and wall of the world is made of.

World frame: metres, x and y along the floor, z up, floor at z = 0. A solid lies in its own frame:
a row of `frame_p33[i]` is one of its own axes in the world, so that
own = frame_p33[i] @ (world - centre_p3[i]).

    CONE  round cone: the hull of a ball of radius size[1] at own (0, 0, 0) and one of radius
          size[2] at own (size[0], 0, 0); a capsule where both are equal. size[0] > |difference|
    BALL  ellipsoid with semi-axes size
    BOX   box with half sides size
    ROOM  box with half sides size, seen from within

Shape suffixes of this room: p solids, k keypoints, n points, h w pixels.
"""

from typing import NamedTuple

import numpy as np

CONE, BALL, BOX, ROOM = range(4)

# The part of a body that a solid is; 'none' is furniture. Sides are the person's own.
SEGMENTS = (
    "none", "skull", "face", "hair", "nose", "ear", "eye", "iris", "upper_lip", "lower_lip", "neck",
    "chest", "belly", "pelvis", "left_upper_arm", "right_upper_arm", "left_forearm",
    "right_forearm", "left_hand", "right_hand", "left_thigh", "right_thigh", "left_shank",
    "right_shank", "left_foot", "right_foot",
)  # fmt: skip

# The classes that Sapiens' part segmentation tells apart, in its order (notes sapiens A5).
PARTS = (
    "background", "apparel", "face_neck", "hair", "left_foot", "left_hand", "left_lower_arm",
    "left_lower_leg", "left_shoe", "left_sock", "left_upper_arm", "left_upper_leg",
    "lower_clothing", "right_foot", "right_hand", "right_lower_arm", "right_lower_leg",
    "right_shoe", "right_sock", "right_upper_arm", "right_upper_leg", "torso", "upper_clothing",
    "lower_lip", "upper_lip", "lower_teeth", "upper_teeth", "tongue",
)  # fmt: skip

NOBODY, TARGET = 0, 1  # persons; whoever else is there counts from 2


class Solids(NamedTuple):
    """P solids.

    kind_p, centre_p3 (m), frame_p33, size_p3 (m): see above. segment_p: index into SEGMENTS.
    part_p: index into PARTS. person_p: whose it is, NOBODY for things. paint_p: index into the
    paints of the scene.
    """

    kind_p: np.ndarray
    centre_p3: np.ndarray
    frame_p33: np.ndarray
    size_p3: np.ndarray
    segment_p: np.ndarray
    part_p: np.ndarray
    person_p: np.ndarray
    paint_p: np.ndarray


def make(kind, centre_p3, frame_p33, size_p3, segment=0, part=0, person=NOBODY, paint=0) -> Solids:
    """Make solids from lists; whatever is one number holds for all of them."""
    centre_p3 = np.asarray(centre_p3, float).reshape(-1, 3)
    count = len(centre_p3)
    frame_p33 = np.broadcast_to(np.asarray(frame_p33, float), (count, 3, 3)).copy()
    size_p3 = np.broadcast_to(np.asarray(size_p3, float), (count, 3)).copy()
    numbers = [np.broadcast_to(np.asarray(v, np.int64), count).copy()
               for v in (kind, segment, part, person, paint)]  # fmt: skip
    return Solids(numbers[0], centre_p3, frame_p33, size_p3, *numbers[1:])


def cone(start_3, end_3, radius_start, radius_end, segment=0, paint=0) -> Solids:
    """Make one round cone between two points of the world, radii in metres."""
    start_3 = np.asarray(start_3, float)
    axis_3 = np.asarray(end_3, float) - start_3
    length = np.linalg.norm(axis_3)
    size = (length, radius_start, radius_end)
    return make(CONE, start_3, frame_along(axis_3), size, segment, paint=paint)


def join(*several: Solids) -> Solids:
    """Put several sets of solids into one, in order."""
    return Solids(*(np.concatenate(fields) for fields in zip(*several, strict=True)))


def none() -> Solids:
    """Return an empty set of solids."""
    return make(BALL, np.zeros((0, 3)), np.eye(3), 1.0)


def moved(solids: Solids, turn_33, shift_3) -> Solids:
    """Turn solids about the origin of the world, then shift them by metres."""
    turn_33 = np.asarray(turn_33, float)
    return solids._replace(
        centre_p3=solids.centre_p3 @ turn_33.T + np.asarray(shift_3, float),
        frame_p33=solids.frame_p33 @ turn_33.T,
    )


def frame_along(axis_n3) -> np.ndarray:
    """Return right-handed frames (..., 3, 3), rows their axes, the first of them along axis_n3."""
    axis = np.asarray(axis_n3, float)
    first = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    helper = np.eye(3)[np.abs(first).argmin(-1)]
    second = np.cross(helper, first)
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], -2)
