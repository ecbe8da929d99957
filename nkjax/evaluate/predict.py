"""Predict the keypoints of all people in a folder of pictures, and write what was found."""

import collections
import dataclasses
import datetime
import hashlib
import json
import secrets
import shlex
import sys
from pathlib import Path

import jax
from tqdm import tqdm

from nkjax import ids, provenance
from nkjax.data import coco
from nkjax.evaluate import networks, tables, topdown
from nkjax.evaluate import pictures as pictures_of
from nkjax.evaluate.pictures import BadInput
from nkjax.precision import BF16, FP32

MASKING_NOTE = (
    "Masking is not anonymisation: bodies, clothes and surroundings stay visible, and so does the "
    "face of anybody who has no box. Look at the pictures before you pass them on."
)
USE_NOTE = "Research use; not a medical device."
PRIVATE_SETTINGS = ("input", "out", "detections", "images_json", "salt")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `scripts/predict.py`, where each is explained."""

    weights: str | None
    run: str | None
    state: str
    input: str
    out: str
    detections: str | None
    images_json: str | None
    person_category: str | None
    min_score: float
    batch: int
    flip_test: bool
    dtype: str
    faces: str
    salt: str | None
    show_paths: bool


def run(settings: Settings, command: list[str]) -> dict[str, int]:
    """Predict as the settings say; returns the counts that run.json holds.

    command: the words of the command line. Prints progress and every picture that failed to stderr.
    Raises BadInput, BadAnnotations, BadSalt or BadCheckpoint, each in one line, before anything is
    written.
    """
    started = datetime.datetime.now(datetime.UTC)
    out = Path(settings.out)
    _check_out(out, Path(settings.input))
    network = networks.find(settings.weights, settings.run, settings.state, "predict.py")
    salt = ids.read_salt(settings.salt) if settings.salt else ids.make_salt()
    pictures, category, counts = _plan(settings, salt)
    spec, params = network.spec, network.load(None)

    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    out.mkdir(parents=True, exist_ok=True)
    if not settings.show_paths:
        tables.write_private(out, pictures, salt, shlex.join(command))
    policy = {"float32": FP32, "bfloat16": BF16}[settings.dtype]
    forward = topdown.make_network(params, spec, policy, settings.flip_test)
    predictions = topdown.predict(pictures, forward, spec.image_size, settings.batch)
    with (
        tables.open_tables(
            out, run_id, spec.skeleton, category, settings.faces, settings.show_paths
        ) as write,
        # Into a log file a line now and then; on a terminal one that moves.
        tqdm(
            total=len(pictures), unit="picture", mininterval=0.1 if sys.stderr.isatty() else 30
        ) as bar,
    ):
        for prediction in predictions:
            status = write(prediction)
            counts[f"pictures {status}"] += 1
            counts["pictures read"] += prediction.image_hwc is not None
            counts["people"] += len(prediction.people)
            if prediction.outside:
                counts["boxes outside their picture"] += prediction.outside
            if prediction.failure:
                bar.write(f"{prediction.picture.id}: {prediction.failure}", file=sys.stderr)
            bar.update()
    record = {
        "run_id": run_id,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **_provenance(settings, command, network.facts),
        "counts": dict(counts),
        "notes": [MASKING_NOTE, USE_NOTE],
    }
    (out / "run.json").write_text(json.dumps(record, indent=1) + "\n")
    return dict(counts)


def _check_out(out: Path, top: Path):
    if ":/" in str(out):
        raise BadInput(f"{out}: predict.py writes to folders of this machine only")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out}: is there already; name a new or an empty folder with --out")
    if top.is_dir() and out.resolve().is_relative_to(top.resolve()):
        raise BadInput(f"{out}: lies in the input folder, which is never written to; move --out")


def _plan(settings: Settings, salt: bytes):
    """Find the pictures and their boxes: (pictures, category of people, counts so far)."""
    paths, other_files = pictures_of.find(settings.input)
    detections = images = None
    if settings.person_category is not None and not settings.detections:
        raise BadInput("--person_category is of --detections, which is missing; give both")
    if settings.detections:
        detections = coco.read_detections(settings.detections, settings.person_category)
    if settings.images_json:
        images = coco.read_images(settings.images_json)
    named = settings.show_paths
    called = {name: name if named else ids.salted_id(salt, name) for name in paths}
    pictures, unused = pictures_of.plan(
        paths,
        called,
        detections,
        images,
        settings.min_score,
        settings.images_json or settings.detections,
    )
    counts = collections.Counter({"pictures": len(pictures), "other files": other_files})
    if detections is not None:
        counts.update({f"detections with {k}": n for k, n in detections.skipped.items()})
        counts.update({f"boxes {k}": n for k, n in unused.items()})
    category = detections.person_category if detections is not None else None
    return pictures, 1 if category is None else category, counts


def _provenance(settings: Settings, command: list[str], facts: dict) -> dict:
    options = dataclasses.asdict(settings)
    files = {name: options[name] for name in ("detections", "images_json") if options[name]}
    if not settings.show_paths:
        hidden = {options[name] for name in PRIVATE_SETTINGS if options[name]}
        options |= {name: "[private]" for name in PRIVATE_SETTINGS if options[name]}
        command = tables.without_private(command, hidden)
    return {
        "command": shlex.join(command),
        "settings": options,
        "inputs_sha256": {name: _sha256(path) for name, path in files.items()},
        "weights": facts,
        "faces": "shown" if settings.faces == "show" else "masked",
        "device": [device.device_kind for device in jax.local_devices()[:1]][0],
        "versions": provenance.versions(),
    }


def _sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
