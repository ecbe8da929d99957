"""A whole lab: what comes out of it, what is reported, and the command from end to end."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nkjax.lab import check
from nkjax.lab.findings import RULES
from nkjax.lab.rows import Inputs
from nkjax.lab.suspicious import Suspicion
from tests.data_io import drawn

ROOT = Path(__file__).parents[2]
SAMPLES = os.environ.get("NKJAX_SAMPLES_COCO", "")


def inputs_of(folder, **changes):
    plain = {"annotations": f"{folder}/labels.json", "images": f"{folder}/images",
             "subjects": f"{folder}/subjects.csv"}  # fmt: skip
    return Inputs(**plain | changes)


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "a"
    return folder, drawn.write_lab(folder, pictures=6, people=2)


def run(*words, rc=0):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check_data.py", *map(str, words)],
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert done.returncode == rc, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_good_lab_comes_out_whole(lab_folder):
    folder, data = lab_folder
    lab = check.read_lab(inputs_of(folder), workers=2)
    assert lab.skeleton == drawn.COCO17
    assert [p.key for p in lab.pictures] == [image["file_name"] for image in data["images"]]
    assert [p.image_id for p in lab.pictures] == [1, 2, 3, 4, 5, 6]
    for i, picture in enumerate(lab.pictures):
        assert picture.size_wh == (160, 120) and picture.turn == 1 and len(picture.sha256) == 64
        assert Path(picture.path).read_bytes() and picture.labelled
        assert picture.subject.id == f"child{i % 3}" and picture.subject.age_months == 14 + 6 * (
            i % 3
        )
    assert [p.id for p in lab.people] == list(range(1, 13))
    for person, entry in zip(lab.people, data["annotations"], strict=True):
        np.testing.assert_allclose(
            person.keypoints_k3.reshape(-1), entry["keypoints"], rtol=0, atol=1e-5
        )
        assert person.box_xywh == tuple(entry["bbox"]) and person.box_source == "labels"
        assert person.source_id == entry["id"] and person.posture == "walk"
        assert person.area == entry["area"] and not person.ignore
    assert {f.code for f in lab.findings.listed() if f.severity != "note"} == set()


def test_people_come_in_the_order_of_pictures(tmp_path):
    data = drawn.write_lab(tmp_path / "a", pictures=3)
    data["annotations"] = data["annotations"][::-1]
    (tmp_path / "a" / "labels.json").write_text(json.dumps(data))
    lab = check.read_lab(inputs_of(tmp_path / "a"))
    assert [p.picture for p in lab.people] == [p.key for p in lab.pictures]
    assert [(p.id, p.source_id) for p in lab.people] == [(3, 1), (2, 2), (1, 3)]


def test_unlabelled_pictures_come_after_and_belong_to_children_too(tmp_path):
    drawn.write_lab(tmp_path / "a", pictures=3)
    drawn.write_lab(tmp_path / "b", pictures=3, seed=9)
    csv = (tmp_path / "a" / "subjects.csv").read_text()
    (tmp_path / "a" / "subjects.csv").write_text(csv + "b/*,child0,s2,lab,14,sit\n")
    (tmp_path / "a" / "extra").mkdir()
    (tmp_path / "b" / "images").rename(tmp_path / "a" / "extra" / "b")
    lab = check.read_lab(inputs_of(tmp_path / "a", unlabelled=(f"{tmp_path}/a/extra",)))
    assert [p.labelled for p in lab.pictures] == [True] * 3 + [False] * 3
    assert [p.key.startswith("b/") for p in lab.pictures] == [False] * 3 + [True] * 3
    assert {p.subject.id for p in lab.pictures[3:]} == {"child0"}
    assert [p.id for p in lab.people] == [1, 2, 3, 4, 5, 6]
    assert [p.box_source for p in lab.people] == ["labels"] * 3 + ["picture"] * 3
    assert all(p.keypoints_k3.shape == (17, 3) for p in lab.people)


def test_unlabelled_pictures_alone(lab_folder):
    folder, _ = lab_folder
    lab = check.read_lab(Inputs(unlabelled=(f"{folder}/images",)))
    assert len(lab.pictures) == 6 and not any(p.labelled for p in lab.pictures)
    assert check.try_split(lab) == {} and lab.findings.count("NK309") == 0


@pytest.mark.parametrize("changes, words", [
    ({"images": ""}, "--annotations and --images go together"),
    ({"annotations": "", "images": ""}, "nothing to read"),
    ({"images": "nowhere"}, "no such folder; check --images"),
    ({"images": "."}, "no picture that"),
    ({"annotations": "nowhere.json"}, "cannot be opened"),
    ({"subjects": "nowhere.csv"}, "cannot be opened"),
    ({"skeleton": "nowhere"}, "built-in skeleton"),
    ({"unlabelled": ("nowhere",)}, "check --unlabelled"),
])  # fmt: skip
def test_inputs_that_cannot_be_used_are_refused_in_one_line(
    lab_folder, monkeypatch, tmp_path, changes, words
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(check.UNUSABLE, match=words) as error:
        check.read_lab(inputs_of(lab_folder[0], **changes))
    assert "\n" not in str(error.value)


def test_the_report_adds_up(lab_folder):
    folder, data = lab_folder
    lab, inputs = check.read_lab(inputs_of(folder)), inputs_of(folder)
    report = json.loads(json.dumps(check.report(lab, inputs)))
    counts = report["counts"]
    v = np.array([e["keypoints"][2::3] for e in data["annotations"]])
    assert counts["visibility"] == {str(i): int((v == i).sum()) for i in (0, 1, 2)}
    assert list(counts["joints"]) == list(drawn.COCO17.keypoints)
    for i, name in enumerate(drawn.COCO17.keypoints):
        assert counts["joints"][name] == {str(k): int((v[:, i] == k).sum()) for k in (0, 1, 2)}
    assert counts["labelled pictures"] == 6 and counts["people"] == 12 and counts["subjects"] == 3
    assert counts["posture"] == {"walk": 12} and counts["grasp"] == {"not known": 12}
    assert counts["boxes from"] == {"labels": 12}
    assert report["dropped"] == {} and report["inputs"]["annotations"] == inputs.annotations
    assert len(report["inputs"]["annotations_sha256"]) == 64


def test_the_worklist_names_the_annotation_and_the_file(lab_folder):
    folder, data = lab_folder
    lab = check.read_lab(inputs_of(folder))
    head, *rows = check.worklist(lab, [Suspicion("NK251", (2, 5), "a long arm", 2.0)])
    rows = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["annotation"] for row in rows] == list(range(1, 13))
    assert rows[4]["file"] == data["images"][2]["file_name"] and rows[4]["subject"] == "child2"
    assert [row["look at"] for row in rows if row["look at"]] == ["NK251 a long arm"] * 2
    v = data["annotations"][4]["keypoints"][2::3]
    assert [rows[4][f"v{i}"] for i in (0, 1, 2)] == [v.count(i) for i in (0.0, 1.0, 2.0)]


def test_command_lines_can_be_pasted():
    inputs = Inputs("a b.json", "i", unlabelled=("x", "it's"), exif="ignore")
    line = check.command_line(inputs)
    assert shlex.split(line) == [
        "python", "scripts/check_data.py", "--annotations", "a b.json", "--images", "i",
        "--unlabelled", "x", "it's", "--exif", "ignore"]  # fmt: skip
    assert "--exif apply" in check.mending_command("NK122", inputs)
    assert "--exif ignore" not in check.mending_command("NK122", inputs)
    assert "--box_format xyxy" in check.mending_command("NK222", inputs)
    assert check.mending_command("NK133", inputs).count(" i") == 3  # images, it's, unlabelled
    assert check.mending_command("NK214", inputs) == ""
    assert set(check.MENDED_BY) <= set(RULES)
    for changes in check.MENDED_BY.values():
        assert dataclasses.replace(inputs, **changes) != inputs


def test_the_command_on_a_good_lab(lab_folder, tmp_path):
    folder, _ = lab_folder
    out = tmp_path / "report"
    words = ["--annotations", folder / "labels.json", "--images", folder / "images"]
    done = run(*words, "--report", out)
    assert "6 labelled pictures" in done.stdout and "12 people" in done.stdout
    assert "NK301 warning" in done.stdout and "fix: python scripts/check_data.py" in done.stdout
    assert "pictures: 100%" in done.stderr
    assert {p.name for p in out.iterdir()} == {"report.json", "people.jpg", "people.csv"}
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["people"] == 12
    assert done.stdout.strip().splitlines()[-1].startswith(f"wrote {out}")
    # Warnings are errors only when asked; a report is never written over.
    assert "NK301" in run(*words, "--strict", rc=2).stdout
    assert "not an empty folder" in run(*words, "--report", out, rc=2).stderr


@pytest.mark.parametrize("place", ["images/report", "more/report", "."])
def test_a_report_never_lies_in_an_input(tmp_path, place):
    drawn.write_lab(tmp_path / "a", pictures=3)
    (tmp_path / "a" / "more").mkdir()
    words = ["--annotations", tmp_path / "a" / "labels.json", "--images", tmp_path / "a" / "images"]
    words += ["--unlabelled", tmp_path / "a" / "more", "--report", tmp_path / "a" / place]
    error = run(*words, rc=2).stderr
    assert error.startswith("error: ") and "--out" not in error and error.count("\n") == 1
    assert not (tmp_path / "a" / place / "report.json").exists()


def test_a_lab_with_nobody_to_learn_from_is_an_error(tmp_path):
    data = drawn.write_lab(tmp_path / "a", pictures=2)
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    (tmp_path / "a" / "labels.json").write_text(json.dumps(data))
    lab = check.read_lab(inputs_of(tmp_path / "a"))
    assert [f.code for f in lab.findings.errors()] == ["NK247"] and len(lab.people) == 2
    drawn.write_lab(tmp_path / "b", pictures=2, seed=9)
    lab = check.read_lab(inputs_of(tmp_path / "a", unlabelled=(f"{tmp_path}/b/images",)))
    assert lab.findings.errors() == ()


def test_packing_what_is_left_is_no_advice_where_nothing_is(tmp_path):
    data = drawn.write_lab(tmp_path / "a", pictures=2)
    data["annotations"][1]["id"] = 1
    (tmp_path / "a" / "labels.json").write_text(json.dumps(data))
    words = ["--annotations", tmp_path / "a" / "labels.json", "--images", tmp_path / "a" / "images"]
    done = run(*words, rc=2)
    assert "NK232 error" in done.stdout and "NK247 error" in done.stdout
    assert "--allow_skip" not in done.stdout


def test_the_report_says_what_is_left_out(tmp_path):
    drawn.write_lab(tmp_path / "a", pictures=3)
    images, more = tmp_path / "a" / "images", tmp_path / "a" / "more"
    drawn.write_lab(tmp_path / "b", pictures=1, seed=9)
    (tmp_path / "b" / "images").rename(more)
    (name,) = [path.name for path in more.iterdir()]
    for copy in ("x.jpg", "y.jpg"):
        (more / copy).write_bytes((more / name).read_bytes())
    (more / "labelled.jpg").write_bytes((images / name).read_bytes())
    (more / "notes.txt").write_text("none")
    inputs = inputs_of(tmp_path / "a", unlabelled=(str(more),))
    dropped = check.report(check.read_lab(inputs), inputs)["dropped"]
    assert dropped == {"NK146": 2, "NK144": 1, "NK154": 1}


def test_the_command_on_a_lab_with_errors(tmp_path):
    data = drawn.write_lab(tmp_path / "a", pictures=4)
    data["annotations"][1]["id"] = 1
    (tmp_path / "a" / "images" / "child2_0002.jpg").unlink()
    (tmp_path / "a" / "labels.json").write_text(json.dumps(data))
    words = ["--annotations", tmp_path / "a" / "labels.json", "--images", tmp_path / "a" / "images"]
    done = run(*words, "--workers", 1, rc=2)
    assert "NK131 error          1 pictures of the JSON that are not there" in done.stdout
    assert "    child2_0002.jpg" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "pack_data.py" in line]
    assert line.endswith("--out DATA --allow_skip NK131 --allow_skip NK232")
    assert "error: nothing to read" in run(rc=2).stderr


def test_help_says_what_codes_and_severities_mean():
    text = run("--help").stdout
    for words in ("NK1xx", "NK2xx", "NK3xx", "NK4xx", "left out only when allowed",
                  "names of patients", "Exit code"):  # fmt: skip
        assert words in text


def test_names_that_are_no_utf8_are_printed(tmp_path):
    drawn.write_lab(tmp_path / "a", pictures=3)
    try:
        (tmp_path / "a" / "images" / os.fsdecode(b"m\xfcller.jpg")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    words = ["--annotations", tmp_path / "a" / "labels.json", "--images", tmp_path / "a" / "images"]
    assert r"m\udcfcller.jpg" in run(*words).stdout


@pytest.mark.skipif(not SAMPLES, reason="NKJAX_SAMPLES_COCO names no folder with the COCO samples")
@pytest.mark.parametrize("name, skeleton, joints, v", [
    ("test_coco.json", "", 17, [57, 17, 164]),
    ("test_coco_wholebody.json", "wholebody133", 133, [1161, 468, 233]),
])  # fmt: skip
def test_real_photographs(name, skeleton, joints, v):
    inputs = Inputs(f"{SAMPLES}/{name}", SAMPLES, skeleton)
    lab = check.read_lab(inputs)
    assert len(lab.pictures) == 4 and len(lab.people) == 14 and lab.findings.errors() == ()
    values = np.stack([person.keypoints_k3[:, 2] for person in lab.people])
    assert values.shape == (14, joints) and [(values == i).sum() for i in (0, 1, 2)] == v
