"""Prior folders: what comes back is what was saved, to the bit, or one line says why not."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_prior import SKELETONS

from nkjax.checkpoints import BadCheckpoint
from nkjax.models import denoiser
from nkjax.prior import coordinates, saved
from nkjax.prior.coordinates import Units
from nkjax.prior.diffusion import PartPrior
from nkjax.prior.gaussian import Gaussian

SKELETON = SKELETONS["toddlersim65"]
STATISTICS = {"data": "d1", "folds": {"fit": ["s1"]}, "bones": {}, "symmetry": {}, "angles": {}}
CALIBRATION = {"data": "d1", "conformal": None, "limits": {"body": 0.4, "hand": None},
               "energies": {"length": [0.5]}, "usual_pull": [1.0]}  # fmt: skip


def prior(name, seed=0):
    """Return a part's prior of random numbers, made in numpy: nothing is compiled."""
    rng, part = np.random.default_rng(seed), coordinates.parts(SKELETON)[name]
    spec = denoiser.Spec(len(part.joints), coordinates.CONTEXT, width=8, depth=1, heads=2)
    shapes = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), spec))
    numbers = 2 * spec.joints
    gaussian = Gaussian(*(rng.normal(size=n).astype(np.float32) for n in (numbers, [numbers] * 2)))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return PartPrior(part, Units(0.7, 0.3, (0.1, -0.2)), spec, gaussian, params)


@pytest.fixture(scope="module")
def parts():
    return {name: prior(name) for name in ("body", "hand")}


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    """A prior folder that nothing is wrong with; tests damage copies."""
    folder = tmp_path_factory.mktemp("priors") / "whole"
    write(folder, parts)
    return folder


def write(folder, parts):
    saved.save(folder, SKELETON, parts, {"step": 3, "data_sha256": "d1"})
    calibration = CALIBRATION | {"prior": saved.identity(saved.read_model(folder))}
    for name, document in (("statistics", STATISTICS), ("calibration", calibration)):
        (folder / f"{name}.json").write_text(json.dumps(document))


def leaves(parts):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(parts)]


def refusal(folder, pattern):
    """Check that loading is refused in one line that says the folder and the remedy."""
    with pytest.raises(BadCheckpoint, match=pattern) as caught:
        saved.load(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert "fit it again: scripts/fit_prior.py" in message, message
    return message


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def rewrite(folder, change, name="model"):
    path = folder / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_comes_back_is_bit_equal(whole, parts):
    found = saved.load(str(whole))
    assert found.statistics == STATISTICS
    assert found.calibration == CALIBRATION | {"prior": found.calibration["prior"]}
    assert found.skeleton == SKELETON and found.parts.keys() == parts.keys()
    for name, part in parts.items():
        own = found.parts[name]
        assert (own.part, own.units, own.spec) == (part.part, part.units, part.spec)
        # Static data that jit compares: lists would not be hashable.
        assert hash((own.part, own.units, own.spec)) == hash((part.part, part.units, part.spec))
    assert jax.tree.structure(found.parts) == jax.tree.structure(parts)
    for ours, theirs in zip(leaves(found.parts), leaves(parts), strict=True):
        assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def test_parameters_of_bfloat16_are_no_prior(parts, tmp_path):
    body = parts["body"]
    halved = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), body)
    write(tmp_path / "bf16", {"body": halved})
    with pytest.raises(BadCheckpoint, match="is bfloat16.*not float32"):
        saved.load(tmp_path / "bf16")


