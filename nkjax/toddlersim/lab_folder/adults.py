"""Simulated adults as rows to pre-train on, with depth, normals or parts of every pixel.

Read from the simulated folder itself: a packed one does not know which truth is whose.
"""

import hashlib
from pathlib import Path

import numpy as np
from etils import epath

from nkjax import skeleton_formats
from nkjax.data import coco, dense_labels, jpeg
from nkjax.data.records import BadData, Manifest
from nkjax.lab import subjects
from nkjax.toddlersim import solids, truth
from nkjax.toddlersim.lab_folder import folder as folders

LISTS = ("labels.json", "subjects.csv", "skeleton.json", truth.SETTINGS)
REMEDY = "simulate the folder again: scripts/simulate.py"


class AdultRows:
    """The adults of a split by number, as `records.Rows`, each with the label of its picture.

    rows[i] has the fields of a person and its picture that samples need, texts as str, the JPEG
    under 'image', and: task, one of dense_labels.KINDS; dense, the label (H, W, ...). manifest has
    the skeleton and as content 'task', 'splits', 'postures', and 'files', the hashes of the lists.

    Raises BadData for anything but a whole folder of simulated adults with its truth and without
    planted mistakes, and for a split that is not there. Reading a row raises ValueError or OSError
    where its picture or truth is damaged.
    """

    def __init__(self, folder, split: str, task: str):
        if task not in dense_labels.KINDS:
            raise ValueError(f"task {task!r}; want one of {', '.join(dense_labels.KINDS)}")
        self.folder, self.split, self.task = Path(folder), split, task
        _check(self.folder)
        try:
            skeleton = skeleton_formats.load(self.folder / "skeleton.json")
            everyone = _people(self.folder)
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadData(f"{folder}: its lists are damaged ({reason}); {REMEDY}") from None
        self._people = [person for person in everyone if person["split"] == split]
        self.manifest = Manifest(epath.Path(folder), _content(self, everyone), skeleton)
        if not self._people:
            there = ", ".join(self.manifest.content["splits"])
            raise BadData(f"{folder}: no split {split!r}; it has {there or 'none'}")
        # Rather now than row by row in the middle of a run: is there truth to learn from at all?
        try:
            truth.read_adult(self.folder, self._people[0]["file"])
        except truth.BadTruth as error:
            raise BadData(str(error)) from None

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, row: int) -> dict:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        person = self._people[row]
        path = self.folder / folders.PLACES["labelled"] / person["file"]
        image, found = path.read_bytes(), truth.read_adult(self.folder, person["file"])
        size_wh = jpeg.size_wh(image)
        if size_wh != found.depth_hw.shape[::-1]:
            raise BadData(f"{path}: its truth is of another size than the picture; {REMEDY}")
        return person | {"image": image, "task": self.task, "dense": label(found, self.task)}


def label(found: truth.Truth, task: str):
    """Make the label (H, W, ...) of a picture from its truth, in the form of `dense_labels`.

    Of the target alone. Depth is normalised over the target, as seen in the whole picture. Where
    others are, depth and normals have no value and parts are not asked (255): called background,
    somebody's hand would teach that hands are background.
    """
    target = found.people_hw == solids.TARGET
    if task == "seg":
        others = (found.people_hw != solids.NOBODY) & ~target
        parts = np.where(target, found.parts_hw, 0)
        return np.where(others, dense_labels.KINDS["seg"].nothing, parts).astype(np.uint8)
    made = dense_labels.blank(task, found.depth_hw.shape[::-1])
    if task == "depth":
        known = target & (found.depth_hw > 0)
        if known.any():
            depth = found.depth_hw[known]
            extent = np.maximum(depth.max() - depth.min(), np.float32(truth.DEPTH_STEP))
            made[known] = (depth - depth.min()) / extent
        return made
    known = target & found.normals_hw3.any(-1)
    # From x right, y down, z forward.
    made[known] = found.normals_hw3[known] * np.array([1, -1, -1], np.float32)
    return made


def _check(folder) -> None:
    try:
        settings = folders.settings(folder)
    except folders.BadFolder as error:
        raise BadData(str(error)) from None
    if settings["domain"] != "adult":
        who = settings["domain"]
        raise BadData(f"{folder}: holds {who!r} people; only adults' truth may be learned from")
    if settings["defects"]:
        raise BadData(f"{folder}: has planted mistakes; simulate adults without --defects")


def _people(folder) -> list[dict]:
    """Return the labelled adults in the order of the pictures, as rows without pixels."""
    data = coco.read_json(folder / "labels.json")
    who = {row.file: row.subject for row in subjects.read(folder / "subjects.csv")}
    targets = {entry["image_id"]: entry for entry in data["annotations"] if not entry["iscrowd"]}
    people = []
    for image in data["images"]:
        entry, subject = targets[image["id"]], who[image["file_name"]]
        keypoints = np.asarray(entry["keypoints"], np.float32).reshape(-1, 3)
        name = image["file_name"].removesuffix(".jpg")
        people.append({
            "file": image["file_name"], "split": subject.split,
            "person_id": name, "picture_id": name, "subject": subject.id,
            "session": subject.session, "site": subject.site, "posture": subject.posture,
            "grasp": entry.get("grasp", ""), "box_source": "labels", "annotation_id": entry["id"],
            "age_months": np.float32(subject.age_months), "box_score": np.float32(1),
            "area": np.float32(entry["area"]), "keypoints": keypoints,
            "box": np.asarray(entry["bbox"], np.float32),
            "width": image["width"], "height": image["height"],
        })  # fmt: skip
    return people


def _content(rows: AdultRows, everyone) -> dict:
    splits = [person["split"] for person in everyone]
    return {
        "task": rows.task,
        "splits": {
            name: {"people": splits.count(name), "pictures": splits.count(name)}
            for name in subjects.SPLITS
            if name in splits
        },
        "shards": [],
        "postures": sorted({person["posture"] for person in everyone} - {""}),
        "files": {
            name: hashlib.sha256((rows.folder / name).read_bytes()).hexdigest() for name in LISTS
        },
    }
