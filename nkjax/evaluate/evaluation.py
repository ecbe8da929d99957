"""Evaluate a network on a packed split: measures, tables, predictions and a report."""

import dataclasses
import datetime
import json
import math
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

import jax

from nkjax import mesh as meshes
from nkjax import provenance
from nkjax.data import records
from nkjax.data.records import BadData, Manifest, Rows
from nkjax.data.streams import TooManyFailures
from nkjax.evaluate import (
    cases,
    curves,
    detected,
    evaluation_tables,
    networks,
    packed,
    report,
    scores,
    split_boxes,
    tables,
)
from nkjax.evaluate.networks import Network
from nkjax.evaluate.pictures import BadInput
from nkjax.evaluate.predict import USE_NOTE
from nkjax.evaluate.split_boxes import Way

# A file of the command line may lie where names of patients are: it is not written down.
PRIVATE_SETTINGS = ("detections", "pictures")
NORMALISERS = {
    "box": "longer side of the person's labelled box",
    "torso": "longer diagonal from a shoulder to the opposite hip, of the true pose; people whose "
    "four joints are not all labelled have none and are not counted",
    "hand_box": "longer side of the box around the labelled joints of a hand, of hands with at "
    "least half of their joints labelled",
    "pixel_error": "px of the crop that the network sees",
    "auc": "area under the curve of PCK, from 0 to 0.2 of the box, of hands to 0.3 of the hand box",
    "oks": "COCO's, with the sigmas of the data's skeleton; near-identical predictions count once; "
    "'body' is all joints but those of the hands",
}
UNPACKED = (
    "Pictures without anybody labelled are not packed: people found there do not lower the AP."
)
NO_SIGMAS = "The skeleton of the data has no sigmas, so there is no OKS AP: add them and pack again"
OF_SPLIT = {
    "train": "Split train is what runs of this data are trained on: its figures say nothing of how "
    "the network does on anybody else.",
    "val": "Split val was looked at in training, and the best state was chosen on it: its figures "
    "are better than those of other people would be.",
}
OTHER_DATA = "This is not the data that the run was trained on: people may be in both."
UNKNOWN_DATA = "The run does not say what data it was trained on: people may be in both."
# Of the people of a split: more that cannot be read mean that the data are damaged.
MAX_FAILED = 0.001


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `scripts/evaluate.py`, where each is explained."""

    run: str | None
    weights: str | None
    state: str
    data: str
    split: str
    out: str
    batch: int | None
    flip_test: bool
    dtype: str | None
    detections: str | None
    pictures: str | None
    person_category: str | None
    threads: int
    seed: int
    max_failed: float


def run(settings: Settings, command: list[str]) -> dict:
    """Evaluate as the settings say; returns the content of metrics.json, which is written last.

    command: the words of the command line. Prints progress to stderr. Raises BadInput, BadData,
    BadSkeleton, BadAnnotations or BadCheckpoint, each in one line, before anything is written, and
    so TooManyFailures where more people than allowed cannot be read.
    """
    started = datetime.datetime.now(datetime.UTC)
    out = Path(settings.out)
    _check_out(out, settings)
    network = networks.find(settings.weights, settings.run, settings.state, "evaluate.py")
    manifest = records.read_manifest(settings.data)
    rows = Rows(manifest, settings.split)
    if not len(rows):
        raise BadData(f"{settings.data}: nobody is in split {settings.split}; name another one")
    network = dataclasses.replace(network, spec=_spec(network, manifest, settings))
    mesh = meshes.make_mesh(1, meshes.REST, jax.local_devices())
    settings = dataclasses.replace(
        settings, batch=_batch(settings.batch, mesh.size), dtype=settings.dtype or network.compute
    )
    boxes = _read_boxes(settings, rows) if settings.detections else None
    params = network.load(mesh)

    out.mkdir(parents=True, exist_ok=True)
    sizes, ignored = _pictures(rows)
    way = Way(network.spec, params, mesh, settings.dtype, settings.flip_test, settings.batch,
              settings.threads)  # fmt: skip
    if boxes:
        predicted = split_boxes.in_detected_boxes(way, rows, boxes, sizes.keys())
    else:
        predicted = split_boxes.in_labelled_boxes(way, rows)
    _check_unread(predicted.unread, len(rows), settings)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    evaluation_tables.write_predictions(
        out, predicted.by_box, predicted.person_ids, manifest.skeleton, run_id
    )
    hidden = {getattr(settings, name) for name in PRIVATE_SETTINGS} - {None, ""}
    document = _measure(settings, network, manifest, rows, predicted, sizes, ignored)
    document |= {
        "run_id": run_id,
        "started": started.isoformat(timespec="seconds"),
        "command": shlex.join(tables.without_private(command, hidden)),
        "device": {"kind": jax.local_devices()[0].device_kind, "count": mesh.size},
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }
    by_part = scores.tables(predicted.found, manifest.skeleton)
    evaluation_tables.write_parts(out / "tables", by_part | {"oks": _as_rows(document["oks"])})
    pictures = [
        cases.draw_all(rows, predicted.found, chosen, manifest.skeleton)
        for chosen in cases.choose(predicted.found, settings.seed)
    ]
    history = curves.read_history(settings.run) if settings.run else []
    charts = report.Charts(
        curves.training(history, network.facts.get("step", 0)),
        curves.pck(predicted.found, manifest.skeleton),
    )
    page = report.page(document, by_part, charts, *pictures)
    (out / "report.html").write_text(page, encoding="utf-8")
    _write_json(out / "metrics.json", document)
    return document


def _check_out(out: Path, settings: Settings):
    if ":/" in str(out):
        raise BadInput(f"{out}: evaluate.py writes to folders of this machine only")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out}: is there already; name a new or an empty folder with --out")
    if out.resolve().is_relative_to(Path(settings.data).resolve()):
        raise BadInput(f"{out}: lies in the data folder, which is never written to; move --out")
    given = [name for name in ("pictures", "person_category") if getattr(settings, name)]
    if given and not settings.detections:
        raise BadInput(f"--{given[0]} is of --detections, which is missing; give both")
    if settings.detections and not settings.pictures:
        raise BadInput(
            "--detections needs --pictures: which image_id each packed picture is, such as "
            "private/mapping.csv of the data folder"
        )


def _spec(network: Network, manifest: Manifest, settings: Settings):
    """Return the network's spec with the skeleton of the data, whose joints must be the same."""
    ours, theirs = network.spec.skeleton.keypoints, manifest.skeleton.keypoints
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        first = next((f"; the first that differ: {a}, {b}" for a, b in pairs if a != b), "")
        raise BadInput(
            f"{settings.run or settings.weights}: predicts {len(ours)} keypoints, {settings.data} "
            f"has {len(theirs)}{first}; name a network of the data's own keypoints"
        )
    return dataclasses.replace(network.spec, skeleton=manifest.skeleton)


