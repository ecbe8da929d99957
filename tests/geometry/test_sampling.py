"""Bilinear reads and warps against an explicit formula, OpenCV and the recorded reference."""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.geometry import affine, sampling

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "codec" / "udp_codec.npz")
bilinear = jax.jit(sampling.bilinear)
warp = jax.jit(sampling.warp, static_argnums=2)


def slow_read(image_hwc, points_n2):
    """One point at a time, float64: every pixel weighs max(0, 1 - |dx|) max(0, 1 - |dy|)."""
    height, width, _ = image_hwc.shape
    out = []
    for x, y in points_n2:
        row = np.maximum(0, 1 - np.abs(np.arange(height) - y))
        column = np.maximum(0, 1 - np.abs(np.arange(width) - x))
        out.append(np.einsum("h,w,hwc->c", row, column, np.float64(image_hwc)))
    return np.array(out)


def golden_crop(turn):
    size = tuple(int(v) for v in GOLDEN["warp/out_size_wh"])
    center, scale = affine.box_to_center_scale(GOLDEN["warp/bbox_xyxy"], size[0] / size[1])
    return affine.udp_matrix(center, scale, turn, size), size


def test_reads_inside_on_and_beyond_the_border():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 7, 5, 3)).astype(np.float32)
    random = rng.uniform(-2.5, 9, (2, 300, 2))
    corners = [[0, 0], [4, 6], [-0.5, 3], [4.5, 3], [2, -0.25], [2, 6.75], [-1, 3], [5, 3], [2, 7]]
    points = np.concatenate([random, np.tile(corners, (2, 1, 1))], 1).astype(np.float32)
    got = bilinear(images, points)
    assert got.dtype == jnp.float32
    for b in range(2):
        np.testing.assert_allclose(got[b], slow_read(images[b], points[b]), atol=2e-4)


def test_far_and_undefined_points_read_zero_without_gradient():
    image = jnp.ones((1, 7, 5, 1))
    far = jnp.array([[[1e30, 2], [2, -1e30], [jnp.nan, 2], [2, jnp.inf], [-jnp.inf, jnp.nan]]])
    value, pull = jax.vjp(sampling.bilinear, image, far)
    gradients = pull(jnp.ones_like(value))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(gradients[0], 0)
    np.testing.assert_array_equal(gradients[1], 0)


def test_gradients_against_finite_differences():
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (6, 8, 2))
    # Away from pixel centres, where the derivative jumps; some between the border and zero.
    points = rng.integers(-1, [8, 6], (40, 2)) + rng.uniform(0.1, 0.9, (40, 2))
    pull = rng.standard_normal((40, 2))

    def loss(image, points):
        return (sampling.bilinear(image[None], points[None])[0] * jnp.float32(pull)).sum()

    d_image, d_points = jax.grad(loss, (0, 1))(jnp.float32(image), jnp.float32(points))
    step = 1e-4
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        change = slow_read(image, points + shift) - slow_read(image, points - shift)
        want = (change / (2 * step) * pull).sum(-1)
        np.testing.assert_allclose(d_points[:, axis], want, atol=1e-5)
    for y, x in [(0, 0), (5, 7), (3, 4)]:
        unit = np.zeros_like(image)
        unit[y, x, 0] = 1
        np.testing.assert_allclose(
            d_image[y, x, 0], (slow_read(unit, points) * pull).sum(), atol=1e-5
        )


@pytest.mark.parametrize("name", ["warp_norot", "warp_rot"])
def test_warp_golden(name):
    matrix, size = golden_crop(GOLDEN["warp/rot_deg"] if name == "warp_rot" else 0.0)
    image, want = GOLDEN["warp/image_bgr_u8"], GOLDEN[f"{name}/warped_bgr_u8"]
    got = np.asarray(warp(image[None], matrix[None], size)[0])
    difference = np.abs(got - want)
    assert got.shape == want.shape
    assert difference.max() <= 6 and difference.mean() <= 0.5
    # As far from the recorded picture as exact bilinear is.
    stated = GOLDEN[f"{name}/max_abs_diff_to_exact_bilinear"]
    np.testing.assert_allclose(difference.max(), stated, atol=0.1)


def test_warp_is_the_exact_formula_and_opencv_s():
    matrix, (width, height) = golden_crop(-27.5)
    image = GOLDEN["warp/image_bgr_u8"]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    exact = slow_read(image, affine.transform_points(affine.invert(matrix), grid))
    got = np.asarray(warp(image[None], matrix[None], (width, height))[0])
    # fp32 coordinates of 100 px times grey steps of up to 255 per px.
    np.testing.assert_allclose(got, exact.reshape(height, width, 3), atol=1e-2)
    peer = cv2.warpAffine(np.float32(image), matrix, (width, height), flags=cv2.INTER_LINEAR)
    # OpenCV 4 snaps coordinates to 1/32 px.
    tolerance = 1e-2 if int(cv2.__version__.split(".")[0]) >= 5 else 6
    np.testing.assert_allclose(got, peer, atol=tolerance)


def test_warp_of_a_batch_traces_once():
    image = jnp.asarray(GOLDEN["warp/image_bgr_u8"])[None].repeat(2, 0)
    traces = []

    @jax.jit
    def crop(image, matrix):
        traces.append(1)
        return sampling.warp(image, matrix, (96, 128))

    with jax.numpy_rank_promotion("raise"):
        for turn in (10.0, 20.0):
            matrix = np.stack([golden_crop(turn)[0], golden_crop(0.0)[0]])
            got = crop(image, jnp.asarray(matrix, jnp.float32))
            for b in range(2):
                alone = warp(image[b : b + 1], matrix[b : b + 1], (96, 128))
                np.testing.assert_allclose(got[b], alone[0], atol=1e-2)
    assert len(traces) == 1
