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

    role, subject, posture, grasp: as truth/people.csv has them.
    """

    file: str
    image_hw3: np.ndarray
    keypoints_k3: np.ndarray
    box_xywh: np.ndarray
    truth: Truth
    role: str
    subject: str
    posture: str
    grasp: str


def read(folder) -> Iterator[Picture]:
    """Read the labelled and test pictures of a simulated folder, in order, with their truth.

    Raises BadTruth, in one line, for a folder that is not one or that lacks a file.
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
            for row in (row for row in people if row["role"] == role):
                entry = entries[numbers[row["file"]]]
                yield Picture(
                    row["file"], images.read_rgb(folder / "images" / row["file"]),
                    np.array(entry["keypoints"], float).reshape(-1, 3), np.array(entry["bbox"]),
                    truth.read(folder, row["file"]), role,
                    row["subject"], row["posture"], row["grasp"],
                )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadTruth):
            raise
        reason = " ".join(str(error).split())[:200]
        raise BadTruth(f"{folder}: not a whole simulated folder ({reason})") from None
