"""The commands on a run: what is written, what is refused and how, predict.py --run."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import predict
import pytest

from nkjax import skeleton
from nkjax.evaluate import evaluation, networks, oks, tables
from tests.evaluate import small_evaluation as small
from tests.evaluate.test_report import Checked

COCO17 = skeleton.load("coco17")


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_say_what_was_evaluated_and_from_what():
    document = small.metrics(small.evaluated())
    record = Path(small.run()) / "checkpoints" / "2" / "record.json"
    assert document["state"] == {"state": "best", "step": 2} and document["split"] == "test"
    assert document["boxes"] == "given" and document["detector"] == {} and document["unread"] == 0
    assert document["people"] == 12 and document["subjects"] == 3
    facts = document["weights"]
    assert facts["record_sha256"] == hashlib.sha256(record.read_bytes()).hexdigest()
    assert facts["source"] == small.SOURCE
    assert facts["licence"] == small.LICENCE and document["licence"] == "CC <test> No & use."
    manifest = small.records.read_manifest(small.data())
    assert document["data"]["sha256"] == manifest.sha256
    assert document["normalisers"]["box"] == "longer side of the person's labelled box"
    assert any("Research use" in note for note in document["notes"])
    assert "jax" in document["versions"] and "scripts/evaluate.py" in document["command"]
    assert set(document["oks"]) == set(oks.NAMES)
    low, high = document["intervals"]["pixel_error_mean"]
    assert low <= document["metrics"]["pixel_error_mean"] <= high


def test_tables_are_written_with_empty_cells_for_the_unknown():
    out = small.evaluated()
    names = {path.stem for path in (out / "tables").iterdir()}
    assert names == {"joint", "group", "visible", "posture", "grasp", "subject", "age", "oks"}
    joints = rows_of(out / "tables" / "joint.csv")
    assert [row["joint"] for row in joints] == list(COCO17.keypoints)
    document = small.metrics(out)
    assert sum(int(row["n"]) for row in joints) == document["metrics"]["joints"]
    assert {row["hand_auc_hand_box"] for row in joints} == {""}
    assert {row["grasp"] for row in rows_of(out / "tables" / "grasp.csv")} == {
        "pincer", "not known"}  # fmt: skip
    ap = {row["figure"]: row["value"] for row in rows_of(out / "tables" / "oks.csv")}
    assert float(ap["AP"]) == document["oks"]["AP"]


def test_predictions_are_as_of_predict_and_say_whose_they_are():
    out = small.evaluated()
    lines = rows_of(out / "keypoints.csv")
    assert list(lines[0]) == [*tables.KEYPOINT_COLUMNS, "person_id"] and len(lines) == 12 * 17
    manifest = small.records.read_manifest(small.data())
    rows = small.records.Rows(manifest, "test")
    ids = [rows.person(i)["person_id"] for i in range(12)]
    assert list(dict.fromkeys(line["person_id"] for line in lines)) == ids
    assert [line["person"] for line in lines[::17]] == ["0", "1"] * 6
    results = json.loads((out / "results.json").read_text())
    values = np.reshape(results[3]["keypoints"], (17, 3))
    mine = [[float(line[k]) for k in ("x", "y", "score")] for line in lines[51:68]]
    np.testing.assert_allclose(values, mine, atol=1e-3)
    assert results[3]["image_id"] == lines[51]["picture"] == rows.person(3)["picture_id"]
    assert results[3].keys() == {"image_id", "category_id", "keypoints", "score", "run_id"}


def test_the_page_is_whole_and_holds_pictures_and_curves():
    text = (small.evaluated() / "report.html").read_text()
    checked = Checked(text)
    assert checked.open == [] and all(link.startswith("data:") for link in checked.links)
    assert sum(link.startswith("data:image/svg") for link in checked.links) == 2
    assert sum(link.startswith("data:image/jpeg") for link in checked.links) == 12
    assert "CC <test> No & use." in checked.words and "CC &lt;test&gt;" in text
    # Where the folders lie is nobody's business who gets the page.
    assert small.data() not in text and str(Path(small.run()).parent) not in text


REFUSED = {
    "not a run": (["--run", "{data}"], "no config.json and model.json here"),
    "a run as weights": (["--weights", "{run}"], "name it with --run"),
    "no such state": (["--state", "3"], "no saved state '3'; there are best, last, 2, 4"),
    "weights of other joints": (["--weights", "{weights}"], "keypoints"),
    "weights of another task": (["--weights", "{seg}"], "weights for seg; evaluate.py needs pose"),
    "no data": (["--data", "{seg}"], "pack the data"),
    "no such split": (["--split", "tset"], "no split 'tset'; it has"),
    "out is in use": (["--out", "{run}"], "new or an empty folder"),
    "out in the data": (["--out", "{data}/report"], "never written to"),
    "batch": (["--batch", "12"], "8 devices want a multiple: use 8 or 16"),
    "boxes without pictures": (["--detections", "{data}/manifest.json"], "needs --pictures"),
    "pictures without boxes": (["--pictures", "{data}/x"], "is of --detections"),
    "no boxes": (["--detections", "{tmp}/no", "--pictures", "{tmp}/no"], "cannot be opened"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_before_anything_is_written(
    case, tmp_path, capsys, request, seg_weights
):
    options, words = REFUSED[case]
    given = {"data": small.data(), "run": small.run(), "tmp": tmp_path, "seg": seg_weights}
    if "weights of other" in case:
        given["weights"] = _other_joints(tmp_path)
    options = [option.format(**given) for option in options]
    network = options if options[0] in ("--run", "--weights") else None
    capsys.readouterr()
    code = small.command(tmp_path / "out", *([] if network else options), network=network)
    told = capsys.readouterr().err
    assert code == 2 and told.count("\n") == 1 and told.startswith("error: ")
    assert words in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "words"), [
    (["--seed", "-1"], "'-1' is not a number from 0 on"),
    (["--max_failed", "1.5"], "'1.5' is not a share from 0 to 1"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(option, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        small.command(tmp_path / "out", *option)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_the_data_that_a_run_names_are_read_and_may_be_lost(tmp_path):
    manifest = small.records.read_manifest(small.data())
    found = networks.find(None, small.run(), "best", "evaluate.py")
    assert found.facts["data_sha256"] == manifest.sha256
    for name in ("config.json", "model.json", "checkpoints"):
        (tmp_path / name).symlink_to(Path(small.run()) / name)
    for damaged in (None, "{", "[]", "{}"):
        if damaged:
            (tmp_path / "run.json").write_text(damaged)
        found = networks.find(None, str(tmp_path), "best", "evaluate.py")
        assert found.facts["data_sha256"] is None


def _other_joints(tmp_path):
    """Return a weights folder whose model.json names two joints the other way round."""
    model = json.loads((Path(small.run()) / "model.json").read_text())
    joints = model["spec"]["skeleton"]["keypoints"]
    joints[1], joints[2] = joints[2], joints[1]
    model["spec_sha256"] = small.sapiens.spec_sha256(model["spec"])
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def test_what_fails_on_the_way_is_one_line_and_no_metrics(tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation.evaluation_tables, "write_parts", full)
    assert small.command(tmp_path / "out") == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "failed: OSError: [Errno 28] No space left on device"
    # What took long is there all the same.
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"keypoints.csv", "results.json"}


@pytest.mark.parametrize("script", [small.evaluate, predict])
def test_a_run_or_weights_must_be_named_and_not_both(script, tmp_path, capsys):
    more = ["--data", "d"] if script is small.evaluate else ["--input", "i"]
    for network in ([], ["--run", "a", "--weights", "b"]):
        with pytest.raises(SystemExit) as stopped:
            script.main([*network, *more, "--out", str(tmp_path / "out")])
        assert stopped.value.code == 2
        told = capsys.readouterr().err
        assert "--run" in told and "--weights" in told


def test_predict_takes_a_run_and_says_which_state(tmp_path):
    pictures = Path(small.data()).parent / "lab" / "images"
    outs = {}
    for state in ("best", "last", "4"):
        out = outs[state] = tmp_path / state
        words = ["--run", small.run(), "--state", state, "--input", str(pictures)]
        assert predict.main([*words, "--out", str(out), "--no-flip_test", "--show_paths"]) == 0
    weights = json.loads((outs["best"] / "run.json").read_text())["weights"]
    assert weights["run"] == small.run() and weights["licence"] == small.LICENCE
    assert (weights["state"], weights["step"]) == ("best", 2)
    values = {
        state: [(row["x"], row["score"]) for row in rows_of(out / "keypoints.csv")]
        for state, out in outs.items()
    }
    assert values["last"] == values["4"] != values["best"]
