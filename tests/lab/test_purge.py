"""Purging one child, byte for byte, also when it is killed on its way."""

import csv
import dataclasses
import json
import shutil

import pytest
import tensorflow_datasets as tfds

from nkjax import ids
from nkjax.data import records
from nkjax.lab import layout, pack, purge
from nkjax.lab.rows import Subject
from tests.data_io import drawn
from tests.lab import pack_and_kill
from tests.lab.pack_and_kill import SALT, content, plan_of, read_lab, rows_of

CHILD = ids.salted_id(SALT, "child0")


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "lab"
    drawn.write_lab(folder, pictures=12, people=2, subjects=4)
    return folder


@pytest.fixture(scope="module")
def packed(lab_folder, tmp_path_factory):
    """child0 and child1 train, child2 val, child3 unlabelled; three pictures each, two a shard."""
    out = tmp_path_factory.mktemp("data") / "out"
    pack.write(plan_of(read_lab(lab_folder)), out)
    return out


@pytest.fixture
def data(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "data")


def test_nothing_of_the_child_is_left(data, lab_folder):
    theirs = [(lab_folder / "images" / f"child0_{i:04d}.jpg").read_bytes() for i in (0, 4, 8)]
    before = content(data)
    pieces = [jpeg[k : k + 24] for jpeg in theirs for k in range(700, len(jpeg) - 24, 97)]
    kept_jpegs = b"".join(
        path.read_bytes() for path in (lab_folder / "images").iterdir() if "child0" not in path.name
    )
    pieces = [piece for piece in pieces if piece not in kept_jpegs]
    whole = b"".join(before.values())
    assert len(pieces) > 50 and all(piece in whole for piece in pieces)  # the search finds them

    counts = purge.purge(data, "child0")
    assert (counts["pictures"], counts["people"], counts["nameless"]) == (3, 6, 0)
    after = content(data)
    manifest = json.loads(after.pop("manifest.json"))
    assert manifest["purged"] == [CHILD]
    names = [ids.salted_id(SALT, f"child0_{i:04d}.jpg").encode() for i in (0, 4, 8)]
    for name, found in after.items():
        for secret in [*pieces, *names, CHILD.encode(), b"child0"]:
            assert secret not in found, name
    assert not [name for name in after if name.endswith((".new", ".partial"))]


def test_everybody_else_stays_as_they_were(data, packed):
    before = {row["person_id"]: row for row in rows_of(packed) if row["subject"] != CHILD}
    purge.purge(data, "child0")
    pack.verify(data)
    after = {row["person_id"]: row for row in rows_of(data)}
    assert after.keys() == before.keys() and len(after) == 18
    for person_id, row in after.items():
        for field, value in before[person_id].items():
            if field not in ("picture", "shard"):
                assert repr(row[field]) == repr(value), field
    splits = json.loads((data / "manifest.json").read_text())["splits"]
    assert splits["train"] == {"people": 6, "pictures": 3, "subjects": 1}
    assert splits["val"] == {"people": 6, "pictures": 3, "subjects": 1}
    with open(data / "private" / "mapping.csv", newline="") as file:
        files = {row["file"] for row in csv.DictReader(file)}
    assert len(files) == 9 and not any("child0" in file for file in files)
    for table, count in (("people", 6), ("pictures", 3)):
        source = tfds.builder_from_directory(data / table).as_data_source("train")
        assert len(source) == count and len([source[i] for i in range(count)]) == count


def test_only_shards_with_the_child_are_written_again(data, packed):
    before = content(packed)
    with_child = {file for file, found in before.items()
                  if file.startswith("people/people") and CHILD.encode() in found}  # fmt: skip
    assert purge.purge(data, "child0")["shards"] == 2 * len(with_child) < 6 * 2
    changed = {file for file, found in content(data).items()
               if "array_record" in file and found != before[file]}  # fmt: skip
    assert changed == with_child | {file.replace("people", "pictures") for file in with_child}


def test_a_child_alone_in_its_split_takes_the_split_away(data):
    assert purge.purge(data, "child2")["pictures"] == 3
    assert set(records.read_manifest(data).content["splits"]) == {"train", "unlabelled"}
    assert set(tfds.builder_from_directory(data / "people").info.splits) == {"train", "unlabelled"}
    assert not [name for name in content(data) if "-val." in name]
    pack.verify(data)


def test_the_last_child_is_refused(data):
    for child in ("child0", "child1", "child2"):
        purge.purge(data, child)
    with pytest.raises(purge.BadPurge, match="remove the whole folder"):
        purge.purge(data, "child3")
    assert not [name for name in content(data) if name.endswith(".new")]


def test_the_salted_id_does_as_well_without_the_private_folder(data):
    shutil.rmtree(data / "private")
    with pytest.raises(purge.BadPurge, match="no picture is of subject 'child0'"):
        purge.purge(data, "child0")
    assert purge.purge(data, CHILD)["pictures"] == 3
    pack.verify(data)


