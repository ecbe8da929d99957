"""Detected boxes by hand, and the figures of an evaluation against scores called directly."""

import json

import jax
import numpy as np
import pytest

from nkjax import runs, skeleton
from nkjax.data import images, records
from nkjax.data.coco import BadAnnotations
from nkjax.evaluate import detected, evaluation, oks, packed, scores, topdown
from nkjax.evaluate.packed import Keypoints
from nkjax.evaluate.pictures import BadInput
from nkjax.evaluate.scores import Found
from nkjax.precision import FP32
from tests.evaluate import small_evaluation as small

COCO17 = skeleton.load("coco17")


def found(boxes, pictures, points=0.0):
    """Return people of one labelled joint at the corner of their box."""
    count, boxes = len(boxes), np.array(boxes, float).reshape(-1, 4)
    visible = np.zeros((count, 17), int)
    visible[:, 0] = 2
    return Found(
        points_nk2=np.full((count, 17, 2), points), scores_nk=np.ones((count, 17)),
        truth_nk2=np.tile(boxes[:, None, :2], (1, 17, 1)), visible_nk=visible, box_n4=boxes,
        box_score_n=np.arange(count) / 10, area_n=np.full(count, 9.0), crop_px_n=np.arange(count),
        people=tuple({"picture_id": name, "person_id": f"p{i}"} for i, name in enumerate(pictures)),
    )  # fmt: skip


def test_a_person_gets_the_box_that_fits_best_and_a_box_one_person():
    people = found([[0, 0, 10, 10], [5, 0, 10, 10], [50, 0, 10, 10], [0, 0, 10, 10]], "aaab")
    # IoU with the first person: 2/3 and 9/11; the last box is of another picture.
    boxes = found([[0, 0, 10, 15], [1, 0, 10, 10], [50, 0, 4.9, 10], [0, 0, 10, 10]], "aaac")
    assert detected.match(people, boxes).tolist() == [1, -1, -1, -1]
    # With the better one gone the other is taken; half is enough, less is not.
    boxes = found([[0, 0, 10, 15], [50, 0, 5, 10], [6, 0, 10, 10]], "aaa")
    assert detected.match(people, boxes).tolist() == [0, 2, 1, -1]
    # Two who overlap want one box: it is of the one whom it fits better.
    pair = found([[1, 0, 10, 10], [0, 0, 10, 10]], "aa")
    assert detected.match(pair, found([[0, 0, 10, 10]], "a")).tolist() == [-1, 0]


def test_people_found_keep_their_labels_and_get_what_the_box_gave():
    people = found([[0, 0, 10, 10], [20, 0, 10, 20], [50, 0, 10, 10]], "abc")
    boxes = found([[50, 0, 9, 10], [20, 0, 10, 18]], "cb", points=3.0)
    mine = detected.of_people(people, boxes, np.array([-1, 1, 0]))
    assert [who["person_id"] for who in mine.people] == ["p1", "p2"]
    assert mine.box_n4.tolist() == [[20, 0, 10, 20], [50, 0, 10, 10]]
    assert mine.truth_nk2[:, 0].tolist() == [[20, 0], [50, 0]] and (mine.points_nk2 == 3).all()
    assert mine.box_score_n.tolist() == [0.1, 0.0] and mine.crop_px_n.tolist() == [1, 0]


def write_boxes(path, entries):
    path.write_text(json.dumps([
        {"image_id": i, "category_id": c, "bbox": box, "score": s} for i, box, s, c in entries
    ]))  # fmt: skip
    return path


def write_mapping(path, rows):
    lines = "".join(f"{picture},x,{image}\n" for picture, image in rows)
    path.write_text(f"picture_id,file,image_id\n{lines}")
    return path


