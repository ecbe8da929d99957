"""The commands on a simulated lab: nothing is wrong with it, planted mistakes are found, and a run
that learns from it never needs its truth."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nkjax.data import augment, records, samples, streams
from nkjax.toddlersim.lab_folder import defects

ROOT = Path(__file__).parents[1]


def run(script, *options):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, options)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def simulate(out, domain, labelled, unlabelled, test, *more):
    counts = ("--labelled", labelled, "--unlabelled", unlabelled, "--test", test)
    done = run("simulate.py", "--out", out, "--domain", domain, *counts, "--size", "128x96",
               "--seed", 3, *more)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def inputs(lab):
    """Return the options that hand a simulated folder over, as its README.txt has them."""
    found = ["--annotations", lab / "labels.json", "--images", lab / "images",
             "--skeleton", lab / "skeleton.json", "--subjects", lab / "subjects.csv"]  # fmt: skip
    if (lab / "unlabelled").exists():
        found += ["--unlabelled", lab / "unlabelled", "--detections", lab / "detections.json"]
    return found


def findings(lab, report):
    """Return code and severity of what check_data.py finds."""
    done = run("check_data.py", *inputs(lab), "--report", report)
    assert (report / "report.json").exists(), done.stderr
    found = json.loads((report / "report.json").read_text())["findings"]
    return {finding["code"]: finding["severity"] for finding in found}


@pytest.fixture(scope="module")
def toddlers(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("world") / "lab", "toddler", 96, 32, 24)


@pytest.mark.parametrize(("domain", "counts"), [("adult", (64, 16, 16)), ("atypical", (0, 0, 64))])
def test_nothing_is_wrong_with_other_domains(tmp_path, domain, counts):
    lab = simulate(tmp_path / "lab", domain, *counts)
    assert set(findings(lab, tmp_path / "report").values()) <= {"note"}


def test_nothing_is_wrong_with_toddlers(toddlers, tmp_path):
    assert set(findings(toddlers, tmp_path / "report").values()) <= {"note"}


def test_planted_mistakes_are_found(tmp_path):
    lab = simulate(tmp_path / "lab", "toddler", 96, 48, 48, "--defects", "all")
    found = findings(lab, tmp_path / "report")
    planted = json.loads((lab / "simulation.json").read_text())["defects"]
    assert len(planted) > 35
    for name in planted:
        assert set(defects.DEFECTS[name].codes) <= found.keys(), name


def test_training_data_is_the_same_without_the_truth(toddlers, tmp_path):
    """Truth of toddlers cannot be learned from: nothing on the way to a batch opens it."""
    salt = tmp_path / "salt.txt"
    salt.write_text("00" * 32 + "\n")
    digests = []
    for name in ("with", "without"):
        out = tmp_path / name
        done = run("pack_data.py", *inputs(toddlers), "--out", out, "--salt", salt)
        assert done.returncode == 0, done.stderr
        rows = records.Rows(records.read_manifest(out), "train")
        look = samples.Look((96, 128), (("view", augment.SAPIENS),))
        batches = streams.endless({"labelled": streams.Stream(rows, look, batch=8)}, seed=0,
                                  start_step=0, process=0, processes=1)  # fmt: skip
        view = next(iter(batches))["labelled"]["views"]["view"]
        digests.append(hashlib.sha256(np.ascontiguousarray(view["image"]).tobytes()).hexdigest())
        files = sorted(path for path in out.rglob("*") if path.is_file())
        digests[-1] += hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        if name == "with":
            (toddlers / "truth").rename(tmp_path / "hidden")
    (tmp_path / "hidden").rename(toddlers / "truth")
    assert digests[0] == digests[1]
