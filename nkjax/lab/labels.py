"""Rules on joints and boxes, once the true size of every picture is known.

A joint is inside a picture of width w where -0.5 <= x <= w - 0.5, the outer edges of its pixels;
up to 1 px beyond, which is how tools round, it is moved onto the edge. The same holds for y.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nkjax.lab.annotations import Row
from nkjax.lab.findings import Findings
from nkjax.lab.joints import Unusable
from nkjax.lab.rows import AREA_OF_BOX, Person, Picture

ROUNDING_PX = 1.0
MOST_OUTSIDE = 0.5  # of the labelled joints outside the picture; beyond, the person is left out
MANY_OUTSIDE_BOX = 0.2
BOX_SLACK_PX = 0.5  # a box may end so far beyond the picture without being cut
JOINT_BOX_PADDING = 1.25
# A file is taken for x1, y1, x2, y2 when its boxes could be (x2 > x1, y2 > y1), which boxes of
# width and height are only by chance, and so many cannot be x, y, w, h inside their pictures.
COULD_BE_CORNERS = 0.9
BEYOND_AS_SIZES = 0.2


def clean(
    rows: Sequence[Row], pictures: Mapping[int | str, Picture], findings: Findings
) -> tuple[tuple[Person, ...], tuple]:
    """Apply every rule to people; the result comes in the order of pictures, then of the file.

    rows: in the order of the file; pictures: the usable ones by image id. Coordinates are those of
    the upright frame of `Picture.size_wh`, and nothing is turned. Visibility 0, 1 and 2 are kept
    apart. Also returns (image id, box) of those left out, for `regions`. Source: notes ecosystem
    2.2.
    """
    for row in rows:
        if row.image_id not in pictures:
            findings.add("NK245", f"{row.name}: image {row.image_id}")
    rows = [row for row in rows if row.image_id in pictures]
    sizes = [pictures[row.image_id].size_wh for row in rows]
    corners = look_like_corners([row.box_xywh for row in rows], sizes)
    people, gone = [], []
    for row in rows:
        picture = pictures[row.image_id]
        try:
            if corners and row.box_xywh is not None:
                told = "{} x {} px".format(*picture.size_wh)
                raise Unusable("NK222", f"{_told(row.box_xywh)} in {told}")
            people.append(_person(len(people) + 1, row, picture, findings))
        except Unusable as fault:
            findings.add(fault.code, f"{_where(row, picture)}: {fault}")
            if not corners:
                gone.append((row.image_id, row.box_xywh))
    order = {picture.key: i for i, picture in enumerate(pictures.values())}
    return tuple(sorted(people, key=lambda person: order[person.picture])), tuple(gone)


def regions(
    boxes: Sequence, pictures: Mapping[int | str, Picture], joints: int, first_id: int
) -> tuple[Person, ...]:
    """Make regions to ignore of people who are left out: somebody is there.

    Their face must not show on a sheet, and nobody may be blamed for finding them. boxes: (image
    id, xywh or None); those without 1 px inside their picture are passed over. joints: K.
    """
    made = []
    for image_id, box in boxes:
        picture = pictures.get(image_id)
        box, _ = _cut(box, picture.size_wh) if picture and box else (None, 0)
        if box and min(box[2:]) >= 1:
            nobody, area = np.zeros((joints, 3), np.float32), AREA_OF_BOX * box[2] * box[3]
            number = first_id + len(made)
            made.append(
                Person(number, None, picture.key, nobody, box, "labels", area, ignore=True)
            )
    return tuple(made)


def look_like_corners(boxes: Sequence, sizes_wh: Sequence) -> bool:
    """Tell whether the boxes of a file, given as x, y, w, h, are x1, y1, x2, y2.

    boxes: of people, None for none; sizes_wh: of their pictures. True when at least 90 % have
    w > x >= 0 and h > y >= 0, and at least 20 %, two or more, then reach over 1 px beyond the
    picture. Boxes from the corner (0, 0) mean the same either way and are not counted.
    """
    pairs = [(b, s) for b, s in zip(boxes, sizes_wh, strict=True) if b and (b[0] or b[1])]
    could = [(b, s) for b, s in pairs if b[2] > b[0] >= 0 and b[3] > b[1] >= 0]
    beyond = sum(b[0] + b[2] > s[0] + 1 or b[1] + b[3] > s[1] + 1 for b, s in could)
    mostly = len(could) >= COULD_BE_CORNERS * len(pairs)
    return mostly and beyond >= max(2, BEYOND_AS_SIZES * len(pairs))


def histogram(people: Sequence[Person], findings: Findings) -> None:
    """Report how often each visibility occurs, as NK201."""
    if not people:
        return
    values = np.stack([person.keypoints_k3[:, 2] for person in people])
    counts = [int((values == v).sum()) for v in (0, 1, 2)]
    told = " / ".join(f"v={v} {count:,}" for v, count in enumerate(counts))
    findings.add("NK201", told, values.size)
    if not counts[1]:
        findings.add("NK201", "no joint is marked occluded (1): some tools cannot", 0)
    if not counts[2]:
        findings.add("NK201", "no joint is marked visible (2): some tools write 1 for it", 0)


def _person(number, row: Row, picture: Picture, findings) -> Person:
    """Make a Person; raises Unusable, and then adds no finding."""
    points, size_wh = row.joints_k3.copy(), picture.size_wh
    changes = {"NK203": _unset(points, (points[:, :2] == 0).all(1))}
    changes["NK217"], changes["NK214"] = _fit_points(points, size_wh)
    box, cut = _cut(row.box_xywh, size_wh) if row.box_xywh else (None, 0)
    source = "labels"
    if box and min(box[2:]) >= 1:
        changes["NK225"] = cut
        changes["NK216"] = int(_outside_box(points, box) > MANY_OUTSIDE_BOX)
    else:
        changes["NK221" if box else "NK223"] = 1
        box, source = _box_around(points, size_wh, row), "keypoints"
    changes["NK238"] = int(not points[:, 2].any() and not row.ignore)
    for code, count in changes.items():
        if count:
            findings.add(code, _where(row, picture) + _detail(code, row, count), count)
    return Person(
        id=number,
        source_id=row.source_id,
        picture=picture.key,
        keypoints_k3=points.astype(np.float32),
        box_xywh=box,
        box_source=source,
        area=row.area or AREA_OF_BOX * box[2] * box[3],
        ignore=row.ignore or not points[:, 2].any(),
        posture=row.posture or picture.subject.posture,
        grasp=row.grasp or picture.subject.grasp,
    )


def _unset(points_k3, joints_k):
    """Make joints unlabelled in place; returns how many were labelled."""
    joints_k = joints_k & (points_k3[:, 2] > 0)
    points_k3[joints_k] = 0
    return int(joints_k.sum())


def _fit_points(points_k3, size_wh):
    """Move joints by rounding onto the edge and unset those outside, in place; count both."""
    labelled = points_k3[:, 2] > 0
    edge = np.array(size_wh) - 0.5
    inside = np.clip(points_k3[:, :2], -0.5, edge)
    beyond = np.abs(points_k3[:, :2] - inside).max(1)
    outside = labelled & (beyond > ROUNDING_PX)
    if outside.sum() > MOST_OUTSIDE * labelled.sum():
        raise Unusable(
            "NK215",
            f"{outside.sum()} of {labelled.sum()} joints outside {size_wh[0]} x {size_wh[1]} px",
        )
    moved = labelled & (beyond > 0) & ~outside
    points_k3[moved, :2] = inside[moved]
    return int(moved.sum()), _unset(points_k3, outside)


def _cut(box_xywh, size_wh):
    """Cut a box to 0 ... w, 0 ... h; returns it and 1 if that changed it by more than the slack."""
    x, y, w, h = box_xywh
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, size_wh[0]), min(y + h, size_wh[1])
    changed = max(x1 - x, y1 - y, x + w - x2, y + h - y2) > BOX_SLACK_PX
    return ((x1, y1, x2 - x1, y2 - y1), 1) if changed else (box_xywh, 0)


def _outside_box(points_k3, box_xywh):
    """Return the share of labelled joints that lie over 1 px outside a box, 0 without joints."""
    labelled = points_k3[points_k3[:, 2] > 0, :2]
    low, size = np.array(box_xywh[:2]), np.array(box_xywh[2:])
    outside = (labelled < low - ROUNDING_PX) | (labelled > low + size + ROUNDING_PX)
    return outside.any(1).mean() if len(labelled) else 0.0


def _box_around(points_k3, size_wh, row):
    """Return the box around the labelled joints, 1.25 times as large, within the picture."""
    labelled = points_k3[points_k3[:, 2] > 0, :2]
    low, high = (labelled.min(0), labelled.max(0)) if len(labelled) else (np.zeros(2), np.zeros(2))
    if (high - low).max() < 1:
        told = "no box" if row.box_xywh is None else f"box {_told(row.box_xywh)}"
        raise Unusable("NK224", f"{told}, and {len(labelled)} labelled joints to make one of")
    grown = np.maximum(JOINT_BOX_PADDING * (high - low), 1)
    middle = (low + high) / 2
    low = np.clip(middle - grown / 2, 0, np.array(size_wh) - 1)
    high = np.maximum(np.minimum(middle + grown / 2, size_wh), low + 1)
    return tuple(float(v) for v in (*low, *(high - low)))


def _where(row, picture):
    return f"{picture.key}, {row.name}"


def _detail(code, row, count):
    if code in ("NK216", "NK221", "NK225"):
        return f": box {_told(row.box_xywh)}"
    return f": {count} joints" if count > 1 else ""


def _told(box_xywh):
    return "[" + ", ".join(f"{v:g}" for v in box_xywh) + "]"
