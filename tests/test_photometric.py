"""Colour and blur against colorsys, OpenCV and the recipe's numbers."""

import colorsys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import photometric, views
from nkjax.photometric import Distortion

MANY = 4000
KEYS = views.sample_keys(7, np.arange(MANY))


def near(share, chance, count=MANY):
    """Whether a share of draws fits a chance: within 4 standard deviations."""
    return abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / count)


def spread(values, low, high):
    """Assert that draws fill a range evenly and never leave it."""
    values = np.asarray(values, np.float64)
    assert low <= values.min() and values.max() <= high
    for tenth in range(10):
        edges = low + (high - low) * np.array([tenth, tenth + 1]) / 10
        assert near(((values >= edges[0]) & (values < edges[1])).mean(), 0.1, len(values))


def colours():
    rng = np.random.default_rng(0)
    plain = np.array(np.meshgrid([0, 128, 255], [0, 128, 255], [0, 128, 255])).reshape(3, -1).T
    return np.concatenate([plain, rng.uniform(0, 255, (500, 3))]).astype(np.float32)


def test_hue_saturation_value_are_those_of_colorsys():
    rgb = colours()
    hue, saturation, value = photometric.rgb_to_hsv(jnp.asarray(rgb))
    want = np.array([colorsys.rgb_to_hsv(*(c / 255)) for c in rgb.astype(np.float64)])
    turn = np.abs(np.asarray(hue) / 6 - want[:, 0])
    assert np.minimum(turn, 1 - turn).max() < 1e-5
    np.testing.assert_allclose(saturation, want[:, 1], atol=1e-5)
    np.testing.assert_allclose(value / 255, want[:, 2], atol=1e-6)
    np.testing.assert_allclose(photometric.hsv_to_rgb(hue, saturation, value), rgb, atol=1e-3)


def by_hand(rgb, brightness, contrast, saturation, hue_deg, contrast_last):
    """The same distortion of one colour in Python's doubles."""
    rgb = np.clip(rgb.astype(np.float64) + brightness, 0, 255)
    if not contrast_last:
        rgb = np.clip(rgb * contrast, 0, 255)
    h, s, v = colorsys.rgb_to_hsv(*rgb / 255)
    rgb = 255 * np.array(colorsys.hsv_to_rgb((h + hue_deg / 360) % 1, min(s * saturation, 1), v))
    return np.clip(rgb * contrast, 0, 255) if contrast_last else rgb


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("numbers", [(20, 1.4, 1.3, 30), (-32, 0.5, 0.5, -36), (0, 1, 1, 0)])
def test_a_distortion_is_the_one_computed_by_hand(numbers, last):
    rgb = colours()
    d = Distortion(*(jnp.array([n], jnp.float32) for n in numbers), jnp.array([last]))
    got = jax.jit(photometric.distort)(jnp.asarray(rgb)[None, None], d)
    want = np.array([by_hand(colour, *numbers, last) for colour in rgb])
    np.testing.assert_allclose(got[0, 0], want, atol=2e-2)


def test_distortions_have_the_recipe_s_chances_and_ranges():
    d = photometric.draw_distortion(KEYS)
    changed = np.stack([d.brightness != 0, d.contrast != 1, d.saturation != 1, d.hue_deg != 0])
    assert all(near(share, 0.5) for share in changed.mean(1))
    # Independent of one another: each of the 16 combinations in one case of 16.
    combinations = np.bincount((changed * [[1], [2], [4], [8]]).sum(0), minlength=16) / MANY
    assert all(near(share, 1 / 16) for share in combinations)
    spread(d.brightness[changed[0]], -32, 32)
    spread(d.contrast[changed[1]], 0.5, 1.5)
    spread(d.saturation[changed[2]], 0.5, 1.5)
    spread(d.hue_deg[changed[3]], -36, 36)
    assert near(np.mean(d.contrast_last), 0.5)


def test_photometric_distortion_draws_then_distorts_and_stays_in_range():
    pictures = jnp.asarray(np.random.default_rng(1).uniform(0, 255, (16, 9, 6, 3)), jnp.float32)
    got = jax.jit(photometric.photometric_distortion)(pictures, KEYS[:16])
    draws = jax.tree.map(np.asarray, photometric.draw_distortion(KEYS[:16]))
    assert got.dtype == jnp.float32 and got.min() >= 0 and got.max() <= 255
    for i in range(16):
        want = by_hand(np.asarray(pictures[i, 4, 3]), *(float(value[i]) for value in draws))
        np.testing.assert_allclose(got[i, 4, 3], want, atol=2e-2)


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
def test_blur_is_opencv_s_box(reach):
    picture = np.random.default_rng(2).uniform(0, 255, (13, 8, 3)).astype(np.float32)
    want = cv2.blur(picture, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REFLECT_101)
    got = jax.jit(photometric.box_blur)(jnp.asarray(picture)[None], jnp.array([reach]))
    np.testing.assert_allclose(got[0], want, atol=1e-3)


def test_blur_has_the_recipe_s_chance_and_all_three_widths():
    reach = np.asarray(photometric.draw_reach(KEYS))
    shares = np.bincount(reach) / MANY
    assert len(shares) == 4 and near(shares[0], 0.8)
    assert all(near(share, 0.2 / 3) for share in shares[1:])
    dot = jnp.zeros((200, 9, 9, 3)).at[:, 4, 4].set(255.0)
    width = np.sqrt((photometric.blur(dot, KEYS[:200]) > 0).sum((1, 2, 3)) / 3)
    np.testing.assert_array_equal(width, 2 * reach[:200] + 1)
