"""The command: a simulated folder to look at, or one line and nothing written."""

import importlib.util
import json
import shutil

import pytest

from nkjax.toddlersim.lab_folder import defects
from tests.toddlersim import written
from tests.toddlersim.simulate_imagined import ROOT


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "show_simulated.py"
    spec = importlib.util.spec_from_file_location("show_simulated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    out = tmp_path_factory.mktemp("shown") / "lab"
    written.write(out, 7, 4, 2)
    return out


@pytest.fixture
def lab(good, tmp_path):
    shutil.copytree(good, tmp_path / "lab")
    return tmp_path / "lab"


def show(script, lab, *more):
    return script.main(["--lab", str(lab), "--out", str(lab.parent / "look"), *more])


def test_sheets_measures_and_nothing_else(script, lab, capfd):
    before = written.tree(lab)
    assert show(script, lab, "--count", "3") == 0
    assert capfd.readouterr().out == f"wrote {lab.parent / 'look'}\n"
    look = lab.parent / "look"
    assert {path.name for path in look.iterdir()} == {
        "labelled.jpg", "test.jpg", "measures.md", "measures.png"}  # fmt: skip
    assert "11 pictures of 5 people" in (look / "measures.md").read_text()
    assert written.tree(lab) == before


def no_settings(lab):
    (lab / "simulation.json").unlink()


def nothing_simulated(lab):
    no_settings(lab)
    shutil.rmtree(lab / "truth")


def not_there(lab):
    shutil.rmtree(lab)


def planted(lab):
    defects.plant(lab, ["nan"])


def unlabelled(lab):
    shutil.rmtree(lab)
    written.write(lab, 0, 0, 2)


def no_truth(lab):
    shutil.rmtree(lab / "truth")


def last_damaged(lab):
    path = sorted((lab / "truth").glob("*test*"))[-1]
    path.write_bytes(path.read_bytes()[:-30])


def other_joints(lab):
    path = lab / "skeleton.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"keypoints": ["nose"]}))


def other_skeleton(lab):
    text = (lab / "skeleton.json").read_text().replace("left_hip", "left_hop")
    (lab / "skeleton.json").write_text(text.replace("right_hip", "right_hop"))


def short_keypoints(lab):
    data = json.loads((lab / "labels.json").read_text())
    data["annotations"][-1]["bbox"] = data["annotations"][0]["keypoints"] = [1, 2]
    (lab / "labels.json").write_text(json.dumps(data))


@pytest.mark.parametrize(("damage", "why"), [
    (no_settings, "an unfinished simulated folder"), (nothing_simulated, "not a simulated folder"),
    (not_there, "not a simulated folder"), (planted, "has mistakes planted"),
    (unlabelled, "holds no labelled or test pictures"), (no_truth, "people.csv"),
    (last_damaged, "000003.npz: damaged"), (other_joints, "skeleton.json"),
    (other_skeleton, "other joints than simulated people"),
    (short_keypoints, "are not 65 triples"),
])  # fmt: skip
def test_a_bad_folder_is_one_line_and_leaves_nothing(script, lab, capfd, damage, why):
    damage(lab)
    assert show(script, lab) == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ") and why in told and str(lab) in told
    assert not (lab.parent / "look").exists()


def test_what_fails_at_the_end_leaves_nothing(script, lab, monkeypatch, capfd):
    def full(pictures, skeleton):
        raise MemoryError("no room")

    monkeypatch.setattr(script.simulated_charts, "chart", full)
    assert show(script, lab) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "failed: no room"
    assert not (lab.parent / "look").exists()


def test_bad_options_are_one_line(script, lab, capfd):
    for more, why in ((["--count", "0"], "from 1 to"), (["--count", "x"], "from 1 to"),
                      (["--out", ""], "empty"), (["--out=-x"], "write ./-x")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            show(script, lab, *more)
        assert stop.value.code == 2 and why in capfd.readouterr().err.splitlines()[-1]
    (lab.parent / "notes.txt").write_text("mine")
    for out, why in (("notes.txt", "exists already"), ("notes.txt/look", "cannot be made")):
        assert show(script, lab, "--out", str(lab.parent / out)) == 2
        assert why in capfd.readouterr().err.splitlines()[-1]
