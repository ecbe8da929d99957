"""The UDP codec against the recorded reference and a slow float64 codec written from the notes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.geometry import affine, heatmaps

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "codec" / "udp_codec.npz")
SIZE, MAP = (96, 128), (24, 32)
encode = jax.jit(heatmaps.encode, static_argnums=(2, 3, 4))
decode = jax.jit(heatmaps.decode, static_argnums=(1, 2))


def sizes(name):
    keys = ("input_size_wh", "heatmap_size_wh")
    return [tuple(int(v) for v in GOLDEN[f"{name}/{key}"]) for key in keys]


def golden_maps(name):
    """(K, h, w) as recorded -> (1, h, w, K)."""
    return np.moveaxis(GOLDEN[f"{name}/heatmaps"], 0, -1)[None]


def slow_blur(maps_khw, kernel=11):
    """2-D sums over an explicit window, zero outside; the golden 1-D weights."""
    weights = GOLDEN[f"blur_kernel_1d_k{kernel}"]
    reach = kernel // 2
    _, height, width = maps_khw.shape
    padded = np.pad(np.float64(maps_khw), ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros(maps_khw.shape)
    for i, j in np.ndindex(kernel, kernel):
        out += weights[i] * weights[j] * padded[:, i : i + height, j : j + width]
    return out


def slow_decode(maps_khw, size_wh, kernel=11):
    """float64; returns (K, 2) and (K,). For maps with a positive maximum."""
    _, height, width = maps_khw.shape
    points = []
    for raw, blurred in zip(maps_khw, slow_blur(maps_khw, kernel), strict=True):
        y, x = np.unravel_index(raw.argmax(), raw.shape)
        log = np.log(np.clip(blurred * raw.max() / blurred.max(), 1e-3, 50))
        p = np.pad(log, 1, mode="edge")[y : y + 3, x : x + 3]
        slope = [(p[1, 2] - p[1, 0]) / 2, (p[2, 1] - p[0, 1]) / 2]
        dxx, dyy = p[1, 2] - 2 * p[1, 1] + p[1, 0], p[2, 1] - 2 * p[1, 1] + p[0, 1]
        dxy = 0.5 * (p[2, 2] - p[1, 2] - p[2, 1] + 2 * p[1, 1] - p[1, 0] - p[0, 1] + p[0, 0])
        hessian = np.array([[dxx, dxy], [dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
        points.append(np.array([x, y]) - np.linalg.solve(hessian, slope))
    return points * (np.array(size_wh) / (width - 1, height - 1)), maps_khw.max((1, 2))


def blobs(seed, count=60, peak=(0.05, 1.2), noise=0.01):
    """Noisy Gaussians of sigma 2 near anywhere in the map, as (1, h, w, K)."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(1, np.array(MAP) - 2, (count, 2))
    y, x = np.mgrid[: MAP[1], : MAP[0]]
    square = (x - center[:, 0, None, None]) ** 2 + (y - center[:, 1, None, None]) ** 2
    maps = rng.uniform(*peak, (count, 1, 1)) * np.exp(-square / 8)
    maps += noise * rng.standard_normal(maps.shape)
    return np.moveaxis(maps, 0, -1)[None].astype(np.float32)


@pytest.mark.parametrize("name", ["encode_full", "encode_small"])
def test_encode_golden(name):
    points, visible = GOLDEN[f"{name}/keypoints_input_px"], GOLDEN[f"{name}/visible"]
    size, map_size = sizes(name)
    sigma = float(GOLDEN[f"{name}/sigma"])
    maps, weights = encode(points[None], visible[None], size, map_size, sigma)
    assert maps.dtype == weights.dtype == jnp.float32
    np.testing.assert_allclose(maps, golden_maps(name), atol=1e-5)
    np.testing.assert_array_equal(weights[0], GOLDEN[f"{name}/keypoint_weights"])


def test_encode_window_and_visibility():
    sigma, last = 2.0, 767 / 191
    edge = np.array([[-6.0, 0], [-6.6, 0], [191 + 6.0, 5], [191 + 6.6, 5], [9, 9], [9, 9], [9, 9]])
    points = (edge * last)[None]
    points[0, 5, 1] = np.nan
    visible = np.array([[1, 1, 1, 1, 2, 1, 0.4]])
    maps, weights = encode(points, visible, (768, 768), (192, 192), sigma)
    # Half-way rounds towards the larger number, and -6.6 + .5 is cut to -6: its window touches.
    np.testing.assert_array_equal(weights, [[1, 1, 1, 0, 1, 0, 0]])
    assert np.isfinite(maps).all()
    touched = np.asarray((maps > 0).any((1, 2))[0])
    np.testing.assert_array_equal(touched, [1, 1, 1, 0, 1, 0, 0])
    rows, columns = np.nonzero(np.asarray(maps[0, :, :, 4]))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 15, 3, 15)


