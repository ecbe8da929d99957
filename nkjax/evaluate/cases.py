"""People of a split as pictures: the true skeleton beside the predicted one, faces masked."""

from typing import NamedTuple

import numpy as np

from nkjax.data import crops, images
from nkjax.evaluate import draw, packed, scores, training_views
from nkjax.evaluate.scores import Found
from nkjax.geometry import affine

CELL_WH, GAP = (240, 320), 4
PADDING = 1.25  # of the box, as the network sees it
PAPER_RGB = (255, 255, 255)
WORST, RANDOM = 8, 8


class Case(NamedTuple):
    """A person: JPEG of both skeletons, and words about who it is and how far off."""

    jpeg: bytes
    caption: str


def choose(found: Found, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the people with the largest errors, and of others drawn at random."""
    worst = scores.worst(found, WORST)
    others = np.setdiff1d(np.flatnonzero((np.asarray(found.visible_nk) > 0).any(1)), worst)
    drawn = np.random.default_rng(seed).permutation(others)[:RANDOM]
    return worst, drawn


def draw_all(rows, found: Found, chosen, skeleton) -> list[Case]:
    """Draw people of a split, left the labelled joints and right the predicted ones.

    chosen: indices of `found`. Faces of all people of the picture are covered before anything is
    cut out of it. Left, rings are occluded joints; right, only labelled joints are shown, however
    unsure, and rings are those whose score is below draw.TRUSTED_SCORE. Whose picture cannot be
    read is left out.
    """
    numbers = {who["person_id"]: i for i, who in enumerate(packed.people(rows)) if who}
    cases = []
    for i in chosen:
        masked = training_views.mask_row(rows, numbers[found.people[i]["person_id"]])
        if masked is not None:
            picture = images.decode_reduced(masked["image"], 1)
            cells = _cells(picture, found, i, skeleton)
            cases.append(Case(draw.encode_jpeg(cells, 85), _caption(found, i)))
    return cases


def _cells(picture, found, i, skeleton):
    center, scale = crops.center_scale(found.box_n4[i], CELL_WH[0] / CELL_WH[1], PADDING)
    matrix = affine.udp_matrix(center, scale, 0.0, CELL_WH)
    crop = images.warp_affine(picture, matrix, CELL_WH)
    visible = np.asarray(found.visible_nk[i])
    labelled = (visible > 0).astype(float)
    unsure = np.asarray(found.scores_nk[i]) < draw.TRUSTED_SCORE
    canvas = np.full((CELL_WH[1], 2 * CELL_WH[0] + GAP, 3), PAPER_RGB, np.uint8)
    sides = ((found.truth_nk2[i], visible == 1), (found.points_nk2[i], unsure))
    for left, (points, hollow) in zip((0, CELL_WH[0] + GAP), sides, strict=True):
        cell = crop.copy()
        points = affine.transform_points(matrix, np.asarray(points, np.float64))
        box = (0, 0, *CELL_WH)
        draw.draw_skeleton(cell, box, points, labelled, skeleton, set(np.flatnonzero(hollow)))
        canvas[:, left : left + CELL_WH[0]] = cell
    return canvas


def _caption(found, i):
    labelled = np.asarray(found.visible_nk[i]) > 0
    away = np.linalg.norm(found.points_nk2[i] - found.truth_nk2[i], axis=-1)[labelled]
    side = max(found.box_n4[i][2:])
    who = found.people[i]
    words = [who.get("posture") or "posture not known", who.get("grasp") or ""]
    named = ", ".join(word.replace("_", " ") for word in words if word and word != "none")
    error = f"mean error {100 * away.mean() / side:.1f} % of the box, {labelled.sum()} joints"
    return f"{named}: {error}. Person {who['person_id']}"
