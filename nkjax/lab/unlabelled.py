"""Find pictures without labels in folders, lists and videos, and a detector's boxes in them."""

import collections
import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nkjax.data import fingerprints, images, videos
from nkjax.data.coco import Box
from nkjax.lab import detected, sources
from nkjax.lab.findings import Findings
from nkjax.lab.listed import Listing
from nkjax.lab.rows import AREA_OF_BOX, Inputs, Person, Picture
from nkjax.lab.scan import Scan, in_threads, report_mode, scan_files
from nkjax.lab.sources import File

# Bits in which neighbours of a video may differ to be one. Fewer than `fingerprints.NEAR`: before a
# still camera a child in another posture often differs by four to six.
THIN = 3


def read(
    inputs: Inputs,
    listing: Listing,
    findings: Findings,
    workers: int = 1,
    progress: Callable = lambda iterable, total, what: iterable,
    known: Mapping[str, Scan] | None = None,
    joints: int = 0,
) -> tuple[list[Picture], list[Person]]:
    """Read the pictures of `inputs.unlabelled` and the people in them, sorted by picture key.

    Sources and keys are those of `sources.find`. EXIF is always applied: there are no labels that
    could have been made without. Left out are files that do not decode (NK151), pictures with
    labels (NK144) or whose image in the JSON is left out because of an error (NK145), copies
    (NK146), and in a folder or video all that look like the one kept before (NK142).

    Boxes: the whole picture, or those of `inputs.detections`, COCO results whose image_id is the
    path relative to the source, with or without ending, or the file name without ending;
    '<path>#<frame>' or '<path>_<frame>' for frames, which count from 0; numbers compare as numbers.
    They are in upright px. Pictures without a box are left out (NK152).

    listing: of the JSON; joints: K of the zeros that stand for the keypoints. known: scans of an
    earlier run by key. No pixels are kept. Raises BadUnlabelled for a source that is not there,
    BadAnnotations for a detections file that is none.
    """
    if not inputs.unlabelled:
        return [], []
    boxes = None
    if inputs.detections:
        boxes = detected.read(inputs.detections, inputs.person_category, inputs.min_score, findings)
    files = sources.find(inputs.unlabelled, listing, findings)
    found = _scan_pictures(files, findings, workers, progress, known)
    found += _scan_videos(files, findings, workers, progress)
    found.sort(key=lambda named: named[1].key)
    kept = _thin(_without_copies([p for _, p in found], listing, findings), findings)
    if boxes is None:
        by_key = {p.key: [Box((0.0, 0.0, *map(float, p.size_wh)), 1.0)] for p in kept}
    else:
        by_key = detected.place(boxes, found, {p.key for p in kept}, findings)
    for key in (p.key for p in kept if not by_key.get(p.key)):
        findings.add("NK152", key)
    pictures = [p for p in kept if by_key.get(p.key)]
    source = "picture" if boxes is None else "detector"
    inside = [(p.key, box) for p in pictures for box in by_key[p.key]]
    people = [_person(i, *item, source, joints) for i, item in enumerate(inside, 1)]
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


def _scan_pictures(files, findings, workers, progress, known) -> list[tuple[str, Picture]]:
    named = {f.key: f for f in files if f.name.lower().endswith(images.ENDINGS)}
    paths = {key: Path(file.path) for key, file in named.items()}
    found = []
    for key, seen in scan_files(paths, workers, progress, known).items():
        if seen.code:
            findings.add("NK151", f"{key} ({seen.bytes:,} bytes): {seen.failure}")
            continue
        report_mode(key, seen, findings)
        size_wh = images.turn_size(seen.stored_wh, seen.orientation)
        picture = Picture(key, named[key].path, size_wh, seen.orientation, seen.sha256, seen.phash,
                          labelled=False)  # fmt: skip
        found.append((named[key].name, picture))
    return found


def _scan_videos(files, findings, workers, progress) -> list[tuple[str, Picture]]:
    clips = [f for f in files if not f.name.lower().endswith(images.ENDINGS)]
    found = []
    scanned = in_threads(_scan_video, clips, workers, workers)
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


def _scan_video(clip: File):
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


def _without_copies(pictures, listing, findings) -> list[Picture]:
    ours = {sha256: (key, "NK145") for key, sha256 in listing.withheld.items() if sha256}
    ours |= {picture.sha256: (picture.key, "NK144") for picture in listing.pictures}
    first, kept = {}, []
    for picture in pictures:
        other = first.setdefault(picture.sha256, picture.key)
        if picture.sha256 in ours:
            key, code = ours[picture.sha256]
            findings.add(code, f"{picture.key} is {key}")
        elif other != picture.key:
            findings.add("NK146", f"{picture.key} is {other}")
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