@pytest.mark.parametrize("name", ["encode_full", "encode_small"])
def test_decode_golden_of_encoded_maps(name):
    points, scores = decode(golden_maps(name), sizes(name)[0])
    drawn = GOLDEN[f"{name}/keypoint_weights"] > 0
    want = GOLDEN[f"{name}/decoded_keypoints_input_px"]
    np.testing.assert_allclose(points[0][drawn], want[drawn], atol=1e-3)
    np.testing.assert_array_equal(scores[0], GOLDEN[f"{name}/decoded_scores"])
    np.testing.assert_array_equal(points[0][~drawn], 0)


@pytest.mark.parametrize("name", ["decode_noisy", "decode_edges"])
def test_decode_golden_of_hard_maps(name):
    maps = golden_maps(name)
    points, scores = decode(maps, SIZE)
    np.testing.assert_allclose(points[0], GOLDEN[f"{name}/keypoints_input_px"], atol=1e-3)
    np.testing.assert_array_equal(scores[0], GOLDEN[f"{name}/scores"])
    stride = np.array(SIZE) / (np.array(MAP) - 1)
    offset = np.asarray(points[0], np.float64) / stride - GOLDEN[f"{name}/argmax_xy"]
    np.testing.assert_allclose(offset, GOLDEN[f"{name}/subpixel_offset_hm"], atol=1e-4)


@pytest.mark.parametrize("kernel", [11, 17])
def test_blur_weights_golden(kernel):
    weights = heatmaps.blur_weights(np.arange(-10, 11), kernel)
    outside = (21 - kernel) // 2
    np.testing.assert_allclose(
        weights, np.pad(GOLDEN[f"blur_kernel_1d_k{kernel}"], outside), atol=1e-7
    )


@pytest.mark.parametrize("name", ["decode_noisy", "decode_edges"])
def test_slow_blur_is_the_reference_s(name):
    raw, want = GOLDEN[f"{name}/heatmaps"][:1], GOLDEN[f"{name}/blurred_ch0"]
    blurred = slow_blur(raw)
    np.testing.assert_allclose(blurred[0] * raw.max() / blurred.max(), want, atol=1e-6)


@pytest.mark.parametrize("kernel", [11, 17])
@pytest.mark.parametrize("peak", [(0.05, 1.2), (0.0009, 0.003), (40, 90)])
def test_decode_against_a_slow_codec(kernel, peak):
    """Weak peaks meet the lower clip and strong ones the upper; there the rescaling matters."""
    maps = blobs(5, peak=peak, noise=0.02 * peak[0])
    want, tops = slow_decode(np.moveaxis(maps[0], -1, 0), SIZE, kernel)
    points, scores = decode(maps, SIZE, kernel)
    np.testing.assert_array_equal(scores[0], tops)
    # A flat top clipped at 50 leaves a Hessian of rounding errors: no position to compare.
    steady = np.abs(want / (np.array(SIZE) / (np.array(MAP) - 1))).max(-1) < 100
    assert steady.sum() > 0.5 * steady.size
    np.testing.assert_allclose(points[0][steady], want[steady], atol=1e-3)


def test_maps_without_a_peak_are_defined():
    good = golden_maps("decode_degenerate")[0, :, :, 0]
    nan, inf, minus_inf, spike = good.copy(), good.copy(), good.copy(), good - 5
    nan[7, 3] = np.nan
    inf[7, 3] = np.inf
    minus_inf[7, 3] = -np.inf
    spike[7, 3] = 1e-3
    negative = -1 - np.abs(good - 0.5)
    hopeless = [0 * good, negative, 0 * good + 0.7, nan, inf, minus_inf, 0 * good + np.nan]
    maps = np.stack([good, *hopeless, spike, good], -1)[None]
    points, scores = decode(maps, SIZE)
    want, want_scores = decode(good[None, :, :, None], SIZE)
    assert np.isfinite(points).all() and np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0, 1:-2], 0)
    stride = np.float32(SIZE) / (np.float32(MAP) - 1)
    pixels = np.asarray(points[0]) / stride
    y, x = np.unravel_index(negative.argmax(), negative.shape)
    raw = [(0, 0), (x, y), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (3, 7)]
    np.testing.assert_allclose(pixels[1:-1], raw, atol=1e-5)
    assert scores[0, -2] == np.float32(1e-3)
    # The neighbours of a NaN map keep their exact positions.
    np.testing.assert_allclose(points[0, [0, -1]], np.tile(want[0], (2, 1)), atol=1e-5)
    np.testing.assert_array_equal(scores[0, [0, -1]], np.tile(want_scores[0], 2))


def test_an_almost_flat_top_feels_the_epsilon():
    """Slope 2^-17 and curvature -2^-16 make half a pixel; 2^-23 added to the latter a bit more."""
    along_x = np.array([0, 0, 1 - 2.0**-16, 1, 1, 1 - 2.0**-16, 0])
    flat = along_x * np.where(np.arange(9) == 4, 1.0, 0.5)[:, None]
    points, _ = decode(flat[None, ..., None], (6, 8), 1)
    want = [3 + 2.0**-17 / (2.0**-16 - 2.0**-23), 4]
    np.testing.assert_allclose(points[0, 0], want, atol=1e-4)


