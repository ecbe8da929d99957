"""Draw people on pictures, every face masked first.

The masks follow notes ecosystem section 7: where the head joints cannot be trusted, the part of the
box that can hold a face is covered. Masking hides faces; it does not make a picture anonymous.
"""

import os
import unicodedata

import cv2
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.skeleton import Skeleton

# Keypoints below this score are neither drawn nor trusted to say where a head is.
TRUSTED_SCORE = 0.3
MASK_RGB = (128, 128, 128)
SIDE_RGB = {"left": (255, 150, 20), "right": (30, 150, 255), "middle": (70, 220, 90)}
MARKED_RGB, WHITE_RGB = (235, 20, 40), (255, 255, 255)
MANY_JOINTS = 60
LONGEST_JPEG = 65_000  # px; the format ends at 65,535

# How far apart two joints of a head lie at most, as a share of the height of the head; a child's
# head is about as high as its shoulders are wide.
HEAD_SHARES = {
    ("nose", "left_eye"): 0.25,
    ("nose", "right_eye"): 0.25,
    ("nose", "left_ear"): 0.6,
    ("nose", "right_ear"): 0.6,
    ("left_eye", "right_eye"): 0.3,
    ("left_eye", "left_ear"): 0.45,
    ("right_eye", "right_ear"): 0.45,
    ("left_ear", "right_ear"): 0.75,
    ("left_shoulder", "right_shoulder"): 1.0,
}
FACE = skeletons.parse(
    {
        "name": "face",
        "keypoints": ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
        + ["left_shoulder", "right_shoulder"],
        "limbs": [list(pair) for pair in HEAD_SHARES],
    },
    "face",
)
TRUNK = skeletons.parse(
    {
        "name": "trunk",
        "keypoints": ["left_shoulder", "right_shoulder", "left_hip", "right_hip"],
    },
    "trunk",
)
# Detectors take two boxes that overlap as much for one person.
SAME_PERSON_IOU = 0.65


def overlay(image_hwc, people, boxes_n4, skeleton: Skeleton, faces="mask", blur=False):
    """Return a copy of a picture with faces masked and skeletons drawn.

    image_hwc: uint8 RGB; people: have `box_xywh`, `points_k2` (picture px) and `scores_k`;
    boxes_n4: xywh px of people without keypoints, whose faces are masked too, but for boxes around
    people whose head is certain; faces: 'mask', or 'show', which is then written on the picture;
    blur: also make a coarse mosaic of the whole picture, for where nobody has looked for people.
    """
    canvas = np.array(image_hwc, np.uint8, order="C")
    if faces == "mask":
        if blur:
            canvas = mosaic(canvas)
        # All masks before the first line: a mask never covers a neighbour's skeleton.
        known = []
        for person in people:
            if mask_face(canvas, person.box_xywh, person.points_k2, person.scores_k, skeleton):
                known.append(person.box_xywh)
        for box in boxes_n4:
            if not any(iou(box, other) >= SAME_PERSON_IOU for other in known):
                _cover_top(canvas, box)
    for person in people:
        draw_skeleton(canvas, person.box_xywh, person.points_k2, person.scores_k, skeleton)
    if faces == "show":
        _stamp(canvas, "FACES SHOWN - do not pass on")
    return canvas


def mask_face(canvas_hwc, box_xywh, points_k2, scores_k, skeleton: Skeleton):
    """Cover a person's face in place: the head, and the top of the box too unless it is certain.

    The whole box where shoulders and hips say that the person is not upright. Returns whether the
    head was certain.
    """
    circle, certain = head_circle(box_xywh, points_k2, scores_k, skeleton)
    if circle:
        (x, y), radius = circle
        cv2.circle(canvas_hwc, (_px(x), _px(y)), _px(np.ceil(radius)), MASK_RGB, cv2.FILLED)
    if not certain:
        _cover_top(canvas_hwc, box_xywh, whole=_is_not_upright(points_k2, scores_k, skeleton))
    return certain