def _batch(asked: int | None, devices: int) -> int:
    if asked is None:
        return -(-32 // devices) * devices
    if asked % devices:
        below = asked // devices * devices
        nearest = f"{below} or {below + devices}" if below else f"{devices}"
        raise BadInput(f"--batch {asked}: {devices} devices want a multiple: use {nearest}")
    return asked


def _check_unread(unread: int, people: int, settings: Settings):
    share = settings.max_failed
    if unread > (max(share * people, 1) if share else 0):
        raise TooManyFailures(
            f"{unread} of {people} people of split {settings.split} of {settings.data} could not "
            f"be read, above the {share:.2%} allowed; copy or pack the data again, or allow more "
            "with --max_failed"
        )


def _read_boxes(settings: Settings, rows):
    picture_ids = dict.fromkeys(who["picture_id"] for who in packed.people(rows) if who)
    return detected.read(
        settings.detections, settings.person_category, settings.pictures, list(picture_ids)
    )


def _pictures(rows) -> tuple[dict, dict]:
    """Return {picture id: (width, height)} and {picture id: regions to ignore}."""
    sizes, ignored = {}, {}
    for i, who in enumerate(packed.people(rows)):
        if who is None or who["picture_id"] in sizes:
            continue
        name = who["picture_id"]
        try:
            row = rows[i]
        except packed.UNREADABLE:  # counted as unread
            continue
        sizes[name] = (int(row["width"]), int(row["height"]))
        ignored[name] = row["ignore_boxes"]
    return sizes, ignored


def _measure(settings, network, manifest, rows, predicted, sizes, ignored) -> dict:
    skeleton, found = manifest.skeleton, predicted.found
    metrics = scores.measure(found, skeleton)
    counts = ("joints", "people", "people_without_torso", "pixel_error_median")
    names = [name for name in metrics if name not in counts]
    figures = {
        "split": settings.split,
        "people": len(rows),
        "subjects": len({who["subject"] for who in found.people} - {""}),
        "unread": predicted.unread,
        "network": settings.run or settings.weights,
        "state": {name: network.facts[name] for name in ("state", "step") if name in network.facts},
        "flip_test": settings.flip_test,
        "compute": settings.dtype,
        "boxes": "detected" if settings.detections else "given",
        "detector": predicted.detector,
        "normalisers": NORMALISERS,
        "metrics": metrics,
        "intervals": scores.intervals(found, skeleton, names, seed=settings.seed),
        "oks": evaluation_tables.average_precision(predicted, sizes, ignored, skeleton),
        "weights": network.facts,
        "licence": networks.licence_words(network.facts),
        "data": {
            "sha256": manifest.sha256,
            "licence": manifest.content.get("licence", ""),
            "joints": len(skeleton.keypoints),
            "skeleton": skeleton.name,
        },
        "notes": _notes(settings, network, manifest, predicted),
        "seed": settings.seed,
    }
    return _plain(figures)


def _notes(settings, network, manifest, predicted) -> list[str]:
    """Say what a reader must know: of this evaluation first, then of all."""
    notes = [OF_SPLIT[settings.split]] if settings.split in OF_SPLIT else []
    trained_on = network.facts.get("data_sha256")
    if settings.run and trained_on != manifest.sha256:
        notes.append(OTHER_DATA if trained_on else UNKNOWN_DATA)
    people = predicted.found.people
    unknown = sum(not who["subject"] for who in people)
    if 0 < unknown < len(people):
        notes.append(
            f"Intervals count {unknown:,} people without a known child as one child each: where "
            "they are the same children, the intervals are too narrow."
        )
    elif unknown:
        notes.append(
            "Nobody's child is known, so intervals are over people: where several are the same "
            "child, the intervals are too narrow."
        )
    unit = "people" if unknown == len(people) else "children"
    notes += [
        USE_NOTE,
        f"The figures are of these labelled people only; intervals (95 %, bootstrap over {unit}) "
        f"say how far they would differ with other {unit} drawn from the same group, nothing about "
        "other groups.",
        UNPACKED,
    ]
    return notes if manifest.skeleton.sigmas else [*notes, NO_SIGMAS]


def _plain(value):
    """Return plain JSON values; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_rows(figures: Mapping) -> list[dict]:
    return [{"figure": name, "value": value} for name, value in figures.items()]


def _write_json(path: Path, document: dict):
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
