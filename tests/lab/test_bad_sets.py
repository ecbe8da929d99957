"""Bad input, continued: names, joint order, subjects, copies and label noise, planted in a lab."""

import shutil
import unicodedata

import cv2
import numpy as np
import pytest

from nkjax.data.coco import BadAnnotations
from nkjax.lab import check, layout
from nkjax.lab.rows import Inputs
from tests.data_io import drawn
from tests.lab.planted import Planted

COCO17 = drawn.COCO17


@pytest.fixture
def lab(tmp_path):
    return Planted(tmp_path / "lab")


def test_another_category_and_no_image(lab):
    lab.people[1]["category_id"] = 2
    lab.people[2]["image_id"] = 99
    read, codes = lab.read()
    lab.people[2]["image_id"] = 3
    assert codes == {"NK244": 1, "NK237": 1, "NK240": 2}
    lab.still_right(read, without=[1, 2])
    for entry in lab.people:
        entry["category_id"] = 2
    with pytest.raises(BadAnnotations, match="--person_category"):
        lab.read()


def test_joints_in_another_order(lab):
    order = np.roll(np.arange(17), 3)
    for entry in lab.people:
        entry["keypoints"] = np.array(entry["keypoints"]).reshape(17, 3)[order].ravel().tolist()
    lab.data["categories"][0]["keypoints"] = [COCO17.keypoints[i] for i in order]
    read, codes = lab.read()
    assert codes == {"NK422": 17}
    for entry in lab.people:
        back = np.array(entry["keypoints"]).reshape(17, 3)[np.argsort(order)]
        entry["keypoints"] = back.ravel().tolist()
    lab.still_right(read)
    lab.data["categories"][0]["keypoints"] = [*COCO17.keypoints[:16], "tail"]
    read, codes = lab.read(skeleton="coco17")
    assert codes == {"NK421": 1, "NK423": 1}
    del lab.data["categories"][0]["keypoints"]
    read, codes = lab.read(skeleton="coco17")
    assert codes == {"NK424": 1}
    lab.still_right(read)


def test_pictures_that_are_not_there(lab):
    (lab.images / lab.names[0]).unlink()
    (lab.images / lab.names[1]).rename(lab.folder / lab.names[1])
    (lab.images / lab.names[2]).unlink()
    (lab.images / lab.names[2]).mkdir()
    read, codes = lab.read()
    assert codes == {"NK131": 3, "NK245": 3}
    assert lab.example(read, "NK131").split() == lab.names[:3]
    lab.still_right(read, without=[0, 1, 2])


def rename(lab, position, on_disk, in_json=None):
    """Call a file of the lab, its line of the CSV, and its entry by other names."""
    (lab.images / on_disk).parent.mkdir(exist_ok=True)
    (lab.images / lab.names[position]).rename(lab.images / on_disk)
    csv = lab.folder / "subjects.csv"
    csv.write_text(csv.read_text().replace(lab.names[position], on_disk))
    lab.names[position] = on_disk
    lab.entries[position]["file_name"] = on_disk if in_json is None else in_json


def test_names_in_another_case_or_unicode_form(lab):
    rename(lab, 0, "Kind_01.JPG", "kind_01.jpg")
    rename(lab, 1, unicodedata.normalize("NFD", "Zoë.jpg"), unicodedata.normalize("NFC", "Zoë.jpg"))
    rename(lab, 2, "sub/c.jpg", "sub\\c.jpg")
    rename(lab, 3, "sub/d.jpg", "./sub/../sub/d.jpg")
    read, codes = lab.read()
    assert codes == {"NK132": 2}
    lab.still_right(read)


def test_names_in_another_folder(lab):
    rename(lab, 0, "sub/a.jpg", "a.jpg")
    rename(lab, 1, "b.jpg", "/data/project/images/b.jpg")
    # A folder that contradicts is no match: another child may have a file of this name.
    rename(lab, 2, "sub/c.jpg", "other/c.jpg")
    csv = lab.folder / "subjects.csv"
    csv.write_text(csv.read_text().replace("sub/c.jpg", "other/c.jpg"))
    read, codes = lab.read()
    assert codes == {"NK135": 2, "NK131": 1, "NK133": 1, "NK245": 1}
    lab.still_right(read, without=[2])


