"""Simulated adults as rows with labels of every pixel: from the folder into batches."""

import json
import pickle
import shutil

import numpy as np
import pytest

from nkjax.data import augment, records, samples, streams
from nkjax.toddlersim import solids, truth, world
from nkjax.toddlersim.lab_folder import adults, folder
from tests.toddlersim import imagined, written

SIDES = ("left", "right")
LOOK = samples.Look((48, 64), (("view", augment.DENSE),))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """30 labelled adults (three pictures of each of ten) and 3 test ones."""
    out = tmp_path_factory.mktemp("adults") / "lab"
    written.write(out, labelled=30, test=3, unlabelled=0, domain="adult")
    return out


def copy(lab, tmp_path):
    return shutil.copytree(lab, tmp_path / "copy")


def rewrite(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_row_is_what_labels_and_subjects_say(lab, split):
    rows = adults.AdultRows(lab, split, "depth")
    listed = written.labels(lab)
    names = {image["file_name"]: image for image in listed["images"]}
    sides = [line.split(",") for line in (lab / "subjects.csv").read_text().split()[1:]]
    mine = [cells[0] for cells in sides if cells[-1] == split]
    assert [row["person_id"] + ".jpg" for row in rows] == mine and len(rows) == len(mine) > 0
    for row, name in zip(rows, mine, strict=True):
        (entry,) = (
            a for a in listed["annotations"]
            if a["image_id"] == names[name]["id"] and not a["iscrowd"]
        )  # fmt: skip
        assert row["image"] == (lab / "images" / name).read_bytes()
        np.testing.assert_allclose(row["keypoints"].ravel(), entry["keypoints"], rtol=1e-6)
        np.testing.assert_allclose(row["box"], entry["bbox"], rtol=1e-6)
        assert row["area"] == entry["area"] and row["dense"].shape == written.SIZE_WH[::-1]
        assert row["posture"] in rows.manifest.content["postures"] == sorted(imagined.POSTURES)
        assert row["subject"] == next(cells[1] for cells in sides if cells[0] == name)


def test_no_subject_is_in_two_splits_and_all_rows_are_somewhere(lab):
    rows = {split: adults.AdultRows(lab, split, "seg") for split in ("train", "val", "test")}
    who = [{row["subject"] for row in part} for part in rows.values()]
    assert sum(map(len, who)) == len(set.union(*who)) == 11
    counts = rows["train"].manifest.content["splits"]
    assert {name: count["people"] for name, count in counts.items()} == {
        name: len(part) for name, part in rows.items()
    }
    assert sum(map(len, rows.values())) == 33


def test_manifest_tells_data_apart(lab, tmp_path):
    first = adults.AdultRows(lab, "train", "seg").manifest
    other = written.write(tmp_path / "b", 6, 0, 0, domain="adult", seed=1) and tmp_path / "b"
    hashes = [first, adults.AdultRows(lab, "val", "depth").manifest,
              adults.AdultRows(other, "train", "seg").manifest]  # fmt: skip
    assert len({manifest.sha256 for manifest in hashes}) == 3
    assert first.skeleton == imagined.SKELETON
    assert first.sha256 == adults.AdultRows(lab, "test", "seg").manifest.sha256


def planted():
    """4 x 3 px: a target of four px, somebody else, a thing, ground."""
    people = np.array([[0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 0, 0]], np.uint8)
    parts = np.array([[0, 5, 14, 3], [0, 21, 2, 3], [1, 0, 0, 0]], np.uint8)
    depth = np.array([[4, 2, 2.5, 1], [4, 3, 0, 1], [1, 4, 4, 4]], np.float32)
    normals = np.zeros((3, 4, 3), np.float32)
    normals[:2, 1:] = (0.6, 0.0, -0.8)
    normals[0, 1] = (0.0, -1.0, 0.0)  # up, as y counts down
    normals[1, 2] = 0.0
    return truth.Truth(depth, normals, parts, people, None, None, None)


def test_labels_by_hand():
    depth = adults.label(planted(), "depth")
    np.testing.assert_allclose(depth, [[-1, 0, 0.5, -1], [-1, 1, -1, -1], [-1] * 4], atol=1e-6)
    normals = adults.label(planted(), "normal")
    np.testing.assert_allclose(normals[0, 1:3], [(0, 1, 0), (0.6, 0, 0.8)], atol=1e-6)
    np.testing.assert_allclose(normals[1, 1], (0.6, 0, 0.8), atol=1e-6)
    others = np.ones((3, 4), bool)
    others[:2, 1:3] = False
    others[1, 2] = True
    assert (normals[others] == -1000).all()
    seg = adults.label(planted(), "seg")
    assert seg.tolist() == [[0, 5, 14, 255], [0, 21, 2, 255], [0, 0, 0, 0]]
    assert (depth.dtype, normals.dtype, seg.dtype) == (np.float32, np.float32, np.uint8)


def test_a_picture_without_target_or_of_one_depth_is_no_harm():
    nobody = planted()._replace(people_hw=np.zeros((3, 4), np.uint8))
    assert (adults.label(nobody, "depth") == -1).all()
    assert (adults.label(nobody, "normal") == -1000).all()
    flat = planted()._replace(depth_hw=np.full((3, 4), 2, np.float32))
    assert set(np.unique(adults.label(flat, "depth"))) == {-1, 0}


@pytest.mark.parametrize("task", ["depth", "normal", "seg"])
def test_batches(lab, task):
    rows = adults.AdultRows(lab, "train", task)
    stream = streams.Stream(rows, LOOK, 4)
    batch = next(streams.endless({"adults": stream}, seed=1, threads=2))["adults"]
    assert batch["valid"].all() and not any(batch["who"]["failure"])
    view = batch["views"]["view"]
    shape = (4, 64, 48, 3) if task == "normal" else (4, 64, 48)
    assert view["label"].shape == shape and (batch["posture"] >= 0).all()
    again = next(streams.endless({"adults": stream}, seed=1, threads=1))["adults"]
    np.testing.assert_array_equal(again["views"]["view"]["label"], view["label"])
    copied = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copied[3]["dense"], rows[3]["dense"])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Ten adults as the world really shows them."""
    out, counts = tmp_path_factory.mktemp("world") / "lab", {"labelled": 10}
    folder.write(out, "adult", counts, (160, 200), 0, world.example, world.SKELETON)
    return out


def rows_and_targets(real, task):
    for row in adults.AdultRows(real, "train", task):
        found = truth.read_adult(real, row["file"])
        yield row, row["dense"], found, found.people_hw == solids.TARGET


def test_depth_of_the_world(real):
    for _, label, found, target in rows_and_targets(real, "depth"):
        np.testing.assert_array_equal(label > -1, target)
        assert label[target].min() == 0 and label.max() == 1
        # Farther is more, and metres are kept up to scale.
        slope = np.corrcoef(label[target], found.depth_hw[target])[0, 1]
        assert slope > 0.9999


def test_normals_of_the_world_point_up_at_the_top_and_to_the_camera(real):
    outwards = {"top": [], "right": [], "left": []}
    for _, label, _, target in rows_and_targets(real, "normal"):
        known = (label > -100).all(-1)
        assert (known & ~target).sum() == 0 and known.sum() > 0.999 * target.sum()
        np.testing.assert_allclose(np.linalg.norm(label[known], axis=-1), 1, atol=1e-5)
        assert (label[known][:, 2] > -0.2).mean() > 0.99 and label[known][:, 2].mean() > 0.4
        ys, xs = np.nonzero(known)
        x, y, _ = label[known].T
        rims = {"top": y[ys < ys.min() + 3], "right": x[xs > xs.max() - 3],
                "left": -x[xs < xs.min() + 3]}  # fmt: skip
        cut = {"top": ys.min() == 0, "right": xs.max() == 159, "left": xs.min() == 0}
        for rim in rims.keys() - {name for name in cut if cut[name]}:
            outwards[rim].append(rims[rim].mean())
    # At its rims a body turns away, upwards at the top and to the sides; furniture hides some.
    assert all(len(found) >= 4 and np.median(found) > 0.3 for found in outwards.values())


def test_parts_of_the_world_are_of_the_side_their_joints_say(real):
    near = {(side, part): 0 for side in SIDES for part in SIDES}
    for row, label, found, target in rows_and_targets(real, "seg"):
        assert (label[target] > 0).mean() > 0.99
        assert (label[~target & (found.people_hw > 0)] == 255).all()
        assert (label[found.people_hw == 0] == 0).all()
        for side in SIDES:
            x, y, v = row["keypoints"][world.SKELETON.keypoints.index(f"{side}_wrist")].round()
            window = label[max(int(y) - 5, 0) : int(y) + 6, max(int(x) - 5, 0) : int(x) + 6]
            for part in SIDES if v == 2 else ():
                near[side, part] += (window == solids.PARTS.index(f"{part}_hand")).sum()
    for side, other in (SIDES, SIDES[::-1]):
        assert near[side, side] > 10 * near[side, other] > -1 and near[side, side] > 20


def test_readable_refusals(lab, tmp_path):
    for split in ("unlabelled", "validation"):
        with pytest.raises(records.BadData, match=f"no split '{split}'; it has train, val, test"):
            adults.AdultRows(lab, split, "seg")
    with pytest.raises(ValueError, match="task 'pose'; want one of depth, normal, seg"):
        adults.AdultRows(lab, "train", "pose")
    with pytest.raises(records.BadData, match="not a simulated folder"):
        adults.AdultRows(tmp_path, "train", "seg")
    written.write(tmp_path / "t", 6, 0, 0)
    with pytest.raises(records.BadData, match="holds 'toddler' people; only adults' truth"):
        adults.AdultRows(tmp_path / "t", "train", "seg")
    # Whoever edits the settings still does not get at the toddlers' truth.
    rewrite(tmp_path / "t" / "simulation.json", domain="adult")
    with pytest.raises(records.BadData, match="holds 'toddler' people; only adults' truth"):
        adults.AdultRows(tmp_path / "t", "train", "seg")
    bad = copy(lab, tmp_path)
    rewrite(bad / "simulation.json", defects=["exif"])
    with pytest.raises(records.BadData, match="has planted mistakes; simulate adults without"):
        adults.AdultRows(bad, "train", "seg")


@pytest.mark.parametrize(("damage", "says"), [
    (lambda lab: shutil.rmtree(lab / "truth"), "not there or damaged; not a whole simulated"),
    (lambda lab: (lab / "labels.json").write_text("{}"), "its lists are damaged"),
    (lambda lab: (lab / "labels.json").write_text("["), "its lists are damaged"),
    (lambda lab: (lab / "labels.json").unlink(), "its lists are damaged"),
    (lambda lab: (lab / "subjects.csv").unlink(), "its lists are damaged"),
    (lambda lab: (lab / "skeleton.json").write_text("[]"), "its lists are damaged"),
    (lambda lab: rewrite(lab / "labels.json", annotations=[]), "its lists are damaged"),
    (lambda lab: rewrite(lab / "labels.json", images=[], annotations=[]), "it has none"),
])  # fmt: skip
def test_damaged_folders_are_refused_in_one_line(lab, tmp_path, damage, says):
    bad = copy(lab, tmp_path)
    damage(bad)
    with pytest.raises(records.BadData, match=says) as raised:
        adults.AdultRows(bad, "train", "seg")
    assert "\n" not in str(raised.value) and str(bad) in str(raised.value)


def test_a_row_whose_files_do_not_fit_fails_alone(lab, tmp_path):
    bad = copy(lab, tmp_path)
    rows = adults.AdultRows(bad, "train", "seg")
    names = [row["file"] for row in rows]
    smaller = imagined.example("adult", "labelled", 1, (64, 64), 0)
    truth.write(bad, names[1], smaller)
    (bad / "images" / names[2]).unlink()
    (bad / "truth" / names[3].replace(".jpg", ".npz")).write_bytes(b"")
    with pytest.raises(records.BadData, match="its truth is of another size than the picture"):
        rows[1]
    stream = streams.Stream(rows, LOOK, 6)
    batch = next(streams.finite(stream, threads=2))
    assert batch["valid"].tolist() == [True, False, False, False, True, True]
    assert (batch["views"]["view"]["label"][1:4] == 255).all()
    assert "another size" in batch["who"]["failure"][1]
    with pytest.raises(IndexError, match="row 99 of"):
        rows[99]
