"""A sheet of what a network is trained on: every kind of view, faces masked.

Faces are covered in the packed picture before any view is cut from it, so that no augmentation can
bring one back.
"""

import numpy as np
from absl import logging

from nkjax import views
from nkjax.data import augment, crops, images, records, samples
from nkjax.evaluate import draw, sheets
from nkjax.lab.rows import Person

CELL_WH, HAND_WH = (240, 320), (240, 240)
BODY_VIEWS = (
    ("as packed", augment.PLAIN),
    ("weak view", augment.WEAK),
    ("strong view", augment.STRONG),
    ("Sapiens recipe", augment.SAPIENS),
)
HAND_VIEWS = (("hand", augment.PLAIN), ("hand view", augment.HAND))
GAP, CAPTION = 4, 18
PAPER_RGB, INK_RGB = (28, 28, 30), (235, 235, 235)


def views_sheet(manifest: records.Manifest, split: str, count: int = 6, seed: int = 0):
    """Draw people of a split, a row each: packed, weak, strong and recipe views, and their hands.

    The strong and recipe views are as the device makes them, colours and covers included. People
    that cannot be read are passed over. Returns (H, W, 3) uint8 RGB; the same seed gives the same
    sheet. Raises BadData for an unknown split, or one of which nobody can be read.
    """
    rows = records.Rows(manifest, split)
    chosen = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))
    masked = [row for i in chosen if len(rows) and (row := mask_row(rows, int(i)))]
    if not masked:
        raise records.BadData(f"{manifest.folder}: nobody of split {split} can be read")
    bodies = [_sample(row, i, CELL_WH, BODY_VIEWS, manifest, seed) for i, row in enumerate(masked)]
    _as_on_the_device(bodies, seed)
    hands = [_hands(row, i, manifest, seed) for i, row in enumerate(masked)]
    columns = len(BODY_VIEWS) + max(len(cells) for cells in hands)
    wide, high = CELL_WH[0] + GAP, CELL_WH[1] + GAP + CAPTION
    canvas = np.full((high * len(bodies) + GAP, wide * columns + GAP, 3), PAPER_RGB, np.uint8)
    for r, (body, cells) in enumerate(zip(bodies, hands, strict=True)):
        for c, (name, view) in enumerate([*body["views"].items(), *cells]):
            cell = _drawn(view, manifest.skeleton)
            top, left = GAP + r * high, GAP + c * wide
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            text = name + (", mirrored" if view["mirrored"] else "")
            draw.write_text(canvas, text, (left + 2, top + cell.shape[0] + 13), INK_RGB)
    return canvas


def mask_row(rows, number):
    """Return the row with the faces of all in its picture covered, None if it cannot be read."""
    try:
        row = rows[number]
        image = images.decode_reduced(row["image"], 1, row["picture_id"])
        crops.center_scale(row["box"], 1.0, 1.0)
        together = _of_same_picture(rows, number)
    except (ValueError, RuntimeError, OSError) as error:
        logging.warning("row %d: %s", number, error)
        return None
    # A box of the whole picture says nothing about where in it people are: it becomes a mosaic.
    people = [
        _person(other["keypoints"], other["box"], ignore=other["box_source"] == "picture")
        for other in together
    ]
    nobody = np.zeros_like(row["keypoints"])
    people += [_person(nobody, box, ignore=True) for box in row["ignore_boxes"]]
    image = sheets.hide_faces(image, people, rows.manifest.skeleton)
    return row | {"image": draw.encode_jpeg(image, 95)}


def _person(keypoints_k3, box, ignore=False):
    return Person(0, None, "", keypoints_k3, tuple(box.tolist()), "labels", 0.0, ignore=ignore)


def _of_same_picture(rows, number):
    """Rows of a picture follow each other."""
    me = rows.person(number)
    same = [me]
    for step in (-1, 1):
        other = number + step
        while 0 <= other < len(rows):
            person = rows.person(other)
            if (person["shard"], person["picture"]) != (me["shard"], me["picture"]):
                break
            same.append(person)
            other += step
    return same


def _sample(row, index, size_wh, recipes, manifest, seed):
    look = samples.Look(size_wh, recipes)
    canvases = [np.empty((size_wh[1], size_wh[0], 3), np.uint8) for _ in recipes]
    return samples.sample(row, index, seed, look, manifest.skeleton, (), canvases)


def _hands(row, index, manifest, seed):
    cells = []
    for side in crops.SIDES:
        if crops.hand_box(row["keypoints"], manifest.skeleton, side):
            part = row | {"part": f"{side}_hand"}
            made = _sample(part, index, HAND_WH, HAND_VIEWS, manifest, seed)
            cells += [(f"{side} {name}", view) for name, view in made["views"].items()]
    return cells


def _as_on_the_device(bodies, seed):
    keys = views.sample_keys(seed, np.arange(len(bodies), dtype=np.int32))
    for name in ("strong view", "Sapiens recipe"):
        pixels, points, visible = (
            np.stack([body["views"][name][field] for body in bodies])
            for field in ("image", "points", "visible")
        )
        if name == "strong view":
            changed, _ = views.strong(pixels, keys, points, visible > 0)
        else:
            changed = views.recipe(pixels, keys)
        for body, image in zip(bodies, np.asarray(changed), strict=True):
            body["views"][name]["image"] = np.clip(image.round(), 0, 255).astype(np.uint8)


def _drawn(view, skeleton):
    cell = np.ascontiguousarray(view["image"])
    seen, hollow = view["visible"] > 0, set(np.flatnonzero(view["visible"] == 1))
    box = (0, 0, cell.shape[1], cell.shape[0])
    draw.draw_skeleton(cell, box, view["points"], seen.astype(float), skeleton, hollow)
    return cell
