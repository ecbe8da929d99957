"""Packing, from a drawn lab to shards that tensorflow-datasets and nkjax.data.records read."""

import csv
import dataclasses
import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest

from nkjax import ids
from nkjax.data import images, records
from nkjax.lab import layout, pack, shards
from nkjax.lab.rows import Inputs
from tests.data_io import drawn
from tests.lab import pack_and_kill
from tests.lab.pack_and_kill import SALT, SECRET, content, plan_of, read_lab, rows_of


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    """Nine pictures of three children, two people each: one a crowd, one on a turned picture."""
    folder = tmp_path_factory.mktemp("lab") / "Kinderklinik"
    data = drawn.write_lab(folder, pictures=9, people=2, subjects=3)
    for image in data["images"][:6]:
        pack_and_kill.plant_metadata(folder / "images" / image["file_name"])
    data["annotations"][3] |= {"iscrowd": 1}
    data["annotations"][0]["grasp"] = "radial"
    data["annotations"][5]["id"] = 777
    data["images"][8] |= {"file_name": "child2_0008.png"}
    jpeg = folder / "images" / "child2_0008.jpg"
    cv2.imwrite(str(jpeg.with_suffix(".png")), cv2.imread(str(jpeg)))
    jpeg.unlink()
    (folder / "subjects.csv").write_text(
        (folder / "subjects.csv").read_text().replace("0008.jpg", "0008.png")
    )
    (folder / "labels.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(scope="module")
def lab(lab_folder):
    return read_lab(lab_folder)


@pytest.fixture(scope="module")
def packed(lab, lab_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "out"
    before = content(lab_folder)
    pack.write(plan_of(lab), out)
    pack.verify(out)
    assert content(lab_folder) == before  # no source file changed
    return out


def mapping(out):
    with open(out / "private" / "mapping.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_person_comes_back_with_the_numbers_of_the_json(packed, lab_folder):
    labels = json.loads((lab_folder / "labels.json").read_text())
    names = {image["id"]: image["file_name"] for image in labels["images"]}
    files = {m["person_id"]: m for m in mapping(packed) if m["person_id"]}
    wanted = {
        (names[a["image_id"]], str(a["id"])): a for a in labels["annotations"] if not a["iscrowd"]
    }
    rows = rows_of(packed)
    assert len(rows) == len(wanted) == 17
    for row in rows:
        mine = files[row["person_id"]]
        label = wanted.pop((mine["file"], mine["annotation_id"]))
        assert mine["picture_id"] == row["picture_id"] and mine["subject_id"] == row["subject"]
        joints = np.reshape(np.float32(label["keypoints"]), (17, 3))
        np.testing.assert_array_equal(row["keypoints"], joints)
        np.testing.assert_allclose(row["box"], label["bbox"], atol=1e-4)
        assert (row["width"], row["height"], row["site"]) == (160, 120, "lab")
        assert (row["posture"], row["box_source"], row["frame"]) == ("walk", "labels", -1)
        assert row["grasp"] == label.get("grasp", "")
        child = int(mine["file"][5])
        assert row["age_months"] == 14 + 6 * child
        file = lab_folder / "images" / mine["file"]
        assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        pixels = images.decode_rgb(row["image"])
        difference = np.abs(pixels.astype(int) - images.read_rgb(file)).max()
        if row["encoded"] == "stripped":
            assert difference == 0 and file.suffix == ".jpg"
        else:
            assert difference < 30 and file.suffix == ".png"
    assert not wanted


def test_ids_are_salted_hashes_of_names(packed):
    for row in mapping(packed):
        assert row["picture_id"] == ids.salted_id(SALT, row["file"])
        if row["person_id"]:
            name = f"{row['file']}/{row['annotation_id']}"
            assert row["person_id"] == ids.salted_id(SALT, name)
    with open(packed / "private" / "subjects.csv", newline="") as file:
        subjects = list(csv.DictReader(file))
    assert [s["subject_id"] for s in subjects] == sorted(
        ids.salted_id(SALT, f"child{i}") for i in range(3)
    )
    assert (packed / "private").stat().st_mode & 0o777 == 0o700
    assert ids.read_salt(packed / "private" / "salt.txt") == SALT


def test_crowds_become_regions_to_ignore(packed, lab_folder):
    crowd = json.loads((lab_folder / "labels.json").read_text())["annotations"][3]
    regions = {row["picture_id"]: row["ignore_boxes"] for row in rows_of(packed)}
    of_crowd = ids.salted_id(SALT, "child1_0001.jpg")
    np.testing.assert_allclose(regions.pop(of_crowd), [crowd["bbox"]], atol=1e-4)
    assert all(boxes.shape == (0, 4) for boxes in regions.values())


def test_the_manifest_describes_every_shard(packed):
    manifest = json.loads((packed / "manifest.json").read_text())
    files = [entry["file"] for entry in manifest["shards"]]
    assert files == sorted(files) == sorted(
        p.relative_to(packed).as_posix() for p in packed.rglob("*array_record*")
    )  # fmt: skip
    # Three pictures of each child, two a shard: 6 -> 3 shards, 3 -> 2.
    assert manifest["splits"] == {
        "train": {"people": 11, "pictures": 6, "subjects": 2},
        "val": {"people": 6, "pictures": 3, "subjects": 1},
    }
    assert len(files) == 2 * (3 + 2)
    for entry in manifest["shards"]:
        data = (packed / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
    assert manifest["pictures"] == {"encoded": 1, "stripped": 8}
    assert manifest["skeleton"] == hashlib.sha256(
        (packed / "skeleton.json").read_bytes()
    ).hexdigest()
    assert manifest["postures"] == ["walk"] and manifest["purged"] == []
    assert {f["code"]: f["count"] for f in manifest["findings"]}["NK239"] == 1
    assert all(set(f) == {"code", "severity", "count"} for f in manifest["findings"])
    assert not (packed / "packing").exists()


def test_nothing_outside_private_tells_who_where_or_which_file(packed):
    secrets = [SECRET, b"Exif", b"maker", b"child", b"Kinderklinik", b".jpg", SALT.hex().encode()]
    for name, data in content(packed).items():
        if not name.startswith("private/"):
            for secret in secrets:
                assert secret not in data and secret.decode() not in name, (name, secret)
    # The search would see them: shards are not compressed.
    assert SECRET in shards_of_raw_pictures(packed.parent)


def shards_of_raw_pictures(folder):
    path = folder / "raw"
    shards.write_shard(path, [b"\xff\xd8" + SECRET])
    return path.read_bytes()


def test_stored_pictures_have_no_metadata(packed):
    for row in rows_of(packed):
        markers, at = set(), 2
        while row["image"][at + 1] != 0xDA:
            markers.add(row["image"][at + 1])
            at += 2 + int.from_bytes(row["image"][at + 2 : at + 4], "big")
        # JFIF and Adobe's colour transform aside, no application segment and no comment.
        assert not markers & ({*range(0xE1, 0xEE), 0xEF, 0xFE})
        assert row["image"].endswith(b"\xff\xd9")


def test_tensorflow_datasets_reads_both_tables_without_tensorflow(packed):
    code = f"""
import sys
import tensorflow_datasets as tfds
for table, count in (("people", 11), ("pictures", 6)):
    source = tfds.builder_from_directory({str(packed)!r} + "/" + table).as_data_source("train")
    assert len(source) == count, len(source)
    rows = [source[i] for i in range(count)]
    if table == "people":
        assert rows[0]["keypoints"].shape == (17, 3)
    else:
        assert all(row["image"].shape == (120, 160, 3) for row in rows)
    print(sorted(row["picture_id"].decode() for row in rows))
assert "tensorflow" not in sys.modules
"""
    told = pack_and_kill.run_python("-c", code).splitlines()
    known = {row["picture_id"] for row in mapping(packed)}
    assert len(told) == 2 and {told[1][i : i + 16] for i in range(2, 118, 20)} < known


def test_the_bytes_depend_on_neither_workers_nor_process(lab_folder, packed, tmp_path):
    code = f"""
from tests.lab import pack_and_kill
plan = pack_and_kill.plan_of(pack_and_kill.read_lab({str(lab_folder)!r}))
pack_and_kill.pack.write(plan, {str(tmp_path / "b")!r}, 5)
"""
    pack_and_kill.run_python("-c", code)
    assert content(tmp_path / "b") == content(packed)


@pytest.mark.parametrize("way", ["events", "0", "1", "2"])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_files(
    lab_folder, packed, tmp_path, way
):
    kills = pack_and_kill.kill_and_repeat("pack", lab_folder, tmp_path / "out", way)
    assert kills >= (30 if way == "events" else 5)
    assert content(tmp_path / "out") == content(packed)


def test_finished_shards_are_not_written_again(lab, tmp_path, monkeypatch):
    plan, seen = plan_of(lab), []
    canonical = images.canonical_jpeg

    def stopping(data, turn, name):
        seen.append(name)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return canonical(data, turn, name)

    monkeypatch.setattr(images, "canonical_jpeg", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack.write(plan, tmp_path / "out")
    first, second = ([tmp_path / "out" / shard.file(table) for table in records.TABLES]
                     for shard in plan.shards[:2])  # fmt: skip
    times = [path.stat().st_mtime_ns for path in second]
    # A finished shard is damaged since: it is written again.
    first[0].write_bytes(first[0].read_bytes()[:-1] + b"x")
    pack.write(plan, tmp_path / "out")
    assert [path.stat().st_mtime_ns for path in second] == times
    assert len(seen) == 6 + (9 - 2)
    pack.verify(tmp_path / "out")


def test_a_finished_folder_is_left_as_it_is(lab, packed):
    before = content(packed)
    pack.write(plan_of(lab), packed)
    assert content(packed) == before


@pytest.mark.parametrize("begun", [True, False])
def test_another_plan_is_refused(lab, packed, tmp_path, begun):
    out = packed
    if begun:
        out = tmp_path / "out"
        (out / "packing").mkdir(parents=True)
        (out / "packing" / "plan.json").write_text(json.dumps({"plan": plan_of(lab).sha256}))
    for other in (plan_of(lab, salt=bytes(32)), plan_of(lab, per_shard=3)):
        with pytest.raises(pack.BadPack, match="inputs, options or salt"):
            pack.write(other, out)


def test_a_folder_in_use_is_refused(lab, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(pack.BadPack, match="in use"):
        pack.write(plan_of(lab), tmp_path)


FOREIGN = {
    "somebody's private folder": {"private/README.txt": "mine", "private/diary.txt": "x"},
    "a salt that is none": {"private/salt.txt": "sodium"},
    "a file called private": {"private": "x"},
    "somebody's packing folder": {"packing/list.txt": "tent"},
    "a file called packing": {"packing": "tent"},
    "a file beside a begun packing": {"packing/plan.json": "{plan}", "thesis.txt": "x"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_ours_in_the_folder_is_refused_and_stays(lab, tmp_path, case):
    plan, out = plan_of(lab), tmp_path / "out"
    for name, text in FOREIGN[case].items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text.replace("{plan}", json.dumps({"plan": plan.sha256})))
    before = content(out)
    for refused in (lambda: pack.write(plan, out), lambda: pack.check_place(out, Inputs())):
        with pytest.raises(pack.BadPack, match="in use") as error:
            refused()
        assert "\n" not in str(error.value)
    assert content(out) == before


def test_a_private_folder_with_a_salt_is_taken_for_the_same_salt_only(lab, packed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(packed / "private", out / "private")
    (out / "private").chmod(0o755)
    before = content(out)
    with pytest.raises(pack.BadPack, match="salt of other data"):
        pack.write(plan_of(lab, salt=bytes(32)), out)
    assert content(out) == before
    pack.write(plan_of(lab), out)
    assert content(out) == content(packed)
    assert (out / "private").stat().st_mode & 0o777 == 0o700


def test_the_name_of_a_category_is_not_packed(lab, tmp_path):
    named = dataclasses.replace(lab.skeleton, name="Anna Muster")
    # The name of a built-in one is no name of a patient, unless it is another skeleton.
    fewer = dataclasses.replace(lab.skeleton, limbs=lab.skeleton.limbs[:3], name="coco17")
    splits = {p.key: "train" for p in lab.pictures}
    for skeleton, own, want in ((named, "", "lab"), (named, "Toddlers", "Toddlers"),
                                (lab.skeleton, "", "coco17"), (fewer, "", "lab")):  # fmt: skip
        made = dataclasses.replace(lab, skeleton=skeleton)
        plan = layout.plan(made, splits, SALT, {}, {}, skeleton_name=own)
        assert plan.skeleton == dataclasses.replace(skeleton, name=want)
        packed_skeleton = layout.skeleton_json(plan.skeleton)
        assert plan.manifest["skeleton"] == hashlib.sha256(packed_skeleton).hexdigest()
        assert b"Anna" not in packed_skeleton


def test_a_picture_that_changed_since_the_check_is_named(lab_folder, tmp_path):
    copy = tmp_path / "lab"
    shutil.copytree(lab_folder, copy)
    lab = read_lab(copy)
    file = copy / "images" / "child1_0004.jpg"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(pack.BadPack, match="child1_0004.jpg: changed"):
        pack.write(plan_of(lab), tmp_path / "out")
    file.unlink()
    with pytest.raises(pack.BadPack, match="child1_0004.jpg: cannot be opened"):
        pack.write(plan_of(lab), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_picture_without_people_is_left_out_and_counted(lab):
    people = tuple(p for p in lab.people if p.picture != "child0_0000.jpg")
    plan = plan_of(dataclasses.replace(lab, people=people))
    assert plan.manifest["left_out"] == 1
    keys = [entry.picture.key for shard in plan.shards for entry in shard.entries]
    assert len(keys) == 8 and "child0_0000.jpg" not in keys
    with pytest.raises(layout.BadPlan, match="no picture is left"):
        plan_of(dataclasses.replace(lab, people=()))


def test_halves_of_characters_do_no_harm(lab, tmp_path):
    half = "\ud800"
    people = tuple(dataclasses.replace(p, posture=half, grasp=half, source_id=half + str(p.id))
                   for p in lab.people)  # fmt: skip
    pictures = tuple(dataclasses.replace(p, image_id=half) for p in lab.pictures)
    pack.write(plan_of(dataclasses.replace(lab, people=people, pictures=pictures)), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["postures"] == ["?"]
    told = {(row["posture"], row["grasp"]) for row in rows_of(tmp_path / "a")}
    assert told == {("?", "?")}


def test_two_cannot_pack_into_one_folder(lab, tmp_path):
    (tmp_path / "out").mkdir()
    with shards.alone_in(tmp_path / "out"):
        with pytest.raises(records.BadData, match="another process"):
            pack.write(plan_of(lab), tmp_path / "out")
    pack.write(plan_of(lab), tmp_path / "out")


def test_a_turned_picture_is_stored_upright(tmp_path):
    data = drawn.write_lab(tmp_path / "lab", pictures=3)
    path = tmp_path / "lab" / "images" / data["images"][0]["file_name"]
    upright = images.read_rgb(path)
    # EXIF 6: turn the stored pixels clockwise to see them upright.
    coded = cv2.imencode(".jpg", np.rot90(upright)[..., ::-1])[1].tobytes()
    entry = bytes.fromhex("49492a0008000000 0100 1201 0300 01000000 06000000 00000000")
    exif = pack_and_kill.segment(0xE1, b"Exif\0\0" + entry)
    path.write_bytes(coded[:2] + exif + coded[2:])
    pack.write(plan_of(read_lab(tmp_path / "lab")), tmp_path / "out")
    row = next(row for row in rows_of(tmp_path / "out") if row["encoded"] == "encoded")
    pixels = images.decode_rgb(row["image"]).astype(int)
    assert (row["width"], row["height"]) == (160, 120) and pixels.shape == (120, 160, 3)
    assert np.abs(pixels - upright).mean() < 3 < np.abs(pixels[::-1, ::-1] - upright).mean()
    assert b"Exif" not in row["image"]


def test_damaged_notes_of_an_unfinished_packing_are_not_believed(lab, packed, tmp_path):
    out = tmp_path / "out"
    (out / "packing").mkdir(parents=True)
    plan = plan_of(lab)
    (out / "packing" / "plan.json").write_text(json.dumps({"plan": plan.sha256}))
    wrong = {"split": "train", "index": 0, "shards": [{"file": plan.shards[0].file("people"),
             "sha256": "0", "bytes": 1, "records": 2}], "encoded": {}}  # fmt: skip
    notes = f'{json.dumps(wrong)}\n[]\n{{"shards": 3}}\n{{"split": "tr'.encode() + b"\xff\0"
    (out / "packing" / "done.jsonl").write_bytes(notes)
    pack.write(plan, out)
    assert content(out) == content(packed)