def test_boxes_are_joined_to_pictures_and_what_is_not_used_is_counted(tmp_path):
    boxes = write_boxes(tmp_path / "boxes.json", [
        (7, [1, 2, 3, 4], 0.5, 1), ("007", [5, 6, 7, 8], 0.25, 2), (8, [1, 1, 2, 2], 1.0, 1),
        ("x/y.jpg", [1, 1, 9, 9], 0.75, 1), (9, [0, 0, 0, 0], 1.0, 1),
    ])  # fmt: skip
    mapping = write_mapping(tmp_path / "m.csv", [("a", "7"), ("b", "x/y.jpg"), ("c", "99"),
                                                 ("d", "")])  # fmt: skip
    read = detected.read(boxes, "1", mapping, ["a", "b", "c", "d"])
    # Two spellings of an id are one picture; what one holds is not lost when the other is read.
    assert read.boxes == {"a": ((1, 2, 3, 4, 0.5),), "b": ((1, 1, 9, 9, 0.75),), "c": ()}
    assert read.counts == {
        "detections with a bbox less than 1 px wide or high": 1, "boxes of another category": 1,
        "boxes on other pictures": 1, "pictures whose image_id is not known": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("rows", "picture", "words"), [
    ([("a", "1"), ("b", "01")], "a", "two pictures have image_id"),
    ([("a", "2")], "a", "none of its boxes is on a picture of this split"),
])  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused(tmp_path, rows, picture, words):
    boxes = write_boxes(tmp_path / "boxes.json", [(1, [1, 2, 3, 4], 0.5, 1)])
    with pytest.raises(BadInput, match=words):
        detected.read(boxes, None, write_mapping(tmp_path / "m.csv", rows), [picture])


def test_files_that_are_none_are_refused(tmp_path):
    boxes = write_boxes(tmp_path / "boxes.json", [(1, [1, 2, 3, 4], 0.5, 1)])
    with pytest.raises(BadInput, match="cannot be opened"):
        detected.read(boxes, None, tmp_path / "none.csv", ["a"])
    with pytest.raises(BadInput, match="no CSV with columns picture_id and image_id"):
        detected.read(boxes, None, boxes, ["a"])
    with pytest.raises(BadAnnotations, match="several categories"):
        both = write_boxes(tmp_path / "c.json", [(1, [1, 2, 3, 4], 1.0, c) for c in (1, 2)])
        detected.read(both, None, write_mapping(tmp_path / "m.csv", [("a", 1)]), ["a"])


@pytest.fixture(scope="module", params=[True, False], ids=["flip", "plain"])
def out(request):
    more = () if request.param else ("--no_flip_test",)
    return request.param, small.evaluated(*more)


def by_hand(flip_test):
    """Find the joints of the test split as predict.py does, one crop at a time."""
    rows = records.Rows(records.read_manifest(small.data()), "test")
    spec, params, step = runs.load(small.run(), "best")
    assert step == 2
    network = topdown.make_network(params, spec, FP32, flip_test)
    points, certain, people = [], [], [rows[i] for i in range(len(rows))]
    for row in people:
        picture = images.decode_reduced(row["image"], 1)
        crop, center, scale = topdown.crop(picture, row["box"].astype(float), spec.image_size)
        at, score = jax.device_get(network(crop[None]))
        height, width = spec.image_size
        points.append(evaluation.split_boxes.packed.affine.crop_to_picture(
            at[0], center, scale, (width, height)))  # fmt: skip
        certain.append(score[0])
    labels = np.array([row["keypoints"] for row in people])
    boxes = np.array([row["box"] for row in people], float)
    longer = np.maximum(boxes[:, 2], boxes[:, 3] * 48 / 64) * 1.25
    return Found(
        np.array(points), np.array(certain), labels[..., :2], labels[..., 2].astype(int), boxes,
        np.ones(len(people)), np.array([row["area"] for row in people]), tuple(people), 48 / longer,
    )  # fmt: skip


