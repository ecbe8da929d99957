"""Measure a prior folder with its controls: folders in, prior.json and prior.md out."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from nkjax import journal, provenance
from nkjax.data import records
from nkjax.data.records import BadData, Rows
from nkjax.evaluate import prior_confidence, prior_pictures, prior_report, prior_scores
from nkjax.evaluate.pictures import BadInput
from nkjax.evaluate.prior_report import Asked
from nkjax.prior import people as peoples
from nkjax.prior import saved
from nkjax.prior.people import People
from nkjax.prior.saved import Prior

FORMAT = "nkjax prior figures 1"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `scripts/measure_prior.py`, where each is explained."""

    prior: str
    data: str
    split: str
    out: str
    shuffled: str | None
    adult: str | None
    atypical: str | None
    run: str | None
    batch: int
    threads: int


def run(settings: Settings, command: list[str]) -> str:
    """Measure as the settings say; returns the text of prior.md. prior.md is written last.

    command: the words of the command line. Prints progress to stderr. Raises BadInput, BadData,
    BadSkeleton or BadCheckpoint, each in one line, before anything is written.
    """
    out = Path(settings.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"--out={out}: exists and is not an empty folder; name another one")
    prior = _fitted("prior", settings.prior, "")
    if prior.calibration["conformal"] is None or prior.calibration["limits"]["body"] is None:
        raise BadInput(
            f"{settings.prior}: nothing in it is calibrated, too few people were held out; fit it "
            "to more subjects, or with a larger --config.calibration"
        )
    shuffled = _control("shuffled", settings.shuffled, "shuffled", prior)
    adult = _control("adult", settings.adult, "", prior)
    rows, people = _people(settings.data, settings.split, prior)
    atypical = _people(settings.atypical, "test", prior)[1] if settings.atypical else None
    seen = None
    if settings.run:
        say("a network's keypoints and confidence")
        seen = prior_confidence.look(settings.run, rows, settings.batch, settings.threads)
    found_by = seen and (seen.people, seen.confidence_n)
    found = prior_report.measure(prior, Asked(people, atypical, shuffled, adult, found_by), say)
    if seen:
        found["kps"]["confidence"] |= {"error": seen.error, "raw_error": seen.raw_error}
    document = {
        "format": FORMAT,
        "command": shlex.join(command),
        "data_sha256": rows.manifest.sha256,
        "split": settings.split,
        "prior": saved.read_model(settings.prior)["origin"],
        "versions": provenance.versions(),
        "figures": found,
    }
    text = prior_report.page(found)
    out.mkdir(parents=True, exist_ok=True)
    p = prior_scores.p_values(prior_scores.plausibility_of(prior), people)["p"]
    prior_pictures.write(out / "pictures", prior, people, p)
    journal.write_once(out / "prior.json", _plain(document))
    (out / "prior.md").write_text(text, encoding="utf-8")
    return text


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def _plain(document):
    """Return a document whose figures that are not finite are null."""

    def plain(value):
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, float | np.floating):
            return float(value) if np.isfinite(value) else None
        return value

    return json.loads(json.dumps(plain(document), default=float))


def _people(folder, split, prior: Prior) -> tuple[Rows, People]:
    """Read people of a split, who must not be those of the prior. Raises BadData and BadInput."""
    manifest = records.read_manifest(folder)
    if manifest.skeleton.keypoints != prior.skeleton.keypoints:
        raise BadInput(
            f"{folder}: its skeleton ({manifest.skeleton.name}) is not the prior's "
            f"({prior.skeleton.name}); name data of the same joints"
        )
    rows = Rows(manifest, split)
    people = peoples.read(rows)
    if not len(people.subject_n):
        raise BadData(f"{folder}: nobody is labelled in split {split}; name another one")
    known = {who for subjects in prior.statistics["folds"].values() for who in subjects}
    if both := sorted(known & set(people.subject_n) - {""}):
        raise BadInput(
            f"{folder}: {len(both)} subjects of split {split} fitted or calibrated the prior, such "
            f"as {both[0]}; measure it on others"
        )
    return rows, people


def _fitted(option: str, folder: str, control: str) -> Prior:
    """Load the prior of an option, which must have been fitted with that control, '' for none."""
    prior = saved.load(folder)
    found = saved.read_model(folder)["origin"].get("config", {}).get("control")
    if found != control:
        preset = f"configs/prior.py:tiny{',' if control else ''}{control}"
        raise BadInput(
            f"--{option}={folder}: fitted with control {found!r}, not {control!r}; name a prior of "
            f"{preset}"
        )
    return prior


def _control(option: str, folder: str | None, kind: str, prior: Prior) -> Prior | None:
    if not folder:
        return None
    control = _fitted(option, folder, kind)
    if control.parts["body"].part != prior.parts["body"].part:
        raise BadInput(f"{folder}: a prior of other joints; fit it to the same skeleton")
    return control
