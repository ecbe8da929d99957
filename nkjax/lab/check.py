"""Read everything a lab hands over, finding by finding, and report it."""

import collections
import dataclasses
import hashlib
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import nkjax
from nkjax import skeleton_formats
from nkjax.data.coco import BadAnnotations
from nkjax.lab import annotations, labels, listed, sources, split, subjects, suspicious, unlabelled
from nkjax.lab.findings import LEAVES_OUT, Findings
from nkjax.lab.listed import BadInputs, Listing
from nkjax.lab.rows import EXIF_MODES, Inputs, Lab
from nkjax.lab.scan import Scan
from nkjax.lab.suspicious import Suspicion
from nkjax.skeleton import BadSkeleton

REPORT_FORMAT = 1
# What to change on the command line, for the findings that it can mend.
MENDED_BY = {
    "NK122": {"exif": EXIF_MODES[1]},
    "NK222": {"box_format": "xyxy"},
    "NK301": {"subjects": "subjects.csv"},
    "NK425": {"skeleton": "wholebody133"},
}
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


# Whatever of these `read_lab` raises is one line for the user.
UNUSABLE = (BadInputs, BadAnnotations, BadSkeleton, subjects.BadSubjects, sources.BadUnlabelled)


def read_lab(
    inputs: Inputs,
    workers: int = 1,
    progress: Callable = lambda iterable, total, what: iterable,
    known: Mapping[str, Scan] | None = None,
) -> Lab:
    """Read labels, pictures, subjects and unlabelled pictures; no input is changed.

    workers: threads that decode; progress(iterable, total, what): shows it; known: scans of an
    earlier run by picture key (`scan.from_json`). What cannot be used is left out of the Lab and
    counted in its findings. Raises one of UNUSABLE where nothing can be used at all.
    """
    if not inputs.annotations and not inputs.unlabelled:
        raise BadInputs("nothing to read; give --annotations with --images, or --unlabelled")
    if bool(inputs.annotations) != bool(inputs.images):
        raise BadInputs("--annotations and --images go together; give both")
    findings, known = Findings(), known or {}
    rows = subjects.read(inputs.subjects) if inputs.subjects else ()
    read, listing = None, Listing()
    if inputs.annotations:
        read = annotations.read(inputs, findings)
        listing = listed.read(inputs, read, findings, workers, progress, known)
        skeleton = read.skeleton
    else:
        skeleton = skeleton_formats.load(inputs.skeleton or "coco17")
    others, found = unlabelled.read(
        inputs, listing, findings, workers, progress, known, len(skeleton.keypoints)
    )
    used = {picture.key for picture in others}
    for key in (key for key in listing.bare if key not in used):
        findings.add("NK240", f"{key}: no annotation")
    pictures = [*listing.pictures, *others]
    if rows:
        pictures = _with_subjects(pictures, rows, listing, findings)
    by_id = {picture.image_id: picture for picture in pictures if picture.labelled}
    people, gone = labels.clean(read.people, by_id, findings) if read else ((), ())
    labels.histogram(people, findings)
    pictures = _with_people(pictures, people, findings)
    _report_copies(pictures, findings)
    _report_suspicions(people, pictures, skeleton, findings)
    people += _numbered(found, pictures, len(people))
    if read:
        there = {p.image_id: p for p in pictures if p.labelled}
        boxes, joints = (*read.regions, *gone), len(skeleton.keypoints)
        people += labels.regions(boxes, there, joints, len(people) + 1)
    if all(person.ignore for person in people):
        findings.add("NK247", f"{len(pictures)} pictures, {len(people)} people, all ignored")
    return Lab(skeleton, tuple(pictures), tuple(people), findings)


def try_split(lab: Lab, shares: Mapping[str, float] = SHARES) -> dict[str, str]:
    """Split as packing does, to find what stands against it (NK30x, NK143); {key: split}.

    Adds to the lab's findings; there is nothing to split without labels.
    """
    if not any(picture.labelled for picture in lab.pictures):
        return {}
    splits = split.assign(lab.pictures, lab.people, shares, 0, lab.findings)
    split.check_leaks(lab.pictures, splits, lab.findings)
    return splits


def report(lab: Lab, inputs: Inputs) -> dict:
    """Return what was read and found as plain JSON data.

    Holds names of inputs and, in the examples, of pictures: it stays in the lab. Counts of joints
    are of people that are not ignored.
    """
    labelled = [picture for picture in lab.pictures if picture.labelled]
    ours = {picture.key for picture in labelled}
    people = [p for p in lab.people if p.picture in ours and p.source_id is not None]
    seen = [person for person in people if not person.ignore]
    joints = np.zeros((len(seen), len(lab.skeleton.keypoints), 3))
    if seen:
        joints = np.stack([person.keypoints_k3 for person in seen])
    by_joint = np.stack([(joints[..., 2] == v).sum(0) for v in (0, 1, 2)], 1)
    told = [dataclasses.asdict(finding) for finding in lab.findings.listed()]
    who = {picture.subject.id for picture in lab.pictures if picture.subject.id}
    names = dataclasses.asdict(inputs) | {"unlabelled": list(inputs.unlabelled)}
    return {
        "format": REPORT_FORMAT,
        "nkjax": nkjax.__version__,
        "inputs": names | {"annotations_sha256": _sha256(inputs.annotations)},
        "skeleton": {"name": lab.skeleton.name, "keypoints": list(lab.skeleton.keypoints)},
        "counts": {
            "labelled pictures": len(labelled),
            "unlabelled pictures": len(lab.pictures) - len(labelled),
            "people": len(people),
            "people ignored in training": len(people) - len(seen),
            "people on unlabelled pictures": sum(p.picture not in ours for p in lab.people),
            "subjects": len(who),
            "visibility": dict(zip("012", by_joint.sum(0).tolist(), strict=True)),
            "joints": {
                name: dict(zip("012", counts, strict=True))
                for name, counts in zip(lab.skeleton.keypoints, by_joint.tolist(), strict=True)
            },
            "posture": dict(collections.Counter(p.posture or "not known" for p in seen)),
            "grasp": dict(collections.Counter(p.grasp or "not known" for p in seen)),
            "boxes from": dict(collections.Counter(p.box_source for p in lab.people)),
        },
        "findings": told,
        "dropped": {f["code"]: f["count"] for f in told if f["code"] in LEAVES_OUT},
    }


