"""A packed folder of drawn people and a run's folder, made once."""

import atexit
import csv
import dataclasses
import functools
import json
import shutil
import tempfile
from pathlib import Path

import evaluate
import jax
import pack_data

from nkjax import config as configs
from nkjax import journal, runs
from nkjax.config import Config, Optimizer
from nkjax.data import records
from nkjax.journal import Journal
from nkjax.models import sapiens
from nkjax.snapshots import Snapshots
from tests.data_io import drawn

PICTURES, PEOPLE = {"train": 8, "val": 4, "test": 6}, 2
IMAGE_HW = (64, 48)
LICENCE, NAN = {"name": "CC <test>", "notice": "No & use."}, float("nan")
SOURCE = {"file": "x.pth", "sha256": "ab"}


@functools.cache
def data() -> str:
    """Return a packed folder: two people in each picture, six test pictures of three children."""
    folder = _folder()
    lab = folder / "lab"
    count = sum(PICTURES.values())
    drawn.write_lab(lab, pictures=count, people=PEOPLE, size_wh=(120, 96), subjects=count // 2)
    splits = [split for split, n in PICTURES.items() for _ in range(n // 2)]
    with open(lab / "subjects.csv", newline="") as file:
        rows = list(csv.reader(file))
    with open(lab / "subjects.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], "grasp", "split"])
        for number, row in enumerate(rows[1:]):
            grasp = "pincer" if number % 2 else ""
            writer.writerow([*row, grasp, splits[number % (count // 2)]])
    code = pack_data.main([
        "--annotations", str(lab / "labels.json"), "--images", str(lab / "images"),
        "--subjects", str(lab / "subjects.csv"), "--out", str(folder / "packed"),
    ])  # fmt: skip
    assert code == 0
    return str(folder / "packed")


@functools.cache
def run() -> str:
    """Return a run folder with states at 2 and 4, of random parameters: written, not trained."""
    workdir = _folder() / "run"
    workdir.mkdir()
    config = Config(size="tiny", image_hw=IMAGE_HW, data=data(), steps=4, compute="float32",
                    optimizer=Optimizer(warmup=1))  # fmt: skip
    manifest = records.read_manifest(data())
    skeleton = manifest.skeleton
    spec = sapiens.make_spec("tiny", "pose", len(skeleton.keypoints), IMAGE_HW)
    spec = dataclasses.replace(spec, skeleton=skeleton)
    journal.write_once(workdir / "config.json", configs.to_json(config))
    journal.write_once(workdir / "run.json", {"format": 1, "data_sha256": manifest.sha256})
    weights = {"licence": LICENCE, "source": SOURCE}
    journal.write_once(workdir / "model.json", runs.model_document(spec, weights))
    snapshots = Snapshots(str(workdir), keep=2, best="pck_torso@0.1")
    written = Journal(workdir, 0, writes=True)
    for step, best in ((2, 0.5), (4, 0.25)):
        params = jax.jit(lambda key: sapiens.init(key, spec))(jax.random.key(step))
        snapshots.save(step, {"ema": params}, {"seconds": {}}, {"pck_torso@0.1": best})
        written.write(step, {"train/loss": 1 / step, "val/pck_torso@0.1": best, "val/auc_box": NAN})
    snapshots.close()
    written.close()
    return str(workdir)


def command(out, *more, network=None) -> int:
    """Run the command on the test split; returns its exit code."""
    network = network or ["--run", run()]
    return evaluate.main([*network, "--data", data(), "--out", str(out), "--batch", "8",
                          "--threads", "2", *map(str, more)])  # fmt: skip


@functools.cache
def evaluated(*more) -> Path:
    """Return what the command wrote with these options."""
    out = _folder() / "out"
    assert command(out, *more) == 0
    return out


def metrics(out) -> dict:
    """Return metrics.json."""
    return json.loads((Path(out) / "metrics.json").read_text())


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nkjax-evaluation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
