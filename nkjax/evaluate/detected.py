"""A detector's boxes on packed pictures: which picture each is of, and which person is in it."""

import collections
import csv
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nkjax.data import coco
from nkjax.evaluate import draw, packed
from nkjax.evaluate.pictures import BadInput
from nkjax.evaluate.scores import Found

# A box that shares less with a person's own is not of this person.
SAME_BOX = 0.5


class Boxes(NamedTuple):
    """Boxes on the pictures of a split.

    boxes: (x, y, w, h, score) by picture id, () where the detector found nobody; counts: what was
    not used, by reason.
    """

    boxes: Mapping[str, tuple[tuple[float, ...], ...]]
    counts: dict[str, int]


class BoxRows:
    """Rows like those of a split, one for every box: a person of its picture, in that box.

    Joints, subject and posture are of whoever is labelled first in the picture and can be read:
    only the picture, the box and its score mean anything.
    """

    def __init__(self, rows, boxes: Mapping[str, Sequence]):
        first = {}
        for i, who in enumerate(packed.people(rows)):
            if who:
                first.setdefault(who["picture_id"], i)
        self.rows, self.manifest = rows, rows.manifest
        self._boxes = [
            (first[name], box) for name in sorted(boxes, key=first.get) for box in boxes[name]
        ]

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, number: int) -> dict:
        at, box = self._boxes[number]
        return self.rows[at] | _as_fields(box)

    def person(self, number: int) -> dict:
        """Return the fields without the picture."""
        at, box = self._boxes[number]
        return self.rows.person(at) | _as_fields(box)


def read(detections: str, category: str | None, pictures: str, picture_ids: Sequence[str]) -> Boxes:
    """Read the boxes of people on packed pictures.

    detections: COCO results file; category: of people, where it has several; pictures: CSV that
    says which image_id each picture_id is, as a data folder's private/mapping.csv does. Pictures
    whose image_id nobody knows are left out. Raises BadAnnotations, and BadInput where the file
    names no image ids, two pictures share one, or no box is of any of the pictures.
    """
    found = coco.read_detections(detections, category)
    image_ids = _read_image_ids(pictures)
    counts = collections.Counter({f"detections with {k}": n for k, n in found.skipped.items()})
    by_id = collections.defaultdict(tuple)
    for image_id, inside in found.boxes.items():
        by_id[_plain(image_id)] += inside
    placed = {}
    for name in picture_ids:
        if name not in image_ids:
            counts["pictures whose image_id is not known"] += 1
            continue
        inside = by_id.pop(image_ids[name], ())
        counts["boxes of another category"] += sum(not box.person for box in inside)
        placed[name] = tuple((*box.xywh, box.score) for box in inside if box.person)
    counts["boxes on other pictures"] += sum(len(boxes) for boxes in by_id.values())
    if not any(placed.values()):
        raise BadInput(
            f"{detections}: none of its boxes is on a picture of this split; image_id must be as "
            f"in {pictures}"
        )
    return Boxes(placed, {reason: n for reason, n in counts.items() if n})


def match(found: Found, boxes: Found) -> np.ndarray:
    """Return for every person of `found` the index of the box of `boxes` that is theirs, or -1.

    The best pairs of a picture come first, each box is of one person, and a pair shares at least
    SAME_BOX of what it covers (intersection over union).
    """
    of_picture = collections.defaultdict(list)
    for j, who in enumerate(boxes.people):
        of_picture[who["picture_id"]].append(j)
    pairs = []
    for i, who in enumerate(found.people):
        for j in of_picture[who["picture_id"]]:
            shared = draw.iou(found.box_n4[i], boxes.box_n4[j])
            if shared >= SAME_BOX:
                pairs.append((-shared, i, j))
    matched, taken = np.full(len(found.people), -1), set()
    for _, i, j in sorted(pairs):
        if matched[i] < 0 and j not in taken:
            matched[i] = j
            taken.add(j)
    return matched


def of_people(found: Found, boxes: Found, matched) -> Found:
    """Return the people whose box was found, with the joints that were predicted in it.

    Errors stay relative to the labelled box, so that they compare with those of given boxes.
    """
    kept = np.flatnonzero(matched >= 0)
    theirs = matched[kept]
    return found._replace(
        points_nk2=boxes.points_nk2[theirs],
        scores_nk=boxes.scores_nk[theirs],
        truth_nk2=found.truth_nk2[kept],
        visible_nk=found.visible_nk[kept],
        box_n4=found.box_n4[kept],
        box_score_n=boxes.box_score_n[theirs],
        area_n=found.area_n[kept],
        people=tuple(found.people[i] for i in kept),
        crop_px_n=boxes.crop_px_n[theirs],
    )


def _as_fields(box) -> dict:
    return {
        "box": np.array(box[:4], np.float32),
        "box_score": box[4],
        "box_source": "detector",
    }


def _read_image_ids(path) -> dict[str, str]:
    """Return the image id of every picture of a mapping.csv that has one."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogatepass") as file:
            table = csv.DictReader(file)
            if not {"picture_id", "image_id"} <= set(table.fieldnames or ()):
                raise ValueError("other columns")
            rows = [(row["picture_id"], row["image_id"]) for row in table if row["image_id"]]
    except OSError as error:
        raise BadInput(f"{path}: cannot be opened ({error.strerror}); check --pictures") from None
    except (ValueError, csv.Error):
        raise BadInput(
            f"{path}: no CSV with columns picture_id and image_id; give private/mapping.csv of the "
            "data folder"
        ) from None
    known = {picture_id: _plain(image_id) for picture_id, image_id in rows}
    shared = [i for i, n in collections.Counter(known.values()).items() if n > 1]
    if shared:
        raise BadInput(f"{path}: two pictures have image_id {coco.short(shared[0])}; mend it")
    return known


def _plain(image_id) -> str:
    """Numbers compare as numbers: a CSV cannot tell 785 from '785'."""
    text = str(image_id)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text
