"""Read a lab's COCO keypoint JSON as plain rows, before any picture is opened.

An entry that cannot be trusted is left out whole, under the code of its first fault. Of ids used
twice all entries are left out, since nobody can tell which one is meant.
"""

import collections
import dataclasses

import numpy as np

from nkjax.data import coco
from nkjax.data.coco import BadAnnotations, Image
from nkjax.lab import joints
from nkjax.lab.findings import Findings
from nkjax.lab.joints import Category, Layout, Unusable
from nkjax.lab.rows import Inputs
from nkjax.skeleton import Skeleton


@dataclasses.dataclass(frozen=True)
class Row:
    """A person as the file has it.

    joints_k3: x, y, v in the skeleton's order, 0 where not labelled; box_xywh: not checked against
    anything, None where the file has none; area: None where it is missing or unusable; ignore:
    iscrowd or ignore.
    """

    source_id: int | str
    image_id: int | str
    joints_k3: np.ndarray
    box_xywh: tuple[float, float, float, float] | None
    area: float | None
    ignore: bool
    posture: str
    grasp: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"annotation {coco.short(self.source_id)}"


@dataclasses.dataclass(frozen=True)
class Labels:
    """The content of an annotation file: listed images, and people on them, in its order.

    regions: (image id, box xywh) of people who are left out; named: ids of the images that an
    annotation of people names, usable or not; left_out: file names of the images left out.
    """

    skeleton: Skeleton
    images: tuple[Image, ...]
    people: tuple[Row, ...]
    regions: tuple[tuple[int | str, tuple[float, float, float, float]], ...]
    named: frozenset[int | str]
    left_out: tuple[str, ...]


def read(inputs: Inputs, findings: Findings) -> Labels:
    """Read `inputs.annotations`; every entry left out or changed is a finding.

    Raises BadAnnotations and BadSkeleton where the file as a whole cannot be used. Source: notes
    ecosystem 2.1, 2.2.
    """
    path = inputs.annotations
    data = coco.read_json(path)
    listed, entries = _lists(path, data)
    category = joints.choose_category(path, data, inputs.person_category)
    entries = _of_category(path, entries, category, findings)
    layout = joints.plan(path, category, inputs.skeleton, entries, findings)
    images, doubtful, left_out = _images(listed, findings)
    names = {image.id: image.file_name for image in images}
    rows, regions = _rows(entries, names, layout, inputs.box_format, findings)
    people = _on_images(rows, images, doubtful, findings)
    named = [entry.get("image_id") for entry in entries if isinstance(entry, dict)]
    return Labels(
        layout.skeleton, images, people, regions, frozenset(filter(coco.is_id, named)), left_out
    )


def _lists(path, data):
    if isinstance(data, list):
        raise BadAnnotations(
            f"{path}: a list, so perhaps detections (--detections); want an annotation file, an "
            "object with 'images', 'annotations' and 'categories'"
        )
    for key in ("images", "annotations"):
        value = data.get(key) if isinstance(data, dict) else None
        if not isinstance(value, list) or not value:
            hint = "; CVAT writes none unless the task has skeleton labels" * (value == [])
            raise BadAnnotations(f"{path}: no {key!r} in it{hint}; export a COCO keypoint file")
    return data["images"], data["annotations"]


def _of_category(path, entries, category: Category, findings):
    """Keep the entries of people, and what is no object: `_row` counts it."""
    ids = [e.get("category_id") if isinstance(e, dict) else None for e in entries]
    present = {i for i in ids if coco.is_id(i)}
    if category.id is None and len(present) > 1:
        told = ", ".join(map(coco.short, sorted(present, key=str)[:8]))
        raise BadAnnotations(
            f"{path}: annotations of several categories ({told}) but no 'categories'; add them"
        )
    if category.id is None:
        return entries
    if present and category.id not in present:
        told = ", ".join(map(coco.short, sorted(present, key=str)[:8]))
        raise BadAnnotations(
            f"{path}: no annotation of category {coco.short(category.id)}, only of {told}; "
            "name the one of people with --person_category"
        )
    kept = []
    for position, (i, entry) in enumerate(zip(ids, entries, strict=True)):
        if not isinstance(entry, dict) or (coco.is_id(i) and i == category.id):
            kept.append(entry)
        elif coco.is_id(i):
            findings.add("NK244", f"{_called(entry, position)}: category {coco.short(i)}")
        else:
            called = _called(entry, position)
            findings.add("NK243", f"{called}: category_id is {coco.short(i)}")
    return kept


