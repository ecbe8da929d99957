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
    origin = saved.read_model(folder)["origin"]
    assert origin["data_sha256"] == start.data_sha256 and origin["step"] == 6
    assert origin["people"] == len(start.learning.subject_n)
    assert origin["config"]["calibration"] == 0.3
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
    learned, held = measured["folds"]["fit"], measured["folds"]["calibration"]
    assert not {*learned} & {*held} and measured["data"] == start.data_sha256
    assert learned == sorted({*start.learning.subject_n.tolist()})
    assert held == sorted({*start.calibrating.subject_n.tolist()})
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["data"] == start.data_sha256
    assert calibration["people"] == len(start.calibrating.subject_n) < prior_folder.FEWEST
    assert calibration["limits"] == {"body": None}  # of fewer than 50 people


def test_limits_are_of_enough_poses_of_people_who_calibrate(tmp_path, monkeypatch):
    """Of each part its own; the arrays that plausibility is fitted on are of the same people."""
    start = prior_data.begin(config(pack(tmp_path / "data", SKELETONS["toddlersim65"], 40)))
    people = start.calibrating  # whose joints are hidden, and labelled all the same
    people = people._replace(visible_nk=people.visible_nk // 2)
    start = start._replace(calibrating=people)
    bodies, hands = (len(start.val[name].valid_bj) for name in ("body", "hand"))
    assert 0 < bodies < hands < prior_folder.FEWEST
    given = []

    def limit(part, poses):
        return part.part.name, poses is start.val[part.part.name]

    monkeypatch.setattr(prior_folder.energies, "measures", lambda *of: of)
    monkeypatch.setattr(prior_folder.plausibility, "fit", lambda *of: given.append(of) or {"a": 1})
    monkeypatch.setattr(prior_folder.developmental, "fit_limit", limit)
    limits = {}
    for fewest in (bodies, hands, hands + 1):
        monkeypatch.setattr(prior_folder, "FEWEST", fewest)
        found = prior_folder.calibrate(start, start.parts, {"b": 2})
        assert found == {"a": 1, "data": start.data_sha256, "limits": found["limits"]}
        limits[fewest] = found["limits"]
    body, hand = ((name, True) for name in ("body", "hand"))
    assert limits[bodies] == {"body": body, "hand": hand}
    assert limits[hands] == {"body": None, "hand": hand}
    assert limits[hands + 1] == {"body": None, "hand": None}
    by, points, there, diagonals, postures = given[0]
    assert by == (start.skeleton, {"b": 2}, start.parts["body"])
    assert points is people.points_nk2 and diagonals is people.diagonal_n
    assert (there == np.isfinite(points).all(-1)).all() and postures is people.posture_n


def test_pictures_are_of_people_who_calibrate_and_whole(folder, data, tmp_path, monkeypatch):
    """Drawn where none are; what a stopped drawing left is never taken for them."""
    copy, drawn = shutil.copytree(folder, tmp_path / "prior"), []
    shutil.rmtree(copy / "pictures")

    def draw(into, whole, people, p):
        into.mkdir(exist_ok=True)
        (into / f"{len(drawn)}.png").write_text("")
        drawn.append((people.person_n.tolist(), p))
        if len(drawn) == 1:
            raise ZeroDivisionError
        return ["1.png"]

    monkeypatch.setattr(prior_folder.prior_pictures, "write", draw)
    judged = {"p": "p-values of", "others": None}
    monkeypatch.setattr(prior_folder.prior_scores, "p_values", lambda by, people: judged)
    with pytest.raises(ZeroDivisionError):
        fit(line(data, copy))
    assert {path.name for path in copy.iterdir()} == FILES - {"pictures"} | {"pictures.partial"}
    assert fit(line(data, copy)) == 0 and fit(line(data, copy)) == 0
    assert {path.name for path in copy.iterdir()} == FILES
    assert [path.name for path in (copy / "pictures").iterdir()] == ["1.png"]
    who = prior_data.begin(config(data)).calibrating.person_n.tolist()
    assert drawn == [(who, "p-values of")] * 2


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
        "model.json is of other data": line(other, folder),
        "near was 0.5 and is 0.1": line(data, folder, near=0.1),
        "control was '' and is 'shuffled'": line(data, folder, control="shuffled"),
    }
    for words, given in refused.items():
        assert fit(given) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and words in said and "--out" in said
        assert "--workdir" not in said
    assert (folder / "statistics.json").read_bytes() == before
    begun = tmp_path / "begun"  # as a fit that was stopped before its first state
    begun.mkdir()
    shutil.copy(folder / "statistics.json", begun)
    assert fit(line(other, begun)) == 2
    assert "statistics.json is of other data" in capsys.readouterr().err.splitlines()[-1]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def untrained(folder, tmp_path, monkeypatch):
    """A copy of the folder whose training/ was removed; whoever trains there fails."""
    copy = shutil.copytree(folder, tmp_path / "prior")
    shutil.rmtree(copy / "training")
    monkeypatch.setattr(prior_folder.loop, "train", None)
    return copy


