"""A simulated folder's lists in memory, to plant mistakes in: nothing twice at one place."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.toddlersim.lab_folder import folder


class BadDefects(ValueError):
    """Mistakes that are not known, or that a folder is too small for; the message is one line."""


class Victim(NamedTuple):
    """A labelled or test picture: its entry, the target's, all entries on it, line and file."""

    image: dict
    person: dict
    entries: list[dict]
    line: dict
    path: Path

    def joints(self) -> np.ndarray:
        """Return the target's joints (K, 3), a copy."""
        return np.array(self.person["keypoints"], float).reshape(-1, 3)

    def put(self, joints_k3) -> None:
        """Give the target other joints."""
        self.person["keypoints"] = np.asarray(joints_k3, float).ravel().tolist()
        self.person["num_keypoints"] = int((np.asarray(joints_k3)[:, 2] > 0).sum())


class HandedOver:
    """The content of labels.json, subjects.csv and detections.json, and the pictures not spoilt.

    data: the COCO JSON; lines: of subjects.csv; detections: list of results; skeleton: the joints,
    in the order of the JSON; size_wh: px of the pictures.
    """

    def __init__(self, out):
        self.out, self.size_wh = Path(out), folder.settings(out)["size_wh"]
        self.data = self._read("labels.json", {"images": [], "annotations": [], "categories": []})
        self.detections = self._read("detections.json", [])
        self.skeleton = skeletons.parse(self._read("skeleton.json", {}), "skeleton.json")
        with open(self.out / "subjects.csv", newline="", encoding="utf-8") as file:
            self.lines = list(csv.DictReader(file))
        self._free = {"labelled": [], "test": []}
        by_image, by_file = {}, {line["file"]: line for line in self.lines}
        for entry in self.data["annotations"]:
            by_image.setdefault(entry["image_id"], []).append(entry)
        for image in self.data["images"]:
            entries, line = by_image[image["id"]], by_file[image["file_name"]]
            role = "test" if line["split"] == "test" else "labelled"
            path = self.out / "images" / image["file_name"]
            self._free[role].append(Victim(image, entries[0], entries, line, path))
        self._unlabelled = self._all_but_one()

    def not_spoilt(self) -> list[Victim]:
        """Return every picture that is not spoilt yet."""
        return [victim for free in self._free.values() for victim in free]

    def take(self, role="labelled", worth: Callable = lambda victim: 0.0) -> Victim:
        """Return the picture that is worth most, the first of several, and never again.

        Raises BadDefects where none is left, or worth is minus infinity for all.
        """
        free = self._free[role]
        best = max(free, key=worth, default=None)
        if best is None or worth(best) == -np.inf:
            raise BadDefects(f"{self.out}: too few {role} pictures for so many mistakes; make more")
        free.remove(best)
        return best

    def take_unlabelled(self) -> Path:
        """Return an unlabelled picture, and never again; each child keeps one as it was."""
        if not self._unlabelled:
            raise BadDefects(
                f"{self.out}: too few unlabelled pictures for so many mistakes; make more"
            )
        return self._unlabelled.pop(0)

    def save(self) -> None:
        """Write the lists again."""
        if self.data["images"]:
            self._write("labels.json", self.data)
        if (self.out / "detections.json").exists():
            self._write("detections.json", self.detections)
        with open(self.out / "subjects.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.lines[0]))
            writer.writeheader()
            writer.writerows(self.lines)

    def _all_but_one(self) -> list[Path]:
        by_child = {}
        for path in sorted((self.out / "unlabelled").glob("*.jpg")):
            by_child.setdefault(path.name.rpartition("_")[0], []).append(path)
        return [path for paths in by_child.values() for path in paths[1:]]

    def _read(self, name, otherwise):
        path = self.out / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise

    def _write(self, name, content):
        (self.out / name).write_text(json.dumps(content), encoding="utf-8")
