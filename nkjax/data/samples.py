"""From a packed person to what a network is fed: views of one crop, with their coordinates.

The canonical crop is the un-augmented one around the box. Every view knows the affine matrix from
it, so losses can compare views in one frame. A sample depends on the row and (seed, index) alone.
"""

import dataclasses
import threading

import numpy as np

from nkjax.data import augment, crops, dense_labels, images
from nkjax.data.augment import Recipe
from nkjax.data.records import Rows
from nkjax.geometry import affine
from nkjax.skeleton import Skeleton

PARTS = ("body", "left_hand", "right_hand")
WHO = ("person_id", "picture_id", "subject", "posture", "grasp")
FACTORS = (8, 4, 2)  # at which a JPEG can be decoded to a fraction of its size
# Each thread keeps its last decoded picture until it has the next. Otherwise the allocator gives
# the memory back to the system in between, and fresh pages cost as much as the decoding.
_held = threading.local()


@dataclasses.dataclass(frozen=True)
class Look:
    """How a person is looked at: size of the crop in px, and the named views of it."""

    size_wh: tuple[int, int]
    views: tuple[tuple[str, Recipe], ...]


class Hands:
    """The labelled hands of a split by number: a row per hand instead of one per person.

    Opening reads every person once. Left hands and right hands of a person follow each other.
    """

    def __init__(self, rows: Rows):
        self.rows, self.manifest = rows, rows.manifest
        skeleton = rows.manifest.skeleton
        self._hands = [
            (row, side)
            for row in range(len(rows))
            for side in crops.SIDES
            if crops.hand_box(rows.person(row)["keypoints"], skeleton, side)
        ]

    def __len__(self) -> int:
        return len(self._hands)

    def __getitem__(self, number: int) -> dict:
        row, side = self._hands[number]
        return self.rows[row] | {"part": f"{side}_hand"}


def sample(
    row: dict, index: int, seed: int, look: Look, skeleton: Skeleton, postures, canvases
) -> dict:
    """Make the sample of a row as a dict of arrays, K joints each.

    row: fields of `records.Rows`, and 'part' for a hand, or 'dense', a label for every px of the
    picture, and 'task', one of `dense_labels.KINDS`; index: position in the stream, from which
    with seed everything random is drawn; postures: names, in the order of their numbers; canvases:
    for each view the memory (h, w, 3) uint8 to draw it in, such as its place in a batch.

    Returns index uint32; posture (-1 unknown), part (of PARTS) int32; valid; age_months, area of
    the person (px^2 of the picture), box (4) of the part x, y, w, h picture px, not padded;
    from_picture (2, 3): picture px -> canonical px; points (K, 2) canonical px, visible (K) int8
    0, 1, 2; who: texts, for the host: WHO and failure; and for each view image (h, w, 3) uint8 RGB,
    points and visible as above but of the view, mirrored, from_canonical (2, 3): canonical px ->
    view px, label (h, w, ...) where the row has 'dense'. The images are the canvases. Matrices and
    points are fp32. A mirrored view has left and right joints (and parts) exchanged. A right hand
    is mirrored in the canonical crop already, and its joints are in the places of the left one's,
    the only ones visible.

    However few joints a view still shows, it stays: the reference draws another sample instead,
    which is a bias towards easy crops (notes sapiens A8, ecosystem 1).

    Raises BadImage or ValueError where the picture or the box is no good.
    """
    part = row.get("part", "body")
    keypoints = np.asarray(row["keypoints"], np.float64)
    box, padding = row["box"], crops.BODY_PADDING
    if part != "body":
        side = part.removesuffix("_hand")
        keypoints = _only(keypoints, crops.hand_joints(skeleton, side))
        box, padding = crops.hand_box(row["keypoints"], skeleton, side), crops.HAND_PADDING
    size_wh = look.size_wh
    aspect = size_wh[0] / size_wh[1]
    center, scale = crops.center_scale(box, aspect, padding)
    canonical = affine.udp_matrix(center, scale, 0.0, size_wh)
    swapped = part == "right_hand"
    if swapped:
        canonical = augment.mirror(canonical, size_wh[0])
    to_picture = affine.invert(canonical)
    matrices, flips = [], []
    for number, (_, recipe) in enumerate(look.views):
        drawn = augment.draw(np.random.default_rng((seed, index, number)), recipe)
        if swapped:
            drawn = augment.mirror_draw(drawn)
        extent = (box[2] * padding, box[3] * padding)
        at, half = (center, scale), None
        if drawn.half_body and part == "body":
            half = augment.half_body_box(keypoints, skeleton, drawn.half_body)
        if half:
            at = crops.center_scale(half, aspect, augment.HALF_BODY_PADDING)
            extent = (half[2] * augment.HALF_BODY_PADDING, half[3] * augment.HALF_BODY_PADDING)
        matrix = augment.view_matrix(*at, extent, size_wh, drawn)
        matrices.append(augment.mirror(matrix, size_wh[0]) if swapped else matrix)
        flips.append(drawn.flip)
    _warp(row, matrices, size_wh, canvases)
    return {
        **_facts(row, index, part, postures, True),
        "box": np.asarray(box, np.float32),
        "from_picture": canonical.astype(np.float32),
        **_joints(keypoints, canonical, swapped, skeleton),
        "views": {
            name: {
                "image": canvas,
                **_joints(keypoints, matrix, flip != swapped, skeleton),
                "mirrored": np.bool_(flip),
                "from_canonical": affine.compose(matrix, to_picture).astype(np.float32),
                **_label(row, matrix, size_wh, flip != swapped),
            }
            for (name, _), matrix, flip, canvas in zip(
                look.views, matrices, flips, canvases, strict=True
            )
        },
    }