def test_names_that_fit_several_files_and_files_of_several_names(lab):
    (lab.images / "sub").mkdir()
    shutil.copy(lab.images / lab.names[0], lab.images / "sub" / "twin.jpg")
    shutil.copy(lab.images / lab.names[0], lab.images / "SUB_twin.jpg")
    shutil.copy(lab.images / lab.names[0], lab.images / "sub_TWIN.jpg")
    lab.entries[0]["file_name"] = "Sub_Twin.jpg"
    lab.entries[2]["file_name"] = lab.names[1]
    csv = lab.folder / "subjects.csv"
    kept = [line for line in csv.read_text().splitlines(True) if lab.names[2] not in line]
    csv.write_text("".join(kept).replace(lab.names[0], "Sub_Twin.jpg"))
    read, codes = lab.read()
    # Named by nobody now: the twin below sub/, and the first and third picture.
    assert codes == {"NK134": 1, "NK136": 2, "NK133": 3, "NK245": 3}
    lab.still_right(read, without=[0, 1, 2])


def test_files_that_no_entry_names(lab):
    shutil.copy(lab.images / lab.names[0], lab.images / "more.jpg")
    (lab.images / "notes.txt").write_text("no picture")
    read, codes = lab.read()
    assert codes == {"NK133": 1} and lab.example(read, "NK133") == "more.jpg"
    command = check.mending_command("NK133", check.Inputs(images=str(lab.images)))
    assert command.endswith(f"--unlabelled {lab.images}")
    read, codes = lab.read(unlabelled=(str(lab.images),))
    assert "NK133" not in codes and codes["NK144"] >= 6


def test_entries_without_their_keys_and_images_of_one_id(lab):
    del lab.people[0]["image_id"]
    del lab.entries[1]["file_name"]
    lab.entries[3]["id"] = 3
    csv = lab.folder / "subjects.csv"
    csv.write_text("file,subject\n*,a\n")
    read, codes = lab.read()
    # Annotation 1 and image 2 by their keys; images 3 and 3; the people of images 2 and 3; of
    # image 4, which nobody is called now, one; picture 1 has no people left.
    assert codes == {"NK243": 2, "NK233": 2, "NK245": 2, "NK237": 1, "NK240": 1, "NK133": 1}
    lab.people[0]["image_id"] = 1
    lab.still_right(read, without=[0, 1, 2, 3])


def test_crowds_people_without_joints_and_empty_images(lab):
    lab.people[0]["iscrowd"] = 1
    lab.people[1] |= {"keypoints": [0] * 51, "num_keypoints": 0}
    del lab.people[2]
    lab.people[4]["keypoints"][0] = float("nan")
    read, codes = lab.read()
    assert codes == {"NK239": 1, "NK238": 1, "NK240": 2, "NK211": 1}
    told = [f"{lab.names[2]}: no annotation", f"{lab.names[5]}: all its people are left out"]
    assert lab.example(read, "NK240") == " ".join(told)
    lab.people.pop()
    assert [p.ignore for p in read.people] == [True, True, False, False]
    assert [p.key for p in read.pictures] == [n for i, n in enumerate(lab.names) if i not in (2, 5)]
    lab.still_right(read)


def test_subjects_missing_too_many_and_unused(lab):
    csv = lab.folder / "subjects.csv"
    lines = csv.read_text().splitlines(True)
    extra = [f"{lab.names[1]},another,s1,lab,14,sit\n", "nobody.jpg,child0,s1,lab,14,sit\n"]
    csv.write_text("".join(lines[:1] + lines[2:] + extra))
    read, codes = lab.read()
    assert codes == {"NK305": 1, "NK307": 1, "NK306": 1, "NK245": 2}
    lab.still_right(read, without=[0, 1])


def split_column(lab, splits):
    rows = (lab.folder / "subjects.csv").read_text().splitlines()
    rows = [f"{rows[0]},split"] + [f"{r},{s}" for r, s in zip(rows[1:], splits, strict=True)]
    (lab.folder / "subjects.csv").write_text("\n".join(rows) + "\n")


def leaks(lab):
    read, codes = lab.read()
    assert check.try_split(read)
    found = {f.code: f.count for f in read.findings.listed()}
    return {code: n for code, n in found.items() if code in ("NK302", "NK303", "NK304")}


def test_a_subject_on_both_sides_of_a_split(lab):
    split_column(lab, ["train", "val", "test"] * 2)
    assert leaks(lab) == {}
    (lab.folder / "subjects.csv").write_text(
        (lab.folder / "subjects.csv").read_text().replace("walk,train\n", "walk,test\n", 1)
    )
    assert leaks(lab)["NK302"] >= 1


