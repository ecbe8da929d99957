"""Find pictures without labels in folders, lists and videos, and a detector's boxes in them."""

import collections
import dataclasses
import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nkjax.data import fingerprints, images, videos
from nkjax.data.coco import Box
from nkjax.lab import detected
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Inputs, Person, Picture
from nkjax.lab.scan import Scan, in_threads, scan_files

AREA_OF_BOX = 0.53  # what mmpose takes where COCO's area is missing
# Bits in which neighbours of a video may differ to be one. Fewer than `fingerprints.NEAR`: before a
# still camera a child in another posture often differs by four to six.
THIN = 3


class BadUnlabelled(ValueError):
    """An --unlabelled source that cannot be used; the message is one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class _File:
    """A picture or video file: key in the lab, path relative to its source, path."""

    key: str
    name: str
    path: str


def read(
    inputs: Inputs,
    labelled: Sequence[Picture],
    findings: Findings,
    workers: int = 1,
    progress: Callable = lambda iterable, total, what: iterable,
    known: Mapping[str, Scan] | None = None,
    joints: int = 0,
    first_id: int = 1,
) -> tuple[list[Picture], list[Person]]:
    """Read the pictures of `inputs.unlabelled` and the people in them, sorted by picture key.

    A source is a folder (pictures and videos in it), a .txt list (a path a line, relative to the
    list's folder, '#' comments) or a video. Keys are paths relative to the source, with its name
    before them where another picture has that key already. EXIF is always applied: there are no
    labels that could have been made without. Left out are files that do not decode (NK151),
    labelled pictures (NK144), copies (NK141), and in a folder or video all that look like the one
    kept before (NK142).

    Boxes: the whole picture, or those of `inputs.detections`, COCO results whose image_id is the
    path relative to the source, with or without ending, or the file name without ending;
    '<path>#<frame>' or '<path>_<frame>' for frames, which count from 0; numbers compare as numbers.
    They are in upright px. Pictures without a box are left out (NK152).

    joints: K of the zeros that stand for the keypoints; first_id: of the first person. known: scans
    of an earlier run by key. No pixels are kept. Raises BadUnlabelled for a source that is not
    there, BadAnnotations for a detections file that is none.
    """
    if not inputs.unlabelled:
        return [], []
    boxes = None
    if inputs.detections:
        boxes = detected.read(inputs.detections, inputs.person_category, inputs.min_score, findings)
    files = _find(inputs.unlabelled, labelled, findings)
    found = _scan_pictures(files, findings, workers, progress, known)
    found += _scan_videos(files, findings, workers, progress)
    found.sort(key=lambda named: named[1].key)
    kept = _thin(_without_copies([p for _, p in found], labelled, findings), findings)
    if boxes is None:
        by_key = {p.key: [Box((0.0, 0.0, *map(float, p.size_wh)), 1.0)] for p in kept}
    else:
        by_key = detected.place(boxes, found, {p.key for p in kept}, findings)
    for key in (p.key for p in kept if not by_key.get(p.key)):
        findings.add("NK152", key)
    pictures = [p for p in kept if by_key.get(p.key)]
    source = "picture" if boxes is None else "detector"
    inside = [(p.key, box) for p in pictures for box in by_key[p.key]]
    people = [_person(i, *item, source, joints) for i, item in enumerate(inside, first_id)]
    return pictures, people


def _person(number, key, box: Box, source, joints) -> Person:
    return Person(
        id=number,
        source_id=None,
        picture=key,
        keypoints_k3=np.zeros((joints, 3), np.float32),
        box_xywh=box.xywh,
        box_source=source,
        area=AREA_OF_BOX * box.xywh[2] * box.xywh[3],
        score=box.score,
    )


def _find(sources: Iterable[str], labelled, findings) -> list[_File]:
    """List the files of all sources, without those that are labelled pictures."""
    taken = {picture.key for picture in labelled}
    seen = {os.path.realpath(picture.path): "NK144" for picture in labelled}
    files = []
    for source in sources:
        for name, path in _source(source, findings):
            if not name.lower().endswith(images.ENDINGS + videos.ENDINGS):
                findings.add("NK154", name)
                continue
            real = os.path.realpath(path)
            if real in seen:
                findings.add(seen[real], f"{name}: the same file")
                continue
            seen[real] = "NK141"
            key = _free_key(name, Path(source).stem, taken)
            taken.add(key)
            files.append(_File(key, name, path))
    return files


def _source(source, findings) -> list[tuple[str, str]]:
    """List (relative path with '/', path) of the files of one source, sorted by the former."""
    top = Path(source)
    if top.is_dir():
        found = []
        for folder, folders, names in os.walk(top):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in names + links:
                path = os.path.join(folder, name)
                found.append((_printable(os.path.relpath(path, top)), path))
        # '.DS_Store' and '._a.jpg' are no pictures whatever they end in.
        hidden = [name for name, _ in found if posixpath.basename(name).startswith(".")]
        for name in sorted(hidden):
            findings.add("NK154", name)
        return sorted(item for item in found if item[0] not in set(hidden))
    if not top.is_file():
        raise BadUnlabelled(f"{source}: no such file or folder; check --unlabelled")
    if top.suffix.lower() == ".txt":
        return _listed(top, findings)
    if top.name.lower().endswith(images.ENDINGS + videos.ENDINGS):
        return [(_printable(top.name), str(top))]
    raise BadUnlabelled(
        f"{source}: neither a folder, a list (.txt), a picture nor a video; check --unlabelled"
    )


def _listed(path: Path, findings) -> list[tuple[str, str]]:
    try:
        lines = path.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
    except OSError as error:
        raise BadUnlabelled(f"{path}: cannot be opened ({error.strerror}); check it") from None
    found = []
    for line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        whole = os.path.join(path.parent, line)
        if not Path(whole).is_file():
            findings.add("NK155", f"{path.name}: {_printable(line)}")
            continue
        parts = Path(os.path.normpath(line)).parts
        found.append((_printable("/".join(p for p in parts if p not in ("/", ".."))), whole))
    return found


def _free_key(name, source, taken) -> str:
    key, number = name, 1
    while key in taken:
        key = f"{_printable(source)}{'' if number == 1 else f'-{number}'}/{name}"
        number += 1
    return key


def _scan_pictures(files, findings, workers, progress, known) -> list[tuple[str, Picture]]:
    named = {f.key: f for f in files if f.name.lower().endswith(images.ENDINGS)}
    paths = {key: Path(file.path) for key, file in named.items()}
    found = []
    for key, seen in scan_files(paths, workers, progress, known).items():
        if seen.code:
            findings.add("NK151", f"{key} ({seen.bytes:,} bytes): {seen.failure}")
            continue
        if seen.mode != "rgb":
            findings.add("NK111" if seen.mode == "16 bit" else "NK112", f"{key}: {seen.mode}")
        size_wh = images.turn_size(seen.stored_wh, seen.orientation)
        picture = Picture(key, named[key].path, size_wh, seen.orientation, seen.sha256, seen.phash,
                          labelled=False)  # fmt: skip
        found.append((named[key].name, picture))
    return found


def _scan_videos(files, findings, workers, progress) -> list[tuple[str, Picture]]:
    clips = [f for f in files if not f.name.lower().endswith(images.ENDINGS)]
    found = []
    scanned = in_threads(_scan_video, clips, workers)
    for clip, result in zip(clips, progress(scanned, len(clips), "videos"), strict=True):
        if isinstance(result, str):
            findings.add("NK151", f"{clip.key}: {result}")
            continue
        frames, degrees, expected = result
        if degrees:
            findings.add("NK125", f"{clip.key}: {degrees} degrees")
        # Some headers only estimate the number from length and rate.
        if len(frames) < 0.95 * expected - 1:
            findings.add("NK153", f"{clip.key}: {len(frames)} of {expected} frames")
        found += frames
    return found


def _scan_video(clip: _File):
    """Return the frames, the rotation and the promised number of frames; or what is wrong."""
    found = []
    try:
        degrees, expected = videos.rotation(clip.path), videos.expected_frames(clip.path)
        for index, time_s, rgb in videos.frames(clip.path):
            phash = fingerprints.dhash(images.thumbnail(rgb, fingerprints.GRID_WH))
            size_wh = (rgb.shape[1], rgb.shape[0])
            picture = Picture(f"{clip.key}#{index:06d}", clip.path, size_wh, 1,
                              hashlib.sha256(rgb).hexdigest(), phash,
                              labelled=False, frame=index, time_s=time_s)  # fmt: skip
            found.append((clip.name, picture))
    except videos.BadVideo as error:
        return str(error).removeprefix(f"{clip.path}: ")
    return found, degrees, expected


def _without_copies(pictures, labelled, findings) -> list[Picture]:
    ours = {picture.sha256: picture.key for picture in labelled}
    first, kept = {}, []
    for picture in pictures:
        other = first.setdefault(picture.sha256, picture.key)
        if picture.sha256 in ours:
            findings.add("NK144", f"{picture.key} is {ours[picture.sha256]}")
        elif other != picture.key:
            findings.add("NK141", f"{picture.key} is {other}")
        else:
            kept.append(picture)
    return kept


def _thin(pictures, findings) -> list[Picture]:
    """Leave out what looks like the last one kept of its folder or video, in natural order."""
    groups = collections.defaultdict(list)
    for picture in pictures:
        of_video = picture.key.rpartition("#")[0]
        groups[of_video if picture.frame >= 0 else posixpath.dirname(picture.key)].append(picture)
    kept = []
    for group in groups.values():
        last = 0
        for picture in sorted(group, key=lambda p: _natural(p.key)):
            if fingerprints.differing_bits(picture.phash, last) <= THIN:
                findings.add("NK142", picture.key)
                continue
            last = picture.phash
            kept.append(picture)
    return sorted(kept, key=lambda picture: picture.key)


def _natural(key):
    """Order 'a2' before 'a10'."""
    # With a group, every second part is one of digits.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", key))]


def _printable(path: str) -> str:
    """Return a path with '/' that can be written as UTF-8, whatever bytes the name holds."""
    return path.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode()
