"""Contact sheets of a lab's labels, for somebody who knows children to look at.

Every cell is one person, cut out as the network will see it. Faces are covered, of all people in
the picture; what lies outside everybody's box is a coarse mosaic, for there may be people in it
whom nobody labelled. That hides faces; it does not make a picture anonymous.
"""

import collections
import dataclasses
import hashlib
import itertools
import textwrap
from collections.abc import Sequence

import numpy as np

from nkjax.data import images, videos
from nkjax.evaluate import draw
from nkjax.geometry import affine
from nkjax.lab.rows import Lab, Person, Picture
from nkjax.lab.suspicious import Suspicion

COLUMNS = 6
CELL_WH, DENSE_CELL_WH = (240, 320), (420, 560)
PADDING = 1.25  # of the box, as in training
# What is shown around a box, as a share of its longer side: feet often stand on its edge.
AROUND_BOX = 0.05
CAPTION_LINES, LINE_HEIGHT, LETTER_WIDTH = 3, 15, 6.6
GAP, LEGEND_HEIGHT = 4, 24
PAPER_RGB, INK_RGB, GREY_RGB = (28, 28, 30), (235, 235, 235), (90, 90, 90)


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A person, what to write below (a line each), and the joints to show in red."""

    person: Person
    lines: tuple[str, ...]
    marked: tuple[int, ...] = ()


def people_sheet(lab: Lab, count: int = 24) -> np.ndarray:
    """Draw a spread of labelled people: all postures, and of each all subjects, in turn.

    Returns (H, W, 3) uint8 RGB. Visible joints are dots, occluded ones rings. The same lab gives
    the same sheet. A picture that cannot be read is a grey cell that says so.
    """
    by_key = {picture.key: picture for picture in lab.pictures}
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for person in lab.people:
        if (person.keypoints_k3[:, 2] > 0).any() and not person.ignore:
            subject = by_key[person.picture].subject
            posture = person.posture or subject.posture
            groups[posture][subject.id].append(person)
    chosen = _in_turn(
        _in_turn(_shuffled(people) for _, people in sorted(subjects.items(), key=_by_hash))
        for _, subjects in sorted(groups.items())
    )
    cells = []
    for person in itertools.islice(chosen, count):
        subject = by_key[person.picture].subject
        posture = person.posture or subject.posture or "posture not known"
        cells.append(_Cell(person, (f"person {person.id}  {posture}", _counts(person))))
    return _sheet(lab, cells, by_key)


def suspicious_sheet(lab: Lab, suspicions: Sequence[Suspicion], count: int = 24) -> np.ndarray:
    """Draw the first suspicions with their reason, the joints in question in red.

    Returns (H, W, 3) uint8 RGB as `people_sheet` does; pictures that belong together stand side by
    side, and no more than `count` people are shown.
    """
    by_key = {picture.key: picture for picture in lab.pictures}
    by_id = {person.id: person for person in lab.people}
    cells = []
    for suspicion in suspicions:
        if len(cells) + len(suspicion.people) > count:
            break
        for i in suspicion.people:
            lines = (f"person {i}  {suspicion.code}", suspicion.why)
            cells.append(_Cell(by_id[i], lines, suspicion.joints))
    return _sheet(lab, cells, by_key)


def _sheet(lab, cells, by_key):
    cell_wh = DENSE_CELL_WH if len(lab.skeleton.keypoints) >= draw.MANY_JOINTS else CELL_WH
    columns = max(1, min(COLUMNS, len(cells)))
    wide, high = cell_wh[0] + GAP, cell_wh[1] + GAP + CAPTION_LINES * LINE_HEIGHT
    rows = -(-len(cells) // columns)
    # A legend needs the room of two cells.
    shape = (LEGEND_HEIGHT + rows * high + GAP, max(columns, 3) * wide + GAP, 3)
    canvas = np.full(shape, PAPER_RGB, np.uint8)
    _legend(canvas)
    people = collections.defaultdict(list)
    for person in lab.people:
        people[person.picture].append(person)
    for i, cell in enumerate(cells):
        top = LEGEND_HEIGHT + i // columns * high
        left = GAP + i % columns * wide
        drawn = _draw_cell(cell, by_key[cell.person.picture], people, lab.skeleton, cell_wh)
        canvas[top : top + cell_wh[1], left : left + cell_wh[0]] = drawn
        letters = int(cell_wh[0] / LETTER_WIDTH)
        lines = [part for line in cell.lines for part in textwrap.wrap(line, letters)]
        for n, line in enumerate(lines[:CAPTION_LINES]):
            at = (left + 2, top + cell_wh[1] + 12 + n * LINE_HEIGHT)
            draw.write_text(canvas, line, at, INK_RGB)
    return canvas


def _draw_cell(cell, picture, people, skeleton, cell_wh):
    try:
        image = _read_upright(picture)
    except (images.BadImage, videos.BadVideo):
        grey = np.full((cell_wh[1], cell_wh[0], 3), GREY_RGB, np.uint8)
        draw.write_text(grey, "this picture cannot be read", (12, cell_wh[1] // 2), INK_RGB)
        return grey
    shown = hide_faces(image, people[picture.key], skeleton)
    x, y, width, height = cell.person.box_xywh
    center, scale = affine.box_to_center_scale(
        np.array([x, y, x + width, y + height]), cell_wh[0] / cell_wh[1], PADDING
    )
    matrix = affine.udp_matrix(center, scale, 0.0, cell_wh)
    crop = images.warp_affine(shown, matrix, cell_wh)
    joints = cell.person.keypoints_k3
    points = affine.transform_points(matrix, joints[:, :2])
    hollow = np.flatnonzero(joints[:, 2] == 1)
    # The width of lines follows the box: the one in the cell.
    box = (0, 0, *cell_wh)
    draw.draw_skeleton(
        crop, box, points, _scores(cell.person), skeleton, set(hollow), set(cell.marked)
    )
    return crop


def hide_faces(image_hwc, people: Sequence[Person], skeleton) -> np.ndarray:
    """Return a copy of an upright picture without faces; people: all of this picture.

    Where nobody is labelled there is only a coarse mosaic, and in ignored regions too; of people
    the head is covered as `draw.mask_face` does.
    """
    coarse = draw.mosaic(image_hwc)
    shown = coarse.copy()
    for person in people:
        if not person.ignore:
            part = _within(person.box_xywh, image_hwc.shape, AROUND_BOX)
            shown[part] = image_hwc[part]
    for person in people:
        if person.ignore:
            part = _within(person.box_xywh, image_hwc.shape)
            shown[part] = coarse[part]
    for person in people:
        points = person.keypoints_k3[:, :2]
        draw.mask_face(shown, person.box_xywh, points, _scores(person), skeleton)
    return shown


def _read_upright(picture: Picture):
    if picture.frame < 0:
        return images.turn(images.read_rgb(picture.path, exif="ignore"), picture.turn)
    for index, _, image in videos.frames(picture.path):
        if index == picture.frame:
            return image
    raise videos.BadVideo(f"{picture.key}: no such frame")


def _legend(canvas):
    x = 8
    for side in ("left", "right", "middle"):
        draw.write_text(canvas, side, (x, 16), draw.SIDE_RGB[side], 0.45)
        x += 56
    text = "side of the child    dot: visible   ring: occluded   faces masked"
    draw.write_text(canvas, text, (x, 16), INK_RGB, 0.45)


def _scores(person: Person):
    return (person.keypoints_k3[:, 2] > 0).astype(np.float64)


def _counts(person: Person) -> str:
    v = person.keypoints_k3[:, 2]
    visible, occluded, none = ((v == value).sum() for value in (2, 1, 0))
    return f"{visible} visible  {occluded} occluded  {none} none"


def _within(box_xywh, shape, around=0.0):
    box = np.asarray(box_xywh, np.float64)
    margin = around * box[2:].max()
    low = np.floor(np.clip(box[:2] - margin, 0, shape[1::-1])).astype(int)
    high = np.ceil(np.clip(box[:2] + box[2:] + margin, 0, shape[1::-1])).astype(int)
    return np.s_[low[1] : high[1], low[0] : high[0]]


def _in_turn(lists):
    """Yield the first of each list, then the second of each, ..."""
    nothing = object()
    for row in itertools.zip_longest(*lists, fillvalue=nothing):
        yield from (item for item in row if item is not nothing)


def _shuffled(people):
    return sorted(people, key=lambda person: hashlib.sha256(str(person.id).encode()).digest())


def _by_hash(item):
    return hashlib.sha256(item[0].encode("utf-8", "surrogateescape")).digest()
