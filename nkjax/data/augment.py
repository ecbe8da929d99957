"""Geometric augmentation: what moves, turns, scales and mirrors a crop, drawn per sample.

A draw depends on the generator it is given alone; streams make one from (seed, index). Nothing here
touches pixels: a draw becomes one affine matrix, and the picture is warped once.
"""

import dataclasses
from statistics import NormalDist

import numpy as np

from nkjax.geometry import affine
from nkjax.skeleton import Skeleton

HALF_BODY_PADDING = 1.5
FEWEST_FOR_HALF_BODY, FEWEST_UPPER, FEWEST_LOWER, PREFER_UPPER = 9, 2, 3, 0.7
NORMAL = NormalDist()
LOWEST = NORMAL.cdf(-1)
UPPER, LOWER = ("head", "arms", "left_hand", "right_hand"), ("legs", "feet")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How far a view may move, and how often it does.

    flip, half_body: probabilities; shift: of the centre, in sizes of the box, and its probability;
    scale: lowest and highest factor on the size of the crop; rotation: largest, degrees, and its
    probability. All but the coins are standard normals cut at +-1, the bounds.
    """

    flip: float = 0.0
    half_body: float = 0.0
    shift: float = 0.0
    shift_p: float = 1.0
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    rotation_p: float = 1.0


PLAIN = Recipe()
# notes sapiens A8.
SAPIENS = Recipe(
    flip=0.5, half_body=0.3, shift=0.16, shift_p=0.3,
    scale=(0.5, 1.5), rotation=80.0, rotation_p=0.6,
)  # fmt: skip
# notes method 4.4.
WEAK = Recipe(flip=0.5, scale=(0.95, 1.05), rotation=10.0)
STRONG = Recipe(flip=0.5, shift=0.05, scale=(0.75, 1.25), rotation=30.0)
# notes method 5. Right hands arrive mirrored, so that there is one hand to learn: no flip.
HAND = Recipe(shift=0.16, scale=(0.75, 1.25), rotation=90.0)
# notes sapiens A8. Labels of normals would have to turn with the picture: no rotation.
DENSE = Recipe(flip=0.5, scale=(0.75, 1.25))


@dataclasses.dataclass(frozen=True)
class Draw:
    """One draw from a recipe: numbers relative to the crop, so that it fits any box."""

    flip: bool
    half_body: str  # '', 'upper' or 'lower': what is preferred, where the joints allow it
    shift: tuple[float, float]
    scale: float
    rotation_deg: float


def draw(rng: np.random.Generator, recipe: Recipe) -> Draw:
    """Draw from a recipe; the same generator state gives the same draw."""
    # Always the same number of draws in the same order: a change of one probability leaves the
    # other numbers as they are.
    coin = rng.random(5)
    normal = _truncated_normal(rng.random(4))
    low, high = recipe.scale
    preferred = "upper" if coin[2] < PREFER_UPPER else "lower"
    shifted = coin[3] < recipe.shift_p
    return Draw(
        flip=bool(coin[0] < recipe.flip),
        half_body=preferred if coin[1] < recipe.half_body else "",
        shift=tuple(n * recipe.shift if shifted else 0.0 for n in normal[:2]),
        scale=(low + high) / 2 + normal[2] * (high - low) / 2,
        rotation_deg=normal[3] * recipe.rotation if coin[4] < recipe.rotation_p else 0.0,
    )


def mirror_draw(drawn: Draw) -> Draw:
    """Return the draw that does to a mirrored picture what `drawn` does to the picture."""
    x, y = drawn.shift
    return dataclasses.replace(drawn, shift=(-x, y), rotation_deg=-drawn.rotation_deg)


def half_body_box(keypoints_k3, skeleton: Skeleton, preferred: str):
    """Return the box (x, y, w, h) of the upper or lower half of a body, None where joints are few.

    keypoints_k3: picture px. With fewer than nine labelled joints, or a half of fewer than two
    (upper) or three (lower), that half is not taken; the other one is where it has enough. Source:
    notes sapiens A8 (mmpose's RandomHalfBody; the middle of the box replaces the mean of the
    joints, which dense faces would draw to themselves).
    """
    keypoints = np.asarray(keypoints_k3)
    labelled = keypoints[:, 2] > 0
    if labelled.sum() < FEWEST_FOR_HALF_BODY:
        return None
    halves = {}
    for half, groups, fewest in (("upper", UPPER, FEWEST_UPPER), ("lower", LOWER, FEWEST_LOWER)):
        joints = [i for group in groups for i in skeleton.groups[group] if labelled[i]]
        if len(joints) >= fewest:
            halves[half] = keypoints[joints, :2]
    points = halves.get(preferred, next(iter(halves.values()), None))
    if points is None:
        return None
    low, high = points.min(0), points.max(0)
    size = high - low
    return (*low.tolist(), *size.tolist()) if size.min() >= 1 else None


def view_matrix(center, scale, extent, size_wh, drawn: Draw):
    """Return the matrix (2, 3) float64 from picture px to px of a view.

    center, scale: of the un-augmented crop, picture px, of the view's aspect; extent: width and
    height that shifts are relative to, picture px (the recipe: the padded box, before it is brought
    to the aspect); size_wh: of the view. A mirrored view is mirrored about its own middle.
    """
    moved = center[0] + drawn.shift[0] * extent[0], center[1] + drawn.shift[1] * extent[1]
    grown = scale[0] * drawn.scale, scale[1] * drawn.scale
    matrix = affine.udp_matrix(moved, grown, drawn.rotation_deg, size_wh)
    return mirror(matrix, size_wh[0]) if drawn.flip else matrix


def mirror(matrix, width):
    """Mirror the output of a matrix (2, 3) about the middle of its width: x -> width - 1 - x."""
    mirrored = np.array(matrix, np.float64)
    mirrored[0] *= -1
    mirrored[0, 2] += width - 1
    return mirrored


def _truncated_normal(uniform):
    """Turn uniform numbers into standard normals cut at +-1."""
    return [NORMAL.inv_cdf(LOWEST + float(u) * (1 - 2 * LOWEST)) for u in uniform]
