"""Read COCO files: the boxes of a detector, and which picture has which image id."""

import collections
import dataclasses
import json
import posixpath
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path

# Beyond this no picture reaches; far larger numbers overflow the arithmetic of crops.
FARTHEST_PX = 1e6


class BadAnnotations(ValueError):
    """A COCO file that cannot be used; the message is one line with file, rule and remedy."""


class NoDetections(BadAnnotations):
    """A detections file with entries, none of which can be used."""


@dataclasses.dataclass(frozen=True)
class Box:
    """A detector's box: left, top, width and height in picture px, at least 1 px each way.

    `person` is false for boxes of another category than the one asked for.
    """

    xywh: tuple[float, float, float, float]
    score: float
    person: bool = True


@dataclasses.dataclass(frozen=True)
class Detections:
    """The usable boxes of a detections file by image id, in the order of the file.

    skipped: reason -> number of entries that are not among `boxes`.
    """

    boxes: Mapping[int | str, tuple[Box, ...]]
    person_category: int | str | None
    skipped: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Image:
    """An entry of 'images' of an annotation file; size_wh in px where the file gives it."""

    id: int | str
    file_name: str
    size_wh: tuple[int, int] | None


def read_detections(path, person_category=None) -> Detections:
    """Read a COCO results file, a list of {image_id, category_id, bbox: [x, y, w, h], score}.

    Entries without a readable id, category, box or score are counted by reason, not used.
    person_category: the category whose boxes are people; None where the file has only one.
    Raises BadAnnotations for another file, one without a single usable entry, or several
    categories where none is named.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise BadAnnotations(
            f"{path}: want a list of detections, not one {_kind(entries)}; an annotation file "
            "is not a detections file (predict.py takes it as --images_json)"
        )
    skipped = collections.Counter()
    found = []
    for entry in entries:
        reason = _fault(entry)
        if reason:
            skipped[reason] += 1
        else:
            found.append(entry)
    if entries and not found:
        reasons = "; ".join(f"{n} with {reason}" for reason, n in skipped.items())
        raise NoDetections(
            f"{path}: none of its {len(entries)} entries is a detection ({reasons}); want "
            "{image_id, category_id, bbox: [x, y, width, height], score}"
        )
    person_category = _person_category(path, found, person_category)
    boxes = collections.defaultdict(list)
    for entry in found:
        xywh = tuple(float(v) for v in entry["bbox"])
        person = entry["category_id"] == person_category
        boxes[entry["image_id"]].append(Box(xywh, float(entry["score"]), person))
    return Detections({k: tuple(v) for k, v in boxes.items()}, person_category, dict(skipped))


def read_images(path) -> tuple[Image, ...]:
    """Read the 'images' of a COCO annotation file: [{id, file_name, width?, height?}].

    Raises BadAnnotations.
    """
    data = read_json(path)
    entries = data.get("images") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise BadAnnotations(
            f"{path}: no list of images in it; want a COCO annotation file, an object with "
            "'images': [{id, file_name}]"
        )
    images, seen = [], set()
    for i, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        image_id, name = entry.get("id"), entry.get("file_name")
        if not is_id(image_id) or not isinstance(name, str) or not name:
            raise BadAnnotations(f"{path}: images[{i}] lacks a usable id or file_name; mend it")
        if image_id in seen:
            raise BadAnnotations(f"{path}: two images have id {short(image_id)}; renumber them")
        seen.add(image_id)
        size = (entry.get("width"), entry.get("height"))
        known = all(is_number(side) and side > 0 for side in size)
        images.append(Image(image_id, name, size if known else None))
    return tuple(images)


def match_by_file_name(names: Iterable[str], images: Iterable[Image], source) -> dict[str, Image]:
    """Find the entry of every picture: by path, or by file name where that is enough.

    names: paths relative to the input folder, with '/'. source: names the file in messages.
    Pictures without an entry are absent from the answer. Raises BadAnnotations where two pictures
    could be one entry, or two entries one picture.
    """
    names = tuple(names)
    by_base = collections.defaultdict(list)
    for name in names:
        by_base[posixpath.basename(name)].append(name)
    exact, matched = set(names), {}
    for image in images:
        name = posixpath.normpath(image.file_name.replace("\\", "/"))
        fits = [name] if name in exact else by_base[posixpath.basename(name)]
        if len(fits) > 1:
            raise BadAnnotations(
                f"{source}: file_name {short(image.file_name)} fits {len(fits)} pictures; "
                "write it relative to the input folder"
            )
        for fit in fits:
            if fit in matched:
                raise BadAnnotations(
                    f"{source}: image ids {short(matched[fit].id)} and {short(image.id)} fit "
                    f"one picture, {short(fit)}; write file_name relative to the input folder"
                )
            matched[fit] = image
    return matched


def match_by_stem(names: Iterable[str], ids: Iterable[int | str], source) -> dict[str, int | str]:
    """Find the image id of every picture whose file name without ending is that id.

    Numbers are compared as numbers: 000000000785.jpg has id 785, or '785'. Otherwise as
    `match_by_file_name`.
    """
    by_key = collections.defaultdict(list)
    for name in names:
        stem = posixpath.splitext(posixpath.basename(name))[0]
        by_key[_key(stem)].append(name)
    matched = {}
    for image_id in ids:
        fits = by_key[_key(image_id)]
        if len(fits) > 1 or (fits and fits[0] in matched):
            what = f"{len(fits)} pictures" if len(fits) > 1 else "a picture that another fits too"
            raise BadAnnotations(
                f"{source}: image_id {short(image_id)} fits {what}; name the pictures of all "
                "ids with --images_json"
            )
        for fit in fits:
            matched[fit] = image_id
    return matched


def read_json(path):
    """Read a JSON file, with or without a byte order mark; raises BadAnnotations."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadAnnotations(f"{path}: cannot be opened ({error.strerror}); check it") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadAnnotations(f"{path}: not a JSON file ({reason}); write it again") from None


