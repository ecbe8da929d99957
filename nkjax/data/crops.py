"""Which part of a picture a network looks at: the body, or one hand of it.

Boxes are (x, y, width, height) in picture px; joints (K, 3) x, y, v in picture px.
"""

import numpy as np

from nkjax.geometry import affine
from nkjax.skeleton import Skeleton

SIDES = ("left", "right")
BODY_PADDING = HAND_PADDING = 1.25
# A hand with fewer labelled joints does not show how large it is.
FEWEST_HAND_JOINTS = 6


def center_scale(box_xywh, aspect, padding):
    """Return centre (2,) and size (2,) of the crop around a box, picture px.

    The box grows by `padding`, then its short side until width / height equals `aspect`. Raises
    ValueError for a box without extent. Source: notes sapiens A4.
    """
    x, y, width, height = (float(v) for v in box_xywh)
    return affine.box_to_center_scale((x, y, x + width, y + height), aspect, padding)


def hand_joints(skeleton: Skeleton, side: str) -> tuple[int, ...]:
    """Return the joints of one hand, with the wrist of the body where there is one.

    Those of the right hand are in the order of the left one's mirror images. Empty for a skeleton
    without hands.
    """
    left = skeleton.groups["left_hand"]
    if not left:
        return ()
    wrists = [i for i, name in enumerate(skeleton.keypoints) if name == "left_wrist"]
    joints = (*left, *(i for i in wrists if i not in left))
    return joints if side == "left" else tuple(skeleton.flip_indices[i] for i in joints)


def hand_box(keypoints_k3, skeleton: Skeleton, side: str):
    """Return the square box around the labelled joints of a hand, None with fewer than six.

    Not padded. Source: notes method 5, COCO-WholeBody's `hand_valid`.
    """
    points = np.asarray(keypoints_k3, np.float64)[list(hand_joints(skeleton, side))]
    points = points[points[:, 2] > 0, :2]
    if len(points) < FEWEST_HAND_JOINTS:
        return None
    low, high = points.min(0), points.max(0)
    side_px = float((high - low).max())
    if side_px < 1:
        return None
    return (*((low + high - side_px) / 2).tolist(), side_px, side_px)


def hand_box_from_arm(points_k2, skeleton: Skeleton, side: str):
    """Return the square box where a hand should be, from wrist, elbow and shoulder as predicted.

    The hand lies beyond the wrist by .33 of the forearm, in a box of 1.5 times the longer of
    forearm and .9 upper arm. None for a forearm and upper arm without length or a skeleton without
    these joints. Source: notes method 5 (OpenPose).
    """
    index = {name: i for i, name in enumerate(skeleton.keypoints)}
    names = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist")]
    if not all(name in index for name in names):
        return None
    shoulder, elbow, wrist = (np.asarray(points_k2, np.float64)[index[name]] for name in names)
    forearm, upper_arm = np.hypot(*(wrist - elbow)), np.hypot(*(elbow - shoulder))
    side_px = 1.5 * max(forearm, 0.9 * upper_arm)
    # Not for NaN either.
    if not 1 <= side_px < np.inf:
        return None
    corner = wrist + 0.33 * (wrist - elbow) - side_px / 2
    return (*corner.tolist(), float(side_px), float(side_px))
