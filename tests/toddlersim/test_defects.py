"""Planted mistakes: check_data finds each under its code, and nothing else."""

import json
import shutil

import pytest

from nkjax.data import jpeg
from nkjax.lab import suspicious
from nkjax.lab.findings import RULES
from nkjax.toddlersim.lab_folder import defects, folder, spoiling
from nkjax.toddlersim.lab_folder.defects import DEFECTS
from nkjax.toddlersim.lab_folder.handed_over import BadDefects
from tests.toddlersim import written


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    out = tmp_path_factory.mktemp("good") / "lab"
    written.write(out, 70, 8, 12)
    assert faults(written.found(out)) == set()
    return out


@pytest.fixture
def lab(good, tmp_path):
    shutil.copytree(good, tmp_path / "lab")
    return tmp_path / "lab"


def faults(found) -> set[str]:
    return {code for code, severity in found.items() if severity != "note"}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_mistake_is_found_under_its_codes_and_no_other(lab, name):
    truths = written.tree(lab / "truth")
    defects.plant(lab, [name])
    found, codes = written.found(lab), set(DEFECTS[name].codes)
    assert codes <= found.keys()
    assert faults(found) == {code for code in codes if RULES[code].severity != "note"}
    assert folder.settings(lab)["defects"] == [name]
    # Whoever looks at the pictures later still finds their truth.
    assert written.tree(lab / "truth") == truths


def test_all_go_together(tmp_path):
    names, lab = defects.chosen("all"), tmp_path / "lab"
    written.write(lab, 90, 10, 12)
    assert set(DEFECTS) - set(names) == {"corners", "all_swapped"}
    defects.plant(lab, names)
    wanted = {code for name in names for code in DEFECTS[name].codes}
    found = written.found(lab)
    assert wanted <= found.keys() and len(wanted) >= 36
    assert faults(found) <= wanted
    assert folder.settings(lab)["defects"] == list(names)
    with pytest.raises(folder.BadFolder, match="has mistakes planted already"):
        defects.plant(lab, ["nan"])


def test_the_same_folder_gets_the_same_mistakes(good, tmp_path):
    for name in "ab":
        shutil.copytree(good, tmp_path / name)
    defects.plant(tmp_path / "a", ["nan", "truncated", "copied", "swapped", "unlabelled_labelled"])
    defects.plant(tmp_path / "b", ["swapped", "copied", "unlabelled_labelled", "truncated", "nan"])
    assert written.tree(tmp_path / "a") == written.tree(tmp_path / "b") != written.tree(good)


def test_one_mistake_changes_one_picture(lab):
    before = written.tree(lab)
    defects.plant(lab, ["truncated"])
    after = written.tree(lab)
    changed = {name for name in before if before[name] != after.get(name)}
    # The lists say the same, in one line.
    assert changed - {"labels.json", "detections.json", "subjects.csv", "simulation.json"} == {
        "images/toddler_labelled_000000.jpg"
    }
    assert len(json.loads((lab / "labels.json").read_text())["images"]) == 78


def test_names_are_read(lab):
    assert defects.chosen(" nan, truncated,nan") == ("truncated", "nan")
    for text, why in (("nan,typo", "'typo'"), ("", "no mistake is named"), (" , ", "no mistake")):
        with pytest.raises(BadDefects, match=why):
            defects.chosen(text)


def test_too_small_a_folder_is_told_before(lab, tmp_path):
    counts = {"labelled": 51, "test": 2, "unlabelled": 2}
    wide, square = (96, 128), (96, 96)
    defects.check_counts(["stretched", "two_splits", "unlabelled_truncated"], counts, wide)
    for names, size, why in (
        (["stretched", "nan"], wide, "at least 52 labelled"),
        (["two_splits", "copied"], wide, "at least 3 test"),
        (["unlabelled_truncated", "unlabelled_of_test"], wide, "at least 4 unlabelled"),
        (["exif_turn"], square, "not square"),
    ):
        with pytest.raises(BadDefects, match=why):
            defects.check_counts(names, counts, size)
    small = tmp_path / "small"
    written.write(small, 1, 0, 0)
    before = written.tree(small)
    with pytest.raises(BadDefects, match="at least 2 labelled"):
        defects.plant(small, ["shared_id"])
    # One unlabelled picture of a child: there is none to spoil.
    written.write(tmp_path / "one", 1, 0, 2)
    defects.plant(tmp_path / "one", ["unlabelled_truncated"])
    assert written.tree(small) == before


def test_exif_is_written_as_it_is_read(lab):
    data = (lab / "images" / "toddler_labelled_000000.jpg").read_bytes()
    for orientation in range(1, 9):
        turned = spoiling.turned(data, orientation)
        assert jpeg.orientation(turned) == orientation and jpeg.size_wh(turned) == (96, 128)


def test_the_table_knows_the_codes():
    assert defects.FEWEST_PEOPLE == suspicious.FEWEST_PEOPLE
    for name, defect in DEFECTS.items():
        assert defect.codes and set(defect.codes) <= RULES.keys(), name
        assert defect.what and len(defect.what) < 70
