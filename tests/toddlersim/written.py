"""Writes folders of imagined pictures, and reads them as a lab's."""

import hashlib
import json
from pathlib import Path

from nkjax.lab import check
from nkjax.lab.rows import Inputs
from nkjax.toddlersim.lab_folder import folder
from tests.toddlersim import imagined

SIZE_WH = (96, 128)


def write(out, labelled, test, unlabelled, workers=1, domain="toddler", seed=0):
    counts = {"labelled": labelled, "test": test, "unlabelled": unlabelled}
    return folder.write(
        out, domain, counts, SIZE_WH, seed, imagined.example, imagined.SKELETON, workers
    )


def inputs(out) -> Inputs:
    """Return what the folder's README tells to give to check_data.py."""
    words = folder.options(folder.settings(out)["counts"], str(out))
    named = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)}
    if "unlabelled" in named:
        named["unlabelled"] = (named["unlabelled"],)
    return Inputs(**named)


def found(out) -> dict[str, str]:
    """Check a folder as check_data.py does; returns severity by code."""
    lab = check.read_lab(inputs(out))
    check.try_split(lab)
    return {finding.code: finding.severity for finding in lab.findings.listed()}


def tree(out) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(out).rglob("*")) if path.is_file()}  # fmt: skip


def labels(out) -> dict:
    return json.loads((Path(out) / "labels.json").read_text())