def test_figures_are_those_of_scores_called_by_hand(out):
    flip_test, folder = out
    document, mine = small.metrics(folder), by_hand(flip_test)
    assert document["flip_test"] is flip_test and document["people"] == 12
    wanted = scores.measure(mine, COCO17)
    for name, value in wanted.items():
        got = document["metrics"][name]
        assert got is None if np.isnan(value) else got == pytest.approx(value, rel=1e-5), name
    assert document["metrics"]["pck_box@0.2"] is not None
    ends = scores.intervals(mine, COCO17, ["pck_box@0.2", "pixel_error_mean"], seed=0)
    for name, (low, high) in ends.items():
        assert document["intervals"][name] == pytest.approx([low, high], rel=1e-5)
    sizes = {who["picture_id"]: (120, 96) for who in mine.people}
    truth, raw = oks.from_found(mine, {}, sizes)
    wanted = oks.average_precision(truth, oks.detections(raw, COCO17.sigmas), COCO17.sigmas)
    for name, value in wanted.items():
        got = document["oks"][name]
        assert got is None if np.isnan(value) else got == pytest.approx(value, abs=1e-9), name


def test_eight_devices_give_what_one_gives(tmp_path, monkeypatch):
    assert small.metrics(small.evaluated())["device"]["count"] == 8
    one = jax.local_devices()[:1]
    monkeypatch.setattr(evaluation.jax, "local_devices", lambda: one)
    assert small.command(tmp_path / "out") == 0
    alone = small.metrics(tmp_path / "out")
    assert alone["device"]["count"] == 1
    for part in ("metrics", "intervals", "oks"):
        for name, value in small.metrics(small.evaluated())[part].items():
            if value is None or value == [None, None]:
                assert alone[part][name] == value
            else:
                np.testing.assert_allclose(alone[part][name], value, rtol=1e-5, err_msg=name)


def oracle(monkeypatch, broken=(), split="test"):
    """Let the network be one that sees the labels of whoever fits a box best."""
    rows = records.Rows(records.read_manifest(small.data()), split)
    people = [rows.person(i) for i in range(len(rows))]

    def find(network, params, looked_at, spec, mesh, batch, threads, tick):
        points, read = np.zeros((len(looked_at), 17, 2)), np.ones(len(looked_at), bool)
        for i, mine in enumerate(packed.people(looked_at)):
            if mine is None:
                read[i] = False
                continue
            here = [who for who in people if who["picture_id"] == mine["picture_id"]]
            best = max(here, key=lambda who: detected.draw.iou(who["box"], mine["box"]))
            points[i] = best["keypoints"][:, :2]
            read[i] = mine["picture_id"] not in broken
        tick(len(looked_at))
        return Keypoints(points, np.full((len(looked_at), 17), 0.9), read)

    monkeypatch.setattr(evaluation.split_boxes.packed, "find", find)
    monkeypatch.setattr(evaluation.split_boxes.packed, "compile_network", lambda *a: None)
    return people


def test_whom_the_detector_misses_lowers_ap_and_is_counted(tmp_path, monkeypatch):
    people = oracle(monkeypatch)
    with open(f"{small.data()}/private/mapping.csv") as file:
        lines = [line.rstrip("\n").split(",") for line in file]
    image_id = {line[0]: line[4] for line in lines[1:]}
    pictures = list(dict.fromkeys(who["picture_id"] for who in people))
    # Of six pictures: one nobody is found in, one person missed in another, a box of nothing.
    entries = [
        (int(image_id[who["picture_id"]]), who["box"].tolist(), 0.9, 1)
        for i, who in enumerate(people) if who["picture_id"] != pictures[0] and i != 11
    ]  # fmt: skip
    far = np.array(people[5]["box"]) * 0 + [0, 0, 4, 4]
    entries += [(int(image_id[people[5]["picture_id"]]), far.tolist(), 0.05, 1)]
    boxes = write_boxes(tmp_path / "boxes.json", entries)
    mapping = f"{small.data()}/private/mapping.csv"
    more = ("--detections", boxes, "--pictures", mapping)
    assert small.command(tmp_path / "out", *more) == 0
    document = small.metrics(tmp_path / "out")
    counts = document["detector"]
    assert (counts["people"], counts["people_found"], counts["boxes"]) == (12, 9, 10)
    assert counts["recall"] == 0.75 and counts["boxes_of_nobody_labelled"] == 1
    # Every joint found is right; only who was missed is wrong, at every threshold.
    assert document["metrics"]["pck_box@0.05"] == 1 and document["metrics"]["people"] == 9
    assert document["boxes"] == "detected" and document["oks"]["AR"] == pytest.approx(0.75)
    assert str(boxes) not in document["command"] and "[private]" in document["command"]
    told = (tmp_path / "out" / "report.html").read_text()
    assert "It found 9 of 12 labelled people (75.0 % recall" in told


