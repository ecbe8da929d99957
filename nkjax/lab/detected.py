"""Bring the boxes of a detector to the pictures and video frames that they are of."""

import collections
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping

from nkjax.data import coco
from nkjax.data.coco import Box
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Picture


def read(
    path, person_category: str, min_score: float, findings: Findings
) -> dict[int | str, tuple[Box, ...]]:
    """Read the boxes of people from a COCO results file, by image id.

    person_category: id or name where the file has several. Entries that cannot be used are counted
    (NK242; NK241 where there are no others), boxes of another category (NK244) and those below
    min_score (NK246). Raises BadAnnotations for a file of another kind.
    """
    try:
        try:
            detections = coco.read_detections(path)
        except coco.NoDetections:
            raise
        except coco.BadAnnotations:
            # Labels and detector may call people differently: a name is needed for several only.
            if not person_category:
                raise
            detections = coco.read_detections(path, person_category)
    except coco.NoDetections as error:
        findings.add("NK241", str(error))
        return {}
    for reason, count in detections.skipped.items():
        findings.add("NK242", f"{count} with {reason}", count)
    people = {}
    for image_id, boxes in detections.boxes.items():
        of_people = [box for box in boxes if box.person]
        if len(of_people) < len(boxes):
            findings.add("NK244", f"image_id {image_id}", len(boxes) - len(of_people))
        people[image_id] = tuple(box for box in of_people if box.score >= min_score)
        if len(people[image_id]) < len(of_people):
            below = len(of_people) - len(people[image_id])
            findings.add("NK246", f"image_id {image_id}: {below} below {min_score:g}", below)
    if not any(people.values()):
        findings.add("NK241", str(path))
    return people


def place(
    boxes: Mapping[int | str, tuple[Box, ...]],
    found: Iterable[tuple[str, Picture]],
    kept: Collection[str],
    findings: Findings,
) -> dict[str, list[Box]]:
    """Find the picture of every image id and cut its boxes to it: {picture key: boxes}.

    found: (path relative to its source, picture) of all pictures; kept: keys of those in use. An id
    is the path with or without ending, or the file name without ending; for a frame '#' or '_' and
    its number follow. Numbers compare as numbers. Ids of no picture, or of several, boxes with less
    than 1 px inside and boxes that a picture has already are counted (NK242), and so are boxes that
    are cut (NK225).
    """
    sizes, tables = {}, ({}, {}, {})
    for name, picture in found:
        sizes[picture.key] = picture.size_wh
        for table, called in zip(tables, _names(name, picture.frame), strict=True):
            table.setdefault(called, []).append(picture.key)
    placed = collections.defaultdict(list)
    for image_id, inside in boxes.items():
        if not inside:
            continue
        fits = next((t[n] for t in tables for n in _readings(image_id) if n in t), [])
        fits = [key for key in fits if key in kept] if len(fits) > 1 else fits
        if len(fits) != 1:
            why = f"fits {len(fits)} pictures" if fits else "of no unlabelled picture in use"
            findings.add("NK242", f"image_id {image_id}: {why}", len(inside))
        elif fits[0] in kept:
            cut = (_cut(box, sizes[fits[0]], fits[0], findings) for box in inside)
            placed[fits[0]] += [box for box in cut if box is not None]
    return {key: _once(inside, key, findings) for key, inside in placed.items()}


def _once(boxes, key, findings) -> list[Box]:
    """Keep the surest of boxes that are the same."""
    best = {}
    for box in boxes:
        if box.xywh in best:
            findings.add("NK242", f"{key}: the same box again")
        if box.xywh not in best or box.score > best[box.xywh].score:
            best[box.xywh] = box
    return list(best.values())


def _names(name, frame) -> tuple[str, str, str]:
    """What a picture may be called, the longest name first."""
    bare = posixpath.splitext(name)[0]
    names = (name, bare, posixpath.basename(bare))
    return tuple(_number(n) if frame < 0 else f"{n}#{frame}" for n in names)


def _readings(image_id) -> list[str]:
    """The names that an image id may mean: of a picture, or of a frame."""
    text = str(image_id).replace("\\", "/")
    text = posixpath.normpath(text) if "/" in text else text
    of_frame = re.fullmatch(r"(.+)[#_]([0-9]{1,18})", text, re.DOTALL)
    return [_number(text)] + ([f"{of_frame[1]}#{int(of_frame[2])}"] if of_frame else [])


def _number(text) -> str:
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def _cut(box: Box, size_wh, key, findings) -> Box | None:
    x, y, width, height = box.xywh
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(size_wh[0])), min(y + height, float(size_wh[1]))
    if right - left < 1 or bottom - top < 1:
        findings.add("NK242", f"{key}: a box outside the picture")
        return None
    if (left, top) == (x, y) and right == x + width and bottom == y + height:
        return box
    findings.add("NK225", key)
    return Box((left, top, right - left, bottom - top), box.score)
