"""A tiny network learns a few pictures by heart, through the command, from pictures to PCK.

Drawn people always; real photographs where NKJAX_SAMPLES_COCO names a folder that holds
test_coco.json, test_coco_wholebody.json and their pictures (they may not be in this project).
"""

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from nkjax import mesh as meshes
from nkjax import runs
from nkjax.config import Evaluation, Heatmaps, Optimizer
from nkjax.data import records
from nkjax.data.records import Rows
from nkjax.evaluate import packed as packed_split
from nkjax.evaluate import scores, topdown
from nkjax.precision import FP32
from tests.data_io import packed
from tests.train import small_run

ROOT = Path(__file__).parents[2]
SAMPLES = os.environ.get("NKJAX_SAMPLES_COCO", "")
# From random numbers: a high rate that falls to nothing, equal for all layers, no decay.
BY_HEART = Optimizer(
    learning_rate=3e-3, layer_decay=1.0, weight_decay=0.0, schedule="cosine", warmup=20
)


def learn(data, workdir, image_hw, sigma, steps, seconds):
    """Learn the people of a folder by the command; return what is found of them afterwards."""
    people = len(Rows(records.read_manifest(data), "train"))
    config = dataclasses.replace(
        small_run.config(data=str(data)),
        image_hw=image_hw, steps=steps, batch=people, augment="plain", ema=0.9,
        optimizer=BY_HEART, heatmaps=Heatmaps(sigma=sigma), save_every=steps, log_every=100,
        evaluation=Evaluation(every=steps, batch=people),
    )  # fmt: skip
    words = [word for word in small_run.command(config, workdir) if word.startswith("--")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/train.py"), *words], capture_output=True, text=True,
        env=small_run.environment(), timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    mesh = meshes.make_mesh(1, 1, jax.devices()[:1])
    spec, params, step = runs.load(workdir, "last", mesh)
    assert step == steps
    rows = Rows(records.read_manifest(data), "train")
    network = packed_split.compile_network(
        spec, params, mesh, people, topdown.make_forward(spec, FP32, False)
    )
    keypoints = packed_split.find(network, params, rows, spec, mesh, people, 2)
    return packed_split.found(rows, keypoints, spec), spec.skeleton


def look_at_what_was_learned(folder, rows, skeleton):
    """Pack people so that val is train: to learn by heart is all that is asked."""
    packed.write(folder, {"train": rows, "val": rows}, skeleton, shards=1)
    return folder


def visible(found, skeleton):
    (row,) = [r for r in scores.tables(found, skeleton)["visible"] if r["visible"] == "visible"]
    return row


def test_drawn_people_are_learned_by_heart(tmp_path):
    rows = packed.drawn_rows(8)
    data = look_at_what_was_learned(tmp_path / "data", rows, packed.COCO17)
    found, skeleton = learn(data, tmp_path / "run", (64, 48), 1.0, 200, 300)
    assert visible(found, skeleton)["pck_box@0.05"] >= 0.95
    # The run said the same of the same people.
    last = small_run.lines(tmp_path / "run")[-1]
    assert last["val/pck_box@0.05"] == pytest.approx(
        scores.measure(found, skeleton)["pck_box@0.05"], abs=0.01
    )


def photographs(file, skeleton, folder):
    """Pack the photographs by the command, and once more with val = train."""
    if not SAMPLES:
        warnings.warn("NKJAX_SAMPLES_COCO is not set: no real photograph was tried", stacklevel=2)
        pytest.skip("NKJAX_SAMPLES_COCO names no folder of labelled photographs")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/pack_data.py"), "--annotations",
         f"{SAMPLES}/{file}", "--images", SAMPLES, "--skeleton", skeleton, "--out",
         str(folder / "packed"), "--val_share", "0", "--test_share", "0"],
        capture_output=True, text=True, env=small_run.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = records.read_manifest(folder / "packed")
    fields = records.people_features(len(manifest.skeleton.keypoints)), records.picture_features()
    rows = [
        tuple({key: row[key] for key in of_table} for of_table in fields)
        for row in Rows(manifest, "train")
    ]
    return look_at_what_was_learned(folder / "data", rows, manifest.skeleton)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name", "steps"), [
    ("test_coco.json", "coco17", 800), ("test_coco_wholebody.json", "wholebody133", 2000),
])  # fmt: skip
def test_photographs_are_learned_by_heart(tmp_path, file, name, steps):
    data = photographs(file, name, tmp_path)
    found, skeleton = learn(data, tmp_path / "run", (128, 96), 1.5, steps, 1800)
    figures = visible(found, skeleton)
    print(json.dumps({k: v for k, v in figures.items() if "pck" in k or k == "n"}))
    assert figures["pck_box@0.05"] >= 0.98
