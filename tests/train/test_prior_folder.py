"""The prior folder: made by one call, finished by the next, refused where it is of other data."""

import json
import shutil

import fit_prior
import jax
import numpy as np
import pytest

from nkjax.config import BadConfig
from nkjax.kinematics import statistics
from nkjax.prior import saved
from nkjax.snapshots import Snapshots
from nkjax.train import prior, prior_data, prior_folder
from nkjax.train.begin import BadStart
from tests.train import small_run
from tests.train.test_prior_run import SKELETONS, compile_once, config, pack

FILES = {"statistics.json", "model.json", "params", "calibration.json", "training"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("lab27") / "data", SKELETONS["lab27"], 80)


@pytest.fixture(scope="module", autouse=True)
def programs():
    with pytest.MonkeyPatch.context() as patch:
        work = prior_folder.dataclasses.replace(prior.PRIOR, compile=compile_once)
        patch.setattr(prior_folder.prior, "PRIOR", work)
        yield


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """A prior of 6 steps on a skeleton of a lab's own, stopped once on its way."""
    out = tmp_path_factory.mktemp("prior") / "prior"
    assert not prior_folder.fit(config(data), str(out), preempted=lambda step: step == 3)
    assert {path.name for path in out.iterdir()} == {"statistics.json", "training"}
    assert prior_folder.fit(config(data), str(out), preempted=lambda step: False)
    return out


def test_a_folder_is_whole_and_holds_the_average(folder, data):
    assert {path.name for path in folder.iterdir()} == FILES
    found = saved.load(folder)
    assert found.skeleton == SKELETONS["lab27"] and list(found.parts) == ["body"]
    # Read as the loop does, on its mesh.
    start = prior_data.begin(config(data))
    mesh = prior_folder.mesh.make_mesh(1, 8)
    abstract = prior.work.abstract_state(prior.shapes(start.parts), config(data), mesh)
    state, _ = Snapshots(folder / "training", keep=1).restore(6, abstract)
    for one, other in zip(
        jax.tree.leaves(found.parts["body"].params),
        jax.tree.leaves(state.ema["body"]), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    assert found.parts["body"].units == start.parts["body"].units


def test_statistics_and_calibration_are_of_other_people(folder, data):
    start = prior_data.begin(config(data))
    measured = statistics.read(folder / "statistics.json")
    assert measured["people"] == len(start.learning.subject_n)
    assert not {*measured["folds"]["fit"]} & {*measured["folds"]["calibration"]}
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["people"] == len(start.calibrating.subject_n) < prior_folder.FEWEST
    assert calibration["limits"] == {"body": None}  # of fewer than 50 people


def test_the_same_call_writes_what_is_missing(folder, data, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "prior")
    (copy / "calibration.json").unlink()
    (copy / "model.json").unlink()
    assert prior_folder.fit(config(data), str(copy), preempted=lambda step: False)
    said = capsys.readouterr().err
    assert "finished already, at step 6" in said and "warning: fewer than 200 people" in said
    for name in ("statistics.json", "calibration.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    ours, theirs = (saved.read_model(path) for path in (copy, folder))
    assert ours["leaves"] == theirs["leaves"]


def test_a_folder_of_other_data_is_refused(folder, data, tmp_path):
    other = pack(tmp_path / "data", SKELETONS["lab27"], 40)
    before = (folder / "statistics.json").read_bytes()
    with pytest.raises(BadStart, match="statistics.json is of other data.*--out"):
        prior_folder.fit(config(other), str(folder))
    with pytest.raises(BadConfig, match="near was 0.5 and is 0.1"):
        prior_folder.fit(config(data, near=0.1), str(folder))
    assert (folder / "statistics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--data=nowhere"], "error: nowhere"),
        (["--data=DATA", "--out=FILE/prior"], "error: --out="),
        (["--data=DATA", "--config.mesh.data=3"], "error: mesh is 3 x"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(data, tmp_path, capsys, words, wanted, monkeypatch):
    monkeypatch.setattr(fit_prior.mesh, "start", lambda: None)
    (tmp_path / "file").write_text("")
    places = {"DATA": data, "FILE": str(tmp_path / "file")}
    file = f"--config={small_run.ROOT}/configs/prior.py:tiny"
    given = [file, f"--out={tmp_path / 'out'}", *words]
    for name, place in places.items():
        given = [word.replace(name, place) for word in given]
    assert fit_prior.main(given) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(wanted) and "--workdir" not in line