def blank(row: dict, index: int, look: Look, skeleton: Skeleton, canvases, failure="") -> dict:
    """Make the sample of a row that cannot be used, of the same shapes: valid is false.

    row: what is known of it, which may be nothing; canvases: made black; failure: why, '' for
    padding.
    """
    for canvas in canvases:
        canvas[:] = 0
    eye = np.eye(2, 3, dtype=np.float32)
    count = len(skeleton.keypoints)
    joints = {"points": np.zeros((count, 2), np.float32), "visible": np.zeros(count, np.int8)}
    view = {**joints, "mirrored": np.bool_(False), "from_canonical": eye}
    if "task" in row:
        view["label"] = dense_labels.blank(row["task"], look.size_wh)
    return {
        **_facts(row, index, row.get("part", "body"), (), False, failure),
        "box": np.zeros(4, np.float32),
        "from_picture": eye,
        **joints,
        "views": {
            name: {"image": canvas, **view}
            for (name, _), canvas in zip(look.views, canvases, strict=True)
        },
    }


def _facts(row, index, part, postures, valid, failure=""):
    posture = row.get("posture", "")
    return {
        # After four thousand million samples the device draws again what it drew at first.
        "index": np.uint32(index % 2**32),
        "valid": np.bool_(valid),
        "part": np.int32(PARTS.index(part)),
        "posture": np.int32(postures.index(posture) if posture in postures else -1),
        "age_months": np.float32(row.get("age_months", np.nan)),
        "area": np.float32(row.get("area", 0)),
        "who": {
            **{key: row.get(key, "") for key in WHO},
            "failure": failure,
        },
    }


def _only(keypoints_k3, joints):
    kept = np.zeros_like(keypoints_k3)
    kept[list(joints)] = keypoints_k3[list(joints)]
    return kept


def _joints(keypoints_k3, matrix, swap, skeleton):
    """Joints in px of a view; those that nobody labelled are at (0, 0)."""
    if swap:
        keypoints_k3 = keypoints_k3[list(skeleton.flip_indices)]
    visible = keypoints_k3[:, 2].astype(np.int8)
    points = affine.transform_points(matrix, keypoints_k3[:, :2])
    return {
        "points": np.where(visible[:, None] > 0, points, 0).astype(np.float32),
        "visible": visible,
    }


def _label(row, matrix, size_wh, mirrored):
    """The label of a view where the row has one of its picture."""
    if "dense" not in row:
        return {}
    return {"label": dense_labels.warp(row["dense"], row["task"], matrix, size_wh, mirrored)}


def _warp(row, matrices, size_wh, canvases):
    """Decode once, as small as the sharpest view allows, and warp once per view."""
    zoom = max(_sharpest(matrix) for matrix in matrices)
    factor = next((f for f in FACTORS if zoom * f <= 1), 1)
    picture = _held.picture = images.decode_reduced(row["image"], factor)
    # Pixel centres of the reduced picture lie at factor x + (factor - 1) / 2 of the full one.
    full = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2]], np.float64)
    for matrix, canvas in zip(matrices, canvases, strict=True):
        images.warp_affine(picture, affine.compose(matrix, full), size_wh, canvas)


def _sharpest(matrix_23):
    """Return how many px a px becomes where it grows most: the larger singular value."""
    (a, b, _), (c, d, _) = matrix_23.tolist()
    squares, det = a * a + b * b + c * c + d * d, a * d - b * c
    # Equal singular values: rounding must not make the root imaginary.
    return ((squares + max(squares * squares - 4 * det * det, 0.0) ** 0.5) / 2) ** 0.5
