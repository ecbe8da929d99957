"""The UDP heatmap codec of Sapiens on the device: encode, decode with a sub-pixel step, flip test.

Maps are (B, h, w, K), points (B, K, 2) as (x, y) in px of the un-augmented crop, pixel centres at
integers. All arithmetic is fp32, whatever the maps' dtype. Source: UDP (arXiv 1911.07524), DARK
(arXiv 1910.06278), notes sapiens A5.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

HIGHEST = jax.lax.Precision.HIGHEST
# The reference clips the blurred maps to this range before the logarithm.
LOG_RANGE = (1e-3, 50.0)


def encode(points_bk2, visible_bk, size_wh, map_wh, sigma):
    """Draw one Gaussian per point, cut to a square window of 3 sigma.

    points_bk2: crop px; visible_bk: a point below 0.5 (or with a non-finite coordinate) is not
    drawn; size_wh, map_wh: static sizes of the crop and of the maps; sigma: map px. Returns
    maps_bhwk with peak 1 and weights_bk, 1 where the window touches the map and the point is
    visible, else 0 (the map is then all zero).
    """
    points = jnp.asarray(points_bk2, jnp.float32)
    drawn = jnp.asarray(visible_bk) >= 0.5
    axes = []
    for axis in (0, 1):
        stride = (size_wh[axis] - 1) / (map_wh[axis] - 1)
        mean = points[..., axis] / stride
        middle = jnp.trunc(mean + 0.5)
        # A comparison with NaN is false: an undefined point is neither drawn nor in its window.
        drawn &= (middle + 3 * sigma >= 0) & (middle - 3 * sigma <= map_wh[axis] - 1)
        pixels = np.arange(map_wh[axis], dtype=np.float32)[None, :, None]
        in_window = jnp.abs(pixels - middle[:, None, :]) <= 3 * sigma
        bell = jnp.exp(-((pixels - mean[:, None, :]) ** 2) / (2 * sigma**2))
        axes.append(jnp.where(in_window, bell, 0.0))
    columns_bwk, rows_bhk = axes
    weights_bk = drawn.astype(jnp.float32)
    rows_bhk = rows_bhk * weights_bk[:, None, :]
    return rows_bhk[:, :, None, :] * columns_bwk[:, None, :, :], weights_bk


def decode(maps_bhwk, size_wh, kernel=11):
    """Find the peak of every map to a fraction of a pixel.

    The arg-max, then one Newton step on the logarithm of the blurred map.

    maps_bhwk: raw network output; size_wh: static size of the crop; kernel: odd width of the
    Gaussian blur in map px. Returns points_bk2 in crop px and scores_bk (the raw maximum). As in
    the reference the points are too large by size / (size - 1); `affine.crop_to_picture` cancels
    it. Never NaN: a map without a peak (constant or nowhere positive) gives its arg-max pixel, no
    Newton step, and score 0; a map holding a NaN or inf counts as all zero, pixel (0, 0). Where
    only the step is undefined (singular Hessian) the point is the arg-max pixel with its score.
    """
    maps = jnp.asarray(maps_bhwk, jnp.float32)
    height, width = maps.shape[1:3]
    # A NaN stays in its own channel below; whether a maximum shows it depends on the platform.
    finite = jnp.isfinite(maps).all((1, 2))
    x_bk, y_bk, top_bk = argmax(maps)
    x_bk, y_bk = jnp.where(finite, x_bk, 0), jnp.where(finite, y_bk, 0)
    has_peak = finite & (top_bk > 0) & (top_bk > maps.min((1, 2)))

    blurred_top = _blur(maps, kernel).max((1, 2))
    # Only log differences enter the step, so the rescaling matters through the clip alone. Where no
    # blurred pixel is positive, all are clipped flat and the step is zero.
    keep_maximum = top_bk / jnp.where(blurred_top > 0, blurred_top, 1.0)
    around_bijk = _blur_around(maps, x_bk, y_bk, kernel) * keep_maximum[:, None, None, :]
    step_bk2 = _newton_step(jnp.log(jnp.clip(around_bijk, *LOG_RANGE)))
    steps = has_peak & jnp.isfinite(step_bk2).all(-1)

    points = jnp.stack([x_bk, y_bk], -1).astype(jnp.float32)
    points = points + jnp.where(steps[..., None], step_bk2, 0.0)
    # size, not size - 1: the reference's encoder and decoder differ here, and its mapping to the
    # picture relies on it.
    stride = np.array([size_wh[0] / (width - 1), size_wh[1] / (height - 1)], np.float32)
    return points * stride[None, None, :], jnp.where(has_peak, top_bk, 0.0)


def flip_average(maps_bhwk, maps_of_mirrored_bhwk, flip_indices):
    """Average maps with those of the mirrored crop.

    The latter are mirrored back, and their left and right joints swapped, without any shift.
    flip_indices: K integers, `Skeleton.flip_indices`. Raises ValueError when they are not a
    permutation of the K channels.
    """
    flip_indices = np.asarray(flip_indices)
    maps, mirrored = (jnp.asarray(m, jnp.float32) for m in (maps_bhwk, maps_of_mirrored_bhwk))
    channels = maps.shape[-1]
    if sorted(flip_indices.tolist()) != list(range(channels)):
        raise ValueError(f"flip_indices must name each of the {channels} map channels once")
    return 0.5 * (maps + mirrored[:, :, ::-1, :][..., flip_indices])


def blur_weights(offsets, kernel):
    """Weigh integer offsets by the normalised Gaussian of an odd kernel width, 0 beyond it."""
    # OpenCV's sigma where only the width is given.
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    reach = kernel // 2
    total = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).sum()
    weights = jnp.exp(-(offsets.astype(jnp.float32) ** 2) / (2 * sigma**2)) / float(total)
    return jnp.where(jnp.abs(offsets) <= reach, weights, 0.0)


def argmax(maps_bhwk):
    """Return column, row and value (B, K) of the first maximum in reading order, map px."""
    maps = maps_bhwk
    # By rows: on a CPU a flat arg-max takes many times as long as a maximum.
    row_tops_bhk = maps.max(2)
    y_bk = row_tops_bhk.argmax(1)
    rows_bwk = jnp.take_along_axis(maps, y_bk[:, None, None, :], 1)[:, 0]
    return rows_bwk.argmax(1), y_bk, row_tops_bhk.max(1)


def _blur(maps, kernel):
    """Blur whole maps, zero outside."""
    # As banded matrices: 5 to 8 times faster on a CPU than shifted sums or a depthwise convolution.
    rows_hh, columns_ww = (
        blur_weights(np.subtract.outer(np.arange(n), np.arange(n)), kernel) for n in maps.shape[1:3]
    )
    maps = jnp.einsum("yh,bhwk->bywk", rows_hh, maps, precision=HIGHEST)
    return jnp.einsum("xw,bywk->byxk", columns_ww, maps, precision=HIGHEST)


def _blur_around(maps, x_bk, y_bk, kernel):
    """Blurred maps at the 3 x 3 pixels around (x, y), edges repeated: (B, 3, 3, K)."""
    height, width = maps.shape[1:3]
    reach = kernel // 2 + 1
    near = np.arange(-1, 2)[None, :, None]
    wide = np.arange(-reach, reach + 1)[None, :, None]

    def along(at_bk, size):
        taken = at_bk[:, None, :] + wide
        wanted = jnp.clip(at_bk[:, None, :] + near, 0, size - 1)
        weights = blur_weights(taken[:, None, :, :] - wanted[:, :, None, :], kernel)
        inside = (taken >= 0) & (taken < size)
        return jnp.clip(taken, 0, size - 1), weights * inside[:, None, :, :]

    rows_bnk, row_weights = along(y_bk, height)
    columns_bmk, column_weights = along(x_bk, width)
    batch = np.arange(maps.shape[0])[:, None, None, None]
    channel = np.arange(maps.shape[3])[None, None, None, :]
    window_bnmk = maps[batch, rows_bnk[:, :, None, :], columns_bmk[:, None, :, :], channel]
    half = jnp.einsum("bink,bnmk->bimk", row_weights, window_bnmk, precision=HIGHEST)
    return jnp.einsum("bjmk,bimk->bijk", column_weights, half, precision=HIGHEST)


def _newton_step(log_bijk):
    """Newton step (B, K, 2) to the maximum of the log map from its 3 x 3 pixels."""
    n = rearrange(log_bijk, "b i j k -> i j b k")
    dx, dy = (n[1, 2] - n[1, 0]) / 2, (n[2, 1] - n[0, 1]) / 2
    eps = float(np.finfo(np.float32).eps)
    dxx = n[1, 2] - 2 * n[1, 1] + n[1, 0] + eps
    dyy = n[2, 1] - 2 * n[1, 1] + n[0, 1] + eps
    # The mixed derivative from the neighbours on one diagonal only, as the reference takes it.
    dxy = (n[2, 2] - n[1, 2] - n[2, 1] + 2 * n[1, 1] - n[1, 0] - n[0, 1] + n[0, 0]) / 2
    det = dxx * dyy - dxy * dxy
    return -jnp.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / det[..., None]