def test_purging_again_changes_nothing(data):
    purge.purge(data, "child0")
    before = content(data)
    for name in ("child0", CHILD):
        assert purge.purge(data, name)["pictures"] == 0
    assert content(data) == before
    assert purge.purge(data, "child1")["pictures"] == 3
    assert len(json.loads((data / "manifest.json").read_text())["purged"]) == 2


def test_a_stranger_and_cached_geometry_are_refused_and_nothing_changes(data):
    before = content(data)
    with pytest.raises(purge.BadPurge, match="private/subjects.csv"):
        purge.purge(data, "child9")
    (data / "geometry").mkdir()
    with pytest.raises(purge.BadPurge, match="geometry"):
        purge.purge(data, "child0")
    assert content(data) == before
    with pytest.raises(records.BadData, match="manifest.json"):
        purge.purge(data / "people", "child0")


def test_a_purged_folder_is_not_packed_again(data, lab_folder):
    purge.purge(data, "child0")
    with pytest.raises(pack.BadPack, match="purged"):
        pack.write(plan_of(read_lab(lab_folder)), data)


def test_an_unfinished_purge_is_not_read_and_another_child_finishes_it(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(purge, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            purge.purge(data, "child0")
    with pytest.raises(records.BadData, match="purge was interrupted"):
        records.read_manifest(data)
    assert purge.purge(data, "child2")["pictures"] == 3
    purged = records.read_manifest(data).content["purged"]
    assert purged == sorted([CHILD, ids.salted_id(SALT, "child2")])


def test_counting_writes_nothing_and_counts_what_a_purge_removes(data, monkeypatch):
    before = content(data)
    counts = purge.purge(data, "child0", dry_run=True)
    with pytest.raises(purge.BadPurge, match="no picture is of"):
        purge.purge(data, "child9", dry_run=True)
    assert content(data) == before
    assert counts == purge.purge(data, "child0") != dict.fromkeys(counts, 0)
    with monkeypatch.context() as patch:
        patch.setattr(purge, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            purge.purge(data, "child2")
    before = content(data)
    with pytest.raises(records.BadData, match="purge was interrupted"):
        purge.purge(data, "child2", dry_run=True)
    assert content(data) == before


@pytest.mark.parametrize("empty", ["", "  ", "\t\n", "\u200b", "\u00a0"])
def test_nobody_is_no_subject_to_purge(lab_folder, tmp_path, empty):
    lab = read_lab(lab_folder)
    nameless = tuple(
        dataclasses.replace(p, subject=Subject()) if p.subject.id == "child2" else p
        for p in lab.pictures
    )
    splits = {p.key: "train" for p in lab.pictures}
    plan = layout.plan(dataclasses.replace(lab, pictures=nameless), splits, SALT, {}, {})
    pack.write(plan, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(purge.BadPurge, match="empty"):
        purge.purge(tmp_path / "out", empty)
    assert content(tmp_path / "out") == before
    assert purge.purge(tmp_path / "out", "child0")["nameless"] == 3


def test_a_child_is_found_in_any_spelling(lab_folder, tmp_path):
    lab, out = read_lab(lab_folder), tmp_path / "out"
    names = {"child0": "Jos\u00e9 K", "child1": " Rene\u0301"}

    def renamed(subject):
        return dataclasses.replace(subject, id=names.get(subject.id, subject.id))

    pictures = tuple(dataclasses.replace(p, subject=renamed(p.subject)) for p in lab.pictures)
    splits = {p.key: "train" for p in lab.pictures}
    plan = layout.plan(dataclasses.replace(lab, pictures=pictures), splits, SALT, {}, {})
    pack.write(plan, out)
    assert purge.purge(out, "Jose\u0301\u00a0 K\u200b")["pictures"] == 3
    # As an earlier version packed it, untidied.
    assert purge.purge(out, " Rene\u0301")["pictures"] == 3


def test_the_salt_of_data_with_a_purged_child_does_not_bring_it_back(data, tmp_path):
    salt = data / "private" / "salt.txt"
    purge.check_salt(salt, {"child0", "child1"})
    purge.purge(data, "child0")
    with pytest.raises(purge.BadPurge, match="1 of the subjects to pack were purged") as error:
        purge.check_salt(salt, {"child0", "child1"})
    assert "child0" not in str(error.value) and "\n" not in str(error.value)
    purge.check_salt(salt, {"child1"})
    purge.check_salt(shutil.copy(salt, tmp_path), {"child0"})


@pytest.mark.parametrize("way", ["events", "0", "1"])
def test_killed_at_any_moment_it_ends_with_the_same_files(packed, data, tmp_path, way):
    purge.purge(data, "child0")
    kills = pack_and_kill.kill_and_repeat("purge", packed, tmp_path / "out", way)
    assert kills >= (12 if way == "events" else 5)
    assert content(tmp_path / "out") == content(data)


def test_damaged_shards_are_told_in_one_line(data):
    path = next((data / "people").glob("people-train*"))
    path.write_bytes(path.read_bytes().replace(b"walk", b"sits", 1))
    with pytest.raises(records.BadData, match="damaged") as error:
        purge.purge(data, "child0")
    assert "\n" not in str(error.value)