def _images(listed, findings):
    """Return the usable images, and the ids and the file names of those that are left out."""
    images, doubtful, left_out = [], set(), []
    for position, entry in enumerate(listed):
        entry = entry if isinstance(entry, dict) else {}
        image_id, name = entry.get("id"), entry.get("file_name")
        if not coco.is_id(image_id) or not isinstance(name, str) or not name.strip("/\\. "):
            findings.add("NK243", f"images[{position}]: no usable id or file_name")
            doubtful |= {image_id} if coco.is_id(image_id) else set()
            left_out += [name] if isinstance(name, str) and name.strip("/\\. ") else []
            continue
        size = (entry.get("width"), entry.get("height"))
        known = all(coco.is_number(side) and side > 0 for side in size)
        if not known:
            findings.add("NK126", f"image {coco.short(image_id)}: {coco.short(size)}")
        images.append(Image(image_id, name, size if known else None))
    twice = _twice(image.id for image in images)
    for image in images:
        if image.id in twice:
            findings.add("NK233", f"image {coco.short(image.id)}: {image.file_name}")
        elif isinstance(image.id, str):
            findings.add("NK236", f"image {coco.short(image.id)}")
    left_out += [image.file_name for image in images if image.id in twice]
    usable = tuple(image for image in images if image.id not in twice)
    return usable, doubtful | twice, tuple(left_out)


def _rows(entries, names, layout: Layout, box_format, findings):
    """Return the usable rows and the regions; names: of files by image id, for messages.

    Of an entry that is left out its box stays, where it can be read, as a region to ignore: there
    is somebody, whose face must not show, and whom nobody may be blamed for finding.
    """
    rows, regions = [], []
    ids = [e.get("id") if isinstance(e, dict) else None for e in entries]
    twice = _twice(i for i in ids if coco.is_id(i))
    for position, entry in enumerate(entries):
        called = _called(entry, position)
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if coco.is_id(image_id) and image_id in names:
            called = f"{names[image_id]}, {called}"
        try:
            row, changes = _row(entry, layout, box_format)
            if row.source_id in twice:
                raise Unusable("NK232", "another annotation has this id")
        except Unusable as fault:
            findings.add(fault.code, f"{called}: {fault}")
            regions += _region(entry, box_format)
            continue
        for code, count in changes.items():
            if count:
                findings.add(code, called if count == 1 else f"{called}: {count} joints", count)
        rows.append(row)
    return rows, tuple(regions)


def _row(entry, layout, box_format) -> tuple[Row, dict[str, int]]:
    """Read an entry; also returns what was changed, by code. Raises Unusable."""
    if not isinstance(entry, dict):
        raise Unusable("NK243", "no object")
    for key in ("id", "image_id"):
        if not coco.is_id(entry.get(key)):
            raise Unusable("NK243", f"{key} is {coco.short(entry.get(key))}")
    changes = collections.Counter()

    def note(code, count):
        changes[code] += count

    points = joints.read(entry, layout, note)
    area, crowd, ignore = (entry.get(key) for key in ("area", "iscrowd", "ignore"))
    usable = coco.is_number(area) and 0 < area <= coco.FARTHEST_PX**2
    note("NK235", int(not usable or crowd not in (0, 1)))
    body = (entry.get("keypoints") or [])[2::3]
    count = entry.get("num_keypoints")
    note("NK234", int(isinstance(count, bool) or count != sum(v > 0 for v in body)))
    note("NK231", int(entry["id"] == 0))
    note("NK236", int(isinstance(entry["id"], str)))
    row = Row(
        source_id=entry["id"],
        image_id=entry["image_id"],
        joints_k3=points,
        box_xywh=_box(entry, box_format),
        area=float(area) if usable else None,
        ignore=crowd == 1 or ignore == 1,
        posture=_text(entry.get("posture")),
        grasp=_text(entry.get("grasp")),
    )
    note("NK239", int(row.ignore))
    return row, changes


def _text(value) -> str:
    return value.strip() if isinstance(value, str) else ""


def _region(entry, box_format) -> list[tuple]:
    """Return what is left of a bad entry, [(image id, box)], or nothing."""
    if not isinstance(entry, dict) or not coco.is_id(entry.get("image_id")):
        return []
    try:
        box = _box(entry, box_format)
    except Unusable:
        return []
    return [(entry["image_id"], box)] if box else []


def _box(entry, box_format):
    if entry.get("bbox") in (None, []):
        return None
    box = joints.numbers(entry["bbox"], "bbox")
    if len(box) != 4:
        raise Unusable("NK243", f"bbox has {len(box)} numbers, want 4")
    a, b, c, d = box
    return (a, b, c - a, d - b) if box_format == "xyxy" else (a, b, c, d)


def _on_images(rows, images, doubtful, findings):
    known = {image.id for image in images}
    people = []
    for row in rows:
        if row.image_id in known:
            people.append(row)
        elif row.image_id in doubtful:
            findings.add("NK245", f"{row.name}: image {coco.short(row.image_id)}")
        else:
            findings.add("NK237", f"{row.name}: image {coco.short(row.image_id)}")
    return tuple(people)


def _twice(ids):
    return {i for i, count in collections.Counter(ids).items() if count > 1}


def _called(entry, position):
    name = entry.get("id") if isinstance(entry, dict) else None
    return f"annotations[{position}]" if name is None else f"annotation {coco.short(name)}"
