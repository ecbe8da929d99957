"""Coordinates with gradient: the table of notes method 2.4, and gradients by the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.geometry import centroids, heatmaps

SIZE = (96, 128)
local_centroid = jax.jit(centroids.local_centroid, static_argnums=(1, 2))
soft_argmax = jax.jit(centroids.soft_argmax, static_argnums=(1, 2))


def bell(map_wh, sigma, at_k2, noise=0.0, seed=0):
    """Gaussians of peak 1 at points of the map, (1, h, w, K), not through `heatmaps.encode`."""
    y, x = np.mgrid[: map_wh[1], : map_wh[0]][..., None].astype(float)
    maps = np.exp(-((x - at_k2[:, 0]) ** 2 + (y - at_k2[:, 1]) ** 2) / (2 * sigma**2))
    maps += noise * np.random.default_rng(seed).normal(size=maps.shape)
    return maps[None].astype(np.float32)


def slow_centroid(map_hw, sigma):
    """float64, in map px: the centroid and its gradient by every pixel, in closed form."""
    maps = map_hw.astype(float)
    row, column = np.unravel_index(maps.argmax(), maps.shape)
    y, x = np.mgrid[: maps.shape[0], : maps.shape[1]]
    near = (abs(x - column) <= 3 * sigma) & (abs(y - row) <= 3 * sigma)
    weights = np.where(near, np.maximum(maps - 0.05 * maps.max(), 0), 0)
    point = np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()
    offsets = np.stack([x - point[0], y - point[1]]) * (weights > 0)
    return point, offsets / weights.sum()


@pytest.mark.parametrize(("map_wh", "sigma"), [((48, 64), 2), ((192, 256), 6)])
def test_the_table_of_decoders_in_its_order(map_wh, sigma):
    rng = np.random.default_rng(1)
    at = np.array(map_wh) * [1 / 8, 1 / 2] + rng.uniform(-0.5, 0.5, (12, 2))
    at[:, 0] = np.maximum(at[:, 0], 3 * sigma + 1)  # the whole window lies within the map
    maps = bell(map_wh, sigma, at, noise=0.01)

    def error(decode, *args):
        points, _ = decode(maps, map_wh, *args)  # a crop as large as the map: px of the map
        return np.linalg.norm(points[0] - at, axis=-1).mean()

    unit, soft = (error(soft_argmax, b) for b in (1.0, 10.0))
    scaled, local = error(soft_argmax), error(local_centroid, sigma)
    assert unit > 0.3 * map_wh[0]
    assert unit > 5 * soft > 5 * scaled > scaled > local
    assert local < 0.1


def test_px_of_the_crop_as_the_encoder_has_them():
    rng = np.random.default_rng(2)
    points = rng.uniform(30, 66, (2, 9, 2)).astype(np.float32)
    maps, _ = heatmaps.encode(points, np.ones((2, 9)), SIZE, (24, 32), 2)
    found, peaks = local_centroid(maps, SIZE, 2)
    np.testing.assert_allclose(found, points, atol=0.1)
    assert peaks.shape == (2, 9) and (peaks > 0.9).all() and (peaks <= 1).all()
    assert found.dtype == peaks.dtype == jnp.float32


def test_value_and_gradient_by_the_closed_form():
    at = np.array([[9.3, 12.6], [1.2, 30.4], [15.0, 2.0]])
    maps = bell((24, 32), 2, at, noise=0.02)
    size = (24, 32)
    found, _ = local_centroid(maps, size, 2)
    by_maps = jax.jit(jax.jacrev(lambda m: local_centroid(m, size, 2)[0][0]))(maps)
    for k in range(3):
        point, gradient_2hw = slow_centroid(maps[0, ..., k], 2)
        np.testing.assert_allclose(found[0, k], point, atol=1e-5)
        for axis in (0, 1):
            got = np.asarray(by_maps)[k, axis, 0]
            np.testing.assert_allclose(got[..., k], gradient_2hw[axis], atol=1e-6)
            # Of another joint's map, and outside the window, exactly nothing.
            assert not np.delete(got, k, -1).any()
            assert not got[..., k][gradient_2hw[axis] == 0].any()


def test_gradient_by_finite_differences():
    maps = bell((24, 32), 2, np.array([[9.3, 12.6]]), noise=0.02)
    step = np.random.default_rng(3).normal(size=maps.shape).astype(np.float32) * (maps > 0.1)

    def x_plus_2y(maps):
        points = local_centroid(maps, SIZE, 2)[0]
        return (points * jnp.array([[[1.0, 2.0]]])).sum()

    by_grad = float((jax.grad(x_plus_2y)(jnp.asarray(maps)) * step).sum())
    by_steps = float(x_plus_2y(maps + 1e-2 * step) - x_plus_2y(maps - 1e-2 * step)) / 2e-2
    np.testing.assert_allclose(by_grad, by_steps, rtol=1e-2)


def test_far_false_peaks_change_nothing():
    maps = bell((24, 32), 2, np.array([[8.0, 10.0]]))
    crowded = maps + 0.9 * bell((24, 32), 2, np.array([[20.0, 28.0]]))
    gradient = jax.jit(jax.grad(lambda m: local_centroid(m, SIZE, 2)[0].sum()))
    assert np.abs(gradient(maps) - gradient(crowded)).max() < 1e-5
    near = [local_centroid(m, SIZE, 2)[0] for m in (maps, crowded)]
    np.testing.assert_allclose(*near, atol=1e-3)


@pytest.mark.parametrize("decode", [
    lambda m: local_centroid(m, SIZE, 2), lambda m: soft_argmax(m, SIZE),
])  # fmt: skip
def test_maps_without_a_peak_and_with_nan(decode):
    flat, below = np.zeros((24, 32)).T, np.full((32, 24), -1.0)
    below[20, 10] = -0.5
    broken, infinite = bell((24, 32), 2, np.full((2, 2), 12.0))[0].transpose(2, 0, 1)
    broken[3, 3], infinite[3, 3] = np.nan, np.inf
    good = bell((24, 32), 2, np.array([[12.0, 16.0]]))[0, ..., 0]
    maps = np.stack([flat, below, broken, infinite, good, flat + 0.5], -1)[None].astype(np.float32)
    points, peaks = decode(maps)
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(decode(m)[0] * 3.0)))(jnp.asarray(maps))
    assert np.isfinite(points).all() and np.isfinite(gradient).all()
    assert peaks[0].tolist() == [0, 0, 0, 0, 1, 0]
    assert not gradient[..., 2:4].any() and gradient[..., 4].any()


def test_a_map_without_a_peak_gives_its_pixel_and_no_gradient():
    maps = np.full((1, 32, 24, 2), -1.0, np.float32)
    maps[0, 20, 10, 0] = -0.5
    maps[..., 1] = 0.25
    points, _ = local_centroid(maps, (24, 32), 2)
    np.testing.assert_array_equal(points[0], [[10, 20], [0, 0]])
    gradient = jax.jit(jax.grad(lambda m: local_centroid(m, (24, 32), 2)[0].sum()))(maps)
    assert not gradient.any()


def test_peaks_carry_no_gradient():
    maps = bell((24, 32), 2, np.array([[12.0, 16.0]]))
    for decode in (lambda m: local_centroid(m, SIZE, 2)[1],
                   lambda m: soft_argmax(m, SIZE)[1]):  # fmt: skip
        assert not jax.jit(jax.grad(lambda m, f=decode: f(m).sum()))(maps).any()


def test_bf16_maps_are_read_in_fp32():
    maps = jnp.asarray(bell((192, 256), 6, np.array([[120.37, 201.8]])), jnp.bfloat16)
    for decode in (lambda m: local_centroid(m, (768, 1024), 6),
                   lambda m: soft_argmax(m, (768, 1024))):  # fmt: skip
        points, exact = decode(maps)[0], decode(maps.astype(jnp.float32))[0]
        np.testing.assert_array_equal(points, exact)
        assert points.dtype == jnp.float32
