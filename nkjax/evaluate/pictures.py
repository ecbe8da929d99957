"""From an input folder and its COCO files to a list of pictures with boxes.

File names may hold names of patients, so a picture is called by an id (nkjax.ids).
"""

import collections
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from nkjax.data import coco
from nkjax.data.coco import Box, Detections, Image
from nkjax.data.images import ENDINGS


class BadInput(ValueError):
    """Input that cannot be used; the message is one line with file, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file and the boxes in it.

    name: path relative to the input folder, with '/'; id: what outputs call it; image_id: of the
    COCO files, None where they do not know it; size_wh: px by the annotation file, if it says;
    boxes: of people above the score threshold, None for the whole picture; others: all other boxes
    of the detections file, of people or not.
    """

    path: Path
    name: str
    id: str
    image_id: int | str | None = None
    size_wh: tuple[int, int] | None = None
    boxes: tuple[Box, ...] | None = None
    others: tuple[Box, ...] = ()


def find(folder_or_file) -> tuple[dict[str, Path], int]:
    """Find the pictures below a folder, or take one file: {name: path} sorted by name.

    A picture is told by its ending, one of ENDINGS in any case. Also returns how many other files
    there are. Raises BadInput where there is no picture.
    """
    top = Path(folder_or_file)
    if top.is_file():
        return {top.name: top}, 0
    if not top.is_dir():
        raise BadInput(f"{top}: no such picture or folder; check --input")
    pictures, others = {}, 0
    for folder, _, files in os.walk(top):
        for file in files:
            path = Path(folder) / file
            if path.suffix.lower() in ENDINGS:
                pictures[path.relative_to(top).as_posix()] = path
            else:
                others += 1
    if not pictures:
        raise BadInput(f"{top}: no picture below it; known endings: {' '.join(ENDINGS)}")
    return dict(sorted(pictures.items())), others


def plan(
    paths: dict[str, Path],
    ids: dict[str, str],
    detections: Detections | None,
    images: Iterable[Image] | None,
    min_score: float,
    source,
) -> tuple[list[Picture], dict[str, int]]:
    """Give every picture its boxes and its image id.

    paths, ids: by picture name; source: the file that names the pictures, for messages. Also
    returns how many boxes are not used, by reason. Raises BadAnnotations where an image id is
    ambiguous, and BadInput where there are boxes and none is of any picture.
    """
    boxes_by_id = detections.boxes if detections is not None else {}
    sizes = {}
    if images is not None:
        entries = coco.match_by_file_name(paths, images, source)
        image_ids = {name: entry.id for name, entry in entries.items()}
        sizes = {name: entry.size_wh for name, entry in entries.items()}
    else:
        image_ids = coco.match_by_stem(paths, boxes_by_id, source)
    unused = collections.Counter(
        {"of no picture here": sum(len(boxes) for boxes in boxes_by_id.values())}
    )
    pictures = []
    for name, path in paths.items():
        image_id = image_ids.get(name)
        kept, others = None, []
        if detections is not None:
            kept = []
            for box in boxes_by_id.get(image_id, ()):
                unused["of no picture here"] -= 1
                (kept if box.person and box.score >= min_score else others).append(box)
        unused["of another category"] += sum(not box.person for box in others)
        unused["below --min_score"] += sum(box.person for box in others)
        boxes = None if kept is None else tuple(kept)
        pictures.append(
            Picture(path, name, ids[name], image_id, sizes.get(name), boxes, tuple(others))
        )
    if boxes_by_id and not any(picture.boxes or picture.others for picture in pictures):
        raise BadInput(
            "no image_id of the detections is that of a picture here: ids must be file names "
            "without ending, or be named by --images_json"
        )
    return pictures, {reason: n for reason, n in unused.items() if n}
