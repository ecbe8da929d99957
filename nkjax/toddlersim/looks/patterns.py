"""Patterns of paints: how much of a paint's second and third colour shows at a point.

A pattern sees points in repeats of itself (own metres over pitch), (2, n) on flat faces and (3, n)
through round solids, and the width of a pixel there in the same unit, over which it blurs its
edges. Noise comes from integer hashes of lattice cells: no tables, no state.
"""

import numpy as np

PATTERNS = (
    "plain", "stripes", "checks", "dots", "planks", "tiles", "speckle", "strands", "print",
)  # fmt: skip
# Odd constants of Teschner et al. 2003 and MurmurHash2.
AXES = (0x8DA6B343, 0xD8163841, 0xCB1AB31F)
ONE = np.uint32(0x5BD1E995)
LONG = 7.0  # a plank's length in widths of it
SEAM = 0.03  # half the width of a gap between planks or tiles, in repeats


def weights(pattern: int, x_dn, width_n):
    """Return the shares (n,) in [0, 1] of the second and third colour; None for no third.

    pattern: index into PATTERNS; the third colour lies over the other two.
    """
    return DRAWN[PATTERNS[pattern]](x_dn, width_n)


def noise(x_dn) -> np.ndarray:
    """Return smooth value noise (n,) float32 in [0, 1], independent of lattice cell to cell."""
    cell = np.floor(x_dn)
    part = x_dn - cell
    part *= part * (3 - 2 * part)
    low = [c.astype(np.int32).view(np.uint32) * np.uint32(a)
           for c, a in zip(cell, AXES, strict=False)]  # fmt: skip
    corners = [np.uint32(0)]
    for axis, first in enumerate(low):
        corners = [c ^ side for c in corners for side in (first, first + np.uint32(AXES[axis]))]
    values = [_uniform(corner) for corner in corners]
    for share in part[::-1]:
        values = [a + (b - a) * share for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def cell_noise(cell_dn, salt=0) -> np.ndarray:
    """Return a number (n,) float32 in [0, 1) for each lattice cell (d, n)."""
    mixed = np.uint32(salt * 0x9E3779B9 & 0xFFFFFFFF)
    for axis, cell in zip(AXES, cell_dn, strict=False):
        mixed = mixed ^ (cell.astype(np.int32).view(np.uint32) * np.uint32(axis))
    return _uniform(mixed)


def _uniform(mixed):
    mixed = mixed ^ (mixed >> np.uint32(15))
    mixed *= ONE
    mixed ^= mixed >> np.uint32(13)
    mixed *= ONE
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _edge(distance, width):
    """Turn a signed distance into a share, blurred over the width of a pixel, even where wide."""
    blur = width + 2 * width**3 + np.float32(1e-4)
    return np.clip(distance / blur + np.float32(0.5), 0, 1)


def _fade(share, width, mean):
    """Let a pattern sink into its mean as its repeats get as small as pixels."""
    return mean + (share - mean) * np.clip(np.float32(1.6) - 2 * width, 0, 1)


def _stripe(x, width):
    """Return 1 in the second half of each repeat, 0 in the first."""
    x = x - np.float32(0.25)
    return _edge(np.float32(0.25) - np.abs(x - np.floor(x) - np.float32(0.5)), width)


def _stripes(x, width):
    return _stripe(x[0], width), None


def _checks(x, width):
    share = 2 * _stripe(x[0], width) - 1
    for axis in x[1:]:
        share *= 2 * _stripe(axis, width) - 1
    return np.float32(0.5) + share / 2, None


def _dots(x, width):
    part = x - np.floor(x) - np.float32(0.5)
    radius = np.sqrt((part * part).sum(0))
    mean = np.float32(0.28 if len(x) == 2 else 0.11)  # of a disc, of a ball
    return _fade(_edge(np.float32(0.3) - radius, width), width, mean), None


def _planks(x, width):
    row = np.floor(x[1])
    along = x[0] / np.float32(LONG) + cell_noise(row[None])
    board = np.floor(along)
    tint = cell_noise(np.stack([row, board]))
    gap = np.minimum(_from_line(x[1]), _from_line(along) * np.float32(LONG))
    seam = _edge(np.float32(SEAM) - gap, width)
    return tint, _fade(seam, width, np.float32(2 * SEAM))


def _tiles(x, width):
    tint = cell_noise(np.floor(x))
    gap = np.minimum.reduce([_from_line(axis) for axis in x])
    return tint, _fade(_edge(np.float32(SEAM) - gap, width), width, np.float32(4 * SEAM))


def _speckle(x, width):
    return _fade(noise(x), width, np.float32(0.5)), None


def _strands(x, width):
    """Fine lines along the first coordinate, with lighter and darker locks."""
    stretched = x.copy()
    stretched[0] /= 8
    stretched[0] += np.float32(0.3) * np.sin(x[1] * np.float32(0.7))
    fine = _fade(noise(stretched), width, np.float32(0.5))
    return np.clip(fine * np.float32(1.6) - np.float32(0.3), 0, 1), None


def _print(x, width):
    """Discs, rings, crosses and squares scattered one to a cell, in the second or third colour."""
    cell = np.floor(x)
    part = x - cell - np.float32(0.5)
    part[0] += (cell_noise(cell, 1) - np.float32(0.5)) * np.float32(0.25)
    part[1] += (cell_noise(cell, 2) - np.float32(0.5)) * np.float32(0.25)
    motif = cell_noise(cell, 3)
    size = np.float32(0.24) + np.float32(0.12) * cell_noise(cell, 4)
    radius = np.sqrt((part * part).sum(0))
    flat = np.abs(part[:2])
    wide, narrow = np.maximum(flat[0], flat[1]), np.minimum(flat[0], flat[1])
    inside = np.select(
        [motif < 0.3, motif < 0.55, motif < 0.75],
        [size - radius, np.float32(0.07) - np.abs(radius - size * np.float32(0.8)),
         np.minimum(size - wide, np.float32(0.08) - narrow)],
        size * np.float32(0.8) - wide,
    )  # fmt: skip
    share = _fade(_edge(inside, width), width, np.float32(0.2 if len(x) == 2 else 0.14))
    other = cell_noise(cell, 5) < 0.5
    return np.where(other, share, 0), np.where(other, 0, share)


def _from_line(x):
    """Return the distance to the nearest integer."""
    return np.abs(x - np.rint(x))


DRAWN = {
    "plain": lambda x, width: (np.zeros_like(x[0]), None),
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "planks": _planks,
    "tiles": _tiles,
    "speckle": _speckle,
    "strands": _strands,
    "print": _print,
}
