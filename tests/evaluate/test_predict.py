"""The command, from pictures to tables, with a network that sees colours.

`colour_network` finds coloured spots, so where they lie in the picture is where joints must be.
"""

import csv
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.evaluate import tables, topdown

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "data" / "fixtures"

_spec = importlib.util.spec_from_file_location("predict_script", ROOT / "scripts" / "predict.py")
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

# nose, left eye, right eye of the colour network
SPOTS = {0: (255, 0, 0), 1: (0, 255, 0), 2: (0, 255, 0)}


def spotted(path, width, height, people):
    """Write a picture: people have a red spot, and two green ones level with each other."""
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3))
    for nose, middle, apart in people:
        eyes = [(middle[0] + apart, middle[1]), (middle[0] - apart, middle[1])]
        for (px, py), colour in zip([nose, *eyes], SPOTS.values(), strict=True):
            bell = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 5.0**2))
            image = np.maximum(image, bell[..., None] * colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image.round().astype(np.uint8)[..., ::-1])
    return path


def colour_network(params, spec, images_bhwc, *, policy):
    """Like a trained network it tells left from right in the crop it sees, mirrored or not."""
    height, width = images_bhwc.shape[1:3]
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    rgb = images_bhwc * std[None, None, None] + mean[None, None, None]
    rows = np.linspace(0, height - 1, height // 4).round().astype(int)
    columns = np.linspace(0, width - 1, width // 4).round().astype(int)
    red, green, blue = jnp.moveaxis(rgb[:, rows][:, :, columns] / 255, -1, 0)
    on_the_right = (columns > width / 2)[None, None, :]
    left_eye, right_eye = green * on_the_right, green * ~on_the_right
    return {"pose": jnp.stack([red, left_eye, right_eye] + [blue] * 14, -1)}


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(topdown.sapiens, "apply", colour_network)


def person_box(nose, middle, apart, height=90.0):
    """A box around the two eyes' mid-line."""
    return [middle[0] - 1.5 * apart, middle[1] - height / 3, 3.0 * apart, height]


# (nose, middle of the eyes, half their distance) in two pictures of different size and shape
PEOPLE = {
    "000000000785.png": (300, 200, [((63, 120), (70, 60), 30), ((205, 118), (210, 80), 24)]),
    "sub/12.png": (160, 340, [((92, 230), (80, 170), 36)]),
}


@pytest.fixture
def folder(tmp_path):
    for name, (width, height, people) in PEOPLE.items():
        spotted(tmp_path / "in" / name, width, height, people)
    return tmp_path / "in"


def detection(image_id, person, score=0.8, **more):
    box = person_box(*person)
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score} | more


@pytest.fixture
def detections(tmp_path):
    entries = [detection(785, p) for p in PEOPLE["000000000785.png"][2]]
    entries += [detection("12", PEOPLE["sub/12.png"][2][0])]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(entries))
    return path


def run(weights, source, out, *more):
    argv = ["--weights", str(weights), "--input", str(source), "--out", str(out), *map(str, more)]
    return script.main(argv)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def joints_of(out, *keys):
    found = {}
    for row in rows(out / "keypoints.csv"):
        at = (float(row["x"]), float(row["y"]), float(row["score"]))
        found[row["picture"], int(row["person"]), row["joint"]] = at
    return found


def test_joints_land_on_their_spots_in_every_picture(weights, folder, detections, tmp_path):
    out = tmp_path / "out"
    assert run(weights, folder, out, "--detections", detections, "--show_paths") == 0
    found = joints_of(out)
    assert len(found) == 3 * 17
    for name, (_, _, people) in PEOPLE.items():
        for i, (nose, middle, apart) in enumerate(people):
            spots = {"nose": nose, "left_eye": (middle[0] + apart, middle[1]),
                     "right_eye": (middle[0] - apart, middle[1])}  # fmt: skip
            for joint, spot in spots.items():
                x, y, score = found[name, i, joint]
                assert np.hypot(x - spot[0], y - spot[1]) < 1.5, (name, joint)
                # Both passes of the flip test agree; a lost swap or mirror halves the score.
                assert score > 0.8, (name, joint)
            assert found[name, i, "left_hip"][2] < 0.01
    assert not (out / "private").exists()
    assert (out / "overlays" / "sub" / "12.png.jpg").is_file()