def _fault(entry) -> str | None:
    """Tell why an entry is not a usable detection, if it is not."""
    if not isinstance(entry, dict):
        return "no object"
    if not is_id(entry.get("image_id")):
        return "no image_id"
    if not is_id(entry.get("category_id")):
        return "no category_id"
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(v) for v in box)):
        return "no bbox of four finite numbers"
    if max(abs(v) for v in box) > FARTHEST_PX:
        return f"a bbox beyond {FARTHEST_PX:.0e} px"
    if box[2] < 1 or box[3] < 1:
        return "a bbox less than 1 px wide or high"
    if not is_number(entry.get("score")):
        return "no finite score"
    return None


def _person_category(path, entries, wanted):
    present = collections.Counter(entry["category_id"] for entry in entries)
    listed = ", ".join(f"{short(c)} ({n} boxes)" for c, n in present.most_common(8))
    if wanted is None and len(present) > 1:
        raise BadAnnotations(
            f"{path}: several categories, {listed}; say with --person_category which one is people"
        )
    if wanted is None:
        return next(iter(present), None)
    # The command line cannot tell 1 from '1'.
    for category in present:
        if str(category) == str(wanted):
            return category
    if present:
        raise BadAnnotations(f"{path}: no category {short(wanted)}; it has {listed}")
    return wanted


def _key(name_or_id):
    text = str(name_or_id)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4000 else text


def is_id(value):
    """Tell whether a value can be an id: a number without fraction, or text."""
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def is_number(value):
    """Tell whether a value is a finite number."""
    # The comparison also refuses NaN, inf and integers too long for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _kind(value):
    return "object" if isinstance(value, dict) else type(value).__name__


def short(value):
    """Show a value in a message, cut where it is long."""
    return reprlib.repr(value)
