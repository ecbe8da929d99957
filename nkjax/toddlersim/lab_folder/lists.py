"""The lists of a simulated folder: labels.json, detections.json, subjects.csv, truth/people.csv.

`row` says what they tell of one picture, wherever it is made; `write` puts the rows into files.
"""

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import nkjax
from nkjax.skeleton import Skeleton
from nkjax.toddlersim import solids, truth
from nkjax.toddlersim.examples import ROLES, Example, Labels
from nkjax.toddlersim.lab_folder import detector

COLUMNS = ("file", "subject", "session", "site", "age_months", "posture", "split")
# Of nine children with labels one is for validation, at any number of them to within half a child;
# of the first nine already the second, so that few have one. By the order in which they appear.
VAL_OF, VAL_AT, VAL_FIRST = 9, 4, 1
# Ids tell role and picture, and do not depend on the counts.
ROLE_IDS, PEOPLE_IDS = 1_000_000, 100
SMALLEST_PX = 1  # of a region to ignore


class Row(NamedTuple):
    """What the lists tell of a picture: entries of JSON as text, cells of CSV.

    pattern: fits the names of all unlabelled pictures of this subject.
    """

    image: str
    annotations: list[str]
    detections: list[str]
    labels: Labels
    file: str
    pattern: str


class Summary(NamedTuple):
    """What was written: pictures by role, and subjects."""

    counts: dict[str, int]
    subjects: int


def file_name(labels: Labels) -> str:
    """Name the file of a picture: by domain, role and index; an unlabelled one by its subject too.

    Neither posture nor truth is in it. Who is on an unlabelled picture is known by its name alone,
    as in a lab: a line of subjects.csv for all of a child.
    """
    who = f"_{labels.subject}" if labels.role == "unlabelled" else ""
    return f"{labels.domain}_{labels.role}{who}_{labels.index:06d}.jpg"


def row(example: Example, rng: np.random.Generator) -> Row:
    """Return what the lists tell of a picture; rng: of the detector's mistakes."""
    labels, size_wh = example.labels, example.camera.size_wh
    file, number = file_name(labels), ROLES.index(labels.role) * ROLE_IDS + labels.index + 1
    image = {"id": number, "file_name": file, "width": size_wh[0], "height": size_wh[1]}
    found = detector.boxes([example.box_xywh, *example.other_boxes_n4], size_wh, rng)
    found = [{"image_id": file.removesuffix(".jpg"), "category_id": 1, **box} for box in found]
    return Row(
        json.dumps(image),
        [json.dumps(entry) for entry in _annotations(number, example)],
        [json.dumps(entry) for entry in found],
        labels,
        file,
        pattern=file[: -len("000000.jpg")] + "??????.jpg",
    )


def write(out, counts: Mapping[str, int], skeleton: Skeleton, rows: Iterable[Row]) -> Summary:
    """Write the lists below a folder, row by row; labelled and test pictures come first.

    Of a picture only its entry of 'images' and its subject are kept in memory.
    """
    out, listed, sides, patterns = Path(out), [], {}, set()
    with contextlib.ExitStack() as files:

        def opened(name):
            return files.enter_context(open(out / name, "w", newline="", encoding="utf-8"))

        subjects = csv.writer(opened("subjects.csv"))
        people = csv.writer(opened(Path(truth.FOLDER) / truth.PEOPLE))
        subjects.writerow(COLUMNS)
        people.writerow(truth.COLUMNS)
        if counts["labelled"] + counts["test"]:
            labels = _List(opened("labels.json"), _head(skeleton))
        if counts["unlabelled"]:
            boxes = _List(opened("detections.json"), "[")
        for row in rows:
            people.writerow(truth.row(row.file, row.labels))
            side = _side(row.labels, sides)
            if row.labels.role != "unlabelled":
                listed.append(row.image)
                labels.add(row.annotations)
                subjects.writerow([row.file, *_cells(row.labels), side])
                continue
            boxes.add(row.detections)
            if row.pattern not in patterns:
                patterns.add(row.pattern)
                who = row.labels._replace(session="", age_months=np.nan, posture="")
                subjects.writerow([row.pattern, *_cells(who), ""])
        if listed:
            labels.end('],\n"images": [\n' + ",\n".join(listed) + "\n]}\n")
        if counts["unlabelled"]:
            boxes.end("\n]\n")
    return Summary(dict(counts), len(sides))


class _List:
    """A list in a JSON file, written entry by entry."""

    def __init__(self, file, head):
        self._file, self._between = file, "\n"
        file.write(head)

    def add(self, entries):
        for entry in entries:
            self._file.write(self._between + entry)
            self._between = ",\n"

    def end(self, text):
        self._file.write(text)


def _annotations(number, example: Example) -> Iterator[dict]:
    """Yield the COCO entry of the target, and a region to ignore for everybody else."""
    joints = example.keypoints_k3
    triples = [value for x, y, v in joints.tolist() for value in (round(x, 2), round(y, 2), int(v))]
    seen = int((example.maps.people_hw == solids.TARGET).sum())
    first = {"image_id": number, "category_id": 1}
    yield {
        "id": number * PEOPLE_IDS, **first, "keypoints": triples,
        "num_keypoints": int((joints[:, 2] > 0).sum()), "bbox": _rounded(example.box_xywh),
        "area": max(seen, 1), "iscrowd": 0, "grasp": example.labels.grasp,
    }  # fmt: skip
    boxes = [box for box in example.other_boxes_n4 if min(box[2:]) >= SMALLEST_PX]
    for i, box in enumerate(boxes[: PEOPLE_IDS - 1], 1):
        yield {
            "id": number * PEOPLE_IDS + i, **first, "keypoints": [0] * len(triples),
            "num_keypoints": 0, "bbox": _rounded(box), "area": _rounded([box[2] * box[3]])[0],
            "iscrowd": 1,
        }  # fmt: skip


def _side(labels: Labels, sides) -> str:
    """Return the split of a picture; a child has one for all its pictures, '' if unlabelled."""
    side = {"test": "test", "unlabelled": ""}.get(labels.role)
    if side is None:
        number = len(sides)
        held_out = number % VAL_OF == VAL_AT if number >= VAL_OF else number == VAL_FIRST
        side = "val" if held_out else "train"
    return sides.setdefault(labels.subject, side)


def _cells(labels: Labels) -> list[str]:
    return [labels.subject, labels.session, labels.site, truth.months(labels), labels.posture]


def _head(skeleton: Skeleton) -> str:
    category = {
        "id": 1, "name": "person", "supercategory": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }  # fmt: skip
    info = {"description": "simulated people, made by nkjax.toddlersim; nobody is real",
            "version": nkjax.__version__}  # fmt: skip
    return (f'{{"info": {json.dumps(info)},\n"categories": [{json.dumps(category)}],\n'
            '"annotations": [')  # fmt: skip


def _rounded(values) -> list[float]:
    return [round(float(value), 2) for value in values]
