"""Boxes, matrices and points against the recorded reference (codec goldens) and plain algebra."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.geometry import affine

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "codec" / "udp_codec.npz")
SIZES = [(768, 1024), (96, 128)]


def random_crops(seed, count=200):
    rng = np.random.default_rng(seed)
    corner, extent = rng.uniform(-50, 800, (count, 2)), rng.uniform(3, 600, (count, 2))
    center, scale = affine.box_to_center_scale(np.concatenate([corner, corner + extent], -1), 0.75)
    return center, scale, rng.uniform(-180, 180, count), rng


def error(got, want):
    """Largest difference, relative for numbers above 1."""
    return (np.abs(np.asarray(got) - want) / np.maximum(1, np.abs(want))).max()


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_boxes_and_matrices_are_the_reference_s(array):
    boxes, turns = array(GOLDEN["bbox/xyxy"]), array(GOLDEN["bbox/rotation_deg"])
    center, scale = affine.box_to_center_scale(boxes, 3 / 4)
    assert error(center, GOLDEN["bbox/center"]) < 1e-6
    assert error(scale, GOLDEN["bbox/scale_pad1.25_aspect3:4"]) < 1e-6
    for width, height in SIZES:
        center, scale = affine.box_to_center_scale(boxes, width / height)
        matrix = affine.udp_matrix(center, scale, turns, (width, height))
        want = GOLDEN[f"bbox/udp_warp_{width}x{height}"]
        assert error(matrix[..., :2], want[..., :2]) < 1e-6
        # A translation is a difference of larger terms, and the recorded one was taken in fp32.
        terms = np.abs(want[..., :2]).max((1, 2)) * (np.abs(center) + scale).max(-1)
        shift = np.abs(np.asarray(matrix[..., 2]) - want[..., 2]).max(-1)
        assert (shift < 2e-7 * terms).all() and (shift < 1e-5 * np.abs(want).max((1, 2))).all()


@pytest.mark.parametrize("name", ["warp_norot", "warp_rot"])
def test_keypoints_follow_the_crop(name):
    size = tuple(GOLDEN["warp/out_size_wh"])
    center, scale = affine.box_to_center_scale(GOLDEN["warp/bbox_xyxy"], size[0] / size[1])
    np.testing.assert_allclose(scale, GOLDEN[f"{name}/bbox_scale"], rtol=1e-6)
    turn = GOLDEN["warp/rot_deg"] if name == "warp_rot" else 0
    matrix = affine.udp_matrix(center, scale, turn, size)
    got = affine.transform_points(matrix, GOLDEN["warp/keypoints"])
    np.testing.assert_allclose(got, GOLDEN[f"{name}/transformed_keypoints"], atol=1e-4)


def test_decoded_points_return_to_the_picture_as_the_reference_s():
    points = GOLDEN["toimage/keypoints_input_px"]
    center, scale = GOLDEN["bbox/center"], GOLDEN["bbox/scale_pad1.25_aspect3:4"]
    got = affine.crop_to_picture(points, center, scale, (768, 1024))
    np.testing.assert_allclose(got, GOLDEN["toimage/keypoints_image_px"], atol=1e-9)
    got = affine.crop_to_picture(jnp.asarray(points), center, scale, (768, 1024))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, GOLDEN["toimage/keypoints_image_px"], rtol=1e-6, atol=1e-4)


def test_the_corners_of_an_upright_crop_are_the_corners_of_the_box():
    center, scale, _, _ = random_crops(0)
    matrix = affine.udp_matrix(center, scale, 0.0, (768, 1024))
    ends = np.stack([center - scale / 2, center + scale / 2], -2)
    got = affine.transform_points(matrix, ends)
    np.testing.assert_allclose(got, np.broadcast_to([[0, 0], [767, 1023]], got.shape), atol=1e-8)


def test_a_quarter_turn_moves_right_to_down():
    matrix = affine.udp_matrix((50.0, 50.0), (60.0, 60.0), 90.0, (61, 61))
    np.testing.assert_allclose(affine.transform_points(matrix, [[60.0, 50.0]]), [[30, 40]])


@pytest.mark.parametrize("size", SIZES)
def test_inverse_and_product_against_matrix_algebra(size):
    center, scale, turns, rng = random_crops(1)
    matrix = affine.udp_matrix(center, scale, turns, size)
    points = rng.uniform(-100, 900, (200, 7, 2))

    def square(m):
        return np.concatenate([m, np.broadcast_to([[[0.0, 0, 1]]], (len(m), 1, 3))], 1)

    inverse = np.linalg.inv(square(matrix))[:, :2]
    np.testing.assert_allclose(affine.invert(matrix), inverse, rtol=1e-9, atol=1e-9)
    product = (square(matrix[::-1]) @ square(matrix))[:, :2]
    assert error(affine.compose(matrix[::-1], matrix), product) < 1e-12
    there = affine.transform_points(matrix, points)
    lifted = np.concatenate([points, np.ones((200, 7, 1))], -1)
    assert error(there, lifted @ matrix.transpose(0, 2, 1)) < 1e-12
    back = affine.transform_points(affine.invert(matrix), there)
    np.testing.assert_allclose(back, points, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_numpy_and_jax_agree(size):
    center, scale, turns, rng = random_crops(2)
    points = rng.uniform(0, 800, (200, 5, 2))
    host = affine.udp_matrix(center, scale, turns, size)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        device = affine.udp_matrix(jnp.asarray(center), scale, turns, size)
        pairs = [
            (host, device),
            (affine.invert(host), affine.invert(device)),
            (affine.compose(host, host[::-1]), affine.compose(device, device[::-1])),
            (affine.transform_points(host, points), affine.transform_points(device, points)),
        ]
    # Translations are differences of products of about 1000 px with a zoom of up to 300.
    size_of_terms = np.abs(host).max((1, 2))
    for want, got in pairs:
        assert want.dtype == np.float64 and got.dtype == jnp.float32
        each = np.abs(np.asarray(got) - want).reshape(200, -1).max(-1)
        assert (each < 2e-6 * (size_of_terms + np.abs(want).reshape(200, -1).max(-1))).all()


def test_leading_axes_are_batch_axes():
    center, scale, turns, rng = random_crops(3, 12)
    points = rng.uniform(0, 800, (3, 4, 5, 2))
    shaped = [a.reshape(3, 4, *a.shape[1:]) for a in (center, scale, turns)]
    matrix = affine.udp_matrix(*shaped, (96, 128))
    moved = affine.transform_points(affine.compose(affine.invert(matrix), matrix), points)
    np.testing.assert_allclose(moved, points, atol=1e-9)
    flat = affine.crop_to_picture(points.reshape(12, 5, 2), center, scale, (96, 128))
    nested = affine.crop_to_picture(points, *shaped[:2], (96, 128))
    np.testing.assert_array_equal(nested.reshape(12, 5, 2), flat)


def test_under_jit_vmap_and_grad():
    center, scale, turns, rng = random_crops(4, 6)
    points = jnp.asarray(rng.uniform(0, 800, (6, 5, 2)), jnp.float32)
    traces = []

    def crop(center, scale, turn, points):
        traces.append(1)
        return affine.transform_points(affine.udp_matrix(center, scale, turn, (96, 128)), points)

    fast = jax.jit(jax.vmap(crop))
    for factor in (1.0, 1.5, 2.0):
        got = fast(jnp.asarray(center), jnp.asarray(scale * factor), jnp.asarray(turns), points)
        matrix = affine.udp_matrix(center, scale * factor, turns, (96, 128))
        want = affine.transform_points(matrix, np.asarray(points))
        assert error(got, want) < 1e-4
    assert len(traces) == 1
    gradient = jax.grad(lambda p: crop(center[0], scale[0], turns[0], p)[..., 0].sum())(points[0])
    matrix = affine.udp_matrix(center[0], scale[0], turns[0], (96, 128))
    np.testing.assert_allclose(gradient, np.broadcast_to(matrix[0, :2], (5, 2)), rtol=1e-5)


def test_no_matrix_product_that_an_accelerator_could_round():
    def both(center, points):
        matrix = affine.udp_matrix(center, center, 10.0, (96, 128))
        return affine.transform_points(affine.compose(affine.invert(matrix), matrix), points)

    jaxpr = str(jax.make_jaxpr(both)(jnp.ones((2, 2)), jnp.ones((2, 5, 2))))
    assert "dot_general" not in jaxpr and "f32[2,5,2]" in jaxpr


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 5), (9, 5, 7, 8), (5, 9, 7, 8), (0, 0, np.nan, 5), (0, 0, np.inf, 5)]
)
def test_a_box_without_extent_is_refused_in_one_line(box):
    with pytest.raises(ValueError, match="box without extent") as caught:
        affine.box_to_center_scale([(0, 0, 4, 4), box], 0.75)
    assert "\n" not in str(caught.value)