def head_circle(box_xywh, points_k2, scores_k, skeleton: Skeleton):
    """Return the circle around a head, 1.5 times its size, and whether it can be relied on.

    The circle is ((x, y), radius) in picture px, None without a trusted head joint; twice the size
    of a head seen from one side, where its joints are not around its middle. It can be relied on
    when the head joints show how large the head is (a left and a right one, or nose and ear), and
    all lie near or in the box, as far apart as in a head.
    """
    box = np.asarray(box_xywh, np.float64)
    points, scores = np.asarray(points_k2, np.float64), np.asarray(scores_k)
    trusted = (scores >= TRUSTED_SCORE) & np.isfinite(points).all(-1)
    head = [i for i in skeleton.groups["head"] if trusted[i]]
    if not head:
        return None, False
    low, high = points[head].min(0), points[head].max(0)
    spread, side = np.hypot(*(high - low)), box[2:].max()
    # An adult's head is 1/8 of the height, which the longer side of the box seldom exceeds.
    size = max(spread, _head_height(points, trusted, skeleton), side / 8)
    flip = skeleton.flip_indices
    both_sides = any(flip[i] != i and trusted[flip[i]] for i in head)
    # Wild joints must not blank the whole picture: that is the top of the box's business.
    radius = min((0.75 if both_sides else 1.0) * size, side / 2)
    margin = 0.1 * box[2:]
    in_box = (low >= box[:2] - margin).all() and (high <= box[:2] + box[2:] + margin).all()
    nose, _, _, *ears = (i is not None and trusted[i] for i in skeletons.match(skeleton, FACE)[:5])
    sized = both_sides or (nose and any(ears))
    certain = bool(sized and in_box and 0.02 * side <= spread <= 0.4 * side)
    return (tuple(((low + high) / 2).tolist()), float(radius)), certain


def _head_height(points_k2, trusted_k, skeleton: Skeleton) -> float:
    """Return the height of a head in px by its trusted joints and the shoulders, 0 without two."""
    index = skeletons.match(skeleton, FACE)
    heights = [0.0]
    for (a, b), share in zip(FACE.limbs, HEAD_SHARES.values(), strict=True):
        i, j = index[a], index[b]
        if i is not None and j is not None and trusted_k[i] and trusted_k[j]:
            heights.append(np.hypot(*(points_k2[i] - points_k2[j])) / share)
    return max(heights)


def iou(a_xywh, b_xywh) -> float:
    """Return the area that two boxes share over the area that they cover together."""
    a, b = (np.asarray(box, np.float64) for box in (a_xywh, b_xywh))
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (a[2:].prod() + b[2:].prod() - shared))