def test_copies_across_splits(lab):
    shutil.copy(lab.images / lab.names[0], lab.images / lab.names[1])
    picture = cv2.imread(str(lab.images / lab.names[4]))
    cv2.imwrite(str(lab.images / lab.names[5]), picture, [cv2.IMWRITE_JPEG_QUALITY, 50])
    split_column(lab, ["train", "val", "test"] * 2)
    read, codes = lab.read()
    assert codes["NK141"] == 1 and lab.names[0] in lab.example(read, "NK141")
    lab.still_right(read)
    found = leaks(lab)
    assert found["NK303"] == 1 and found["NK304"] >= 1 and "NK302" not in found


def crowd_lab(folder):
    """A lab of enough people, all seen from the front, to judge them by each other."""
    lab = Planted(folder, pictures=10, people=6)
    rng = np.random.default_rng(3)
    body = np.array([drawn.BODY[name] for name in COCO17.keypoints])
    for entry in lab.people:
        tall = rng.uniform(70, 110)
        points = [80, 5] + tall * (body + rng.normal(0, 0.003, body.shape))
        joints = np.column_stack([points, np.full(17, 2)])
        entry["bbox"] = drawn.box_around(joints, (160, 120))
        entry["keypoints"], entry["num_keypoints"] = joints.ravel().tolist(), 17
    return lab


def change(entry, function):
    joints = np.array(entry["keypoints"]).reshape(17, 3)
    entry["keypoints"] = function(joints).ravel().tolist()


def longer_forearm(joints):
    joints[9, :2] = joints[7, :2] + 3 * (joints[9, :2] - joints[7, :2])
    return joints


def mirrored(joints):
    return joints[list(COCO17.flip_indices)]


def test_label_noise(tmp_path):
    lab = crowd_lab(tmp_path / "lab")
    read, codes = lab.read()
    assert codes == {}
    change(lab.people[0], longer_forearm)
    change(lab.people[7], mirrored)
    read, codes = lab.read()
    assert codes["NK251"] == codes["NK252"] == 1 and len(read.people) == 60
    assert lab.example(read, "NK251").startswith(f"{lab.names[0]}, annotation 1 (person 1): left_")
    for entry in lab.people:
        change(entry, mirrored)
    _, codes = lab.read()
    assert 50 <= codes["NK412"] <= 59 and "NK252" not in codes


def test_near_identical_pictures_with_far_apart_labels(lab):
    picture = cv2.imread(str(lab.images / lab.names[0]))
    cv2.imwrite(str(lab.images / lab.names[3]), picture, [cv2.IMWRITE_JPEG_QUALITY, 60])
    change(lab.people[3], lambda joints: np.column_stack(
        [np.clip(160 - joints[:, 0], 0, 159) * (joints[:, 2] > 0), joints[:, 1:]]))  # fmt: skip
    lab.people[3]["bbox"] = [0, 0, 160, 120]
    read, codes = lab.read()
    assert codes["NK253"] == 1
    lab.still_right(read)


@pytest.mark.parametrize(("fault", "code"), [
    (lambda e: e["keypoints"].__setitem__(2, 7), "NK202"),
    (lambda e: e["keypoints"].__setitem__(0, float("nan")), "NK211"),
    (lambda e: e.update(keypoints=[v + 1000 if i % 3 < 2 else 2
                                   for i, v in enumerate(e["keypoints"])]), "NK215"),
    (lambda e: e.update(keypoints=e["keypoints"][:48]), "NK402"),
])  # fmt: skip
def test_somebody_left_out_leaves_a_region_to_ignore(tmp_path, fault, code):
    """There is still a person, whose face must not show on any sheet."""
    planted = Planted(tmp_path / "lab", pictures=4, people=2)
    entry = planted.people[3]
    fault(entry)
    lab, codes = planted.read()
    assert codes[code] == 1
    region = lab.people[-1]
    assert region.ignore and region.source_id is None and not region.keypoints_k3.any()
    assert region.picture == planted.names[1] and region.id == len(lab.people) == 8
    np.testing.assert_allclose(region.box_xywh, entry["bbox"])
    assert check.report(lab, Inputs())["counts"]["people"] == 7
    assert len(check.worklist(lab, ())) == 1 + 7
    plan = layout.plan(lab, {p.key: "train" for p in lab.pictures}, bytes(32), {}, {})
    (packed,) = [e for s in plan.shards for e in s.entries if e.picture.key == planted.names[1]]
    assert len(packed.people) == 1 and packed.ignore == (region.box_xywh,)


def test_a_box_that_cannot_be_read_leaves_nothing(tmp_path):
    planted = Planted(tmp_path / "lab", pictures=3)
    planted.people[0].update(bbox=[float("nan"), 1, 2, 3])
    planted.people[1].update(bbox=[1, 2, 3], keypoints=[])
    lab, _ = planted.read()
    assert [p.source_id for p in lab.people] == [3]
