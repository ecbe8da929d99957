"""Labels of every pixel, for the dense tasks of Sapiens: what a warp and a mirror do to them.

    depth    (H, W) fp32      0 nearest, 1 farthest px of the person, -1 for none
    normal   (H, W, 3) fp32   unit, camera frame: x right, y up, z to the camera; -1000 for none
    seg      (H, W) uint8     one of 28 parts, 0 background, 255 for not asked

Left and right parts are the person's. Source: notes sapiens A6, A10 (the signs of y and z are a
guess there, and fixed here).
"""

from typing import NamedTuple

import numpy as np

from nkjax.data import images


class Kind(NamedTuple):
    """What a label is made of. nothing: its value where there is none; shape: of a pixel."""

    nothing: int
    shape: tuple[int, ...]
    dtype: type


KINDS = {
    "depth": Kind(-1, (), np.float32),
    "normal": Kind(-1000, (3,), np.float32),
    "seg": Kind(255, (), np.uint8),
}
# Foot, hand, lower arm, lower leg, shoe, sock, upper arm and upper leg, left and right.
PART_PAIRS = tuple((left, left + 9) for left in range(4, 12))
MIRRORED_PARTS = np.arange(256, dtype=np.uint8)
for _left, _right in PART_PAIRS:
    MIRRORED_PARTS[[_left, _right]] = _right, _left


def blank(task: str, size_wh):
    """Make a label (h, w, ...) of a task of KINDS that holds nothing."""
    kind = KINDS[task]
    return np.full((size_wh[1], size_wh[0], *kind.shape), kind.nothing, kind.dtype)


def warp(label, task: str, matrix_23, size_wh, mirrored):
    """Warp a label as its picture was, by nearest neighbour; beyond the picture there is none.

    label: of the picture's size; matrix_23: picture px -> output px; size_wh: of the output;
    mirrored: whether the matrix mirrors, so that left and right parts change places and normals
    point the other way in x. Returns (h, w, ...) of the same dtype. Raises ValueError for a label
    that is none of the task.
    """
    kind, label = KINDS[task], np.asarray(label)
    if label.dtype != kind.dtype or label.shape[2:] != kind.shape or label.ndim < 2:
        raise ValueError(f"a label of {task} is {kind}, not {label.dtype} {label.shape}")
    warped = images.warp_nearest(label, matrix_23, tuple(size_wh), kind.nothing)
    if mirrored and task == "seg":
        return MIRRORED_PARTS[warped]
    if mirrored and task == "normal":
        x = warped[..., 0]
        warped[..., 0] = np.where(x == kind.nothing, x, -x)
    return warped
