"""Draw people on pictures, every face masked first.

The masks follow notes ecosystem section 7: where the head joints cannot be trusted, the part of the
box that can hold a face is covered. Masking hides faces; it does not make a picture anonymous.
"""

import os

import cv2
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.skeleton import Skeleton

# Keypoints below this score are neither drawn nor trusted to say where a head is.
TRUSTED_SCORE = 0.3
MASK_RGB = (128, 128, 128)
SIDE_RGB = {"left": (255, 150, 20), "right": (30, 150, 255), "middle": (70, 220, 90)}
LONGEST_JPEG = 65_000  # px; the format ends at 65,535
SHOULDERS = skeletons.parse(
    {"name": "shoulders", "keypoints": ["left_shoulder", "right_shoulder"]}, "shoulders"
)


def overlay(image_hwc, people, boxes_n4, skeleton: Skeleton, faces="mask", blur=False):
    """Return a copy of a picture with faces masked and skeletons drawn.

    image_hwc: uint8 RGB; people: have `box_xywh`, `points_k2` (picture px) and `scores_k`;
    boxes_n4: xywh px of people without keypoints, whose faces are masked too; faces: 'mask', or
    'show', which is then written on the picture; blur: also make a coarse mosaic of the whole
    picture, for where nobody has looked for people.
    """
    canvas = np.array(image_hwc, np.uint8, order="C")
    if faces == "mask":
        if blur:
            canvas = mosaic(canvas)
        # All masks before the first line: a mask never covers a neighbour's skeleton.
        for person in people:
            mask_face(canvas, person.box_xywh, person.points_k2, person.scores_k, skeleton)
        for box in boxes_n4:
            _cover_top(canvas, box)
    for person in people:
        draw_skeleton(canvas, person.box_xywh, person.points_k2, person.scores_k, skeleton)
    if faces == "show":
        _stamp(canvas, "FACES SHOWN - do not pass on")
    return canvas


def mask_face(canvas_hwc, box_xywh, points_k2, scores_k, skeleton: Skeleton):
    """Cover a person's face in place: the head, and the top of the box unless that is certain."""
    circle, certain = head_circle(box_xywh, points_k2, scores_k, skeleton)
    if circle:
        (x, y), radius = circle
        cv2.circle(canvas_hwc, (_px(x), _px(y)), _px(np.ceil(radius)), MASK_RGB, cv2.FILLED)
    if not certain:
        _cover_top(canvas_hwc, box_xywh)


def head_circle(box_xywh, points_k2, scores_k, skeleton: Skeleton):
    """Return the circle around a head, 1.5 times its size, and whether it can be relied on.

    The circle is ((x, y), radius) in picture px, None without a trusted head joint. Its size is the
    largest of what the head joints, the shoulders and the box suggest. To be relied on takes a
    third of the head joints, two at least, all near or in the box and as far apart as in a head.
    """
    box = np.asarray(box_xywh, np.float64)
    points, scores = np.asarray(points_k2, np.float64), np.asarray(scores_k)
    trusted = (scores >= TRUSTED_SCORE) & np.isfinite(points).all(-1)
    head = [i for i in skeleton.groups["head"] if trusted[i]]
    if not head:
        return None, False
    low, high = points[head].min(0), points[head].max(0)
    spread, side = np.hypot(*(high - low)), box[2:].max()
    # A child's head is about as high as its shoulders are wide. The joints of a head in profile
    # or the shoulders may be nearly one point, so a head is also at least an adult's: 1/8 of the
    # height, which the longer side of the box seldom exceeds.
    sizes = [1.2 * spread, side / 8]
    shoulders = skeletons.match(skeleton, SHOULDERS)
    if None not in shoulders and trusted[list(shoulders)].all():
        sizes.append(np.hypot(*(points[shoulders[0]] - points[shoulders[1]])))
    # Wild joints must not blank the whole picture: that is the top of the box's business.
    radius = min(1.5 * max(sizes) / 2, side / 2)
    margin = 0.1 * box[2:]
    in_box = (low >= box[:2] - margin).all() and (high <= box[:2] + box[2:] + margin).all()
    enough = len(head) >= max(2, len(skeleton.groups["head"]) / 3)
    certain = bool(enough and in_box and 0.02 * side <= spread <= 0.4 * side)
    return (tuple((low + high) / 2), float(radius)), certain


def draw_skeleton(canvas_hwc, box_xywh, points_k2, scores_k, skeleton: Skeleton):
    """Draw the trusted joints and the limbs between them in place, coloured by side."""
    points = np.asarray(points_k2, np.float64)
    shown = (np.asarray(scores_k) >= TRUSTED_SCORE) & np.isfinite(points).all(-1)
    width = max(1, round(max(box_xywh[2:]) / 150))
    sides = joint_sides(skeleton)
    for a, b in skeleton.limbs:
        if shown[a] and shown[b]:
            # A limb from the mid-line to a side belongs to the side, one across to neither.
            of_limb = {sides[a], sides[b]} - {"middle"}
            side = of_limb.pop() if len(of_limb) == 1 else "middle"
            ends = [tuple(_px(v) for v in points[i]) for i in (a, b)]
            cv2.line(canvas_hwc, *ends, SIDE_RGB[side], width, cv2.LINE_AA)
    for i in np.flatnonzero(shown):
        at = tuple(_px(v) for v in points[i])
        cv2.circle(canvas_hwc, at, width + 1, SIDE_RGB[sides[i]], cv2.FILLED, cv2.LINE_AA)


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


def mosaic(image_hwc, cells=24):
    """Return a picture as a coarse mosaic, so many cells along its longer side."""
    height, width = image_hwc.shape[:2]
    scale = min(1.0, cells / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    coarse = cv2.resize(image_hwc, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def encode_jpeg(image_hwc, quality=90) -> bytes:
    """Encode an RGB uint8 picture as a JPEG without any metadata, reduced if JPEG is too small."""
    fits = LONGEST_JPEG / max(image_hwc.shape)
    if fits < 1:
        image_hwc = cv2.resize(image_hwc, None, fx=fits, fy=fits, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _cover_top(canvas_hwc, box_xywh):
    """Cover the part of a person's box that can hold the face.

    A box that is wide for its height is of somebody sitting, lying or close by, whose head takes
    more of the height: a box wider than 4/3 of its height is covered whole.
    """
    x, y, width, height = (float(v) for v in box_xywh)
    covered = min(max(0.4 * height, 0.75 * width), height)
    top_left = (_px(x - 0.1 * width), _px(y - 0.1 * height))
    bottom_right = (_px(x + 1.1 * width), _px(y + covered))
    cv2.rectangle(canvas_hwc, top_left, bottom_right, MASK_RGB, cv2.FILLED)


def _stamp(canvas_hwc, text):
    height, width = canvas_hwc.shape[:2]
    size = max(0.3, min(width, height) / 700)
    at = (max(2, width // 100), max(12, round(24 * size)))
    for thickness, colour in ((4, (0, 0, 0)), (1, (255, 80, 80))):
        thick = max(thickness, round(thickness * size))
        cv2.putText(canvas_hwc, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick)


def _px(value):
    # OpenCV takes 32-bit coordinates, and its lines misbehave far outside the picture.
    return int(np.clip(round(float(value)), -100_000, 100_000))