def test_people_whose_picture_cannot_be_read_are_counted(tmp_path, monkeypatch, capsys):
    people = oracle(monkeypatch)
    broken = people[0]["picture_id"]
    oracle(monkeypatch, broken=(broken,))
    assert small.command(tmp_path / "out") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("failed: TooManyFailures: 2 of 12 people of split test")
    assert "above the 0.10% allowed" in told and not list((tmp_path / "out").iterdir())
    assert small.command(tmp_path / "out", "--max_failed", "0.17") == 0
    assert "2 of 12 people could not be read" in capsys.readouterr().err
    document = small.metrics(tmp_path / "out")
    assert document["unread"] == 2 and document["people"] == 12
    assert document["metrics"]["people"] == 10 and document["oks"]["AR"] == 1
    assert "2 people could not be read" in (tmp_path / "out" / "report.html").read_text()


def alter(monkeypatch, subjects):
    """Damage the first person's record, and forget who the first so many are."""
    read = records.Rows.person

    def person(rows, i):
        if i == 0:
            raise RuntimeError("Invalid chunk: hash mismatch")
        return read(rows, i) | ({"subject": ""} if i < subjects else {})

    monkeypatch.setattr(records.Rows, "person", person)


def test_a_damaged_record_is_unread_and_unknown_children_are_told(tmp_path, monkeypatch):
    oracle(monkeypatch)
    alter(monkeypatch, subjects=6)
    assert small.command(tmp_path / "out") == 0  # one may always fail
    document = small.metrics(tmp_path / "out")
    assert document["unread"] == 1 and document["metrics"]["people"] == 11
    words = "Intervals count 5 people without a known child as one child each"
    notes = " ".join(document["notes"])
    assert words in notes and "trained on" not in notes and "chosen on" not in notes
    assert words in (tmp_path / "out" / "report.html").read_text()
    assert small.command(tmp_path / "none", "--max_failed", "0") == 1


def test_a_damaged_record_is_unread_in_detected_boxes_too(tmp_path, monkeypatch):
    people = oracle(monkeypatch)
    names = list(dict.fromkeys(who["picture_id"] for who in people))
    entries = [(names.index(who["picture_id"]), who["box"].tolist(), 0.9, 1) for who in people]
    mapping = write_mapping(tmp_path / "m.csv", [(name, i) for i, name in enumerate(names)])
    boxes = write_boxes(tmp_path / "boxes.json", entries)
    alter(monkeypatch, subjects=12)
    assert small.command(tmp_path / "out", "--detections", boxes, "--pictures", mapping) == 0
    document = small.metrics(tmp_path / "out")
    assert document["unread"] == 1 and document["detector"]["people"] == 11
    # The boxes are all looked into: the picture of whom nothing is known is there.
    assert document["detector"]["boxes"] == 12 and document["oks"]["AR"] == 1
    assert document["subjects"] == 0 and "intervals are over people" in " ".join(document["notes"])
    assert "interval over people." in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(("split", "words"), [
    ("train", "are trained on"), ("val", "the best state was chosen on it"),
])  # fmt: skip
def test_figures_of_people_seen_in_training_say_so(split, words, tmp_path, monkeypatch):
    oracle(monkeypatch, split=split)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "model.json", "checkpoints"):
        (run / name).symlink_to(f"{small.run()}/{name}")
    (run / "run.json").write_text(json.dumps({"format": 1, "data_sha256": "other"}))
    out = tmp_path / "out"
    assert small.command(out, "--split", split, network=["--run", str(run)]) == 0
    for told in (" ".join(small.metrics(out)["notes"]), (out / "report.html").read_text()):
        assert words in told and "not the data that the run was trained on: people" in told
