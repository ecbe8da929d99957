"""Boxes, UDP crop matrices and points: one set of functions for numpy and for JAX.

If any argument is a jax array the result is a jax fp32 array, and the function may stand under
`jit`, `vmap` and `grad`; otherwise the result is numpy float64. Everything is plain multiply-adds,
so no accelerator can lower the precision. Pixel centres lie at integers: a picture of width w spans
0 ... w - 1. Leading axes are batch axes.
"""

import jax
import jax.numpy as jnp
import numpy as np


def box_to_center_scale(box_xyxy, aspect, padding=1.25):
    """Turn boxes into the centre and the size of the crop around them.

    The box is enlarged by `padding`, then its short side until width / height equals `aspect`
    (Sapiens: 3/4).

    box_xyxy: (..., 4) picture px, x2 and y2 not below x1 and y1. Returns center (..., 2) and scale
    (..., 2) = width and height, picture px. Raises ValueError for a box with a non-finite number or
    without extent (numpy input only: values of jax arrays cannot be looked at). Source: notes
    sapiens A4.
    """
    xp, box = _arrays(box_xyxy)
    x1, y1, x2, y2 = (box[..., i] for i in range(4))
    if xp is np:
        extent_is_good = (x2 >= x1) & (y2 >= y1) & ((x2 > x1) | (y2 > y1))
        if not (np.isfinite(box).all() and extent_is_good.all()):
            raise ValueError(
                "box without extent: want finite x1 <= x2, y1 <= y2 and not both equal"
            )
    width, height = (x2 - x1) * padding, (y2 - y1) * padding
    center = xp.stack([(x1 + x2) / 2, (y1 + y2) / 2], -1)
    scale = xp.stack([xp.maximum(width, height * aspect), xp.maximum(height, width / aspect)], -1)
    return center, scale


def udp_matrix(center, scale, rotation_deg, size_wh):
    """Make the affine matrix that takes picture px to crop px.

    The outer pixel centres of the crop lie on the edges of the box: size - 1, as UDP has it.
    center, scale: (..., 2) picture px; rotation_deg: (...) or a number, positive turns the content
    clockwise on the screen; size_wh: width and height of the crop in px. Returns (..., 2, 3).
    Source: UDP (arXiv 1911.07524), notes sapiens A4.
    """
    xp, center, scale, rotation = _arrays(center, scale, rotation_deg)
    cos, sin = xp.cos(xp.deg2rad(rotation)), xp.sin(xp.deg2rad(rotation))
    cx, cy, width, height = center[..., 0], center[..., 1], scale[..., 0], scale[..., 1]
    zoom_x, zoom_y = (size_wh[0] - 1) / width, (size_wh[1] - 1) / height
    return _matrix(
        xp,
        (zoom_x * cos, -zoom_x * sin, zoom_x * (width / 2 - cos * cx + sin * cy)),
        (zoom_y * sin, zoom_y * cos, zoom_y * (height / 2 - sin * cx - cos * cy)),
    )


def invert(matrix):
    """Invert affine matrices (..., 2, 3); a singular one gives inf or nan."""
    xp, matrix = _arrays(matrix)
    (a, b, tx), (c, d, ty) = _entries(matrix)
    det = a * d - b * c
    return _matrix(
        xp,
        (d / det, -b / det, (b * ty - d * tx) / det),
        (-c / det, a / det, (c * tx - a * ty) / det),
    )


def compose(second, first):
    """Multiply affine matrices (..., 2, 3): the result applies `first`, then `second`."""
    xp, second, first = _arrays(second, first)
    (a, b, tx), (c, d, ty) = _entries(second)
    (e, f, ux), (g, h, uy) = _entries(first)
    return _matrix(
        xp,
        (a * e + b * g, a * f + b * h, a * ux + b * uy + tx),
        (c * e + d * g, c * f + d * h, c * ux + d * uy + ty),
    )


def transform_points(matrix, points):
    """Apply affine matrices (..., 2, 3) to points (..., N, 2), giving (..., N, 2)."""
    xp, matrix, points = _arrays(matrix, points)
    (a, b, tx), (c, d, ty) = _entries(matrix[..., None, :, :])
    x, y = points[..., 0], points[..., 1]
    return xp.stack([a * x + b * y + tx, c * x + d * y + ty], -1)


def crop_to_picture(points, center, scale, size_wh):
    """Map *decoded* crop points of an unrotated crop to the picture.

    Divides by the crop's size, not by size - 1 as `udp_matrix` would: `heatmaps.decode` returns
    points too large by size / (size - 1), and this cancels it. Use
    `transform_points(invert(udp_matrix(...)), ...)` for true crop px.

    points: (..., N, 2) crop px from `heatmaps.decode`; center, scale: (..., 2) picture px; size_wh:
    of the crop in px. Returns (..., N, 2) picture px. Source: notes sapiens A5, golden `toimage`.
    """
    xp, points, center, scale = _arrays(points, center, scale)
    corner = center - scale / 2
    return xp.stack(
        [points[..., i] / size_wh[i] * scale[..., None, i] + corner[..., None, i] for i in (0, 1)],
        -1,
    )


def _arrays(*values):
    if any(isinstance(value, jax.Array) for value in values):
        return jnp, *(jnp.asarray(value, jnp.float32) for value in values)
    return np, *(np.asarray(value, np.float64) for value in values)


def _entries(matrix):
    return [[matrix[..., row, column] for column in range(3)] for row in range(2)]


def _matrix(xp, row_x, row_y):
    if xp is np and not any(np.ndim(entry) for entry in (*row_x, *row_y)):
        return np.array([row_x, row_y])  # five times faster, and loaders do one at a time
    return xp.stack([xp.stack(row_x, -1), xp.stack(row_y, -1)], -2)
