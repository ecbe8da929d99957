"""A weights folder that was altered is found, by `verify` and by `load`, in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert_weights.__main__ import main
from nkjax import checkpoints, trees
from nkjax.checkpoints import BadCheckpoint
from nkjax.models import sapiens

ROOT = Path(__file__).parents[2]
POSE = ROOT / "tests" / "data" / "fixtures" / "tiny_pose.pth"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "pose"
    assert main([str(POSE), "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(weights, tmp_path):
    return shutil.copytree(weights, tmp_path / "copy")


def both_find(capsys, folder, *words) -> str:
    assert main(["verify", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, (out, err)
    with pytest.raises(BadCheckpoint) as caught:
        sapiens.load(folder)
    message = str(caught.value)
    assert "\n" not in message and message in err
    assert all(word in message for word in (str(folder), *words)), message
    return message


def test_verify_passes_on_a_fresh_folder(weights, capsys):
    assert main(["verify", str(weights)]) == 0
    assert "25 parameters, every checksum as converted" in capsys.readouterr().out


def test_a_flipped_bit_in_the_numbers_names_the_leaf(weights, tmp_path, capsys, monkeypatch):
    params = {k: np.asarray(v) for k, v in trees.flatten(sapiens.load(weights)[1]).items()}
    monkeypatch.setattr(checkpoints, "_SMALL_FILE", 0)  # as in large folders, where files are large
    found = 0
    for source in sorted((weights / "params").rglob("d/*")):
        data = source.read_bytes()
        for name in ("backbone/pos_embed", "head/final/kernel", "backbone/blocks/fc1/bias"):
            at = data.find(params[name].tobytes()[:64])
            if at < 0:
                continue
            found += 1
            copy = shutil.copytree(weights, tmp_path / str(found))
            document = json.loads((copy / "model.json").read_text())
            document["files"] = checkpoints.list_files(copy / "params")
            (copy / "model.json").write_text(json.dumps(document))
            damaged = bytearray(data)
            damaged[at + params[name].nbytes // 2] ^= 1
            (copy / source.relative_to(weights)).write_bytes(damaged)
            both_find(capsys, copy, f"the values of {name} have changed")
    assert found == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "empty"])
def test_damage_to_any_file_is_found_and_named(damage, weights, tmp_path, capsys):
    copy = shutil.copytree(weights, tmp_path / "copy")
    files = sorted(p for p in (copy / "params").rglob("*") if p.is_file() and p.stat().st_size)
    assert len(files) >= 8
    for path in files:
        data = bytearray(path.read_bytes())
        if damage == "delete":
            path.unlink()
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        else:
            data[len(data) // 3] ^= 16
            path.write_bytes(data)
        both_find(capsys, copy, str(path), "missing" if damage == "delete" else "damaged")
        shutil.copy(weights / path.relative_to(copy), path)
    assert main(["verify", str(copy)]) == 0


def test_what_orbax_itself_trips_over_is_one_line(tmp_path, weights):
    # In a process of its own: a read that fails half way has taken a process down.
    copy = shutil.copytree(weights, tmp_path / "copy")
    max((p for p in copy.rglob("d/*")), key=lambda p: p.stat().st_size).unlink()
    code = (
        "from nkjax import checkpoints as c; import jax, sys\n"
        f"p = {str(copy / 'params')!r}; w = c.describe(p)\n"
        "s = dict.fromkeys(w, jax.sharding.SingleDeviceSharding(jax.devices()[0]))\n"
        "try: dict(c.load_leaves(p, w, s))\n"
        "except c.BadCheckpoint as error: print(error, flush=True)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and "missing or damaged" in done.stdout, done.stderr[-900:]


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda d: d["spec"]["backbone"].update(patch_padding=0), "spec has changed"),
        (lambda d: d["spec"]["backbone"].update(heads=8), "spec has changed"),
        (lambda d: d["spec"]["skeleton"]["keypoints"].reverse(), "spec has changed"),
        (lambda d: d.pop("spec_sha256"), "spec_sha256"),
        (lambda d: d["leaves"]["head/final/bias"].update(sha256="0" * 64), "head/final/bias"),
        (lambda d: d["leaves"]["head/final/bias"].pop("sha256"), "a checksum is gone"),
        (lambda d: d["leaves"]["head/final/bias"].update(shape=[18]), "names or shapes"),
        (lambda d: d["leaves"]["head/final/bias"].update(dtype="bfloat16"), "head/final/bias"),
        (lambda d: d["leaves"]["head/final/bias"].update(dtype="number"), "number"),
        (lambda d: d["leaves"].pop("head/final/bias"), "names or shapes"),
        (lambda d: d["leaves"].update(more=d["leaves"]["head/final/bias"]), "names or shapes"),
        (lambda d: d.update(leaves=[]), "does not list"),
        (lambda d: d.pop("files"), "does not list its files"),
        (lambda d: d.pop("spec"), "not a model.json"),
        (lambda d: d.update(spec=None), "spec"),
    ],
)
def test_an_edited_model_json_is_found(edit, word, copy, capsys):
    path = copy / "model.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    both_find(capsys, copy, word)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"spec": {}', "\x00\xff", "[" * 5000])
def test_a_broken_model_json_is_found(text, copy, capsys):
    (copy / "model.json").write_text(text)
    both_find(capsys, copy, "model.json")


def test_reordered_json_is_still_the_same(copy):
    document = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(document, sort_keys=True, indent=4))
    assert sapiens.load(copy)[0].backbone.patch_padding == 2