def test_without_training_what_is_missing_is_written_and_nothing_trained(
    folder, data, untrained, tmp_path, capsys
):
    moved = shutil.copytree(data, tmp_path / "moved")
    whole = contents(untrained)
    assert fit(line(moved, untrained, keep=3, log_every=2)) == 0
    assert contents(untrained) == whole
    for name in ("statistics.json", "calibration.json"):
        (untrained / name).unlink()
    shutil.rmtree(untrained / "pictures")
    assert fit(line(data, untrained)) == 0
    assert contents(untrained) == whole
    (untrained / "calibration.json").unlink()
    before = contents(untrained)
    other = pack(tmp_path / "data", SKELETONS["lab27"], 40)
    refused = {
        "model.json is of other data": line(other, untrained),
        "model.json was fitted with another config (near was 0.5 and is 0.1)": line(
            data, untrained, near=0.1
        ),
        "(control was '' and is 'shuffled')": line(data, untrained, control="shuffled"),
    }
    for words, given in refused.items():
        capsys.readouterr()
        assert fit(given) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and words in said and "name a new --out" in said
    assert contents(untrained) == before


def damage(path):
    """Change one bit of a file; of model.json within what the prior is."""
    held = bytearray(path.read_bytes())
    held[len(held) // 10] ^= 1
    path.write_bytes(held)


def of_params(folder):
    """Return the file of parameters that holds most of them."""
    files = (path for path in (folder / "params").rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def test_damaged_parameters_are_written_again_from_training(folder, data, tmp_path, capsys):
    for broken in (lambda copy: copy / "model.json", of_params):
        copy = shutil.copytree(folder, tmp_path / broken.__name__)
        file = broken(copy)
        damage(file)
        assert fit(line(data, copy)) == 0
        said = capsys.readouterr().err
        assert str(file) in said and f"; written again from {copy}/training" in said
        assert saved.read_model(copy)["leaves"] == saved.read_model(folder)["leaves"]
        saved.load(copy)


def test_damaged_parameters_without_training_are_refused(data, untrained, capsys):
    broken = of_params(untrained)
    damage(broken)
    before = contents(untrained)
    assert fit(line(data, untrained)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {broken}") and "training does not hold the finished" in said
    assert "or name a new --out" in said and "fit it again" not in said
    assert contents(untrained) == before


@pytest.mark.parametrize("name", ["statistics", "calibration"])
def test_a_damaged_document_is_written_again(folder, data, untrained, capsys, name):
    (untrained / f"{name}.json").write_text("{}")
    assert fit(line(data, untrained)) == 0
    said = capsys.readouterr().err
    assert f"{name}.json: " in said and "; written again" in said
    assert contents(untrained) == {
        untrained / path.relative_to(folder): held
        for path, held in contents(folder).items()
        if "training" not in path.parts
    }


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