def test_saving_again_leaves_nothing_of_the_old_one(copy, parts):
    other = {"body": prior("body", seed=7)}
    saved.save(copy, SKELETON, other, {"step": 4})
    _, found = saved.load_parts(copy)
    assert list(found) == ["body"]
    assert saved.read_model(copy)["origin"] == {"step": 4}
    for ours, theirs in zip(leaves(found), leaves(other), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_save_that_fails_half_way_is_not_taken_for_the_old_one(copy, parts, monkeypatch):
    def full(*rest):
        raise OSError("disk full")

    monkeypatch.setattr(saved.checkpoints, "save_leaves", full)
    with pytest.raises(OSError, match="disk full"):
        saved.save(copy, SKELETON, parts, {})
    refusal(copy, "model.json: cannot be opened")


def test_a_flipped_byte_is_found(copy):
    for file in sorted(path for path in (copy / "params").rglob("*") if path.is_file()):
        data = file.read_bytes()
        if not data:
            continue
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        file.write_bytes(bytes(flipped))
        assert "is damaged" in refusal(copy, file.name)
        file.write_bytes(data)
    saved.load(copy)


def test_values_of_another_prior_are_found(copy, parts):
    """Its files are as they were listed, and yet a checksum does not fit."""
    other = parts | {"hand": prior("hand", seed=7)}
    folder = copy.parent / "other"
    write(folder, other)
    shutil.rmtree(copy / "params")
    shutil.copytree(folder / "params", copy / "params")
    files = saved.read_model(folder)["files"]
    rewrite(copy, lambda document: document.update(files=files))
    assert "hand" in refusal(copy, "the values of .* have changed")


@pytest.mark.parametrize("name", ["model.json", "statistics.json", "calibration.json", "params"])
def test_what_is_missing_is_named(copy, name):
    shutil.rmtree(copy / name) if name == "params" else (copy / name).unlink()
    refusal(copy, name)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    refusal(tmp_path / "nowhere", "cannot be opened")


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00\x01", ""])
@pytest.mark.parametrize("name", ["model", "statistics", "calibration"])
def test_what_is_no_json_is_named(copy, name, text):
    (copy / f"{name}.json").write_text(text)
    refusal(copy, rf"{name}\.json: not a JSON")


@pytest.mark.parametrize(("name", "change", "why"), [
    ("statistics", lambda held: held.update(data="d2"), "measured on other data"),
    ("calibration", lambda held: held.update(data="d2"), "measured on other data"),
    ("calibration", lambda held: held.update(prior="0" * 64), "of another prior"),
    ("calibration", lambda held: held.clear(), "'data' is missing"),
    ("statistics", lambda held: held.pop("folds"), "'folds' is missing"),
    ("calibration", lambda held: held.pop("conformal"), "'conformal' is missing"),
    ("calibration", lambda held: held["limits"].pop("hand"), "'limits/hand' is missing"),
    ("calibration", lambda held: held.update(limits=0.4), "'limits/body' is missing"),
])  # fmt: skip
def test_documents_that_do_not_belong_to_the_parameters_are_refused(copy, name, change, why):
    rewrite(copy, change, name)
    refusal(copy, rf"{name}\.json: .*{why}")


@pytest.mark.parametrize("change", ["units", "params", "gaussian"])
def test_a_prior_is_told_from_one_that_differs_in_a_single_number(whole, parts, tmp_path, change):
    """Then a calibration of the one is not taken for that of the other."""
    body = parts["body"]
    plus = {
        "units": {"units": Units(0.7, 0.3, (0.1, -0.3))},
        "params": {"params": jax.tree.map(lambda leaf: leaf + np.float32(1e-3), body.params)},
        "gaussian": {"gaussian": body.gaussian._replace(mean_d=body.gaussian.mean_d + 1)},
    }[change]
    write(tmp_path / "other", parts | {"body": dataclasses.replace(body, **plus)})
    shutil.copy(whole / "calibration.json", tmp_path / "other")
    refusal(tmp_path / "other", "calibration.json: of another prior")


def test_another_format_is_no_prior(copy):
    rewrite(copy, lambda document: document.update(format="nkjax weights 1"))
    refusal(copy, r"not of a prior folder \(nkjax weights 1\)")


@pytest.mark.parametrize("change", [
    lambda document: document["about"]["parts"]["body"]["units"].update(unit=2.0),
    lambda document: document["about"]["parts"].pop("hand"),
    lambda document: document["about"]["skeleton"]["keypoints"].reverse(),
    lambda document: document.pop("leaves"),
    lambda document: document.pop("origin"),
    lambda document: document.pop("about_sha256"),
    lambda document: document["leaves"].update(dict.fromkeys(document["leaves"], "0")),
    lambda document: document["files"].update(dict.fromkeys(document["files"], "0")),
])  # fmt: skip
def test_an_edited_description_is_refused(copy, change):
    rewrite(copy, change)
    refusal(copy, "damaged, or edited")


@pytest.mark.parametrize("change", [
    lambda about: about["parts"]["body"].pop("spec"),
    lambda about: about["parts"]["body"]["spec"].update({"of\ncolour": "blue"}),
    lambda about: about["skeleton"].pop("keypoints"),
    lambda about: about.update(parts=[]),
])  # fmt: skip
def test_a_description_of_another_version_is_refused(copy, change):
    """Its checksum fits, but it says what this code cannot read."""

    def edit(document):
        change(document["about"])
        document["about_sha256"] = saved._sha256(document["about"])

    rewrite(copy, edit)
    refusal(copy, "model.json: damaged")


def test_nothing_is_pickled(whole):
    """No file begins as pickles of protocols 2 to 5 do, or names what arrays are unpickled by."""
    files = [path for path in whole.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        data = path.read_bytes()
        assert path.suffix not in (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth"), path
        assert data[:2] not in {bytes([0x80, protocol]) for protocol in range(2, 6)}, path
        assert b"numpy.core" not in data and b"numpy._core" not in data, path


def test_json_there_and_back(parts):
    for part in parts.values():
        plain = saved.to_json(part)
        assert json.loads(json.dumps(plain)) == plain
        back = saved.from_json(plain)
        assert (back.part, back.units, back.spec) == (part.part, part.units, part.spec)
