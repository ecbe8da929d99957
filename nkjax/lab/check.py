"""Read everything a lab hands over, finding by finding, and report it."""

import collections
import dataclasses
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import nkjax
from nkjax import skeleton_formats
from nkjax.data.coco import BadAnnotations, Image
from nkjax.lab import annotations, files, labels, scan, split, subjects, suspicious, unlabelled
from nkjax.lab.findings import Findings
from nkjax.lab.rows import EXIF_MODES, Inputs, Lab, Picture
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


class BadInputs(ValueError):
    """Inputs that do not go together; the message is one line with the remedy."""


# Whatever of these `read_lab` raises is one line for the user.
UNUSABLE = (BadInputs, BadAnnotations, BadSkeleton, subjects.BadSubjects, unlabelled.BadUnlabelled)


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
    read, pictures = None, []
    if inputs.annotations:
        read = annotations.read(inputs, findings)
        pictures = _labelled(inputs, read.images, findings, workers, progress, known)
        skeleton = read.skeleton
    else:
        skeleton = skeleton_formats.load(inputs.skeleton or "coco17")
    others, found = unlabelled.read(
        inputs, pictures, findings, workers, progress, known, len(skeleton.keypoints)
    )
    listed = {image.file_name for image in read.images} if read else set()
    pictures += others
    if rows:
        pictures = _with_subjects(pictures, rows, listed, findings)
    by_id = {picture.image_id: picture for picture in pictures if picture.labelled}
    people = labels.clean(read.people, by_id, findings) if read else ()
    labels.histogram(people, findings)
    pictures = _with_people(pictures, people, read, findings)
    _report_copies(pictures, findings)
    _report_suspicions(people, pictures, skeleton, findings)
    people += _numbered(found, pictures, len(people))
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
    people = [person for person in lab.people if person.picture in ours]
    seen = [person for person in people if not person.ignore]
    joints = np.zeros((len(seen), len(lab.skeleton.keypoints), 3))
    if seen:
        joints = np.stack([person.keypoints_k3 for person in seen])
    by_joint = np.stack([(joints[..., 2] == v).sum(0) for v in (0, 1, 2)], 1)
    listed = [dataclasses.asdict(finding) for finding in lab.findings.listed()]
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
            "people on unlabelled pictures": len(lab.people) - len(people),
            "subjects": len(who),
            "visibility": dict(zip("012", by_joint.sum(0).tolist(), strict=True)),
            "joints": {
                name: dict(zip("012", counts, strict=True))
                for name, counts in zip(lab.skeleton.keypoints, by_joint.tolist(), strict=True)
            },
            "posture": dict(collections.Counter(p.posture or "not known" for p in seen)),
            "boxes from": dict(collections.Counter(p.box_source for p in lab.people)),
        },
        "findings": listed,
        "dropped": {f["code"]: f["count"] for f in listed if f["response"].startswith("left out")},
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
        if person.picture in by_key:
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


def _labelled(inputs, listed: tuple[Image, ...], findings, workers, progress, known):
    """Return the listed images that are usable pictures, in order, as list[Picture]."""
    try:
        there = files.below(inputs.images)
    except NotADirectoryError as error:
        raise BadInputs(str(error)) from None
    names = files.match(listed, there, findings)
    if not names:
        raise BadInputs(
            f"{inputs.images}: no picture that {inputs.annotations} names, such as "
            f"{listed[0].file_name if listed else 'any'}; check --images"
        )
    if not _includes(inputs.unlabelled, inputs.images):
        files.report_unnamed(there, names.values(), findings)
    scans = scan.scan_files({n: there[n] for n in names.values()}, workers, progress, known)
    pictures = []
    for image in listed:
        name = names.get(image.id)
        if name is not None:
            picture = _picture(image, name, there[name], scans[name], inputs.exif, findings)
            pictures += [picture] if picture else []
    return pictures


def _picture(image: Image, name, path, seen: Scan, exif, findings) -> Picture | None:
    if seen.code:
        findings.add(seen.code, f"{name} ({seen.bytes:,} bytes): {seen.failure}")
        return None
    turn, code = scan.decide_turn(seen, image.size_wh, exif)
    stored = f"{seen.stored_wh[0]} x {seen.stored_wh[1]}"
    if code:
        said = "no size" if image.size_wh is None else "{:g} x {:g}".format(*image.size_wh)
        findings.add(code, f"{name}: stored {stored}, EXIF {seen.orientation}, JSON {said}")
    if code in ("NK122", "NK123"):
        return None
    if seen.mode == "16 bit":
        findings.add("NK111", name)
    elif seen.mode != "rgb":
        findings.add("NK112", f"{name}: {seen.mode}")
    return Picture(
        key=name,
        path=str(path),
        size_wh=tuple(reversed(seen.stored_wh)) if turn >= 5 else seen.stored_wh,
        turn=turn,
        sha256=seen.sha256,
        phash=seen.phash,
        image_id=image.id,
    )


def _with_subjects(pictures, rows, listed, findings):
    """Give pictures their subjects; those of no or several subjects are left out (NK305, NK307).

    Lines that name a listed image that is left out already are passed over: their names are right.
    """
    gone = listed - {picture.key for picture in pictures}
    rows = [row for row in rows if row.file not in gone]
    unlabelled = {picture.key for picture in pictures if not picture.labelled}
    found = subjects.assign([picture.key for picture in pictures], rows, findings, unlabelled)
    return [dataclasses.replace(p, subject=found[p.key]) for p in pictures if p.key in found]


def _with_people(pictures, people, read, findings):
    """Leave out labelled pictures without people (NK240): there is nothing to learn from them."""
    there = {person.picture for person in people}
    for picture in pictures:
        if picture.labelled and picture.key not in there:
            why = (
                "all its people are left out" if picture.image_id in read.named else "no annotation"
            )
            findings.add("NK240", f"{picture.key}: {why}")
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


def _includes(folders, folder) -> bool:
    inner = Path(folder).resolve()
    return any(inner.is_relative_to(Path(outer).resolve()) for outer in folders)


def _sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
