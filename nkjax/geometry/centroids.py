"""Coordinates with gradient: heatmaps (B, h, w, K) in, points (B, K, 2) of the crop out.

For losses on coordinates, whose gradient must reach the network through its heatmaps; scores and
predictions are read by `heatmaps.decode`. Points are (x, y) in px of the un-augmented crop, in the
convention of `heatmaps.encode`. All arithmetic is fp32, whatever the maps' dtype. Source: notes
method 2.4.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.geometry import heatmaps

# Weights start above this share of the peak, or noise and a cut window pull to the middle.
FLOOR = 0.05
# The ablation's sharpness for a peak of 1, and the lowest peak that it is raised for.
SHARPNESS, LOWEST_PEAK = 30.0, 0.1


def local_centroid(maps_bhwk, size_wh, sigma):
    """Return the centroid of every map near its peak, with gradient.

    maps_bhwk: raw network output, any float; size_wh: static size of the crop in px; sigma: of the
    Gaussians that the network was taught, map px. The window is the square of 3 sigma around the
    arg-max pixel (without gradient), the weights relu(h - FLOOR peak): unbiased where the window
    lies within the map, without temperature. Returns points_bk2 in crop px and peaks_bk, the raw
    maximum without gradient. The gradient by h_i is (x_i - x) / sum of weights, and 0 outside the
    window: it moves a peak, and neither jumps to another nor presses down a false one. Never NaN: a
    map without a peak (constant or nowhere positive) gives its arg-max pixel, peak 0 and no
    gradient; so does one that holds a NaN or inf, at pixel (0, 0). Source: notes method 2.4.
    """
    maps, has_peak_bk, x_bk, y_bk, top_bk = _peaks(maps_bhwk)
    window_bnmk, columns_bmk, rows_bnk = _window(maps, x_bk, y_bk, int(3 * sigma))
    weights = jax.nn.relu(window_bnmk - FLOOR * top_bk[:, None, None, :])
    # The arg-max pixel alone weighs more than 0 wherever there is a peak.
    total_bk = jnp.where(has_peak_bk, weights.sum((1, 2)), 1.0)
    # Offsets from the arg-max: sums of large coordinates would cost bits.
    off_x_bk = (weights.sum(1) * (columns_bmk - x_bk[:, None, :])).sum(1) / total_bk
    off_y_bk = (weights.sum(2) * (rows_bnk - y_bk[:, None, :])).sum(1) / total_bk
    off_bk2 = jnp.where(has_peak_bk[..., None], jnp.stack([off_x_bk, off_y_bk], -1), 0.0)
    points = jnp.stack([x_bk, y_bk], -1).astype(jnp.float32) + off_bk2
    return points * _stride(maps, size_wh)[None, None], jnp.where(has_peak_bk, top_bk, 0.0)


def soft_argmax(maps_bhwk, size_wh, sharpness=None):
    """Return the mean pixel under softmax(sharpness x map), the usual choice, for comparison.

    maps_bhwk and the return values as in `local_centroid`; sharpness: the inverse temperature, by
    default SHARPNESS / max(peak, LOWEST_PEAK) per map. The gradient reaches every pixel. With 1 the
    points of maps of peak 1 collapse to the middle of the crop. A map that holds a NaN or inf is
    read as all zero, without gradient. Source: notes method 2.4; integral regression (arXiv
    1711.08229).
    """
    maps, has_peak_bk, _, _, top_bk = _peaks(maps_bhwk)
    if sharpness is None:
        sharpness_bk = SHARPNESS / jnp.maximum(top_bk, LOWEST_PEAK)
    else:
        sharpness_bk = jnp.full(top_bk.shape, sharpness, jnp.float32)
    share_bhwk = jax.nn.softmax(maps * sharpness_bk[:, None, None, :], axis=(1, 2))
    columns, rows = (np.arange(n, dtype=np.float32)[None, :, None] for n in maps.shape[2:0:-1])
    x_bk, y_bk = (share_bhwk.sum(1) * columns).sum(1), (share_bhwk.sum(2) * rows).sum(1)
    points = jnp.stack([x_bk, y_bk], -1)
    return points * _stride(maps, size_wh)[None, None], jnp.where(has_peak_bk, top_bk, 0.0)


def _peaks(maps_bhwk):
    """Return the maps in fp32, finite, and without gradient: is there a peak, where, how high."""
    maps = jnp.asarray(maps_bhwk).astype(jnp.float32)
    finite_bk = jnp.isfinite(maps).all((1, 2))
    # Before all else, or the gradient of a NaN that is not used is NaN.
    maps = jnp.where(finite_bk[:, None, None, :], maps, 0.0)
    still = jax.lax.stop_gradient(maps)
    x_bk, y_bk, top_bk = heatmaps.argmax(still)
    return maps, (top_bk > 0) & (top_bk > still.min((1, 2))), x_bk, y_bk, top_bk


def _window(maps, x_bk, y_bk, reach):
    """Cut squares around (x, y), -inf beyond the map: (B, n, m, K), their columns and rows."""
    height, width = maps.shape[1:3]
    wide = np.arange(-reach, reach + 1)[None, :, None]
    columns_bmk, rows_bnk = x_bk[:, None, :] + wide, y_bk[:, None, :] + wide
    inside = ((rows_bnk >= 0) & (rows_bnk < height))[:, :, None, :] & (
        (columns_bmk >= 0) & (columns_bmk < width)
    )[:, None, :, :]
    batch = np.arange(maps.shape[0])[:, None, None, None]
    channel = np.arange(maps.shape[3])[None, None, None, :]
    window = maps[
        batch,
        jnp.clip(rows_bnk, 0, height - 1)[:, :, None, :],
        jnp.clip(columns_bmk, 0, width - 1)[:, None, :, :],
        channel,
    ]
    return jnp.where(inside, window, -jnp.inf), columns_bmk, rows_bnk


def _stride(maps, size_wh):
    height, width = maps.shape[1:3]
    return np.array([(size_wh[0] - 1) / (width - 1), (size_wh[1] - 1) / (height - 1)], np.float32)
