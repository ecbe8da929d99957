"""From a lab's JSON to a contact sheet and through the stream: every label arrives, or is counted.

Runs on a drawn lab, and on real photographs where NKJAX_SAMPLES_COCO names a folder that holds
test_coco.json, test_coco_wholebody.json and their pictures (they may not be in this project).
"""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax.data import augment, records, samples, streams
from nkjax.geometry import affine
from tests.data_io import drawn

ROOT = Path(__file__).parents[1]
SAMPLES = os.environ.get("NKJAX_SAMPLES_COCO", "")
# COCO-WholeBody's lists, in the order of the 133 joints.
PARTS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
LENGTHS = (17, 6, 68, 21, 21)


def run(script, *options):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, options)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drawn_lab(folder):
    """Draw three people of 133 joints a picture, a left hand that is not valid among them."""
    data = drawn.write_lab(folder, pictures=5, people=3, size_wh=(200, 150))
    rng = np.random.default_rng(1)
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        for part, count in zip(PARTS[1:], LENGTHS[1:], strict=True):
            joints = np.column_stack([
                rng.uniform((x, y), (x + w, y + h), (count, 2)), rng.integers(0, 3, count)
            ])  # fmt: skip
            entry[part] = joints.round(2).reshape(-1).tolist()
        for flag in ("face", "foot", "lefthand", "righthand"):
            entry[f"{flag}_valid"] = True
    data["annotations"][4]["lefthand_valid"] = False
    for name in ("test_coco.json", "test_coco_wholebody.json"):
        (folder / name).write_text(json.dumps(data))
    for picture in (folder / "images").iterdir():
        picture.rename(folder / picture.name)
    return folder


@pytest.fixture(params=["drawn", "photographs"], scope="module")
def lab(request, tmp_path_factory):
    if request.param == "drawn":
        return drawn_lab(tmp_path_factory.mktemp("lab"))
    if not SAMPLES:
        warnings.warn("NKJAX_SAMPLES_COCO is not set: no real photograph was tried", stacklevel=1)
        pytest.skip("NKJAX_SAMPLES_COCO names no folder of labelled photographs")
    return Path(SAMPLES)


@pytest.mark.parametrize(("file", "skeleton", "count"), [
    ("test_coco.json", "coco17", 17), ("test_coco_wholebody.json", "wholebody133", 133),
])  # fmt: skip
def test_every_label_arrives_or_is_counted(lab, tmp_path, file, skeleton, count):
    inputs = ("--annotations", lab / file, "--images", lab, "--skeleton", skeleton)
    before = {path.name: path.read_bytes() for path in lab.iterdir() if path.is_file()}
    run("check_data.py", *inputs, "--report", tmp_path / "report")
    sheet = cv2.imread(str(tmp_path / "report" / "people.jpg"))
    assert sheet is not None and min(sheet.shape[:2]) > 200
    said = run("pack_data.py", *inputs, "--out", tmp_path / "data", "--val_share", "0",
               "--test_share", "0")  # fmt: skip
    assert before == {path.name: path.read_bytes() for path in lab.iterdir() if path.is_file()}

    entries = {entry["id"]: entry for entry in json.loads(before[file])["annotations"]}
    with open(tmp_path / "data" / "private" / "mapping.csv", newline="") as table:
        source = {row["person_id"]: row for row in csv.DictReader(table)}
    arrived, compared = set(), 0
    manifest = records.read_manifest(tmp_path / "data")
    look = samples.Look((96, 128), (("view", augment.SAPIENS),))
    stream = streams.Stream(records.Rows(manifest, "train"), look, 4)
    for batch in streams.finite(stream, threads=2):
        for i in np.flatnonzero(batch["valid"]):
            entry = entries[int(source[batch["who"]["person_id"][i]]["annotation_id"])]
            arrived.add(entry["id"])
            wanted = np.concatenate([
                np.reshape(entry[part], (-1, 3)) for part in PARTS[: 1 if count == 17 else 5]
            ])  # fmt: skip
            if not entry.get("lefthand_valid", True):
                wanted[91:112, 2] = 0
            if not entry.get("righthand_valid", True):
                wanted[112:133, 2] = 0
            seen = batch["visible"][i] > 0
            # A joint that the file places is there with its visibility, as far as the file tells.
            assert (seen == (wanted[:, 2] > 0)).all(), entry["id"]
            whole = seen & (wanted[:, 2] == np.round(wanted[:, 2]))
            assert (batch["visible"][i] == wanted[:, 2])[whole].all()
            view = batch["views"]["view"]
            for points, matrix in (
                (batch["points"][i], batch["from_picture"][i]),
                (
                    view["points"][i][list(manifest.skeleton.flip_indices)]
                    if view["mirrored"][i] else view["points"][i],
                    affine.compose(view["from_canonical"][i], batch["from_picture"][i]),
                ),
            ):  # fmt: skip
                back = affine.transform_points(affine.invert(matrix), points.astype(np.float64))
                np.testing.assert_allclose(back[seen], wanted[seen, :2], atol=0.05)
                compared += int(seen.sum())
    nobody = {i for i, entry in entries.items() if not any(entry["keypoints"][2::3])}
    if count == 133:
        nobody = {
            i for i in nobody
            if not any(v > 0 for part in PARTS[1:] for v in entries[i][part][2::3])
        }  # fmt: skip
    assert arrived == set(entries) - nobody
    assert compared > 200
    findings = {f["code"]: f["count"] for f in manifest.content["findings"]}
    assert findings.get("NK238", 0) == len(nobody)
    assert ("NK238" in said) == bool(nobody)
    joints = sum(c for code, c in findings.items() if code == "NK201")
    assert joints == count * len(entries)