def test_results_are_coco_results(weights, folder, detections, tmp_path):
    out = tmp_path / "out"
    assert run(weights, folder, out, "--detections", detections, "--show_paths") == 0
    results = json.loads((out / "results.json").read_text())
    assert [r["image_id"] for r in results] == [785, 785, "12"]
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    found = joints_of(out)
    for result, (name, i) in zip(
        results, [("000000000785.png", 0), ("000000000785.png", 1), ("sub/12.png", 0)], strict=True
    ):
        assert result.keys() == {"image_id", "category_id", "keypoints", "score", "run_id"}
        assert result["category_id"] == 1 and result["run_id"] == run_id
        values = np.array(result["keypoints"]).reshape(17, 3)
        np.testing.assert_allclose(values[0], found[name, i, "nose"], atol=1e-3)
        # Only the three spots score above 0.2.
        wanted = 0.8 * values[:3, 2].mean()
        assert result["score"] == pytest.approx(wanted, abs=1e-4)


def test_names_stay_private_and_the_salt_repeats_the_ids(
    weights, folder, detections, tmp_path, capfd
):
    (folder / "Anna_Muster.jpg").write_bytes(b"no picture")
    boxes = json.loads(detections.read_text())
    boxes.append(detection("Anna_Muster", PEOPLE["sub/12.png"][2][0]))
    detections.write_text(json.dumps(boxes))
    a, b, c = (tmp_path / name for name in "abc")
    more = ["--detections", detections]
    assert run(weights, folder, a, *more) == 0
    assert run(weights, folder, b, *more, "--salt", a / "private" / "salt.txt", "--batch", "3") == 0
    assert run(weights, folder, c, *more) == 0

    told = capfd.readouterr()
    public = [p for p in a.rglob("*") if p.is_file() and p.parent.name != "private"]
    assert len(public) == 6  # two overlays, four tables
    for path in public:
        text = path.name.encode() + path.read_bytes()
        for secret in (b"Anna", b"000785", str(folder).encode(), str(detections).encode()):
            assert secret not in text, path
    assert "Anna" not in told.out + told.err
    assert (a / "private").stat().st_mode & 0o077 == 0
    mapping = rows(a / "private" / "mapping.csv")
    assert [(r["file"], r["image_id"]) for r in mapping] == [
        ("000000000785.png", "785"), ("Anna_Muster.jpg", "Anna_Muster"), ("sub/12.png", "12"),
    ]  # fmt: skip
    assert str(folder) in (a / "private" / "command.txt").read_text()
    results = json.loads((a / "results.json").read_text())
    # A number is kept, a name that stands for a file is not.
    assert [r["image_id"] for r in results] == [785, 785, mapping[2]["picture"]]
    assert rows(b / "private" / "mapping.csv") == mapping
    assert rows(c / "private" / "mapping.csv") != mapping


def test_the_same_input_gives_the_same_bytes(weights, folder, detections, tmp_path):
    salt = tmp_path / "salt.txt"
    salt.write_text("0f" * 32)
    texts = []
    for name in ("a", "b"):
        out = tmp_path / name
        assert run(weights, folder, out, "--detections", detections, "--salt", salt) == 0
        run_id = json.loads((out / "run.json").read_text())["run_id"]
        texts.append({
            path.relative_to(out): path.read_bytes().replace(run_id.encode(), b"RUN")
            for path in out.rglob("*")
            if path.is_file() and path.parent.name != "private" and path.name != "run.json"
        })  # fmt: skip
    assert texts[0] == texts[1] and len(texts[0]) == 5


def test_run_json_says_where_everything_comes_from(weights, folder, detections, tmp_path):
    out = tmp_path / "out"
    assert run(weights, folder, out, "--detections", detections, "--faces", "show") == 0
    record = json.loads((out / "run.json").read_text())
    pth = (FIXTURES / "tiny_pose.pth").read_bytes()
    assert record["weights"]["source"]["sha256"] == hashlib.sha256(pth).hexdigest()
    assert "NonCommercial" in record["weights"]["licence"]["notice"]
    boxes = hashlib.sha256(detections.read_bytes()).hexdigest()
    assert record["inputs_sha256"] == {"detections": boxes}
    assert record["versions"]["jax"] == jax.__version__ and record["device"]
    assert record["faces"] == "shown" and "not anonymisation" in record["notes"][0]
    assert record["counts"]["people"] == 3 and record["counts"]["pictures predicted"] == 2
    assert "--faces show" in record["command"] and "[private]" in record["command"]


