"""Read pictures and maps at fractional positions, on the device and differentiably.

Pixel centres lie at integers. Outside the picture everything is zero: from the last pixel centre
the value falls linearly to zero one pixel further out, as OpenCV's constant border does.
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange

from nkjax.geometry import affine


def bilinear(image_bhwc, points_bn2):
    """Sample images at points by bilinear interpolation.

    image_bhwc: any real dtype; points_bn2: (x, y) px of the image. Returns (B, N, C) fp32,
    differentiable in both. A point with a non-finite coordinate reads 0 and gets gradient 0.
    """
    image, points = jnp.asarray(image_bhwc), jnp.asarray(points_bn2, jnp.float32)
    batch = np.arange(image.shape[0])[:, None]
    finite = jnp.isfinite(points).all(-1)
    x_bn, y_bn = (
        # One pixel beyond the border all is zero already; the clip keeps far points inside the
        # range of integers.
        jnp.clip(jnp.where(finite, points[..., i], -1.0), -1.0, float(size))
        for i, size in enumerate((image.shape[2], image.shape[1]))
    )

    def tap(column, row):
        weight = (1 - jnp.abs(x_bn - column)) * (1 - jnp.abs(y_bn - row))
        column, row = column.astype(jnp.int32), row.astype(jnp.int32)
        inside = (column >= 0) & (column < image.shape[2]) & (row >= 0) & (row < image.shape[1])
        value = image.at[batch, row, column].get(mode="clip").astype(jnp.float32)
        return jnp.where(inside, weight, 0.0)[..., None] * value

    left, top = jnp.floor(x_bn), jnp.floor(y_bn)
    return tap(left, top) + tap(left + 1, top) + tap(left, top + 1) + tap(left + 1, top + 1)


def warp(image_bhwc, matrix_b23, size_wh):
    """Warp images by affine matrices, bilinear, zero outside.

    image_bhwc: (B, H, W, C); matrix_b23: picture px -> output px, the inverse is applied; size_wh:
    static output size. Returns (B, h, w, C) fp32, not rounded, differentiable in both arguments.
    """
    width, height = size_wh
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    grid_1n2 = rearrange(grid.astype(np.float32), "h w xy -> 1 (h w) xy")
    points_bn2 = affine.transform_points(affine.invert(jnp.asarray(matrix_b23)), grid_1n2)
    return rearrange(bilinear(image_bhwc, points_bn2), "b (h w) c -> b h w c", h=height)
