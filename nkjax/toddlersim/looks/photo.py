"""What a camera does to a picture: blur, motion, exposure, colour cast, vignette and noise.

All of it is symmetric about each pixel, so labels stay true. The camera of test subjects is another
one. Source: notes method 6.5.
"""

from typing import NamedTuple

import numpy as np


class Faults(NamedTuple):
    """Ranges of what a camera does; a pair is a range.

    spread: standard deviation of the point spread, px; motion_p: share of pictures that move;
    motion: length of their smear, share of the picture's larger side; gain: exposure, drawn evenly
    in its logarithm; cast: largest factor between channels; vignette: loss at the corners; read:
    noise in the dark; shot: noise of white beyond that (standard deviations, white is 1).
    """

    spread: tuple
    motion_p: float
    motion: tuple
    gain: tuple
    cast: float
    vignette: tuple
    read: tuple
    shot: tuple


TRAINED = Faults(
    (0.45, 0.7), 0.25, (0.01, 0.022), (0.8, 1.25), 1.08, (0.0, 0.2), (0.003, 0.01), (0.01, 0.025),
)  # fmt: skip
HELD_OUT = Faults(
    (0.5, 0.9), 0.25, (0.012, 0.026), (0.75, 1.2), 1.16, (0.1, 0.35), (0.007, 0.015),
    (0.018, 0.035),
)  # fmt: skip
# A camera brings the mean of a picture this far, in logarithms, towards a mean of GREY.
GREY, EXPOSING = 0.45, 0.7


def develop(rgb_hw3, rng: np.random.Generator, held_out: bool) -> np.ndarray:
    """Turn a rendered picture, float in [0, 1], into what a camera gives, uint8.

    held_out: the camera of test subjects, duller, noisier and with another colour cast.
    """
    faults = HELD_OUT if held_out else TRAINED
    # Always the same draws in the same order, so that one range can change alone.
    coin, spread, length, angle, gain, corner, read, shot = rng.random(8)
    cast = rng.uniform(-1, 1, 3)
    image = blur(np.asarray(rgb_hw3, np.float32), _between(faults.spread, spread))
    if coin < faults.motion_p:
        pixels = _between(faults.motion, length) * max(image.shape[:2])
        angle *= np.pi
        image = smear(image, (pixels * np.cos(angle), pixels * np.sin(angle)))
    low, high = np.log(faults.gain) + EXPOSING * np.log(GREY / max(float(image.mean()), 0.02))
    balance = np.exp(low + (high - low) * gain + cast * np.log(faults.cast) / 2)
    image *= balance.astype(np.float32)
    image *= vignette(image.shape[:2], _between(faults.vignette, corner))[..., None]
    image += noise(image, rng, _between(faults.read, read), _between(faults.shot, shot))
    np.clip(image, 0, 1, out=image)
    image *= 255
    return np.rint(image, out=image).astype(np.uint8)


def blur(image_hw3, spread) -> np.ndarray:
    """Blur with a separable kernel of five taps and a standard deviation in px, up to about 1.

    It also hides that rendering looked at one point per pixel. The edges are repeated.
    """
    taps = np.exp(-0.5 * (np.arange(-2, 3) / max(spread, 1e-3)) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image_hw3, padding, "edge")
        size = image_hw3.shape[axis]
        part = [padded[i : i + size] if axis == 0 else padded[:, i : i + size] for i in range(5)]
        image_hw3 = part[2] * taps[2]
        image_hw3 += (part[1] + part[3]) * taps[1]
        image_hw3 += (part[0] + part[4]) * taps[0]
    return image_hw3


def smear(image_hw3, way_xy) -> np.ndarray:
    """Average an odd number of copies along a way of px, as many before a pixel as after it.

    The edges are repeated. Steps are whole pixels, mirrored about 0, so nothing moves on average.
    """
    half_x, half_y = way_xy[0] / 2, way_xy[1] / 2
    count = max(1, int(np.ceil(max(abs(half_x), abs(half_y)) - 0.5)))
    margin = int(np.ceil(max(abs(half_x), abs(half_y)))) + 1
    padded = np.pad(image_hw3, ((margin, margin), (margin, margin), (0, 0)), "edge")
    height, width = image_hw3.shape[:2]
    total = image_hw3.copy()
    for step in range(1, count + 1):
        # Rounding half to even is symmetric about 0.
        x, y = (int(np.rint(half * step / count)) for half in (half_x, half_y))
        for sign in (-1, 1):
            top, left = margin + sign * y, margin + sign * x
            total += padded[top : top + height, left : left + width]
    total /= 2 * count + 1
    return total


def vignette(size_hw, loss) -> np.ndarray:
    """Return the light (H, W) float32 that is left: 1 in the middle, 1 - loss in the corners."""
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) ** 2 for size in size_hw)
    return 1 - np.float32(loss / 2) * (y[:, None] + x)


def noise(image_hw3, rng: np.random.Generator, read, shot) -> np.ndarray:
    """Draw noise (H, W, 3) float32 of mean 0 and variance read^2 + shot^2 * brightness."""
    drawn = rng.standard_normal(image_hw3.shape, np.float32)
    drawn *= np.sqrt(np.float32(read**2) + np.float32(shot**2) * np.maximum(image_hw3, 0))
    return drawn


def _between(pair, share):
    return pair[0] + (pair[1] - pair[0]) * share
