"""What an evaluation leaves as tables: figures by part, COCO's, keypoints.csv, results.json."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nkjax.evaluate import oks, tables
from nkjax.evaluate.scores import Found
from nkjax.evaluate.split_boxes import Predicted
from nkjax.evaluate.topdown import Person
from nkjax.skeleton import Skeleton


def write_parts(folder: Path, by_part: Mapping[str, Sequence[Mapping]]) -> None:
    """Write a CSV of every table of figures, a figure that is not known as an empty cell."""
    folder.mkdir()
    for name, rows in by_part.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [name])
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def write_predictions(
    out: Path, by_box: Found, person_ids: Sequence[str], skeleton: Skeleton, run_id: str
) -> None:
    """Write what was found in every box, as predict.py does, and whose box it is.

    keypoints.csv: a row per box and joint, px of the picture; `person` counts the boxes of a
    picture, person_id is the labelled person's, '' for nobody. results.json: COCO results, whose
    image_id is the packed picture id. person_ids: of every box.
    """
    results, seen = [], {}
    with open(out / "keypoints.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*tables.KEYPOINT_COLUMNS, "person_id"])
        for i, (who, person_id) in enumerate(zip(by_box.people, person_ids, strict=True)):
            box = tuple(float(side) for side in by_box.box_n4[i])
            score = float(by_box.box_score_n[i])
            person = Person(box, score, by_box.points_nk2[i], by_box.scores_nk[i])
            picture = who["picture_id"]
            number = seen[picture] = seen.get(picture, -1) + 1
            lines = tables.lines_of(picture, number, person, skeleton, run_id)
            writer.writerows([*line, person_id] for line in lines)
            result = {"image_id": picture, "category_id": 1, **tables.coco_result(person)}
            results.append(json.dumps(result | {"run_id": run_id}))
    (out / "results.json").write_text("[\n" + ",\n".join(results) + "\n]\n")


def average_precision(
    predicted: Predicted, sizes: Mapping, ignored: Mapping, skeleton: Skeleton
) -> dict[str, float]:
    """Return COCO's figures of all joints, and of those that are no hands as 'body ...'.

    sizes: (width, height) by picture id, px; ignored: its regions x, y, w, h. {} without sigmas.
    """
    if not skeleton.sigmas:
        return {}
    people = predicted.truth.people + predicted.by_box.people
    used = dict.fromkeys(who["picture_id"] for who in people)
    sizes = {name: sizes[name] for name in used}
    ignored = {name: ignored[name] for name in used}

    def figures_of(joints):
        ground_truth, _ = oks.from_found(_only(predicted.truth, joints), ignored, sizes)
        _, raw = oks.from_found(_only(predicted.by_box, joints), {}, sizes)
        sigmas = [skeleton.sigmas[joint] for joint in joints]
        return oks.average_precision(ground_truth, oks.detections(raw, sigmas), sigmas)

    everything = range(len(skeleton.keypoints))
    figures = figures_of(everything)
    hands = {j for side in ("left_hand", "right_hand") for j in skeleton.groups.get(side, ())}
    if hands:
        # Forty finger joints with tiny sigmas decide the figures of all joints together.
        body = figures_of([joint for joint in everything if joint not in hands])
        figures |= {f"body {name}": value for name, value in body.items()}
    return figures


def _only(found: Found, joints) -> Found:
    joints = list(joints)
    return found._replace(
        points_nk2=found.points_nk2[:, joints],
        scores_nk=found.scores_nk[:, joints],
        truth_nk2=found.truth_nk2[:, joints],
        visible_nk=found.visible_nk[:, joints],
    )


def _cell(value):
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
