"""Simulated folders read back with their truth, to be looked at and measured."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nkjax import skeleton_formats
from nkjax.data import images
from nkjax.skeleton import Skeleton
from nkjax.toddlersim import truth, world
from nkjax.toddlersim.lab_folder import folder as simulated_folder
from nkjax.toddlersim.lab_folder.folder import BadFolder
from nkjax.toddlersim.truth import BadTruth, Truth

LABELLED = ("labelled", "test")


class Picture(NamedTuple):
    """A simulated picture as read back. file: its name; keypoints_k3: px and v; box_xywh: px.

    joints_k3, ways_23: see Truth. role, subject, posture, grasp: as truth/people.csv has them.
    image_hw3, truth: None where only the person was asked for.
    """

    file: str
    keypoints_k3: np.ndarray
    box_xywh: np.ndarray
    joints_k3: np.ndarray
    ways_23: np.ndarray
    image_hw3: np.ndarray | None
    truth: Truth | None
    role: str
    subject: str
    posture: str
    grasp: str


def skeleton_of(folder) -> Skeleton:
    """Return the joints of a simulated folder, once it is certain that it can be looked at.

    Raises BadFolder for a folder that is not a whole simulated one, that holds no labelled or test
    pictures, or whose lists have mistakes planted; BadSkeleton where skeleton.json is damaged.
    """
    known = simulated_folder.settings(folder)
    if known["defects"]:
        raise BadFolder(f"{folder}: has mistakes planted, and no longer fits its truth")
    if not any(known["counts"][role] for role in LABELLED):
        raise BadFolder(f"{folder}: holds no labelled or test pictures")
    skeleton = skeleton_formats.load(Path(folder) / "skeleton.json")
    if skeleton.keypoints != world.SKELETON.keypoints:
        raise BadFolder(f"{folder}: skeleton.json has other joints than simulated people")
    return skeleton


def read(folder, skeleton: Skeleton, whole: int) -> Iterator[Picture]:
    """Read the labelled and test pictures of a simulated folder, in order.

    skeleton: of its K joints (`skeleton_of`). whole: of each role so many, spread over all, with
    image and truth; of the others the person alone, which keeps memory small. Raises BadTruth, in
    one line, where a file is missing or damaged, or labels, pictures and truth do not fit.
    """
    folder, count = Path(folder), len(skeleton.keypoints)
    try:
        with open(folder / truth.FOLDER / truth.PEOPLE, newline="", encoding="utf-8") as file:
            people = list(csv.DictReader(file))
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        listed = {image["file_name"]: image for image in labels["images"]}
        entries = {entry["image_id"]: entry for entry in labels["annotations"]
                   if not entry["iscrowd"]}  # fmt: skip
        for role in LABELLED:
            rows = [row for row in people if row["role"] == role]
            shown = {int(i) for i in np.linspace(0, len(rows) - 1, min(whole, len(rows)))}
            for i, row in enumerate(rows):
                known, image = truth.read(folder, row["file"]), listed[row["file"]]
                points, box = _person(entries[image["id"]], count)
                size = (image["height"], image["width"])
                pixels = images.read_rgb(folder / "images" / row["file"]) if i in shown else None
                found = size if pixels is None else pixels.shape[:2]
                if not size == found == known.depth_hw.shape or len(known.joints_k3) != count:
                    raise BadTruth(f"{folder}: picture, labels and truth of {row['file']} do not"
                                   " fit each other; simulate the folder again")  # fmt: skip
                yield Picture(
                    row["file"], points, box, known.joints_k3, known.ways_23, pixels,
                    known if i in shown else None, role,
                    row["subject"], row["posture"], row["grasp"],
                )  # fmt: skip
    except BadTruth:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadTruth(f"{folder}: not a whole simulated folder ({reason})") from None


def _person(entry, count) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints (K, 3) and the box (4,) of an entry; ValueError where they are not such."""
    points, box = np.array(entry["keypoints"], float), np.array(entry["bbox"], float)
    if points.shape != (3 * count,) or not np.isfinite(points).all():
        raise ValueError(f"keypoints of image {entry['image_id']} are not {count} triples")
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"bbox of image {entry['image_id']} is not of four numbers")
    return points.reshape(-1, 3), box
