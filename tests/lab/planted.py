"""A drawn lab to plant a fault in, and to read without any of its files changing."""

import hashlib
import json
import os

import numpy as np

from nkjax.lab import check
from nkjax.lab.rows import Inputs
from tests.data_io import drawn

QUIET = {"NK201", "NK254"}  # said of every small lab


class Planted:
    """A lab, of six pictures with a person each, to plant a fault in and to read."""

    def __init__(self, folder, pictures=6, people=1):
        self.folder, self.images = folder, folder / "images"
        self.data = drawn.write_lab(folder, pictures, people)
        self.names = [image["file_name"] for image in self.data["images"]]
        self.people, self.entries = self.data["annotations"], self.data["images"]

    def read(self, **inputs):
        """Read the lab; returns it and its codes with their counts. The files stay as they are."""
        (self.folder / "labels.json").write_text(json.dumps(self.data))
        before = hashes(self.folder)
        plain = {"annotations": "labels.json", "images": "images", "subjects": "subjects.csv"}
        plain = {key: str(self.folder / name) for key, name in plain.items()}
        try:
            lab = check.read_lab(Inputs(**plain | inputs))
        finally:
            assert hashes(self.folder) == before
        codes = {f.code: f.count for f in lab.findings.listed() if f.code not in QUIET}
        return lab, codes

    def example(self, lab, code):
        (found,) = [f for f in lab.findings.listed() if f.code == code]
        return " ".join(found.examples)

    def still_right(self, lab, without=()):
        """Assert that all people but those of pictures `without` came out as they were drawn."""
        want = [e for e in self.people if e["image_id"] - 1 not in without]
        left_out = {self.names[i] for i in without}
        got = [p for p in lab.people if p.source_id is not None and p.picture not in left_out]
        assert [p.source_id for p in got] == [e["id"] for e in want]
        for person, entry in zip(got, want, strict=True):
            np.testing.assert_allclose(person.keypoints_k3.ravel(), entry["keypoints"], atol=1e-4)
            assert person.box_xywh == tuple(entry["bbox"]) and person.box_source == "labels"


def lock_out(monkeypatch, name):
    """Let no folder of this name be opened, as another user's."""
    whole = os.scandir

    def scandir(path):
        if os.fspath(path).endswith(name):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)


def hashes(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip
