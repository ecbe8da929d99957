"""What a prediction run leaves behind: tidy CSV, COCO results, overlays, and who was who.

- keypoints.csv    a row per person and joint, picture px
- results.json     COCO keypoint results
- overlays/ID.jpg  skeletons, faces masked
- pictures.csv     a row per picture: what became of it
- run.json         written last, by `predict`: settings, versions, provenance, counts
- private/         which id is which file; stays with the lab
"""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nkjax.evaluate import draw
from nkjax.evaluate.pictures import Picture
from nkjax.evaluate.topdown import Person, Prediction
from nkjax.skeleton import Skeleton

# Keypoints above this score count in the score of a person, as in the reference's metric.
INSTANCE_SCORE = 0.2
KEYPOINT_COLUMNS = "picture person joint x y score box_x box_y box_w box_h box_score run_id".split()
PRIVATE_NOTE = """\
This folder says which file each id in the results stands for, and holds the salt that makes the
ids. Keep it in the lab: never pass it on with the results. Give salt.txt to --salt and the next
run uses the same ids for the same files.
"""


@contextlib.contextmanager
def open_tables(
    folder: Path, run_id: str, skeleton: Skeleton, category, faces: str, show_paths: bool
) -> Iterator[Callable[[Prediction], str]]:
    """Open the tables of a run; gives a function that writes a prediction and tells its status.

    category: category_id of the results; faces: 'mask' or 'show'; show_paths: string image ids,
    which are file names, may appear in results. Nothing is held but the open files.
    """
    with contextlib.ExitStack() as stack:
        keypoints, pictures, results = (
            stack.enter_context(_create(folder / name))
            for name in ("keypoints.csv", "pictures.csv", "results.json")
        )
        keypoint_rows, picture_rows = csv.writer(keypoints), csv.writer(pictures)
        keypoint_rows.writerow(KEYPOINT_COLUMNS)
        picture_rows.writerow(["picture", "status", "people", "boxes_outside", "reason"])
        results.write("[")
        separator = "\n"

        def write(prediction: Prediction) -> str:
            nonlocal separator
            picture, people = prediction.picture, prediction.people
            status = _status(prediction)
            picture_rows.writerow(
                [picture.id, status, len(people), prediction.outside, prediction.failure]
            )
            image_id = picture.id
            if isinstance(picture.image_id, int) or (show_paths and picture.image_id is not None):
                image_id = picture.image_id
            for i, person in enumerate(people):
                keypoint_rows.writerows(lines_of(picture.id, i, person, skeleton, run_id))
                result = {"image_id": image_id, "category_id": category, **coco_result(person)}
                results.write(separator + json.dumps(result | {"run_id": run_id}))
                separator = ",\n"
            if people:
                _write_overlay(folder / "overlays", prediction, skeleton, faces)
            return status

        yield write
        results.write("\n]\n")


def write_private(folder: Path, pictures: list[Picture], salt: bytes, command: str) -> None:
    """Write which id is which file, the salt and the full command, for the lab's eyes."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    (private / "README.txt").write_text(PRIVATE_NOTE)
    (private / "salt.txt").write_text(salt.hex() + "\n")
    with _create(private / "command.txt") as file:
        file.write(command + "\n")
    with _create(private / "mapping.csv") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", "file", "image_id"])
        rows.writerows([p.id, p.name, p.image_id] for p in pictures)


def without_private(command: Sequence[str], private: set[str]) -> list[str]:
    """Return the words of a command line without the paths in `private`, whole or as OPTION=PATH.

    A path may hold a "=" itself.
    """

    def public(word):
        option, equals, value = word.partition("=")
        if word in private:
            return "[private]"
        return f"{option}=[private]" if equals and value in private else word

    return [public(word) for word in command]


def instance_score(person: Person) -> float:
    """Return box score x mean of the keypoint scores above 0.2 (0 if none; sapiens.md A9)."""
    above = person.scores_k[person.scores_k > INSTANCE_SCORE]
    return person.box_score * float(above.mean(dtype=np.float64)) if above.size else 0.0


def _create(path: Path):
    # File names may hold bytes that are no UTF-8; they are written as they are.
    return open(path, "x", newline="", encoding="utf-8", errors="surrogateescape")


def _status(prediction: Prediction) -> str:
    picture = prediction.picture
    if prediction.failure:
        return "failed"
    if prediction.people:
        return "predicted"
    if prediction.outside:
        return "boxes outside"
    return "no box above min_score" if picture.others else "no box"


def lines_of(picture_id, number, person: Person, skeleton: Skeleton, run_id) -> Iterator[list]:
    """Yield the lines of keypoints.csv about a person, one per joint: px of the picture."""
    box = [f"{v:.3f}" for v in person.box_xywh]
    for name, (x, y), score in zip(
        skeleton.keypoints, person.points_k2, person.scores_k, strict=True
    ):
        at = [f"{x:.3f}", f"{y:.3f}", f"{score:.6f}"]
        yield [picture_id, number, name, *at, *box, f"{person.box_score:.6f}", run_id]


def coco_result(person: Person) -> dict:
    """Return keypoints and score of a person as COCO results have them: px of the picture."""
    values = np.concatenate([person.points_k2, person.scores_k[:, None]], 1)
    # No 'bbox': pycocotools would take the file for boxes.
    return {
        "keypoints": [round(float(v), 4) for v in values.reshape(-1)],
        "score": round(instance_score(person), 6),
    }


def _write_overlay(folder: Path, prediction: Prediction, skeleton: Skeleton, faces):
    picture = prediction.picture
    canvas = draw.overlay(
        prediction.image_hwc,
        prediction.people,
        [box.xywh for box in picture.others],
        skeleton,
        faces,
        blur=picture.boxes is None,
    )
    plain = picture.id.lower().endswith((".jpg", ".jpeg"))
    path = folder / (picture.id if plain else f"{picture.id}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw.encode_jpeg(canvas))