@pytest.mark.parametrize("step", [np.nan, np.inf])
def test_an_undefined_step_is_not_taken(monkeypatch, step):
    maps = golden_maps("decode_noisy")
    singular = jnp.full((1, maps.shape[-1], 2), step)
    monkeypatch.setattr(heatmaps, "_newton_step", lambda log_bijk: singular)
    points, scores = jax.jit(lambda maps: heatmaps.decode(maps, SIZE))(maps)
    want = GOLDEN["decode_noisy/argmax_xy"] * (np.array(SIZE) / (np.array(MAP) - 1))
    np.testing.assert_allclose(points[0], want, rtol=1e-6)
    np.testing.assert_array_equal(scores[0], GOLDEN["decode_noisy/scores"])


def test_degenerate_golden_keeps_its_good_maps():
    points, scores = decode(golden_maps("decode_degenerate"), SIZE)
    want = GOLDEN["decode_degenerate/keypoints_input_px"]
    np.testing.assert_allclose(points[0, [0, 3]], want[[0, 3]], atol=1e-3)
    np.testing.assert_array_equal(scores[0], [1, 0, 0, 1])


@pytest.mark.parametrize(
    "size, map_size, sigma", [((768, 1024), (192, 256), 6.0), (SIZE, MAP, 2.0)]
)
def test_round_trip_through_the_picture(size, map_size, sigma):
    """Picture -> crop -> maps -> crop -> picture is exact."""
    rng = np.random.default_rng(7)
    corner, extent = rng.uniform(0, 400, (3, 2)), rng.uniform(50, 500, (3, 2))
    boxes = np.concatenate([corner, corner + extent], -1)
    center, scale = affine.box_to_center_scale(boxes, size[0] / size[1])
    share = rng.uniform(0.3, 0.7, (3, 20, 2))
    points = (center - scale / 2)[:, None] + share * scale[:, None]
    crop = affine.transform_points(affine.udp_matrix(center, scale, 0.0, size), points)
    maps, weights = encode(crop, np.ones((3, 20)), size, map_size, sigma)
    decoded, scores = decode(maps, size)
    back = affine.crop_to_picture(decoded, center, scale, size)
    assert (weights == 1).all() and (scores > 0.9).all()
    np.testing.assert_allclose(back, points, atol=2e-3)
    # The decoder's known factor, size / (size - 1).
    np.testing.assert_allclose(decoded, crop * (np.array(size) / (np.array(size) - 1)), atol=2e-3)


def test_flip_golden():
    maps, mirrored, want = (
        np.moveaxis(GOLDEN[f"flip/{name}"], 1, -1)
        for name in ("heatmaps", "heatmaps_from_flipped_image", "averaged")
    )
    flip = GOLDEN["flip/flip_indices"]
    np.testing.assert_allclose(heatmaps.flip_average(maps, mirrored, flip), want, atol=1e-7)
    with pytest.raises(ValueError, match="each of the 9 map channels once"):
        heatmaps.flip_average(maps, mirrored, [0, 0, *flip[2:]])
    with pytest.raises(ValueError, match="each of the 9 map channels once"):
        heatmaps.flip_average(maps, mirrored, flip[:8])


def test_traced_once_and_half_precision_maps_give_fp32():
    traces = []

    @jax.jit
    def both(points, visible):
        traces.append(1)
        maps, weights = encode(points, visible, SIZE, MAP, 2.0)
        return decode(maps.astype(jnp.bfloat16), SIZE), weights

    rng = np.random.default_rng(8)
    with jax.numpy_rank_promotion("raise"):
        for visible in (1.0, 0.0):
            points = jnp.asarray(rng.uniform(10, 80, (2, 9, 2)), jnp.float32)
            (decoded, scores), weights = both(points, jnp.full((2, 9), visible))
            assert decoded.dtype == scores.dtype == weights.dtype == jnp.float32
            assert (scores > 0.9).all() if visible else (scores == 0).all()
    assert len(traces) == 1


def test_vmap_and_batch_agree():
    maps = jnp.asarray(blobs(9, 20)).reshape(*MAP[::-1], 4, 5).transpose(3, 0, 1, 2)
    points, scores = decode(maps, SIZE)
    each = jax.vmap(lambda m: decode(m[None], SIZE))(maps)
    np.testing.assert_allclose(each[0][:, 0], points, atol=1e-4)
    np.testing.assert_array_equal(each[1][:, 0], scores)
    for i in range(5):
        want, _ = slow_decode(np.moveaxis(np.asarray(maps[i]), -1, 0), SIZE)
        np.testing.assert_allclose(points[i], want, atol=1e-3)


def test_every_product_is_of_highest_precision():
    jaxpr = jax.make_jaxpr(lambda maps: decode(maps, SIZE))(jnp.ones((1, *MAP[::-1], 2)))
    lines = str(jaxpr).split("dot_general[")[1:]
    assert len(lines) == 4
    assert all("HIGHEST" in line.split("]")[0] + line.split("\n ] ")[0] for line in lines)
