"""The command line: exit codes, one-line errors, nothing half done, nothing altered."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from convert_weights import mapping
from convert_weights.__main__ import main
from convert_weights.readers import open_checkpoint
from nkjax.models import sapiens
from tests.convert_weights import hostile

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "data" / "fixtures"
POSE = FIXTURES / "tiny_pose.pth"
SEG = FIXTURES / "tiny_seg.pth"


def snapshot(folder: Path) -> dict[str, str]:
    """Return every path below a folder with the hash of its content."""
    files = sorted(folder.rglob("*"))
    return {str(p): sha(p) if p.is_file() else "" for p in files}


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {key: np.array(t.read()) for key, t in open_checkpoint(path).tensors.items()}


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write a safetensors file; bfloat16 as BF16, the rest as F32."""
    header, body = {}, b""
    for key, array in tensors.items():
        half = array.dtype == ml_dtypes.bfloat16
        raw = array.tobytes() if half else array.astype("<f4").tobytes()
        place = [len(body), len(body) + len(raw)]
        kind = "BF16" if half else "F32"
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        body += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)
    return path


def refused(capsys, *argv, code=2) -> str:
    """Run the command; return the one line that it prints, and nothing else, as it refuses."""
    assert main([str(arg) for arg in argv]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, (out, err)
    assert err.startswith("error: " if code == 2 else "failed: ")
    return err


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "pose"
    assert main([str(POSE), "--out", str(out)]) == 0
    return out


# ---- files that are no Sapiens checkpoints -----------------------------------------------------


def test_every_hostile_file_is_refused_in_one_line(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    paths = hostile.craft_all(folder)
    paths.append(folder / "resnet.pth")
    paths[-1].write_bytes(hostile.another_model())
    before = snapshot(folder)
    for path in paths:
        assert str(path) in refused(capsys, path, "--out", tmp_path / "out"), path
    assert snapshot(folder) == before and list(tmp_path.iterdir()) == [folder]
    assert "no Sapiens-1 network" in refused(capsys, folder / "resnet.pth", "--dry_run")


def test_a_real_process_exits_as_said(tmp_path):
    def run(*argv):
        command = [sys.executable, "-m", "convert_weights", *map(str, argv)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>Sign in</html>")
    code, out, err = run("page.pth", "--out", "w")
    assert (code, out, err.count("\n")) == (2, "", 1) and "page.pth" in err
    assert not (tmp_path / "w").exists()
    code, out, err = run(POSE, "--out", "w")
    assert (code, err) == (0, "") and "NonCommercial" in out
    max((tmp_path / "w").rglob("d/*"), key=lambda p: p.stat().st_size).unlink()
    code, out, err = run("verify", "w")
    assert code == 2 and out == "" and err.count("\n") == 1, err


def test_a_dry_run_touches_nothing(tmp_path, capsys):
    shutil.copy(POSE, tmp_path)
    before, when = snapshot(tmp_path), (tmp_path / POSE.name).stat().st_mtime_ns
    for more in ([], ["--out", str(tmp_path / "w")], ["--sha256", sha(POSE)]):
        assert main([str(tmp_path / POSE.name), "--dry_run", *more]) == 0
        assert "dry run: nothing written" in capsys.readouterr().out
    assert snapshot(tmp_path) == before and (tmp_path / POSE.name).stat().st_mtime_ns == when


def sha(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_sha256(tmp_path, capsys):
    assert main([str(POSE), "--dry_run", "--sha256", sha(POSE).upper()]) == 0
    capsys.readouterr()
    assert main([str(POSE), "--out", str(tmp_path / "w"), "--sha256", "0" * 64]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and sha(POSE) in err and not list(tmp_path.iterdir())


# ---- what the user says against what the file says ---------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--task", "seg"], "--task seg, but its keys are those of task pose"),
        (["--task", "backbone"], "task pose"),
        (["--size", "0.3b"], "size tiny"),
        (["--size", "custom"], "size tiny"),
        (["--heads", "5"], "--heads 5 does not divide its width 64"),
        (["--heads", "128"], "--heads 128"),
        (["--input_size", "128x128"], "8x8 patches, but its position embedding has 48"),
        (["--input_size", "8x8"], "--input_size"),
    ],
)
def test_a_contradiction_is_one_line(options, word, tmp_path, capsys):
    assert word in refused(capsys, POSE, "--out", tmp_path / "w", *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--patch_padding", "16"], ["--patch_padding", "-1"], ["--patch_padding", "same"],
        ["--input_size", "128"], ["--heads", "0"], ["--sha256", "abc"], ["--task", "poses"],
        ["--size", "3b"], ["--dtype", "float16"], ["--unknown"],
    ],
)  # fmt: skip
def test_options_that_cannot_be(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(POSE), "--dry_run", *options])
    assert stop.value.code == 2 and options[0] in capsys.readouterr().err


def test_agreeing_options_pass_and_given_ones_are_kept(tmp_path, capsys):
    options = ["--task", "pose", "--size", "tiny", "--heads", "8", "--input_size", "96x128"]
    out = tmp_path / "w"
    assert main([str(POSE), "--out", str(out), *options, "--patch_padding", "corner"]) == 0
    spec, _ = sapiens.read_model(out)
    assert (spec.backbone.heads, spec.backbone.grid, spec.image_size) == (8, (6, 8), (96, 128))
    assert spec.backbone.patch_padding == "corner"
    said = capsys.readouterr().out
    assert "attention heads 8 (given" in said and "usual is 2" in said


def test_out_must_be_free(tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    assert str(tmp_path) in refused(capsys, POSE, "--out", tmp_path)
    assert "--out is missing" in refused(capsys, POSE)
    assert "not empty" in refused(capsys, POSE, "--out", tmp_path / "note")
    assert [p.name for p in tmp_path.iterdir()] == ["note"]
    (tmp_path / "empty").mkdir()
    assert main([str(POSE), "--out", str(tmp_path / "empty")]) == 0


# ---- keys and numbers --------------------------------------------------------------------------


def changed(tmp_path, source=POSE, **changes):
    """Write a fixture again with some keys changed; None drops one, '__' stands for '.'."""
    tensors = arrays(source) | {k.replace("__", "."): v for k, v in changes.items()}
    return write_safetensors(tmp_path / "x", {k: v for k, v in tensors.items() if v is not None})


def test_keys_are_consumed_once_or_named(tmp_path, capsys):
    one = np.zeros(3, np.float32)
    cases = [
        ({"backbone__layers__1__attn__qkv__bias": None}, "lacks backbone.layers.1.attn.qkv.bias"),
        ({"backbone__extra": one}, "does not know: backbone.extra"),
        ({"optimizer_state": one}, "does not know: optimizer_state"),
        ({"backbone__ln1__bias": one}, "backbone.ln1.bias has shape [3]"),
        ({"decode_head__final_layer__bias": one}, "two heads in one file"),
        ({"module.backbone.ln1.bias": one}, "differ only in 'module.'"),
        ({"backbone__patch_embed__projection__weight": None}, "no Sapiens-1 network"),
        ({"backbone__patch_embed__projection__weight": np.zeros((64, 3, 14, 14))}, "3x14x14"),
        ({"backbone__patch_embed__projection__weight": one}, "not 4 axes"),
    ]
    for changes, word in cases:
        path = changed(tmp_path, **changes)
        err = refused(capsys, path, "--out", tmp_path / "w")
        assert word in err and str(path) in err, err
    for changes in ({"data_preprocessor.mean": one}, {}):
        assert main([str(changed(tmp_path, **changes)), "--dry_run"]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_leave_nothing_behind(bad, tmp_path, capsys):
    key = "backbone.layers.2.ffn.layers.1.weight"
    weight = arrays(POSE)[key]
    weight[3, 7] = bad
    path = changed(tmp_path, **{key: weight})
    assert main([str(path), "--out", str(tmp_path / "w")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and key in err and str(path) in err
    assert list(tmp_path.iterdir()) == [path]


def test_a_prefix_of_data_parallel_training(weights, tmp_path):
    path = write_safetensors(tmp_path / "x", {f"module.{k}": v for k, v in arrays(POSE).items()})
    assert main([str(path), "--out", str(tmp_path / "w")]) == 0
    assert leaves(tmp_path / "w") == leaves(weights)


def leaves(folder) -> dict:
    return json.loads((folder / "model.json").read_text())["leaves"]


def test_unreleased_segmentation_asks_for_its_padding(tmp_path, capsys):
    final = {f"decode_head.conv_seg.{k}": arrays(SEG)[f"decode_head.conv_seg.{k}"][:7]
             for k in ("weight", "bias")}  # fmt: skip
    path = changed(tmp_path, SEG, **final)
    options = ["--heads", "4", "--input_size", "96x64"]
    assert "say it with --patch_padding" in refused(capsys, path, "--dry_run", *options)
    assert main([str(path), "--dry_run", "--patch_padding", "2", *options]) == 0
    assert "task seg: 7 outputs" in capsys.readouterr().out


def test_three_outputs_are_classes_where_the_user_says_so(tmp_path, capsys):
    final = {f"decode_head.conv_seg.{k}": arrays(SEG)[f"decode_head.conv_seg.{k}"][:3]
             for k in ("weight", "bias")}  # fmt: skip
    path = changed(tmp_path, SEG, **final)
    options = [str(path), "--dry_run", "--heads", "4", "--input_size", "96x64"]
    assert main(options) == 0 and "task normal: 3 outputs" in capsys.readouterr().out
    assert main([*options, "--task", "seg", "--patch_padding", "2"]) == 0
    assert "task seg: 3 outputs" in capsys.readouterr().out


def test_a_second_slot_on_a_leading_axis_is_not_dropped(tmp_path, capsys):
    twice = np.repeat(arrays(POSE)["backbone.pos_embed"], 2, axis=0)
    path = changed(tmp_path, backbone__pos_embed=twice)
    assert "pos_embed has shape [2, 48, 64]" in refused(capsys, path, "--dry_run")


def test_a_weight_too_large_for_bfloat16_is_not_called_infinite(tmp_path, capsys):
    large = np.full(64, 3.4e38, np.float32)
    path = changed(tmp_path, backbone__ln1__bias=large)
    main([str(path), "--out", str(tmp_path / "w"), "--dtype", "bfloat16"])
    assert "too large for bfloat16; use --dtype float32" in capsys.readouterr().err


def test_what_no_key_shows_is_asked_for(capsys):
    assert "say it with --heads" in refused(capsys, SEG, "--dry_run")
    assert "say --input_size" in refused(capsys, SEG, "--dry_run", "--heads", "4")


def test_bfloat16_and_float32(weights, tmp_path):
    assert main([str(POSE), "--out", str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    _, half = sapiens.load(tmp_path / "half")
    _, full = sapiens.load(weights)
    for small, exact in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert (small.dtype.name, exact.dtype.name) == ("bfloat16", "float32")
        rounded = np.asarray(exact).astype(ml_dtypes.bfloat16)
        assert np.array_equal(np.asarray(small), rounded)


# ---- failures while running --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(28, "No space left on device"), 1), (MemoryError(), 1), (KeyboardInterrupt(), None)],
)
def test_a_failed_conversion_leaves_no_half_folder(error, code, tmp_path, capsys, monkeypatch):
    read, count = mapping.read, iter(range(100))

    def failing(found, leaf, dtype):
        if next(count) == 20:
            raise error
        return read(found, leaf, dtype)

    monkeypatch.setattr(mapping, "read", failing)
    argv = [str(POSE), "--out", str(tmp_path / "w")]
    if code is None:
        with pytest.raises(KeyboardInterrupt):
            main(argv)
    else:
        assert main(argv) == code
        assert capsys.readouterr().err.startswith(f"failed: {type(error).__name__}")
    assert next(count) == 21 and not list(tmp_path.iterdir())


def test_a_folder_beside_out_is_never_touched(tmp_path):
    # Whatever its name: the input may lie in it.
    beside = tmp_path / "w.partial"
    beside.mkdir()
    source = Path(shutil.copy(POSE, beside))
    assert main([str(source), "--out", str(tmp_path / "w")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w", "w.partial"]
    assert sha(source) == sha(POSE)


def test_the_same_file_converts_to_the_same_weights(weights, tmp_path):
    source = shutil.copy(POSE, tmp_path)
    before = snapshot(tmp_path)
    for name in "ab":
        assert main([str(source), "--out", str(tmp_path / name)]) == 0
    texts = [(tmp_path / name / "model.json").read_text() for name in "ab"]
    # orbax makes up the names of its files; all else is the same, byte by byte.
    first, second = (text[: text.index('"files": {')] for text in texts)
    assert first == second and leaves(tmp_path / "a") == leaves(weights)
    assert before.items() <= snapshot(tmp_path).items()
    document = json.loads(texts[0])
    assert list(document)[-1] == "files"
    assert document["source"]["sha256"] == sha(POSE)
    assert document["source"]["bytes"] == POSE.stat().st_size
    assert not re.search(re.escape(str(tmp_path)), texts[0])