def draw_skeleton(
    canvas_hwc, box_xywh, points_k2, scores_k, skeleton: Skeleton, hollow=(), marked=()
):
    """Draw the trusted joints and the limbs between them in place, coloured by side.

    hollow: joints drawn as rings; marked: joints drawn in red, and the limbs between them.
    """
    points = np.asarray(points_k2, np.float64)
    shown = (np.asarray(scores_k) >= TRUSTED_SCORE) & np.isfinite(points).all(-1)
    width = max(1, round(max(box_xywh[2:]) / 150))
    if len(points) >= MANY_JOINTS:  # there is no room between the joints of a hand
        width = max(1, width // 2)
    radius, ring = (width + 1, 2) if len(points) < MANY_JOINTS else (width, 1)
    sides = joint_sides(skeleton)
    for a, b in skeleton.limbs:
        if shown[a] and shown[b]:
            # A limb from the mid-line to a side belongs to the side, one across to neither.
            of_limb = {sides[a], sides[b]} - {"middle"}
            side = of_limb.pop() if len(of_limb) == 1 else "middle"
            ends = [tuple(_px(v) for v in points[i]) for i in (a, b)]
            if a in marked and b in marked:  # red alone is lost on a red jumper
                cv2.line(canvas_hwc, *ends, WHITE_RGB, width + 4, cv2.LINE_AA)
                cv2.line(canvas_hwc, *ends, MARKED_RGB, width + 1, cv2.LINE_AA)
            else:
                cv2.line(canvas_hwc, *ends, SIDE_RGB[side], width, cv2.LINE_AA)
    for i in np.flatnonzero(shown):
        at = tuple(_px(v) for v in points[i])
        colour = MARKED_RGB if i in marked else SIDE_RGB[sides[i]]
        if i in marked:
            cv2.circle(canvas_hwc, at, radius + ring + 1, WHITE_RGB, cv2.FILLED, cv2.LINE_AA)
        if i in hollow:
            cv2.circle(canvas_hwc, at, radius + ring, colour, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas_hwc, at, radius, WHITE_RGB, cv2.FILLED, cv2.LINE_AA)
        else:
            cv2.circle(canvas_hwc, at, radius, colour, cv2.FILLED, cv2.LINE_AA)


def joint_sides(skeleton: Skeleton) -> tuple[str, ...]:
    """Tell 'left', 'right' or 'middle' of every joint; 'middle' too where the name is mute."""
    sides = ["middle"] * len(skeleton.keypoints)
    for i, j in enumerate(skeleton.flip_indices):
        # Of a pair the names differ first at the l or the r: left_eye, l-eye, eyeR.
        names = [skeleton.keypoints[k].lower() for k in (i, j)]
        start = len(os.path.commonprefix(names))
        letters = [name[start : start + 1] for name in names]
        if letters in (["l", "r"], ["r", "l"]):
            sides[i] = {"l": "left", "r": "right"}[letters[0]]
    return tuple(sides)


def write_text(canvas_hwc, text, left_base, rgb=(255, 255, 255), size=0.4):
    """Write a line in place, its left end and base line at px x, y; other scripts become '?'."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = plain.encode("ascii", "replace").decode()
    cv2.putText(canvas_hwc, plain, left_base, cv2.FONT_HERSHEY_SIMPLEX, size, rgb, 1, cv2.LINE_AA)


def mosaic(image_hwc, cells=24):
    """Return a picture as a coarse mosaic, so many cells along its longer side."""
    height, width = image_hwc.shape[:2]
    scale = min(1.0, cells / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    coarse = cv2.resize(image_hwc, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def resized(image_hwc, size_wh):
    """Return an RGB uint8 picture in another size, averaged over areas where it shrinks."""
    return cv2.resize(image_hwc, size_wh, interpolation=cv2.INTER_AREA)


def encode_jpeg(image_hwc, quality=90) -> bytes:
    """Encode an RGB uint8 picture as a JPEG without any metadata, reduced if JPEG is too small."""
    fits = LONGEST_JPEG / max(image_hwc.shape)
    if fits < 1:
        image_hwc = cv2.resize(image_hwc, None, fx=fits, fy=fits, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _is_not_upright(points_k2, scores_k, skeleton: Skeleton) -> bool:
    """Tell whether trusted shoulders lie beside or below trusted hips."""
    points = np.asarray(points_k2, np.float64)
    trusted = (np.asarray(scores_k) >= TRUSTED_SCORE) & np.isfinite(points).all(-1)
    index = skeletons.match(skeleton, TRUNK)
    ends = [[i for i in pair if i is not None and trusted[i]] for pair in (index[:2], index[2:])]
    if not all(ends):
        return False
    shoulders, hips = (points[end].mean(0) for end in ends)
    aside, up = abs(shoulders[0] - hips[0]), hips[1] - shoulders[1]
    return bool(aside > up)


def _cover_top(canvas_hwc, box_xywh, whole=False):
    """Cover the part of a person's box that can hold the face.

    A box that is wide for its height is of somebody sitting, lying or close by, whose head takes
    more of the height: a box wider than 4/3 of its height is covered whole.
    """
    x, y, width, height = (float(v) for v in box_xywh)
    covered = 1.1 * height if whole else min(max(0.4 * height, 0.75 * width), height)
    top_left = (_px(x - 0.1 * width), _px(y - 0.1 * height))
    bottom_right = (_px(x + 1.1 * width), _px(y + covered))
    cv2.rectangle(canvas_hwc, top_left, bottom_right, MASK_RGB, cv2.FILLED)


def _stamp(canvas_hwc, text):
    size = max(0.3, min(canvas_hwc.shape[:2]) / 700)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    corner = (width + 2 * below, height + 2 * below)
    cv2.rectangle(canvas_hwc, (0, 0), corner, (0, 0, 0), cv2.FILLED)
    at = (below, height + below // 2)
    cv2.putText(canvas_hwc, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 120, 120), 1)


def _px(value):
    # OpenCV takes 32-bit coordinates, and its lines misbehave far outside the picture.
    return int(np.clip(round(float(value)), -100_000, 100_000))