def hashes(folder):
    return {p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def test_nothing_is_lost_in_silence_and_inputs_stay_as_they_were(
    weights, folder, detections, tmp_path, capfd
):
    person = PEOPLE["sub/12.png"][2][0]
    good = (folder / "sub" / "12.png").read_bytes()
    for name in ("31.png", "32.png", "33.png", "34.png"):
        (folder / name).write_bytes(good)
    (folder / "35.png").write_bytes(good[: len(good) // 2])
    (folder / "notes.txt").write_text("not a picture")
    boxes = json.loads(detections.read_text())
    boxes += [
        detection(31, person, 0.1),
        detection(32, person, bbox=[500, 10, 20, 20]),
        detection(33, person, bbox=[1, 1, 0, 5]),
        detection(34, person),
        detection(34, person, 0.05),
        detection(35, person),
        detection(99, person),
    ]
    detections.write_text(json.dumps(boxes))
    before = hashes(tmp_path)
    out = tmp_path / "out"
    assert run(weights, folder, out, "--detections", detections, "--show_paths") == 0
    assert {path: mark for path, mark in hashes(tmp_path).items() if path in before} == before
    told = capfd.readouterr()
    assert "35.png: truncated" in told.err or "35.png: not a complete picture" in told.err

    status = {row["picture"]: row["status"] for row in rows(out / "pictures.csv")}
    assert status == {
        "000000000785.png": "predicted", "31.png": "no box above min_score",
        "32.png": "boxes outside", "33.png": "no box", "34.png": "predicted", "35.png": "failed",
        "sub/12.png": "predicted",
    }  # fmt: skip
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert counts == {
        "pictures": 7, "other files": 1, "pictures read": 4, "people": 4,
        "pictures predicted": 3, "pictures failed": 1, "pictures boxes outside": 1,
        "pictures no box": 1, "pictures no box above min_score": 1,
        "boxes of no picture here": 1, "boxes below --min_score": 2,
        "boxes outside their picture": 1,
        "detections with a bbox less than 1 px wide or high": 1,
    }  # fmt: skip
    for name, count in counts.items():
        assert f"{count} {name}" in told.out
    # A picture in which nobody was found is not written.
    overlays = {path.relative_to(out / "overlays").as_posix()
                for path in (out / "overlays").rglob("*.jpg")}  # fmt: skip
    assert overlays == {"000000000785.png.jpg", "34.png.jpg", "sub/12.png.jpg"}


def test_one_picture_without_boxes_is_one_person(weights, folder, tmp_path):
    path = spotted(tmp_path / "one.bin.png", 120, 160, [((52, 120), (60, 70), 30)])
    out = tmp_path / "out"
    assert run(weights, path, out, "--show_paths") == 0
    found = joints_of(out)
    assert len(found) == 17
    assert np.hypot(*np.subtract(found["one.bin.png", 0, "nose"][:2], (52, 120))) < 1.5
    (row,) = [r for r in rows(out / "keypoints.csv") if r["joint"] == "nose"]
    box = [float(row[k]) for k in ("box_x", "box_y", "box_w", "box_h")]
    assert box == [0, 0, 120, 160]
    # Nobody looked for other people: a coarse mosaic, so the red spot is gone.
    overlay = cv2.imread(str(out / "overlays" / "one.bin.png.jpg"))
    assert len(np.unique(overlay[1:4, 1:4].reshape(-1, 3), axis=0)) == 1


def annotations(tmp_path, *images):
    path = tmp_path / "ann.json"
    path.write_text(json.dumps({"images": list(images)}))
    return path


def test_images_json_names_the_pictures(weights, folder, detections, tmp_path, capfd):
    boxes = json.loads(detections.read_text())
    detections.write_text(json.dumps([box | {"image_id": 7} for box in boxes[2:]]))
    path = annotations(tmp_path, {"id": 7, "file_name": "sub/12.png"})
    more = ["--detections", detections, "--images_json"]
    assert run(weights, folder, tmp_path / "a", *more, path) == 0
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [r["image_id"] for r in results] == [7]
    # A picture of another size than the annotations say is turned otherwise: boxes would be off.
    turned = {"id": 7, "file_name": "12.png", "width": 340, "height": 160}
    path = annotations(tmp_path, turned)
    assert run(weights, folder, tmp_path / "b", *more, path) == 2
    told = capfd.readouterr().err
    assert "160x340" in told and "340x160" in told and "no picture could be read" in told


def test_another_category_is_no_person_but_is_masked(weights, folder, detections, tmp_path):
    boxes = json.loads(detections.read_text())
    boxes[1]["category_id"] = 2
    detections.write_text(json.dumps(boxes))
    more = ["--detections", detections, "--show_paths"]
    assert run(weights, folder, tmp_path / "a", *more) == 2
    assert run(weights, folder, tmp_path / "b", *more, "--person_category", "1") == 0
    counts = json.loads((tmp_path / "b" / "run.json").read_text())["counts"]
    assert counts["people"] == 2 and counts["boxes of another category"] == 1
    overlay = cv2.imread(str(tmp_path / "b" / "overlays" / "000000000785.png.jpg"))
    # The eyes of the other person, 24 px either side of (210, 80).
    for x in (186, 234):
        assert np.abs(overlay[78:83, x - 2 : x + 3].astype(int) - 128).max() < 30


REFUSED = {
    "out is in use": (["--out", "{folder}"], "new or an empty folder"),
    "out is in the input": (["--out", "{folder}/sub/new"], "lies in the input folder"),
    "out is in a bucket": (["--out", "gs://lab/out"], "folders of this machine"),
    "no weights": (["--weights", "{folder}"], "no model.json here"),
    "weights of another task": (["--weights", "{seg}"], "weights for seg"),
    "no input": (["--input", "{tmp}/none"], "no such picture or folder"),
    "no picture in it": (["--input", "{weights}"], "no picture below it"),
    "an annotation file for boxes": (["--detections", "{ann}"], "it as --images_json"),
    "boxes for an annotation file": (["--images_json", "{boxes}"], "no list of images"),
    "boxes of other pictures": (["--detections", "{boxes}", "--input", "{sub}"], "no image_id"),
    "no salt": (["--salt", "{ann}"], "64 hex digits"),
    "a category of nothing": (["--person_category", "1"], "--detections"),
    "a category that is not there": (
        ["--detections", "{boxes}", "--person_category", "5"],
        "no category '5'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    weights, seg_weights, folder, detections, tmp_path, capfd, case
):
    (tmp_path / "other").mkdir()
    spotted(tmp_path / "other" / "5.png", 40, 40, [])
    names = {
        "folder": folder, "tmp": tmp_path, "weights": weights, "seg": seg_weights,
        "boxes": detections, "sub": tmp_path / "other",
        "ann": annotations(tmp_path, {"id": 1, "file_name": "a.png"}),
    }  # fmt: skip
    options, words = REFUSED[case]
    before = hashes(tmp_path)
    capfd.readouterr()
    assert run(weights, folder, tmp_path / "out", *(o.format(**names) for o in options)) == 2
    told = capfd.readouterr()
    assert told.err.startswith("error: ") and words in told.err
    assert told.err.count("\n") == 1 and not told.out
    assert hashes(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [
    ["--batch", "0"], ["--batch", "x"], ["--min_score", "nan"], ["--faces", "blur"],
    ["--dtype", "float16"],
])  # fmt: skip
def test_bad_options_are_refused(weights, folder, tmp_path, options):
    with pytest.raises(SystemExit) as stopped:
        run(weights, folder, tmp_path / "out", *options)
    assert stopped.value.code == 2


def test_a_full_disk_is_one_line_and_leaves_no_run_json(
    weights, folder, tmp_path, monkeypatch, capfd
):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.draw, "encode_jpeg", full)
    out = tmp_path / "out"
    assert run(weights, folder, out) == 1
    assert "failed: OSError: [Errno 28] No space left" in capfd.readouterr().err
    assert not (out / "run.json").exists()


def test_the_script_runs_as_a_script(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "predict.py"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    more = ["--weights", tmp_path, "--input", tmp_path, "--out", tmp_path.parent / "out"]
    done = subprocess.run(
        [*command, *more], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no model.json here" in done.stderr
