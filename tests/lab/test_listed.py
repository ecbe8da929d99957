"""Pictures that the JSON lists, where the same folder is named with --unlabelled too."""

import shutil

import cv2
import numpy as np
import pytest

from tests.data_io import drawn
from tests.lab.planted import Planted, lock_out
from tests.lab.test_bad_input import turned
from tests.lab.test_bad_sets import rename


@pytest.fixture
def lab(tmp_path):
    return Planted(tmp_path / "lab")


def add(path, seed):
    """Write a drawn picture that the JSON does not name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(path), drawn.picture(rng, (160, 120), [drawn.person(rng, (160, 120))]))


def subjects(lab, *lines):
    with open(lab.folder / "subjects.csv", "a") as file:
        file.writelines(line + "\n" for line in lines)


def of_unlabelled(read):
    return {p.key: p.subject.id for p in read.pictures if not p.labelled}


@pytest.mark.parametrize("sources", [
    ["."], ["images"], ["images/kid0"], ["images", "images/kid0"], ["images/kid0", "."],
    ["list.txt"], ["images/kid0/b.jpg"], ["../linked"],
])  # fmt: skip
def test_a_file_below_images_has_one_key_whatever_names_it(lab, sources):
    add(lab.images / "kid0" / "b.jpg", seed=5)
    (lab.folder / "list.txt").write_text("images/kid0/b.jpg\n")
    (lab.folder.parent / "linked").symlink_to(lab.images / "kid0")
    subjects(lab, "kid0/b.jpg,child0,s1,lab,14,sit")
    read, codes = lab.read(unlabelled=tuple(str(lab.folder / source) for source in sources))
    assert of_unlabelled(read) == {"kid0/b.jpg": "child0"}
    assert not {"NK306", "NK311"} & codes.keys()
    lab.still_right(read)


def test_no_picture_takes_the_name_of_another(lab, tmp_path):
    """Elsewhere lies a file called like one below --images, cut short, and one like in the JSON."""
    data = (lab.images / lab.names[0]).read_bytes()
    (lab.images / lab.names[0]).write_bytes(data[:-9])
    (lab.images / lab.names[1]).unlink()
    add(lab.images / "kid0" / "z.jpg", seed=7)
    for i, name in enumerate([*lab.names[:2], "kid0/z.jpg", "own.jpg"]):
        add(tmp_path / "night" / name, seed=20 + i)
    subjects(lab, "kid0/z.jpg,child0,s1,lab,14,sit", "night/*,child9,s1,lab,14,sit")
    read, codes = lab.read(unlabelled=(str(tmp_path / "night"),))
    called = [f"night/{lab.names[0]}", f"night/{lab.names[1]}", "night/kid0/z.jpg"]
    assert of_unlabelled(read) == {**dict.fromkeys(called, "child9"), "own.jpg": ""}
    assert codes["NK101"] == codes["NK131"] == codes["NK311"] == 1


def test_what_is_left_out_with_an_error_does_not_come_back(lab):
    images = lab.images
    turned(images / lab.names[0], 6)
    lab.entries[0] |= {"width": 77}  # NK123
    shutil.copy(images / lab.names[0], images / "copy.jpg")
    del lab.entries[1]["id"]  # NK243
    lab.entries[3]["id"] = 3  # NK233, of pictures 2 and 3
    lab.people[4]["id"] = lab.people[5]["id"]  # NK232: people of pictures 4 and 5
    for name in ("sub/TWIN.jpg", "Sub/twin.jpg"):
        add(images / name, seed=len(name))
    lab.entries.append({"id": 9, "file_name": "sub/twin.jpg", "width": 160, "height": 120})
    read, codes = lab.read(unlabelled=(str(lab.folder),), subjects="")
    assert of_unlabelled(read) == {} and read.people == ()
    # Pictures 0 (and its copy), 1, 2, 3 and two that one entry fits.
    assert codes["NK145"] == 7 and codes["NK144"] == 2 and codes["NK247"] == 1
    assert codes["NK123"] == codes["NK134"] == 1 and codes["NK232"] == codes["NK233"] == 2


def test_a_listed_picture_without_annotations_can_be_learned_from(lab):
    del lab.people[2]
    turned(lab.images / lab.names[2], 6)
    lab.entries[2] |= {"width": 120, "height": 160}
    read, codes = lab.read()
    assert codes == {"NK240": 1, "NK124": 1}
    assert lab.example(read, "NK240") == f"{lab.names[2]}: no annotation"
    read, codes = lab.read(unlabelled=(str(lab.images),))
    assert of_unlabelled(read) == {lab.names[2]: "child2"}
    assert codes == {"NK144": 5, "NK124": 1}
    (picture,) = [p for p in read.pictures if not p.labelled]
    assert (picture.turn, picture.size_wh, picture.image_id) == (6, (120, 160), None)
    lab.still_right(read)


@pytest.mark.parametrize("said, turns", [("apply", [6, 1, 3]), ("ignore", [6, 1, 1])])
def test_what_the_size_decides_stays_decided(lab, said, turns):
    for name, orientation in zip(lab.names, (6, 6, 3), strict=False):
        turned(lab.images / name, orientation)
    lab.entries[0] |= {"width": 120, "height": 160}
    read, codes = lab.read(exif=said)
    assert [p.turn for p in read.pictures[:3]] == turns
    upright = sum(turn != 1 for turn in turns)
    assert (codes["NK124"], codes["NK121"]) == (upright, 3 - upright) and "NK123" not in codes


def test_the_hash_is_of_the_pixels_as_they_are_packed(lab):
    """Kept as stored, a picture is like itself without the flag, whatever the flag says."""
    plain, _ = lab.read()
    turned(lab.images / lab.names[0], 6)
    kept, codes = lab.read()
    assert codes["NK121"] == 1 and kept.pictures[0].phash == plain.pictures[0].phash
    lab.entries[0] |= {"width": 120, "height": 160}
    upright, codes = lab.read()
    assert codes["NK124"] == 1 and upright.pictures[0].phash != plain.pictures[0].phash


def test_subjects_may_name_pictures_as_the_json_does(lab):
    rename(lab, 0, "sub/a.jpg", "/data/sub/a.jpg")
    rename(lab, 1, "Kind.JPG", "kind.jpg")
    rename(lab, 2, "sub/c.jpg", "c.jpg")
    csv = lab.folder / "subjects.csv"
    text = csv.read_text().replace("sub/a.jpg", "/data/sub/a.jpg").replace("Kind.JPG", "kind.jpg")
    csv.write_text(text)
    # The third goes by the name of its file, whoever else claims the other name.
    subjects(lab, "c.jpg,somebody,s1,lab,14,sit")
    read, codes = lab.read()
    assert codes == {"NK135": 2, "NK132": 1, "NK306": 1}
    assert lab.example(read, "NK306").endswith("c.jpg")
    assert [p.subject.id for p in read.pictures[:3]] == ["child0", "child1", "child2"]
    assert [p.key for p in read.pictures[:3]] == ["sub/a.jpg", "Kind.JPG", "sub/c.jpg"]
    lab.still_right(read)


def test_lines_of_pictures_that_are_left_out_are_passed_over(lab):
    (lab.images / lab.names[0]).unlink()
    rename(lab, 1, "sub/b.jpg", "b.jpg")  # cut short; the line names the file, not the entry
    (lab.images / "sub/b.jpg").write_bytes(b"\xff\xd8")
    del lab.people[2]
    subjects(lab, "nobody.jpg,child0,s1,lab,14,sit")
    read, codes = lab.read()
    assert codes["NK306"] == 1 and "nobody.jpg" in lab.example(read, "NK306")


def test_files_that_nobody_names_are_those_of_no_source(lab):
    add(lab.images / "kid0" / "b.jpg", seed=3)
    add(lab.images / "kid1" / "b.jpg", seed=4)
    read, codes = lab.read(unlabelled=(str(lab.images / "kid0"),))
    assert codes == {"NK133": 1, "NK311": 1} and lab.example(read, "NK133") == "kid1/b.jpg"


def test_folders_below_images_that_cannot_be_opened_are_counted_once(lab, monkeypatch):
    add(lab.images / "shut" / "b.jpg", seed=3)
    lock_out(monkeypatch, "shut")
    assert lab.read()[1] == {"NK156": 1}
    assert lab.read(unlabelled=(str(lab.images),))[1]["NK156"] == 1


def test_pictures_behind_a_link_to_a_folder_are_found(lab, tmp_path):
    (lab.images / lab.names[0]).rename(tmp_path / "a.jpg")
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "disk" / "a.jpg")
    (lab.images / "far").symlink_to(tmp_path / "disk")
    (lab.images / "far" / "loop").symlink_to(lab.images)
    lab.entries[0]["file_name"] = lab.names[0] = "far/a.jpg"
    subjects(lab, "far/a.jpg,child0,s1,lab,14,sit")
    read, codes = lab.read()
    assert codes == {"NK306": 1}  # the line of the name it had before
    lab.still_right(read)