def worklist(lab: Lab, suspicions: Sequence[Suspicion]) -> list[list]:
    """Return a table of labelled people, its head first: where each is found, what is suspicious.

    Pictures of a report show the number of a person; this tells the annotation and the file.
    """
    why = collections.defaultdict(list)
    for suspicion in suspicions:
        for i in suspicion.people:
            why[i].append(f"{suspicion.code} {suspicion.why}")
    rows = [["person", "annotation", "file", "subject", "v0", "v1", "v2", "ignored", "look at"]]
    by_key = {picture.key: picture for picture in lab.pictures if picture.labelled}
    for person in lab.people:
        if person.picture in by_key and person.source_id is not None:
            counts = [int((person.keypoints_k3[:, 2] == v).sum()) for v in (0, 1, 2)]
            subject = by_key[person.picture].subject.id
            rows.append([person.id, person.source_id, person.picture, subject, *counts,
                         int(person.ignore), "; ".join(why[person.id])])  # fmt: skip
    return rows


def mending_command(code: str, inputs: Inputs) -> str:
    """Return the command line that checks again with a finding mended, '' where none does it."""
    if code == "NK133":
        return command_line(
            dataclasses.replace(inputs, unlabelled=(*inputs.unlabelled, inputs.images))
        )
    changes = MENDED_BY.get(code)
    return command_line(dataclasses.replace(inputs, **changes)) if changes else ""


def command_line(inputs: Inputs, script: str = "check_data.py") -> str:
    """Write inputs as a command line to paste into a shell."""
    words = ["python", f"scripts/{script}"]
    default = Inputs()
    for field in dataclasses.fields(Inputs):
        value = getattr(inputs, field.name)
        if value != getattr(default, field.name):
            several = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name}", *map(str, several)]
    return shlex.join(words)


def _with_subjects(pictures, rows, listing, findings):
    """Give pictures their subjects; those of no or several subjects are left out (NK305, NK307).

    A line may name a listed picture as the JSON does, where none names it as the file is called.
    Lines that name a listed image that is left out already are passed over: their names are right.
    """
    there = {picture.key for picture in pictures}
    gone = listing.named | {*listing.bare, *listing.withheld}
    gone = {_normal(name) for name in gone} - {
        _normal(name) for key in there for name in (key, listing.called.get(key, key))
    }
    rows = [row for row in rows if _normal(row.file) not in gone]
    other = {key: listing.called[key] for key in there if listing.called.get(key, key) != key}
    # Who may do without gets a Subject without id, where no line fits.
    by_key = subjects.assign(other, rows, Findings(), frozenset(other)) if other else {}
    name = {key: other[key] if key in by_key and not by_key[key].id else key for key in there}
    free = {name[picture.key] for picture in pictures if not picture.labelled}
    found = subjects.assign(name.values(), rows, findings, free)
    return [
        dataclasses.replace(picture, subject=found[name[picture.key]])
        for picture in pictures
        if name[picture.key] in found
    ]


def _normal(name) -> str:
    return unicodedata.normalize("NFC", name)


def _with_people(pictures, people, findings):
    """Leave out labelled pictures without people (NK240): there is nothing to learn from them."""
    there = {person.picture for person in people}
    for picture in pictures:
        if picture.labelled and picture.key not in there:
            findings.add("NK240", f"{picture.key}: all its people are left out")
    return [p for p in pictures if not p.labelled or p.key in there]


def _report_copies(pictures, findings):
    first = {}
    for picture in pictures:
        if picture.labelled:
            other = first.setdefault(picture.sha256, picture.key)
            if other != picture.key:
                findings.add("NK141", f"{picture.key} is {other}")


def _report_suspicions(people, pictures, skeleton, findings):
    """Count labels that look wrong, the worst first, under names that find them in the JSON."""
    by_id, own = {person.id: person for person in people}, Findings()
    found = suspicious.find(people, pictures, skeleton, own)
    for suspicion in found:
        who = [by_id[i] for i in suspicion.people]
        named = " and ".join(f"{p.picture}, annotation {p.source_id} (person {p.id})" for p in who)
        findings.add(suspicion.code, f"{named}: {suspicion.why}")
    for finding in own.listed():
        if finding.code not in {suspicion.code for suspicion in found}:
            findings.add(finding.code, " ".join(finding.examples), finding.count)


def _numbered(found, pictures, start):
    """Return the people of unlabelled pictures that are still there, numbered on."""
    there = {picture.key for picture in pictures}
    kept = [person for person in found if person.picture in there]
    return tuple(dataclasses.replace(person, id=i) for i, person in enumerate(kept, start + 1))


def _sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
