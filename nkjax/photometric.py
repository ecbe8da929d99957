"""Colour and sharpness of a batch of pictures: the photometric part of the Sapiens recipe.

Pictures are (B, H, W, 3) float32 RGB grey levels 0 ... 255; `keys` are B random keys, one per
sample (`views.sample_keys`). Everything is pure, may stand under `jit`, and is fp32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

BRIGHTNESS = 32.0  # grey levels, either way
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DEG = 36.0  # of 360, either way: 18 on OpenCV's scale of 180
CHANCE = 0.5
BLUR_CHANCE = 0.2
BLUR_REACHES = (1, 2, 3)  # box widths 3, 5 and 7 px


class Distortion(NamedTuple):
    """What `distort` does to each sample, (B,) each; brightness 0, factors 1 and hue 0 do nothing.

    brightness: grey levels added; contrast, saturation: factors; hue_deg: of 360; contrast_last:
    whether contrast comes after saturation and hue instead of before.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue_deg: jax.Array
    contrast_last: jax.Array


def photometric_distortion(images_bhwc, keys):
    """Change brightness, contrast, saturation and hue, each of them with probability 0.5.

    Returns the shape given, clipped to 0 ... 255. Channels are never swapped, unlike in mmpose: a
    blue child is no child. Source: mmpose PhotometricDistortion (facts only), notes sapiens A8.
    """
    return distort(images_bhwc, draw_distortion(keys))


def draw_distortion(keys) -> Distortion:
    """Draw the recipe's distortion for every sample from its key."""

    def draw(key):
        parts = jax.random.split(key, 9)

        def uniform(i, low, high, otherwise):
            value = jax.random.uniform(parts[2 * i], minval=low, maxval=high)
            return jnp.where(jax.random.bernoulli(parts[2 * i + 1], CHANCE), value, otherwise)

        return Distortion(
            brightness=uniform(0, -BRIGHTNESS, BRIGHTNESS, 0.0),
            contrast=uniform(1, *CONTRAST, 1.0),
            saturation=uniform(2, *SATURATION, 1.0),
            hue_deg=uniform(3, -HUE_DEG, HUE_DEG, 0.0),
            contrast_last=jax.random.bernoulli(parts[8]),
        )

    return jax.vmap(draw)(keys)


def distort(images_bhwc, distortion: Distortion):
    """Apply a distortion to every sample, clipping to 0 ... 255 after each step as mmpose does."""

    def one(image, d):
        image = jnp.clip(image + d.brightness, 0.0, 255.0)
        image = jnp.clip(image * jnp.where(d.contrast_last, 1.0, d.contrast), 0.0, 255.0)
        hue, saturation, value = rgb_to_hsv(image)
        saturation = jnp.clip(saturation * d.saturation, 0.0, 1.0)
        changed = hsv_to_rgb(hue + d.hue_deg / 60.0, saturation, value)
        # To HSV and back is not exact, so a sample without a change skips it.
        image = jnp.where((d.saturation != 1.0) | (d.hue_deg != 0.0), changed, image)
        return jnp.clip(image * jnp.where(d.contrast_last, d.contrast, 1.0), 0.0, 255.0)

    return jax.vmap(one)(images_bhwc, distortion)


def rgb_to_hsv(image_hwc):
    """Split RGB (..., 3) into hue in sixths of a turn (0 ... 6), saturation 0 ... 1 and value."""
    red, green, blue = (image_hwc[..., i] for i in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    over = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / over,
        jnp.where(value == green, 2.0 + (blue - red) / over, 4.0 + (red - green) / over),
    )
    return jnp.mod(hue, 6.0), chroma / jnp.where(value > 0, value, 1.0), value


def hsv_to_rgb(hue, saturation, value):
    """Join hue in sixths of a turn (any number), saturation 0 ... 1 and value to RGB (..., 3)."""

    def channel(n):
        k = jnp.mod(n + hue, 6.0)
        return value - value * saturation * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], -1)


def blur(images_bhwc, keys):
    """Blur with a box of 3, 5 or 7 px with probability 0.2; edges are mirrored as OpenCV does.

    The recipe has a box blur and a median blur with 0.1 each. A median needs a sort of up to 49
    values per pixel; here a box takes its place, which removes the same detail.
    Source: notes sapiens A8.
    """
    return box_blur(images_bhwc, draw_reach(keys))


def draw_reach(keys):
    """Draw the reach of the box, (B,) int32 px: width 2 x reach + 1, and 0 for no blur."""

    def draw(key):
        chance, size = jax.random.split(key)
        reach = jax.random.randint(size, (), BLUR_REACHES[0], BLUR_REACHES[-1] + 1)
        return jnp.where(jax.random.bernoulli(chance, BLUR_CHANCE), reach, 0)

    return jax.vmap(draw)(keys)


def box_blur(images_bhwc, reach_b):
    """Average over a square of 2 x reach + 1 px around each pixel; reach at most 3 px."""

    def one(image, reach):
        for axis in (0, 1):
            image = _mean_along(image, reach, axis)
        return image

    return jax.vmap(one)(images_bhwc, reach_b)


def _mean_along(image, reach, axis):
    most = BLUR_REACHES[-1]
    size = image.shape[axis]
    padding = [(most, most) if a == axis else (0, 0) for a in range(3)]
    padded = jnp.pad(image, padding, mode="reflect")
    total = jnp.zeros_like(image)
    for offset in range(-most, most + 1):
        shifted = jax.lax.slice_in_dim(padded, most + offset, most + offset + size, axis=axis)
        total = total + jnp.where(abs(offset) <= reach, shifted, 0.0)
    return total / (2 * reach + 1).astype(image.dtype)
