"""Simulated folders read back with their truth, to be looked at and measured."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nkjax.data import images
from nkjax.toddlersim import truth
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


def read(folder, whole: int) -> Iterator[Picture]:
    """Read the labelled and test pictures of a simulated folder, in order.

    whole: of each role so many with image and truth; of the others the person alone, which keeps
    memory small. Raises BadTruth, in one line, for a folder that is not one or that lacks a file.
    """
    folder = Path(folder)
    try:
        with open(folder / truth.FOLDER / truth.PEOPLE, newline="", encoding="utf-8") as file:
            people = list(csv.DictReader(file))
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        numbers = {image["file_name"]: image["id"] for image in labels["images"]}
        entries = {entry["image_id"]: entry for entry in labels["annotations"]
                   if not entry["iscrowd"]}  # fmt: skip
        for role in LABELLED:
            rows = [row for row in people if row["role"] == role]
            for i, row in enumerate(rows):
                entry, known = entries[numbers[row["file"]]], truth.read(folder, row["file"])
                image = images.read_rgb(folder / "images" / row["file"]) if i < whole else None
                yield Picture(
                    row["file"], np.array(entry["keypoints"], float).reshape(-1, 3),
                    np.array(entry["bbox"]), known.joints_k3, known.ways_23, image,
                    known if i < whole else None, role,
                    row["subject"], row["posture"], row["grasp"],
                )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadTruth):
            raise
        reason = " ".join(str(error).split())[:200]
        raise BadTruth(f"{folder}: not a whole simulated folder ({reason})") from None
