"""The prior folder: made by one call, finished by the next, refused where it is of other data."""

import dataclasses
import json
import shutil

import fit_prior
import jax
import numpy as np
import pytest
import run_config

from nkjax import config as configs
from nkjax.kinematics import statistics
from nkjax.models import denoiser
from nkjax.prior import saved
from nkjax.prior_config import PriorConfig
from nkjax.snapshots import Snapshots
from nkjax.train import prior, prior_data, prior_folder
from tests.train import small_run
from tests.train.small_prior_run import SKELETONS, compile_once, config, pack, use_devices

FILES = {"statistics.json", "model.json", "params", "calibration.json", "pictures", "training"}
TINY = f"--config={small_run.ROOT}/configs/prior.py:tiny"


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Fit on one of the eight devices by programs compiled once; the command starts no cluster."""
    with pytest.MonkeyPatch.context() as patch:
        work = dataclasses.replace(prior.PRIOR, compile=compile_once)
        patch.setattr(prior_folder.prior, "PRIOR", work)
        patch.setattr(fit_prior.mesh, "start", lambda: None)
        use_devices(patch, 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("lab27") / "data", SKELETONS["lab27"], 80)


def line(data, out, **changes):
    """Return the command line of a small fit."""
    small = configs.to_json(config("", **changes))
    settings = {}
    for key, value in small.items():
        section = value if isinstance(value, dict) else {"": value}
        settings |= {f"{key}.{name}".rstrip("."): number for name, number in section.items()}
    del settings["data"], settings["profile"]
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    return [TINY, f"--data={data}", f"--out={out}", *words]


def fit(words):
    return fit_prior.main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """A prior of 6 steps on a skeleton of a lab's own, stopped once on its way."""
    out = tmp_path_factory.mktemp("prior") / "prior"
    words = line(data, out)
    settings, _ = run_config.parse(words, "", fit_prior._OPTIONS, PriorConfig)
    settings = dataclasses.replace(settings, data=data)
    assert not prior_folder.fit(settings, str(out), preempted=lambda step: step == 3)
    assert {path.name for path in out.iterdir()} == {"statistics.json", "training"}
    assert fit(words) == 0
    return out


def restored(folder, data):
    """Return the last state of a fit, read as the loop reads it."""
    start = prior_data.begin(config(data))
    mesh = prior_folder.mesh.make_mesh(1, 1)
    abstract = prior.work.abstract_state(prior.shapes(start.parts), config(data), mesh)
    state, _ = Snapshots(folder / "training", keep=1).restore(6, abstract)
    return start, state


def test_a_folder_is_whole_and_holds_the_average(folder, data):
    assert {path.name for path in folder.iterdir()} == FILES
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert {"samples_body.png", "denoising.png", "completion.png", "bones.png"} <= pictures
    found = saved.load(folder)
    assert found.skeleton == SKELETONS["lab27"] and list(found.parts) == ["body"]
    start, state = restored(folder, data)
    body = found.parts["body"]
    assert body.units == start.parts["body"].units
    for one, other in zip(body.gaussian, start.parts["body"].gaussian, strict=True):
        np.testing.assert_array_equal(one, other)
    ours, average, last = (
        jax.tree.leaves(tree) for tree in (body.params, state.ema["body"], state.params["body"])
    )
    for one, other in zip(ours, average, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(ours, last, strict=True))


def test_statistics_and_calibration_are_of_other_people(folder, data):
    start = prior_data.begin(config(data))
    measured = statistics.read(folder / "statistics.json")
    assert measured["people"] == len(start.learning.subject_n)
    assert not {*measured["folds"]["fit"]} & {*measured["folds"]["calibration"]}
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["people"] == len(start.calibrating.subject_n) < prior_folder.FEWEST
    assert calibration["limits"] == {"body": None}  # of fewer than 50 people


def test_the_same_line_writes_what_is_missing(folder, data, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "prior")
    (copy / "calibration.json").unlink()
    (copy / "model.json").unlink()
    assert fit(line(data, copy)) == 0
    said = capsys.readouterr().err
    assert "finished already, at step 6" in said and "warning: fewer than 200 people" in said
    for name in ("statistics.json", "calibration.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    ours, theirs = (saved.read_model(path) for path in (copy, folder))
    assert ours["leaves"] == theirs["leaves"]
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert fit(line(data, copy)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}


def test_with_one_subject_all_learn_and_nothing_is_calibrated(tmp_path):
    """Who has no subject is never held back; who is the only one, neither."""
    for subject, seed in (("", 0), *((f"{1:016x}", seed) for seed in range(9))):
        if seed < 2:
            data = pack(tmp_path / f"{subject}{seed}", SKELETONS["coco17"], 8, subject=subject)
        start = prior_data.begin(config(data, seed=seed, calibration=0.5))
        assert (len(start.learning.subject_n), len(start.calibrating.subject_n)) == (8, 0)
    folds = {"fit": start.learning.subject_n.tolist(), "calibration": []}
    measured = statistics.fit(start.learning, start.skeleton, folds, start.data_sha256)
    params = denoiser.init(jax.random.key(0), start.parts["body"].spec)
    parts = {"body": dataclasses.replace(start.parts["body"], params=params)}
    calibration = prior_folder.calibrate(start, parts, measured)
    assert calibration["people"] == 0 and calibration["conformal"] is None
    assert calibration["limits"] == {"body": None}
    assert not any(calibration["energies"].values())


@pytest.mark.slow
def test_one_subject_of_coco_is_fitted_by_the_command(tmp_path, capsys):
    data = pack(tmp_path / "data", SKELETONS["coco17"], 8, subject="")
    assert fit(line(data, tmp_path / "prior")) == 0
    assert "warning: nobody to calibrate on" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "prior").iterdir()} == FILES
    found = saved.load(tmp_path / "prior")
    assert found.skeleton.name == "coco17" and found.calibration["conformal"] is None


def test_a_folder_of_another_fit_is_refused(folder, data, tmp_path, capsys):
    other = pack(tmp_path / "data", SKELETONS["lab27"], 40)
    before = (folder / "statistics.json").read_bytes()
    refused = {
        "statistics.json is of other data": line(other, folder),
        "near was 0.5 and is 0.1": line(data, folder, near=0.1),
        "control was '' and is 'shuffled'": line(data, folder, control="shuffled"),
    }
    for words, given in refused.items():
        assert fit(given) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and words in said and "--out" in said
        assert "--workdir" not in said
    assert (folder / "statistics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--data=nowhere"], "error: nowhere"),
        (["--data=EMPTY"], "error: EMPTY/manifest.json"),
        (["--data=DATA", "--out=FILE/prior"], "error: --out="),
        (["--data=DATA", "--config.mesh.data=3"], "error: mesh is 3 x"),
        (["--data=DATA", "--config.calibration=0.9"], "error: "),
        ([], "error: --data is missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(data, tmp_path, capsys, words, wanted):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    places = {"DATA": data, "FILE": str(tmp_path / "file"), "EMPTY": str(tmp_path / "empty")}
    given = [TINY, f"--out={tmp_path / 'out'}", *words]
    for name, place in places.items():
        given, wanted = [word.replace(name, place) for word in given], wanted.replace(name, place)
    try:
        code = fit_prior.main(given)
    except SystemExit as left:  # of a line that cannot be read
        code = left.code
    assert code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(wanted) and "--workdir" not in said[-1]
    assert sum("error" in each for each in said) == 1


def test_several_processes_are_refused(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert fit(line(data, tmp_path / "out")) == 2
    assert capsys.readouterr().err.startswith("error: 2 processes: ")
    assert not (tmp_path / "out").exists()
